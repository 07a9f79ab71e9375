/* The loops of a FakeQuantize in float32, compiled once for each instruction set. With t = x /
 * scale and q = rne(t): a value is in range where lo <= q <= hi, lo and hi being the ends of the
 * codes less the zero point. Straight-through (Bengio 2013): the gradient passes where x is in
 * range. Of the step size (Esser 2020): q - t in range, the end outside. */
#ifndef RUNG_TRAIN_FAKE_VEC_H
#define RUNG_TRAIN_FAKE_VEC_H

#include <stddef.h>
#include <stdint.h>

typedef struct fake_ends {
    float lo, hi; /* |lo|, |hi| < 2^16 */
} fake_ends;

/* The value behind a convolution's exact sum: sum * mult[c] in units of the scale, limited to
 * [floor, ceiling] by a Relu or Clip between (open: infinite), whose gradient passes between the
 * two. */
typedef struct fake_sums {
    size_t       channels;
    const float *mult; /* [channels] */
    float        floor, ceiling;
} fake_sums;

typedef struct fake_vec {
    const char *name;
    unsigned    needs; /* CPU_... bits */
    /* y = clamp(q, lo, hi) * scale. */
    void (*quantize)(const float *x, size_t n, float scale, fake_ends e, float *y);
    /* The same for rows of n elements, one scale each. */
    void (*quantize_row)(const float *x, const float *scale, size_t n, fake_ends e, float *y);
    /* dx = dy where x is in range, else 0; dx may be dy. Returns the sum of dy * dq/dscale. */
    double (*grad)(const float *x, const float *dy, size_t n, float scale, fake_ends e, float *dx);
    /* The same, but adds to dx. */
    double (*grad_add)(const float *x, const float *dy, size_t n, float scale, fake_ends e,
                       float *dx);
    /* Rows of n elements, one scale each; adds to dx, and to dscale[i] times factor. */
    void (*grad_row)(const float *x, const float *dy, const float *scale, size_t n, fake_ends e,
                     float factor, float *dx, float *dscale);
    /* As grad for `pixels` rows of s->channels sums. */
    double (*grad_sums)(const fake_sums *s, const int32_t *sums, const float *dy, size_t pixels,
                        fake_ends e, float *dx);
    /* Raises most[0] to the largest of -x, most[1] to that of x; NaN counts nothing. */
    void (*range)(const float *x, size_t n, float most[2]);
    /* The same for the values, between floor and ceiling, behind `pixels` rows of sums. */
    void (*range_sums)(const fake_sums *s, const int32_t *sums, size_t pixels, float scale,
                       float most[2]);
} fake_vec;

/* The best that this machine has and RUNG_CPU allows. */
const fake_vec *fake_vec_pick(void);

#endif
