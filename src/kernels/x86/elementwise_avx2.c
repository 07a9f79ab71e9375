/* Add, Mul, tables, QuantizeLinear, DequantizeLinear with AVX2 and FMA; the last values of a length
 * that is no multiple of the registers go through arith.h. */
#include <immintrin.h>

#include "kernels/arith.h"
#include "kernels/kernels.h"
#include "kernels/x86/words.h"
#include "kernels/x86/x86.h"

INLINE __m256 load_f32(const uint8_t *p)
{
    return _mm256_cvtepi32_ps(
        _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p)));
}

/* round_to_u8, 8 at a time; lo and hi are those of the value before `zero` is added. */
INLINE __m256i rounded(__m256 v, __m256 lo, __m256 hi, __m256i zero)
{
    return _mm256_add_epi32(_mm256_cvtps_epi32(_mm256_min_ps(_mm256_max_ps(v, lo), hi)), zero);
}

INLINE void store_rounded(uint8_t *y, __m256 v, __m256 lo, __m256 hi, __m256i zero)
{
    const __m256i q = rounded(v, lo, hi, zero);
    const __m128i w = _mm_packs_epi32(_mm256_castsi256_si128(q), _mm256_extracti128_si256(q, 1));
    _mm_storel_epi64((__m128i *)(void *)y, _mm_packus_epi16(w, w));
}

void add_u8_avx2(const uint8_t *a, const uint8_t *b, int b_step, size_t n, const binary_q *q,
                 uint8_t *y)
{
    const add_terms t =
        add_terms_of(q->a_scale, q->a_zero, q->b_scale, q->b_zero, q->y_scale, q->y_zero);
    const __m256 ra = _mm256_set1_ps(t.ra), rb = _mm256_set1_ps(t.rb);
    const __m256 fixed = _mm256_set1_ps(t.fixed);
    const __m256 lo = _mm256_set1_ps((float)q->lo), hi = _mm256_set1_ps((float)q->hi);
    const uint8_t b0 = n ? b[0] : 0;
    const __m256 b0v = _mm256_set1_ps((float)b0);
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256 bv = b_step ? load_f32(b + i) : b0v;
        const __m256 v = _mm256_fmadd_ps(load_f32(a + i), ra, _mm256_fmadd_ps(bv, rb, fixed));
        store_rounded(y + i, v, lo, hi, _mm256_setzero_si256());
    }
    for (; i < n; i++)
        y[i] = add_one(a[i], b_step ? b[i] : b0, t, q->lo, q->hi);
}

/* The product of the integers is exact in float32: under 2^16. */
void mul_u8_avx2(const uint8_t *a, const uint8_t *b, int b_step, size_t n, const binary_q *q,
                 uint8_t *y)
{
    const float ratio = mul_ratio(q->a_scale, q->b_scale, q->y_scale);
    const __m256 rv = _mm256_set1_ps(ratio), yz = _mm256_set1_ps((float)q->y_zero);
    const __m256 az = _mm256_set1_ps((float)q->a_zero), bz = _mm256_set1_ps((float)q->b_zero);
    const __m256 lo = _mm256_set1_ps((float)q->lo), hi = _mm256_set1_ps((float)q->hi);
    const uint8_t b0 = n ? b[0] : 0;
    const __m256 b0v = _mm256_set1_ps((float)b0);
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256 av = _mm256_sub_ps(load_f32(a + i), az);
        const __m256 bv = _mm256_sub_ps(b_step ? load_f32(b + i) : b0v, bz);
        const __m256 v = _mm256_add_ps(_mm256_mul_ps(_mm256_mul_ps(av, bv), rv), yz);
        store_rounded(y + i, v, lo, hi, _mm256_setzero_si256());
    }
    for (; i < n; i++)
        y[i] = mul_one(a[i] - q->a_zero, (b_step ? b[i] : b0) - q->b_zero, ratio, q->y_zero, q->lo,
                       q->hi);
}

/* Sixteen shuffles, one for each high nibble: an index of another nibble is lifted to 128 and
 * more, where the shuffle gives 0. */
