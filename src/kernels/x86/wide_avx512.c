/* The elementwise kernels of 16-bit activations with AVX-512 (F, BW, VL). */
#include <immintrin.h>

#include "kernels/arith.h"
#include "kernels/x86/wide.h"
#include "kernels/x86/words.h"

/* The lanes of the next 16 of n values. */
INLINE __mmask16 lanes16(size_t n)
{
    return n < 16 ? (__mmask16)(0xffffu >> (16 - n)) : 0xffff;
}

INLINE __m512 load_codes(__mmask16 m, const void *p, size_t i, bool wide)
{
    if (wide)
        return _mm512_cvtepi32_ps(
            _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, (const uint16_t *)p + i)));
    return _mm512_cvtepi32_ps(
        _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(m, (const uint8_t *)p + i)));
}

INLINE float first_code(const void *p, size_t n, bool wide)
{
    return n == 0 ? 0 : wide ? *(const uint16_t *)p : *(const uint8_t *)p;
}

/* round_to_code, 16 at a time. */
typedef struct rounding {
    __m512 lo, hi; /* of the value before `zero` is added */
    __m512i zero;
} rounding;

INLINE rounding rounding_of(int zero, int lo, int hi)
{
    return (rounding){_mm512_set1_ps((float)(lo - zero)), _mm512_set1_ps((float)(hi - zero)),
                      _mm512_set1_epi32(zero)};
}

INLINE void store_codes(__mmask16 m, void *y, size_t i, bool wide, __m512 v, const rounding *r)
{
    const __m512 kept = _mm512_min_ps(_mm512_max_ps(v, r->lo), r->hi);
    const __m512i q = _mm512_add_epi32(_mm512_cvtps_epi32(kept), r->zero);
    if (wide)
        _mm512_mask_cvtepi32_storeu_epi16((uint16_t *)y + i, m, q);
    else
        _mm512_mask_cvtepi32_storeu_epi8((uint8_t *)y + i, m, q);
}

void split_u16_avx512(const uint16_t *x, size_t n, uint8_t *hi, uint8_t *lo)
{
    for (size_t i = 0; i < n; i += 32) {
        const __mmask32 m = n - i < 32 ? ~UINT32_C(0) >> (32 - (n - i)) : ~UINT32_C(0);
        const __m512i v = _mm512_maskz_loadu_epi16(m, x + i);
        _mm512_mask_cvtepi16_storeu_epi8(lo + i, m, v);
        _mm512_mask_cvtepi16_storeu_epi8(hi + i, m, _mm512_srli_epi16(v, 8));
    }
}

/* 16 channels of all rows: their constants stay in registers. */
INLINE void requant_columns(__mmask16 m, const int32_t *hi, const int32_t *lo, size_t rows,
                            size_t stride, size_t c0, const wide_requant *q, void *y)
{
    const rounding r = rounding_of(q->zero, q->lo, q->hi);
    const __m512 mult = _mm512_maskz_loadu_ps(m, q->mult + c0), steps = _mm512_set1_ps(256);
    const __m512i hi_fixed = _mm512_maskz_loadu_epi32(m, q->hi_fixed + c0);
    const __m512i lo_fixed = _mm512_maskz_loadu_epi32(m, q->lo_fixed + c0);
    const __m512i byte = _mm512_set1_epi32(255);
    for (size_t i = 0, at = c0; i < rows; i++, at += stride) {
        const __m512i h = hi ? _mm512_maskz_loadu_epi32(m, hi + at) : _mm512_setzero_si512();
        const __m512i l = _mm512_add_epi32(_mm512_maskz_loadu_epi32(m, lo + at), lo_fixed);
        const __m512i high =
            _mm512_add_epi32(_mm512_add_epi32(h, hi_fixed), _mm512_srai_epi32(l, 8));
        const __m512 low = _mm512_cvtepi32_ps(_mm512_and_si512(l, byte));
        const __m512 acc = _mm512_fmadd_ps(steps, _mm512_cvtepi32_ps(high), low);
        store_codes(m, y, at, q->y_wide, _mm512_mul_ps(acc, mult), &r);
    }
}

