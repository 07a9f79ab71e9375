/* Products with float32 results by VPDPBUSD: 6 rows x 4 registers of 16 columns stay in registers.
 *
 * Packed: for each 16 columns the sum of their weights, int32 [16]; then for each block of up to 64
 * columns w [k / 4][columns][4], zero where there is no weight. The zero point is known only when
 * the product runs: it is taken off as x_zero * the sum. */
#include <immintrin.h>
#include <string.h>

#include "kernels/kernels.h"
#include "kernels/x86/rows.h"
#include "kernels/x86/words.h"
#include "kernels/x86/x86.h"

static size_t vectors_of(int n)
{
    return ((size_t)n + 15) / 16;
}

static size_t quads_of(int k)
{
    return ((size_t)k + 3) / 4;
}

size_t product_packed_size_avx512vnni(int k, int n)
{
    return vectors_of(n) * 64 * (1 + quads_of(k));
}

void product_pack_avx512vnni(int k, int n, const int8_t *w, void *packed)
{
    const size_t vectors = vectors_of(n);
    int32_t *sums = packed;
    int8_t *to = (int8_t *)(sums + 16 * vectors);
    memset(sums, 0, 64 * vectors);
    for (int c = 0; c < n; c++)
        for (int i = 0; i < k; i++)
            sums[c] += w[(size_t)c * k + i];
    for (size_t v = 0; v < vectors; v += 4) {
        const int first = (int)(16 * v), end = (int)(16 * (v + 4 < vectors ? v + 4 : vectors));
        for (int q = 0; q < (int)quads_of(k); q++)
            for (int c = first; c < end; c++)
                for (int i = 4 * q; i < 4 * q + 4; i++)
                    *to++ = c < n && i < k ? w[(size_t)c * k + i] : 0;
    }
}

size_t product_scratch_size_avx512vnni(int k)
{
    return 0;
}

/* The instruction itself: gcc 12 copies and spills the accumulators of the intrinsic. */
INLINE __m512i dpbusd(__m512i sum, __m512i u8, __m512i s8)
{
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(u8), "v"(s8));
    return sum;
}

INLINE __m512i broadcast4(const uint8_t *p)
{
    int32_t v;
    memcpy(&v, p, 4);
    return _mm512_set1_epi32(v);
}

/* The last 1 to 3 bytes of a row; their weights are followed by zeros. */
INLINE __m512i broadcast_rest(const uint8_t *p, int n)
{
    uint32_t v = 0;
    for (int i = 0; i < n; i++)
        v |= (uint32_t)p[i] << (8 * i);
    return _mm512_set1_epi32((int32_t)v);
}

/* Up to 64 columns. */
typedef struct block {
    const int8_t *w;
    const int32_t *sums;
    const product_q *q;
    const float *scale, *bias;
    int columns, k;
    size_t x_stride, y_stride;
} block;

INLINE void store_tile(const block *b, int mr, int nv, __m512i acc[6][4], float *y)
{
    const __m512i zero = _mm512_set1_epi32(b->q->x_zero);
    const __m512 x_scale = _mm512_set1_ps(b->q->x_scale);
    UNROLL
    for (int v = 0; v < nv; v++) {
        const int left = b->columns - 16 * v;
        const __mmask16 there = (__mmask16)(left >= 16 ? 0xffff : (1u << left) - 1);
        const __m512i off = _mm512_mullo_epi32(zero, _mm512_loadu_si512(b->sums + 16 * v));
        const __m512 mult = _mm512_mul_ps(x_scale, _mm512_maskz_loadu_ps(there, b->scale + 16 * v));
        UNROLL
        for (int r = 0; r < mr; r++) {
            __m512 f = _mm512_cvtepi32_ps(_mm512_sub_epi32(acc[r][v], off));
            f = _mm512_mul_ps(f, mult);
            if (b->bias)
                f = _mm512_add_ps(f, _mm512_maskz_loadu_ps(there, b->bias + 16 * v));
            _mm512_mask_storeu_ps(y + r * b->y_stride + 16 * v, there, f);
        }
    }
}

INLINE void step(int mr, int nv, __m512i acc[6][4], const __m512i x[6], const int8_t *w)
{
    UNROLL
    for (int v = 0; v < nv; v++) {
        const __m512i c = _mm512_loadu_si512(w + 64 * v);
        UNROLL
        for (int r = 0; r < mr; r++)
            acc[r][v] = dpbusd(acc[r][v], x[r], c);
    }
}

