#include "measure/mixed_record.h"

#include "base/mem.h"

void mixed_record_free(mixed_record *m)
{
    if (!m)
        return;
    arena_free(m->mem);
    mem_free(m);
}

size_t mixed_count(const mixed_record *m, level of, double *macs_share)
{
    int64_t macs = 0;
    size_t n = 0;
    for (size_t i = 0; i < m->n_layers; i++)
        if (m->layers[i].level == of) {
            macs += m->layers[i].macs;
            n++;
        }
    *macs_share = m->macs > 0 ? (double)macs / (double)m->macs : 0;
    return n;
}
