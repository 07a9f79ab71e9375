/* Depthwise 3x3 and 5x5 convolution with VPDPBUSD, column by column: the bytes of an input column
 * are interleaved channel by channel once and serve all outputs that see the column. `k`, where it
 * stands first, is the kernel's size, a constant of the compiler.
 *
 * A register holds 64 channels of one output row, or, where there are fewer, 32 channels of two or
 * 16 of four output rows ("lines"). Interleaving works inside 128-bit lanes, so register j of four
 * holds, in lane l, four channels from 16 l + 4 j on, counted within the line's channels ("lane
 * order"); packing the sums back to bytes undoes it. The fifth byte of a column of five takes four
 * registers of its own, against weights that are zero in the other three places.
 *
 * Packed, for each block of up to 64 channels: bias [4 registers][16] int32 with the zero point
 * folded in, then w [kernel column][kernel rows / 4][4 registers][16][4], both in lane order, zero
 * where there is no weight. */
#include <immintrin.h>
#include <string.h>

#include "kernels/kernels.h"
#include "kernels/x86/requant_lanes.h"
#include "kernels/x86/words.h"
#include "kernels/x86/x86.h"

enum { MOST = 5 }; /* the largest kernel */

/* Steps of four bytes of a column. */
INLINE int quads_of(int k)
{
    return (k + 3) / 4;
}

INLINE size_t block_bytes(int k)
{
    return 256 + (size_t)(k * quads_of(k)) * 256;
}

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

static bool fits(int k, const conv_shape *s)
{
    return s->groups > 1 && s->in_c == s->groups && s->out_c == s->groups && s->kernel_h == k &&
           s->kernel_w == k && s->dilation_w == 1 && s->stride_w <= 2;
}

static size_t packed_size(int k, const conv_shape *s)
{
    return blocks_of(s) * block_bytes(k);
}

static void pack_all(int k, const conv_shape *s, const int8_t *w, const int32_t *bias, int x_zero,
                     void *packed)
{
    memset(packed, 0, packed_size(k, s));
    for (size_t block = 0; block < blocks_of(s); block++) {
        uint32_t *b = (uint32_t *)(void *)((char *)packed + block * block_bytes(k));
        int8_t *to = (int8_t *)(b + 64);
        const int lines = lines_of(s->out_c - block * 64);
        for (int i = 0; i < 64; i++) {
            const size_t c = block * 64 + lane_order(i, lines);
            if (c >= (size_t)s->out_c)
                continue;
            b[i] = bias ? (uint32_t)bias[c] : 0;
            for (int ky = 0; ky < k; ky++)
                for (int kx = 0; kx < k; kx++) {
                    const int8_t tap = w[(c * k + ky) * k + kx];
                    b[i] -= (uint32_t)(x_zero * tap);
                    to[((kx * quads_of(k) + ky / 4) * 64 + i) * 4 + ky % 4] = tap;
                }
        }
    }
}

static size_t round64(size_t n)
{
    return (n + 63) / 64 * 64;
}

/* A block's multipliers in lane order, an input row of x_zero bytes. */
static size_t scratch_size(const conv_shape *s)
{
    return 256 + round64((size_t)s->in_w * s->in_c);
}

/* The instruction itself: gcc 12 copies and spills the accumulators of the intrinsic. */
INLINE __m512i dpbusd(__m512i sum, __m512i u8, __m512i s8)
{
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(u8), "v"(s8));
    return sum;
}

/* The same with the weights in memory. */
INLINE __m512i dpbusd_from(__m512i sum, __m512i u8, const __m512i *s8)
{
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(u8), "m"(*s8));
    return sum;
}

