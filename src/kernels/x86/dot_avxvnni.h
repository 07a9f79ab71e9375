/* VPDPBUSD in 256-bit registers: for 8 columns the products of four u8 and four s8, added. What
 * product_ymm.h is written in. */
#ifndef RUNG_KERNELS_X86_DOT_AVXVNNI_H
#define RUNG_KERNELS_X86_DOT_AVXVNNI_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define ISA(name) name##_avxvnni
typedef uint8_t row_value;
typedef int8_t weight;
enum {
    PER_STEP = 4, /* values in 32 bits */
    CHAINS = 8,   /* independent sums that fill the latency of the instruction */
};

/* The instruction itself: gcc 12 copies and spills the accumulators of the intrinsic. */
static inline __attribute__((always_inline)) __m256i dot(__m256i sum, __m256i x, __m256i w)
{
    __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(x), "x"(w));
    return sum;
}

/* n bytes as row values; returns their end. */
static inline row_value *copy_values(row_value *to, const uint8_t *from, size_t n)
{
    memcpy(to, from, n);
    return to + n;
}

#endif
