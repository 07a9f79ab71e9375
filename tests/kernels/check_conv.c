/* Every row of conv_u8s8 against the first; the first two (conv, transposed) against each other. */
#include "check.h"

#include <stdio.h>
#include <string.h>

#include "kernels/kernels.h"

extern const conv_kernel conv_emulated[]; /* amx_emulated.c */

typedef struct conv_case {
    conv_shape s;
    guarded x, w, bias, mult, want;
    bool no_bias;
    int x_zero;
    requant q;
} conv_case;

static size_t x_size(const conv_shape *s)
{
    return (size_t)s->batch * s->in_h * s->in_w * s->in_c;
}

static size_t y_size(const conv_shape *s)
{
    return (size_t)s->batch * s->out_h * s->out_w * s->out_c;
}

static size_t w_size(const conv_shape *s)
{
    return (size_t)s->out_c * (s->in_c / s->groups) * s->kernel_h * s->kernel_w;
}

/* Input sides such that the output has out_h x out_w pixels, some of the last input unused. */
static void size_input(conv_shape *s)
{
    const int reach_h = (s->kernel_h - 1) * s->dilation_h + 1;
    const int reach_w = (s->kernel_w - 1) * s->dilation_w + 1;
    const int pad_bottom = between(0, s->pad_top), pad_right = between(0, s->pad_left);
    s->in_h = (s->out_h - 1) * s->stride_h + reach_h - s->pad_top - pad_bottom +
              between(0, s->stride_h - 1);
    s->in_w = (s->out_w - 1) * s->stride_w + reach_w - s->pad_left - pad_right +
              between(0, s->stride_w - 1);
    s->in_h = s->in_h < 1 ? 1 : s->in_h;
    s->in_w = s->in_w < 1 ? 1 : s->in_w;
}

static conv_shape random_window(conv_shape s)
{
    s.kernel_h = between(1, 5);
    s.kernel_w = one_in(3) ? between(1, 5) : s.kernel_h;
    s.stride_h = between(1, 3);
    s.stride_w = one_in(3) ? between(1, 3) : s.stride_h;
    s.dilation_h = one_in(4) ? between(1, 3) : 1;
    s.dilation_w = one_in(4) ? between(1, 3) : 1;
    s.pad_top = between(0, s.kernel_h);
    s.pad_left = between(0, s.kernel_w);
    return s;
}

/* Around the tiles: 1 to 30 rows, registers of 16 and 64 columns, channels that are no multiple of
 * 4, every kind of convolution. */
static conv_shape random_shape(void)
{
    static const conv_shape unit = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 1};
    conv_shape s = unit;
    s.batch = one_in(4) ? between(1, 3) : 1;
    s.out_h = between(1, 6);
    s.out_w = between(1, 6);
    s.in_c = between(1, 40);
    s.out_c = one_in(2) ? between(1, 40) : between(1, 200);
    switch (below(7)) {
    case 0: /* Gemm */
        s.out_h = 1;
        s.out_w = between(1, 40);
        s.in_c = between(1, 300);
        break;
    case 1: /* depthwise */
        s = random_window(s);
        if (one_in(2)) {
            s.kernel_h = s.kernel_w = one_in(2) ? 3 : 5;
            s.dilation_w = 1;
            s.stride_w = between(1, 2);
            s.pad_left = between(0, 4);
        }
        s.out_c = s.in_c = s.groups = between(2, 150);
        break;
    case 2: /* grouped */
        s = random_window(s);
        s.groups = between(2, 5);
        s.in_c = s.groups * between(1, 20);
        s.out_c = s.groups * between(1, 40);
        break;
    case 3: /* pointwise with stride */
        s.stride_h = s.stride_w = 2;
        break;
    case 4: /* lines of three pixels, tiles of neighbours */
        s = random_window(s);
        s.kernel_w = 3;
        s.stride_w = s.dilation_w = 1;
        s.pad_left = between(0, 2);
        s.out_w = between(12, 50);
        s.in_c = 4 * between(1, 10);
        break;
    default:
        s = random_window(s);
        break;
    }
    if (one_in(40)) /* many rows: several chunks of pointers */
        s.out_w = between(100, 300), s.out_h = 1, s.batch = 1;
    size_input(&s);
    return s;
}

