/* Convolution as an indirect GEMM with VPDPBUSD, planned and packed as gemm_avx512vnni.h says. Up
 * to 8 rows x 3 or 6 rows x 4 registers of 16 columns stay in registers, and are requantized there
 * or stored as sums: `sums`, where it stands first, is a constant of the compiler. */
#include "kernels/x86/gemm_avx512vnni.h"

#include <immintrin.h>
#include <limits.h>
#include <string.h>

#include "kernels/kernels.h"
#include "kernels/x86/rows.h"
#include "kernels/x86/x86.h"

#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 24")
#endif
#define INLINE static inline __attribute__((always_inline))

/* Where the rows of a chunk begin: `width` of them `step` bytes apart, then a gap, and so on. */
typedef struct row_cursor {
    const uint8_t *at; /* the next row */
    int x, width;      /* its place in the line */
    ptrdiff_t step, gap;
} row_cursor;

INLINE void cursor_step(row_cursor *c, int n)
{
    c->at += n * c->step;
    c->x += n;
    if (c->x == c->width) {
        c->x = 0;
        c->at += c->gap;
    }
}

INLINE void cursor_take(row_cursor *c, int n, const uint8_t *base[8])
{
    if (c->x + n <= c->width) {
        UNROLL
        for (int r = 0; r < n; r++)
            base[r] = c->at + r * c->step;
        cursor_step(c, n);
        return;
    }
    UNROLL
    for (int r = 0; r < n; r++) {
        base[r] = c->at;
        cursor_step(c, 1);
    }
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

/* What the columns of a block need behind the dot products. */
typedef struct block_out {
    const int32_t *bias;
    const float *mult;
    uint8_t *y;      /* first row, first column: bytes, or int32 sums */
    size_t y_stride; /* in bytes */
    int last;        /* columns of the last register that exist: 1 to 16 */
    int16_t zero;
    int8_t lo, hi;
    bool bounded;         /* no product leaves int32: the multipliers are below 1 */
    const int32_t *order; /* lane_order */
} block_out;

/* Packing works in 128-bit lanes: dword 4 l + j is lane l of register j. */
static const int32_t lane_order[16] = {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15};

/* Its constants in registers: loaded once a tile, as for the compiler a store may change them. */
typedef struct block_consts {
    __m512 mult[4];
    __m512i zero, lo, hi, order;
} block_consts;

INLINE block_consts load_consts(const block_out *b, int nv)
{
    const __mmask16 last = (__mmask16)(0xffffu >> (16 - b->last));
    block_consts k;
    UNROLL
    for (int v = 0; v < 4; v++)
        k.mult[v] = v < nv ? _mm512_maskz_loadu_ps(v == nv - 1 ? last : 0xffff, b->mult + 16 * v)
                           : _mm512_setzero_ps();
    k.zero = _mm512_set1_epi16(b->zero);
    k.lo = _mm512_set1_epi8(b->lo);
    k.hi = _mm512_set1_epi8(b->hi);
    k.order = _mm512_loadu_si512(b->order);
    return k;
}

/* A product below int32 becomes INT32_MIN in the conversion, which saturates as it should; above,
 * it must not get that far. */
INLINE __m512i rounded(__m512i sum, __m512 mult, bool bounded)
{
    __m512 v = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), mult);
    if (!bounded)
        v = _mm512_min_ps(v, _mm512_set1_ps(65536));
    return _mm512_cvtps_epi32(v);
}

/* Four registers of 16 rounded sums to bytes, register after register. */
INLINE __m512i to_bytes(const block_consts *k, const __m512i i[4])
{
    const __m512i low = _mm512_adds_epi16(_mm512_packs_epi32(i[0], i[1]), k->zero);
    const __m512i high = _mm512_adds_epi16(_mm512_packs_epi32(i[2], i[3]), k->zero);
    const __m512i bytes = _mm512_packus_epi16(low, high);
    return _mm512_permutexvar_epi32(k->order,
                                    _mm512_min_epu8(_mm512_max_epu8(bytes, k->lo), k->hi));
}

