/* Every row of the kernels of 16-bit activations against the first; the plain-C rows against the
 * kernels of 8 bits, where both compute the same, and against definitions. */
#include "check.h"

#include <math.h>
#include <string.h>

#include "kernels/arith.h"
#include "kernels/wide.h"

static size_t random_length(void)
{
    return one_in(2) ? below(70) : below(700);
}

/* n codes of either width. */
static guarded codes_new(size_t n, bool wide)
{
    guarded g = guarded_new(n << wide, one_in(2) ? AT_END : AT_START);
    fill_u8(g.data, g.size);
    return g;
}

static guarded result_new(size_t n, bool wide)
{
    guarded g = guarded_new(n << wide, one_in(2) ? AT_END : AT_START);
    memset(g.data, 0x5a, g.size);
    return g;
}

static int top_of(bool wide)
{
    return wide ? 65535 : 255;
}

static void wide_clamp(bool wide, int *lo, int *hi)
{
    *lo = 0;
    *hi = top_of(wide);
    if (one_in(3)) {
        *lo = between(0, *hi * 3 / 4);
        *hi = between(*lo, *hi);
    }
}

static void free_all(guarded *const *g, int n)
{
    for (int i = 0; i < n; i++)
        guarded_free(g[i]);
}

static void check_split(void)
{
    for (const split_kernel *k = split_u16; k->name; k++) {
        if (!row_begins("split_u16", k->name, k->needs))
            continue;
        for (int i = 0; i < current.cases; i++) {
            const size_t n = random_length();
            guarded x = codes_new(n, true), hi = result_new(n, false), lo = result_new(n, false);
            k->run((const uint16_t *)(void *)x.data, n, hi.data, lo.data);
            for (size_t j = 0; j < n; j++)
                expect(hi.data[j] * 256 + lo.data[j] == ((const uint16_t *)(void *)x.data)[j],
                       "code %zu of %zu", j, n);
            guarded_check(&hi, "high bytes");
            guarded_check(&lo, "low bytes");
            free_all((guarded *const[]){&x, &hi, &lo}, 3);
        }
        row_ends();
    }
}

/* --- requantization --------------------------------------------------------------------------- */

typedef struct requant_case {
    size_t rows, channels;
    bool no_hi;
    guarded hi, lo, hi_fixed, lo_fixed, mult, want;
    wide_requant q;
} requant_case;

static guarded ints_new(size_t n, int most)
{
    guarded g = guarded_new(n * sizeof(int32_t), AT_END);
    const int top = one_in(3) ? between(0, 70000) : most;
    for (size_t i = 0; i < n; i++)
        ((int32_t *)(void *)g.data)[i] = between(-top, top);
    return g;
}

static requant_case requant_new(void)
{
    requant_case c = {.rows = below(9), .channels = 1 + below(one_in(2) ? 20 : 150)};
    const size_t n = c.rows * c.channels;
    c.no_hi = one_in(4);
    c.hi = ints_new(n, 1 << 29);
    c.lo = ints_new(n, 1 << 29);
    c.hi_fixed = ints_new(c.channels, 1 << 29);
    c.lo_fixed = ints_new(c.channels, 1 << 29);
    c.mult = guarded_new(c.channels * sizeof(float), AT_END);
    for (size_t i = 0; i < c.channels; i++)
        ((float *)(void *)c.mult.data)[i] = one_in(30) ? spread(1e3f, 1e30f) : spread(1e-9f, 1e-2f);
    c.q = (wide_requant){.mult = (const float *)(void *)c.mult.data,
                         .hi_fixed = (const int32_t *)(void *)c.hi_fixed.data,
                         .lo_fixed = (const int32_t *)(void *)c.lo_fixed.data,
                         .y_wide = !one_in(3)};
    c.q.zero = between(0, top_of(c.q.y_wide));
    wide_clamp(c.q.y_wide, &c.q.lo, &c.q.hi);
    c.want = result_new(n, c.q.y_wide);
    return c;
}

