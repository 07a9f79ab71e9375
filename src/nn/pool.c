#include "base/threads.h"
#include "nn/pool.h"
#include "nn/rows.h"
#include "ops/window.h"

pool_extent pool_meet(const pool *p, int axis, int64_t at)
{
    const int64_t by = p->dilation[axis], start = at * p->stride[axis] - p->begin[axis];
    const int64_t padded = p->in[axis] + p->end[axis]; /* where the padded input ends */
    const int64_t k = p->kernel[axis];
    pool_extent e = {.from = start < 0 ? (-start + by - 1) / by : 0,
                .to = (p->in[axis] - start + by - 1) / by,
                .counted = (padded - start + by - 1) / by};
    e.to = e.to < k ? e.to : k;
    e.counted = e.counted < k ? e.counted : k;
    return e;
}

static void pool_pixel(const pool *p, const float *image, const pool_extent *v, int64_t oh,
                       int64_t ow, float *y)
{
    const pool_extent h = pool_meet(p, 1, ow);
    const int64_t top = oh * p->stride[0] - p->begin[0] + v->from * p->dilation[0];
    const int64_t left = ow * p->stride[1] - p->begin[1] + h.from * p->dilation[1];
    const size_t line = (size_t)p->in[1] * p->channels;
    const size_t n_h = v->to > v->from ? (size_t)(v->to - v->from) : 0;
    const size_t n_w = h.to > h.from ? (size_t)(h.to - h.from) : 0;
    if (n_h == 0 || n_w == 0) { /* only padding */
        for (size_t c = 0; c < p->channels; c++)
            y[c] = 0.0f;
        return;
    }
    const float *x = image + (size_t)top * line + (size_t)left * p->channels;
    const size_t row = (size_t)p->dilation[0] * line, column = (size_t)p->dilation[1] * p->channels;
    const size_t counted = p->count_pad ? (size_t)(v->counted * h.counted) : n_h * n_w;
    if (p->max)
        p->ops->window_max(x, n_h, row, n_w, column, p->channels, y);
    else
        p->ops->window_mean(x, n_h, row, n_w, column, p->channels, (float)counted, y);
}

static void pool_run(const step *s, void *const *bufs, void *scratch, int thread, int n_threads)
{
    const pool *p = s->params;
    const size_t image = (size_t)p->in[0] * (size_t)p->in[1] * p->channels;
    const size_t out_h = (size_t)p->out[0], line = (size_t)p->out[1] * p->channels;
    size_t first, last;
    share(p->batch * out_h, 1, thread, n_threads, &first, &last);
    for (size_t row = first; row < last; row++) {
        const float *x = (const float *)bufs[0] + row / out_h * image;
        float *y = (float *)bufs[p->out_buf] + row * line;
        const int64_t oh = (int64_t)(row % out_h);
        const pool_extent v = pool_meet(p, 0, oh);
        for (int64_t ow = 0; ow < p->out[1]; ow++)
            pool_pixel(p, x, &v, oh, ow, y + (size_t)ow * p->channels);
        if (p->clamp)
            p->ops->unary[VEC_CLAMP](y, line, p->lo, p->hi, y);
    }
}

static void set_axis(pool *p, int to, const window *w, int from, int64_t in)
{
    p->in[to] = in;
    p->out[to] = w->out[from];
    p->kernel[to] = w->kernel[from];
    p->stride[to] = w->strides[from];
    p->dilation[to] = w->dilations[from];
    p->begin[to] = w->begin[from];
    p->end[to] = w->end[from];
}

rung_status pool_open(const lowering *l, pool **out, rung_error *err)
{
    const operand *x = &l->in[0];
    window w;
    if ((x->rank != 3 && x->rank != 4) || x->constant || !operand_channels_last(x) ||
        !operand_channels_last(&l->out[0]))
        return fail(err, RUNG_EUNSUPPORTED, "no fast row for this rank or layout");
    const rung_status st = window_pool(l->n, x->rank, x->dims, &w, err);
    if (st != RUNG_OK)
        return st;
    pool *p = arena_zero(l->mem, 1, sizeof *p);
    if (!p)
        return fail_memory(err, "a step", sizeof *p);
    p->in[0] = p->out[0] = p->kernel[0] = p->stride[0] = p->dilation[0] = 1;
    for (int i = 0; i < w.n; i++)
        set_axis(p, 2 - w.n + i, &w, i, x->dims[2 + i]);
    p->ops = vec_pick();
    p->batch = (size_t)x->dims[0];
    p->channels = (size_t)x->dims[1];
    p->max = l->n->op_type[0] == 'M';
    p->count_pad = node_int(l->n, "count_include_pad", 0) != 0;
    *out = p;
    return RUNG_OK;
}

rung_status pool_row(const lowering *l, step *s, rung_error *err)
{
    pool *p;
    if (l->epi.add >= 0 || (l->n_out > 1 && l->out[1].type != RUNG_UNDEFINED))
        return fail(err, RUNG_EUNSUPPORTED, "no fast row that adds or gives Indices");
    const rung_status st = pool_open(l, &p, err);
    if (st != RUNG_OK)
        return st;
    p->clamp = l->epi.clamp;
    p->lo = l->epi.lo;
    p->hi = l->epi.hi;
    p->out_buf = l->n_in;
    s->kernel = p->max ? "max_pool_f32 vec" : "average_pool_f32 vec";
    s->run = pool_run;
    s->params = p;
    return RUNG_OK;
}
