/* Convolution as an indirect GEMM with VPDPBUSD: rows are output pixels, columns output channels,
 * four input channels a step. Up to 8 rows x 3 or 6 rows x 4 registers of 16 columns stay in
 * registers, and are requantized there.
 *
 * A row is read through one pointer per tap (rows.h). Where the channels of a tap are no multiple
 * of 4, or few, a row's taps are copied side by side first and count as one tap ("gathered").
 *
 * Packed, for each group: bias [n padded to 16] int32 with the zero point folded in; then, for
 * each block of up to 64 columns, w [tap][k / 4][columns][4], zero where there is no weight. */
#include <immintrin.h>
#include <string.h>

#include "kernels/kernels.h"
#include "kernels/x86/rows.h"
#include "kernels/x86/x86.h"

#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 24")
#endif
#define INLINE static inline __attribute__((always_inline))

enum {
    GATHER_UNDER = 8,            /* input channels under which rows are gathered */
    CHUNK_ROWS = 96,             /* rows whose pointers are made at once: a multiple of 6 and 8 */
    GATHER_BYTES = 32 * 1024,    /* of gathered rows at once: stays in the first-level cache */
};

/* The GEMM of one group. */
typedef struct gemm_plan {
    int in_c, out_c;  /* of a group */
    bool gathered;
    int taps, quads;  /* taps as the tile sees them, steps of four channels in a tap */
    int vectors, blocks; /* registers of 16 columns, blocks of up to 4 registers */
    size_t row_bytes; /* of a gathered row */
    size_t group_bytes;
    size_t chunk;     /* rows at once */
} gemm_plan;