static void requant_run(const wide_requant_kernel *k, const requant_case *c, guarded *y)
{
    const int32_t *hi = c->no_hi ? NULL : (const int32_t *)(void *)c->hi.data;
    k->run(hi, (const int32_t *)(void *)c->lo.data, c->rows, c->channels, &c->q, y->data);
    guarded_check(y, "output");
}

/* By exact sums in 64 bits; where they are below 2^32, their float32 is that of the compiler. */
static void define_requant(const requant_case *c, guarded *y)
{
    const int32_t *hi = (const int32_t *)(void *)c->hi.data, *lo = (void *)c->lo.data;
    for (size_t i = 0; i < c->rows * c->channels; i++) {
        const size_t ch = i % c->channels;
        const int64_t high = (c->no_hi ? 0 : hi[i]) + (int64_t)c->q.hi_fixed[ch];
        const int64_t acc = 256 * high + lo[i] + (int64_t)c->q.lo_fixed[ch];
        float f = (float)acc;
        if (acc >= INT64_C(1) << 32 || acc <= -(INT64_C(1) << 32))
            f = (float)((double)(float)(acc >> 8) * 256 + (double)(acc & 255));
        double v = nearbyint((double)(f * c->q.mult[ch]));
        v = v < -1e6 ? -1e6 : v > 1e6 ? 1e6 : v;
        v = fmin(fmax(v + c->q.zero, c->q.lo), c->q.hi);
        if (c->q.y_wide)
            ((uint16_t *)(void *)y->data)[i] = (uint16_t)v;
        else
            y->data[i] = (uint8_t)v;
    }
}

static void check_requant(void)
{
    for (const wide_requant_kernel *k = wide_requants; k->name; k++) {
        if (!row_begins("wide_requants", k->name, k->needs))
            continue;
        for (int i = 0; i < current.cases; i++) {
            requant_case c = requant_new();
            guarded y = result_new(c.rows * c.channels, c.q.y_wide);
            if (k == wide_requants)
                define_requant(&c, &c.want);
            else
                requant_run(wide_requants, &c, &c.want);
            requant_run(k, &c, &y);
            expect_same(c.want.data, y.data, y.size, "requantized");
            free_all(
                (guarded *const[]){&c.hi, &c.lo, &c.hi_fixed, &c.lo_fixed, &c.mult, &c.want, &y},
                7);
        }
        row_ends();
    }
}

/* --- Add, Mul --------------------------------------------------------------------------------- */

static wide_binary_q random_binary(bool signs)
{
    wide_binary_q w = {.a_wide = one_in(2), .b_wide = one_in(2), .y_wide = !one_in(3)};
    binary_q *q = &w.q;
    q->a_scale = spread(1e-4f, 10);
    q->b_scale = spread(1e-4f, 10);
    q->y_scale = (one_in(2) ? q->a_scale : q->b_scale) * spread(0.05f, 400);
    if (signs && one_in(2))
        *(one_in(4) ? &q->a_scale : &q->b_scale) *= -1;
    q->a_zero = between(0, top_of(w.a_wide));
    q->b_zero = between(0, top_of(w.b_wide));
    q->y_zero = between(0, top_of(w.y_wide));
    wide_clamp(w.y_wide, &q->lo, &q->hi);
    return w;
}

/* All operands of 8 bits: the bytes of the kernels of 8 bits. */
static void check_narrow(const wide_binary_kernel *rows, const binary_kernel *narrow)
{
    const size_t n = random_length();
    wide_binary_q w = random_binary(rows == add_wide);
    w.a_wide = w.b_wide = w.y_wide = false;
    w.q.a_zero &= 255, w.q.b_zero &= 255, w.q.y_zero &= 255;
    random_clamp(&w.q.lo, &w.q.hi);
    guarded a = codes_new(n, false), b = codes_new(n, false);
    guarded want = result_new(n, false), y = result_new(n, false);
    narrow->run(a.data, b.data, 1, n, &w.q, want.data);
    rows->run(a.data, b.data, 1, n, &w, y.data);
    expect_same(want.data, y.data, n, "8 bits");
    free_all((guarded *const[]){&a, &b, &want, &y}, 4);
}

