/* The elementwise kernels of 16-bit activations with AVX2 and FMA. Values behind the last whole
 * register are brought into one that holds as many. */
#include <immintrin.h>
#include <string.h>

#include "kernels/arith.h"
#include "kernels/x86/wide.h"
#include "kernels/x86/words.h"

enum { LANES = 8 };

INLINE size_t lanes_of(size_t n)
{
    return n < LANES ? n : LANES;
}

/* `some` codes (1 to 8) from place i on; what is not there is 0. */
INLINE __m256 load_codes(const void *p, size_t i, size_t some, bool wide)
{
    const size_t size = wide ? 2 : 1;
    const uint8_t *at = (const uint8_t *)p + i * size;
    uint8_t few[16] = {0};
    if (some < LANES)
        at = memcpy(few, at, some * size);
    if (wide)
        return _mm256_cvtepi32_ps(
            _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)at)));
    return _mm256_cvtepi32_ps(
        _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)at)));
}

INLINE __m256 load_floats(const float *x, size_t some)
{
    float few[LANES] = {0};
    if (some < LANES)
        x = memcpy(few, x, some * sizeof *x);
    return _mm256_loadu_ps(x);
}

INLINE __m256i load_ints(const int32_t *x, size_t some)
{
    int32_t few[LANES] = {0};
    if (some < LANES)
        x = memcpy(few, x, some * sizeof *x);
    return _mm256_loadu_si256((const __m256i *)(const void *)x);
}

INLINE float first_code(const void *p, size_t n, bool wide)
{
    return n == 0 ? 0 : wide ? *(const uint16_t *)p : *(const uint8_t *)p;
}

/* round_to_code, 8 at a time. */
typedef struct rounding {
    __m256 lo, hi; /* of the value before `zero` is added */
    __m256i zero;
} rounding;

INLINE rounding rounding_of(int zero, int lo, int hi)
{
    return (rounding){_mm256_set1_ps((float)(lo - zero)), _mm256_set1_ps((float)(hi - zero)),
                      _mm256_set1_epi32(zero)};
}

INLINE void store_codes(void *y, size_t i, size_t some, bool wide, __m256 v, const rounding *r)
{
    const __m256 kept = _mm256_min_ps(_mm256_max_ps(v, r->lo), r->hi);
    const __m256i q = _mm256_add_epi32(_mm256_cvtps_epi32(kept), r->zero);
    __m128i out = _mm_packus_epi32(_mm256_castsi256_si128(q), _mm256_extracti128_si256(q, 1));
    const size_t size = wide ? 2 : 1;
    uint8_t *to = (uint8_t *)y + i * size, few[16];
    if (!wide)
        out = _mm_packus_epi16(out, out);
    if (some < LANES) {
        _mm_storeu_si128((__m128i *)(void *)few, out);
        memcpy(to, few, some * size);
    } else if (wide) {
        _mm_storeu_si128((__m128i *)(void *)to, out);
    } else {
        _mm_storel_epi64((__m128i *)(void *)to, out);
    }
}

void split_u16_avx2(const uint16_t *x, size_t n, uint8_t *hi, uint8_t *lo)
{
    const __m256i byte = _mm256_set1_epi16(255);
    size_t i = 0;
    for (; i + 32 <= n; i += 32) {
        const __m256i a = _mm256_loadu_si256((const __m256i *)(const void *)(x + i));
        const __m256i b = _mm256_loadu_si256((const __m256i *)(const void *)(x + i + 16));
        const __m256i l = _mm256_packus_epi16(_mm256_and_si256(a, byte), _mm256_and_si256(b, byte));
        const __m256i h = _mm256_packus_epi16(_mm256_srli_epi16(a, 8), _mm256_srli_epi16(b, 8));
        _mm256_storeu_si256((__m256i *)(void *)(lo + i), _mm256_permute4x64_epi64(l, 0xd8));
        _mm256_storeu_si256((__m256i *)(void *)(hi + i), _mm256_permute4x64_epi64(h, 0xd8));
    }
    for (; i < n; i++) {
        hi[i] = (uint8_t)(x[i] >> 8);
        lo[i] = (uint8_t)(x[i] & 255);
    }
}

/* Up to 8 channels of all rows: their constants stay in registers. */
INLINE void requant_columns(size_t some, const int32_t *hi, const int32_t *lo, size_t rows,
                            size_t stride, size_t c0, const wide_requant *q, void *y)
{
    const rounding r = rounding_of(q->zero, q->lo, q->hi);
    const __m256 mult = load_floats(q->mult + c0, some), steps = _mm256_set1_ps(256);
    const __m256i hi_fixed = load_ints(q->hi_fixed + c0, some);
    const __m256i lo_fixed = load_ints(q->lo_fixed + c0, some);
    const __m256i byte = _mm256_set1_epi32(255);
    for (size_t i = 0, at = c0; i < rows; i++, at += stride) {
        const __m256i h = hi ? load_ints(hi + at, some) : _mm256_setzero_si256();
        const __m256i l = _mm256_add_epi32(load_ints(lo + at, some), lo_fixed);
        const __m256i high =
            _mm256_add_epi32(_mm256_add_epi32(h, hi_fixed), _mm256_srai_epi32(l, 8));
        const __m256 low = _mm256_cvtepi32_ps(_mm256_and_si256(l, byte));
        const __m256 acc = _mm256_fmadd_ps(steps, _mm256_cvtepi32_ps(high), low);
        store_codes(y, at, some, q->y_wide, _mm256_mul_ps(acc, mult), &r);
    }
}

