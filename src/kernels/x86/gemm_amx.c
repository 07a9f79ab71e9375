/* Convolution as a GEMM with TDPBUSD, whose tiles are 16 rows of 64 bytes: rows are output pixels,
 * columns output channels, a step is 64 bytes of a row's taps. Two tiles of rows and two of columns
 * make four tiles of sums, which begin as the bias.
 *
 * The taps of a row are cut into steps line of the kernel by line ("lines") where that takes no
 * more steps than all of them in one piece. 16 neighbouring pixels are then read where they lie in
 * the image, if all their taps are inside; a last step may read past the line, against weights that
 * are zero, but never past the tensor. All other rows are copied first.
 *
 * Packed: bias [n padded to 16] int32 with the zero point folded in; then, for each block of up to
 * two vectors of 16 columns, w [step][vector][16 quads][16 columns][4], zero where there is no
 * weight. */
#include <immintrin.h>
#include <string.h>

#include "kernels/kernels.h"
#include "kernels/x86/block_out.h"
#include "kernels/x86/copy_avx512.h"
#include "kernels/x86/requant_avx512.h"
#include "kernels/x86/rows.h"
#include "kernels/x86/tiles_amx.h"
#include "kernels/x86/x86.h"

enum {
    TILE_ROWS = 16,
    TILE_BYTES = 1024,
    STEP = 64,               /* bytes of a row in a tile */
    SUMS = 32,               /* sums of a row, four tiles together */
    MOST_TILES = 6,          /* of rows at once, an even number */
    COPY_BYTES = 256 * 1024, /* of copied rows at once: stays in the second-level cache */
};

typedef struct amx_plan {
    bool lines;
    int line_steps, steps; /* of a line of the kernel, or of all; of a row */
    int vectors, blocks;   /* of 16 columns; of up to two vectors */
    size_t row_bytes;      /* of a copied row */
    int tiles;             /* of rows at once */
} amx_plan;

static amx_plan plan_of(const conv_shape *s)
{
    const size_t line = (size_t)s->kernel_w * s->in_c, depth = line * s->kernel_h;
    const size_t line_steps = (line + STEP - 1) / STEP, steps = (depth + STEP - 1) / STEP;
    amx_plan p = {.vectors = (int)(((size_t)s->out_c + 15) / 16)};
    p.blocks = (p.vectors + 1) / 2;
    p.lines = s->dilation_w == 1 && line_steps * s->kernel_h <= steps;
    p.line_steps = (int)(p.lines ? line_steps : steps);
    p.steps = p.lines ? p.line_steps * s->kernel_h : p.line_steps;
    p.row_bytes = (size_t)p.steps * STEP;
    p.tiles = MOST_TILES;
    while (p.tiles > 2 && p.tiles * TILE_ROWS * p.row_bytes > COPY_BYTES)
        p.tiles -= 2;
    return p;
}

/* Fewer steps than one, or rows than a tile, would leave most of the tiles' work undone, and what
 * surrounds it (loads of tiles, sums through memory) takes as long as VPDPBUSD does in all. Grouped
 * kernels have few columns each. */
bool gemm_fits_amx(const conv_shape *s)
{
    return s->groups == 1 && (int64_t)s->in_c * s->kernel_h * s->kernel_w >= STEP &&
           (int64_t)s->batch * s->out_h * s->out_w >= TILE_ROWS;
}

size_t gemm_packed_size_amx(const conv_shape *s)
{
    const amx_plan p = plan_of(s);
    return (size_t)p.vectors * (64 + (size_t)p.steps * TILE_BYTES);
}

/* Vectors of a block. */
static int block_vectors(const amx_plan *p, int block)
{
    return 2 * block + 2 <= p->vectors ? 2 : 1;
}

/* Where tap t of a row begins in its steps. */
static size_t tap_place(const conv_shape *s, const amx_plan *p, int t)
{
    const int ky = p->lines ? t / s->kernel_w : 0;
    return (size_t)ky * p->line_steps * STEP + (size_t)(t - ky * s->kernel_w) * s->in_c;
}

