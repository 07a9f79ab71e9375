/* ReduceMean, ReduceSum, GlobalAveragePool: dx is dy over the divisor, repeated along the axes that
 * were summed. [outer][inner] to [outer][n][inner]. */
#include <string.h>

#include "base/threads.h"
#include "nn/backward_rows.h"
#include "nn/reduce.h"

typedef struct spread_back {
    size_t outer, n, inner;
    float  factor;
    int    dy, dx; /* buffers */
} spread_back;

static void fill(float *to, float v, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to[i] = v;
}

static void scale(const float *restrict from, float by, size_t n, float *restrict to)
{
    for (size_t i = 0; i < n; i++)
        to[i] = by * from[i];
}

static void spread_run(const step *s, void *const *bufs, void *scratch, int thread, int n_threads)
{
    const spread_back *r = s->params;
    const float *dy = bufs[r->dy];
    float *dx = bufs[r->dx];
    size_t at, last;
    share(r->outer * r->n, 1, thread, n_threads, &at, &last);
    for (; at < last; at++)
        scale(dy + at / r->n * r->inner, r->factor, r->inner, dx + at * r->inner);
}

/* inner = 1: one value for whole rows. */
static void rows_run(const step *s, void *const *bufs, void *scratch, int thread, int n_threads)
{
    const spread_back *r = s->params;
    const float *dy = bufs[r->dy];
    float *dx = bufs[r->dx];
    size_t at, last;
    share(r->outer, 1, thread, n_threads, &at, &last);
    for (; at < last; at++)
        fill(dx + at * r->n, r->factor * dy[at], r->n);
}

rung_status reduce_backward(const lowering *l, unsigned wanted, step *s, rung_error *err)
{
    reduced_axes axes;
    if (wanted != 1 || strstr(l->n->op_type, "Max"))
        return fail(err, RUNG_EUNSUPPORTED, "no fast row for this gradient");
    const rung_status st = reduce_read(l, &axes, err);
    if (st != RUNG_OK)
        return st;
    spread_back *r = arena_zero(l->mem, 1, sizeof *r);
    if (!r)
        return fail_memory(err, "a step", sizeof *r);
    const float divisor = strstr(l->n->op_type, "Sum") ? 1.0f : (float)axes.n;
    *r = (spread_back){axes.outer, axes.n, axes.inner, 1.0f / divisor, at_dout(l, 0),
                       at_din(l, 0)};
    s->kernel = "reduce_backward_f32";
    s->run = axes.inner == 1 ? rows_run : spread_run;
    s->params = r;
    return RUNG_OK;
}
