/* Softmax along an axis whose elements lie side by side. */
#include "ops/lower.h"

static void run_softmax(const step *s, void *const *bufs, void *scratch, int thread, int n_threads)
{
    const softmax_step *p = s->params;
    softmax_u8(bufs[0], p->outer, p->n, p->x_scale, p->y_scale, p->y_zero, p->lo, p->hi, bufs[1],
               thread, n_threads);
}

rung_status lower_softmax(const lowering *l, step *s, rung_error *err)
{
    const operand *x = &l->in[0], *y = &l->out[0];
    int64_t strides[RUNG_MAX_RANK];
    const int64_t given = node_int(l->n, "axis", -1), axis = given < 0 ? given + x->rank : given;
    if (!x->quantized || x->constant || axis < 0 || axis >= x->rank ||
        x->channels_last != y->channels_last)
        return fail(err, RUNG_EUNSUPPORTED, "its input is not a quantized activation");
    stored_strides(x, strides);
    if (strides[axis] != 1)
        return fail(err, RUNG_EUNSUPPORTED, "its axis %lld is not the innermost one",
                    (long long)axis);
    softmax_step *p = arena_zero(l->mem, 1, sizeof *p);
    if (!p)
        return fail_memory(err, "a step", sizeof *p);
    const size_t n = (size_t)x->dims[axis];
    *p = (softmax_step){.outer = stored_count(x) / n,
                        .n = n,
                        .x_scale = x->scale,
                        .y_scale = y->scale,
                        .y_zero = y->zero,
                        .lo = l->q_lo,
                        .hi = l->q_hi};
    *s = (step){.kernel = "softmax_u8", .run = run_softmax, .params = p};
    return RUNG_OK;
}
