/* Copies, resizes and softmax against their definitions. */
#include "check.h"

#include <math.h>
#include <string.h>

#include "kernels/kernels.h"

enum { COPY_BYTES = 1 << 15 };

/* A random permutation, slice, reversal or repetition that stays inside both buffers: y is dense in
 * permuted order, x has steps of -2 to 2 times its dense strides. */
static copy_shape random_copy(int64_t *x_origin, int64_t *x_span)
{
    copy_shape s = {.rank = between(0, 5), .elem = 1 << between(0, 3)};
    int order[COPY_MAX_RANK];
    for (int i = 0; i < s.rank; i++) {
        const int j = between(0, i);
        order[i] = order[j];
        order[j] = i;
        s.dims[i] = one_in(20) ? 0 : one_in(3) ? 1 : between(1, 6);
    }
    int64_t dense = 1;
    for (int i = s.rank - 1; i >= 0; i--) {
        s.y_strides[order[i]] = dense;
        dense *= s.dims[order[i]];
    }
    int64_t step = 1, low = 0, high = 0;
    for (int i = s.rank - 1; i >= 0; i--) {
        s.x_strides[i] = step * (one_in(2) ? 1 : between(-2, 2));
        const int64_t far = s.dims[i] ? s.x_strides[i] * (s.dims[i] - 1) : 0;
        low += far < 0 ? far : 0;
        high += far > 0 ? far : 0;
        step *= s.dims[i] * (one_in(4) ? 2 : 1);
    }
    *x_origin = -low;
    *x_span = high - low + 1;
    return s;
}

static void define_copy(const copy_shape *s, const uint8_t *x, uint8_t *y)
{
    int64_t n = 1;
    for (int d = 0; d < s->rank; d++)
        n *= s->dims[d];
    for (int64_t i = 0; i < n; i++) {
        int64_t rest = i, xo = 0, yo = 0;
        for (int d = s->rank - 1; d >= 0; d--) {
            xo += rest % s->dims[d] * s->x_strides[d];
            yo += rest % s->dims[d] * s->y_strides[d];
            rest /= s->dims[d];
        }
        memcpy(y + yo * s->elem, x + xo * s->elem, s->elem);
    }
}

static void check_copy(void)
{
    row_begins("copy_strided", "definition", 0);
    for (int i = 0; i < current.cases * 4; i++) {
        int64_t origin, span, n = 1;
        copy_shape s = random_copy(&origin, &span);
        for (int d = 0; d < s.rank; d++)
            n *= s.dims[d];
        if (span * s.elem > COPY_BYTES || n * s.elem > COPY_BYTES)
            continue;
        const int n_threads = between(1, 4);
        guarded x = guarded_new((size_t)(span * s.elem), AT_END);
        guarded want = guarded_new((size_t)(n * s.elem), AT_END);
        guarded y = guarded_new((size_t)(n * s.elem), AT_END);
        fill_u8(x.data, x.size);
        define_copy(&s, x.data + origin * s.elem, want.data);
        for (int t = 0; t < n_threads; t++)
            copy_strided(&s, x.data + origin * s.elem, y.data, t, n_threads);
        expect_same(want.data, y.data, y.size, "as given");
        memset(y.data, 0, y.size);
        copy_shape_normalise(&s);
        for (int t = 0; t < n_threads; t++)
            copy_strided(&s, x.data + origin * s.elem, y.data, t, n_threads);
        expect_same(want.data, y.data, y.size, "normalised");
        guarded_check(&y, "output");
        guarded_free(&x), guarded_free(&want), guarded_free(&y);
    }
    row_ends();
}

typedef struct resize_case {
    int batch, in_h, in_w, channels, out_h, out_w;
    guarded x, y;
} resize_case;

static resize_case resize_new(void)
{
    resize_case c = {between(1, 2), between(1, 6), between(1, 6), between(1, 70),
                     between(1, 9), between(1, 9), {0},           {0}};
    c.x = guarded_new((size_t)c.batch * c.in_h * c.in_w * c.channels, AT_END);
    c.y = guarded_new((size_t)c.batch * c.out_h * c.out_w * c.channels, AT_END);
    fill_u8(c.x.data, c.x.size);
    return c;
}

static int pixel(const resize_case *c, size_t n, int iy, int ix, int ch)
{
    return c->x.data[((n * c->in_h + iy) * c->in_w + ix) * c->channels + ch];
}

