/* MaxPool, whose windows look for their greatest element again (the first of equals), and
 * AveragePool. Channels-last. */
#include <string.h>

#include "base/threads.h"
#include "nn/backward_rows.h"
#include "nn/pool.h"
#include "nn/vec_train.h"

typedef struct pool_back {
    const vec_train *ops;
    const pool      *p;
    int              dy, dx; /* buffers */
} pool_back;

/* x = NULL: an average. */
static void pool_pixel(const pool_back *b, const float *x, const pool_extent *v, int64_t oh,
                       int64_t ow, const float *dy, float *dx)
{
    const pool *p = b->p;
    const pool_extent h = pool_meet(p, 1, ow);
    if (v->to <= v->from || h.to <= h.from) /* only padding */
        return;
    const int64_t top = oh * p->stride[0] - p->begin[0] + v->from * p->dilation[0];
    const int64_t left = ow * p->stride[1] - p->begin[1] + h.from * p->dilation[1];
    const size_t line = (size_t)p->in[1] * p->channels;
    const size_t n_h = (size_t)(v->to - v->from), n_w = (size_t)(h.to - h.from);
    const size_t at = (size_t)top * line + (size_t)left * p->channels;
    const size_t row = (size_t)p->dilation[0] * line, column = (size_t)p->dilation[1] * p->channels;
    const size_t counted = p->count_pad ? (size_t)(v->counted * h.counted) : n_h * n_w;
    if (x)
        b->ops->window_max(x + at, n_h, row, n_w, column, p->channels, dy, dx + at);
    else
        b->ops->window_mean(n_h, row, n_w, column, p->channels, 1.0f / (float)counted, dy,
                            dx + at);
}

static void pool_run(const step *s, void *const *bufs, void *scratch, int thread, int n_threads)
{
    const pool_back *b = s->params;
    const pool *p = b->p;
    const size_t image = (size_t)p->in[0] * (size_t)p->in[1] * p->channels;
    const size_t line = (size_t)p->out[1] * p->channels;
    size_t i, last;
    share(p->batch, 1, thread, n_threads, &i, &last); /* windows of an image overlap */
    for (; i < last; i++) {
        const float *x = p->max ? (const float *)bufs[0] + i * image : NULL;
        const float *dy = (const float *)bufs[b->dy] + i * (size_t)p->out[0] * line;
        float *dx = (float *)bufs[b->dx] + i * image;
        memset(dx, 0, image * sizeof *dx);
        for (int64_t oh = 0; oh < p->out[0]; oh++) {
            const pool_extent v = pool_meet(p, 0, oh);
            for (int64_t ow = 0; ow < p->out[1]; ow++)
                pool_pixel(b, x, &v, oh, ow,
                           dy + (size_t)oh * line + (size_t)ow * p->channels, dx);
        }
    }
}

/* The loops number a window's elements by floats. */
#define WINDOW_LIMIT (1 << 24)

rung_status pool_backward(const lowering *l, unsigned wanted, step *s, rung_error *err)
{
    pool *p;
    if (wanted != 1)
        return fail(err, RUNG_EUNSUPPORTED, "no fast row for this gradient");
    const rung_status st = pool_open(l, &p, err);
    if (st != RUNG_OK)
        return st;
    if (p->kernel[0] > WINDOW_LIMIT / p->kernel[1])
        return fail(err, RUNG_EUNSUPPORTED, "no fast row for a window of this size");
    pool_back *b = arena_zero(l->mem, 1, sizeof *b);
    if (!b)
        return fail_memory(err, "a step", sizeof *b);
    *b = (pool_back){vec_train_pick(), p, at_dout(l, 0), at_din(l, 0)};
    s->kernel = p->max ? "max_pool_backward_f32 vec" : "average_pool_backward_f32 vec";
    s->run = pool_run;
    s->params = b;
    return RUNG_OK;
}
