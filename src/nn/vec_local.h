/* Inside the files that are compiled once per instruction set: the suffix of names and the width of
 * a vector. VEC_ISA is set by the build. */
#ifndef RUNG_NN_VEC_LOCAL_H
#define RUNG_NN_VEC_LOCAL_H

#include <string.h>

#include "nn/vec.h"

#define VEC_PASTE2(a, b) a##_##b
#define VEC_PASTE(a, b) VEC_PASTE2(a, b)
#define VEC(name) VEC_PASTE(name, VEC_ISA)

#if defined(__AVX512F__)
#include <immintrin.h>
#define LANES 16
#elif defined(__AVX2__)
#include <immintrin.h>
#define LANES 8
#else
#define LANES 4
#endif

typedef float vec __attribute__((vector_size(LANES * 4)));

#define GEMV_BLOCK (4 * LANES)

static inline vec load(const float *p)
{
    vec v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline void store(float *p, vec v)
{
    memcpy(p, &v, sizeof v);
}

/* n < LANES elements of p, the other lanes 0; touches no others. */
static inline vec load_part(const float *p, size_t n)
{
#if defined(__AVX512F__)
    return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
#else
    vec v = {0};
    memcpy(&v, p, n * sizeof *p);
    return v;
#endif
}

static inline void store_part(float *p, vec v, size_t n)
{
#if defined(__AVX512F__)
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), v);
#else
    memcpy(p, &v, n * sizeof *p);
#endif
}

/* All lanes v. */
static inline vec spread(float v)
{
    return v - (vec){0};
}

/* a > b ? a : b and a < b ? a : b, lane by lane: b where one is NaN. */
#if defined(__AVX512F__)
static inline vec vec_max(vec a, vec b)
{
    return _mm512_max_ps(a, b);
}

static inline vec vec_min(vec a, vec b)
{
    return _mm512_min_ps(a, b);
}
#elif defined(__AVX2__)
static inline vec vec_max(vec a, vec b)
{
    return _mm256_max_ps(a, b);
}

static inline vec vec_min(vec a, vec b)
{
    return _mm256_min_ps(a, b);
}
#else
typedef int vec_mask __attribute__((vector_size(LANES * 4)));

static inline vec select(vec_mask m, vec a, vec b)
{
    return (vec)((m & (vec_mask)a) | (~m & (vec_mask)b));
}

static inline vec vec_max(vec a, vec b)
{
    return select(a > b, a, b);
}

static inline vec vec_min(vec a, vec b)
{
    return select(a < b, a, b);
}
#endif

static inline vec vec_clamp(vec v, vec lo, vec hi)
{
    return vec_min(hi, vec_max(lo, v));
}

static inline float clamp_one(float v, float lo, float hi)
{
    v = v < lo ? lo : v;
    return v > hi ? hi : v;
}

void VEC(vec_gemv)(const float *x, const float *w, const float *bias, const float *add, size_t k,
                   size_t n, size_t first, size_t last, float lo, float hi, float *y);
void VEC(vec_window_mean)(const float *x, size_t h, size_t row, size_t w, size_t column,
                          size_t channels, float divisor, float *y);
void VEC(vec_window_max)(const float *x, size_t h, size_t row, size_t w, size_t column,
                         size_t channels, float *y);
void VEC(vec_blend)(const float *const p[4], const float wt[4], size_t channels, float *y);
void VEC(vec_packed_product)(const vec_packed *w, const float *x, size_t rows, size_t first,
                             size_t last, const vec_packed_out *o, float *tile, float *y);
extern const vec_ops VEC(vec_ops);

#endif
