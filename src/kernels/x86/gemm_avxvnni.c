/* Convolution as an indirect GEMM with VPDPBUSD in 256-bit registers, for processors that have it
 * but no AVX512; planned and packed as gemm_vnni.h says. 6 rows x 2 registers of 8 columns stay in
 * registers, and are requantized there or stored as sums: `sums`, where it stands first, is a
 * constant of the compiler. */
#include "kernels/x86/gemm_vnni_rows.h"

#include <immintrin.h>

#include "kernels/x86/dot_avxvnni.h"
#include "kernels/x86/requant_avx2.h"
#include "kernels/x86/x86.h"

enum { BLOCK_VECTORS = 1, TILE_ROWS = 6 };

static size_t tile_rows(const gemm_plan *p)
{
    return TILE_ROWS;
}

INLINE void copy_bytes(uint8_t *to, const uint8_t *from, size_t n)
{
    for (; n >= 16; n -= 16, to += 16, from += 16)
        memcpy(to, from, 16);
    for (size_t i = 0; i < n; i++)
        to[i] = from[i];
}

/* The steps of four in [at, end) from each row's base: `sets` at once, each into accumulators of
 * its own. Returns the weights behind them. */
INLINE const int8_t *dots(int mr, int sets, const uint8_t *const base[8], ptrdiff_t at,
                          ptrdiff_t end, const int8_t *w, __m256i acc[4][TILE_ROWS][2])
{
    for (; at < end; at += 4 * sets) {
        UNROLL
        for (int i = 0; i < sets; i++, w += 64) {
            const __m256i w0 = _mm256_loadu_si256((const __m256i *)(const void *)w);
            const __m256i w1 = _mm256_loadu_si256((const __m256i *)(const void *)(w + 32));
            UNROLL
            for (int r = 0; r < mr; r++) {
                int32_t quad;
                memcpy(&quad, base[r] + at + 4 * i, 4);
                const __m256i x = _mm256_set1_epi32(quad);
                acc[i][r][0] = dot(acc[i][r][0], x, w0);
                acc[i][r][1] = dot(acc[i][r][1], x, w1);
            }
        }
    }
    return w;
}

/* mr rows. Of few, several steps are added apart: the instruction's latency must be filled. */
INLINE void tile(bool sums, int mr, const block_in *in, row_cursor *rows, const block_out *b)
{
    const int sets = mr == 1 ? 4 : mr == 2 ? 2 : 1;
    const ptrdiff_t bytes = 4 * (ptrdiff_t)in->quads, together = bytes & -4 * sets;
    const int8_t *w = in->w;
    const uint8_t *base[8];
    __m256i acc[4][TILE_ROWS][2];
    cursor_take(rows, mr, base);
    UNROLL
    for (int r = 0; r < mr; r++)
        UNROLL
    for (int v = 0; v < 2; v++) {
        acc[0][r][v] = _mm256_loadu_si256((const __m256i *)(const void *)(b->bias + 8 * v));
        UNROLL
        for (int i = 1; i < sets; i++)
            acc[i][r][v] = _mm256_setzero_si256();
    }
    for (int t = 0; t < in->taps; t++) {
        const ptrdiff_t at = in->offset[t];
        w = dots(mr, sets, base, at, at + together, w, acc);
        if (together < bytes)
            w = dots(mr, 1, base, at + together, at + bytes, w, acc);
    }
    UNROLL
    for (int i = 1; i < sets; i++)
        UNROLL
    for (int r = 0; r < mr; r++)
        UNROLL
    for (int v = 0; v < 2; v++)
        acc[0][r][v] = _mm256_add_epi32(acc[0][r][v], acc[i][r][v]);
    store_tile16(sums, b, mr, (const __m256i(*)[2])acc[0]);
}

INLINE void tiles(bool sums, const block_in *in, row_cursor rows, size_t n, block_out b)
{
    for (; n >= TILE_ROWS; n -= TILE_ROWS, b.y += TILE_ROWS * b.y_stride)
        tile(sums, TILE_ROWS, in, &rows, &b);
    for (; n >= 2; n -= 2, b.y += 2 * b.y_stride)
        tile(sums, 2, in, &rows, &b);
    if (n)
        tile(sums, 1, in, &rows, &b);
}

static void run_block(int vectors, const block_in *in, const row_cursor *rows, size_t n,
                      const block_out *b)
{
    if (b->sums)
        tiles(true, in, *rows, n, *b);
    else
        tiles(false, in, *rows, n, *b);
}

bool gemm_fits_avxvnni(const conv_shape *s)
{
    return true;
}

size_t gemm_packed_size_avxvnni(const conv_shape *s)
{
    return gemm_vnni_packed_size(s, BLOCK_VECTORS);
}

void gemm_pack_avxvnni(const conv_shape *s, const int8_t *w, const int32_t *bias, int x_zero,
                       void *packed)
{
    gemm_vnni_pack(s, BLOCK_VECTORS, w, bias, x_zero, packed);
}

size_t gemm_scratch_size_avxvnni(const conv_shape *s)
{
    return gemm_scratch_size(s, BLOCK_VECTORS);
}

void gemm_run_avxvnni(const conv_shape *s, const void *packed, const uint8_t *x, int x_zero,
                      const requant *q, uint8_t *y, void *scratch, int thread, int n_threads)
{
    gemm_any(BLOCK_VECTORS, s, packed, x, x_zero, q, y, scratch, thread, n_threads);
}

void gemm_sums_avxvnni(const conv_shape *s, const void *packed, const uint8_t *x, int x_zero,
                       int32_t *y, void *scratch, int thread, int n_threads)
{
    gemm_any(BLOCK_VECTORS, s, packed, x, x_zero, NULL, y, scratch, thread, n_threads);
}
