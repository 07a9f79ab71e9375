/* Add, Mul, tables, QuantizeLinear, DequantizeLinear with AVX-512 (F, BW). */
#include <immintrin.h>

#include "kernels/arith.h"
#include "kernels/kernels.h"
#include "kernels/x86/words.h"
#include "kernels/x86/x86.h"

/* The lanes of the next 16 (64) of n values. */
INLINE __mmask16 lanes16(size_t n)
{
    return n < 16 ? (__mmask16)(0xffffu >> (16 - n)) : 0xffff;
}

INLINE __m512 load_f32(__mmask16 m, const uint8_t *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(m, p)));
}

/* round_to_u8, 16 at a time; lo and hi are those of the value before `zero` is added. */
INLINE __m512i rounded(__m512 v, __m512 lo, __m512 hi, __m512i zero)
{
    return _mm512_add_epi32(_mm512_cvtps_epi32(_mm512_min_ps(_mm512_max_ps(v, lo), hi)), zero);
}

INLINE void store_rounded(__mmask16 m, uint8_t *y, __m512 v, __m512 lo, __m512 hi, __m512i zero)
{
    _mm512_mask_cvtepi32_storeu_epi8(y, m, rounded(v, lo, hi, zero));
}

/* Add and Mul, 16 values at a time; b_step = 0: every value of b is `b`. */
typedef struct binary_consts {
    __m512 ra, rb, fixed;     /* of Add */
    __m512 az, bz, ratio, yz; /* of Mul */
    __m512 b, hi;
    __m512i lo, order;
} binary_consts;

/* Packing works in 128-bit lanes: dword 4 l + j is lane l of register j. */
INLINE binary_consts consts_of(const binary_q *q, const uint8_t *b, int b_step, size_t n)
{
    const add_terms t =
        add_terms_of(q->a_scale, q->a_zero, q->b_scale, q->b_zero, q->y_scale, q->y_zero);
    return (binary_consts){
        .ra = _mm512_set1_ps(t.ra),
        .rb = _mm512_set1_ps(t.rb),
        .fixed = _mm512_set1_ps(t.fixed),
        .az = _mm512_set1_ps((float)q->a_zero),
        .bz = _mm512_set1_ps((float)q->b_zero),
        .ratio = _mm512_set1_ps(mul_ratio(q->a_scale, q->b_scale, q->y_scale)),
        .yz = _mm512_set1_ps((float)q->y_zero),
        .b = b_step || n == 0 ? _mm512_setzero_ps() : _mm512_set1_ps((float)b[0]),
        .hi = _mm512_set1_ps((float)q->hi),
        .lo = _mm512_set1_epi8((char)q->lo),
        .order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15)};
}

/* The product of Mul's integers is exact in float32: under 2^16. */
INLINE __m512i binary16(bool mul, const binary_consts *k, __m512 a, __m512 b)
{
    const __m512 v = mul ? _mm512_add_ps(_mm512_mul_ps(_mm512_mul_ps(_mm512_sub_ps(a, k->az),
                                                                     _mm512_sub_ps(b, k->bz)),
                                                       k->ratio),
                                         k->yz)
                         : _mm512_fmadd_ps(a, k->ra, _mm512_fmadd_ps(b, k->rb, k->fixed));
    return _mm512_cvtps_epi32(_mm512_min_ps(v, k->hi));
}

/* What is below int32 becomes INT32_MIN in the conversion, and saturates as it should. */
INLINE __m512i binary64(bool mul, const binary_consts *k, const uint8_t *a, const uint8_t *b,
                        int b_step)
{
    __m512i i[4];
    for (int j = 0; j < 4; j++)
        i[j] = binary16(mul, k, load_f32(0xffff, a + 16 * j),
                        b_step ? load_f32(0xffff, b + 16 * j) : k->b);
    const __m512i bytes =
        _mm512_packus_epi16(_mm512_packs_epi32(i[0], i[1]), _mm512_packs_epi32(i[2], i[3]));
    return _mm512_permutexvar_epi32(k->order, _mm512_max_epu8(bytes, k->lo));
}

INLINE void binary_u8(bool mul, const uint8_t *a, const uint8_t *b, int b_step, size_t n,
                      const binary_q *q, uint8_t *y)
{
    const binary_consts k = consts_of(q, b, b_step, n);
    const __m512i lo = _mm512_cvtepu8_epi32(_mm512_castsi512_si128(k.lo));
    size_t i = 0;
    for (; i + 64 <= n; i += 64)
        _mm512_storeu_si512(y + i, binary64(mul, &k, a + i, b_step ? b + i : b, b_step));
    for (; i < n; i += 16) {
        const __mmask16 m = lanes16(n - i);
        const __m512i v = binary16(mul, &k, load_f32(m, a + i), b_step ? load_f32(m, b + i) : k.b);
        _mm512_mask_cvtepi32_storeu_epi8(y + i, m, _mm512_max_epi32(v, lo));
    }
}

