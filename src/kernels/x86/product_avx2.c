/* Products with float32 results by VPMADDWD: exact, as u8 and s8 are widened to 16 bits. The rows
 * of a tile are widened into scratch; 6 rows x 16 columns stay in registers.
 *
 * Packed: for each 16 columns the sum of their weights, int32 [16]; then for each 16 columns
 * w [k / 2][16][2] int16, zero where there is no weight. */
#include <immintrin.h>
#include <string.h>

#include "kernels/kernels.h"
#include "kernels/x86/rows.h"
#include "kernels/x86/x86.h"

#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 8")
#endif
#define INLINE static inline __attribute__((always_inline))

enum { TILE_ROWS = 6 };

static size_t blocks_of(int n)
{
    return ((size_t)n + 15) / 16;
}

static size_t pairs_of(int k)
{
    return ((size_t)k + 1) / 2;
}

size_t product_packed_size_avx2(int k, int n)
{
    return blocks_of(n) * 64 * (1 + pairs_of(k));
}

void product_pack_avx2(int k, int n, const int8_t *w, void *packed)
{
    const size_t blocks = blocks_of(n);
    int32_t *sums = packed;
    int16_t *to = (int16_t *)(sums + 16 * blocks);
    memset(sums, 0, 64 * blocks);
    for (int c = 0; c < n; c++)
        for (int i = 0; i < k; i++)
            sums[c] += w[(size_t)c * k + i];
    for (int first = 0; first < (int)(16 * blocks); first += 16)
        for (int p = 0; p < (int)pairs_of(k); p++)
            for (int c = first; c < first + 16; c++)
                for (int i = 2 * p; i < 2 * p + 2; i++)
                    *to++ = c < n && i < k ? w[(size_t)c * k + i] : 0;
}

size_t product_scratch_size_avx2(int k)
{
    return TILE_ROWS * 2 * pairs_of(k) * sizeof(uint16_t);
}

static void widen(const uint8_t *from, int k, uint16_t *to)
{
    int i = 0;
    for (; i + 16 <= k; i += 16) {
        const __m128i b = _mm_loadu_si128((const __m128i *)(const void *)(from + i));
        _mm256_storeu_si256((__m256i *)(void *)(to + i), _mm256_cvtepu8_epi16(b));
    }
    for (; i < k; i++)
        to[i] = from[i];
    if (k % 2)
        to[k] = 0;
}

/* Up to 16 columns. */
typedef struct block {
    const int16_t *w;
    const int32_t *sums;
    const product_q *q;
    float scale[16], bias[16]; /* zeros behind the columns; bias unused where there is none */
    int columns;
    size_t pairs, y_stride;
} block;

static void take_columns(block *b, const product_q *q, int first, int n)
{
    b->q = q;
    b->columns = n - first < 16 ? n - first : 16;
    memset(b->scale, 0, sizeof b->scale);
    memset(b->bias, 0, sizeof b->bias);
    for (int c = 0; c < b->columns; c++) {
        b->scale[c] = q->x_scale * q->w_scale[first + c];
        b->bias[c] = q->bias ? q->bias[first + c] : 0;
    }
}

INLINE __m256 finish(const block *b, int half, __m256i acc)
{
    const __m256i sums = _mm256_loadu_si256((const __m256i *)(const void *)(b->sums + 8 * half));
    const __m256i off = _mm256_mullo_epi32(_mm256_set1_epi32(b->q->x_zero), sums);
    const __m256 f = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_sub_epi32(acc, off)),
                                   _mm256_loadu_ps(b->scale + 8 * half));
    return b->q->bias ? _mm256_add_ps(f, _mm256_loadu_ps(b->bias + 8 * half)) : f;
}

INLINE void store_row(const block *b, const __m256i acc[2], float *y)
{
    float row[16];
    if (b->columns == 16) {
        _mm256_storeu_ps(y, finish(b, 0, acc[0]));
        _mm256_storeu_ps(y + 8, finish(b, 1, acc[1]));
        return;
    }
    _mm256_storeu_ps(row, finish(b, 0, acc[0]));
    _mm256_storeu_ps(row + 8, finish(b, 1, acc[1]));
    memcpy(y, row, (size_t)b->columns * sizeof *row);
}