/* The bytes of 4 / nv rows of nv registers: one row of three or four, two of two, four of one. */
INLINE void store_rows(const block_out *b, int nv, __m512i bytes, uint8_t *y)
{
    if (b->y_stride == 16 * (size_t)nv || (nv == 4 && b->last == 16)) {
        const __mmask64 all = nv == 3 ? ~UINT64_C(0) >> 16 : ~UINT64_C(0);
        nv == 3 ? _mm512_mask_storeu_epi8(y, all, bytes) : _mm512_storeu_si512(y, bytes);
    } else if (nv >= 3) {
        _mm512_mask_storeu_epi8(y, ~UINT64_C(0) >> (64 - 16 * (nv - 1) - b->last), bytes);
    } else if (nv == 2) {
        const __mmask32 there = ~UINT32_C(0) >> (16 - b->last);
        _mm256_mask_storeu_epi8(y, there, _mm512_castsi512_si256(bytes));
        _mm256_mask_storeu_epi8(y + b->y_stride, there, _mm512_extracti64x4_epi64(bytes, 1));
    } else {
        const __mmask16 there = (__mmask16)(0xffffu >> (16 - b->last));
        _mm_mask_storeu_epi8(y, there, _mm512_castsi512_si128(bytes));
        _mm_mask_storeu_epi8(y + b->y_stride, there, _mm512_extracti32x4_epi32(bytes, 1));
        _mm_mask_storeu_epi8(y + 2 * b->y_stride, there, _mm512_extracti32x4_epi32(bytes, 2));
        _mm_mask_storeu_epi8(y + 3 * b->y_stride, there, _mm512_extracti32x4_epi32(bytes, 3));
    }
}

/* One row, where there are not enough for store_rows. */
INLINE void store_row(const block_out *b, int nv, __m512i bytes, uint8_t *y)
{
    _mm512_mask_storeu_epi8(y, ~UINT64_C(0) >> (64 - 16 * (nv - 1) - b->last), bytes);
}

INLINE void store_tile_as(const block_out *b, int mr, int nv, __m512i acc[8][4], bool bounded)
{
    const block_consts k = load_consts(b, nv);
    const int fit = nv == 1 ? 4 : nv == 2 ? 2 : 1, together = mr % fit ? 1 : fit;
    uint8_t *y = b->y;
    UNROLL
    for (int r = 0; r < mr; r += together, y += together * b->y_stride) {
        __m512i i[4];
        UNROLL
        for (int j = 0; j < 4; j++)
            i[j] = j < together * nv ? rounded(acc[r + j / nv][j % nv], k.mult[j % nv], bounded)
                                     : i[0];
        if (together == fit)
            store_rows(b, nv, to_bytes(&k, i), y);
        else
            store_row(b, nv, to_bytes(&k, i), y);
    }
}

INLINE void store_sums(const block_out *b, int mr, int nv, __m512i acc[8][4])
{
    const __mmask16 last = (__mmask16)(0xffffu >> (16 - b->last));
    uint8_t *y = b->y;
    UNROLL
    for (int r = 0; r < mr; r++, y += b->y_stride)
        UNROLL
    for (int v = 0; v < nv; v++)
        _mm512_mask_storeu_epi32(y + 64 * v, v == nv - 1 ? last : 0xffff, acc[r][v]);
}

INLINE void store_tile(bool sums, const block_out *b, int mr, int nv, __m512i acc[8][4])
{
    if (sums) {
        store_sums(b, mr, nv, acc);
        return;
    }
    __asm__ volatile("" : "+r"(b)); /* keeps the constants out of the dot products' registers */
    if (b->bounded)
        store_tile_as(b, mr, nv, acc, true);
    else
        store_tile_as(b, mr, nv, acc, false);
}

/* What the dot products of a block read. */
typedef struct block_in {
    const int8_t *w;
    const ptrdiff_t *offset; /* [taps] */
    int taps, quads;
    bool shared; /* lines of three pixels, whose rows are one pixel apart: tile_shared */
} block_in;

/* The steps of four in [at, end) from each row's base: `sets` at once, each into accumulators of
 * its own. Returns the weights behind them. */