void wide_requant_avx2(const int32_t *hi, const int32_t *lo, size_t rows, size_t channels,
                       const wide_requant *q, void *y)
{
    size_t c = 0;
    for (; c + LANES <= channels; c += LANES)
        requant_columns(LANES, hi, lo, rows, channels, c, q, y);
    if (c < channels)
        requant_columns(channels - c, hi, lo, rows, channels, c, q, y);
}

void add_wide_avx2(const void *a, const void *b, int b_step, size_t n, const wide_binary_q *w,
                   void *y)
{
    const binary_q *q = &w->q;
    const add_terms t =
        add_terms_of(q->a_scale, q->a_zero, q->b_scale, q->b_zero, q->y_scale, q->y_zero);
    const __m256 ra = _mm256_set1_ps(t.ra), rb = _mm256_set1_ps(t.rb);
    const __m256 fixed = _mm256_set1_ps(t.fixed);
    const __m256 b0 = _mm256_set1_ps(first_code(b, n, w->b_wide));
    const rounding r = rounding_of(0, q->lo, q->hi);
    for (size_t i = 0; i < n; i += LANES) {
        const size_t some = lanes_of(n - i);
        const __m256 av = load_codes(a, i, some, w->a_wide);
        const __m256 bv = b_step ? load_codes(b, i, some, w->b_wide) : b0;
        const __m256 v = _mm256_fmadd_ps(av, ra, _mm256_fmadd_ps(bv, rb, fixed));
        store_codes(y, i, some, w->y_wide, v, &r);
    }
}

void mul_wide_avx2(const void *a, const void *b, int b_step, size_t n, const wide_binary_q *w,
                   void *y)
{
    const binary_q *q = &w->q;
    const __m256 ratio = _mm256_set1_ps(mul_ratio(q->a_scale, q->b_scale, q->y_scale));
    const __m256 az = _mm256_set1_ps((float)q->a_zero), bz = _mm256_set1_ps((float)q->b_zero);
    const __m256 yz = _mm256_set1_ps((float)q->y_zero);
    const __m256 b0 = _mm256_set1_ps(first_code(b, n, w->b_wide));
    const rounding r = rounding_of(0, q->lo, q->hi);
    for (size_t i = 0; i < n; i += LANES) {
        const size_t some = lanes_of(n - i);
        const __m256 av = _mm256_sub_ps(load_codes(a, i, some, w->a_wide), az);
        const __m256 bv = _mm256_sub_ps(b_step ? load_codes(b, i, some, w->b_wide) : b0, bz);
        const __m256 v = _mm256_add_ps(_mm256_mul_ps(_mm256_mul_ps(av, bv), ratio), yz);
        store_codes(y, i, some, w->y_wide, v, &r);
    }
}

void quantize_u16_avx2(const float *x, size_t n, float scale, int zero, int lo, int hi, uint16_t *y)
{
    const __m256 s = _mm256_set1_ps(scale);
    const rounding r = rounding_of(zero, lo, hi);
    for (size_t i = 0; i < n; i += LANES) {
        const size_t some = lanes_of(n - i);
        const __m256 v = load_floats(x + i, some);
        const __m256 number = _mm256_cmp_ps(v, v, _CMP_ORD_Q);
        store_codes(y, i, some, true, _mm256_and_ps(_mm256_div_ps(v, s), number), &r);
    }
}

void dequantize_u16_avx2(const uint16_t *x, size_t n, float scale, int zero, float *y)
{
    const __m256 s = _mm256_set1_ps(scale), z = _mm256_set1_ps((float)zero);
    for (size_t i = 0; i < n; i += LANES) {
        const size_t some = lanes_of(n - i);
        const __m256 v = _mm256_mul_ps(_mm256_sub_ps(load_codes(x, i, some, true), z), s);
        float few[LANES];
        if (some == LANES) {
            _mm256_storeu_ps(y + i, v);
        } else {
            _mm256_storeu_ps(few, v);
            memcpy(y + i, few, some * sizeof *few);
        }
    }
}

void rescale_wide_avx2(const void *x, size_t n, const rescale_q *q, void *y)
{
    const __m256 xs = _mm256_set1_ps(q->x_scale), xz = _mm256_set1_ps((float)q->x_zero);
    const __m256 ys = _mm256_set1_ps(q->y_scale);
    const rounding r = rounding_of(q->y_zero, q->lo, q->hi);
    for (size_t i = 0; i < n; i += LANES) {
        const size_t some = lanes_of(n - i);
        const __m256 v = _mm256_mul_ps(_mm256_sub_ps(load_codes(x, i, some, q->x_wide), xz), xs);
        store_codes(y, i, some, q->y_wide, _mm256_div_ps(v, ys), &r);
    }
}
