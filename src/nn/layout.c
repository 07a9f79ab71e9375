#include "nn/layout.h"

#include <string.h>

bool operand_channels_last(const operand *o)
{
    return o->channels_last && o->rank >= 3 && !o->constant;
}

void operand_order(const operand *o, int order[RUNG_MAX_RANK])
{
    const bool last = operand_channels_last(o);
    for (int i = 0; i < o->rank; i++)
        order[i] = !last || i == 0 ? i : i + 1 < o->rank ? i + 1 : 1;
}

bool operand_block(const operand *o, unsigned axes, size_t *outer, size_t *n, size_t *inner)
{
    int order[RUNG_MAX_RANK];
    *outer = *n = *inner = 1;
    operand_order(o, order);
    for (int i = 0; i < o->rank; i++) {
        const size_t d = (size_t)o->dims[order[i]];
        if (d == 1)
            continue;
        if (!(axes >> order[i] & 1)) {
            if (*n == 1)
                *outer *= d;
            else
                *inner *= d;
        } else if (*inner == 1) {
            *n *= d;
        } else {
            return false;
        }
    }
    return true;
}

bool operand_same_storage(const operand *a, const operand *b)
{
    int64_t a_strides[RUNG_MAX_RANK], b_strides[RUNG_MAX_RANK];
    if (a->rank != b->rank || memcmp(a->dims, b->dims, (size_t)a->rank * sizeof *a->dims) != 0)
        return false;
    stored_strides(a, a_strides);
    stored_strides(b, b_strides);
    for (int i = 0; i < a->rank; i++) {
        if (a->dims[i] != 1 && a_strides[i] != b_strides[i])
            return false;
    }
    return true;
}

bool has_input(const lowering *l, int i)
{
    return i < l->n_in && i != l->epi.add && l->in[i].type != RUNG_UNDEFINED;
}

rung_status source_open(const lowering *l, int i, source *out, rung_error *err)
{
    const operand *o = &l->in[i];
    *out = (source){.buf = i};
    if (!o->constant)
        return RUNG_OK;
    const size_t size = dtype_bytes(o->type, stored_count(o));
    out->fixed = arena_copy(l->mem, o->constant->data, size);
    return out->fixed ? RUNG_OK : fail_memory(err, "a constant operand", size);
}

bool axis_normal(int64_t axis, int rank, int *out)
{
    if (axis < -rank || axis >= rank)
        return false;
    *out = (int)(axis < 0 ? axis + rank : axis);
    return true;
}

int constant_ints(const lowering *l, int i, int64_t v[RUNG_MAX_RANK * 2])
{
    const tensor *t = has_input(l, i) ? l->in[i].constant : NULL;
    if (!t || (t->type != RUNG_I64 && t->type != RUNG_I32))
        return -1;
    const size_t n = tensor_count(t);
    if (n > RUNG_MAX_RANK * 2)
        return -1;
    for (size_t k = 0; k < n; k++)
        v[k] = tensor_get_int(t, k);
    return (int)n;
}

bool constant_number(const lowering *l, int i, float *v)
{
    if (!has_input(l, i))
        return true;
    const tensor *t = l->in[i].constant;
    if (!t || t->type != RUNG_F32 || tensor_count(t) != 1)
        return false;
    *v = *(const float *)t->data;
    return true;
}
