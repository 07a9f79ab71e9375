/* Convolution as an indirect GEMM with VPDPBUSD: rows are output pixels, columns output channels,
 * four input channels a step. Up to 8 rows x 3 or 6 rows x 4 registers of 16 columns stay in
 * registers, and are requantized there.
 *
 * A row is read through pointers into the image (rows.h), one for each of the tile's taps. What a
 * tap is depends on the shape:
 *   pixels  one tap of the kernel, all its channels; taps in the padding point at x_zero bytes;
 *   lines   one line of the kernel, its pixels side by side as they lie in the image: few channels
 *           make longer dot products. Lines that touch the padding (or, rounded up to 4 bytes,
 *           would leave the image) are copied;
 *   whole   the whole kernel: every row is copied. For channels that are no multiple of 4.
 * Neighbouring groups with few outputs are merged into one with zeros off the diagonal.
 *
 * Packed, for each group: bias [n padded to 16] int32 with the zero point folded in; then, for
 * each block of up to 64 columns, w [tap][k / 4][columns][4], zero where there is no weight. */
#include <immintrin.h>
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

enum {
    LINES_UNDER = 64,       /* input channels under which a tap is a kernel line */
    CHUNK_ROWS = 96,        /* rows whose pointers are made at once: a multiple of 6 and 8 */
    COPY_BYTES = 32 * 1024, /* of copied rows at once: stays in the first-level cache */
};

typedef enum tap_kind { PIXELS, LINES, WHOLE } tap_kind;

/* The GEMM of one (merged) group. */
typedef struct gemm_plan {
    int groups, merged; /* after merging; of the operator's groups in one */
    int in_c, out_c;    /* of a group */
    tap_kind kind;
    int taps, depth, quads; /* taps of the tile; real channels, and steps of four, of each */
    int vectors, blocks;    /* registers of 16 columns, blocks of up to 4 registers */
    size_t row_bytes;       /* of a copied row; 0: none is copied */
    size_t group_bytes;
    size_t chunk; /* rows at once */
} gemm_plan;

/* How many groups fill 16 columns. */
static int groups_to_merge(const conv_shape *s)
{
    const int out_c = s->out_c / s->groups;
    int m = out_c < 16 ? 16 / out_c : 1;
    while (s->groups % m != 0)
        m--;
    return m;
}

static gemm_plan gemm_plan_of(const conv_shape *s)
{
    gemm_plan p = {.merged = groups_to_merge(s)};
    p.groups = s->groups / p.merged;
    p.in_c = s->in_c / p.groups;
    p.out_c = s->out_c / p.groups;
    if (p.groups == 1 && s->kernel_w > 1 && s->dilation_w == 1 && p.in_c < LINES_UNDER)
        p.kind = LINES;
    else
        p.kind = p.in_c % 4 ? WHOLE : PIXELS;
    p.taps = p.kind == LINES ? s->kernel_h : p.kind == WHOLE ? 1 : s->kernel_h * s->kernel_w;
    p.depth = p.in_c * s->kernel_h * s->kernel_w / p.taps;
    p.quads = (p.depth + 3) / 4;
    p.vectors = (p.out_c + 15) / 16;
    p.blocks = (p.vectors + 3) / 4;
    p.row_bytes = p.kind == PIXELS ? 0 : (size_t)p.taps * p.quads * 4;
    p.group_bytes = (size_t)p.vectors * 64 * (1 + (size_t)p.taps * p.quads);
    p.chunk = CHUNK_ROWS;
    if (p.row_bytes * p.chunk > COPY_BYTES) {
        p.chunk = COPY_BYTES / p.row_bytes / 24 * 24;
        p.chunk = p.chunk ? p.chunk : 24;
    }
    return p;
}

/* Blocks are as even as they can be: 9 registers are 3 + 3 + 3. */
static int block_start(const gemm_plan *p, int block)
{
    return (int)((int64_t)p->vectors * block / p->blocks);
}

bool gemm_fits_avx512vnni(const conv_shape *s)
{
    return true;
}

size_t gemm_packed_size_avx512vnni(const conv_shape *s)
{
    const gemm_plan p = gemm_plan_of(s);
    return p.group_bytes * p.groups;
}