INLINE const int8_t *dot(int mr, int nv, int sets, const uint8_t *const base[8], ptrdiff_t at,
                         ptrdiff_t end, const int8_t *w, __m512i acc[2][8][4])
{
    for (; at < end; at += 4 * sets) {
        UNROLL
        for (int i = 0; i < sets; i++, w += 64 * nv) {
            __m512i c[4];
            UNROLL
            for (int v = 0; v < nv; v++)
                c[v] = _mm512_loadu_si512(w + 64 * v);
            UNROLL
            for (int r = 0; r < mr; r++) {
                const __m512i x = broadcast4(base[r] + at + 4 * i);
                UNROLL
                for (int v = 0; v < nv; v++)
                    acc[i][r][v] = dpbusd(acc[i][r][v], x, c[v]);
            }
        }
    }
    return w;
}

/* mr rows x nv registers. Few accumulators are doubled, odd and even steps apart: the instruction's
 * latency must be filled. */
INLINE void tile(bool sums, int mr, int nv, const block_in *in, row_cursor *rows,
                 const block_out *b)
{
    const int sets = mr * nv <= 8 ? 2 : 1;
    const ptrdiff_t bytes = 4 * (ptrdiff_t)in->quads, paired = bytes & -4 * sets;
    const int8_t *w = in->w;
    const uint8_t *base[8];
    __m512i acc[2][8][4];
    cursor_take(rows, mr, base);
    UNROLL
    for (int r = 0; r < mr; r++)
        UNROLL
    for (int v = 0; v < nv; v++) {
        acc[0][r][v] = _mm512_loadu_si512(b->bias + 16 * v);
        acc[1][r][v] = _mm512_setzero_si512();
    }
    for (int t = 0; t < in->taps; t++) {
        const ptrdiff_t at = in->offset[t];
        w = dot(mr, nv, sets, base, at, at + paired, w, acc);
        if (paired < bytes)
            w = dot(mr, nv, 1, base, at + paired, at + bytes, w, acc);
    }
    if (sets == 2) {
        UNROLL
        for (int r = 0; r < mr; r++)
            UNROLL
        for (int v = 0; v < nv; v++)
            acc[0][r][v] = _mm512_add_epi32(acc[0][r][v], acc[1][r][v]);
    }
    store_tile(sums, b, mr, nv, acc[0]);
}

/* 16 rows of one register, neighbours in a line, of a kernel three pixels wide: a pixel is loaded
 * once for the three rows that read it. With one load for each product the loads would be the
 * limit. */
INLINE void tile_shared(bool sums, const block_in *in, row_cursor *rows, block_out b)
{
    const int quads = in->quads / 3; /* of a pixel */
    const int8_t *w = in->w;
    __m512i acc[2][8][4];
    UNROLL
    for (int r = 0; r < 16; r++)
        acc[r / 8][r % 8][0] = _mm512_loadu_si512(b.bias);
    for (int t = 0; t < in->taps; t++, w += 2 * 64 * (ptrdiff_t)quads) {
        const uint8_t *x = rows->at + in->offset[t];
        for (int q = 0; q < quads; q++, x += 4, w += 64) {
            __m512i c[3];
            UNROLL
            for (int k = 0; k < 3; k++)
                c[k] = _mm512_loadu_si512(w + k * 64 * (ptrdiff_t)quads);
            const uint8_t *at = x;
            UNROLL
            for (int i = 0; i < 18; i++, at += rows->step) {
                __asm__("" : "+r"(at)); /* 18 offsets would not stay in registers */
                const __m512i pixel = broadcast4(at);
                UNROLL
                for (int k = 0; k < 3; k++) {
                    const int r = i - k;
                    if (r >= 0 && r < 16)
                        acc[r / 8][r % 8][0] = dpbusd(acc[r / 8][r % 8][0], pixel, c[k]);
                }
            }
        }
    }
    cursor_step(rows, 16);
    store_tile(sums, &b, 8, 1, acc[0]);
    b.y += 8 * b.y_stride;
    store_tile(sums, &b, 8, 1, acc[1]);
}

