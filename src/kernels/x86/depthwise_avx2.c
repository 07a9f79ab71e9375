/* Depthwise convolution with VPMADDWD, 16 channels at a time: the bytes of two taps are interleaved
 * channel by channel and widened, so that one instruction multiplies and adds two taps of 8
 * channels, exactly.
 *
 * Packed, for each block of 16 channels: bias [16] int32 with the zero point folded in, then
 * w [tap / 2][16][2] int16, zero where there is no weight. */
#include <immintrin.h>
#include <string.h>

#include "kernels/kernels.h"
#include "kernels/x86/rows.h"
#include "kernels/x86/words.h"
#include "kernels/x86/x86.h"

enum { CHUNK_ROWS = 64 }; /* output pixels whose pointers are made at once */

static int pairs_of(const conv_shape *s)
{
    return (s->kernel_h * s->kernel_w + 1) / 2;
}

static size_t blocks_of(const conv_shape *s)
{
    return ((size_t)s->out_c + 15) / 16;
}

static size_t block_bytes(const conv_shape *s)
{
    return 64 + 64 * (size_t)pairs_of(s);
}

bool depthwise_fits_avx2(const conv_shape *s)
{
    return s->groups > 1 && s->in_c == s->groups && s->out_c == s->groups;
}

size_t depthwise_packed_size_avx2(const conv_shape *s)
{
    return blocks_of(s) * block_bytes(s);
}

void depthwise_pack_avx2(const conv_shape *s, const int8_t *w, const int32_t *bias, int x_zero,
                         void *packed)
{
    const int taps = s->kernel_h * s->kernel_w;
    memset(packed, 0, depthwise_packed_size_avx2(s));
    for (size_t c = 0; c < (size_t)s->out_c; c++) {
        uint32_t *b = (uint32_t *)(void *)((char *)packed + c / 16 * block_bytes(s));
        int16_t *to = (int16_t *)(b + 16);
        b[c % 16] = bias ? (uint32_t)bias[c] : 0;
        for (int t = 0; t < taps; t++) {
            b[c % 16] -= (uint32_t)(x_zero * w[c * taps + t]);
            to[(t / 2 * 16 + c % 16) * 2 + t % 2] = w[c * taps + t];
        }
    }
}

static size_t round64(size_t n)
{
    return (n + 63) / 64 * 64;
}

/* Tap offsets, the row of x_zero bytes, padded multipliers, pointers. */
size_t depthwise_scratch_size_avx2(const conv_shape *s)
{
    const size_t pairs = pairs_of(s);
    return round64(2 * pairs * sizeof(ptrdiff_t)) + round64(s->in_c) + blocks_of(s) * 64 +
           CHUNK_ROWS * 2 * pairs * sizeof(uint8_t *);
}

INLINE __m128i load_channels(const uint8_t *p, size_t left)
{
    uint8_t few[16] = {0};
    if (left >= 16)
        return _mm_loadu_si128((const __m128i *)(const void *)p);
    memcpy(few, p, left);
    return _mm_loadu_si128((const __m128i *)(const void *)few);
}

INLINE __m256i finish(__m256i sum, const float *mult, const requant *q)
{
    const __m256 lo = _mm256_set1_ps((float)(q->lo - q->zero));
    const __m256 hi = _mm256_set1_ps((float)(q->hi - q->zero));
    __m256 f = _mm256_mul_ps(_mm256_cvtepi32_ps(sum), _mm256_loadu_ps(mult));
    f = _mm256_min_ps(_mm256_max_ps(f, lo), hi);
    return _mm256_add_epi32(_mm256_cvtps_epi32(f), _mm256_set1_epi32(q->zero));
}

INLINE void store_channels(uint8_t *y, size_t left, __m256i i0, __m256i i1)
{
    const __m256i w = _mm256_permute4x64_epi64(_mm256_packs_epi32(i0, i1), 0xd8);
    const __m128i bytes =
        _mm_packus_epi16(_mm256_castsi256_si128(w), _mm256_extracti128_si256(w, 1));
    uint8_t few[16];
    if (left >= 16) {
        _mm_storeu_si128((__m128i *)(void *)y, bytes);
    } else {
        _mm_storeu_si128((__m128i *)(void *)few, bytes);
        memcpy(y, few, left);
    }
}

INLINE void store_sums(uint8_t *y, size_t left, __m256i s0, __m256i s1)
{
    int32_t few[16];
    int32_t *to = left >= 16 ? (int32_t *)(void *)y : few;
    _mm256_storeu_si256((__m256i *)(void *)to, s0);
    _mm256_storeu_si256((__m256i *)(void *)(to + 8), s1);
    if (to == few)
        memcpy(y, few, left * sizeof *few);
}

