/* Depthwise convolution with VPDPBUSD in 256-bit registers: the bytes of four taps are interleaved
 * channel by channel, so that one instruction multiplies and adds four taps of 8 channels.
 *
 * A register holds 32 channels of a tap or, where there are fewer, 16 channels of two output pixels
 * ("pixels"). Interleaving works inside 128-bit lanes: register j of four holds, in lane l, the
 * channels from 16 l + 4 j on of one pixel, or from 4 j on of pixel l ("lane order"). The last
 * block of channels begins early enough to be whole, and makes some channels again.
 *
 * Packed, for each block: bias [4 registers][8] int32 with the zero point folded in, then
 * w [taps / 4][4 registers][8][4], both in lane order, zero where there is no tap. */
#include <immintrin.h>
#include <string.h>

#include "kernels/kernels.h"
#include "kernels/x86/dot_avxvnni.h"
#include "kernels/x86/requant_avx2.h"
#include "kernels/x86/rows.h"
#include "kernels/x86/x86.h"

enum { CHUNK_ROWS = 64 }; /* output pixels whose pointers are made at once, an even number */

static int quads_of(const conv_shape *s)
{
    return (s->kernel_h * s->kernel_w + 3) / 4;
}

/* Channels of a block. */
static size_t width_of(const conv_shape *s)
{
    return s->out_c >= 32 ? 32 : 16;
}

static size_t blocks_of(const conv_shape *s)
{
    return (s->out_c + width_of(s) - 1) / width_of(s);
}

static size_t block_start(const conv_shape *s, size_t block)
{
    const size_t width = width_of(s), last = s->out_c - width;
    return block * width < last ? block * width : last;
}

static size_t block_bytes(const conv_shape *s)
{
    return 128 * (1 + (size_t)quads_of(s));
}

/* The channel, in its block, at place i of 32 in lane order. */
static size_t lane_order(size_t i, size_t width)
{
    return (i % 8 / 4 * 16 + i / 8 * 4 + i % 4) % width;
}

bool depthwise_fits_avxvnni(const conv_shape *s)
{
    return s->groups >= 16 && s->in_c == s->groups && s->out_c == s->groups;
}

size_t depthwise_packed_size_avxvnni(const conv_shape *s)
{
    return blocks_of(s) * block_bytes(s);
}

void depthwise_pack_avxvnni(const conv_shape *s, const int8_t *w, const int32_t *bias, int x_zero,
                            void *packed)
{
    const int taps = s->kernel_h * s->kernel_w;
    memset(packed, 0, depthwise_packed_size_avxvnni(s));
    for (size_t block = 0; block < blocks_of(s); block++) {
        uint32_t *b = (uint32_t *)(void *)((char *)packed + block * block_bytes(s));
        int8_t *to = (int8_t *)(b + 32);
        for (size_t i = 0; i < 32; i++) {
            const size_t c = block_start(s, block) + lane_order(i, width_of(s));
            b[i] = bias ? (uint32_t)bias[c] : 0;
            for (int t = 0; t < taps; t++) {
                b[i] -= (uint32_t)(x_zero * w[c * taps + t]);
                to[((size_t)(t / 4) * 32 + i) * 4 + t % 4] = w[c * taps + t];
            }
        }
    }
}

static size_t round64(size_t n)
{
    return (n + 63) / 64 * 64;
}

/* Tap offsets, the row of x_zero bytes, pointers. */
size_t depthwise_scratch_size_avxvnni(const conv_shape *s)
{
    const size_t taps = 4 * (size_t)quads_of(s);
    return round64(taps * sizeof(ptrdiff_t)) + round64(s->in_c) +
           CHUNK_ROWS * taps * sizeof(uint8_t *);
}

/* The first 32 channels of a pixel's tap, or 16 of two pixels'. */
INLINE __m256i load_tap(size_t width, const uint8_t *p, const uint8_t *second)
{
    if (width == 32)
        return _mm256_loadu_si256((const __m256i *)(const void *)p);
    return _mm256_inserti128_si256(
        _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)p)),
        _mm_loadu_si128((const __m128i *)(const void *)second), 1);
}

/* 32 values in lane order to registers. */
INLINE void load_lanes(size_t width, const float *p, __m256 to[4])
{
    UNROLL
    for (int j = 0; j < 4; j++)
        to[j] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p + 4 * j)),
                                     _mm_loadu_ps(p + 4 * j + (width == 32 ? 16 : 0)), 1);
}

/* What the pixels of a block need. */
typedef struct block {
    const int32_t *packed;
    int quads;
    const float *mult; /* of its first channel */
    const requant *q;  /* NULL: sums */
    bool bounded;      /* rounded8 */
    uint8_t *y;        /* first pixel, first channel: bytes, or int32 sums */
    size_t y_stride;   /* in bytes */
} block;

