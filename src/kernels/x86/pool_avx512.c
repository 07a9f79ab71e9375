/* Pools with AVX-512 (F, BW), channels-last: 64 channels at a time where bytes suffice, 16 where
 * sums are needed. */
#include <immintrin.h>

#include "kernels/arith.h"
#include "kernels/kernels.h"
#include "kernels/ref/window.h"
#include "kernels/x86/words.h"
#include "kernels/x86/x86.h"

INLINE __mmask64 lanes64(size_t n)
{
    return n < 64 ? ~UINT64_C(0) >> (64 - n) : ~UINT64_C(0);
}

INLINE __mmask16 lanes16(size_t n)
{
    return n < 16 ? (__mmask16)(0xffffu >> (16 - n)) : 0xffff;
}

void max_pool_u8_avx512(const pool_shape *s, const uint8_t *x, const pool_q *q, uint8_t *y,
                        int thread, int n_threads)
{
    const __m512i lo = _mm512_set1_epi8((char)(q ? q->lo : 0));
    const __m512i hi = _mm512_set1_epi8((char)(q ? q->hi : 255));
    const size_t channels = s->channels, step = s->dilation_w * channels;
    size_t row, last;
    kernel_share((size_t)s->batch * s->out_h * s->out_w, 1, thread, n_threads, &row, &last);
    if (row == last)
        return;
    int ox = (int)(row % s->out_w);
    window w = window_of(s, x, row);
    for (; row < last; window_next(s, x, row, &ox, &w), row++) {
        for (size_t c = 0; c < channels; c += 64) {
            const __mmask64 m = lanes64(channels - c);
            __m512i best = lo;
            for (int ky = w.y0; ky < w.y1; ky++) {
                const uint8_t *tap = window_tap(s, &w, ky, w.x0) + c;
                for (int kx = w.x0; kx < w.x1; kx++, tap += step)
                    best = _mm512_max_epu8(best, _mm512_maskz_loadu_epi8(m, tap));
            }
            _mm512_mask_storeu_epi8(y + row * channels + c, m, _mm512_min_epu8(best, hi));
        }
    }
}

void avg_pool_u8_avx512(const pool_shape *s, const uint8_t *x, const pool_q *q, uint8_t *y,
                        int thread, int n_threads)
{
    const __m512 x_scale = _mm512_set1_ps(q->x_scale), y_scale = _mm512_set1_ps(q->y_scale);
    const __m512 x_zero = _mm512_set1_ps((float)q->x_zero);
    const __m512 y_zero = _mm512_set1_ps((float)q->y_zero);
    const __m512 lo = _mm512_set1_ps((float)q->lo), hi = _mm512_set1_ps((float)q->hi);
    const size_t channels = s->channels;
    size_t row, last;
    kernel_share((size_t)s->batch * s->out_h * s->out_w, 1, thread, n_threads, &row, &last);
    if (row == last)
        return;
    int ox = (int)(row % s->out_w);
    window w = window_of(s, x, row);
    for (; row < last; window_next(s, x, row, &ox, &w), row++) {
        const int inside = (w.y1 - w.y0) * (w.x1 - w.x0);
        const int count = s->count_pad ? s->kernel_h * s->kernel_w : inside ? inside : 1;
        const __m512 n = _mm512_set1_ps((float)count);
        for (size_t c = 0; c < channels; c += 16) {
            const __mmask16 m = lanes16(channels - c);
            __m512 sum = _mm512_setzero_ps();
            for (int ky = w.y0; ky < w.y1; ky++)
                for (int kx = w.x0; kx < w.x1; kx++) {
                    const __m128i b = _mm_maskz_loadu_epi8(m, window_tap(s, &w, ky, kx) + c);
                    const __m512 v = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(b));
                    sum = _mm512_add_ps(sum, _mm512_mul_ps(_mm512_sub_ps(v, x_zero), x_scale));
                }
            const __m512 steps = _mm512_div_ps(_mm512_div_ps(sum, n), y_scale);
            const __m512 v = _mm512_min_ps(_mm512_max_ps(_mm512_add_ps(steps, y_zero), lo), hi);
            _mm512_mask_cvtepi32_storeu_epi8(y + row * channels + c, m, _mm512_cvtps_epi32(v));
        }
    }
}

void global_avg_pool_u8_avx512(const pool_shape *s, const uint8_t *x, const pool_q *q, uint8_t *y,
                               int thread, int n_threads)
{
    const size_t channels = s->channels, pixels = (size_t)s->in_h * s->in_w;
    const size_t blocks = (channels + 15) / 16;
    const __m512 ratio = _mm512_set1_ps(global_average_ratio(q->x_scale, q->y_scale, (int)pixels));
    const __m512 lo = _mm512_set1_ps((float)(q->lo - q->y_zero));
    const __m512 hi = _mm512_set1_ps((float)(q->hi - q->y_zero));
    const __m512i start = _mm512_set1_epi32(-(int)pixels * q->x_zero);
    size_t i, last;
    kernel_share(s->batch * blocks, 1, thread, n_threads, &i, &last);
    for (; i < last; i++) {
        const size_t image = i / blocks, c = i % blocks * 16;
        const __mmask16 m = lanes16(channels - c);
        const uint8_t *p = x + image * pixels * channels + c;
        __m512i sum = start;
        for (size_t k = 0; k < pixels; k++, p += channels)
            sum = _mm512_add_epi32(sum, _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(m, p)));
        __m512 v = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), ratio);
        v = _mm512_min_ps(_mm512_max_ps(v, lo), hi);
        const __m512i r = _mm512_add_epi32(_mm512_cvtps_epi32(v), _mm512_set1_epi32(q->y_zero));
        _mm512_mask_cvtepi32_storeu_epi8(y + image * channels + c, m, r);
    }
}
