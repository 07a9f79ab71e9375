/* Movers that write more than they read, or pick: Pad, Expand, Tile, Gather by constant indices. */
#include "kernels/arith.h"
#include "ops/lower_move.h"
#include "ops/lower_wide.h"
#include "ops/move.h"

#include <string.h>

/* More index runs than this are no longer a list of copies worth making. */
#define MAX_GATHER_PARTS 1024

static const tensor *constant_at(const lowering *l, int i)
{
    return i < l->n_in && !operand_absent(&l->in[i]) ? l->in[i].constant : NULL;
}

/* What Pad puts around: in the output's codes where that is quantized. */
static rung_status fill_value(const lowering *l, move_step *m, rung_error *err)
{
    const operand *y = &l->out[0];
    const operand *v = l->n_in > 2 && !operand_absent(&l->in[2]) ? &l->in[2] : NULL;
    if (v && (!v->constant || stored_count(v) != 1))
        return fail(err, RUNG_EUNSUPPORTED, "its value is not one constant number");
    if (!y->quantized) {
        if (v && v->type != y->type)
            return fail(err, RUNG_EMODEL, "its value has another type than its input");
        if (v)
            memcpy(m->fill, v->constant->data, dtype_bytes(y->type, 1));
        return RUNG_OK;
    }
    float real = v ? (float)tensor_get(v->constant, 0) : 0;
    if (v && v->quantized)
        real = (real - (float)v->zero) * v->scale;
    const int code = quantize_code(real, y->scale, y->zero, l->q_lo, l->q_hi);
    const uint16_t wide = (uint16_t)code;
    m->fill[0] = (uint8_t)code;
    if (operand_is_wide(y))
        memcpy(m->fill, &wide, sizeof wide);
    return RUNG_OK;
}

/* The frame of axis k, before and behind what is already written along the axes before it: inner
 * bounds [lo, hi) there, the whole extent along the axes behind. */
static rung_status add_frame(mover *b, int k, const int64_t *lo, const int64_t *hi, rung_error *err)
{
    const operand *y = &b->l->out[0];
    int64_t ys[RUNG_MAX_RANK], dims[RUNG_MAX_RANK], at = 0;
    stored_strides(y, ys);
    for (int i = 0; i < y->rank; i++) {
        dims[i] = i < k ? hi[i] - lo[i] : y->dims[i];
        at += i < k ? lo[i] * ys[i] : 0;
    }
    dims[k] = lo[k];
    rung_status st = mover_add(b, -1, 0, 0, at, y->rank, dims, ys, ys, err);
    dims[k] = y->dims[k] - hi[k];
    if (st == RUNG_OK)
        st = mover_add(b, -1, 0, 0, at + hi[k] * ys[k], y->rank, dims, ys, ys, err);
    return st;
}

rung_status lower_pad(const lowering *l, step *s, rung_error *err)
{
    const operand *x = &l->in[0], *y = &l->out[0];
    int64_t xs[RUNG_MAX_RANK], ys[RUNG_MAX_RANK], dims[RUNG_MAX_RANK];
    int64_t lo[RUNG_MAX_RANK], hi[RUNG_MAX_RANK], from = 0, to = 0;
    pad_amounts pad;
    mover b;
    if (!constant_at(l, 1) || (l->n_in > 3 && !operand_absent(&l->in[3]) && !constant_at(l, 3)))
        return fail(err, RUNG_EUNSUPPORTED, "its pads are not constant");
    rung_status st = pad_of(l->n, constant_at(l, 1), constant_at(l, 3), x->rank, &pad, err);
    if (st != RUNG_OK)
        return st;
    if (pad.mode != PAD_CONSTANT)
        return fail(err, RUNG_EUNSUPPORTED, "there is no kernel for its mode");
    if ((st = mover_begin(&b, l, err)) != RUNG_OK || (st = fill_value(l, b.m, err)) != RUNG_OK)
        return st;
    stored_strides(x, xs);
    stored_strides(y, ys);
    for (int i = 0; i < x->rank; i++) {
        const int64_t before = pad.before[i], cut = before < 0 ? -before : 0;
        lo[i] = before > 0 ? before : 0;
        const int64_t end = before + x->dims[i];
        hi[i] = end < y->dims[i] ? end : y->dims[i];
        if (lo[i] > y->dims[i] || hi[i] < lo[i])
            return fail(err, RUNG_EUNSUPPORTED, "its pads remove everything");
        dims[i] = hi[i] - lo[i];
        from += cut * xs[i];
        to += lo[i] * ys[i];
    }
    st = mover_add(&b, 0, 0, from, to, x->rank, dims, xs, ys, err);
    for (int k = 0; k < x->rank && st == RUNG_OK; k++)
        st = add_frame(&b, k, lo, hi, err);
    return st == RUNG_OK ? mover_end(&b, "pad", s, err) : st;
}