/* The weight of column o at place d of tap t, or 0 where there is none. w: of this group. */
static int8_t weight_at(const conv_shape *s, const gemm_plan *p, const int8_t *w, int o, int t,
                        int d)
{
    if (o >= p->out_c || d >= p->depth)
        return 0;
    const int taps = s->kernel_h * s->kernel_w, in_c = p->in_c / p->merged;
    const int tap = t * (taps / p->taps) + d / p->in_c, c = d % p->in_c;
    if (c / in_c != o / (p->out_c / p->merged))
        return 0;
    return w[((size_t)o * in_c + c % in_c) * taps + tap];
}

static void pack_group(const conv_shape *s, const gemm_plan *p, const int8_t *w,
                       const int32_t *bias, int x_zero, char *packed)
{
    const size_t per_output = (size_t)(s->in_c / s->groups) * s->kernel_h * s->kernel_w;
    uint32_t *b = (uint32_t *)(void *)packed;
    int8_t *to = (int8_t *)(b + (size_t)p->vectors * 16);
    for (int o = 0; o < p->vectors * 16; o++) {
        uint32_t sum = 0; /* modulo 2^32, as the products will be added */
        for (size_t i = 0; o < p->out_c && i < per_output; i++)
            sum += (uint32_t)(x_zero * w[o * per_output + i]);
        b[o] = (bias && o < p->out_c ? (uint32_t)bias[o] : 0) - sum;
    }
    for (int block = 0; block < p->blocks; block++)
        for (int t = 0; t < p->taps; t++)
            for (int q = 0; q < p->quads; q++)
                for (int o = 16 * block_start(p, block); o < 16 * block_start(p, block + 1); o++)
                    for (int i = 0; i < 4; i++)
                        *to++ = weight_at(s, p, w, o, t, 4 * q + i);
}

void gemm_pack_avx512vnni(const conv_shape *s, const int8_t *w, const int32_t *bias, int x_zero,
                          void *packed)
{
    const gemm_plan p = gemm_plan_of(s);
    const size_t per_output = (size_t)(s->in_c / s->groups) * s->kernel_h * s->kernel_w;
    for (int g = 0; g < p.groups; g++)
        pack_group(s, &p, w + (size_t)g * p.out_c * per_output,
                   bias ? bias + (size_t)g * p.out_c : NULL, x_zero,
                   (char *)packed + g * p.group_bytes);
}

static size_t round64(size_t n)
{
    return (n + 63) / 64 * 64;
}

/* Bytes of x_zero that padding is read from: a pixel, or a kernel line. */
static size_t pad_bytes(const conv_shape *s, const gemm_plan *p)
{
    return p->kind == LINES ? 4 * (size_t)p->quads : (size_t)s->in_c;
}

/* Tap offsets, padding, pointers, copied rows. */
size_t gemm_scratch_size_avx512vnni(const conv_shape *s)
{
    const gemm_plan p = gemm_plan_of(s);
    const size_t taps = (size_t)s->kernel_h * s->kernel_w;
    return round64(taps * sizeof(ptrdiff_t)) + round64(pad_bytes(s, &p)) +
           round64(p.chunk * p.taps * sizeof(uint8_t *)) + round64(p.chunk * p.row_bytes);
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
    uint8_t *y; /* first row, first column */
    size_t y_stride;
    int last; /* columns of the last register that exist: 1 to 16 */
    float hi; /* of the requantization, before the zero point is added */
    int16_t zero;
    int8_t lo;
    const int32_t *order; /* lane_order */
} block_out;

/* Packing works in 128-bit lanes: dword 4 l + j is lane l of register j. */
static const int32_t lane_order[16] = {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15};

/* Its constants in registers: loaded once a tile, as for the compiler a store may change them. */
typedef struct block_consts {
    __m512 mult[4], hi;
    __m512i zero, lo, order;
} block_consts;

