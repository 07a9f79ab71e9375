/* Loops of the training rows, compiled like those of vec.h, for the same instruction sets. All
 * tensors dense; outputs lie apart from what is read, except where it says "may be". */
#ifndef RUNG_NN_VEC_TRAIN_H
#define RUNG_NN_VEC_TRAIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* dx = dy * f'(v; a, b), where v is x or y. At a kink it is what op_def.grad has. */
typedef enum vec_slope {
    SLOPE_RELU,         /* y */
    SLOPE_CLIP,         /* x, to [a, b]: 0 at the bounds */
    SLOPE_LEAKY,        /* x */
    SLOPE_HARD_SIGMOID, /* y: a where 0 < y < 1 */
    SLOPE_HARD_SWISH,   /* x */
    SLOPE_ELU,          /* x */
    SLOPE_EXP,          /* y */
    SLOPE_SIGMOID,      /* y */
    SLOPE_TANH,         /* y */
    SLOPE_SQRT,         /* y */
    SLOPE_SQUARE,       /* x */
    SLOPE_ABS,          /* x */
    SLOPE_ERF,          /* x */
    SLOPE_GELU,         /* x */
    SLOPE_GELU_TANH,    /* x */
    SLOPE_COUNT,
} vec_slope;

typedef struct vec_train {
    const char *name;
    unsigned    needs; /* CPU_... bits */
    /* dx may be v or dy. */
    void (*slope[SLOPE_COUNT])(const float *v, const float *dy, size_t n, float a, float b,
                               float *dx);
    void (*add)(const float *x, size_t n, float a, float *y); /* y += a x */
    /* In `rows` rows of `stride`, columns [0, c): y = a u + b (v - m) + d, where a, b, m, d are
     * [c]; u = NULL: without. y may be u or v. */
    void (*affine)(const float *u, const float *v, size_t rows, size_t stride, size_t c,
                   const float *a, const float *b, const float *m, const float *d, float *y);
    /* Of channels [0, c) in `rows` rows of `stride`: s += sum of x, q += sum of (x - mean)^2. */
    void (*column_sum)(const float *x, size_t rows, size_t stride, size_t c, float *s);
    void (*column_spread)(const float *x, const float *mean, size_t rows, size_t stride, size_t c,
                          float *q);
    /* s += sum of dy, q += sum of dy * (x - mean). */
    void (*column_pair)(const float *x, const float *mean, const float *dy, size_t rows,
                        size_t stride, size_t c, float *s, float *q);
    /* A window of h x w vectors of `channels` elements, x[i * row + j * column + c]: dy goes to the
     * first of the greatest elements; or a share of dy to all. Adds to dx, which lies as x does. */
    void (*window_max)(const float *x, size_t h, size_t row, size_t w, size_t column,
                       size_t channels, const float *dy, float *dx);
    void (*window_mean)(size_t h, size_t row, size_t w, size_t column, size_t channels,
                        float share, const float *dy, float *dx);
    /* Each of `rows` rows of n: dx = y (dy - sum of y dy). dx may be dy. */
    void (*softmax)(const float *y, const float *dy, size_t rows, size_t n, float *dx);
} vec_train;

/* The best that this machine has and RUNG_CPU allows. */
const vec_train *vec_train_pick(void);

#endif