void gemm_pack_amx(const conv_shape *s, const int8_t *w, const int32_t *bias, int x_zero,
                   void *packed)
{
    const amx_plan p = plan_of(s);
    const int taps = s->kernel_h * s->kernel_w;
    uint32_t *b = packed;
    int8_t *to = (int8_t *)(b + 16 * (size_t)p.vectors);
    memset(packed, 0, gemm_packed_size_amx(s));
    for (int o = 0; o < s->out_c; o++, w += (size_t)taps * s->in_c) {
        const int block = o / 32, nv = block_vectors(&p, block);
        int8_t *column = to + (size_t)block * 2 * p.steps * TILE_BYTES + o / 16 % 2 * TILE_BYTES +
                         o % 16 * 4;
        uint32_t sum = 0;
        for (int t = 0; t < taps; t++) {
            const size_t first = tap_place(s, &p, t);
            for (int c = 0; c < s->in_c; c++) {
                const size_t k = first + c;
                const int8_t weight = w[(size_t)c * taps + t];
                column[k / STEP * nv * TILE_BYTES + k % STEP / 4 * 64 + k % 4] = weight;
                sum += (uint32_t)weight;
            }
        }
        /* modulo 2^32, as the products will be added */
        b[o] = (bias ? (uint32_t)bias[o] : 0) - (uint32_t)x_zero * sum;
    }
}

static size_t round64(size_t n)
{
    return (n + 63) / 64 * 64;
}

/* Offsets of taps and of steps, the row of x_zero bytes, sums, copied rows. */
size_t gemm_scratch_size_amx(const conv_shape *s)
{
    const amx_plan p = plan_of(s);
    const size_t taps = (size_t)s->kernel_h * s->kernel_w;
    return round64((taps + 2 * (size_t)p.steps) * sizeof(ptrdiff_t)) + round64(s->in_c) +
           2 * TILE_ROWS * SUMS * sizeof(int32_t) + p.tiles * TILE_ROWS * p.row_bytes;
}

/* 16 rows: `stride` bytes apart, step i at offset[i] of each. */
typedef struct row_tile {
    const uint8_t *base;
    const ptrdiff_t *offset;
    size_t stride;
} row_tile;

/* One call: what all tiles share. */
typedef struct amx_call {
    const conv_shape *s;
    amx_plan p;
    row_source source;
    const uint8_t *x_end;
    ptrdiff_t *in_image, *in_copy; /* offsets of the steps */
    uint8_t *copies;
    int32_t *sums; /* [32][SUMS] */
    const int32_t *bias;
    const int8_t *w;
    const requant *q; /* NULL: y is int32 sums */
    bool bounded;
    uint8_t *y;
    size_t y_size; /* bytes of an output value */
} amx_call;

static void copy_row(const amx_call *c, const row_pixel *px, uint8_t *to)
{
    const conv_shape *s = c->s;
    const bool together = s->dilation_w == 1 && row_pixel_inside(&c->source, px);
    for (int t = 0; t < s->kernel_h * s->kernel_w; t += together ? s->kernel_w : 1) {
        const int ky = t / s->kernel_w, kx = t % s->kernel_w;
        uint8_t *at = to + tap_place(s, &c->p, t);
        if (together)
            copy_bytes(at, px->image + px->first + c->source.offset[t],
                       (size_t)s->kernel_w * s->in_c);
        else
            copy_bytes(at, row_pixel_tap(&c->source, px, ky, kx), s->in_c);
    }
}

/* Whether the 16 rows from this pixel on can be read where they are. */
static bool lie_in_image(const amx_call *c, const row_pixel *px, size_t n)
{
    const row_source *r = &c->source;
    const ptrdiff_t reach = (TILE_ROWS - 1) * (ptrdiff_t)c->s->stride_w * c->s->in_c +
                            c->in_image[c->p.steps - 1] + STEP;
    if (n < TILE_ROWS || !c->p.lines)
        return false;
    if (!r->direct && (!row_pixel_inside(r, px) || px->ox + TILE_ROWS > c->s->out_w ||
                       px->ox + TILE_ROWS > r->inside_x_end))
        return false;
    return reach <= c->x_end - (px->image + px->first);
}

