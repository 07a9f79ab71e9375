#include "nn/broadcast.h"

#include "kernels/kernels.h"

void broadcast_seek(const broadcast *k, size_t row, broadcast_cursor *c)
{
    c->a = c->b = 0;
    for (int i = k->rank - 1; i >= 0; i--) {
        c->at[i] = (int64_t)(row % (size_t)k->dims[i]);
        row /= (size_t)k->dims[i];
        c->a += c->at[i] * k->a_strides[i];
        c->b += c->at[i] * k->b_strides[i];
    }
}

void broadcast_next(const broadcast *k, broadcast_cursor *c)
{
    for (int i = k->rank - 1; i >= 0; i--) {
        c->a += k->a_strides[i];
        c->b += k->b_strides[i];
        if (++c->at[i] < k->dims[i])
            return;
        c->a -= k->dims[i] * k->a_strides[i];
        c->b -= k->dims[i] * k->b_strides[i];
        c->at[i] = 0;
    }
}

/* The strides of operand o along the output's dims, 0 where it is repeated; false: no broadcast. */
static bool broadcast_strides(const operand *o, const operand *y, int64_t out[RUNG_MAX_RANK])
{
    int64_t own[RUNG_MAX_RANK];
    const int ahead = y->rank - o->rank;
    stored_strides(o, own);
    for (int i = 0; i < y->rank; i++) {
        const int64_t d = i < ahead ? 1 : o->dims[i - ahead];
        if (ahead < 0 || (d != 1 && d != y->dims[i]))
            return false;
        out[i] = d == 1 ? 0 : own[i - ahead];
    }
    return true;
}

/* A constant is brought into the output's layout, so that its innermost steps are 0 or 1. */
static rung_status open_operand(const lowering *l, int i, source *src, int64_t *strides,
                                rung_error *err)
{
    operand o = l->in[i];
    const operand *y = &l->out[0];
    copy_shape copy = {.elem = 4};
    const rung_status st = source_open(l, i, src, err);
    if (st != RUNG_OK)
        return st;
    if (!broadcast_strides(&o, y, strides))
        return fail(err, RUNG_EUNSUPPORTED, "operands that do not broadcast to the output");
    if (!o.constant || !operand_channels_last(y) || stored_count(&o) == 1)
        return RUNG_OK;
    float *moved = arena_alloc(l->mem, stored_count(&o) * sizeof *moved);
    if (!moved)
        return fail_memory(err, "a constant operand", stored_count(&o) * sizeof *moved);
    const int ahead = y->rank - o.rank;
    operand to = {.rank = y->rank, .channels_last = true};
    int64_t to_strides[RUNG_MAX_RANK];
    for (int d = 0; d < y->rank; d++)
        to.dims[d] = d < ahead ? 1 : o.dims[d - ahead];
    stored_strides(&to, to_strides);
    copy.rank = y->rank;
    for (int d = 0; d < y->rank; d++) {
        copy.dims[d] = to.dims[d];
        copy.x_strides[d] = strides[d];
        copy.y_strides[d] = to_strides[d];
        strides[d] = to.dims[d] == 1 ? 0 : to_strides[d];
    }
    copy_shape_normalise(&copy);
    copy_strided(&copy, src->fixed, moved, 0, 1);
    src->fixed = moved;
    return RUNG_OK;
}

/* Joins the output's dims, outermost first in memory, where both operands walk on evenly, and takes
 * the last as the row. false: an operand would be walked by steps that are neither 0 nor 1. */
static bool set_rows(broadcast *k, const operand *y, const int64_t *a, const int64_t *b)
{
    int order[RUNG_MAX_RANK], n = 0;
    operand_order(y, order);
    for (int i = 0; i < y->rank; i++) {
        const int d = order[i];
        if (y->dims[d] == 1)
            continue;
        if (n > 0 && k->a_strides[n - 1] == a[d] * y->dims[d] &&
            k->b_strides[n - 1] == b[d] * y->dims[d])
            n--, k->dims[n] *= y->dims[d];
        else
            k->dims[n] = y->dims[d];
        k->a_strides[n] = a[d];
        k->b_strides[n++] = b[d];
    }
    k->inner = 1;
    if (n == 0)
        return true;
    k->rank = n - 1;
    k->inner = (size_t)k->dims[n - 1];
    k->a_step = (int)k->a_strides[n - 1];
    k->b_step = (int)k->b_strides[n - 1];
    return k->a_strides[n - 1] <= 1 && k->b_strides[n - 1] <= 1;
}

rung_status broadcast_open(const lowering *l, broadcast *k, rung_error *err)
{
    int64_t a[RUNG_MAX_RANK], b[RUNG_MAX_RANK];
    rung_status st = open_operand(l, 0, &k->a, a, err);
    if (st != RUNG_OK || (st = open_operand(l, 1, &k->b, b, err)) != RUNG_OK)
        return st;
    if (!set_rows(k, &l->out[0], a, b))
        return fail(err, RUNG_EUNSUPPORTED, "operands of different layouts");
    k->count = stored_count(&l->out[0]);
    return RUNG_OK;
}