void add_u8_avx512(const uint8_t *a, const uint8_t *b, int b_step, size_t n, const binary_q *q,
                   uint8_t *y)
{
    binary_u8(false, a, b, b_step, n, q, y);
}

void mul_u8_avx512(const uint8_t *a, const uint8_t *b, int b_step, size_t n, const binary_q *q,
                   uint8_t *y)
{
    binary_u8(true, a, b, b_step, n, q, y);
}

/* Sixteen shuffles, one for each high nibble: an index of another nibble is lifted to 128 and
 * more, where the shuffle gives 0. */
INLINE __m512i look_up(__m512i x, const __m512i rows[16])
{
    const __m512i lift = _mm512_set1_epi8(0x70);
    __m512i y = _mm512_setzero_si512();
    for (int i = 0; i < 16; i++) {
        const __m512i low = _mm512_xor_si512(x, _mm512_set1_epi8((char)(i << 4)));
        y = _mm512_or_si512(y, _mm512_shuffle_epi8(rows[i], _mm512_adds_epu8(low, lift)));
    }
    return y;
}

void table_u8_avx512(const uint8_t *x, size_t n, const uint8_t table[256], uint8_t *y)
{
    __m512i rows[16];
    for (int i = 0; i < 16; i++)
        rows[i] = _mm512_broadcast_i32x4(
            _mm_loadu_si128((const __m128i *)(const void *)(table + 16 * i)));
    for (size_t i = 0; i < n; i += 64) {
        const __mmask64 m = n - i < 64 ? ~UINT64_C(0) >> (64 - (n - i)) : ~UINT64_C(0);
        const __m512i v = look_up(_mm512_maskz_loadu_epi8(m, x + i), rows);
        _mm512_mask_storeu_epi8(y + i, m, v);
    }
}

void quantize_u8_avx512(const float *x, size_t n, float scale, int zero, int lo, int hi, uint8_t *y)
{
    const __m512 s = _mm512_set1_ps(scale), flo = _mm512_set1_ps((float)(lo - zero));
    const __m512 fhi = _mm512_set1_ps((float)(hi - zero));
    const __m512i z = _mm512_set1_epi32(zero);
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 m = lanes16(n - i);
        const __m512 v = _mm512_maskz_loadu_ps(m, x + i);
        const __mmask16 number = _mm512_cmp_ps_mask(v, v, _CMP_ORD_Q);
        store_rounded(m, y + i, _mm512_maskz_div_ps(number, v, s), flo, fhi, z);
    }
}

/* Every dword takes the bytes of one pixel; then the bytes that are used close ranks, in the lanes
 * of 128 bits first. */
void quantize_planes_u8_avx512(const float *x, size_t plane, size_t n, int channels, float scale,
                               int zero, int lo, int hi, uint8_t *y)
{
    const __m512 s = _mm512_set1_ps(scale), flo = _mm512_set1_ps((float)(lo - zero));
    const __m512 fhi = _mm512_set1_ps((float)(hi - zero));
    const __m512i z = _mm512_set1_epi32(zero);
    uint8_t close[16];
    int32_t join[16];
    for (int i = 0; i < 16; i++) {
        join[i] = (i / channels * 4 + i % channels) & 15;
        close[i] = (uint8_t)join[i];
    }
    const __m512i in_lanes =
        _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)close));
    const __m512i lanes = _mm512_loadu_si512(join);
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 m = lanes16(n - i);
        const size_t bytes = (n - i < 16 ? n - i : 16) * channels;
        __m512i pixels = _mm512_setzero_si512();
        for (int c = 0; c < channels; c++) {
            const __m512 v = _mm512_maskz_loadu_ps(m, x + c * plane + i);
            const __mmask16 number = _mm512_cmp_ps_mask(v, v, _CMP_ORD_Q);
            const __m512i q = rounded(_mm512_maskz_div_ps(number, v, s), flo, fhi, z);
            pixels = _mm512_or_si512(pixels, _mm512_sll_epi32(q, _mm_cvtsi32_si128(8 * c)));
        }
        pixels = _mm512_permutexvar_epi32(lanes, _mm512_shuffle_epi8(pixels, in_lanes));
        _mm512_mask_storeu_epi8(y + i * channels, ~UINT64_C(0) >> (64 - bytes), pixels);
    }
}

void dequantize_u8_avx512(const uint8_t *x, size_t n, float scale, int zero, float *y)
{
    const __m512 s = _mm512_set1_ps(scale), z = _mm512_set1_ps((float)zero);
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 m = lanes16(n - i);
        const __m512 v = _mm512_mul_ps(_mm512_sub_ps(load_f32(m, x + i), z), s);
        _mm512_mask_storeu_ps(y + i, m, v);
    }
}
