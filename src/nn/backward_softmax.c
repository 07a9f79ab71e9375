/* Softmax over rows: dx = y (dy - sum of y dy). */
#include "base/threads.h"
#include "nn/backward_rows.h"
#include "nn/vec_train.h"

typedef struct softmax_back {
    const vec_train *ops;
    size_t           rows, n;
    int              y, dy, dx; /* buffers */
} softmax_back;

static void softmax_run(const step *s, void *const *bufs, void *scratch, int thread, int n_threads)
{
    const softmax_back *m = s->params;
    size_t first, last;
    share(m->rows, 1, thread, n_threads, &first, &last);
    m->ops->softmax((const float *)bufs[m->y] + first * m->n,
                    (const float *)bufs[m->dy] + first * m->n, last - first, m->n,
                    (float *)bufs[m->dx] + first * m->n);
}

rung_status softmax_backward(const lowering *l, unsigned wanted, step *s, rung_error *err)
{
    int axis;
    size_t outer, n, inner;
    const operand *x = &l->in[0];
    if (wanted != 1 || l->opset < 13 || !operand_same_storage(x, &l->out[0]) ||
        !axis_normal(node_int(l->n, "axis", -1), x->rank, &axis))
        return fail(err, RUNG_EUNSUPPORTED, "no fast row for this axis or layout");
    if (!operand_block(x, 1u << axis, &outer, &n, &inner) || inner != 1 || x->dims[axis] == 1)
        return fail(err, RUNG_EUNSUPPORTED, "no fast row for an axis that is not innermost");
    softmax_back *m = arena_zero(l->mem, 1, sizeof *m);
    if (!m)
        return fail_memory(err, "a step", sizeof *m);
    *m = (softmax_back){vec_train_pick(), outer, n, at_out(l, 0), at_dout(l, 0), at_din(l, 0)};
    s->kernel = "softmax_backward_f32 vec";
    s->run = softmax_run;
    s->params = m;
    return RUNG_OK;
}
