/* MaxPool and AveragePool, channels-last, forward and backward. */
#ifndef RUNG_NN_POOL_H
#define RUNG_NN_POOL_H

#include "nn/layout.h"
#include "nn/vec.h"

/* A single spatial axis is horizontal. */
typedef struct pool {
    const vec_ops *ops;
    size_t         batch, channels;
    int64_t        in[2], out[2], kernel[2], stride[2], dilation[2], begin[2], end[2];
    bool           max, count_pad;
    bool           clamp;
    float          lo, hi;
    int            out_buf;
} pool;

/* Window positions [from, to) that exist along an axis, and how many the divisor counts. */
typedef struct pool_extent {
    int64_t from, to, counted;
} pool_extent;
/* Of output position `at`. */
pool_extent pool_meet(const pool *p, int axis, int64_t at);

/* Everything but the clamp and the buffer, in l->mem. */
rung_status pool_open(const lowering *l, pool **out, rung_error *err);

#endif