/* n rows from `first` on, up to 16, copied to `copy` where they must be. */
static row_tile place_rows(const amx_call *c, size_t first, size_t n, uint8_t *copy)
{
    row_pixel px = row_pixel_at(&c->source, first);
    if (lie_in_image(c, &px, n))
        return (row_tile){px.image + px.first, c->in_image, (size_t)c->s->stride_w * c->s->in_c};
    for (size_t i = 0; i < n; i++, row_pixel_next(&c->source, &px))
        copy_row(c, &px, copy + i * c->p.row_bytes);
    return (row_tile){copy, c->in_copy, c->p.row_bytes};
}

/* mt tiles of rows and nv of columns: tiles 0 to 3 are sums, 4 and 5 rows, 6 and 7 weights. */
INLINE void dots(int mt, int nv, const row_tile *rows, const int8_t *w, int steps,
                 const int32_t *bias, int32_t *sums)
{
    _tile_loadd(0, bias, 0);
    if (nv == 2)
        _tile_loadd(1, bias + 16, 0);
    if (mt == 2)
        _tile_loadd(2, bias, 0);
    if (mt == 2 && nv == 2)
        _tile_loadd(3, bias + 16, 0);
    for (int i = 0; i < steps; i++, w += nv * TILE_BYTES) {
        _tile_loadd(6, w, STEP);
        _tile_loadd(4, rows[0].base + rows[0].offset[i], rows[0].stride);
        _tile_dpbusd(0, 4, 6);
        if (nv == 2) {
            _tile_loadd(7, w + TILE_BYTES, STEP);
            _tile_dpbusd(1, 4, 7);
        }
        if (mt == 2) {
            _tile_loadd(5, rows[1].base + rows[1].offset[i], rows[1].stride);
            _tile_dpbusd(2, 5, 6);
        }
        if (mt == 2 && nv == 2)
            _tile_dpbusd(3, 5, 7);
    }
    _tile_stored(0, sums, SUMS * sizeof *sums);
    if (nv == 2)
        _tile_stored(1, sums + 16, SUMS * sizeof *sums);
    if (mt == 2)
        _tile_stored(2, sums + TILE_ROWS * SUMS, SUMS * sizeof *sums);
    if (mt == 2 && nv == 2)
        _tile_stored(3, sums + TILE_ROWS * SUMS + 16, SUMS * sizeof *sums);
}

INLINE void store_few(int mr, int nv, const int32_t *sums, const block_out *b)
{
    __m512i acc[8][4];
    UNROLL
    for (int r = 0; r < mr; r++)
        UNROLL
    for (int v = 0; v < nv; v++)
        acc[r][v] = _mm512_loadu_si512(sums + r * SUMS + 16 * v);
    store_tile(b->sums, b, mr, nv, acc);
}

INLINE void store_all(int nv, size_t n, const int32_t *sums, block_out b)
{
    for (; n >= 4; n -= 4, sums += 4 * SUMS, b.y += 4 * b.y_stride)
        store_few(4, nv, sums, &b);
    for (; n > 0; n--, sums += SUMS, b.y += b.y_stride)
        store_few(1, nv, sums, &b);
}

/* n rows, up to 32, of a block of columns. */
static void run_tiles(const amx_call *c, const row_tile *rows, size_t n, int block,
                      const block_out *b)
{
    const int8_t *w = c->w + (size_t)block * 2 * c->p.steps * TILE_BYTES;
    const bool two = n > TILE_ROWS;
    if (block_vectors(&c->p, block) == 2) {
        if (two)
            dots(2, 2, rows, w, c->p.steps, b->bias, c->sums);
        else
            dots(1, 2, rows, w, c->p.steps, b->bias, c->sums);
        store_all(2, n, c->sums, *b);
    } else {
        if (two)
            dots(2, 1, rows, w, c->p.steps, b->bias, c->sums);
        else
            dots(1, 1, rows, w, c->p.steps, b->bias, c->sums);
        store_all(1, n, c->sums, *b);
    }
}

