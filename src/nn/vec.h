/* Plain-C float32 loops that the compiler vectorises, compiled once for each instruction set: the
 * same sources, other flags. All tensors dense; x and y are either the same array or apart. */
#ifndef RUNG_NN_VEC_H
#define RUNG_NN_VEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* y = f(x; a, b). NaN stays NaN. */
typedef enum vec_unary {
    VEC_CLAMP,        /* to [a, b] */
    VEC_AFFINE_CLAMP, /* HardSigmoid: a x + b to [0, 1] */
    VEC_HARD_SWISH,   /* x * clamp(x / 6 + 0.5, 0, 1) */
    VEC_LEAKY,        /* x < 0 ? a x : x */
    VEC_ELU,          /* x < 0 ? a (e^x - 1) : x */
    VEC_EXP,
    VEC_SIGMOID,
    VEC_TANH,
    VEC_NEG,
    VEC_ABS,
    VEC_SQRT,
    VEC_SQUARE,
    VEC_ERF,
    VEC_UNARY_COUNT,
} vec_unary;

typedef enum vec_binary {
    VEC_ADD,
    VEC_SUB,
    VEC_MUL,
    VEC_DIV,
    VEC_MIN,
    VEC_MAX,
    VEC_PRELU, /* a < 0 ? a b : a */
    VEC_BINARY_COUNT,
} vec_binary;

/* Weights [k, n] of 4 or 8 bits in panels of packed_width columns (W): real = (code - zero) *
 * scale, where `block` steps of k share a scale. codes: [panel][k][W] bytes or, of 4 bits,
 * [panel][k][W / 2] with column j in the low half and j + W / 2 in the high one. scales, zeros:
 * [panel][blocks][W]; zeros = NULL: `zero` for all. Columns behind n are 0. */
typedef struct vec_packed {
    size_t k, n, block;
    bool half; /* 4 bits */
    const uint8_t *codes, *zeros;
    const float *scales;
    float zero;
} vec_packed;
/* What comes behind the product: bias [n], add [rows][n] or NULL, a clamp. */
typedef struct vec_packed_out {
    const float *bias, *add;
    float lo, hi;
} vec_packed_out;
#define VEC_PACKED_STEPS 128 /* of k in a tile: 16 KiB of floats at the widest */

typedef struct vec_ops {
    const char *name;
    unsigned    needs; /* CPU_... bits */
    void (*unary[VEC_UNARY_COUNT])(const float *x, size_t n, float a, float b, float *y);
    /* a_step, b_step: 1, or 0 where the operand is one element. */
    void (*binary[VEC_BINARY_COUNT])(const float *a, int a_step, const float *b, int b_step,
                                     size_t n, float *y);
    /* Each of `rows` rows of n: y = e^(x - max) / sum. */
    void (*softmax)(const float *x, size_t rows, size_t n, float *y);
    /* Each of `rows` rows of n: its sum, or its largest element. */
    void (*row_sum)(const float *x, size_t rows, size_t n, float *y);
    void (*row_max)(const float *x, size_t rows, size_t n, float *y);
    /* y[c] = the sum (over `divisor`), the maximum, over h x w vectors of `channels` elements:
     * x[i * row + j * column + c]. h, w >= 1. */
    void (*window_mean)(const float *x, size_t h, size_t row, size_t w, size_t column,
                        size_t channels, float divisor, float *y);
    void (*window_max)(const float *x, size_t h, size_t row, size_t w, size_t column,
                       size_t channels, float *y);
    /* y = clamp(bias + x w + add) for columns [first, last) in blocks of gemv_block, both multiples
     * of it or n. w: [n / gemv_block][k][gemv_block], zero behind n; bias so padded too. */
    size_t gemv_block;
    void (*gemv)(const float *x, const float *w, const float *bias, const float *add, size_t k,
                 size_t n, size_t first, size_t last, float lo, float hi, float *y);
    /* y = clamp(bias + x w + add) for panels [first, last). x: [rows][k], y: [rows][n]; tile:
     * VEC_PACKED_STEPS * packed_width floats of scratch. */
    size_t packed_width;
    void (*packed_product)(const vec_packed *w, const float *x, size_t rows, size_t first,
                           size_t last, const vec_packed_out *o, float *tile, float *y);
    /* y[c] = sum of wt[i] * p[i][c] for i < 4: bilinear interpolation. */
    void (*blend)(const float *const p[4], const float wt[4], size_t channels, float *y);
} vec_ops;

/* The best that this machine has and RUNG_CPU allows. */
const vec_ops *vec_pick(void);

#endif
