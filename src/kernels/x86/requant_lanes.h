/* The sums of a depthwise convolution to bytes with AVX512. */
#ifndef RUNG_KERNELS_X86_REQUANT_LANES_H
#define RUNG_KERNELS_X86_REQUANT_LANES_H

#include <immintrin.h>

#include "kernels/kernels.h"
#include "kernels/x86/words.h"

/* Four registers in lane order, as are the multipliers; packing works in 128-bit lanes and undoes
 * it. A product below int32 becomes INT32_MIN in the conversion, which saturates as it should;
 * above, it must not get that far. */
INLINE __m512i requant_lanes(const __m512i sum[4], const float *mult, const requant *q)
{
    const __m512 hi = _mm512_set1_ps((float)(q->hi - q->zero));
    const __m512i zero = _mm512_set1_epi16((short)q->zero);
    __m512i i[4];
    for (int j = 0; j < 4; j++)
        i[j] = _mm512_cvtps_epi32(_mm512_min_ps(
            _mm512_mul_ps(_mm512_cvtepi32_ps(sum[j]), _mm512_load_ps(mult + 16 * j)), hi));
    const __m512i low = _mm512_adds_epi16(_mm512_packs_epi32(i[0], i[1]), zero);
    const __m512i high = _mm512_adds_epi16(_mm512_packs_epi32(i[2], i[3]), zero);
    return _mm512_max_epu8(_mm512_packus_epi16(low, high), _mm512_set1_epi8((char)q->lo));
}

#endif
