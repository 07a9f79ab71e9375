/* Gradients of values while the walk goes back: each user of a value adds a part. A cell that was
 * written is never changed, so parts may be one cell for several values (the operands of an Add);
 * the sum of two takes the memory of one where that is free. */
#include "kernels/kernels.h"
#include "nn/vec.h"
#include "train/tape_parts.h"

static void run_add_to_param(const step *s, void *const *bufs, void *scratch, int thread,
                             int n_threads)
{
    const size_t *n = s->params;
    size_t first, last;
    kernel_share(*n, 16, thread, n_threads, &first, &last);
    const float *part = bufs[0];
    float *sum = bufs[1];
    vec_pick()->binary[VEC_ADD](sum + first, 1, part + first, 1, last - first, sum + first);
}

rung_status tape_param_grad(tape *t, int v, int *out, rung_error *err)
{
    const param *p = &t->p->list[t->p->at[v]];
    return cell_at(t, CELL_GRAD, v, p->first, p->count * sizeof(float), NULL, out, err);
}

static rung_status add_to_param(tape *t, int v, int from, rung_error *err)
{
    const param *p = &t->p->list[t->p->at[v]];
    const step s = {.kernel = "sum_f32 vec", .run = run_add_to_param,
                    .params = arena_copy(t->mem, &p->count, sizeof p->count)};
    if (!s.params)
        return tape_out_of_memory(err);
    int to;
    const rung_status st = tape_param_grad(t, v, &to, err);
    const int cells[2] = {from, to};
    return st == RUNG_OK ? tape_add(t, &s, NULL, cells, 2, 1, NULL, err) : st;
}

rung_status tape_contribute(tape *t, int v, int from, bool last, rung_error *err)
{
    rung_status st = RUNG_OK;
    if (!t->active[v])
        return RUNG_OK;
    last = last && tape_may_be_last(t, v);
    if (tape_is_param(t, v))
        return add_to_param(t, v, from, err);
    if (last != t->home[v])
        st = tape_convert(t, v, from, last, &from, err);
    if (st == RUNG_OK && t->grad[v] != NO_CELL)
        st = tape_sum(t, t->grad[v], from, &from, err);
    if (st == RUNG_OK)
        t->grad[v] = from;
    return st;
}

rung_status tape_grad(tape *t, int v, bool last, int *out, rung_error *err)
{
    *out = v < 0 ? NO_CELL : t->grad[v];
    if (*out == NO_CELL || (last && tape_may_be_last(t, v)) == t->home[v])
        return RUNG_OK;
    return tape_convert(t, v, t->grad[v], t->home[v], out, err);
}
