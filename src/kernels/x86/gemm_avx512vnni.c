/* Convolution as an indirect GEMM with VPDPBUSD, planned and packed as gemm_vnni.h says. Up
 * to 8 rows x 3 or 6 rows x 4 registers of 16 columns stay in registers, and are requantized there
 * or stored as sums: `sums`, where it stands first, is a constant of the compiler. */
#include "kernels/x86/gemm_vnni_rows.h"

#include <immintrin.h>

#include "kernels/x86/x86.h"

enum { BLOCK_VECTORS = 4 };

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
    k.lo = _mm512_set1_epi8((char)b->lo);
    k.hi = _mm512_set1_epi8((char)b->hi);
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
        block_out out = *b;                                                                        \
        out.order = lane_order;                                                                    \
        tiles(sums, mr, nv, in, *rows, n, out);                                                    \
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

static void run_block(int vectors, const block_in *in, const row_cursor *rows, size_t n,
                      const block_out *b)
{
    block_runs[b->sums][vectors - 1](in, rows, n, b);
}

static size_t tile_rows(const gemm_plan *p)
{
    return p->vectors > 3 * p->blocks ? 6 : 8;
}

INLINE void copy_bytes(uint8_t *to, const uint8_t *from, size_t n)
{
    for (; n > 64; n -= 64, to += 64, from += 64)
        _mm512_storeu_si512(to, _mm512_loadu_si512(from));
    const __mmask64 m = n ? ~UINT64_C(0) >> (64 - n) : 0;
    _mm512_mask_storeu_epi8(to, m, _mm512_maskz_loadu_epi8(m, from));
}

bool gemm_fits_avx512vnni(const conv_shape *s)
{
    return true;
}

size_t gemm_packed_size_avx512vnni(const conv_shape *s)
{
    return gemm_vnni_packed_size(s, BLOCK_VECTORS);
}

void gemm_pack_avx512vnni(const conv_shape *s, const int8_t *w, const int32_t *bias, int x_zero,
                          void *packed)
{
    gemm_vnni_pack(s, BLOCK_VECTORS, w, bias, x_zero, packed);
}

size_t gemm_scratch_size_avx512vnni(const conv_shape *s)
{
    return gemm_scratch_size(s, BLOCK_VECTORS);
}

void gemm_run_avx512vnni(const conv_shape *s, const void *packed, const uint8_t *x, int x_zero,
                         const requant *q, uint8_t *y, void *scratch, int thread, int n_threads)
{
    gemm_any(BLOCK_VECTORS, s, packed, x, x_zero, q, y, scratch, thread, n_threads);
}

void gemm_sums_avx512vnni(const conv_shape *s, const void *packed, const uint8_t *x, int x_zero,
                          int32_t *y, void *scratch, int thread, int n_threads)
{
    gemm_any(BLOCK_VECTORS, s, packed, x, x_zero, NULL, y, scratch, thread, n_threads);
}