/* One block of channels of some output rows. */
typedef struct band {
    const uint8_t *x[4][MOST]; /* [line][kernel row]: input rows, at the block's first channel */
    uint8_t *y[4];             /* their outputs: bytes, or int32 sums where q is NULL */
    int lines_there;           /* output rows that exist */
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

/* Bytes of four rows interleaved: [4 registers]. */
INLINE void interleave(__m512i x0, __m512i x1, __m512i x2, __m512i x3, __m512i c[4])
{
    const __m512i lo01 = _mm512_unpacklo_epi8(x0, x1), hi01 = _mm512_unpackhi_epi8(x0, x1);
    const __m512i lo23 = _mm512_unpacklo_epi8(x2, x3), hi23 = _mm512_unpackhi_epi8(x2, x3);
    c[0] = _mm512_unpacklo_epi16(lo01, lo23);
    c[1] = _mm512_unpackhi_epi16(lo01, lo23);
    c[2] = _mm512_unpacklo_epi16(hi01, hi23);
    c[3] = _mm512_unpackhi_epi16(hi01, hi23);
}

/* The bytes of input column ix, four rows a quad. */
INLINE void load_column(int k, int lines, const band *b, int ix, __m512i c[2][4])
{
    if (ix < 0 || ix >= b->in_w) {
        UNROLL
        for (int j = 0; j < 4; j++)
            c[0][j] = c[1][j] = b->pad;
        return;
    }
    const ptrdiff_t at = ix * b->pixel;
    const __m512i none = _mm512_setzero_si512();
    interleave(load_lines(lines, b, 0, at), load_lines(lines, b, 1, at),
               load_lines(lines, b, 2, at), k > 3 ? load_lines(lines, b, 3, at) : none, c[0]);
    if (k > 4)
        interleave(load_lines(lines, b, 4, at), none, none, none, c[1]);
}

INLINE void store_lines(int lines, const band *b, const __m512i sum[4], ptrdiff_t at)
{
    const __m512i v = requant_lanes(sum, b->mult, b->q);
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

/* Weights: those of a kernel of three stay in registers. */
typedef struct weights {
    const __m512i *bias, *at; /* [4], [kernel column][quad][4] */
    __m512i kept[4 + 3 * 4];
} weights;

/* to = from + the column as kernel column `kx`; sums begin with column 0. */
INLINE void add_column(int k, int kx, const weights *w, const __m512i c[2][4],
                       const __m512i from[4], __m512i to[4])
{
    const __m512i *at = w->at, *bias = w->bias;
    __asm__("" : "+r"(at), "+r"(bias)); /* 40 addresses would not stay in registers */
    UNROLL
    for (int j = 0; j < 4; j++) {
        if (k == 3) {
            to[j] = dpbusd(kx ? from[j] : w->kept[j], c[0][j], w->kept[4 + 4 * kx + j]);
        } else {
            to[j] = dpbusd_from(kx ? from[j] : bias[j], c[0][j], at + 8 * kx + j);
            to[j] = dpbusd_from(to[j], c[1][j], at + 8 * kx + 4 + j);
        }
    }
}

/* Outputs under way follow each other by `stride` columns; sum[0] is of the first, which sees the
 * column as kx and is not yet complete with it. */
INLINE void begin_column(int k, int stride, int kx, const weights *w, const __m512i c[2][4],
                         __m512i sum[MOST][4])
{
    UNROLL
    for (int i = 0; i * stride <= kx; i++)
        add_column(k, kx - i * stride, w, c, sum[i], sum[i]);
}

INLINE void run_band(int k, bool sums, int lines, int stride, const band *b)
{
    const __m512i *p = (const __m512i *)(const void *)b->packed;
    weights w = {.bias = p, .at = p + 4};
    UNROLL
    for (int i = 0; k == 3 && i < 16; i++)
        w.kept[i] = p[i];
    __m512i c[2][4], sum[MOST][4];
    int ix = -b->pad_left;
    UNROLL
    for (int kx = 0; kx < k - stride; kx++) {
        load_column(k, lines, b, ix++, c);
        begin_column(k, stride, kx, &w, c, sum);
    }
    for (int ox = 0; ox < b->out_w; ox++) {
        if (stride == 2) {
            load_column(k, lines, b, ix++, c);
            begin_column(k, stride, k - 2, &w, c, sum);
        }
        load_column(k, lines, b, ix++, c);
        add_column(k, k - 1, &w, c, sum[0], sum[0]);
        if (sums)
            store_sums(lines, b, sum[0], ox * b->pixel);
        else
            store_lines(lines, b, sum[0], ox * b->pixel);
        UNROLL
        for (int i = 1; i * stride < k; i++)
            add_column(k, k - 1 - i * stride, &w, c, sum[i], sum[i - 1]);
    }
}

#define BAND(k, name, sums, lines, stride)                                                         \
    static void name##_##k##_##lines##_##stride(const band *b)                                     \
    {                                                                                              \
        run_band(k, sums, lines, stride, b);                                                       \
    }
#define BANDS(k, lines, stride)                                                                    \
    BAND(k, bytes, false, lines, stride)                                                           \
    BAND(k, sums, true, lines, stride)
#define KERNELS(k)                                                                                 \
    BANDS(k, 1, 1)                                                                                 \
    BANDS(k, 1, 2)                                                                                 \
    BANDS(k, 2, 1)                                                                                 \
    BANDS(k, 2, 2)                                                                                 \
    BANDS(k, 4, 1)                                                                                 \
    BANDS(k, 4, 2)
KERNELS(3)
KERNELS(5)

typedef void (*band_run)(const band *b);
#define RUNS(k, name)                                                                              \
    {                                                                                              \
        {name##_##k##_1_1, name##_##k##_1_2}, {name##_##k##_2_1, name##_##k##_2_2},                \
            {name##_##k##_4_1, name##_##k##_4_2},                                                  \
    }
static const band_run band_runs[2][2][3][2] = {
    /* [kernel 3, 5][sums][lines / 2][stride - 1] */
    {RUNS(3, bytes), RUNS(3, sums)},
    {RUNS(5, bytes), RUNS(5, sums)},
};

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
        for (int ky = 0; ky < s->kernel_h; ky++) {
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
static void run_all(const conv_shape *s, const void *packed, const uint8_t *x, int x_zero,
                    const requant *q, void *y, void *scratch, int thread, int n_threads)
{
    const size_t channels = s->out_c;
    const int k = s->kernel_w;
    float *mult = scratch;
    uint8_t *pad = (uint8_t *)scratch + 256;
    memset(pad, x_zero, (size_t)s->in_w * channels);
    band b = {.in_w = s->in_w, .out_w = s->out_w, .pad_left = s->pad_left, .mult = mult, .q = q};
    b.pixel = (ptrdiff_t)channels;
    b.pad = _mm512_set1_epi8((char)x_zero);
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
        b.packed = (const int32_t *)(const void *)((const char *)packed + c0 / 64 * block_bytes(k));
        b.there = ~UINT64_C(0) >> (64 - left);
        if (q)
            lane_order_mult(s, q, c0, lines, mult);
        for (size_t i = from; i < to; i++) {
            place_band(s, x, y, pad, i / groups, (int)(i % groups) * lines, lines, c0, &b);
            band_runs[k == 5][!q][lines / 2][s->stride_w - 1](&b);
        }
    }
}

#define ROW(k)                                                                                     \
    bool depthwise##k##_fits_avx512vnni(const conv_shape *s)                                       \
    {                                                                                              \
        return fits(k, s);                                                                         \
    }                                                                                              \
    size_t depthwise##k##_packed_size_avx512vnni(const conv_shape *s)                              \
    {                                                                                              \
        return packed_size(k, s);                                                                  \
    }                                                                                              \
    void depthwise##k##_pack_avx512vnni(const conv_shape *s, const int8_t *w, const int32_t *bias, \
                                        int x_zero, void *packed)                                  \
    {                                                                                              \
        pack_all(k, s, w, bias, x_zero, packed);                                                   \
    }                                                                                              \
    size_t depthwise##k##_scratch_size_avx512vnni(const conv_shape *s)                             \
    {                                                                                              \
        return scratch_size(s);                                                                    \
    }                                                                                              \
    void depthwise##k##_run_avx512vnni(const conv_shape *s, const void *packed, const uint8_t *x,  \
                                       int x_zero, const requant *q, uint8_t *y, void *scratch,    \
                                       int thread, int n_threads)                                  \
    {                                                                                              \
        run_all(s, packed, x, x_zero, q, y, scratch, thread, n_threads);                           \
    }                                                                                              \
    void depthwise##k##_sums_avx512vnni(const conv_shape *s, const void *packed, const uint8_t *x, \
                                        int x_zero, int32_t *y, void *scratch, int thread,         \
                                        int n_threads)                                             \
    {                                                                                              \
        run_all(s, packed, x, x_zero, NULL, y, scratch, thread, n_threads);                        \
    }
ROW(3)
ROW(5)
