/* Steps of dynamic quantization: the activations' parameters are found when the model runs. */
#ifndef RUNG_OPS_LOWER_DYNAMIC_H
#define RUNG_OPS_LOWER_DYNAMIC_H

#include "kernels/kernels.h"
#include "ops/step.h"

/* --- DynamicQuantizeLinear: two steps, as the range must be known before the first code ------- */
typedef struct range_part {
    float lo, hi;
} range_part;
typedef struct dynamic_step {
    size_t n;
    int n_parts;      /* threads that looked for the range in this run */
    range_part *part; /* one a thread, from the first step to the second */
} dynamic_step;
/* in[0]: float32; out: codes, scale, zero point (the last two may be absent). range reads in[0]
 * only. */
rung_status lower_dynamic_quantize(const lowering *l, step *range, step *quantize, rung_error *err);

/* --- MatMulInteger, ConvInteger, with the scales and the bias behind them -------------------- */
typedef struct product_weights {
    const tensor *w;     /* int8, or uint8 around 128: a matrix [k, n], or a convolution's */
    const tensor *scale; /* float32: one number, or one for each output channel */
    const tensor *bias;  /* the same, or NULL */
    bool transposed;     /* a matrix: it is [n, k] */
    int source;          /* of w: operand.source */
    const void *packed;  /* made from w where it is NULL; may be used again for the same matrix */
} product_weights;
typedef struct product_step {
    const product_kernel *kernel;
    product_shape shape; /* of one group */
    const void *packed;
    const float *scale, *bias; /* [groups * n]; bias may be NULL */
    bool has_zero;
    bool fixed;    /* the activations' parameters are constant: x_scale, x_zero */
    float x_scale;
    int x_zero;
    int out;
    /* Convolutions: rows are gathered, `chunk` at once. */
    bool is_conv;
    conv_shape conv;
    size_t group_bytes, chunk;
} product_step;
/* in: codes (uint8); quantized: with constant parameters; otherwise their scale and zero point (may
 * be absent) follow as operands. out: float32. */
rung_status lower_product(const lowering *l, product_weights *w, step *s, rung_error *err);

#endif
