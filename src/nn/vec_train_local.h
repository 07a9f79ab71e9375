/* Inside the files of the training loops that are compiled once per instruction set. */
#ifndef RUNG_NN_VEC_TRAIN_LOCAL_H
#define RUNG_NN_VEC_TRAIN_LOCAL_H

#include "nn/vec_local.h"
#include "nn/vec_train.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* n = LANES: a whole vector, known when compiled; otherwise a part of one. */
static inline vec fetch(const float *p, size_t n)
{
    return n == LANES ? load(p) : load_part(p, n);
}

static inline void put(float *p, vec v, size_t n)
{
    if (n == LANES)
        store(p, v);
    else
        store_part(p, v, n);
}

void VEC(train_window_max)(const float *x, size_t h, size_t row, size_t w, size_t column,
                           size_t channels, const float *dy, float *dx);
void VEC(train_window_mean)(size_t h, size_t row, size_t w, size_t column, size_t channels,
                            float share, const float *dy, float *dx);
extern const vec_train VEC(vec_train);

#endif