static void check_binary(const char *table, const wide_binary_kernel *rows,
                         const binary_kernel *narrow)
{
    for (const wide_binary_kernel *k = rows; k->name; k++) {
        if (!row_begins(table, k->name, k->needs))
            continue;
        for (int i = 0; i < current.cases; i++) {
            if (k == rows) {
                check_narrow(rows, narrow);
                continue;
            }
            const size_t n = random_length();
            const int b_step = one_in(4) ? 0 : 1;
            const wide_binary_q w = random_binary(rows == add_wide);
            guarded a = codes_new(n, w.a_wide), b = codes_new(b_step ? n : 1, w.b_wide);
            guarded want = result_new(n, w.y_wide), y = result_new(n, w.y_wide);
            rows->run(a.data, b.data, b_step, n, &w, want.data);
            k->run(a.data, b.data, b_step, n, &w, y.data);
            expect_same(want.data, y.data, y.size, "apart");
            guarded_check(&y, "output");
            if (w.a_wide == w.y_wide) {
                k->run(a.data, b.data, b_step, n, &w, a.data);
                expect_same(want.data, a.data, a.size, "over a");
            }
            free_all((guarded *const[]){&a, &b, &want, &y}, 4);
        }
        row_ends();
    }
}

/* --- QuantizeLinear, DequantizeLinear --------------------------------------------------------- */

/* Values on and beside the rounding points, far outside, and no numbers at all. */
static guarded floats_new(size_t n, float scale)
{
    static const float odd[] = {INFINITY, -INFINITY, NAN, -0.0f, 1e-44f, 3e38f, -3e38f, 2.2e9f};
    guarded g = guarded_new(n * sizeof(float), AT_END);
    float *x = (float *)(void *)g.data;
    for (size_t i = 0; i < n; i++) {
        x[i] = ((float)between(-70000, 70000) + (one_in(2) ? 0.5f : 0)) * scale;
        if (one_in(3))
            x[i] = nextafterf(x[i], one_in(2) ? INFINITY : -INFINITY);
        if (one_in(20))
            x[i] = odd[below(sizeof odd / sizeof *odd)];
    }
    return g;
}

static uint16_t define_quantize(float x, float scale, int zero, int lo, int hi)
{
    const double v = isnan(x) ? 0 : nearbyint((double)(x / scale));
    return (uint16_t)fmin(fmax(v + zero, lo), hi);
}

static void check_quantize(void)
{
    for (const quantize_wide_kernel *k = quantize_u16; k->name; k++) {
        if (!row_begins("quantize_u16", k->name, k->needs))
            continue;
        for (int i = 0; i < current.cases; i++) {
            const size_t n = random_length();
            const float scale = spread(1e-6f, 1e3f);
            int lo, hi;
            wide_clamp(true, &lo, &hi);
            const int zero = between(0, 65535);
            guarded x = floats_new(n, scale), y = result_new(n, true);
            k->run((const float *)(void *)x.data, n, scale, zero, lo, hi,
                   (uint16_t *)(void *)y.data);
            guarded_check(&y, "output");
            for (size_t j = 0; j < n; j++) {
                const float v = ((const float *)(void *)x.data)[j];
                const int want = define_quantize(v, scale, zero, lo, hi);
                const int got = ((const uint16_t *)(void *)y.data)[j];
                expect(got == want, "%g / %g + %d is %d, not %d", (double)v, (double)scale, zero,
                       got, want);
            }
            free_all((guarded *const[]){&x, &y}, 2);
        }
        row_ends();
    }
}

