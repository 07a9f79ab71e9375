/* Depthwise 3x3 convolution with VPDPBUSD. The three bytes of an input column are interleaved
 * channel by channel once and serve all three outputs that see the column.
 *
 * A register holds 64 channels of one output row, or, where there are fewer, 32 channels of two or
 * 16 of four output rows ("lines"). Interleaving works inside 128-bit lanes, so register j of four
 * holds, in lane l, four channels from 16 l + 4 j on, counted within the line's channels ("lane
 * order"); packing the sums back to bytes undoes it.
 *
 * Packed, for each block of up to 64 channels: bias [4 registers][16] int32 with the zero point
 * folded in, then w [kernel column][4 registers][16][4: kernel rows, 0], both in lane order. */
#include <immintrin.h>
#include <string.h>

#include "kernels/kernels.h"
#include "kernels/x86/x86.h"

#define INLINE static inline __attribute__((always_inline))

enum { BLOCK_BYTES = 256 + 3 * 256 };

static size_t blocks_of(const conv_shape *s)
{
    return ((size_t)s->out_c + 63) / 64;
}

/* Output rows in a register, for a block with `left` channels. */
static int lines_of(size_t left)
{
    return left > 32 ? 1 : left > 16 ? 2 : 4;
}

/* The channel, in its block, at place i of 64 in lane order. */
static int lane_order(int i, int lines)
{
    return i % 16 / 4 * 16 % (64 / lines) + i / 16 * 4 + i % 4;
}

bool depthwise3_fits_avx512vnni(const conv_shape *s)
{
    return s->groups > 1 && s->in_c == s->groups && s->out_c == s->groups && s->kernel_h == 3 &&
           s->kernel_w == 3 && s->dilation_w == 1 && s->stride_w <= 2;
}

size_t depthwise3_packed_size_avx512vnni(const conv_shape *s)
{
    return blocks_of(s) * BLOCK_BYTES;
}

void depthwise3_pack_avx512vnni(const conv_shape *s, const int8_t *w, const int32_t *bias,
                                int x_zero, void *packed)
{
    memset(packed, 0, depthwise3_packed_size_avx512vnni(s));
    for (size_t block = 0; block < blocks_of(s); block++) {
        uint32_t *b = (uint32_t *)(void *)((char *)packed + block * BLOCK_BYTES);
        int8_t *to = (int8_t *)(b + 64);
        const int lines = lines_of(s->out_c - block * 64);
        for (int i = 0; i < 64; i++) {
            const size_t c = block * 64 + lane_order(i, lines);
            if (c >= (size_t)s->out_c)
                continue;
            b[i] = bias ? (uint32_t)bias[c] : 0;
            for (int t = 0; t < 9; t++) {
                b[i] -= (uint32_t)(x_zero * w[c * 9 + t]);
                to[(t % 3 * 64 + i) * 4 + t / 3] = w[c * 9 + t];
            }
        }
    }
}

static size_t round64(size_t n)
{
    return (n + 63) / 64 * 64;
}

/* A block's multipliers in lane order, an input row of x_zero bytes. */
size_t depthwise3_scratch_size_avx512vnni(const conv_shape *s)
{
    return 256 + round64((size_t)s->in_w * s->in_c);
}

/* The instruction itself: gcc 12 copies and spills the accumulators of the intrinsic. */
INLINE __m512i dpbusd(__m512i sum, __m512i u8, __m512i s8)
{
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(u8), "v"(s8));
    return sum;
}

/* One block of channels of some output rows. */
typedef struct band {
    const uint8_t *x[4][3]; /* [line][kernel row]: input rows, at the block's first channel */
    uint8_t *y[4];          /* their outputs: bytes, or int32 sums where q is NULL */
    int lines_there;        /* output rows that exist */
    int in_w, out_w, pad_left;
    ptrdiff_t pixel; /* bytes from pixel to pixel */
    __mmask64 there; /* channels that exist, from the first lane of a line on */
    __m512i pad;     /* a column of x_zero, interleaved */
    const int32_t *packed;
    const float *mult; /* [64], lane order */
    const requant *q;
} band;

