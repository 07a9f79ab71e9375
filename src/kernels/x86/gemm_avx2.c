/* Convolution as a GEMM with VPMADDWD: exact, as u8 and s8 are widened to 16 bits and a pair of
 * products is added in 32. (VPMADDUBSW would save the widening, but adds pairs in saturating int16:
 * 2 * 255 * 127 does not fit.) The rows of a few output pixels, their taps side by side, are
 * widened into scratch; 6 rows x 16 columns stay in registers, and are requantized there or stored
 * as sums.
 *
 * Packed, for each group: bias [n padded to 16] int32 with the zero point folded in; then, for each
 * 16 columns, w [k / 2][16][2] int16, zero where there is no weight. */
#include <immintrin.h>
#include <string.h>

#include "kernels/kernels.h"
#include "kernels/x86/dot_avx2.h"
#include "kernels/x86/requant_avx2.h"
#include "kernels/x86/rows.h"
#include "kernels/x86/x86.h"

enum {
    CHUNK_ROWS = 48,          /* rows widened at once, a multiple of 6 */
    CHUNK_BYTES = 128 * 1024, /* of them: stays in the second-level cache */
};

typedef struct gemm_plan {
    int in_c, out_c;  /* of a group */
    int depth, pairs; /* k, and steps of two */
    int blocks;       /* of 16 columns */
    size_t group_bytes;
    size_t chunk; /* rows at once */
} gemm_plan;

static gemm_plan gemm_plan_of(const conv_shape *s)
{
    gemm_plan p = {.in_c = s->in_c / s->groups, .out_c = s->out_c / s->groups};
    p.depth = p.in_c * s->kernel_h * s->kernel_w;
    p.pairs = (p.depth + 1) / 2;
    p.blocks = (p.out_c + 15) / 16;
    p.group_bytes = (size_t)p.blocks * 64 * (1 + (size_t)p.pairs);
    p.chunk = CHUNK_ROWS;
    if (p.chunk * p.pairs * 4 > CHUNK_BYTES)
        p.chunk = CHUNK_BYTES / 4 / (size_t)p.pairs / 6 * 6;
    p.chunk = p.chunk ? p.chunk : 6;
    return p;
}

bool gemm_fits_avx2(const conv_shape *s)
{
    return true;
}

size_t gemm_packed_size_avx2(const conv_shape *s)
{
    return gemm_plan_of(s).group_bytes * s->groups;
}

static void pack_group(const conv_shape *s, const gemm_plan *p, const int8_t *w,
                       const int32_t *bias, int x_zero, char *packed)
{
    const int taps = s->kernel_h * s->kernel_w;
    uint32_t *b = (uint32_t *)packed;
    int16_t *to = (int16_t *)(b + (size_t)p->blocks * 16);
    memset(packed, 0, p->group_bytes);
    for (int o = 0; o < p->out_c; o++, w += p->depth) {
        int32_t sum = 0;
        for (int i = 0; i < p->depth; i++)
            sum += w[i];
        /* modulo 2^32, as the products will be added */
        b[o] = (bias ? (uint32_t)bias[o] : 0) - (uint32_t)x_zero * (uint32_t)sum;
        int16_t *at = to + (size_t)(o / 16) * p->pairs * 32 + o % 16 * 2;
        for (int tap = 0; tap < taps; tap++)
            for (int c = 0; c < p->in_c; c++) {
                const size_t d = (size_t)tap * p->in_c + c;
                at[d / 2 * 32 + d % 2] = w[(size_t)c * taps + tap];
            }
    }
}

void gemm_pack_avx2(const conv_shape *s, const int8_t *w, const int32_t *bias, int x_zero,
                    void *packed)
{
    const gemm_plan p = gemm_plan_of(s);
    for (int g = 0; g < s->groups; g++)
        pack_group(s, &p, w + (size_t)g * p.out_c * p.depth,
                   bias ? bias + (size_t)g * p.out_c : NULL, x_zero,
                   (char *)packed + g * p.group_bytes);
}

static size_t round64(size_t n)
{
    return (n + 63) / 64 * 64;
}

/* Tap offsets, the row of x_zero bytes, widened rows. */
size_t gemm_scratch_size_avx2(const conv_shape *s)
{
    const gemm_plan p = gemm_plan_of(s);
    const size_t taps = (size_t)s->kernel_h * s->kernel_w;
    return round64(taps * sizeof(ptrdiff_t)) + round64(s->in_c) + p.chunk * p.pairs * 4;
}

/* n rows from `first` on, their taps side by side, 2 * pairs values apart. */
static void gather(const row_source *r, const gemm_plan *p, size_t first, size_t n, size_t x_offset,
                   uint16_t *rows)
{
    const conv_shape *s = r->s;
    const bool lines = s->groups == 1 && s->dilation_w == 1; /* a kernel row is one piece */
    row_pixel px = row_pixel_at(r, first);
    for (size_t i = 0; i < n; i++, rows += 2 * p->pairs, row_pixel_next(r, &px)) {
        uint16_t *at = rows;
        rows[2 * p->pairs - 1] = 0;
        const bool inside = row_pixel_inside(r, &px);
        for (int ky = 0; ky < s->kernel_h; ky++)
            if (inside && lines)
                at = copy_values(at, px.image + px.first + r->offset[ky * s->kernel_w],
                                 (size_t)s->kernel_w * p->in_c);
            else
                for (int kx = 0; kx < s->kernel_w; kx++)
                    at = copy_values(at, row_pixel_tap(r, &px, ky, kx) + x_offset, p->in_c);
    }
}

