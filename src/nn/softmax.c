#include "base/threads.h"
#include "nn/layout.h"
#include "nn/rows.h"
#include "nn/vec.h"

typedef struct softmax {
    const vec_ops *ops;
    size_t         outer, n, inner; /* as the axis lies in memory */
    int            out_buf;
} softmax;

/* The axis is not the innermost one: each line is gathered, computed and put back. */
static void softmax_line(const softmax *m, const float *x, float *line, float *y)
{
    for (size_t i = 0; i < m->n; i++)
        line[i] = x[i * m->inner];
    m->ops->softmax(line, 1, m->n, line);
    for (size_t i = 0; i < m->n; i++)
        y[i * m->inner] = line[i];
}

static void softmax_run(const step *s, void *const *bufs, void *scratch, int thread, int n_threads)
{
    const softmax *m = s->params;
    const float *x = bufs[0];
    float *y = bufs[m->out_buf];
    size_t first, last;
    share(m->outer * m->inner, 1, thread, n_threads, &first, &last);
    if (m->inner == 1) {
        m->ops->softmax(x + first * m->n, last - first, m->n, y + first * m->n);
        return;
    }
    for (size_t i = first; i < last; i++) {
        const size_t at = i / m->inner * m->n * m->inner + i % m->inner;
        softmax_line(m, x + at, scratch, y + at);
    }
}

rung_status softmax_row(const lowering *l, step *s, rung_error *err)
{
    int axis;
    const operand *x = &l->in[0];
    if (l->opset < 13) /* flattens to two dims there */
        return fail(err, RUNG_EUNSUPPORTED, "no fast row before opset 13");
    if (x->constant || l->epi.add >= 0 || l->epi.clamp ||
        operand_channels_last(x) != operand_channels_last(&l->out[0]) ||
        !axis_normal(node_int(l->n, "axis", -1), x->rank, &axis))
        return fail(err, RUNG_EUNSUPPORTED, "no fast row for this axis, layout or epilogue");
    softmax *m = arena_zero(l->mem, 1, sizeof *m);
    if (!m)
        return fail_memory(err, "a step", sizeof *m);
    (void)operand_block(x, 1u << axis, &m->outer, &m->n, &m->inner); /* one axis is a block */
    if (m->n == 1) { /* operand_block tells no place for it */
        m->outer = stored_count(x);
        m->inner = 1;
    }
    m->ops = vec_pick();
    m->out_buf = l->n_in;
    s->kernel = "softmax_f32 vec";
    s->run = softmax_run;
    s->params = m;
    s->scratch_bytes = m->inner > 1 ? m->n * sizeof(float) : 0;
    s->in_place = true;
    return RUNG_OK;
}
