/* Products with float32 results in 256-bit registers: 6 rows x 16 columns stay in them. Included
 * once, behind the header of a dot product (dot_avx2.h, dot_avxvnni.h), which says what the values
 * of a row and the weights are, and how many make a step of 32 bits. Rows that are no such values,
 * or no whole steps, are copied into scratch.
 *
 * Packed: for each 16 columns the sum of their weights, int32 [16]; then for each 16 columns
 * w [k / PER_STEP][16][PER_STEP], zero where there is no weight. */
#include <string.h>

#include "kernels/kernels.h"
#include "kernels/x86/rows.h"
#include "kernels/x86/words.h"
#include "kernels/x86/x86.h"

enum { TILE_ROWS = 6, STEP_WEIGHTS = 16 * PER_STEP };

static size_t blocks_of(int n)
{
    return ((size_t)n + 15) / 16;
}

static size_t steps_of(int k)
{
    return ((size_t)k + PER_STEP - 1) / PER_STEP;
}

size_t ISA(product_packed_size)(int k, int n)
{
    return blocks_of(n) * 64 * (1 + steps_of(k));
}

void ISA(product_pack)(int k, int n, const int8_t *w, void *packed)
{
    const size_t blocks = blocks_of(n);
    int32_t *sums = packed;
    weight *to = (weight *)(void *)(sums + 16 * blocks);
    memset(sums, 0, 64 * blocks);
    for (int c = 0; c < n; c++)
        for (int i = 0; i < k; i++)
            sums[c] += w[(size_t)c * k + i];
    for (int first = 0; first < (int)(16 * blocks); first += 16)
        for (int s = 0; s < (int)steps_of(k); s++)
            for (int c = first; c < first + 16; c++)
                for (int i = PER_STEP * s; i < PER_STEP * s + PER_STEP; i++)
                    *to++ = c < n && i < k ? w[(size_t)c * k + i] : 0;
}

size_t ISA(product_scratch_size)(int k)
{
    return TILE_ROWS * 4 * steps_of(k);
}

/* Up to 16 columns. */
typedef struct block {
    const weight *w;
    const int32_t *sums;
    const product_q *q;
    float scale[16], bias[16]; /* zeros behind the columns; bias unused where there is none */
    int columns;
    size_t steps, x_stride, y_stride; /* x: in bytes */
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

/* The steps [at, end): `sets` at once, each into sums of its own. */
INLINE void dots(int mr, int sets, const block *b, const uint8_t *x, size_t at, size_t end,
                 __m256i acc[4][TILE_ROWS][2])
{
    const weight *w = b->w + STEP_WEIGHTS * at;
    for (x += 4 * at; at < end; at += sets) {
        UNROLL
        for (int i = 0; i < sets; i++, x += 4, w += STEP_WEIGHTS) {
            const __m256i w0 = _mm256_loadu_si256((const __m256i *)(const void *)w);
            const __m256i w1 =
                _mm256_loadu_si256((const __m256i *)(const void *)(w + STEP_WEIGHTS / 2));
            UNROLL
            for (int r = 0; r < mr; r++) {
                int32_t step;
                memcpy(&step, x + r * b->x_stride, 4);
                const __m256i values = _mm256_set1_epi32(step);
                acc[i][r][0] = dot(acc[i][r][0], values, w0);
                acc[i][r][1] = dot(acc[i][r][1], values, w1);
            }
        }
    }
}

INLINE void tile(int mr, const block *b, const uint8_t *x, float *y)
{
    const int sets = CHAINS > 2 * mr ? CHAINS / (2 * mr) : 1;
    const size_t together = b->steps / sets * sets;
    __m256i acc[4][TILE_ROWS][2];
    UNROLL
    for (int i = 0; i < sets; i++)
        UNROLL
    for (int r = 0; r < mr; r++)
        acc[i][r][0] = acc[i][r][1] = _mm256_setzero_si256();
    dots(mr, sets, b, x, 0, together, acc);
    if (sets > 1)
        dots(mr, 1, b, x, together, b->steps, acc);
    UNROLL
    for (int r = 0; r < mr; r++) {
        UNROLL
        for (int i = 1; i < sets; i++) {
            acc[0][r][0] = _mm256_add_epi32(acc[0][r][0], acc[i][r][0]);
            acc[0][r][1] = _mm256_add_epi32(acc[0][r][1], acc[i][r][1]);
        }
        store_row(b, acc[0][r], y + r * b->y_stride);
    }
}

static void run_block(const block *b, const uint8_t *x, size_t n, float *y)
{
    if (n == TILE_ROWS) {
        tile(TILE_ROWS, b, x, y);
        return;
    }
    for (; n >= 2; n -= 2, x += 2 * b->x_stride, y += 2 * b->y_stride)
        tile(2, b, x, y);
    if (n)
        tile(1, b, x, y);
}

/* n rows as whole steps, one behind the other. */
static void copy_rows(const product_shape *s, const uint8_t *x, size_t n, row_value *to)
{
    for (; n > 0; n--, x += s->x_stride) {
        to = copy_values(to, x, (size_t)s->k);
        for (int i = s->k; i % PER_STEP; i++)
            *to++ = 0;
    }
}

void ISA(product_run)(const product_shape *s, const void *packed, const uint8_t *x,
                      const product_q *q, float *y, void *scratch, int thread, int n_threads)
{
    const size_t blocks = blocks_of(s->n), steps = steps_of(s->k);
    const bool in_place = sizeof(row_value) == 1 && s->k % PER_STEP == 0;
    const int32_t *sums = packed;
    const weight *w = (const weight *)(const void *)(sums + 16 * blocks);
    size_t row, last, b0, b1;
    rows_split(s->rows, TILE_ROWS, blocks, thread, n_threads, &row, &last, &b0, &b1);
    for (; row < last; row += TILE_ROWS) {
        const size_t n = last - row < TILE_ROWS ? last - row : TILE_ROWS;
        const uint8_t *rows = in_place ? x + row * s->x_stride : scratch;
        if (!in_place)
            copy_rows(s, x + row * s->x_stride, n, scratch);
        for (size_t i = b0; i < b1; i++) {
            block b = {.w = w + STEP_WEIGHTS * i * steps,
                       .sums = sums + 16 * i,
                       .steps = steps,
                       .x_stride = in_place ? s->x_stride : 4 * steps,
                       .y_stride = s->y_stride};
            take_columns(&b, q, (int)(16 * i), s->n);
            run_block(&b, rows, n, y + row * s->y_stride + 16 * i);
        }
    }
}