INLINE void tile(int mr, int nv, const block *b, const uint8_t *x, float *y)
{
    const int quads = b->k / 4, rest = b->k % 4;
    const int8_t *w = b->w;
    __m512i acc[6][4], xv[6];
    UNROLL
    for (int r = 0; r < mr; r++)
        UNROLL
    for (int v = 0; v < nv; v++)
        acc[r][v] = _mm512_setzero_si512();
    for (int q = 0; q < quads; q++, w += 64 * nv) {
        UNROLL
        for (int r = 0; r < mr; r++)
            xv[r] = broadcast4(x + r * b->x_stride + 4 * q);
        step(mr, nv, acc, xv, w);
    }
    if (rest) {
        UNROLL
        for (int r = 0; r < mr; r++)
            xv[r] = broadcast_rest(x + r * b->x_stride + 4 * quads, rest);
        step(mr, nv, acc, xv, w);
    }
    store_tile(b, mr, nv, acc, y);
}

INLINE void tiles(int nv, const block *b, const uint8_t *x, size_t rows, float *y)
{
    for (; rows >= 6; rows -= 6, x += 6 * b->x_stride, y += 6 * b->y_stride)
        tile(6, nv, b, x, y);
    for (; rows >= 2; rows -= 2, x += 2 * b->x_stride, y += 2 * b->y_stride)
        tile(2, nv, b, x, y);
    if (rows)
        tile(1, nv, b, x, y);
}

static void run_block(const block *b, const uint8_t *x, size_t rows, float *y)
{
    switch ((b->columns + 15) / 16) {
    case 1:
        tiles(1, b, x, rows, y);
        break;
    case 2:
        tiles(2, b, x, rows, y);
        break;
    case 3:
        tiles(3, b, x, rows, y);
        break;
    default:
        tiles(4, b, x, rows, y);
        break;
    }
}

void product_run_avx512vnni(const product_shape *s, const void *packed, const uint8_t *x,
                            const product_q *q, float *y, void *scratch, int thread, int n_threads)
{
    const size_t vectors = vectors_of(s->n), blocks = (vectors + 3) / 4;
    const int32_t *sums = packed;
    const int8_t *w = (const int8_t *)(sums + 16 * vectors);
    size_t row, last, b0, b1;
    rows_split(s->rows, 6, blocks, thread, n_threads, &row, &last, &b0, &b1);
    /* Rows in pieces that stay in the second-level cache while all blocks pass over them. */
    const size_t piece = 6 * (1 + 65536 / (6 * (size_t)s->k));
    for (; row < last; row += piece) {
        const size_t rows = last - row < piece ? last - row : piece;
        for (size_t i = b0; i < b1; i++) {
            const int left = s->n - (int)(64 * i);
            const block b = {w + 256 * i * quads_of(s->k),
                             sums + 64 * i,
                             q,
                             q->w_scale + 64 * i,
                             q->bias ? q->bias + 64 * i : NULL,
                             left < 64 ? left : 64,
                             s->k,
                             s->x_stride,
                             s->y_stride};
            run_block(&b, x + row * s->x_stride, rows, y + row * s->y_stride + 64 * i);
        }
    }
}

/* min(x, lo) gives lo where x is NaN. */
void range_f32_avx512vnni(const float *x, size_t n, float *lo, float *hi)
{
    __m512 a[4], b[4];
    for (int j = 0; j < 4; j++)
        a[j] = b[j] = _mm512_setzero_ps();
    size_t i = 0;
    for (; i + 64 <= n; i += 64) {
        UNROLL
        for (int j = 0; j < 4; j++) {
            const __m512 v = _mm512_loadu_ps(x + i + 16 * j);
            a[j] = _mm512_min_ps(v, a[j]);
            b[j] = _mm512_max_ps(v, b[j]);
        }
    }
    for (; i < n; i += 16) {
        const __mmask16 there = (__mmask16)(n - i >= 16 ? 0xffff : (1u << (n - i)) - 1);
        const __m512 v = _mm512_maskz_loadu_ps(there, x + i);
        a[0] = _mm512_min_ps(v, a[0]);
        b[0] = _mm512_max_ps(v, b[0]);
    }
    *lo = _mm512_reduce_min_ps(
        _mm512_min_ps(_mm512_min_ps(a[0], a[1]), _mm512_min_ps(a[2], a[3])));
    *hi = _mm512_reduce_max_ps(
        _mm512_max_ps(_mm512_max_ps(b[0], b[1]), _mm512_max_ps(b[2], b[3])));
}
