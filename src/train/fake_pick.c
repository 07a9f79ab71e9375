#include "base/cpu.h"
#include "train/fake_vec.h"

extern const fake_vec fake_vec_c;
#if defined(__x86_64__)
extern const fake_vec fake_vec_avx2, fake_vec_avx512;
#endif

static const fake_vec *const rows[] = {
    /* slowest first */
    &fake_vec_c,
#if defined(__x86_64__)
    &fake_vec_avx2,
    &fake_vec_avx512,
#endif
};

const fake_vec *fake_vec_pick(void)
{
    const fake_vec *best = rows[0];
    for (size_t i = 1; i < sizeof rows / sizeof *rows; i++)
        if (cpu_has(rows[i]->needs))
            best = rows[i];
    return best;
}
