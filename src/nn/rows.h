/* The fast rows, by operator; each fills s or says RUNG_EUNSUPPORTED with the reason. Called with
 * every operand's dims known and positive, their sizes checked, input 0 and output 0 there. */
#ifndef RUNG_NN_ROWS_H
#define RUNG_NN_ROWS_H

#include "ops/step.h"

/* What they may rely on. RUNG_EUNSUPPORTED: it does not hold. */
rung_status rows_check(const lowering *l, rung_error *err);

typedef rung_status (*row_fill)(const lowering *l, step *s, rung_error *err);

rung_status conv_row(const lowering *l, step *s, rung_error *err);
rung_status conv_transpose_row(const lowering *l, step *s, rung_error *err);
rung_status gemm_row(const lowering *l, step *s, rung_error *err);
rung_status matmul_row(const lowering *l, step *s, rung_error *err);
rung_status pool_row(const lowering *l, step *s, rung_error *err);
rung_status reduce_row(const lowering *l, step *s, rung_error *err);
rung_status softmax_row(const lowering *l, step *s, rung_error *err);
rung_status unary_row(const lowering *l, step *s, rung_error *err);
rung_status binary_row(const lowering *l, step *s, rung_error *err);
rung_status resize_row(const lowering *l, step *s, rung_error *err);

#endif
