/* The gradients: op_def.grad of the operators, by plain loops. What the arguments are, and which
 * operands each reads, say graph/op.h and the table's `reads`. A gradient computes in float32; for
 * other types it is refused with RUNG_EUNSUPPORTED. At a kink it is PyTorch's: relu'(0) = 0; that
 * of a maximum in a window goes to the first of equals, that of one over operands or axes is shared
 * by them. But Clip passes at its bounds, as PyTorch did before it changed over to 0 there. */
#ifndef RUNG_OPS_GRAD_H
#define RUNG_OPS_GRAD_H

#include "ops/args.h"
#include "ops/walk.h"

typedef rung_status grad_fn(const grad_args *a, rung_error *err);

grad_fn unary_grad;                                     /* grad_unary.c */
grad_fn binary_grad, variadic_grad, extreme_grad;       /* grad_binary.c */
grad_fn clip_grad, where_grad;                          /* grad_select.c */
grad_fn conv_grad, conv_transpose_grad;                 /* grad_conv.c */
grad_fn gemm_grad, matmul_grad;                         /* grad_gemm.c */
grad_fn max_pool_grad, average_pool_grad, lp_pool_grad; /* grad_pool.c */
grad_fn global_average_grad, global_max_grad;
grad_fn batch_norm_grad, instance_norm_grad, group_norm_grad, layer_norm_grad; /* grad_norm.c */
grad_fn rms_norm_grad, lrn_grad, lp_norm_grad;
grad_fn softmax_grad, log_softmax_grad;                 /* grad_softmax.c */
grad_fn reduce_grad, cum_sum_grad;                      /* grad_reduce.c */
grad_fn copy_grad, concat_grad, split_grad, expand_grad; /* grad_move.c */
grad_fn transpose_grad, slice_grad, depth_to_space_grad, space_to_depth_grad;
grad_fn pad_grad, tile_grad, gather_grad, gather_elements_grad, resize_grad;
grad_fn flat_grad; /* of a staircase: 0 everywhere */

/* What every gradient begins with: refuses other types than float32, and zeroes each din that is
 * wanted. *any = false: every dL/dout is zero or empty, nothing is left to do. */
rung_status grad_begin(const grad_args *a, bool *any, rung_error *err);

/* The arguments as eval has them, for what both read off the node; out is not set. */
eval_args grad_as_eval(const grad_args *a);

/* Gathers the gradient of a broadcast operand. Sums of several terms are kept in double. */
typedef struct grad_sum {
    tensor *to;   /* data = NULL: not wanted, what is added is dropped */
    double *sums; /* NULL: every element has one term, which goes straight to `to` */
} grad_sum;
/* n_out: elements of the result that the operand is broadcast to. din is zeroed. */
rung_status grad_sum_begin(grad_sum *s, tensor *din, size_t n_out, arena *mem, rung_error *err);
/* The terms v of the row's elements first .. first+n-1; the target is operand k of the walk. */
void grad_sum_add(grad_sum *s, const walk *w, int k, size_t first, size_t n, const double *v);
void grad_sum_end(grad_sum *s);
/* din (zeroed, data = NULL: not wanted) = factor * the sums of dout over the axes along which din
 * was broadcast. */
rung_status grad_broadcast(const tensor *dout, double factor, tensor *din, arena *mem,
                           rung_error *err);

/* Element (i, j) of a matrix is v[i * row + j * col]. */
typedef struct matrix {
    const float *v;
    size_t       row, col;
} matrix;
/* c [m,n] += a [m,k] b [k,n], c row-major. */
void matrix_product(size_t m, size_t n, size_t k, matrix a, matrix b, float *c);

#endif