static conv_case case_new(void)
{
    conv_case c = {.s = random_shape(), .no_bias = one_in(8), .x_zero = between(0, 255)};
    const placing where = one_in(2) ? AT_END : AT_START;
    c.x = guarded_new(x_size(&c.s), where);
    c.w = guarded_new(w_size(&c.s), where);
    c.bias = guarded_new(c.s.out_c * sizeof(int32_t), AT_END);
    c.mult = guarded_new(c.s.out_c * sizeof(float), AT_END);
    c.want = guarded_new(y_size(&c.s), AT_END);
    fill_u8(c.x.data, c.x.size);
    fill_s8((int8_t *)c.w.data, c.w.size);
    const float per_output = (float)(w_size(&c.s) / c.s.out_c);
    for (int o = 0; o < c.s.out_c; o++) {
        ((int32_t *)c.bias.data)[o] = between(-100000, 100000);
        ((float *)c.mult.data)[o] = spread(1e-3f, 1e-1f) / per_output;
        if (one_in(50)) /* products far out of range */
            ((float *)c.mult.data)[o] = spread(1e5f, 1e9f);
    }
    c.q = (requant){(const float *)c.mult.data, between(0, 255), 0, 255};
    random_clamp(&c.q.lo, &c.q.hi);
    return c;
}

static void case_free(conv_case *c)
{
    guarded_free(&c->x);
    guarded_free(&c->w);
    guarded_free(&c->bias);
    guarded_free(&c->mult);
    guarded_free(&c->want);
}

static void case_run(const conv_kernel *k, const conv_case *c, int n_threads, guarded *y)
{
    const int32_t *bias = c->no_bias ? NULL : (const int32_t *)c->bias.data;
    guarded packed = guarded_new(k->packed_size(&c->s), AT_START);
    guarded scratch = guarded_new(k->scratch_size(&c->s), AT_START);
    k->pack(&c->s, (const int8_t *)c->w.data, bias, c->x_zero, packed.data);
    guarded_check(&packed, "packed");
    for (int t = 0; t < n_threads; t++)
        k->run(&c->s, packed.data, c->x.data, c->x_zero, &c->q, y->data, scratch.data, t,
               n_threads);
    guarded_check(&scratch, "scratch");
    guarded_check(y, "output");
    guarded_free(&packed);
    guarded_free(&scratch);
}

/* The sums, packed with one zero point and padded with another. */
static void case_sums(const conv_kernel *k, const conv_case *c, int pad_zero, int n_threads,
                      guarded *y)
{
    const int32_t *bias = c->no_bias ? NULL : (const int32_t *)c->bias.data;
    guarded packed = guarded_new(k->packed_size(&c->s), AT_START);
    guarded scratch = guarded_new(k->scratch_size(&c->s), AT_START);
    k->pack(&c->s, (const int8_t *)c->w.data, bias, c->x_zero, packed.data);
    for (int t = 0; t < n_threads; t++)
        k->run_sums(&c->s, packed.data, c->x.data, pad_zero, (int32_t *)(void *)y->data,
                    scratch.data, t, n_threads);
    guarded_check(&scratch, "scratch");
    guarded_check(y, "sums");
    guarded_free(&packed);
    guarded_free(&scratch);
}

static void describe(char *to, size_t n, const conv_shape *s, int n_threads)
{
    snprintf(to, n,
             "%dx%dx%dx%d -> %dx%dx%d, kernel %dx%d stride %dx%d dilation %dx%d pad %d %d "
             "groups %d, %d threads",
             s->batch, s->in_h, s->in_w, s->in_c, s->out_h, s->out_w, s->out_c, s->kernel_h,
             s->kernel_w, s->stride_h, s->stride_w, s->dilation_h, s->dilation_w, s->pad_top,
             s->pad_left, s->groups, n_threads);
}