INLINE __m512i load_lines(int lines, const band *b, int ky, ptrdiff_t at)
{
    if (lines == 1)
        return _mm512_maskz_loadu_epi8(b->there, b->x[0][ky] + at);
    if (lines == 2) {
        const __mmask32 m = (__mmask32)b->there;
        const __m256i low = _mm256_maskz_loadu_epi8(m, b->x[0][ky] + at);
        return _mm512_inserti64x4(_mm512_castsi256_si512(low),
                                  _mm256_maskz_loadu_epi8(m, b->x[1][ky] + at), 1);
    }
    const __mmask16 m = (__mmask16)b->there;
    __m512i v = _mm512_castsi128_si512(_mm_maskz_loadu_epi8(m, b->x[0][ky] + at));
    v = _mm512_inserti32x4(v, _mm_maskz_loadu_epi8(m, b->x[1][ky] + at), 1);
    v = _mm512_inserti32x4(v, _mm_maskz_loadu_epi8(m, b->x[2][ky] + at), 2);
    return _mm512_inserti32x4(v, _mm_maskz_loadu_epi8(m, b->x[3][ky] + at), 3);
}

/* The three bytes of input column ix, interleaved: [4 registers]. */
INLINE void load_column(int lines, const band *b, int ix, __m512i c[4])
{
    if (ix < 0 || ix >= b->in_w) {
        c[0] = c[1] = c[2] = c[3] = b->pad;
        return;
    }
    const __m512i none = _mm512_setzero_si512();
    const __m512i x0 = load_lines(lines, b, 0, ix * b->pixel);
    const __m512i x1 = load_lines(lines, b, 1, ix * b->pixel);
    const __m512i x2 = load_lines(lines, b, 2, ix * b->pixel);
    const __m512i lo01 = _mm512_unpacklo_epi8(x0, x1), hi01 = _mm512_unpackhi_epi8(x0, x1);
    const __m512i lo2 = _mm512_unpacklo_epi8(x2, none), hi2 = _mm512_unpackhi_epi8(x2, none);
    c[0] = _mm512_unpacklo_epi16(lo01, lo2);
    c[1] = _mm512_unpackhi_epi16(lo01, lo2);
    c[2] = _mm512_unpacklo_epi16(hi01, hi2);
    c[3] = _mm512_unpackhi_epi16(hi01, hi2);
}

/* A product below int32 becomes INT32_MIN in the conversion, which saturates as it should; above,
 * it must not get that far. */
INLINE void store_lines(int lines, const band *b, const __m512i sum[4], ptrdiff_t at)
{
    const __m512 hi = _mm512_set1_ps((float)(b->q->hi - b->q->zero));
    const __m512i zero = _mm512_set1_epi16((short)b->q->zero);
    __m512i i[4];
    for (int j = 0; j < 4; j++)
        i[j] = _mm512_cvtps_epi32(_mm512_min_ps(
            _mm512_mul_ps(_mm512_cvtepi32_ps(sum[j]), _mm512_load_ps(b->mult + 16 * j)), hi));
    const __m512i low = _mm512_adds_epi16(_mm512_packs_epi32(i[0], i[1]), zero);
    const __m512i high = _mm512_adds_epi16(_mm512_packs_epi32(i[2], i[3]), zero);
    const __m512i v =
        _mm512_max_epu8(_mm512_packus_epi16(low, high), _mm512_set1_epi8((char)b->q->lo));
    if (lines == 1) {
        _mm512_mask_storeu_epi8(b->y[0] + at, b->there, v);
    } else if (lines == 2) {
        const __mmask32 m = (__mmask32)b->there;
        _mm256_mask_storeu_epi8(b->y[0] + at, m, _mm512_castsi512_si256(v));
        if (b->lines_there > 1)
            _mm256_mask_storeu_epi8(b->y[1] + at, m, _mm512_extracti64x4_epi64(v, 1));
    } else {
        const __mmask16 m = (__mmask16)b->there;
        _mm_mask_storeu_epi8(b->y[0] + at, m, _mm512_castsi512_si128(v));
        if (b->lines_there > 1)
            _mm_mask_storeu_epi8(b->y[1] + at, m, _mm512_extracti32x4_epi32(v, 1));
        if (b->lines_there > 2)
            _mm_mask_storeu_epi8(b->y[2] + at, m, _mm512_extracti32x4_epi32(v, 2));
        if (b->lines_there > 3)
            _mm_mask_storeu_epi8(b->y[3] + at, m, _mm512_extracti32x4_epi32(v, 3));
    }
}

