/* What matrix products share: shape rule and batch walk, for float and integer operators. */
#ifndef RUNG_OPS_GEMM_H
#define RUNG_OPS_GEMM_H

#include "ops/args.h"
#include "ops/walk.h"

/* Shape of MatMul and MatMulInteger (NumPy's rule), of this type. */
rung_status matmul_shape_infer(const infer_args *a, dtype type, rung_error *err);

/* The matrices of a batched product, [m,k] x [k,n]: each next gives the element offsets where the
 * operands' and the result's begin. */
typedef struct matmul_walk {
    size_t m, k, n;
    walk   rows;
    size_t in_row;
    bool   any, first;
} matmul_walk;
void matmul_walk_begin(matmul_walk *w, const tensor *x, const tensor *y);
bool matmul_walk_next(matmul_walk *w, size_t *x, size_t *y, size_t *out);

#endif
