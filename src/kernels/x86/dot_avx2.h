/* VPMADDWD: for 8 columns the products of two pairs of 16-bit numbers, added. Exact for u8 and s8,
 * which are widened. What product_ymm.h is written in. */
#ifndef RUNG_KERNELS_X86_DOT_AVX2_H
#define RUNG_KERNELS_X86_DOT_AVX2_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#define ISA(name) name##_avx2
typedef uint16_t row_value;
typedef int16_t weight;
enum {
    PER_STEP = 2, /* values in 32 bits */
    CHAINS = 2,   /* independent sums that fill the latency of the addition */
};

static inline __attribute__((always_inline)) __m256i dot(__m256i sum, __m256i x, __m256i w)
{
    /* The instruction itself: gcc 12 copies and spills the accumulators of the intrinsic. */
    __asm__("vpaddd %1, %0, %0" : "+x"(sum) : "x"(_mm256_madd_epi16(x, w)));
    return sum;
}

/* n bytes as row values; returns their end. */
static inline row_value *copy_values(row_value *to, const uint8_t *from, size_t n)
{
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        const __m128i b = _mm_loadu_si128((const __m128i *)(const void *)(from + i));
        _mm256_storeu_si256((__m256i *)(void *)(to + i), _mm256_cvtepu8_epi16(b));
    }
    for (; i < n; i++)
        to[i] = from[i];
    return to + n;
}

#endif