static void check_dequantize(void)
{
    for (const dequantize_wide_kernel *k = dequantize_u16; k->name; k++) {
        if (!row_begins("dequantize_u16", k->name, k->needs))
            continue;
        for (int i = 0; i < current.cases; i++) {
            const size_t n = random_length();
            const float scale = spread(1e-6f, 1e3f);
            const int zero = between(0, 65535);
            guarded x = codes_new(n, true), y = guarded_new(n * sizeof(float), AT_END);
            const uint16_t *q = (const uint16_t *)(void *)x.data;
            k->run(q, n, scale, zero, (float *)(void *)y.data);
            guarded_check(&y, "output");
            for (size_t j = 0; j < n; j++)
                expect(((const float *)(void *)y.data)[j] == (float)(q[j] - zero) * scale,
                       "(%d - %d) * %g", q[j], zero, (double)scale);
            free_all((guarded *const[]){&x, &y}, 2);
        }
        row_ends();
    }
}

/* The two steps that it replaces, one after the other. */
static void define_rescale(const rescale_q *q, const guarded *x, size_t n, guarded *y)
{
    for (size_t i = 0; i < n; i++) {
        const int code = q->x_wide ? ((const uint16_t *)(void *)x->data)[i] : x->data[i];
        const float v = (float)(code - q->x_zero) * q->x_scale;
        const uint16_t out = define_quantize(v, q->y_scale, q->y_zero, q->lo, q->hi);
        if (q->y_wide)
            ((uint16_t *)(void *)y->data)[i] = out;
        else
            y->data[i] = (uint8_t)out;
    }
}

static void check_rescale(void)
{
    for (const rescale_kernel *k = rescale_wide; k->name; k++) {
        if (!row_begins("rescale_wide", k->name, k->needs))
            continue;
        for (int i = 0; i < current.cases; i++) {
            const size_t n = random_length();
            rescale_q q = {.x_wide = one_in(2), .y_wide = one_in(2), .x_scale = spread(1e-4f, 10)};
            q.y_scale = q.x_scale * spread(1e-3f, 1e3f);
            q.x_zero = between(0, top_of(q.x_wide));
            q.y_zero = between(0, top_of(q.y_wide));
            wide_clamp(q.y_wide, &q.lo, &q.hi);
            guarded x = codes_new(n, q.x_wide);
            guarded want = result_new(n, q.y_wide), y = result_new(n, q.y_wide);
            define_rescale(&q, &x, n, &want);
            k->run(x.data, n, &q, y.data);
            guarded_check(&y, "output");
            expect_same(want.data, y.data, y.size, "rescaled");
            free_all((guarded *const[]){&x, &want, &y}, 3);
        }
        row_ends();
    }
}

/* --- tables, pools: 8-bit operands give the bytes of the kernels of 8 bits ---------------------
 */

static double cubed(double x, const void *ctx)
{
    return x * x * x / *(const double *)ctx;
}

static void check_tables(void)
{
    static uint16_t table[65536];
    row_begins("table_wide", "ref", 0);
    for (int i = 0; i < current.cases / 20 + 1; i++) {
        const double divisor = 3;
        rescale_q q = {.x_scale = 0.02f, .y_scale = 0.03f, .x_zero = 100, .y_zero = 50, .hi = 255};
        const size_t n = random_length();
        uint8_t narrow[256];
        q.y_wide = one_in(2);
        guarded x = codes_new(n, false), want = result_new(n, q.y_wide);
        guarded y = result_new(n, q.y_wide);
        table_make(cubed, &divisor, 0.02f, 100, 0.03f, 50, 0, 255, narrow);
        for (size_t j = 0; j < n; j++)
            if (q.y_wide)
                ((uint16_t *)(void *)want.data)[j] = narrow[x.data[j]];
            else
                want.data[j] = narrow[x.data[j]];
        table_wide_make(cubed, &divisor, &q, table);
        table_wide_run(x.data, false, n, table, q.y_wide, y.data);
        expect_same(want.data, y.data, y.size, "table of 8-bit codes");
        q = (rescale_q){.x_wide = true,
                        .x_scale = 1e-4f,
                        .y_scale = 1e-3f,
                        .x_zero = 30000,
                        .y_zero = 40,
                        .hi = 65535,
                        .y_wide = true};
        table_wide_make(cubed, &divisor, &q, table);
        const int code = between(0, 65535);
        const double v = (double)((float)(code - 30000) * 1e-4f);
        expect(table[code] == define_quantize((float)(v * v * v / 3), 1e-3f, 40, 0, 65535),
               "entry %d of 65536", code);
        guarded_check(&y, "output");
        free_all((guarded *const[]){&x, &want, &y}, 3);
    }
    row_ends();
}

