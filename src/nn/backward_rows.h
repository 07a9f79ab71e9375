/* The training rows, by operator: nn_lower_training and nn_lower_backward find them here. Called as
 * those of rows.h are; a backward row with at least one wanted input. */
#ifndef RUNG_NN_BACKWARD_ROWS_H
#define RUNG_NN_BACKWARD_ROWS_H

#include "nn/layout.h"

typedef rung_status (*backward_fill)(const lowering *l, unsigned wanted, step *s, rung_error *err);

rung_status conv_training(const lowering *l, step *s, rung_error *err);
rung_status gemm_training(const lowering *l, step *s, rung_error *err);
rung_status batchnorm_training(const lowering *l, step *s, rung_error *err);

rung_status conv_backward(const lowering *l, unsigned wanted, step *s, rung_error *err);
rung_status gemm_backward(const lowering *l, unsigned wanted, step *s, rung_error *err);
rung_status matmul_backward(const lowering *l, unsigned wanted, step *s, rung_error *err);
rung_status unary_backward(const lowering *l, unsigned wanted, step *s, rung_error *err);
rung_status binary_backward(const lowering *l, unsigned wanted, step *s, rung_error *err);
rung_status pool_backward(const lowering *l, unsigned wanted, step *s, rung_error *err);
rung_status reduce_backward(const lowering *l, unsigned wanted, step *s, rung_error *err);
rung_status batchnorm_backward(const lowering *l, unsigned wanted, step *s, rung_error *err);
rung_status softmax_backward(const lowering *l, unsigned wanted, step *s, rung_error *err);

/* The buffers of a backward step, in their order. */
static inline int at_out(const lowering *l, int i)
{
    return l->n_in + i;
}

static inline int at_dout(const lowering *l, int i)
{
    return l->n_in + l->n_out + i;
}

static inline int at_din(const lowering *l, int i)
{
    return l->n_in + 2 * l->n_out + i;
}

static inline bool wants(unsigned wanted, int i)
{
    return wanted >> i & 1;
}

#endif
