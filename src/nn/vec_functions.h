/* Functions of one element that the compiler vectorises; NaN stays NaN. */
#ifndef RUNG_NN_VEC_FUNCTIONS_H
#define RUNG_NN_VEC_FUNCTIONS_H

#include <math.h>
#include <stdint.h>
#include <string.h>

/* --- e^x -------------------------------------------------------------------------------------
 * 2^n e^r with n = rne(x / ln 2), |r| <= ln(2) / 2: the Taylor polynomial of degree 7 leaves less
 * than 6e-9 of e^r, the rounding of its steps about 1 ulp. Below the smallest normal number the
 * result is 0, above the largest it is infinity. */
static inline float exp_one(float x)
{
    const float round = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    const float above = x > -87.33f ? x : -87.33f; /* NaN too: no cast of it below */
    const float v = above < 88.72f ? above : 88.72f;
    const float n = (v * 1.44269504f + round) - round;
    const float r = (v - n * 0.693359375f) + n * 2.12194440e-4f; /* ln 2 in two parts */
    float p = 1.98412698e-4f;
    p = p * r + 1.38888889e-3f;
    p = p * r + 8.33333333e-3f;
    p = p * r + 4.16666667e-2f;
    p = p * r + 1.66666667e-1f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    /* n reaches 128: in two factors, each a normal number. */
    const int32_t half = (int32_t)n >> 1, rest = (int32_t)n - half;
    const int32_t a_bits = (half + 127) << 23, b_bits = (rest + 127) << 23;
    float a, b;
    memcpy(&a, &a_bits, sizeof a);
    memcpy(&b, &b_bits, sizeof b);
    const float y = p * a * b;
    return x > 88.72283f ? INFINITY : x < -87.33f ? 0.0f : x != x ? x : y;
}

static inline float sigmoid_one(float x)
{
    return 1.0f / (1.0f + exp_one(-x));
}

/* Odd polynomial near 0, where 1 - 2 / (e^2x + 1) would cancel (Cephes' tanhf). */
static inline float tanh_one(float x)
{
    const float z = x * x, far = 1.0f - 2.0f / (exp_one(2.0f * x) + 1.0f);
    float p = -5.70498872745e-3f;
    p = p * z + 2.06390887954e-2f;
    p = p * z - 5.37397155531e-2f;
    p = p * z + 1.33314422036e-1f;
    p = p * z - 3.33332819422e-1f;
    return z < 0.390625f ? p * z * x + x : far;
}

/* Odd polynomial behind x where e^x - 1 would cancel. */
static inline float expm1_one(float x)
{
    float p = 1.0f / 5040.0f;
    p = p * x + 1.0f / 720.0f;
    p = p * x + 1.0f / 120.0f;
    p = p * x + 1.0f / 24.0f;
    p = p * x + 1.0f / 6.0f;
    p = p * x + 0.5f;
    const float near = p * x * x + x, far = exp_one(x) - 1.0f;
    return x > -0.35f && x < 0.35f ? near : far;
}

/* Up to 1 the series of x^21; beyond, Abramowitz and Stegun's 7.1.26 (its error is 1.5e-7). */
static inline float erf_one(float x)
{
    const float z = x * x, t = 1.0f / (1.0f + 0.3275911f * fabsf(x));
    float p = 1.0f / 76204800.0f;
    p = p * z - 1.0f / 6894720.0f;
    p = p * z + 1.0f / 685440.0f;
    p = p * z - 1.0f / 75600.0f;
    p = p * z + 1.0f / 9360.0f;
    p = p * z - 1.0f / 1320.0f;
    p = p * z + 1.0f / 216.0f;
    p = p * z - 1.0f / 42.0f;
    p = p * z + 0.1f;
    p = p * z - 1.0f / 3.0f;
    p = p * z + 1.0f;
    float q = 1.061405429f;
    q = q * t - 1.453152027f;
    q = q * t + 1.421413741f;
    q = q * t - 0.284496736f;
    q = q * t + 0.254829592f;
    const float far = copysignf(1.0f - q * t * exp_one(-z), x);
    const float y = z < 1.0f ? 1.12837917f * x * p : far;
    return x != x ? x : y;
}

/* Operands are the same array or apart, which no compiler can see: without this it would take the
 * scalar loop where y = x. */
#if defined(__clang__)
#define SAME_OR_APART _Pragma("clang loop vectorize(assume_safety)")
#else
#define SAME_OR_APART _Pragma("GCC ivdep")
#endif

#endif
