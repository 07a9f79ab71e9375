/* VPDPBUSD in 256-bit registers: for 8 columns the products of four u8 and four s8, added. */
#ifndef RUNG_KERNELS_X86_DOT_AVXVNNI_H
#define RUNG_KERNELS_X86_DOT_AVXVNNI_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

/* The instruction itself: gcc 12 copies and spills the accumulators of the intrinsic. */
static inline __attribute__((always_inline)) __m256i dpbusd(__m256i sum, __m256i u8, __m256i s8)
{
    __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(u8), "x"(s8));
    return sum;
}

static inline __attribute__((always_inline)) __m256i broadcast4(const uint8_t *p)
{
    int32_t v;
    memcpy(&v, p, 4);
    return _mm256_set1_epi32(v);
}

#endif