static pool_shape random_pool(void)
{
    pool_shape s = {.batch = between(1, 2), .channels = 1 + (int)below(one_in(2) ? 8 : 200)};
    s.in_h = between(1, 9);
    s.in_w = between(1, 9);
    s.kernel_h = between(1, 4);
    s.kernel_w = between(1, 4);
    s.stride_h = between(1, 3);
    s.stride_w = between(1, 3);
    s.dilation_h = s.dilation_w = one_in(4) ? 2 : 1;
    s.pad_top = between(0, 2);
    s.pad_left = between(0, 2);
    s.out_h = between(1, 5);
    s.out_w = between(1, 5);
    s.count_pad = one_in(2);
    return s;
}

/* Codes of 8 bits in 16, with parameters that hold them. */
static guarded widened(const guarded *x)
{
    guarded g = guarded_new(2 * x->size, AT_END);
    for (size_t i = 0; i < x->size; i++)
        ((uint16_t *)(void *)g.data)[i] = x->data[i];
    return g;
}

static void expect_widened(const guarded *want, const guarded *y, const char *what)
{
    for (size_t i = 0; i < want->size; i++)
        if (((const uint16_t *)(void *)y->data)[i] != want->data[i]) {
            expect(false, "%s: code %zu is %d, not %d", what, i,
                   ((const uint16_t *)(void *)y->data)[i], want->data[i]);
            return;
        }
}

typedef void (*wide_pool)(const pool_shape *s, const void *x, const rescale_q *q, void *y,
                          int thread, int n_threads);

static void max_wide(const pool_shape *s, const void *x, const rescale_q *q, void *y, int thread,
                     int n_threads)
{
    max_pool_u16(s, x, q->lo, q->hi, y, thread, n_threads);
}

/* 8-bit codes in both forms against the plain-C row of 8 bits; one form a call. */
static void check_pool(const char *name, const pool_kernel *narrow, wide_pool wide, bool global)
{
    row_begins(name, "ref", 0);
    for (int i = 0; i < current.cases; i++) {
        pool_shape s = random_pool();
        if (global)
            s.out_h = s.out_w = 1;
        pool_q p = {spread(1e-3f, 1), spread(1e-3f, 1), between(0, 255), between(0, 255), 0, 255};
        random_clamp(&p.lo, &p.hi);
        const rescale_q q = {p.x_scale,
                             p.y_scale,
                             p.x_zero,
                             p.y_zero,
                             p.lo,
                             p.hi,
                             wide == max_wide || one_in(2),
                             wide == max_wide || one_in(2)};
        const size_t n = (size_t)s.batch * s.out_h * s.out_w * s.channels;
        guarded x = codes_new((size_t)s.batch * s.in_h * s.in_w * s.channels, false);
        guarded twice = widened(&x), want = result_new(n, false), y = result_new(n, q.y_wide);
        const int n_threads = between(1, 3);
        narrow->run(&s, x.data, &p, want.data, 0, 1);
        for (int t = 0; t < n_threads; t++)
            wide(&s, q.x_wide ? twice.data : x.data, &q, y.data, t, n_threads);
        guarded_check(&y, "output");
        if (q.y_wide)
            expect_widened(&want, &y, "pool");
        else
            expect_same(want.data, y.data, n, "pool");
        free_all((guarded *const[]){&x, &twice, &want, &y}, 4);
    }
    row_ends();
}