/* n rows by tiles of mr, then 4, 2, 1. */
INLINE void tiles(bool sums, int mr, int nv, const block_in *in, row_cursor rows, size_t n,
                  block_out b)
{
    size_t i = 0;
    while (i + mr <= n) {
        const bool shared = nv == 1 && in->shared && i + 16 <= n && rows.x + 16 <= rows.width;
        const int done = shared ? 16 : mr;
        if (shared)
            tile_shared(sums, in, &rows, b);
        else
            tile(sums, mr, nv, in, &rows, &b);
        i += done;
        b.y += done * b.y_stride;
    }
    for (; i + 4 <= n; i += 4, b.y += 4 * b.y_stride)
        tile(sums, 4, nv, in, &rows, &b);
    for (; i + 2 <= n; i += 2, b.y += 2 * b.y_stride)
        tile(sums, 2, nv, in, &rows, &b);
    if (i < n)
        tile(sums, 1, nv, in, &rows, &b);
}

#define BLOCK(name, sums, nv, mr)                                                                  \
    static void name##_##nv(const block_in *in, const row_cursor *rows, size_t n,                  \
                            const block_out *b)                                                    \
    {                                                                                              \
        tiles(sums, mr, nv, in, *rows, n, *b);                                                     \
    }
BLOCK(bytes, false, 1, 8)
BLOCK(bytes, false, 2, 8)
BLOCK(bytes, false, 3, 8)
BLOCK(bytes, false, 4, 6)
BLOCK(sums, true, 1, 8)
BLOCK(sums, true, 2, 8)
BLOCK(sums, true, 3, 8)
BLOCK(sums, true, 4, 6)

typedef void (*block_run)(const block_in *in, const row_cursor *rows, size_t n, const block_out *b);
static const block_run block_runs[2][4] = {{bytes_1, bytes_2, bytes_3, bytes_4},
                                           {sums_1, sums_2, sums_3, sums_4}};

static size_t round64(size_t n)
{
    return (n + 63) / 64 * 64;
}

static size_t min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

INLINE void copy_bytes(uint8_t *to, const uint8_t *from, size_t n)
{
    for (; n > 64; n -= 64, to += 64, from += 64)
        _mm512_storeu_si512(to, _mm512_loadu_si512(from));
    const __mmask64 m = n ? ~UINT64_C(0) >> (64 - n) : 0;
    _mm512_mask_storeu_epi8(to, m, _mm512_maskz_loadu_epi8(m, from));
}

/* WHOLE: all taps of n rows side by side. */
static void copy_rows(const row_source *r, const gemm_plan *p, size_t first, size_t n,
                      size_t x_offset, uint8_t *row)
{
    const conv_shape *s = r->s;
    row_pixel px = row_pixel_at(r, first);
    for (size_t i = 0; i < n; i++, row += p->row_bytes, row_pixel_next(r, &px)) {
        uint8_t *at = row;
        memset(row + p->row_bytes - 4, 0, 4);
        for (int ky = 0; ky < s->kernel_h; ky++)
            for (int kx = 0; kx < s->kernel_w; kx++, at += p->in_c)
                copy_bytes(at, row_pixel_tap(r, &px, ky, kx) + x_offset, p->in_c);
    }
}

/* The lines of an image that output lines [oy, oy + n) read, with the padding around them. */
static void fill_strip(const conv_shape *s, const gemm_plan *p, const uint8_t *image, int x_zero,
                       int oy, int n, uint8_t *strip)
{
    const size_t in_c = s->in_c, line_bytes = (size_t)p->strip_w * in_c;
    const int lines = (n - 1) * s->stride_h + (s->kernel_h - 1) * s->dilation_h + 1;
    const int left = s->pad_left < p->strip_w ? s->pad_left : p->strip_w;
    const int inside = s->in_w < p->strip_w - left ? s->in_w : p->strip_w - left;
    const size_t right = (size_t)(p->strip_w - left - inside);
    int64_t iy = (int64_t)oy * s->stride_h - s->pad_top;
    for (int i = 0; i < lines; i++, iy++, strip += line_bytes) {
        if (iy < 0 || iy >= s->in_h) {
            memset(strip, x_zero, line_bytes);
            continue;
        }
        memset(strip, x_zero, left * in_c);
        memcpy(strip + left * in_c, image + (size_t)iy * s->in_w * in_c, inside * in_c);
        memset(strip + line_bytes - right * in_c, x_zero, right * in_c);
    }
    memset(strip, 0, 4); /* lines rounded up to 4 bytes read it, against zero weights */
}