/* The sums of one pixel, or of the pixels of rows and second. */
INLINE void sum_taps(size_t width, const block *b, size_t c0, const uint8_t *const *rows,
                     const uint8_t *const *second, __m256i s[4])
{
    const __m256i *w = (const __m256i *)(const void *)(b->packed + 32);
    UNROLL
    for (int j = 0; j < 4; j++)
        s[j] = _mm256_loadu_si256((const __m256i *)(const void *)(b->packed + 8 * j));
    for (int k = 0; k < b->quads; k++, w += 4, rows += 4, second += 4) {
        __m256i x[4];
        UNROLL
        for (int t = 0; t < 4; t++)
            x[t] = load_tap(width, rows[t] + c0, second[t] + c0);
        const __m256i low0 = _mm256_unpacklo_epi8(x[0], x[1]);
        const __m256i low1 = _mm256_unpacklo_epi8(x[2], x[3]);
        const __m256i high0 = _mm256_unpackhi_epi8(x[0], x[1]);
        const __m256i high1 = _mm256_unpackhi_epi8(x[2], x[3]);
        s[0] = dot(s[0], _mm256_unpacklo_epi16(low0, low1), _mm256_loadu_si256(w));
        s[1] = dot(s[1], _mm256_unpackhi_epi16(low0, low1), _mm256_loadu_si256(w + 1));
        s[2] = dot(s[2], _mm256_unpacklo_epi16(high0, high1), _mm256_loadu_si256(w + 2));
        s[3] = dot(s[3], _mm256_unpackhi_epi16(high0, high1), _mm256_loadu_si256(w + 3));
    }
}

INLINE __m256i requant_lanes(const block *b, const __m256 mult[4], const requant_ymm *k,
                             const __m256i s[4])
{
    __m256i i[4];
    UNROLL
    for (int j = 0; j < 4; j++)
        i[j] = rounded8(s[j], mult[j], b->bounded);
    return to_bytes(k, i);
}

INLINE void store_half(uint8_t *y, __m128i v)
{
    _mm_storeu_si128((__m128i *)(void *)y, v);
}

/* Lane 1 goes to `second`; NULL: nowhere. */
INLINE void store_sums(const __m256i s[4], uint8_t *y, uint8_t *second)
{
    UNROLL
    for (int j = 0; j < 4; j++) {
        store_half(y + 16 * j, _mm256_castsi256_si128(s[j]));
        if (second)
            store_half(second + 16 * j, _mm256_extracti128_si256(s[j], 1));
    }
}

/* n pixels of a block from channel c0 on. */
INLINE void run_pixels(size_t width, const block *b, const uint8_t *const *rows, size_t n,
                       size_t c0)
{
    const size_t together = width == 32 ? 1 : 2, taps = 4 * (size_t)b->quads;
    uint8_t *y = b->y;
    __m256 mult[4];
    requant_ymm k;
    if (b->q) {
        load_lanes(width, b->mult, mult);
        k = requant_ymm_of(b->q->zero, b->q->lo, b->q->hi);
    }
    for (size_t i = 0; i < n; i += together, rows += together * taps, y += together * b->y_stride) {
        const bool one = together == 1, alone = !one && i + 1 == n;
        __m256i s[4];
        sum_taps(width, b, c0, rows, one || alone ? rows : rows + taps, s);
        uint8_t *second = one ? y + (b->q ? 16 : 64) : alone ? NULL : y + b->y_stride;
        if (!b->q) {
            store_sums(s, y, second);
            continue;
        }
        const __m256i bytes = requant_lanes(b, mult, &k, s);
        store_half(y, _mm256_castsi256_si128(bytes));
        if (second)
            store_half(second, _mm256_extracti128_si256(bytes, 1));
    }
}

/* y: bytes, or int32 sums where q is NULL. */
static void depthwise_any(const conv_shape *s, const void *packed, const uint8_t *x, int x_zero,
                          const requant *q, void *y, void *scratch, int thread, int n_threads)
{
    const size_t channels = s->out_c, y_size = q ? 1 : sizeof(int32_t);
    const int quads = quads_of(s);
    size_t row, last;
    kernel_share((size_t)s->batch * s->out_h * s->out_w, 1, thread, n_threads, &row, &last);
    if (row == last)
        return;

    ptrdiff_t *offset = scratch;
    uint8_t *pad = (uint8_t *)scratch + round64(4 * (size_t)quads * sizeof *offset);
    const uint8_t **rows = (const uint8_t **)(void *)(pad + round64(channels));
    const row_source source = row_source_of(s, x, pad, offset, 4 * quads);
    const bool bounded = q && below_one(q->mult, s->out_c);
    memset(pad, x_zero, channels);
    for (; row < last; row += CHUNK_ROWS) {
        const size_t n = last - row < CHUNK_ROWS ? last - row : CHUNK_ROWS;
        rows_point(&source, row, n, rows);
        for (size_t i = 0; i < blocks_of(s); i++) {
            const size_t c0 = block_start(s, i);
            const block b = {.packed = (const void *)((const char *)packed + i * block_bytes(s)),
                             .quads = quads,
                             .mult = q ? q->mult + c0 : NULL,
                             .q = q,
                             .bounded = bounded,
                             .y = (uint8_t *)y + (row * channels + c0) * y_size,
                             .y_stride = channels * y_size};
            if (channels >= 32)
                run_pixels(32, &b, rows, n, c0);
            else
                run_pixels(16, &b, rows, n, c0);
        }
    }
}

void depthwise_run_avxvnni(const conv_shape *s, const void *packed, const uint8_t *x, int x_zero,
                           const requant *q, uint8_t *y, void *scratch, int thread, int n_threads)
{
    depthwise_any(s, packed, x, x_zero, q, y, scratch, thread, n_threads);
}

void depthwise_sums_avxvnni(const conv_shape *s, const void *packed, const uint8_t *x, int x_zero,
                            int32_t *y, void *scratch, int thread, int n_threads)
{
    depthwise_any(s, packed, x, x_zero, NULL, y, scratch, thread, n_threads);
}