/* Four channels of register j begin at 16 l + 4 j of the lines' channels side by side. */
INLINE void store_sums(int lines, const band *b, const __m512i sum[4], ptrdiff_t at)
{
    const __m512i a = _mm512_shuffle_i32x4(sum[0], sum[1], 0x44); /* s0: 0 1, s1: 0 1 */
    const __m512i c = _mm512_shuffle_i32x4(sum[0], sum[1], 0xee); /* s0: 2 3, s1: 2 3 */
    const __m512i d = _mm512_shuffle_i32x4(sum[2], sum[3], 0x44);
    const __m512i e = _mm512_shuffle_i32x4(sum[2], sum[3], 0xee);
    const __m512i sixteen[4] = {_mm512_shuffle_i32x4(a, d, 0x88), _mm512_shuffle_i32x4(a, d, 0xdd),
                                _mm512_shuffle_i32x4(c, e, 0x88), _mm512_shuffle_i32x4(c, e, 0xdd)};
    const int per_line = 4 / lines; /* registers of 16 channels */
    for (int i = 0; i < 4; i++)
        if (i / per_line < b->lines_there)
            _mm512_mask_storeu_epi32(b->y[i / per_line] + 4 * at + 64 * (i % per_line),
                                     (__mmask16)(b->there >> 16 * (i % per_line)), sixteen[i]);
}

INLINE void add_column(__m512i sum[4], const __m512i from[4], const __m512i c[4],
                       const __m512i w[4])
{
    for (int j = 0; j < 4; j++)
        sum[j] = dpbusd(from[j], c[j], w[j]);
}

/* The sums of an output are begun at its first column and handed on; stride 1 has two under way. */
INLINE void run_band(bool sums, int lines, int stride, const band *b)
{
    const __m512i *p = (const __m512i *)(const void *)b->packed;
    const __m512i bias[4] = {p[0], p[1], p[2], p[3]};
    const __m512i w0[4] = {p[4], p[5], p[6], p[7]}, w1[4] = {p[8], p[9], p[10], p[11]};
    const __m512i w2[4] = {p[12], p[13], p[14], p[15]};
    __m512i c[4], sum[4], next[4];
    int ix = -b->pad_left;
    load_column(lines, b, ix++, c);
    add_column(sum, bias, c, w0);
    if (stride == 1) {
        load_column(lines, b, ix++, c);
        add_column(sum, sum, c, w1);
        add_column(next, bias, c, w0);
    }
    for (int ox = 0; ox < b->out_w; ox++) {
        if (stride == 2) {
            load_column(lines, b, ix++, c);
            add_column(sum, sum, c, w1);
        }
        load_column(lines, b, ix++, c);
        add_column(sum, sum, c, w2);
        if (sums)
            store_sums(lines, b, sum, ox * b->pixel);
        else
            store_lines(lines, b, sum, ox * b->pixel);
        if (stride == 1) {
            add_column(sum, next, c, w1);
            add_column(next, bias, c, w0);
        } else {
            add_column(sum, bias, c, w0);
        }
    }
}

#define BAND(name, sums, lines, stride)                                                            \
    static void name##_##lines##_##stride(const band *b)                                           \
    {                                                                                              \
        run_band(sums, lines, stride, b);                                                          \
    }
BAND(bytes, false, 1, 1)
BAND(bytes, false, 1, 2)
BAND(bytes, false, 2, 1)
BAND(bytes, false, 2, 2)
BAND(bytes, false, 4, 1)
BAND(bytes, false, 4, 2)
BAND(sums, true, 1, 1)
BAND(sums, true, 1, 2)
BAND(sums, true, 2, 1)
BAND(sums, true, 2, 2)
BAND(sums, true, 4, 1)
BAND(sums, true, 4, 2)

typedef void (*band_run)(const band *b);
static const band_run band_runs[2][3][2] =
    {/* [sums][lines / 2][stride - 1] */
     {{bytes_1_1, bytes_1_2}, {bytes_2_1, bytes_2_2}, {bytes_4_1, bytes_4_2}},
     {{sums_1_1, sums_1_2}, {sums_2_1, sums_2_2}, {sums_4_1, sums_4_2}}};