rung_status lower_expand(const lowering *l, step *s, rung_error *err)
{
    const operand *x = &l->in[0], *y = &l->out[0];
    int64_t xs[RUNG_MAX_RANK], ys[RUNG_MAX_RANK], walk[RUNG_MAX_RANK] = {0};
    mover b;
    rung_status st = mover_begin(&b, l, err);
    if (st != RUNG_OK)
        return st;
    if (x->rank > y->rank || (x->channels_last && x->rank != y->rank))
        return fail(err, RUNG_EUNSUPPORTED, "its layouts differ");
    stored_strides(x, xs);
    stored_strides(y, ys);
    for (int i = 0; i < x->rank; i++)
        if (x->dims[i] != 1)
            walk[y->rank - x->rank + i] = xs[i];
    st = mover_add(&b, 0, 0, 0, 0, y->rank, y->dims, walk, ys, err);
    return st == RUNG_OK ? mover_end(&b, "expand", s, err) : st;
}

rung_status lower_tile(const lowering *l, step *s, rung_error *err)
{
    const operand *x = &l->in[0], *y = &l->out[0];
    int64_t xs[RUNG_MAX_RANK], ys[RUNG_MAX_RANK];
    int64_t dims[2 * RUNG_MAX_RANK], from[2 * RUNG_MAX_RANK], to[2 * RUNG_MAX_RANK];
    mover b;
    rung_status st = mover_begin(&b, l, err);
    if (st != RUNG_OK)
        return st;
    if (x->rank != y->rank)
        return fail(err, RUNG_EMODEL, "its output has another rank than its input");
    stored_strides(x, xs);
    stored_strides(y, ys);
    for (int i = 0; i < x->rank; i++) {
        dims[2 * i] = y->dims[i] / x->dims[i];
        from[2 * i] = 0;
        to[2 * i] = ys[i] * x->dims[i];
        dims[2 * i + 1] = x->dims[i];
        from[2 * i + 1] = xs[i];
        to[2 * i + 1] = ys[i];
    }
    st = mover_add(&b, 0, 0, 0, 0, 2 * x->rank, dims, from, to, err);
    return st == RUNG_OK ? mover_end(&b, "tile", s, err) : st;
}

/* Indices k .. *end - 1 have one distance, *stride, between neighbours. */
static size_t index_run(const tensor *t, size_t k, int64_t extent, int64_t *first, int64_t *stride)
{
    const size_t n = tensor_count(t);
    size_t end = k + 1;
    *first = tensor_get_int(t, k);
    *first += *first < 0 ? extent : 0;
    *stride = 0;
    int64_t last = *first;
    for (; end < n; end++) {
        int64_t next = tensor_get_int(t, end);
        next += next < 0 ? extent : 0;
        if (next < 0 || next >= extent || (end > k + 1 && next - last != *stride))
            break;
        *stride = next - last;
        last = next;
    }
    return end;
}

rung_status lower_gather(const lowering *l, step *s, rung_error *err)
{
    const operand *x = &l->in[0], *y = &l->out[0];
    const tensor *index = constant_at(l, 1);
    int64_t xs[RUNG_MAX_RANK], dims[RUNG_MAX_RANK], from[RUNG_MAX_RANK], to[RUNG_MAX_RANK];
    const int64_t given = node_int(l->n, "axis", 0), axis = given < 0 ? given + x->rank : given;
    mover b;
    rung_status st = mover_begin(&b, l, err);
    if (st != RUNG_OK)
        return st;
    if (!index || x->channels_last || y->channels_last || axis < 0 || axis >= x->rank)
        return fail(err, RUNG_EUNSUPPORTED, "its indices are not constant");
    const size_t n = tensor_count(index);
    int64_t inner = 1;
    for (int i = x->rank - 1; i >= 0; i--) {
        dims[i] = x->dims[i];
        to[i] = i > axis ? inner : i == axis ? inner : inner * (int64_t)n;
        inner *= i == axis ? 1 : x->dims[i];
    }
    stored_strides(x, xs);
    memcpy(from, xs, sizeof xs);
    for (size_t k = 0; k < n && st == RUNG_OK;) {
        int64_t first, stride;
        const size_t end = index_run(index, k, x->dims[axis], &first, &stride);
        if (first < 0 || first >= x->dims[axis])
            return fail(err, RUNG_EMODEL, "index %zu is out of range", k);
        if (b.m->n_parts == MAX_GATHER_PARTS)
            return fail(err, RUNG_EUNSUPPORTED, "too many indices for copies");
        dims[axis] = (int64_t)(end - k);
        from[axis] = stride * xs[axis];
        st = mover_add(&b, 0, 0, first * xs[axis], (int64_t)k * to[axis], x->rank, dims, from, to,
                       err);
        k = end;
    }
    return st == RUNG_OK ? mover_end(&b, "gather", s, err) : st;
}
