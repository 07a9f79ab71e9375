/* Plain-C float32 loops that the compiler vectorises, compiled once for each instruction set: the
 * same sources, other flags. All tensors dense; x and y are either the same array or apart. */
#ifndef RUNG_NN_VEC_H
#define RUNG_NN_VEC_H

#include <stdbool.h>
#include <stddef.h>

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
    /* y[c] = sum of wt[i] * p[i][c] for i < 4: bilinear interpolation. */
    void (*blend)(const float *const p[4], const float wt[4], size_t channels, float *y);
} vec_ops;

/* The best that this machine has and RUNG_CPU allows. */
const vec_ops *vec_pick(void);

#endif