INLINE block_consts load_consts(const block_out *b, int nv)
{
    const __mmask16 last = (__mmask16)(0xffffu >> (16 - b->last));
    block_consts k;
    UNROLL
    for (int v = 0; v < 4; v++)
        k.mult[v] = v < nv ? _mm512_maskz_loadu_ps(v == nv - 1 ? last : 0xffff, b->mult + 16 * v)
                           : _mm512_setzero_ps();
    k.hi = _mm512_set1_ps(b->hi);
    k.zero = _mm512_set1_epi16(b->zero);
    k.lo = _mm512_set1_epi8(b->lo);
    k.order = _mm512_loadu_si512(b->order);
    return k;
}

/* A product below int32 becomes INT32_MIN in the conversion, which saturates as it should; above,
 * it must not get that far. */
INLINE __m512i rounded(__m512i sum, __m512 mult, __m512 hi)
{
    return _mm512_cvtps_epi32(_mm512_min_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(sum), mult), hi));
}

/* Four registers of 16 rounded sums to bytes, register after register. */
INLINE __m512i to_bytes(const block_consts *k, __m512i i0, __m512i i1, __m512i i2, __m512i i3)
{
    const __m512i low = _mm512_adds_epi16(_mm512_packs_epi32(i0, i1), k->zero);
    const __m512i high = _mm512_adds_epi16(_mm512_packs_epi32(i2, i3), k->zero);
    const __m512i bytes = _mm512_max_epu8(_mm512_packus_epi16(low, high), k->lo);
    return _mm512_permutexvar_epi32(k->order, bytes);
}

/* One row of nv registers. */
INLINE void store_wide(const block_out *b, const block_consts *k, int nv, const __m512i acc[4],
                       uint8_t *y)
{
    __m512i i[4];
    UNROLL
    for (int v = 0; v < 4; v++)
        i[v] = v < nv ? rounded(acc[v], k->mult[v], k->hi) : i[0];
    const __m512i bytes = to_bytes(k, i[0], i[1], i[2], i[3]);
    if (nv == 4 && b->last == 16)
        _mm512_storeu_si512(y, bytes);
    else
        _mm512_mask_storeu_epi8(y, ~UINT64_C(0) >> (64 - 16 * (nv - 1) - b->last), bytes);
}

/* Two rows of two registers. */
INLINE void store_pair(const block_out *b, const block_consts *k, __m512i acc[8][4], int r,
                       uint8_t *y)
{
    const __m512i bytes = to_bytes(
        k, rounded(acc[r][0], k->mult[0], k->hi), rounded(acc[r][1], k->mult[1], k->hi),
        rounded(acc[r + 1][0], k->mult[0], k->hi), rounded(acc[r + 1][1], k->mult[1], k->hi));
    const __mmask32 there = ~UINT32_C(0) >> (16 - b->last);
    _mm256_mask_storeu_epi8(y, there, _mm512_castsi512_si256(bytes));
    _mm256_mask_storeu_epi8(y + b->y_stride, there, _mm512_extracti64x4_epi64(bytes, 1));
}

/* Four rows of one register. */
INLINE void store_four(const block_out *b, const block_consts *k, __m512i acc[8][4], int r,
                       uint8_t *y)
{
    const __m512i bytes = to_bytes(
        k, rounded(acc[r][0], k->mult[0], k->hi), rounded(acc[r + 1][0], k->mult[0], k->hi),
        rounded(acc[r + 2][0], k->mult[0], k->hi), rounded(acc[r + 3][0], k->mult[0], k->hi));
    const __mmask16 there = (__mmask16)(0xffffu >> (16 - b->last));
    _mm_mask_storeu_epi8(y, there, _mm512_castsi512_si128(bytes));
    _mm_mask_storeu_epi8(y + b->y_stride, there, _mm512_extracti32x4_epi32(bytes, 1));
    _mm_mask_storeu_epi8(y + 2 * b->y_stride, there, _mm512_extracti32x4_epi32(bytes, 2));
    _mm_mask_storeu_epi8(y + 3 * b->y_stride, there, _mm512_extracti32x4_epi32(bytes, 3));
}

