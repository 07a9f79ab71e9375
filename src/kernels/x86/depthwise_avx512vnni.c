/* Depthwise convolution with VPDPBUSD, 64 channels at a time: the bytes of four taps are
 * interleaved channel by channel, so that one instruction adds four taps of 16 channels.
 *
 * Interleaving works inside 128-bit lanes, so register j of four holds, in lane l, the channels
 * 16 l + 4 j + (0..3) ("lane order"); packing the sums back to bytes undoes it.
 *
 * Packed, for each block of 64 channels: bias [4 registers][16] int32 with the zero point folded
 * in, then w [tap / 4][4 registers][16][4], both in lane order, zero where there is no weight. */
#include <immintrin.h>
#include <string.h>

#include "kernels/kernels.h"
#include "kernels/x86/requant_lanes.h"
#include "kernels/x86/rows.h"
#include "kernels/x86/words.h"
#include "kernels/x86/x86.h"

enum { CHUNK_ROWS = 64 }; /* output pixels whose pointers are made at once */

static int quads_of(const conv_shape *s)
{
    return (s->kernel_h * s->kernel_w + 3) / 4;
}

static size_t blocks_of(const conv_shape *s)
{
    return ((size_t)s->out_c + 63) / 64;
}

static size_t block_bytes(const conv_shape *s)
{
    return 256 + 256 * (size_t)quads_of(s);
}

/* The channel, in its block, at place i of 64 in lane order. */
static int lane_order(int i)
{
    return i % 16 / 4 * 16 + i / 16 * 4 + i % 4;
}

bool depthwise_fits_avx512vnni(const conv_shape *s)
{
    return s->groups > 1 && s->in_c == s->groups && s->out_c == s->groups;
}

size_t depthwise_packed_size_avx512vnni(const conv_shape *s)
{
    return blocks_of(s) * block_bytes(s);
}

void depthwise_pack_avx512vnni(const conv_shape *s, const int8_t *w, const int32_t *bias,
                               int x_zero, void *packed)
{
    const int taps = s->kernel_h * s->kernel_w, quads = quads_of(s);
    memset(packed, 0, depthwise_packed_size_avx512vnni(s));
    for (size_t block = 0; block < blocks_of(s); block++) {
        uint32_t *b = (uint32_t *)((char *)packed + block * block_bytes(s));
        int8_t *to = (int8_t *)(b + 64);
        for (int i = 0; i < 64; i++) {
            const size_t c = block * 64 + lane_order(i);
            if (c >= (size_t)s->out_c)
                continue;
            b[i] = bias ? (uint32_t)bias[c] : 0;
            for (int t = 0; t < taps; t++) {
                b[i] -= (uint32_t)(x_zero * w[c * taps + t]);
                to[(t / 4 * 64 + i) * 4 + t % 4] = w[c * taps + t];
            }
        }
        for (int t = taps; t < 4 * quads; t++)
            for (int i = 0; i < 64; i++)
                to[(t / 4 * 64 + i) * 4 + t % 4] = 0;
    }
}

static size_t round64(size_t n)
{
    return (n + 63) / 64 * 64;
}

/* Tap offsets, the row of x_zero bytes, multipliers in lane order, pointers. */
size_t depthwise_scratch_size_avx512vnni(const conv_shape *s)
{
    const size_t quads = quads_of(s);
    return round64(4 * quads * sizeof(ptrdiff_t)) + round64(s->in_c) + blocks_of(s) * 256 +
           CHUNK_ROWS * 4 * quads * sizeof(uint8_t *);
}

/* The instruction itself: gcc 12 copies and spills the accumulators of the intrinsic. */
INLINE __m512i dpbusd(__m512i sum, __m512i u8, __m512i s8)
{
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(u8), "v"(s8));
    return sum;
}

/* sums += four taps of 64 channels. */
INLINE void add_quad(__m512i sum[4], const uint8_t *const *p, size_t c0, __mmask64 m,
                     const __m512i w[4])
{
    const __m512i x0 = _mm512_maskz_loadu_epi8(m, p[0] + c0);
    const __m512i x1 = _mm512_maskz_loadu_epi8(m, p[1] + c0);
    const __m512i x2 = _mm512_maskz_loadu_epi8(m, p[2] + c0);
    const __m512i x3 = _mm512_maskz_loadu_epi8(m, p[3] + c0);
    const __m512i lo01 = _mm512_unpacklo_epi8(x0, x1), hi01 = _mm512_unpackhi_epi8(x0, x1);
    const __m512i lo23 = _mm512_unpacklo_epi8(x2, x3), hi23 = _mm512_unpackhi_epi8(x2, x3);
    sum[0] = dpbusd(sum[0], _mm512_unpacklo_epi16(lo01, lo23), w[0]);
    sum[1] = dpbusd(sum[1], _mm512_unpackhi_epi16(lo01, lo23), w[1]);
    sum[2] = dpbusd(sum[2], _mm512_unpacklo_epi16(hi01, hi23), w[2]);
    sum[3] = dpbusd(sum[3], _mm512_unpackhi_epi16(hi01, hi23), w[3]);
}

typedef struct block_out {
    const float *mult; /* [64], lane order */
    const requant *q;  /* NULL: y is int32 sums */
    __mmask64 channels;
} block_out;

INLINE void store_block(const __m512i sum[4], const block_out *b, uint8_t *y)
{
    const __m512i v = requant_lanes(sum, b->mult, b->q);
    _mm512_mask_storeu_epi8(y, b->channels, v);
}

