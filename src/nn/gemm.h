/* Gemm and MatMul as one product of matrices, for the rows that run it forward and backward. */
#ifndef RUNG_NN_GEMM_H
#define RUNG_NN_GEMM_H

#include "nn/lib.h"

/* y = alpha * a b + bias: the last two dims are the matrices, those before them the batch, in which
 * a dim of a or b may be 1. */
typedef struct product {
    int         rank;
    dnnl_dims_t a, b, y; /* dims */
    dnnl_dims_t a_strides, b_strides, y_strides;
    float       alpha;
    float      *bias; /* [n] in l->mem; NULL: none */
} product;

/* Without the bias. RUNG_EUNSUPPORTED: shapes or layouts that have no fast row. */
rung_status product_of_gemm(const lowering *l, product *p, rung_error *err);
rung_status product_of_matmul(const lowering *l, product *p, rung_error *err);

#endif