INLINE void store_tile(const block_out *b, int mr, int nv, __m512i acc[8][4])
{
    __asm__ volatile("" : "+r"(b)); /* keeps the constants out of the dot products' registers */
    const block_consts k = load_consts(b, nv);
    const int together = nv == 1 && mr % 4 == 0 ? 4 : nv == 2 && mr % 2 == 0 ? 2 : 1;
    uint8_t *y = b->y;
    UNROLL
    for (int r = 0; r < mr; r += together, y += together * b->y_stride)
        if (together == 4)
            store_four(b, &k, acc, r, y);
        else if (together == 2)
            store_pair(b, &k, acc, r, y);
        else
            store_wide(b, &k, nv, acc[r], y);
}

/* mr rows x nv registers. rows[r * taps + t] + x_offset is row r's first channel at tap t. Few
 * accumulators are doubled, odd and even steps apart: the instruction's latency must be filled. */
INLINE void tile(int mr, int nv, const gemm_plan *p, const uint8_t *const *rows, size_t x_offset,
                 const int8_t *w, const block_out *b)
{
    const int sets = mr * nv <= 8 ? 2 : 1;
    const int taps = p->taps, quads = p->quads;
    __m512i acc[8][4], odd[8][4];
    UNROLL
    for (int r = 0; r < mr; r++)
        UNROLL
    for (int v = 0; v < nv; v++) {
        acc[r][v] = _mm512_loadu_si512(b->bias + 16 * v);
        odd[r][v] = _mm512_setzero_si512();
    }
    for (int t = 0; t < taps; t++) {
        const uint8_t *x[8];
        UNROLL
        for (int r = 0; r < mr; r++)
            x[r] = rows[(size_t)r * taps + t] + x_offset;
        int q = 0;
        if (sets == 2)
            for (; q + 2 <= quads; q += 2) {
                __m512i c[2][4];
                UNROLL
                for (int v = 0; v < nv; v++, w += 64) {
                    c[0][v] = _mm512_loadu_si512(w);
                    c[1][v] = _mm512_loadu_si512(w + 64 * nv);
                }
                w += 64 * nv;
                UNROLL
                for (int r = 0; r < mr; r++) {
                    const __m512i even_x = broadcast4(x[r] + 4 * q);
                    const __m512i odd_x = broadcast4(x[r] + 4 * q + 4);
                    UNROLL
                    for (int v = 0; v < nv; v++) {
                        acc[r][v] = dpbusd(acc[r][v], even_x, c[0][v]);
                        odd[r][v] = dpbusd(odd[r][v], odd_x, c[1][v]);
                    }
                }
            }
        for (; q < quads; q++) {
            __m512i c[4];
            UNROLL
            for (int v = 0; v < nv; v++, w += 64)
                c[v] = _mm512_loadu_si512(w);
            UNROLL
            for (int r = 0; r < mr; r++) {
                const __m512i xv = broadcast4(x[r] + 4 * q);
                UNROLL
                for (int v = 0; v < nv; v++)
                    acc[r][v] = dpbusd(acc[r][v], xv, c[v]);
            }
        }
    }
    if (sets == 2) {
        UNROLL
        for (int r = 0; r < mr; r++)
            UNROLL
        for (int v = 0; v < nv; v++)
            acc[r][v] = _mm512_add_epi32(acc[r][v], odd[r][v]);
    }
    store_tile(b, mr, nv, acc);
}

/* n rows by tiles of mr, then 4, 2, 1. */
INLINE void tiles(int mr, int nv, const gemm_plan *p, const uint8_t *const *rows, size_t n,
                  size_t x_offset, const int8_t *w, block_out b)
{
    size_t i = 0;
    for (; i + mr <= n; i += mr, b.y += mr * b.y_stride)
        tile(mr, nv, p, rows + i * p->taps, x_offset, w, &b);
    for (; i + 4 <= n; i += 4, b.y += 4 * b.y_stride)
        tile(4, nv, p, rows + i * p->taps, x_offset, w, &b);
    for (; i + 2 <= n; i += 2, b.y += 2 * b.y_stride)
        tile(2, nv, p, rows + i * p->taps, x_offset, w, &b);
    if (i < n)
        tile(1, nv, p, rows + i * p->taps, x_offset, w, &b);
}

__attribute__((noinline)) static void block_1(const gemm_plan *p, const uint8_t *const *rows,
                                              size_t n, size_t x_offset, const int8_t *w,
                                              const block_out *b)
{
    tiles(8, 1, p, rows, n, x_offset, w, *b);
}