void table_u8_avx2(const uint8_t *x, size_t n, const uint8_t table[256], uint8_t *y)
{
    const __m256i lift = _mm256_set1_epi8(0x70);
    __m256i rows[16];
    size_t i = 0;
    if (n >= 32)
        for (int r = 0; r < 16; r++)
            rows[r] = _mm256_broadcastsi128_si256(
                _mm_loadu_si128((const __m128i *)(const void *)(table + 16 * r)));
    for (; i + 32 <= n; i += 32) {
        const __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)(x + i));
        __m256i sum = _mm256_setzero_si256();
        for (int r = 0; r < 16; r++) {
            const __m256i low = _mm256_xor_si256(v, _mm256_set1_epi8((char)(r << 4)));
            const __m256i hit = _mm256_shuffle_epi8(rows[r], _mm256_adds_epu8(low, lift));
            sum = _mm256_or_si256(sum, hit);
        }
        _mm256_storeu_si256((__m256i *)(void *)(y + i), sum);
    }
    for (; i < n; i++)
        y[i] = table[x[i]];
}

void quantize_u8_avx2(const float *x, size_t n, float scale, int zero, int lo, int hi, uint8_t *y)
{
    const __m256 s = _mm256_set1_ps(scale), flo = _mm256_set1_ps((float)(lo - zero));
    const __m256 fhi = _mm256_set1_ps((float)(hi - zero));
    const __m256i z = _mm256_set1_epi32(zero);
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256 v = _mm256_loadu_ps(x + i);
        const __m256 number = _mm256_cmp_ps(v, v, _CMP_ORD_Q);
        store_rounded(y + i, _mm256_and_ps(_mm256_div_ps(v, s), number), flo, fhi, z);
    }
    for (; i < n; i++)
        y[i] = quantize_one(x[i], scale, zero, lo, hi);
}

/* Every dword takes the bytes of one pixel, then the used bytes of a lane close ranks. Stores are
 * whole lanes: they end before the output does. */
void quantize_planes_u8_avx2(const float *x, size_t plane, size_t n, int channels, float scale,
                             int zero, int lo, int hi, uint8_t *y)
{
    const __m256 s = _mm256_set1_ps(scale), flo = _mm256_set1_ps((float)(lo - zero));
    const __m256 fhi = _mm256_set1_ps((float)(hi - zero));
    const __m256i z = _mm256_set1_epi32(zero);
    uint8_t close[16];
    for (int i = 0; i < 16; i++)
        close[i] = (uint8_t)((i / channels * 4 + i % channels) & 15);
    const __m256i in_lanes =
        _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)close));
    size_t i = 0;
    for (; i + 8 <= n && (n - i - 4) * channels >= 16; i += 8) {
        __m256i pixels = _mm256_setzero_si256();
        for (int c = 0; c < channels; c++) {
            const __m256 v = _mm256_loadu_ps(x + c * plane + i);
            const __m256 number = _mm256_cmp_ps(v, v, _CMP_ORD_Q);
            const __m256i q = rounded(_mm256_and_ps(_mm256_div_ps(v, s), number), flo, fhi, z);
            pixels = _mm256_or_si256(pixels, _mm256_sll_epi32(q, _mm_cvtsi32_si128(8 * c)));
        }
        pixels = _mm256_shuffle_epi8(pixels, in_lanes);
        uint8_t *at = y + i * channels;
        _mm_storeu_si128((__m128i *)(void *)at, _mm256_castsi256_si128(pixels));
        _mm_storeu_si128((__m128i *)(void *)(at + 4 * channels),
                         _mm256_extracti128_si256(pixels, 1));
    }
    for (; i < n; i++)
        for (int c = 0; c < channels; c++)
            y[i * channels + c] = quantize_one(x[c * plane + i], scale, zero, lo, hi);
}

void dequantize_u8_avx2(const uint8_t *x, size_t n, float scale, int zero, float *y)
{
    const __m256 s = _mm256_set1_ps(scale), z = _mm256_set1_ps((float)zero);
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(y + i, _mm256_mul_ps(_mm256_sub_ps(load_f32(x + i), z), s));
    for (; i < n; i++)
        y[i] = dequantize_one(x[i], scale, zero);
}
