/* Reductions over axes that lie side by side in memory: [outer][n][inner] to [outer][inner]. */
#ifndef RUNG_NN_REDUCE_H
#define RUNG_NN_REDUCE_H

#include "nn/layout.h"

typedef struct reduced_axes {
    size_t outer, n, inner;
    size_t piece; /* n is summed in pieces of this length: long sums keep their digits */
} reduced_axes;

/* Of ReduceMean, ReduceSum, ReduceMax, GlobalAveragePool, GlobalMaxPool. RUNG_EUNSUPPORTED: axes
 * that are not constant, that lie apart, or an output in another order. */
rung_status reduce_read(const lowering *l, reduced_axes *r, rung_error *err);

#endif