static void lane_order_mult(const conv_shape *s, const requant *q, size_t c0, int lines, float *to)
{
    for (int i = 0; i < 64; i += 4) {
        const size_t c = c0 + lane_order(i, lines);
        for (size_t k = 0; k < 4; k++)
            to[i + k] = c + k < (size_t)s->out_c ? q->mult[c + k] : 0;
    }
}

/* The rows of a band whose first output row is oy of image n; pad: a row of x_zero bytes. */
static void place_band(const conv_shape *s, const uint8_t *x, uint8_t *y, const uint8_t *pad,
                       size_t n, int oy, int lines, size_t c0, band *b)
{
    const size_t in_row = (size_t)s->in_w * s->in_c, out_row = (size_t)s->out_w * s->out_c;
    const size_t y_size = b->q ? 1 : sizeof(int32_t);
    b->lines_there = s->out_h - oy < lines ? s->out_h - oy : lines;
    for (int l = 0; l < lines; l++) {
        const int line = l < b->lines_there ? oy + l : oy; /* the others repeat the first */
        b->y[l] = y + ((n * s->out_h + line) * out_row + c0) * y_size;
        for (int ky = 0; ky < 3; ky++) {
            const int iy = line * s->stride_h - s->pad_top + ky * s->dilation_h;
            b->x[l][ky] = iy < 0 || iy >= s->in_h ? pad : x + (n * s->in_h + iy) * in_row + c0;
        }
    }
}

/* How often `lines` output rows of an image are begun. */
static size_t line_groups(const conv_shape *s, int lines)
{
    return ((size_t)s->out_h + lines - 1) / lines;
}

static size_t bands_of(const conv_shape *s)
{
    size_t n = 0;
    for (size_t c0 = 0; c0 < (size_t)s->out_c; c0 += 64)
        n += line_groups(s, lines_of(s->out_c - c0));
    return n * s->batch;
}

/* y: bytes, or int32 sums where q is NULL. */
static void depthwise3_any(const conv_shape *s, const void *packed, const uint8_t *x, int x_zero,
                           const requant *q, void *y, void *scratch, int thread, int n_threads)
{
    const size_t channels = s->out_c;
    float *mult = scratch;
    uint8_t *pad = (uint8_t *)scratch + 256;
    memset(pad, x_zero, (size_t)s->in_w * channels);
    band b = {.in_w = s->in_w, .out_w = s->out_w, .pad_left = s->pad_left, .mult = mult, .q = q};
    b.pixel = (ptrdiff_t)channels;
    b.pad = _mm512_set1_epi32(x_zero * 0x010101);
    size_t first, end, before = 0; /* this thread's bands; bands of the blocks before */
    kernel_share(bands_of(s), 1, thread, n_threads, &first, &end);
    for (size_t c0 = 0; c0 < channels && before < end; c0 += 64) {
        const size_t left = channels - c0 < 64 ? channels - c0 : 64;
        const int lines = lines_of(left);
        const size_t groups = line_groups(s, lines), bands = s->batch * groups;
        const size_t from = first > before ? first - before : 0;
        const size_t to = end - before < bands ? end - before : bands;
        before += bands;
        if (from >= to)
            continue;
        b.packed = (const int32_t *)(const void *)((const char *)packed + c0 / 64 * BLOCK_BYTES);
        b.there = ~UINT64_C(0) >> (64 - left);
        if (q)
            lane_order_mult(s, q, c0, lines, mult);
        for (size_t i = from; i < to; i++) {
            place_band(s, x, y, pad, i / groups, (int)(i % groups) * lines, lines, c0, &b);
            band_runs[!q][lines / 2][s->stride_w - 1](&b);
        }
    }
}

void depthwise3_run_avx512vnni(const conv_shape *s, const void *packed, const uint8_t *x,
                               int x_zero, const requant *q, uint8_t *y, void *scratch, int thread,
                               int n_threads)
{
    depthwise3_any(s, packed, x, x_zero, q, y, scratch, thread, n_threads);
}

void depthwise3_sums_avx512vnni(const conv_shape *s, const void *packed, const uint8_t *x,
                                int x_zero, int32_t *y, void *scratch, int thread, int n_threads)
{
    depthwise3_any(s, packed, x, x_zero, NULL, y, scratch, thread, n_threads);
}