INLINE void tile(int mr, int pairs, const uint16_t *rows, const int16_t *w, const block_out *b)
{
    const size_t stride = 2 * (size_t)pairs;
    __m256i acc[6][2];
    UNROLL
    for (int r = 0; r < mr; r++) {
        acc[r][0] = _mm256_loadu_si256((const __m256i *)(const void *)b->bias);
        acc[r][1] = _mm256_loadu_si256((const __m256i *)(const void *)(b->bias + 8));
    }
    for (int k = 0; k < pairs; k++, w += 32, rows += 2) {
        const __m256i w0 = _mm256_loadu_si256((const __m256i *)(const void *)w);
        const __m256i w1 = _mm256_loadu_si256((const __m256i *)(const void *)(w + 16));
        UNROLL
        for (int r = 0; r < mr; r++) {
            int32_t pair;
            memcpy(&pair, rows + r * stride, 4);
            const __m256i x = _mm256_set1_epi32(pair);
            acc[r][0] = dot(acc[r][0], x, w0);
            acc[r][1] = dot(acc[r][1], x, w1);
        }
    }
    store_tile16(b->sums, b, mr, (const __m256i(*)[2])acc);
}

static void run_block(const gemm_plan *p, const uint16_t *rows, size_t n, const int16_t *w,
                      block_out b)
{
    const size_t stride = 2 * (size_t)p->pairs;
    for (; n >= 6; n -= 6, rows += 6 * stride, b.y += 6 * b.y_stride)
        tile(6, p->pairs, rows, w, &b);
    for (; n >= 2; n -= 2, rows += 2 * stride, b.y += 2 * b.y_stride)
        tile(2, p->pairs, rows, w, &b);
    if (n)
        tile(1, p->pairs, rows, w, &b);
}

/* y: bytes, or int32 sums where q is NULL. */
static void gemm_any(const conv_shape *s, const void *packed, const uint8_t *x, int x_zero,
                     const requant *q, void *y, void *scratch, int thread, int n_threads)
{
    const size_t y_size = q ? 1 : sizeof(int32_t);
    const gemm_plan p = gemm_plan_of(s);
    const size_t n_rows = (size_t)s->batch * s->out_h * s->out_w;
    const size_t taps = (size_t)s->kernel_h * s->kernel_w;
    size_t row, last, b0, b1;
    rows_split(n_rows, 6, p.blocks, thread, n_threads, &row, &last, &b0, &b1);
    if (row == last || b0 == b1)
        return;

    ptrdiff_t *offset = scratch;
    uint8_t *pad = (uint8_t *)scratch + round64(taps * sizeof *offset);
    uint16_t *rows = (uint16_t *)(void *)(pad + round64(s->in_c));
    const row_source source = row_source_of(s, x, pad, offset, (int)taps);
    const bool bounded = q && below_one(q->mult, s->out_c);
    memset(pad, x_zero, s->in_c);
    for (; row < last; row += p.chunk) {
        const size_t n = last - row < p.chunk ? last - row : p.chunk;
        for (int g = 0; g < s->groups; g++) {
            const char *from = (const char *)packed + g * p.group_bytes;
            const int32_t *bias = (const int32_t *)(const void *)from;
            const int16_t *w = (const int16_t *)(const void *)(from + (size_t)p.blocks * 64);
            gather(&source, &p, row, n, (size_t)g * p.in_c, rows);
            for (size_t block = b0; block < b1; block++) {
                const size_t column = (size_t)g * p.out_c + 16 * block;
                const int left = p.out_c - 16 * (int)block;
                block_out b = {.bias = bias + 16 * block,
                               .y = (uint8_t *)y + (row * s->out_c + column) * y_size,
                               .y_stride = s->out_c * y_size,
                               .last = left < 16 ? left : 16,
                               .sums = !q,
                               .bounded = bounded};
                if (q)
                    block_out_requant(&b, q, column);
                run_block(&p, rows, n, w + 32 * block * p.pairs, b);
            }
        }
    }
}

void gemm_run_avx2(const conv_shape *s, const void *packed, const uint8_t *x, int x_zero,
                   const requant *q, uint8_t *y, void *scratch, int thread, int n_threads)
{
    gemm_any(s, packed, x, x_zero, q, y, scratch, thread, n_threads);
}

void gemm_sums_avx2(const conv_shape *s, const void *packed, const uint8_t *x, int x_zero,
                    int32_t *y, void *scratch, int thread, int n_threads)
{
    gemm_any(s, packed, x, x_zero, NULL, y, scratch, thread, n_threads);
}