static void check_nearest(void)
{
    row_begins("resize_nearest_u8", "definition", 0);
    for (int i = 0; i < current.cases; i++) {
        resize_case c = resize_new();
        int32_t rows[9], cols[9];
        for (int j = 0; j < 9; j++) {
            rows[j] = between(0, c.in_h - 1);
            cols[j] = between(0, c.in_w - 1);
        }
        const int n_threads = between(1, 3);
        for (int t = 0; t < n_threads; t++)
            resize_nearest_u8(c.x.data, c.batch, c.in_h, c.in_w, c.channels, rows, c.out_h, cols,
                              c.out_w, c.y.data, t, n_threads);
        for (size_t j = 0; j < c.y.size; j++) {
            const size_t p = j / c.channels;
            const int want = pixel(&c, p / c.out_w / c.out_h, rows[p / c.out_w % c.out_h],
                                   cols[p % c.out_w], (int)(j % c.channels));
            expect(c.y.data[j] == want, "byte %zu is %d, not %d", j, c.y.data[j], want);
        }
        guarded_check(&c.y, "output");
        guarded_free(&c.x), guarded_free(&c.y);
    }
    row_ends();
}

static resize_tap random_tap(int in)
{
    resize_tap t = {between(0, in - 1), between(0, in - 1), (float)rng_uniform(&current.random), 0};
    t.w1 = 1 - t.w0;
    return t;
}

static void check_linear(void)
{
    row_begins("resize_linear_u8", "definition", 0);
    for (int i = 0; i < current.cases; i++) {
        resize_case c = resize_new();
        resize_tap rows[9], cols[9];
        pool_q q = {spread(1e-3f, 1), 0, between(0, 255), between(0, 255), 0, 255};
        q.y_scale = q.x_scale * spread(0.5f, 2);
        random_clamp(&q.lo, &q.hi);
        for (int j = 0; j < 9; j++) {
            rows[j] = random_tap(c.in_h);
            cols[j] = random_tap(c.in_w);
        }
        const int n_threads = between(1, 3);
        for (int t = 0; t < n_threads; t++)
            resize_linear_u8(c.x.data, c.batch, c.in_h, c.in_w, c.channels, rows, c.out_h, cols,
                             c.out_w, &q, c.y.data, t, n_threads);
        for (size_t j = 0; j < c.y.size; j++) {
            const size_t p = j / c.channels, n = p / c.out_w / c.out_h;
            const resize_tap r = rows[p / c.out_w % c.out_h], k = cols[p % c.out_w];
            const int ch = (int)(j % c.channels);
            const double top = pixel(&c, n, r.i0, k.i0, ch) * (double)k.w0 +
                               pixel(&c, n, r.i0, k.i1, ch) * (double)k.w1;
            const double low = pixel(&c, n, r.i1, k.i0, ch) * (double)k.w0 +
                               pixel(&c, n, r.i1, k.i1, ch) * (double)k.w1;
            double v = (top * r.w0 + low * r.w1 - q.x_zero) * ((double)q.x_scale / q.y_scale);
            v = fmin(fmax(v + q.y_zero, q.lo), q.hi);
            /* eight float32 roundings of numbers under 255, times at most 2 */
            expect(fabs(v - c.y.data[j]) <= 0.5 + 8 * 2 * 255 * 6e-8, "%g became %d", v,
                   c.y.data[j]);
        }
        guarded_check(&c.y, "output");
        guarded_free(&c.x), guarded_free(&c.y);
    }
    row_ends();
}

static void check_softmax(void)
{
    row_begins("softmax_u8", "definition", 0);
    for (int i = 0; i < current.cases; i++) {
        const size_t outer = below(4), n = 1 + below(1000);
        const float x_scale = spread(1e-3f, 3), y_scale = one_in(2) ? 1.0f / 256 : 0.013f;
        const int y_zero = one_in(2) ? 0 : between(0, 255), n_threads = between(1, 3);
        guarded x = guarded_new(outer * n, AT_END), y = guarded_new(outer * n, AT_END);
        fill_u8(x.data, x.size);
        for (int t = 0; t < n_threads; t++)
            softmax_u8(x.data, outer, n, x_scale, y_scale, y_zero, 0, 255, y.data, t, n_threads);
        for (size_t row = 0; row < outer; row++) {
            double sum = 0;
            for (size_t j = 0; j < n; j++)
                sum += exp((double)x_scale * (x.data[row * n + j] - 255));
            for (size_t j = 0; j < n; j++) {
                const double e = exp((double)x_scale * (x.data[row * n + j] - 255));
                const double v = fmin(e / sum / y_scale + y_zero, 255);
                /* the float32 sum of n terms, and three more operations, relative */
                const double slack = 0.5 + (n + 3.0) * 6e-8 / y_scale;
                expect(sum == 0 || fabs(v - y.data[row * n + j]) <= slack, "%g became %d", v,
                       y.data[row * n + j]);
            }
        }
        guarded_check(&y, "output");
        guarded_free(&x), guarded_free(&y);
    }
    row_ends();
}

void check_movement(void)
{
    check_copy();
    check_nearest();
    check_linear();
    check_softmax();
}