/* n pixels of one block of channels, of which `left` exist; q NULL: y is int32 sums. y_stride is in
 * bytes. */
INLINE void run_block(int pairs, const uint8_t *const *rows, size_t n, size_t c0, size_t left,
                      const int32_t *bias, const float *mult, const requant *q, uint8_t *y,
                      size_t y_stride)
{
    const __m256i *w = (const __m256i *)(const void *)(bias + 16);
    for (size_t i = 0; i < n; i++, rows += 2 * pairs, y += y_stride) {
        __m256i s0 = _mm256_loadu_si256((const __m256i *)(const void *)bias);
        __m256i s1 = _mm256_loadu_si256((const __m256i *)(const void *)(bias + 8));
        for (int k = 0; k < pairs; k++) {
            const __m128i x0 = load_channels(rows[2 * k] + c0, left);
            const __m128i x1 = load_channels(rows[2 * k + 1] + c0, left);
            const __m256i low = _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(x0, x1));
            const __m256i high = _mm256_cvtepu8_epi16(_mm_unpackhi_epi8(x0, x1));
            s0 = _mm256_add_epi32(s0, _mm256_madd_epi16(low, _mm256_loadu_si256(w + 2 * k)));
            s1 = _mm256_add_epi32(s1, _mm256_madd_epi16(high, _mm256_loadu_si256(w + 2 * k + 1)));
        }
        if (q)
            store_channels(y, left, finish(s0, mult, q), finish(s1, mult + 8, q));
        else
            store_sums(y, left, s0, s1);
    }
}

/* mult [blocks][16], zero where there is no channel. */
static void padded_mult(const conv_shape *s, const requant *q, float *to)
{
    const size_t channels = s->out_c;
    memcpy(to, q->mult, channels * sizeof *to);
    for (size_t c = channels; c < 16 * blocks_of(s); c++)
        to[c] = 0;
}

/* y: bytes, or int32 sums where q is NULL. */
static void depthwise_any(const conv_shape *s, const void *packed, const uint8_t *x, int x_zero,
                          const requant *q, void *y, void *scratch, int thread, int n_threads)
{
    const int pairs = pairs_of(s);
    const size_t channels = s->out_c, n_blocks = blocks_of(s), y_size = q ? 1 : sizeof(int32_t);
    size_t row, last;
    kernel_share((size_t)s->batch * s->out_h * s->out_w, 1, thread, n_threads, &row, &last);
    if (row == last)
        return;

    uint8_t *at = scratch;
    ptrdiff_t *offset = (ptrdiff_t *)(void *)at;
    uint8_t *pad = at += round64(2 * (size_t)pairs * sizeof *offset);
    float *mult = (float *)(void *)(at += round64(channels));
    const uint8_t **rows = (const uint8_t **)(void *)(at + n_blocks * 64);
    const row_source source = row_source_of(s, x, pad, offset, 2 * pairs);
    memset(pad, x_zero, channels);
    if (q)
        padded_mult(s, q, mult);
    for (; row < last; row += CHUNK_ROWS) {
        const size_t n = last - row < CHUNK_ROWS ? last - row : CHUNK_ROWS;
        rows_point(&source, row, n, rows);
        for (size_t block = 0; block < n_blocks; block++) {
            const size_t c0 = block * 16;
            const int32_t *bias =
                (const int32_t *)(const void *)((const char *)packed + block * block_bytes(s));
            uint8_t *to = (uint8_t *)y + (row * channels + c0) * y_size;
            const size_t left = channels - c0 < 16 ? channels - c0 : 16, stride = channels * y_size;
            if (!q)
                run_block(pairs, rows, n, c0, left, bias, NULL, NULL, to, stride);
            else if (left == 16)
                run_block(pairs, rows, n, c0, 16, bias, mult + c0, q, to, stride);
            else
                run_block(pairs, rows, n, c0, left, bias, mult + c0, q, to, stride);
        }
    }
}

void depthwise_run_avx2(const conv_shape *s, const void *packed, const uint8_t *x, int x_zero,
                        const requant *q, uint8_t *y, void *scratch, int thread, int n_threads)
{
    depthwise_any(s, packed, x, x_zero, q, y, scratch, thread, n_threads);
}

void depthwise_sums_avx2(const conv_shape *s, const void *packed, const uint8_t *x, int x_zero,
                         int32_t *y, void *scratch, int thread, int n_threads)
{
    depthwise_any(s, packed, x, x_zero, NULL, y, scratch, thread, n_threads);
}
