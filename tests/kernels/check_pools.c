/* Every row of the pools against the first, and the first against the definition. */
#include "check.h"

#include <math.h>
#include <string.h>

#include "kernels/kernels.h"

static pool_shape random_pool(void)
{
    pool_shape s = {.batch = between(1, 2),
                    .channels = one_in(2) ? between(1, 40) : between(1, 200)};
    s.kernel_h = between(1, 5);
    s.kernel_w = one_in(3) ? between(1, 5) : s.kernel_h;
    s.stride_h = between(1, 3);
    s.stride_w = between(1, 3);
    s.dilation_h = one_in(4) ? 2 : 1;
    s.dilation_w = one_in(4) ? 2 : 1;
    s.pad_top = between(0, s.kernel_h);
    s.pad_left = between(0, s.kernel_w);
    s.out_h = between(1, 7);
    s.out_w = between(1, 7);
    const int in_h = (s.out_h - 1) * s.stride_h + (s.kernel_h - 1) * s.dilation_h + 1;
    const int in_w = (s.out_w - 1) * s.stride_w + (s.kernel_w - 1) * s.dilation_w + 1;
    s.in_h = in_h - s.pad_top - between(0, s.pad_top);
    s.in_w = in_w - s.pad_left - between(0, s.pad_left);
    s.in_h = s.in_h < 1 ? 1 : s.in_h;
    s.in_w = s.in_w < 1 ? 1 : s.in_w;
    s.count_pad = one_in(2);
    return s;
}

static pool_q random_pool_q(void)
{
    pool_q q = {.x_scale = spread(1e-4f, 10), .x_zero = between(0, 255), .y_zero = between(0, 255)};
    q.y_scale = q.x_scale * spread(0.3f, 3);
    random_clamp(&q.lo, &q.hi);
    return q;
}

typedef enum pool_kind { MAX, AVERAGE, GLOBAL } pool_kind;

static size_t out_size(pool_kind kind, const pool_shape *s)
{
    return kind == GLOBAL ? (size_t)s->batch * s->channels
                          : (size_t)s->batch * s->out_h * s->out_w * s->channels;
}

/* One output in double; *n is how many inputs the window holds. */
static double window_value(pool_kind kind, const pool_shape *s, const uint8_t *x, const pool_q *q,
                           size_t i, int *n)
{
    const int c = (int)(i % s->channels), ox = (int)(i / s->channels % s->out_w);
    const int oy = (int)(i / s->channels / s->out_w % s->out_h);
    const uint8_t *image =
        x + i / s->channels / s->out_w / s->out_h * ((size_t)s->in_h * s->in_w * s->channels);
    double sum = 0, best = 0;
    *n = 0;
    for (int ky = 0; ky < s->kernel_h; ky++)
        for (int kx = 0; kx < s->kernel_w; kx++) {
            const int iy = oy * s->stride_h - s->pad_top + ky * s->dilation_h;
            const int ix = ox * s->stride_w - s->pad_left + kx * s->dilation_w;
            if (iy < 0 || iy >= s->in_h || ix < 0 || ix >= s->in_w)
                continue;
            const int v = image[((size_t)iy * s->in_w + ix) * s->channels + c];
            sum += v - q->x_zero;
            best = v > best ? v : best;
            ++*n;
        }
    if (kind == MAX)
        return best;
    const int count = kind == AVERAGE && s->count_pad ? s->kernel_h * s->kernel_w : *n ? *n : 1;
    return sum / count * ((double)q->x_scale / q->y_scale) + q->y_zero;
}

static void check_definition(pool_kind kind, const pool_kernel *k)
{
    pool_shape s = random_pool();
    const pool_q q = random_pool_q();
    if (kind == GLOBAL) {
        s.kernel_h = s.in_h, s.kernel_w = s.in_w, s.out_h = s.out_w = 1;
        s.pad_top = s.pad_left = 0, s.dilation_h = s.dilation_w = 1;
    }
    guarded x = guarded_new((size_t)s.batch * s.in_h * s.in_w * s.channels, AT_END);
    guarded y = guarded_new(out_size(kind, &s), AT_END);
    fill_u8(x.data, x.size);
    k->run(&s, x.data, &q, y.data, 0, 1);
    for (size_t i = 0; i < y.size; i++) {
        int n;
        double v = window_value(kind, &s, x.data, &q, i, &n);
        v = v < q.lo ? q.lo : v > q.hi ? q.hi : v;
        /* float32 sums of n values of at most 255 steps, five more operations; ratio under 4 */
        const double slack = kind == MAX ? 0 : 0.5 + 4 * 255 * 6e-8 * (n + 5);
        expect(fabs(v - y.data[i]) <= slack, "output %zu: %g became %d", i, v, y.data[i]);
    }
    guarded_check(&y, "output");
    guarded_free(&x), guarded_free(&y);
}

static void check_row(pool_kind kind, const pool_kernel *rows, const pool_kernel *k)
{
    static const int threads[] = {1, 2, 3, 7};
    const pool_shape s = random_pool();
    const pool_q q = random_pool_q();
    const int n_threads = threads[below(4)];
    const placing where = one_in(2) ? AT_END : AT_START;
    guarded x = guarded_new((size_t)s.batch * s.in_h * s.in_w * s.channels, where);
    guarded want = guarded_new(out_size(kind, &s), AT_END);
    guarded y = guarded_new(out_size(kind, &s), where);
    const pool_q *qp = kind == MAX && one_in(4) ? NULL : &q;
    fill_u8(x.data, x.size);
    rows->run(&s, x.data, qp, want.data, 0, 1);
    for (int t = 0; t < n_threads; t++)
        k->run(&s, x.data, qp, y.data, t, n_threads);
    expect_same(want.data, y.data, y.size, "pool");
    guarded_check(&y, "output");
    guarded_free(&x), guarded_free(&want), guarded_free(&y);
}

static void check_pool(const char *table, pool_kind kind, const pool_kernel *rows)
{
    for (const pool_kernel *k = rows; k->name; k++) {
        if (!row_begins(table, k->name, k->needs))
            continue;
        for (int i = 0; i < current.cases; i++)
            if (k == rows)
                check_definition(kind, k);
            else
                check_row(kind, rows, k);
        row_ends();
    }
}

void check_pools(void)
{
    check_pool("max_pool_u8", MAX, max_pool_u8);
    check_pool("avg_pool_u8", AVERAGE, avg_pool_u8);
    check_pool("global_avg_pool_u8", GLOBAL, global_avg_pool_u8);
}