/* One call: what all chunks share. */
typedef struct gemm_call {
    const conv_shape *s;
    gemm_plan p;
    const char *packed;
    const uint8_t *x;
    int x_zero;
    const requant *q; /* NULL: y is int32 sums */
    uint8_t *y;
    size_t y_size; /* bytes of an output value */
    size_t b0, b1; /* blocks of columns */
    bool bounded;
    ptrdiff_t *offset;
    uint8_t *copies;
    row_source source; /* WHOLE */
    bool flat;         /* row lies behind row, image behind image */
} gemm_call;

/* Rows [first, first + n) of group g. */
static void run_group(const gemm_call *c, const row_cursor *rows, size_t first, size_t n, int g)
{
    const gemm_plan *p = &c->p;
    const int32_t *bias = (const int32_t *)(const void *)(c->packed + g * p->group_bytes);
    const int8_t *w = (const int8_t *)(bias + (size_t)p->vectors * 16);
    const size_t vector_bytes = (size_t)p->taps * p->quads * 64;
    const bool shared =
        p->kind == LINES && c->s->kernel_w == 3 && c->s->stride_w == 1 && p->in_c % 4 == 0;
    for (int block = (int)c->b0; block < (int)c->b1; block++) {
        const int v0 = gemm_block_start(p, block), v1 = gemm_block_start(p, block + 1);
        const size_t column = (size_t)g * p->out_c + 16 * (size_t)v0;
        block_out b = {.bias = bias + 16 * (size_t)v0,
                       .y = c->y + (first * c->s->out_c + column) * c->y_size,
                       .y_stride = c->s->out_c * c->y_size,
                       .last = v1 == p->vectors ? p->out_c - 16 * (p->vectors - 1) : 16,
                       .bounded = c->bounded,
                       .order = lane_order};
        if (c->q) {
            b.mult = c->q->mult + column;
            b.zero = (int16_t)c->q->zero;
            b.lo = (int8_t)c->q->lo;
            b.hi = (int8_t)c->q->hi;
        }
        const block_in in = {w + v0 * vector_bytes, c->offset, p->taps, p->quads, shared};
        block_runs[!c->q][v1 - v0 - 1](&in, rows, n, &b);
    }
}

/* How many rows from `row` on are made at once: of one image, where they are not all alike. */
static size_t chunk_rows(const gemm_call *c, size_t row, size_t last)
{
    const conv_shape *s = c->s;
    const size_t image_rows = (size_t)s->out_h * s->out_w, in_image = row % image_rows;
    size_t n = last - row;
    if (c->p.strip)
        n = min_size(n, (in_image / s->out_w + c->p.chunk_lines) * s->out_w - in_image);
    else
        n = min_size(n, c->p.chunk);
    return c->flat || c->p.kind == WHOLE ? n : min_size(n, image_rows - in_image);
}

/* The bases of n rows; what no address in the image can reach is copied. */
static row_cursor place_rows(const gemm_call *c, size_t row, size_t n)
{
    const conv_shape *s = c->s;
    const gemm_plan *p = &c->p;
    row_cursor r = {.at = c->copies, .width = INT_MAX, .step = (ptrdiff_t)p->row_bytes};
    if (p->kind == WHOLE)
        return r;
    const size_t image_rows = (size_t)s->out_h * s->out_w, in_image = row % image_rows;
    const int oy = (int)(in_image / s->out_w);
    ptrdiff_t line = (ptrdiff_t)s->in_w * s->in_c;
    r.step = (ptrdiff_t)s->stride_w * s->in_c;
    r.at = c->x + row / image_rows * ((size_t)s->in_h * (size_t)line);
    if (p->strip) {
        const int end = (int)((in_image + n - 1) / s->out_w) + 1;
        fill_strip(s, p, r.at, c->x_zero, oy, end - oy, c->copies);
        r.at = c->copies;
        line = (ptrdiff_t)p->strip_w * s->in_c;
    } else {
        r.at += (size_t)oy * s->stride_h * (size_t)line;
    }
    r.x = (int)(in_image % s->out_w);
    r.at += r.x * r.step;
    if (c->flat) {
        r.x = 0;
        return r;
    }
    r.width = s->out_w;
    r.gap = s->stride_h * line - s->out_w * r.step;
    return r;
}