/* Four channels of register j begin at 16 l + 4 j: a 4 x 4 transposition of 128-bit lanes. */
INLINE void store_sums(const __m512i sum[4], const block_out *b, uint8_t *y)
{
    const __m512i a = _mm512_shuffle_i32x4(sum[0], sum[1], 0x44); /* s0: 0 1, s1: 0 1 */
    const __m512i c = _mm512_shuffle_i32x4(sum[0], sum[1], 0xee); /* s0: 2 3, s1: 2 3 */
    const __m512i d = _mm512_shuffle_i32x4(sum[2], sum[3], 0x44);
    const __m512i e = _mm512_shuffle_i32x4(sum[2], sum[3], 0xee);
    const __m512i lines[4] = {_mm512_shuffle_i32x4(a, d, 0x88), _mm512_shuffle_i32x4(a, d, 0xdd),
                              _mm512_shuffle_i32x4(c, e, 0x88), _mm512_shuffle_i32x4(c, e, 0xdd)};
    for (int l = 0; l < 4; l++)
        _mm512_mask_storeu_epi32(y + 64 * l, (__mmask16)(b->channels >> 16 * l), lines[l]);
}

/* n pixels of one block of channels; `fixed` > 0: that many quads, their weights in registers;
 * y_stride is in bytes. */
INLINE void run_block(bool sums, int fixed, int quads, const uint8_t *const *rows, size_t n,
                      size_t c0, const int32_t *packed, const block_out *b, uint8_t *y,
                      size_t y_stride)
{
    const int8_t *wp = (const int8_t *)(packed + 64);
    __m512i bias[4], w[3][4];
    for (int j = 0; j < 4; j++)
        bias[j] = _mm512_load_si512(packed + 16 * j);
    for (int k = 0; k < fixed; k++)
        for (int j = 0; j < 4; j++)
            w[k][j] = _mm512_load_si512(wp + 256 * k + 64 * j);
    for (size_t i = 0; i < n; i++, rows += 4 * quads, y += y_stride) {
        __m512i sum[4] = {bias[0], bias[1], bias[2], bias[3]};
        if (fixed) {
            for (int k = 0; k < fixed; k++)
                add_quad(sum, rows + 4 * k, c0, b->channels, w[k]);
        } else {
            for (int k = 0; k < quads; k++) {
                const __m512i *from = (const __m512i *)(const void *)(wp + 256 * (size_t)k);
                const __m512i wk[4] = {from[0], from[1], from[2], from[3]};
                add_quad(sum, rows + 4 * k, c0, b->channels, wk);
            }
        }
        if (sums)
            store_sums(sum, b, y);
        else
            store_block(sum, b, y);
    }
}

static void lane_order_mult(const conv_shape *s, const requant *q, float *to)
{
    for (size_t block = 0; block < blocks_of(s); block++)
        for (int i = 0; i < 64; i++) {
            const size_t c = block * 64 + lane_order(i);
            *to++ = c < (size_t)s->out_c ? q->mult[c] : 0;
        }
}

/* y: bytes, or int32 sums where q is NULL. */
static void depthwise_any(const conv_shape *s, const void *packed, const uint8_t *x, int x_zero,
                          const requant *q, void *y, void *scratch, int thread, int n_threads)
{
    const int quads = quads_of(s);
    const size_t channels = s->out_c, n_blocks = blocks_of(s), y_size = q ? 1 : sizeof(int32_t);
    size_t row, last;
    kernel_share((size_t)s->batch * s->out_h * s->out_w, 1, thread, n_threads, &row, &last);
    if (row == last)
        return;

    uint8_t *at = scratch;
    ptrdiff_t *offset = (ptrdiff_t *)(void *)at;
    uint8_t *pad = at += round64(4 * (size_t)quads * sizeof *offset);
    float *mult = (float *)(void *)(at += round64(channels));
    const uint8_t **rows = (const uint8_t **)(void *)(at + n_blocks * 256);
    const row_source source = row_source_of(s, x, pad, offset, 4 * quads);
    memset(pad, x_zero, channels);
    if (q)
        lane_order_mult(s, q, mult);
    for (; row < last; row += CHUNK_ROWS) {
        const size_t n = last - row < CHUNK_ROWS ? last - row : CHUNK_ROWS;
        rows_point(&source, row, n, rows);
        for (size_t block = 0; block < n_blocks; block++) {
            const size_t c0 = block * 64, left = channels - c0;
            const block_out b = {mult + c0, q,
                                 left < 64 ? ~UINT64_C(0) >> (64 - left) : ~UINT64_C(0)};
            const int32_t *from =
                (const int32_t *)(const void *)((const char *)packed + block * block_bytes(s));
            uint8_t *to = (uint8_t *)y + (row * channels + c0) * y_size;
            if (!q)
                run_block(true, 0, quads, rows, n, c0, from, &b, to, channels * y_size);
            else if (quads == 3)
                run_block(false, 3, 3, rows, n, c0, from, &b, to, channels);
            else
                run_block(false, 0, quads, rows, n, c0, from, &b, to, channels);
        }
    }
}

void depthwise_run_avx512vnni(const conv_shape *s, const void *packed, const uint8_t *x, int x_zero,
                              const requant *q, uint8_t *y, void *scratch, int thread,
                              int n_threads)
{
    depthwise_any(s, packed, x, x_zero, q, y, scratch, thread, n_threads);
}

void depthwise_sums_avx512vnni(const conv_shape *s, const void *packed, const uint8_t *x,
                               int x_zero, int32_t *y, void *scratch, int thread, int n_threads)
{
    depthwise_any(s, packed, x, x_zero, NULL, y, scratch, thread, n_threads);
}