/* Draws again until the row takes the shape. */
static conv_case case_for(const conv_kernel *k)
{
    conv_case c = case_new();
    for (int i = 0; i < 1000 && !k->fits(&c.s); i++) {
        case_free(&c);
        c = case_new();
    }
    return c;
}

static void check_sums(const conv_kernel *k, const conv_case *c, int n_threads, const char *what)
{
    const int pad_zero = one_in(2) ? c->x_zero : between(0, 255);
    const size_t size = y_size(&c->s) * sizeof(int32_t);
    guarded want = guarded_new(size, AT_END);
    guarded y = guarded_new(size, one_in(2) ? AT_END : AT_START);
    case_sums(conv_u8s8, c, pad_zero, 1, &want);
    case_sums(k, c, pad_zero, n_threads, &y);
    expect_same(want.data, y.data, size, what);
    guarded_free(&want);
    guarded_free(&y);
}

/* Packed for one number of lines, run for another. */
static void check_lines(const conv_kernel *k)
{
    conv_case c = case_for(k);
    c.s.pad_top = c.s.pad_left = 0;
    c.s.batch = 1;
    c.s.in_w = (c.s.out_w - 1) * c.s.stride_w + (c.s.kernel_w - 1) * c.s.dilation_w + 1;
    c.s.in_h = (c.s.out_h - 1) * c.s.stride_h + (c.s.kernel_h - 1) * c.s.dilation_h + 1;
    conv_shape lines = c.s;
    lines.out_h = between(1, 9);
    lines.in_h = c.s.in_h + (lines.out_h - c.s.out_h) * c.s.stride_h;
    const size_t size = y_size(&lines) * sizeof(int32_t);
    guarded packed = guarded_new(k->packed_size(&c.s), AT_START);
    guarded scratch = guarded_new(k->scratch_size(&lines), AT_START);
    guarded x = guarded_new(x_size(&lines), AT_END), y = guarded_new(size, AT_END);
    guarded want = guarded_new(size, AT_END);
    fill_u8(x.data, x.size);
    k->pack(&c.s, (const int8_t *)c.w.data, NULL, c.x_zero, packed.data);
    k->run_sums(&lines, packed.data, x.data, 0, (int32_t *)(void *)y.data, scratch.data, 0, 1);
    guarded_check(&scratch, "scratch");
    conv_case whole = c;
    whole.s = lines;
    whole.x = x;
    whole.no_bias = true;
    case_sums(conv_u8s8, &whole, 0, 1, &want);
    expect_same(want.data, y.data, size, "other number of lines");
    guarded *all[] = {&packed, &scratch, &x, &y, &want};
    for (int i = 0; i < 5; i++)
        guarded_free(all[i]);
    case_free(&c);
}

static void check_case(const conv_kernel *k)
{
    static const int threads[] = {1, 1, 2, 3, 7};
    conv_case c = case_for(k);
    char what[256];
    const int n_threads = threads[below(5)];
    describe(what, sizeof what, &c.s, n_threads);
    guarded y = guarded_new(y_size(&c.s), one_in(2) ? AT_END : AT_START);
    memset(y.data, 0x5a, y.size);
    expect(k->fits(&c.s), "no shape fits");
    case_run(conv_u8s8, &c, 1, &c.want);
    case_run(k, &c, n_threads, &y);
    expect_same(c.want.data, y.data, y.size, what);
    check_sums(k, &c, n_threads, what);
    guarded_free(&y);
    case_free(&c);
}

/* Output value i before its requantization by the definition, in 64 bits over all taps: what the
 * plain-C row is held to. */
