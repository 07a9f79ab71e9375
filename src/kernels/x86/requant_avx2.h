/* Requantization of 16 sums of a row with AVX2, for the convolutions in 256-bit registers. */
#ifndef RUNG_KERNELS_X86_REQUANT_AVX2_H
#define RUNG_KERNELS_X86_REQUANT_AVX2_H

#include <immintrin.h>
#include <string.h>

#include "kernels/kernels.h"

static inline __attribute__((always_inline)) __m256i requant8(__m256i acc, const float *mult,
                                                              const requant *q)
{
    const __m256 lo = _mm256_set1_ps((float)(q->lo - q->zero));
    const __m256 hi = _mm256_set1_ps((float)(q->hi - q->zero));
    __m256 f = _mm256_mul_ps(_mm256_cvtepi32_ps(acc), _mm256_loadu_ps(mult));
    f = _mm256_min_ps(_mm256_max_ps(f, lo), hi);
    return _mm256_add_epi32(_mm256_cvtps_epi32(f), _mm256_set1_epi32(q->zero));
}

/* Bytes of the first `columns` of 16 sums; packing works in 128-bit lanes, so 64-bit quarters
 * change places. */
static inline __attribute__((always_inline)) void store_bytes16(const requant *q,
                                                                const float mult[16], int columns,
                                                                __m256i a0, __m256i a1, uint8_t *y)
{
    const __m256i i0 = requant8(a0, mult, q), i1 = requant8(a1, mult + 8, q);
    const __m256i w = _mm256_permute4x64_epi64(_mm256_packs_epi32(i0, i1), 0xd8);
    const __m128i bytes =
        _mm_packus_epi16(_mm256_castsi256_si128(w), _mm256_extracti128_si256(w, 1));
    uint8_t out[16];
    if (columns == 16) {
        _mm_storeu_si128((__m128i *)(void *)y, bytes);
    } else {
        _mm_storeu_si128((__m128i *)(void *)out, bytes);
        memcpy(y, out, columns);
    }
}

/* The sums themselves. */
static inline __attribute__((always_inline)) void store_sums16(int columns, __m256i a0, __m256i a1,
                                                               uint8_t *y)
{
    int32_t out[16];
    int32_t *to = columns == 16 ? (int32_t *)(void *)y : out;
    _mm256_storeu_si256((__m256i *)(void *)to, a0);
    _mm256_storeu_si256((__m256i *)(void *)(to + 8), a1);
    if (to == out)
        memcpy(y, out, (size_t)columns * sizeof *out);
}

#endif
