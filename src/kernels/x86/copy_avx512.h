/* Copies of any length with AVX512. */
#ifndef RUNG_KERNELS_X86_COPY_AVX512_H
#define RUNG_KERNELS_X86_COPY_AVX512_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

static inline __attribute__((always_inline)) void copy_bytes(uint8_t *to, const uint8_t *from,
                                                             size_t n)
{
    for (; n > 64; n -= 64, to += 64, from += 64)
        _mm512_storeu_si512(to, _mm512_loadu_si512(from));
    const __mmask64 m = n ? ~UINT64_C(0) >> (64 - n) : 0;
    _mm512_mask_storeu_epi8(to, m, _mm512_maskz_loadu_epi8(m, from));
}

#endif