/* Sums over 2^32: what 8-bit codes never reach. */
static void check_large_image(void)
{
    enum { SIDE = 300, CHANNELS = 3 };
    const pool_shape s = {
        .batch = 1, .in_h = SIDE, .in_w = SIDE, .channels = CHANNELS, .out_h = 1, .out_w = 1};
    const rescale_q q = {0.5f, 0.5f, 1000, 900, 0, 65535, true, true};
    guarded x = guarded_new(2 * SIDE * SIDE * CHANNELS, AT_END), y = result_new(CHANNELS, true);
    row_begins("global_avg_pool_wide", "large image", 0);
    for (size_t i = 0; i < x.size / 2; i++)
        ((uint16_t *)(void *)x.data)[i] = (uint16_t)(65535 - i % CHANNELS);
    global_avg_pool_wide(&s, x.data, &q, y.data, 0, 1);
    for (int c = 0; c < CHANNELS; c++)
        expect(((const uint16_t *)(void *)y.data)[c] == 65435 - c, "channel %d", c);
    free_all((guarded *const[]){&x, &y}, 2);
    row_ends();
}

static void check_resize(void)
{
    row_begins("resize_linear_wide", "ref", 0);
    for (int i = 0; i < current.cases / 4; i++) {
        const int in_h = between(1, 6), in_w = between(1, 6), channels = between(1, 9);
        const int out_h = between(1, 8), out_w = between(1, 8), batch = between(1, 2);
        resize_tap rows[8], cols[8];
        for (int k = 0; k < 8; k++) {
            const float a = (float)between(0, 64) / 64, b = (float)between(0, 64) / 64;
            rows[k] = (resize_tap){between(0, in_h - 1), between(0, in_h - 1), 1 - a, a};
            cols[k] = (resize_tap){between(0, in_w - 1), between(0, in_w - 1), 1 - b, b};
        }
        const pool_q p = {0.02f, 0.017f, between(0, 255), between(0, 255), 0, 255};
        const bool wide = one_in(2);
        const rescale_q q = {p.x_scale, p.y_scale, p.x_zero, p.y_zero, 0, 255, wide, wide};
        const size_t n = (size_t)batch * out_h * out_w * channels;
        guarded x = codes_new((size_t)batch * in_h * in_w * channels, false);
        guarded twice = widened(&x), want = result_new(n, false), y = result_new(n, wide);
        resize_linear_u8(x.data, batch, in_h, in_w, channels, rows, out_h, cols, out_w, &p,
                         want.data, 0, 1);
        for (int t = 0; t < 2; t++)
            resize_linear_wide(wide ? twice.data : x.data, batch, in_h, in_w, channels, rows, out_h,
                               cols, out_w, &q, y.data, t, 2);
        guarded_check(&y, "output");
        if (wide)
            expect_widened(&want, &y, "resize");
        else
            expect_same(want.data, y.data, n, "resize");
        free_all((guarded *const[]){&x, &twice, &want, &y}, 4);
    }
    row_ends();
}

void check_wide(void)
{
    check_split();
    check_requant();
    check_binary("add_wide", add_wide, add_u8);
    check_binary("mul_wide", mul_wide, mul_u8);
    check_quantize();
    check_dequantize();
    check_rescale();
    check_tables();
    check_pool("max_pool_u16", max_pool_u8, max_wide, false);
    check_pool("avg_pool_wide", avg_pool_u8, avg_pool_wide, false);
    check_pool("global_avg_pool_wide", global_avg_pool_u8, global_avg_pool_wide, true);
    check_large_image();
    check_resize();
}
