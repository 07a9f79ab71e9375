/* Tables with AVX512-VBMI: the whole table lies in four registers, and a byte permutation of two
 * of them looks 64 values up. */
#include <immintrin.h>

#include "kernels/kernels.h"
#include "kernels/x86/x86.h"

void table_u8_avx512vbmi(const uint8_t *x, size_t n, const uint8_t table[256], uint8_t *y)
{
    const __m512i t0 = _mm512_loadu_si512(table), t1 = _mm512_loadu_si512(table + 64);
    const __m512i t2 = _mm512_loadu_si512(table + 128), t3 = _mm512_loadu_si512(table + 192);
    for (size_t i = 0; i < n; i += 64) {
        const __mmask64 m = n - i < 64 ? ~UINT64_C(0) >> (64 - (n - i)) : ~UINT64_C(0);
        const __m512i v = _mm512_maskz_loadu_epi8(m, x + i);
        const __m512i low = _mm512_permutex2var_epi8(t0, v, t1);
        const __m512i high = _mm512_permutex2var_epi8(t2, v, t3);
        const __mmask64 is_high = _mm512_movepi8_mask(v);
        _mm512_mask_storeu_epi8(y + i, m, _mm512_mask_blend_epi8(is_high, low, high));
    }
}
