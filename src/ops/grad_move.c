/* Gradients of the operators that only move elements, and of Resize: each element of dy goes back
 * to where it came from. */
#include <string.h>

#include "ops/grad.h"
#include "ops/move.h"
#include "ops/resize.h"
#include "ops/taps.h"

/* --- plain copies ----------------------------------------------------------------------------- */
rung_status copy_grad(const grad_args *a, rung_error *err)
{
    bool any;
    const rung_status st = grad_begin(a, &any, err);
    if (st || !any || !a->din[0].data || !a->dout[0].data)
        return st;
    return copy_tensor(&a->dout[0], &a->din[0], err);
}

rung_status expand_grad(const grad_args *a, rung_error *err)
{
    bool any;
    const rung_status st = grad_begin(a, &any, err);
    return st || !any ? st : grad_broadcast(&a->dout[0], 1, &a->din[0], a->mem, err);
}

/* outer blocks of n floats, from_hop and to_hop apart. */
static void copy_blocks(const float *from, size_t from_hop, float *to, size_t to_hop, size_t n,
                        size_t outer)
{
    for (size_t o = 0; n && o < outer; o++)
        memcpy(to + o * to_hop, from + o * from_hop, n * sizeof *to);
}

rung_status concat_grad(const grad_args *a, rung_error *err)
{
    const tensor *dout = &a->dout[0];
    int axis = 0;
    bool any;
    rung_status st = grad_begin(a, &any, err);
    if (st || !any || (st = op_axis(node_int(a->n, "axis", 0), dout->rank, &axis, err)))
        return st;
    const size_t outer = dims_product(dout->dims, 0, axis);
    const size_t row = dims_product(dout->dims, axis, dout->rank);
    const float *from = dout->data;
    for (int i = 0; i < a->n_in; i++) {
        const size_t part = dims_product(a->in[i].dims, axis, a->in[i].rank);
        if (a->din[i].data)
            copy_blocks(from, row, a->din[i].data, part, part, outer);
        from += part;
    }
    return RUNG_OK;
}

rung_status split_grad(const grad_args *a, rung_error *err)
{
    const tensor *x = &a->in[0];
    const eval_args e = grad_as_eval(a);
    int axis = 0;
    bool any;
    rung_status st = grad_begin(a, &any, err);
    if (st || !any || !a->din[0].data)
        return st;
    int64_t *sizes = arena_zero(a->mem, (size_t)a->n_out, sizeof *sizes);
    if (!sizes)
        return fail_memory(err, "split sizes", (size_t)a->n_out * sizeof *sizes);
    if ((st = split_of(a->n, a->opset, eval_in(&e, 1), x->rank, x->dims, &axis, sizes, err)))
        return st;
    const size_t outer = dims_product(x->dims, 0, axis);
    const size_t inner = dims_product(x->dims, axis + 1, x->rank);
    const size_t row = (size_t)x->dims[axis] * inner;
    float *to = a->din[0].data;
    for (int i = 0; i < a->n_out; i++) {
        const size_t part = (size_t)sizes[i] * inner;
        if (a->dout[i].data && tensor_count(&a->dout[i]) != outer * part)
            return fail(err, RUNG_EMODEL, "output %d is declared with another size", i);
        if (a->dout[i].data)
            copy_blocks(a->dout[i].data, part, to, row, part, outer);
        to += part;
    }
    return RUNG_OK;
}

/* --- strided reads ---------------------------------------------------------------------------- */
typedef rung_status (*read_fn)(const eval_args *a, strided *s, rung_error *err);

/* dx[first + strides] += dy. */
static void add_strided(const strided *s, const float *dy, float *dx)
{
    const int last = s->rank - 1;
    int64_t at[RUNG_MAX_RANK] = {0};
    if (s->rank == 0) {
        *dx += *dy;
        return;
    }
    do {
        int64_t offset = (int64_t)s->first;
        for (int i = 0; i < last; i++)
            offset += at[i] * s->strides[i];
        for (int64_t i = 0; i < s->dims[last]; i++)
            dx[offset + i * s->strides[last]] += *dy++;
    } while (next_position(last, s->dims, at));
}

