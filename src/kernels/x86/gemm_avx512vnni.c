/* Convolution as an indirect GEMM with VPDPBUSD, planned and packed as gemm_vnni.h says. Up
 * to 8 rows x 3 or 6 rows x 4 registers of 16 columns stay in registers, and are requantized there
 * or stored as sums: `sums`, where it stands first, is a constant of the compiler. */
#include "kernels/x86/gemm_vnni_rows.h"

#include <immintrin.h>

#include "kernels/x86/copy_avx512.h"
#include "kernels/x86/requant_avx512.h"
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