INLINE void tile(int mr, const block *b, const uint16_t *rows, float *y)
{
    const int16_t *w = b->w;
    __m256i acc[TILE_ROWS][2];
    UNROLL
    for (int r = 0; r < mr; r++)
        acc[r][0] = acc[r][1] = _mm256_setzero_si256();
    for (size_t p = 0; p < b->pairs; p++, w += 32, rows += 2) {
        const __m256i w0 = _mm256_loadu_si256((const __m256i *)(const void *)w);
        const __m256i w1 = _mm256_loadu_si256((const __m256i *)(const void *)(w + 16));
        UNROLL
        for (int r = 0; r < mr; r++) {
            int32_t pair;
            memcpy(&pair, rows + r * 2 * b->pairs, 4);
            const __m256i x = _mm256_set1_epi32(pair);
            acc[r][0] = _mm256_add_epi32(acc[r][0], _mm256_madd_epi16(x, w0));
            acc[r][1] = _mm256_add_epi32(acc[r][1], _mm256_madd_epi16(x, w1));
        }
    }
    UNROLL
    for (int r = 0; r < mr; r++)
        store_row(b, acc[r], y + r * b->y_stride);
}

void product_run_avx2(const product_shape *s, const void *packed, const uint8_t *x,
                      const product_q *q, float *y, void *scratch, int thread, int n_threads)
{
    const size_t blocks = blocks_of(s->n), pairs = pairs_of(s->k);
    const int32_t *sums = packed;
    const int16_t *w = (const int16_t *)(const void *)(sums + 16 * blocks);
    uint16_t *rows = scratch;
    size_t row, last, b0, b1;
    rows_split(s->rows, TILE_ROWS, blocks, thread, n_threads, &row, &last, &b0, &b1);
    for (; row < last; row += TILE_ROWS) {
        const size_t n = last - row < TILE_ROWS ? last - row : TILE_ROWS;
        for (size_t r = 0; r < n; r++)
            widen(x + (row + r) * s->x_stride, s->k, rows + r * 2 * pairs);
        for (size_t i = b0; i < b1; i++) {
            block b = {.w = w + 32 * i * pairs, .sums = sums + 16 * i, .pairs = pairs,
                       .y_stride = s->y_stride};
            float *to = y + row * s->y_stride + 16 * i;
            take_columns(&b, q, (int)(16 * i), s->n);
            if (n == TILE_ROWS)
                tile(TILE_ROWS, &b, rows, to);
            else
                for (size_t r = 0; r < n; r++)
                    tile(1, &b, rows + r * 2 * pairs, to + r * s->y_stride);
        }
    }
}

static float smallest(__m256 v)
{
    float lanes[8];
    _mm256_storeu_ps(lanes, v);
    for (int i = 1; i < 8; i++)
        lanes[0] = lanes[i] < lanes[0] ? lanes[i] : lanes[0];
    return lanes[0];
}

static float largest(__m256 v)
{
    float lanes[8];
    _mm256_storeu_ps(lanes, v);
    for (int i = 1; i < 8; i++)
        lanes[0] = lanes[i] > lanes[0] ? lanes[i] : lanes[0];
    return lanes[0];
}

/* min(x, lo) gives lo where x is NaN. */
void range_f32_avx2(const float *x, size_t n, float *lo, float *hi)
{
    __m256 a[2], b[2];
    a[0] = a[1] = b[0] = b[1] = _mm256_setzero_ps();
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        UNROLL
        for (int j = 0; j < 2; j++) {
            const __m256 v = _mm256_loadu_ps(x + i + 8 * j);
            a[j] = _mm256_min_ps(v, a[j]);
            b[j] = _mm256_max_ps(v, b[j]);
        }
    }
    float least = smallest(_mm256_min_ps(a[0], a[1])), most = largest(_mm256_max_ps(b[0], b[1]));
    for (; i < n; i++) {
        least = x[i] < least ? x[i] : least;
        most = x[i] > most ? x[i] : most;
    }
    *lo = least;
    *hi = most;
}