__attribute__((noinline)) static void block_2(const gemm_plan *p, const uint8_t *const *rows,
                                              size_t n, size_t x_offset, const int8_t *w,
                                              const block_out *b)
{
    tiles(8, 2, p, rows, n, x_offset, w, *b);
}

__attribute__((noinline)) static void block_3(const gemm_plan *p, const uint8_t *const *rows,
                                              size_t n, size_t x_offset, const int8_t *w,
                                              const block_out *b)
{
    tiles(8, 3, p, rows, n, x_offset, w, *b);
}

__attribute__((noinline)) static void block_4(const gemm_plan *p, const uint8_t *const *rows,
                                              size_t n, size_t x_offset, const int8_t *w,
                                              const block_out *b)
{
    tiles(6, 4, p, rows, n, x_offset, w, *b);
}

INLINE void copy_bytes(uint8_t *to, const uint8_t *from, size_t n)
{
    for (; n > 64; n -= 64, to += 64, from += 64)
        _mm512_storeu_si512(to, _mm512_loadu_si512(from));
    const __mmask64 m = n ? ~UINT64_C(0) >> (64 - n) : 0;
    _mm512_mask_storeu_epi8(to, m, _mm512_maskz_loadu_epi8(m, from));
}

/* All taps of one row side by side. */
static void copy_row(const row_source *r, const gemm_plan *p, const row_pixel *px, size_t x_offset,
                     uint8_t *row)
{
    const conv_shape *s = r->s;
    uint8_t *at = row;
    memset(row + p->row_bytes - 4, 0, 4);
    for (int ky = 0; ky < s->kernel_h; ky++)
        for (int kx = 0; kx < s->kernel_w; kx++, at += p->in_c)
            copy_bytes(at, row_pixel_tap(r, px, ky, kx) + x_offset, p->in_c);
}

/* The address of kernel line ky: in the image, the padding, or a copy of both. */
static const uint8_t *line_address(const row_source *r, const gemm_plan *p, const row_pixel *px,
                                   int ky, const uint8_t *end, uint8_t *copy)
{
    const conv_shape *s = r->s;
    const int iy = px->oy * s->stride_h - s->pad_top + ky * s->dilation_h;
    const int ix = px->ox * s->stride_w - s->pad_left, in_c = p->in_c;
    const ptrdiff_t line_bytes = 4 * (ptrdiff_t)p->quads;
    if (iy < 0 || iy >= s->in_h || ix + s->kernel_w <= 0 || ix >= s->in_w)
        return r->pad;
    const uint8_t *line = px->image + (size_t)iy * s->in_w * in_c;
    if (ix >= 0 && ix + s->kernel_w <= s->in_w && end - line >= (ptrdiff_t)ix * in_c + line_bytes)
        return line + (size_t)ix * in_c;
    const int first = ix < 0 ? -ix : 0; /* kernel pixels in the image: [first, last) */
    const int last = ix + s->kernel_w > s->in_w ? s->in_w - ix : s->kernel_w;
    memset(copy + line_bytes - 4, 0, 4);
    copy_bytes(copy, r->pad, (size_t)first * in_c);
    copy_bytes(copy + (size_t)first * in_c, line + (size_t)(ix + first) * in_c,
               (size_t)(last - first) * in_c);
    copy_bytes(copy + (size_t)last * in_c, r->pad, (size_t)(s->kernel_w - last) * in_c);
    return copy;
}