static rung_status strided_grad(const grad_args *a, read_fn read, rung_error *err)
{
    const eval_args e = grad_as_eval(a);
    strided s;
    bool any;
    rung_status st = grad_begin(a, &any, err);
    if (st || !any || !a->din[0].data || (st = read(&e, &s, err)))
        return st;
    if (dims_count(s.rank, s.dims) != tensor_count(&a->dout[0]))
        return fail(err, RUNG_EMODEL, "the output is declared with another size");
    add_strided(&s, a->dout[0].data, a->din[0].data);
    return RUNG_OK;
}

rung_status transpose_grad(const grad_args *a, rung_error *err)
{
    return strided_grad(a, transpose_read, err);
}

rung_status slice_grad(const grad_args *a, rung_error *err)
{
    return strided_grad(a, slice_read, err);
}

rung_status depth_to_space_grad(const grad_args *a, rung_error *err)
{
    return strided_grad(a, depth_to_space_read, err);
}

rung_status space_to_depth_grad(const grad_args *a, rung_error *err)
{
    return strided_grad(a, space_to_depth_read, err);
}

/* --- reads by index maps (ops/move.h: gather_mapped) ------------------------------------------ */
/* dx[maps] += dy; gives the sum of those that no map names. */
static double add_mapped(const tensor *dout, int64_t *const *maps, tensor *din)
{
    const int last = dout->rank - 1;
    const float *dy = dout->data;
    float *dx = din->data;
    int64_t strides[RUNG_MAX_RANK], at[RUNG_MAX_RANK] = {0};
    double fill = 0;
    if (dout->rank == 0) {
        if (dx)
            *dx += *dy;
        return 0;
    }
    dims_strides(din->rank, din->dims, strides);
    do {
        int64_t offset = 0;
        for (int i = 0; i < last && offset >= 0; i++)
            offset = maps[i][at[i]] < 0 ? -1 : offset + maps[i][at[i]] * strides[i];
        for (int64_t i = 0; i < dout->dims[last]; i++, dy++) {
            if (offset < 0 || maps[last][i] < 0)
                fill += *dy;
            else if (dx)
                dx[offset + maps[last][i]] += *dy;
        }
    } while (next_position(last, dout->dims, at));
    return fill;
}

rung_status pad_grad(const grad_args *a, rung_error *err)
{
    const eval_args e = grad_as_eval(a);
    int64_t *maps[RUNG_MAX_RANK];
    bool any;
    rung_status st = grad_begin(a, &any, err);
    if (st || !any || (st = pad_read(&e, &a->dout[0], maps, err)))
        return st;
    const double fill = add_mapped(&a->dout[0], maps, &a->din[0]);
    if (a->n_in > 2 && a->din[2].data)
        *(float *)a->din[2].data = (float)fill;
    return RUNG_OK;
}

rung_status tile_grad(const grad_args *a, rung_error *err)
{
    const eval_args e = grad_as_eval(a);
    int64_t *maps[RUNG_MAX_RANK];
    bool any;
    rung_status st = grad_begin(a, &any, err);
    if (st || !any || (st = tile_read(&e, &a->dout[0], maps, err)))
        return st;
    add_mapped(&a->dout[0], maps, &a->din[0]);
    return RUNG_OK;
}

/* --- Gather, GatherElements ------------------------------------------------------------------- */
rung_status gather_grad(const grad_args *a, rung_error *err)
{
    const tensor *x = &a->in[0], *index = &a->in[1];
    const float *dy = a->dout[0].data;
    float *dx = a->din[0].data;
    int axis = 0;
    bool any;
    rung_status st = grad_begin(a, &any, err);
    if (st || !any || !dx || (st = op_axis(node_int(a->n, "axis", 0), x->rank, &axis, err)))
        return st;
    const size_t outer = dims_product(x->dims, 0, axis), n = tensor_count(index);
    const size_t inner = dims_product(x->dims, axis + 1, x->rank), dim = (size_t)x->dims[axis];
    for (size_t i = 0; i < n; i++) {
        size_t at = 0;
        if ((st = wrap_index(tensor_get_int(index, i), x->dims[axis], &at, err)))
            return st;
        for (size_t o = 0; o < outer; o++) {
            const float *from = dy + (o * n + i) * inner;
            float *to = dx + (o * dim + at) * inner;
            for (size_t k = 0; k < inner; k++)
                to[k] += from[k];
        }
    }
    return RUNG_OK;
}