/* Blocks [b0, b1) of n rows from `first` on. */
static void run_rows(const amx_call *c, size_t first, size_t n, size_t b0, size_t b1)
{
    row_tile rows[MOST_TILES];
    for (size_t i = 0; i < n; i += TILE_ROWS)
        rows[i / TILE_ROWS] = place_rows(c, first + i, n - i < TILE_ROWS ? n - i : TILE_ROWS,
                                         c->copies + i * c->p.row_bytes);
    /* gcc 12 does not know that tiles are loaded from memory. */
    __asm__ volatile("" ::: "memory");
    for (int block = (int)b0; block < (int)b1; block++) {
        const size_t column = 32 * (size_t)block;
        const int left = c->s->out_c - (int)column;
        block_out b = {.bias = c->bias + column,
                       .y_stride = c->s->out_c * c->y_size,
                       .last = left >= 32 ? 16 : (left - 1) % 16 + 1,
                       .sums = !c->q,
                       .bounded = c->bounded,
                       .order = lane_order};
        if (c->q)
            block_out_requant(&b, c->q, column);
        for (size_t i = 0; i < n; i += 2 * TILE_ROWS) {
            b.y = c->y + ((first + i) * c->s->out_c + column) * c->y_size;
            run_tiles(c, rows + i / TILE_ROWS, n - i < 2 * TILE_ROWS ? n - i : 2 * TILE_ROWS, block,
                      &b);
        }
    }
}

static void place_steps(const amx_call *c)
{
    const ptrdiff_t line = (ptrdiff_t)c->s->dilation_h * c->s->in_w * c->s->in_c;
    for (int i = 0; i < c->p.steps; i++) {
        c->in_copy[i] = (ptrdiff_t)i * STEP;
        c->in_image[i] = i / c->p.line_steps * line + (ptrdiff_t)(i % c->p.line_steps) * STEP;
    }
}

/* y: bytes, or int32 sums where q is NULL. */
static void gemm_any(const conv_shape *s, const void *packed, const uint8_t *x, int x_zero,
                     const requant *q, void *y, void *scratch, int thread, int n_threads)
{
    amx_call c = {.s = s,
                  .p = plan_of(s),
                  .x_end = x + (size_t)s->batch * s->in_h * s->in_w * s->in_c,
                  .bias = packed,
                  .q = q,
                  .y = y,
                  .y_size = q ? 1 : sizeof(int32_t)};
    const size_t n_rows = (size_t)s->batch * s->out_h * s->out_w;
    const size_t taps = (size_t)s->kernel_h * s->kernel_w, chunk = (size_t)c.p.tiles * TILE_ROWS;
    size_t row, last, b0, b1;
    rows_split(n_rows, 2 * TILE_ROWS, c.p.blocks, thread, n_threads, &row, &last, &b0, &b1);
    if (row == last || b0 == b1)
        return;

    ptrdiff_t *offset = scratch;
    c.in_image = offset + taps;
    c.in_copy = c.in_image + c.p.steps;
    uint8_t *pad =
        (uint8_t *)scratch + round64((taps + 2 * (size_t)c.p.steps) * sizeof(ptrdiff_t));
    c.sums = (int32_t *)(void *)(pad + round64(s->in_c));
    c.copies = (uint8_t *)(c.sums + 2 * TILE_ROWS * SUMS);
    c.w = (const int8_t *)(c.bias + 16 * (size_t)c.p.vectors);
    c.bounded = q && below_one(q->mult, s->out_c);
    c.source = row_source_of(s, x, pad, offset, (int)taps);
    memset(pad, x_zero, s->in_c);
    place_steps(&c);
    const bool begun = tiles_begin_amx();
    for (; row < last; row += chunk)
        run_rows(&c, row, last - row < chunk ? last - row : chunk, b0, b1);
    tiles_end_amx(begun);
}

void gemm_run_amx(const conv_shape *s, const void *packed, const uint8_t *x, int x_zero,
                  const requant *q, uint8_t *y, void *scratch, int thread, int n_threads)
{
    gemm_any(s, packed, x, x_zero, q, y, scratch, thread, n_threads);
}

void gemm_sums_amx(const conv_shape *s, const void *packed, const uint8_t *x, int x_zero,
                   int32_t *y, void *scratch, int thread, int n_threads)
{
    gemm_any(s, packed, x, x_zero, NULL, y, scratch, thread, n_threads);
}
