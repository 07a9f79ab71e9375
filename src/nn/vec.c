#include "nn/vec.h"

#include "base/cpu.h"
#include "nn/vec_train.h"

extern const vec_ops vec_ops_c;
extern const vec_train vec_train_c;
#if defined(__x86_64__)
extern const vec_ops vec_ops_avx2, vec_ops_avx512;
extern const vec_train vec_train_avx2, vec_train_avx512;
#endif

static const vec_ops *const rows[] = {
    /* slowest first */
    &vec_ops_c,
#if defined(__x86_64__)
    &vec_ops_avx2,
    &vec_ops_avx512,
#endif
};

static const vec_train *const training[] = {
    &vec_train_c,
#if defined(__x86_64__)
    &vec_train_avx2,
    &vec_train_avx512,
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

const vec_train *vec_train_pick(void)
{
    const vec_train *best = training[0];
    for (size_t i = 1; i < sizeof training / sizeof *training; i++) {
        if (cpu_has(training[i]->needs))
            best = training[i];
    }
    return best;
}
