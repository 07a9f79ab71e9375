/* 16-bit activations: steps of kernels/wide.h. Operands of 8 and 16 bits may meet in one step. The
 * parameter structs are public to those who print steps (emit). */
#ifndef RUNG_OPS_LOWER_WIDE_H
#define RUNG_OPS_LOWER_WIDE_H

#include "kernels/wide.h"
#include "ops/lower.h"

bool operand_is_wide(const operand *o); /* stored as uint16; a constant: uint16 or int16 */
bool lowering_is_wide(const lowering *l); /* any quantized operand is */
/* Zero point of the stored form: that of a constant is in its own type. */
int  stored_zero(const operand *o);
int  stored_top(const operand *o); /* 65535 or 255 */
/* From x's codes to y's; both quantized, x no constant of a signed type. */
rescale_q rescale_of(const lowering *l, const operand *x, const operand *y);

/* RUNG_EUNSUPPORTED with the reason where an operator's lower knows no operands of 16 bits. */
rung_status lower_checks_wide(const lowering *l, const op_def *op, rung_error *err);

/* --- lower_wide_conv.c --- */
/* An image some lines at a time: the bytes of the input, high and low apart and with the padding
 * around them, lie in scratch, and so do both sums. */
typedef struct wide_conv_step {
    const conv_kernel *kernel;
    conv_shape shape; /* the operator's */
    conv_shape lines; /* `chunk` output lines, no padding */
    int chunk;
    const void *packed; /* for `lines`, without bias and zero point */
    wide_requant q;
    bool x_wide;
    int x_zero, out; /* out: the output's place among the step's buffers */
} wide_conv_step;
/* w, bias: as conv_kernel.pack takes them. */
rung_status lower_wide_conv(const lowering *l, const conv_shape *shape, const int8_t *w,
                            const int32_t *bias, const float *mult, step *s, rung_error *err);

/* --- lower_wide.c --- */
typedef struct rescale_step {
    rescale_q q;
    size_t n;
} rescale_step;
/* in[0] to out[0]: a DequantizeLinear and the QuantizeLinear behind it. */
rung_status lower_rescale(const lowering *l, step *s, rung_error *err);

typedef struct wide_table_step {
    size_t n;
    int in, out;           /* their places among the step's buffers */
    const uint16_t *table; /* one entry for each code of the input */
    bool x_wide, y_wide;
} wide_table_step;
rung_status lower_wide_table(const lowering *l, int in, double (*f)(double x, const void *ctx),
                             const void *ctx, step *s, rung_error *err);

typedef struct wide_pool_step {
    pool_shape shape;
    rescale_q q;
    enum { WIDE_MAX, WIDE_AVERAGE, WIDE_GLOBAL } kind;
    int out;
} wide_pool_step;
rung_status lower_wide_pool(const lowering *l, const wide_pool_step *p, step *s, rung_error *err);

#endif