/* The pointers of n rows from `first` on; what no pointer can reach is copied. */
static void copy_rows(const row_source *r, const gemm_plan *p, size_t first, size_t n,
                      size_t x_offset, uint8_t *copies, const uint8_t **to)
{
    const conv_shape *s = r->s;
    const uint8_t *end = r->x + (size_t)s->batch * s->in_h * s->in_w * s->in_c;
    const ptrdiff_t reach = r->offset[(s->kernel_h - 1) * s->kernel_w] + 4 * (ptrdiff_t)p->quads;
    row_pixel px = row_pixel_at(r, first);
    for (size_t i = 0; i < n; i++, to += p->taps, copies += p->row_bytes, row_pixel_next(r, &px)) {
        if (p->kind == WHOLE) {
            copy_row(r, p, &px, x_offset, copies);
            to[0] = copies;
        } else if (row_pixel_inside(r, &px) && end - (px.image + px.first) >= reach) {
            for (int t = 0; t < p->taps; t++)
                to[t] = px.image + px.first + r->offset[t * s->kernel_w];
        } else {
            for (int t = 0; t < p->taps; t++)
                to[t] = line_address(r, p, &px, t, end, copies + 4 * (size_t)p->quads * t);
        }
    }
}

/* Rows [first, first + n) of group g, blocks [b0, b1). */
static void run_group(const conv_shape *s, const gemm_plan *p, const char *packed,
                      const uint8_t *const *rows, size_t first, size_t n, size_t x_offset, int g,
                      int b0, int b1, const requant *q, uint8_t *y)
{
    const int32_t *bias = (const int32_t *)(packed + g * p->group_bytes);
    const int8_t *w = (const int8_t *)(bias + (size_t)p->vectors * 16);
    const size_t vector_bytes = (size_t)p->taps * p->quads * 64;
    const int columns = p->out_c - 16 * (p->vectors - 1);
    for (int block = b0; block < b1; block++) {
        const int v0 = block_start(p, block), v1 = block_start(p, block + 1);
        const size_t column = (size_t)g * p->out_c + 16 * (size_t)v0;
        const block_out b = {.bias = bias + 16 * (size_t)v0,
                             .mult = q->mult + column,
                             .y = y + first * s->out_c + column,
                             .y_stride = s->out_c,
                             .last = v1 == p->vectors ? columns : 16,
                             .hi = (float)(q->hi - q->zero),
                             .zero = (int16_t)q->zero,
                             .lo = (int8_t)q->lo,
                             .order = lane_order};
        const int8_t *wb = w + v0 * vector_bytes;
        switch (v1 - v0) {
        case 1:
            block_1(p, rows, n, x_offset, wb, &b);
            break;
        case 2:
            block_2(p, rows, n, x_offset, wb, &b);
            break;
        case 3:
            block_3(p, rows, n, x_offset, wb, &b);
            break;
        default:
            block_4(p, rows, n, x_offset, wb, &b);
            break;
        }
    }
}

void gemm_run_avx512vnni(const conv_shape *s, const void *packed, const uint8_t *x, int x_zero,
                         const requant *q, uint8_t *y, void *scratch, int thread, int n_threads)
{
    const gemm_plan p = gemm_plan_of(s);
    const size_t n_rows = (size_t)s->batch * s->out_h * s->out_w;
    const size_t taps = (size_t)s->kernel_h * s->kernel_w;
    size_t row, last, b0, b1;
    rows_split(n_rows, p.vectors > 3 * p.blocks ? 6 : 8, p.blocks, thread, n_threads, &row, &last,
               &b0, &b1);
    if (row == last || b0 == b1)
        return;

    uint8_t *at = scratch;
    ptrdiff_t *offset = (ptrdiff_t *)(void *)at;
    uint8_t *pad = at += round64(taps * sizeof *offset);
    const uint8_t **rows = (const uint8_t **)(void *)(at += round64(pad_bytes(s, &p)));
    uint8_t *copies = at + round64(p.chunk * p.taps * sizeof *rows);
    const row_source source = row_source_of(s, x, pad, offset, (int)taps);
    if (!source.direct)
        memset(pad, x_zero, pad_bytes(s, &p));
    for (; row < last; row += p.chunk) {
        const size_t n = last - row < p.chunk ? last - row : p.chunk;
        if (p.kind == PIXELS)
            rows_point(&source, row, n, rows);
        for (int g = 0; g < p.groups; g++) {
            const size_t x_offset = (size_t)g * p.in_c;
            if (p.kind != PIXELS)
                copy_rows(&source, &p, row, n, x_offset, copies, rows);
            run_group(s, &p, packed, rows, row, n, p.kind == PIXELS ? x_offset : 0, g, (int)b0,
                      (int)b1, q, y);
        }
    }
}