void wide_requant_avx512(const int32_t *hi, const int32_t *lo, size_t rows, size_t channels,
                         const wide_requant *q, void *y)
{
    for (size_t c = 0; c < channels; c += 16)
        requant_columns(lanes16(channels - c), hi, lo, rows, channels, c, q, y);
}

void add_wide_avx512(const void *a, const void *b, int b_step, size_t n, const wide_binary_q *w,
                     void *y)
{
    const binary_q *q = &w->q;
    const add_terms t =
        add_terms_of(q->a_scale, q->a_zero, q->b_scale, q->b_zero, q->y_scale, q->y_zero);
    const __m512 ra = _mm512_set1_ps(t.ra), rb = _mm512_set1_ps(t.rb);
    const __m512 fixed = _mm512_set1_ps(t.fixed);
    const __m512 b0 = _mm512_set1_ps(first_code(b, n, w->b_wide));
    const rounding r = rounding_of(0, q->lo, q->hi);
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 m = lanes16(n - i);
        const __m512 av = load_codes(m, a, i, w->a_wide);
        const __m512 bv = b_step ? load_codes(m, b, i, w->b_wide) : b0;
        const __m512 v = _mm512_fmadd_ps(av, ra, _mm512_fmadd_ps(bv, rb, fixed));
        store_codes(m, y, i, w->y_wide, v, &r);
    }
}

void mul_wide_avx512(const void *a, const void *b, int b_step, size_t n, const wide_binary_q *w,
                     void *y)
{
    const binary_q *q = &w->q;
    const __m512 ratio = _mm512_set1_ps(mul_ratio(q->a_scale, q->b_scale, q->y_scale));
    const __m512 az = _mm512_set1_ps((float)q->a_zero), bz = _mm512_set1_ps((float)q->b_zero);
    const __m512 yz = _mm512_set1_ps((float)q->y_zero);
    const __m512 b0 = _mm512_set1_ps(first_code(b, n, w->b_wide));
    const rounding r = rounding_of(0, q->lo, q->hi);
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 m = lanes16(n - i);
        const __m512 av = _mm512_sub_ps(load_codes(m, a, i, w->a_wide), az);
        const __m512 bv = _mm512_sub_ps(b_step ? load_codes(m, b, i, w->b_wide) : b0, bz);
        const __m512 v = _mm512_add_ps(_mm512_mul_ps(_mm512_mul_ps(av, bv), ratio), yz);
        store_codes(m, y, i, w->y_wide, v, &r);
    }
}

void quantize_u16_avx512(const float *x, size_t n, float scale, int zero, int lo, int hi,
                         uint16_t *y)
{
    const __m512 s = _mm512_set1_ps(scale);
    const rounding r = rounding_of(zero, lo, hi);
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 m = lanes16(n - i);
        const __m512 v = _mm512_maskz_loadu_ps(m, x + i);
        const __mmask16 number = _mm512_cmp_ps_mask(v, v, _CMP_ORD_Q);
        store_codes(m, y, i, true, _mm512_maskz_div_ps(number, v, s), &r);
    }
}

void dequantize_u16_avx512(const uint16_t *x, size_t n, float scale, int zero, float *y)
{
    const __m512 s = _mm512_set1_ps(scale), z = _mm512_set1_ps((float)zero);
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 m = lanes16(n - i);
        const __m512 v = _mm512_mul_ps(_mm512_sub_ps(load_codes(m, x, i, true), z), s);
        _mm512_mask_storeu_ps(y + i, m, v);
    }
}

void rescale_wide_avx512(const void *x, size_t n, const rescale_q *q, void *y)
{
    const __m512 xs = _mm512_set1_ps(q->x_scale), xz = _mm512_set1_ps((float)q->x_zero);
    const __m512 ys = _mm512_set1_ps(q->y_scale);
    const rounding r = rounding_of(q->y_zero, q->lo, q->hi);
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 m = lanes16(n - i);
        const __m512 v = _mm512_mul_ps(_mm512_sub_ps(load_codes(m, x, i, q->x_wide), xz), xs);
        store_codes(m, y, i, q->y_wide, _mm512_div_ps(v, ys), &r);
    }
}