static gemm_plan gemm_plan_of(const conv_shape *s)
{
    gemm_plan p = {.in_c = s->in_c / s->groups, .out_c = s->out_c / s->groups};
    const int taps = s->kernel_h * s->kernel_w;
    p.gathered = p.in_c % 4 != 0 || (p.in_c < GATHER_UNDER && taps > 1);
    p.taps = p.gathered ? 1 : taps;
    p.quads = p.gathered ? (taps * p.in_c + 3) / 4 : p.in_c / 4;
    p.vectors = (p.out_c + 15) / 16;
    p.blocks = (p.vectors + 3) / 4;
    p.row_bytes = p.gathered ? (size_t)p.quads * 4 : 0;
    p.group_bytes = (size_t)p.vectors * 64 * (1 + (size_t)p.taps * p.quads);
    p.chunk = CHUNK_ROWS;
    if (p.gathered && p.row_bytes * p.chunk > GATHER_BYTES) {
        p.chunk = GATHER_BYTES / p.row_bytes / 24 * 24;
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
    return gemm_plan_of(s).group_bytes * s->groups;
}

/* Tap t, channel c of output o, or 0 behind the end. */
static int8_t weight_at(const conv_shape *s, const gemm_plan *p, const int8_t *w, int o, int t,
                        int c)
{
    const int taps = s->kernel_h * s->kernel_w;
    if (p->gathered) {
        t = c / p->in_c;
        c = c % p->in_c;
    }
    return o < p->out_c && t < taps && c < p->in_c ? w[((size_t)o * p->in_c + c) * taps + t] : 0;
}

static void pack_group(const conv_shape *s, const gemm_plan *p, const int8_t *w,
                       const int32_t *bias, int x_zero, char *packed)
{
    const size_t per_output = (size_t)p->in_c * s->kernel_h * s->kernel_w;
    uint32_t *b = (uint32_t *)packed;
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
    const size_t group_weights = (size_t)p.out_c * p.in_c * s->kernel_h * s->kernel_w;
    for (int g = 0; g < s->groups; g++)
        pack_group(s, &p, w + g * group_weights, bias ? bias + (size_t)g * p.out_c : NULL, x_zero,
                   (char *)packed + g * p.group_bytes);
}

static size_t round64(size_t n)
{
    return (n + 63) / 64 * 64;
}

/* Tap offsets, the row of x_zero bytes, pointers, gathered rows. */
size_t gemm_scratch_size_avx512vnni(const conv_shape *s)
{
    const gemm_plan p = gemm_plan_of(s);
    const size_t taps = (size_t)s->kernel_h * s->kernel_w;
    return round64(taps * sizeof(ptrdiff_t)) + round64(s->in_c) +
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
    const requant *q;
    uint8_t *y; /* first row, first column */
    size_t y_stride;
    __mmask16 last; /* columns of the last register that exist */
} block_out;

INLINE void store_tile(const block_out *b, int mr, int nv, __m512i acc[8][4])
{
    const __m512 lo = _mm512_set1_ps((float)(b->q->lo - b->q->zero));
    const __m512 hi = _mm512_set1_ps((float)(b->q->hi - b->q->zero));
    const __m512i zero = _mm512_set1_epi32(b->q->zero);
    UNROLL
    for (int v = 0; v < nv; v++) {
        const __mmask16 m = v == nv - 1 ? b->last : 0xffff;
        const __m512 mult = _mm512_maskz_loadu_ps(m, b->mult + 16 * v);
        UNROLL
        for (int r = 0; r < mr; r++) {
            __m512 f = _mm512_mul_ps(_mm512_cvtepi32_ps(acc[r][v]), mult);
            f = _mm512_min_ps(_mm512_max_ps(f, lo), hi);
            const __m512i i = _mm512_add_epi32(_mm512_cvtps_epi32(f), zero);
            uint8_t *to = b->y + r * b->y_stride + 16 * v;
            if (v == nv - 1)
                _mm512_mask_cvtepi32_storeu_epi8(to, m, i);
            else
                _mm_storeu_si128((__m128i *)(void *)to, _mm512_cvtepi32_epi8(i));
        }
    }
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
    const __mmask64 m = ~UINT64_C(0) >> (64 - n);
    _mm512_mask_storeu_epi8(to, m, _mm512_maskz_loadu_epi8(m, from));
}

/* The rows' taps side by side, row_bytes apart; to[i] points at row i. */
static void gather(const row_source *r, const gemm_plan *p, size_t first, size_t n,
                   size_t x_offset, uint8_t *rows, const uint8_t **to)
{
    const conv_shape *s = r->s;
    const bool lines = s->groups == 1 && s->dilation_w == 1; /* a kernel row is one piece */
    const size_t line = (size_t)s->kernel_w * p->in_c;
    row_pixel px = row_pixel_at(r, first);
    for (size_t i = 0; i < n; i++, rows += p->row_bytes, row_pixel_next(r, &px)) {
        uint8_t *at = rows;
        to[i] = rows;
        memset(rows + p->row_bytes - 4, 0, 4);
        if (px.inside && lines) {
            const uint8_t *from = row_pixel_first(r, &px);
            for (int ky = 0; ky < s->kernel_h; ky++, at += line)
                copy_bytes(at, from + r->offset[ky * s->kernel_w], line);
        } else {
            for (int ky = 0; ky < s->kernel_h; ky++)
                for (int kx = 0; kx < s->kernel_w; kx++, at += p->in_c)
                    copy_bytes(at, row_pixel_tap(r, &px, ky, kx) + x_offset, p->in_c);
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
        const block_out b = {bias + 16 * (size_t)v0,
                             q->mult + column,
                             q,
                             y + first * s->out_c + column,
                             s->out_c,
                             (__mmask16)(v1 == p->vectors ? 0xffff >> (16 - columns) : 0xffff)};
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
    const bool by_columns = n_rows < 12 * (size_t)n_threads && p.blocks >= n_threads;
    size_t row = 0, last = n_rows, b0 = 0, b1 = p.blocks;
    if (by_columns)
        kernel_share(p.blocks, 1, thread, n_threads, &b0, &b1);
    else
        kernel_share(n_rows, 24, thread, n_threads, &row, &last);
    if (row == last || b0 == b1)
        return;

    uint8_t *at = scratch;
    ptrdiff_t *offset = (ptrdiff_t *)(void *)at;
    uint8_t *pad = at += round64(taps * sizeof *offset);
    const uint8_t **rows = (const uint8_t **)(void *)(at += round64(s->in_c));
    uint8_t *gathered = at + round64(p.chunk * p.taps * sizeof *rows);
    const row_source source = row_source_of(s, x, pad, offset, (int)taps);
    if (!source.direct)
        memset(pad, x_zero, s->in_c);
    for (; row < last; row += p.chunk) {
        const size_t n = last - row < p.chunk ? last - row : p.chunk;
        if (!p.gathered)
            rows_point(&source, row, n, rows);
        for (int g = 0; g < s->groups; g++) {
            const size_t x_offset = (size_t)g * p.in_c;
            if (p.gathered)
                gather(&source, &p, row, n, x_offset, gathered, rows);
            run_group(s, &p, packed, rows, row, n, p.gathered ? 0 : x_offset, g, (int)b0, (int)b1,
                      q, y);
        }
    }
}