rung_status gather_elements_grad(const grad_args *a, rung_error *err)
{
    const tensor *x = &a->in[0], *index = &a->in[1];
    int axis = 0;
    bool any;
    rung_status st = grad_begin(a, &any, err);
    if (st || !any || !a->din[0].data ||
        (st = op_axis(node_int(a->n, "axis", 0), x->rank, &axis, err)))
        return st;
    const size_t n = tensor_count(index);
    for (size_t i = 0; i < n; i++) {
        size_t from;
        if ((st = gathered_element(x, index, axis, i, &from, err)))
            return st;
        ((float *)a->din[0].data)[from] += ((const float *)a->dout[0].data)[i];
    }
    return RUNG_OK;
}

/* --- Resize ----------------------------------------------------------------------------------- */
/* dx [outer, in, inner] += along one axis what dy [outer, out, inner] read there. */
static void resample_back(const resize *r, int axis, size_t outer, size_t inner, const double *dy,
                          double *dx)
{
    const size_t in = (size_t)r->in[axis], out = (size_t)r->out[axis];
    for (size_t o = 0; o < out; o++) {
        int64_t index[RESIZE_TAPS];
        double weight[RESIZE_TAPS];
        const int n = resize_taps(r, axis, (int64_t)o, index, weight);
        for (size_t block = 0; block < outer; block++) {
            const double *from = dy + (block * out + o) * inner;
            for (int t = 0; t < n; t++) {
                double *to = dx + (block * in + (size_t)index[t]) * inner;
                for (size_t i = 0; i < inner; i++)
                    to[i] += weight[t] * from[i];
            }
        }
    }
}

/* The axes in the opposite order of evaluation: those before are still as long as the result's. */
static rung_status weighted_grad(const grad_args *a, const resize *r, rung_error *err)
{
    int64_t dims[RUNG_MAX_RANK];
    size_t n = tensor_count(&a->dout[0]);
    double *dy = arena_zero(a->mem, n, sizeof *dy);
    if (!dy)
        return fail_memory(err, "the gradient", n * sizeof *dy);
    for (size_t i = 0; i < n; i++)
        dy[i] = ((const float *)a->dout[0].data)[i];
    memcpy(dims, r->out, sizeof dims);
    for (int i = r->rank - 1; i >= 0; i--) {
        if (r->scale[i] == 1 && r->in[i] == r->out[i])
            continue;
        const size_t outer = dims_product(dims, 0, i), inner = dims_product(dims, i + 1, r->rank);
        dims[i] = r->in[i];
        n = dims_count(r->rank, dims);
        double *dx = n == SIZE_MAX ? NULL : arena_zero(a->mem, n + 1, sizeof *dx);
        if (!dx)
            return fail_memory(err, "the gradient of a resampled axis", n);
        resample_back(r, i, outer, inner, dy, dx);
        dy = dx;
    }
    for (size_t i = 0; i < n; i++)
        ((float *)a->din[0].data)[i] = (float)dy[i];
    return RUNG_OK;
}

rung_status resize_grad(const grad_args *a, rung_error *err)
{
    const eval_args e = grad_as_eval(a);
    resize r;
    int64_t *maps[RUNG_MAX_RANK];
    bool any;
    rung_status st = grad_begin(a, &any, err);
    if (st || !any || !a->din[0].data || (st = resize_read(&e, &a->dout[0], &r, err)))
        return st;
    if (r.mode != RESIZE_NEAREST)
        return weighted_grad(a, &r, err);
    if ((st = resize_maps(&e, &r, &a->dout[0], maps, err)) == RUNG_OK)
        add_mapped(&a->dout[0], maps, &a->din[0]);
    return st;
}