static int64_t define_sum(const conv_case *c, size_t i, int pad_zero)
{
    const conv_shape *s = &c->s;
    const int in_c = s->in_c / s->groups, out_c = s->out_c / s->groups;
    const int o = (int)(i % s->out_c), ox = (int)(i / s->out_c % s->out_w);
    const int oy = (int)(i / s->out_c / s->out_w % s->out_h);
    const size_t n = i / s->out_c / s->out_w / s->out_h;
    int64_t sum = c->no_bias ? 0 : ((const int32_t *)c->bias.data)[o];
    for (int f = 0; f < in_c * s->kernel_h * s->kernel_w; f++) {
        const int kx = f % s->kernel_w, ky = f / s->kernel_w % s->kernel_h;
        const int ch = f / s->kernel_w / s->kernel_h + o / out_c * in_c;
        const int iy = oy * s->stride_h - s->pad_top + ky * s->dilation_h;
        const int ix = ox * s->stride_w - s->pad_left + kx * s->dilation_w;
        const bool in = iy >= 0 && iy < s->in_h && ix >= 0 && ix < s->in_w;
        const int x = in ? c->x.data[((n * s->in_h + iy) * s->in_w + ix) * s->in_c + ch] : pad_zero;
        const int w = ((const int8_t *)c->w.data)[(size_t)o * in_c * s->kernel_h * s->kernel_w + f];
        sum += (int64_t)(x - c->x_zero) * w;
    }
    return sum;
}

static void define_conv(const conv_case *c, uint8_t *y)
{
    for (size_t i = 0; i < y_size(&c->s); i++) {
        const int64_t sum = define_sum(c, i, c->x_zero);
        const double v = (double)((float)sum * c->q.mult[i % c->s.out_c]);
        double q = __builtin_nearbyint(v < -1e6 ? -1e6 : v > 1e6 ? 1e6 : v) + c->q.zero;
        q = q < c->q.lo ? c->q.lo : q > c->q.hi ? c->q.hi : q;
        y[i] = (uint8_t)q;
    }
}

static void check_sums_definition(const conv_case *c, const char *what)
{
    const int pad_zero = between(0, 255);
    guarded y = guarded_new(y_size(&c->s) * sizeof(int32_t), AT_END);
    case_sums(conv_u8s8, c, pad_zero, between(1, 3), &y);
    for (size_t i = 0; i < y_size(&c->s); i++) {
        const int64_t want = define_sum(c, i, pad_zero), got = ((int32_t *)(void *)y.data)[i];
        expect(got == want, "%s: sum %zu is %lld, not %lld", what, i, (long long)got,
               (long long)want);
    }
    guarded_free(&y);
}

static void check_definition(void)
{
    conv_case c = case_new();
    char what[256];
    guarded y = guarded_new(y_size(&c.s), AT_END);
    describe(what, sizeof what, &c.s, 1);
    define_conv(&c, c.want.data);
    case_run(conv_u8s8, &c, between(1, 3), &y);
    expect_same(c.want.data, y.data, y.size, what);
    check_sums_definition(&c, what);
    guarded_free(&y);
    case_free(&c);
}

/* The convolution that equals transposed convolution t: its input is t's spread out, stride - 1
 * zero points between; its kernel is t's turned round. */
static conv_shape spread_shape(const conv_shape *t)
{
    const int reach_h = (t->kernel_h - 1) * t->dilation_h;
    const int reach_w = (t->kernel_w - 1) * t->dilation_w;
    conv_shape s = *t;
    s.in_h = (t->in_h - 1) * t->stride_h + 1;
    s.in_w = (t->in_w - 1) * t->stride_w + 1;
    s.stride_h = s.stride_w = 1;
    s.pad_top = reach_h - t->pad_top;
    s.pad_left = reach_w - t->pad_left;
    return s;
}

static conv_shape random_transpose(void)
{
    conv_shape t =
        random_window((conv_shape){.batch = 1, .in_h = between(1, 5), .in_w = between(1, 5)});
    t.groups = between(1, 3);
    t.in_c = t.groups * between(1, 5);
    t.out_c = t.groups * between(1, 5);
    const int reach_h = (t.kernel_h - 1) * t.dilation_h, reach_w = (t.kernel_w - 1) * t.dilation_w;
    t.pad_top = between(0, reach_h);
    t.pad_left = between(0, reach_w);
    t.out_h = (t.in_h - 1) * t.stride_h + 1 + reach_h - t.pad_top;
    t.out_w = (t.in_w - 1) * t.stride_w + 1 + reach_w - t.pad_left;
    return t;
}