/* The taps' offsets, where a row is no copy of its own. */
static void place_taps(gemm_call *c)
{
    const conv_shape *s = c->s;
    const int per_line = c->p.kind == PIXELS ? s->kernel_w : 1;
    const ptrdiff_t line = (ptrdiff_t)(c->p.strip ? c->p.strip_w : s->in_w) * s->in_c;
    for (int t = 0; t < c->p.taps; t++)
        c->offset[t] = t / per_line * s->dilation_h * line +
                       (ptrdiff_t)(t % per_line) * s->dilation_w * s->in_c;
}

static bool below_one(const float *mult, int n)
{
    bool all = true;
    for (int i = 0; i < n; i++)
        all &= mult[i] < 1;
    return all;
}

/* Tap offsets, padding of copied rows, copies. */
size_t gemm_scratch_size_avx512vnni(const conv_shape *s)
{
    const gemm_plan p = gemm_plan_avx512vnni(s);
    const size_t taps = (size_t)s->kernel_h * s->kernel_w;
    return round64(taps * sizeof(ptrdiff_t)) + (p.kind == WHOLE ? round64(s->in_c) : 0) +
           round64(p.copy_bytes);
}

/* y: bytes, or int32 sums where q is NULL. */
static void gemm_any(const conv_shape *s, const void *packed, const uint8_t *x, int x_zero,
                     const requant *q, void *y, void *scratch, int thread, int n_threads)
{
    gemm_call c = {.s = s,
                   .p = gemm_plan_avx512vnni(s),
                   .packed = packed,
                   .x = x,
                   .x_zero = x_zero,
                   .q = q,
                   .y = y,
                   .y_size = q ? 1 : sizeof(int32_t)};
    const gemm_plan *p = &c.p;
    const size_t n_rows = (size_t)s->batch * s->out_h * s->out_w;
    const size_t taps = (size_t)s->kernel_h * s->kernel_w;
    size_t row, last;
    rows_split(n_rows, p->vectors > 3 * p->blocks ? 6 : 8, p->blocks, thread, n_threads, &row,
               &last, &c.b0, &c.b1);
    if (row == last || c.b0 == c.b1)
        return;

    c.bounded = q && below_one(q->mult, s->out_c);
    c.offset = scratch;
    uint8_t *pad = (uint8_t *)scratch + round64(taps * sizeof(ptrdiff_t));
    c.source = row_source_of(s, x, pad, c.offset, (int)taps);
    c.flat = c.source.direct && !p->strip;
    c.copies = pad + (p->kind == WHOLE ? round64(s->in_c) : 0);
    if (p->kind == WHOLE)
        memset(pad, x_zero, s->in_c);
    else
        place_taps(&c);
    for (size_t n; row < last; row += n) {
        n = chunk_rows(&c, row, last);
        row_cursor rows = place_rows(&c, row, n);
        for (int g = 0; g < p->groups; g++) {
            if (p->kind == WHOLE)
                copy_rows(&c.source, p, row, n, (size_t)g * p->in_c, c.copies);
            run_group(&c, &rows, row, n, g);
            rows.at += p->kind == WHOLE ? 0 : p->in_c;
        }
    }
}

void gemm_run_avx512vnni(const conv_shape *s, const void *packed, const uint8_t *x, int x_zero,
                         const requant *q, uint8_t *y, void *scratch, int thread, int n_threads)
{
    gemm_any(s, packed, x, x_zero, q, y, scratch, thread, n_threads);
}

void gemm_sums_avx512vnni(const conv_shape *s, const void *packed, const uint8_t *x, int x_zero,
                          int32_t *y, void *scratch, int thread, int n_threads)
{
    gemm_any(s, packed, x, x_zero, NULL, y, scratch, thread, n_threads);
}
