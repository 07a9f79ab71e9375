/* Pools with AVX2, channels-last: 32 channels at a time where bytes suffice, 8 where sums are
 * needed; the last channels one by one through arith.h. */
#include <immintrin.h>

#include "kernels/arith.h"
#include "kernels/kernels.h"
#include "kernels/ref/window.h"
#include "kernels/x86/words.h"
#include "kernels/x86/x86.h"

INLINE __m256i load8_epi32(const uint8_t *p)
{
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p));
}

INLINE void store8(uint8_t *y, __m256i q)
{
    const __m128i w = _mm_packs_epi32(_mm256_castsi256_si128(q), _mm256_extracti128_si256(q, 1));
    _mm_storel_epi64((__m128i *)(void *)y, _mm_packus_epi16(w, w));
}

static void max_tail(const pool_shape *s, const window *w, size_t c, int lo, int hi, uint8_t *y)
{
    for (; c < (size_t)s->channels; c++) {
        int best = lo;
        for (int ky = w->y0; ky < w->y1; ky++)
            for (int kx = w->x0; kx < w->x1; kx++) {
                const int v = window_tap(s, w, ky, kx)[c];
                best = v > best ? v : best;
            }
        y[c] = (uint8_t)(best > hi ? hi : best);
    }
}

void max_pool_u8_avx2(const pool_shape *s, const uint8_t *x, const pool_q *q, uint8_t *y,
                      int thread, int n_threads)
{
    const int lo = q ? q->lo : 0, hi = q ? q->hi : 255;
    const size_t channels = s->channels;
    size_t row, last;
    kernel_share((size_t)s->batch * s->out_h * s->out_w, 1, thread, n_threads, &row, &last);
    if (row == last)
        return;
    int ox = (int)(row % s->out_w);
    window w = window_of(s, x, row);
    for (; row < last; window_next(s, x, row, &ox, &w), row++) {
        uint8_t *to = y + row * channels;
        size_t c = 0;
        for (; c + 32 <= channels; c += 32) {
            __m256i best = _mm256_set1_epi8((char)lo);
            for (int ky = w.y0; ky < w.y1; ky++)
                for (int kx = w.x0; kx < w.x1; kx++)
                    best = _mm256_max_epu8(
                        best, _mm256_loadu_si256(
                                  (const __m256i *)(const void *)(window_tap(s, &w, ky, kx) + c)));
            best = _mm256_min_epu8(best, _mm256_set1_epi8((char)hi));
            _mm256_storeu_si256((__m256i *)(void *)(to + c), best);
        }
        max_tail(s, &w, c, lo, hi, to);
    }
}

static void average_tail(const pool_shape *s, const window *w, int count, size_t c, const pool_q *q,
                         uint8_t *y)
{
    for (; c < (size_t)s->channels; c++) {
        float sum = 0;
        for (int ky = w->y0; ky < w->y1; ky++)
            for (int kx = w->x0; kx < w->x1; kx++)
                sum += dequantize_one(window_tap(s, w, ky, kx)[c], q->x_scale, q->x_zero);
        y[c] = average_one(sum, count, q->y_scale, q->y_zero, q->lo, q->hi);
    }
}

void avg_pool_u8_avx2(const pool_shape *s, const uint8_t *x, const pool_q *q, uint8_t *y,
                      int thread, int n_threads)
{
    const __m256 x_scale = _mm256_set1_ps(q->x_scale), y_scale = _mm256_set1_ps(q->y_scale);
    const __m256 x_zero = _mm256_set1_ps((float)q->x_zero);
    const __m256 y_zero = _mm256_set1_ps((float)q->y_zero);
    const __m256 lo = _mm256_set1_ps((float)q->lo), hi = _mm256_set1_ps((float)q->hi);
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
        const __m256 n = _mm256_set1_ps((float)count);
        uint8_t *to = y + row * channels;
        size_t c = 0;
        for (; c + 8 <= channels; c += 8) {
            __m256 sum = _mm256_setzero_ps();
            for (int ky = w.y0; ky < w.y1; ky++)
                for (int kx = w.x0; kx < w.x1; kx++) {
                    const __m256 v = _mm256_cvtepi32_ps(load8_epi32(window_tap(s, &w, ky, kx) + c));
                    sum = _mm256_add_ps(sum, _mm256_mul_ps(_mm256_sub_ps(v, x_zero), x_scale));
                }
            const __m256 steps = _mm256_div_ps(_mm256_div_ps(sum, n), y_scale);
            const __m256 v = _mm256_min_ps(_mm256_max_ps(_mm256_add_ps(steps, y_zero), lo), hi);
            store8(to + c, _mm256_cvtps_epi32(v));
        }
        average_tail(s, &w, count, c, q, to);
    }
}

static int32_t sum_channel(const uint8_t *p, size_t pixels, size_t channels, int zero)
{
    int32_t sum = 0;
    for (size_t k = 0; k < pixels; k++)
        sum += p[k * channels] - zero;
    return sum;
}

void global_avg_pool_u8_avx2(const pool_shape *s, const uint8_t *x, const pool_q *q, uint8_t *y,
                             int thread, int n_threads)
{
    const size_t channels = s->channels, pixels = (size_t)s->in_h * s->in_w;
    const size_t blocks = (channels + 7) / 8;
    const float ratio = global_average_ratio(q->x_scale, q->y_scale, (int)pixels);
    const __m256 lo = _mm256_set1_ps((float)(q->lo - q->y_zero));
    const __m256 hi = _mm256_set1_ps((float)(q->hi - q->y_zero));
    size_t i, last;
    kernel_share(s->batch * blocks, 1, thread, n_threads, &i, &last);
    for (; i < last; i++) {
        const size_t image = i / blocks, c = i % blocks * 8;
        const uint8_t *p = x + image * pixels * channels + c;
        uint8_t *to = y + image * channels + c;
        if (c + 8 > channels) {
            for (size_t j = 0; j < channels - c; j++)
                to[j] = requant_u8(sum_channel(p + j, pixels, channels, q->x_zero), ratio,
                                   q->y_zero, q->lo, q->hi);
            continue;
        }
        __m256i sum = _mm256_set1_epi32(-(int)pixels * q->x_zero);
        for (size_t k = 0; k < pixels; k++, p += channels)
            sum = _mm256_add_epi32(sum, load8_epi32(p));
        __m256 v = _mm256_mul_ps(_mm256_cvtepi32_ps(sum), _mm256_set1_ps(ratio));
        v = _mm256_min_ps(_mm256_max_ps(v, lo), hi);
        store8(to, _mm256_add_epi32(_mm256_cvtps_epi32(v), _mm256_set1_epi32(q->y_zero)));
    }
}
