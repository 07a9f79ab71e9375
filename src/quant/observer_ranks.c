/* Observations of several processes. */
#include <string.h>

#include "base/mem.h"
#include "quant/histogram.h"

/* What `from` observed: in its own o, elsewhere in copies of it, which are the caller's. */
static rung_status receive(ranks *r, int from, const observer *o, observer *to, rung_error *err)
{
    observer head = *o;
    rung_status st = ranks_share(r, from, &head, sizeof head, err);
    if (st != RUNG_OK)
        return st;
    *to = head;
    to->bins = o->bins ? mem_zero(HIST_SLOTS, sizeof *to->bins) : NULL;
    to->trail = mem_zero(to->n_trail + 1, 2 * sizeof *to->trail);
    if ((o->bins && !to->bins) || !to->trail)
        return fail_memory(err, "observations of all processes", HIST_SLOTS * sizeof *to->bins);
    if (from == ranks_index(r)) {
        memcpy(to->trail, o->trail, o->n_trail * 2 * sizeof *to->trail);
        if (o->bins)
            memcpy(to->bins, o->bins, HIST_SLOTS * sizeof *to->bins);
    }
    if (o->bins && (st = ranks_share(r, from, to->bins, HIST_SLOTS * sizeof *to->bins, err)) !=
        RUNG_OK)
        return st;
    return ranks_share(r, from, to->trail, to->n_trail * 2 * sizeof *to->trail, err);
}

static rung_status join(ranks *r, observer *o, rung_error *err)
{
    observer *all = observer_new(o->bins != NULL);
    rung_status st = all ? RUNG_OK : fail_memory(err, "observations of all processes", sizeof *all);
    for (int from = 0; from < ranks_count(r) && st == RUNG_OK; from++) {
        observer other = { 0 };
        if ((st = receive(r, from, o, &other, err)) == RUNG_OK)
            observer_append(all, &other);
        mem_free(other.trail);
        mem_free(other.bins);
    }
    if (st == RUNG_OK) {
        const observer mine = *o;
        *o = *all;
        *all = mine;
    }
    observer_free(all);
    return st;
}

rung_status observers_join(ranks *r, observer *const *list, size_t n, rung_error *err)
{
    rung_status st = RUNG_OK;
    for (size_t i = 0; r && i < n && st == RUNG_OK; i++)
        if (list[i])
            st = join(r, list[i], err);
    return st;
}
