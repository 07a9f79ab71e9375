#include "nn/vec.h"

#include "base/cpu.h"

extern const vec_ops vec_ops_c;
#if defined(__x86_64__)
extern const vec_ops vec_ops_avx2, vec_ops_avx512;
#endif

static const vec_ops *const rows[] = {
    /* slowest first */
    &vec_ops_c,
#if defined(__x86_64__)
    &vec_ops_avx2,
    &vec_ops_avx512,
#endif
};

const vec_ops *vec_pick(void)
{
    const vec_ops *best = rows[0];
    for (size_t i = 1; i < sizeof rows / sizeof *rows; i++) {
        if (cpu_has(rows[i]->needs))
            best = rows[i];
    }
    return best;
}