static void spread_input(const conv_shape *t, const conv_shape *s, const uint8_t *x, int zero,
                         uint8_t *to)
{
    memset(to, zero, x_size(s));
    for (int iy = 0; iy < t->in_h; iy++)
        for (int ix = 0; ix < t->in_w; ix++)
            memcpy(to + ((size_t)iy * t->stride_h * s->in_w + ix * t->stride_w) * t->in_c,
                   x + ((size_t)iy * t->in_w + ix) * t->in_c, t->in_c);
}

static void turn_kernel(const conv_shape *t, const uint8_t *w, uint8_t *to)
{
    const size_t taps = (size_t)t->kernel_h * t->kernel_w;
    const size_t in_c = t->in_c / t->groups, out_c = t->out_c / t->groups;
    for (size_t o = 0; o < (size_t)t->out_c; o++)
        for (size_t c = 0; c < in_c; c++)
            for (size_t k = 0; k < taps; k++)
                to[(o * in_c + c) * taps + taps - 1 - k] =
                    w[((o / out_c * in_c + c) * out_c + o % out_c) * taps + k];
}

static void check_transpose(void)
{
    const conv_shape t = random_transpose(), s = spread_shape(&t);
    guarded x = guarded_new(x_size(&t), AT_END), spread_x = guarded_new(x_size(&s), AT_END);
    guarded w = guarded_new(w_size(&t), AT_END), turned = guarded_new(w_size(&s), AT_END);
    guarded want = guarded_new(y_size(&s), AT_END), y = guarded_new(y_size(&t), AT_END);
    float mult[15];
    int32_t bias[15];
    const int zero = between(0, 255);
    for (int o = 0; o < t.out_c; o++) {
        mult[o] = spread(1e-4f, 1e-2f);
        bias[o] = between(-3000, 3000);
    }
    fill_u8(x.data, x.size);
    fill_s8((int8_t *)w.data, w.size);
    spread_input(&t, &s, x.data, zero, spread_x.data);
    turn_kernel(&t, w.data, turned.data);
    conv_case cs = {.s = s, .x = spread_x, .w = turned, .x_zero = zero, .q = {mult, 77, 3, 250}};
    conv_case ct = {.s = t, .x = x, .w = w, .x_zero = zero, .q = cs.q};
    cs.bias.data = ct.bias.data = (uint8_t *)bias;
    case_run(conv_u8s8, &cs, 1, &want);
    case_run(conv_transpose_u8s8, &ct, between(1, 3), &y);
    expect_same(want.data, y.data, y.size, "transposed convolution");
    guarded want_sums = guarded_new(want.size * 4, AT_END), sums = guarded_new(y.size * 4, AT_END);
    case_sums(conv_u8s8, &cs, zero, 1, &want_sums);
    case_sums(conv_transpose_u8s8, &ct, zero, between(1, 3), &sums);
    expect_same(want_sums.data, sums.data, sums.size, "sums of a transposed convolution");
    guarded *all[] = {&x, &spread_x, &w, &turned, &want, &y, &want_sums, &sums};
    for (int i = 0; i < 8; i++)
        guarded_free(all[i]);
}

static void check_rows(const char *table, const conv_kernel *rows)
{
    for (const conv_kernel *k = rows; k->name; k++) {
        if (!row_begins(table, k->name, k->needs))
            continue;
        for (int i = 0; i < current.cases; i++)
            if (k == conv_u8s8) {
                check_definition();
            } else {
                check_case(k);
                check_lines(k);
            }
        row_ends();
    }
}

#if defined(__x86_64__)
static void check_emulated(void)
{
    check_rows("emulated", conv_emulated);
    if (!row_begins("emulated", "tiles", conv_emulated->needs))
        return;
    check_emulated_tiles();
    row_ends();
}
#else
static void check_emulated(void)
{
}
#endif

void check_conv(void)
{
    check_rows("conv_u8s8", conv_u8s8);
    check_emulated();
    row_begins("conv_transpose_u8s8", conv_transpose_u8s8->name, 0);
    for (int i = 0; i < current.cases; i++)
        check_transpose();
    row_ends();
}
