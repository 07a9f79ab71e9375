/* Gradients of the pools. */
#include <math.h>

#include "ops/grad.h"
#include "ops/pool.h"
#include "ops/taps.h"

/* One window of one channel: dy goes to the elements dx[t->x[..]]. x, dx: the channel's image (x =
 * NULL: not read); y: the result (0 where it is not read). */
typedef void (*window_fn)(const taps *t, const float *x, float y, float dy, double by, float *dx);

static rung_status each_window(const grad_args *a, window_fn f, bool count_pad, double power,
                               rung_error *err)
{
    const tensor *x = &a->in[0], *dout = &a->dout[0];
    float *dx = a->din[0].data;
    window w;
    taps t;
    bool any;
    rung_status st = grad_begin(a, &any, err);
    if (st || !any || !dx)
        return st;
    if ((st = window_pool(a->n, x->rank, x->dims, &w, err)) ||
        (st = taps_init(&t, &w, x->dims + 2, false, a->mem, err)))
        return st;
    const size_t channels = (size_t)(x->dims[0] * x->dims[1]);
    const size_t in = dims_product(x->dims, 2, x->rank);
    const size_t out = dims_product(dout->dims, 2, dout->rank);
    const float *v = x->data, *y = a->out[0].data, *dy = dout->data;
    int64_t at[WINDOW_MAX] = {0};
    size_t i = 0;
    do {
        taps_at(&t, at);
        const double extent = count_pad ? pool_extent(&w, x->dims + 2, at) : (double)t.n;
        for (size_t c = 0; c < channels; c++)
            f(&t, v ? v + c * in : NULL, y ? y[c * out + i] : 0, dy[c * out + i],
              power > 0 ? power : extent, dx + c * in);
        i++;
    } while (next_position(w.n, dout->dims + 2, at));
    return RUNG_OK;
}

/* To the first of equals, as MaxPool's indices say; NaN wins. */
static void to_greatest(const taps *t, const float *x, float y, float dy, double by, float *dx)
{
    size_t where = 0;
    if (t->n == 0)
        return;
    for (size_t i = 1; i < t->n; i++) {
        const float v = x[t->x[i]], best = x[t->x[where]];
        if (v > best || (isnan(v) && !isnan(best)))
            where = i;
    }
    dx[t->x[where]] += dy;
}

/* by: what the average divides by. */
static void to_all(const taps *t, const float *x, float y, float dy, double by, float *dx)
{
    const float part = by > 0 ? (float)(dy / by) : 0;
    for (size_t i = 0; i < t->n; i++)
        dx[t->x[i]] += part;
}

/* y = (sum |x|^p)^(1/p): dx = dy sign(x) (|x| / y)^(p-1); by: p. */
static void by_power(const taps *t, const float *x, float y, float dy, double by, float *dx)
{
    for (size_t i = 0; y != 0 && i < t->n; i++) {
        const double v = x[t->x[i]];
        dx[t->x[i]] += (float)(dy * copysign(pow(fabs(v) / y, by - 1), v));
    }
}

rung_status max_pool_grad(const grad_args *a, rung_error *err)
{
    return each_window(a, to_greatest, false, 0, err);
}

rung_status average_pool_grad(const grad_args *a, rung_error *err)
{
    return each_window(a, to_all, node_int(a->n, "count_include_pad", 0) != 0, 0, err);
}

rung_status lp_pool_grad(const grad_args *a, rung_error *err)
{
    return each_window(a, by_power, false, (double)node_int(a->n, "p", 2), err);
}

rung_status global_average_grad(const grad_args *a, rung_error *err)
{
    const tensor *x = &a->in[0];
    const float *dy = a->dout[0].data;
    float *dx = a->din[0].data;
    bool any;
    const rung_status st = grad_begin(a, &any, err);
    if (st || !any || !dx)
        return st;
    const size_t n = dims_product(x->dims, 2, x->rank), channels = tensor_count(&a->dout[0]);
    for (size_t c = 0; c < channels; c++) {
        const float part = dy[c] / (float)n;
        for (size_t i = 0; i < n; i++)
            dx[c * n + i] = part;
    }
    return RUNG_OK;
}

rung_status global_max_grad(const grad_args *a, rung_error *err)
{
    const tensor *x = &a->in[0];
    const float *dy = a->dout[0].data, *v = x->data;
    float *dx = a->din[0].data;
    bool any;
    const rung_status st = grad_begin(a, &any, err);
    if (st || !any || !dx)
        return st;
    const size_t n = dims_product(x->dims, 2, x->rank), channels = tensor_count(&a->dout[0]);
    for (size_t c = 0; n && c < channels; c++) {
        size_t where = c * n;
        for (size_t i = c * n + 1; i < (c + 1) * n; i++)
            where = v[i] > v[where] || (isnan(v[i]) && !isnan(v[where])) ? i : where;
        dx[where] = dy[c];
    }
    return RUNG_OK;
}
