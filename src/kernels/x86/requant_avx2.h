/* Requantization with AVX2, for the convolutions in 256-bit registers. */
#ifndef RUNG_KERNELS_X86_REQUANT_AVX2_H
#define RUNG_KERNELS_X86_REQUANT_AVX2_H

#include <immintrin.h>
#include <string.h>

#include "kernels/kernels.h"
#include "kernels/x86/block_out.h"

/* The constants of a requantization in registers. */
typedef struct requant_ymm {
    __m256i zero, lo, hi; /* 16-bit; bytes */
} requant_ymm;

INLINE requant_ymm requant_ymm_of(int zero, int lo, int hi)
{
    return (requant_ymm){_mm256_set1_epi16((int16_t)zero), _mm256_set1_epi8((char)lo),
                         _mm256_set1_epi8((char)hi)};
}

/* A product below int32 becomes INT32_MIN in the conversion, which saturates as it should; above,
 * it must not get that far, unless the multipliers are below 1 ("bounded"). */
INLINE __m256i rounded8(__m256i sum, __m256 mult, bool bounded)
{
    __m256 v = _mm256_mul_ps(_mm256_cvtepi32_ps(sum), mult);
    if (!bounded)
        v = _mm256_min_ps(v, _mm256_set1_ps(65536));
    return _mm256_cvtps_epi32(v);
}

/* Four registers of rounded sums to bytes: packing works in 128-bit lanes, so lane l holds lane l
 * of the four, one behind the other. */
INLINE __m256i to_bytes(const requant_ymm *k, const __m256i i[4])
{
    const __m256i low = _mm256_adds_epi16(_mm256_packs_epi32(i[0], i[1]), k->zero);
    const __m256i high = _mm256_adds_epi16(_mm256_packs_epi32(i[2], i[3]), k->zero);
    return _mm256_min_epu8(_mm256_max_epu8(_mm256_packus_epi16(low, high), k->lo), k->hi);
}

INLINE void store_columns(uint8_t *y, int columns, __m128i bytes)
{
    uint8_t out[16];
    if (columns == 16) {
        _mm_storeu_si128((__m128i *)(void *)y, bytes);
    } else {
        _mm_storeu_si128((__m128i *)(void *)out, bytes);
        memcpy(y, out, columns);
    }
}

/* Bytes of the first `columns` of 16 sums, of one row or of two (mr), y_stride apart. */
INLINE void store_bytes16(const requant_ymm *k, const __m256 mult[2], bool bounded, int mr,
                          const __m256i acc[][2], int columns, uint8_t *y, size_t y_stride)
{
    __m256i i[4];
    UNROLL
    for (int j = 0; j < 4; j++)
        i[j] = j / 2 < mr ? rounded8(acc[j / 2][j % 2], mult[j % 2], bounded) : i[j - 2];
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    const __m256i bytes = _mm256_permutevar8x32_epi32(to_bytes(k, i), order);
    store_columns(y, columns, _mm256_castsi256_si128(bytes));
    if (mr == 2)
        store_columns(y + y_stride, columns, _mm256_extracti128_si256(bytes, 1));
}

/* The sums of a row themselves. */
INLINE void store_sums16(int columns, const __m256i acc[2], uint8_t *y)
{
    int32_t out[16];
    int32_t *to = columns == 16 ? (int32_t *)(void *)y : out;
    _mm256_storeu_si256((__m256i *)(void *)to, acc[0]);
    _mm256_storeu_si256((__m256i *)(void *)(to + 8), acc[1]);
    if (to == out)
        memcpy(y, out, (size_t)columns * sizeof *out);
}

/* mr rows of 16 sums, mr 1 or even, to where b says. */
INLINE void store_tile16_as(const block_out *b, int mr, const __m256i acc[][2], bool bounded)
{
    const requant_ymm k = requant_ymm_of(b->zero, b->lo, b->hi);
    const int together = mr == 1 ? 1 : 2;
    uint8_t *y = b->y;
    float few[16] = {0};
    if (b->last < 16)
        memcpy(few, b->mult, (size_t)b->last * sizeof *few);
    const float *from = b->last < 16 ? few : b->mult;
    const __m256 mult[2] = {_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)};
    UNROLL
    for (int r = 0; r < mr; r += together, y += together * b->y_stride)
        store_bytes16(&k, mult, bounded, together, acc + r, b->last, y, b->y_stride);
}

INLINE void store_tile16(bool sums, const block_out *b, int mr, const __m256i acc[][2])
{
    uint8_t *y = b->y;
    if (sums) {
        UNROLL
        for (int r = 0; r < mr; r++, y += b->y_stride)
            store_sums16(b->last, acc[r], y);
        return;
    }
    __asm__ volatile("" : "+r"(b)); /* keeps the constants out of the dot products' registers */
    if (b->bounded)
        store_tile16_as(b, mr, acc, true);
    else
        store_tile16_as(b, mr, acc, false);
}

#endif
