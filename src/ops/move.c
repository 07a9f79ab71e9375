/* Transpose, Slice, Concat, Split. */
#include "ops/move.h"

#include <string.h>

#include "kernels/kernels.h"
#include "ops/entries.h"
#include "ops/grad.h"
#include "ops/lower.h"
#include "ops/walk.h"

size_t movable_size(dtype type)
{
    const size_t n = dtype_bytes(type, 1);
    const bool packed = dtype_bytes(type, 2) == n; /* several elements a byte */
    return packed || n > 8 ? 0 : n;
}

rung_status check_movable(dtype type, rung_error *err)
{
    if (movable_size(type) != 0)
        return RUNG_OK;
    return fail(err, RUNG_EUNSUPPORTED, "cannot move elements of type %s", dtype_name(type));
}

rung_status copy_tensor(const tensor *from, tensor *to, rung_error *err)
{
    const size_t count = tensor_count(to), n = dtype_bytes(to->type, count);
    if (count != tensor_count(from) || to->type != from->type)
        return fail(err, RUNG_EMODEL, "the output is declared with another type or size");
    if (n == 0 && count != 0)
        return fail(err, RUNG_EUNSUPPORTED, "cannot copy elements of type %s",
                    dtype_name(to->type));
    if (n)
        memcpy(to->data, from->data, n);
    return RUNG_OK;
}

void gather_strided(const tensor *x, size_t x_first, const int64_t *x_strides, tensor *y)
{
    copy_shape s = {.rank = y->rank, .elem = (int)movable_size(y->type)};
    memcpy(s.dims, y->dims, sizeof s.dims);
    memcpy(s.x_strides, x_strides, (size_t)y->rank * sizeof *x_strides);
    dims_strides(y->rank, y->dims, s.y_strides);
    copy_strided(&s, (const char *)x->data + x_first * (size_t)s.elem, y->data, 0, 1);
}

rung_status eval_strided(const eval_args *a, const strided *s, rung_error *err)
{
    tensor y = a->out[0];
    const rung_status st = check_movable(y.type, err);
    y.rank = s->rank;
    memcpy(y.dims, s->dims, sizeof y.dims);
    if (st == RUNG_OK && tensor_count(&y) != 0)
        gather_strided(&a->in[0], s->first, s->strides, &y);
    return st;
}

/* --- Transpose -------------------------------------------------------------------------------- */
rung_status perm_of(const node *n, int rank, int *perm, rung_error *err)
{
    const int64_t *v = NULL;
    const size_t have = node_ints(n, "perm", &v);
    axes order;
    if (have == 0) {
        for (int i = 0; i < rank; i++)
            perm[i] = rank - 1 - i;
        return RUNG_OK;
    }
    if (have != (size_t)rank)
        return fail(err, RUNG_EMODEL, "perm has %zu entries, the input has rank %d", have, rank);
    const rung_status st = op_axes(v, have, rank, &order, err);
    if (st == RUNG_OK)
        memcpy(perm, order.at, (size_t)rank * sizeof *perm);
    return st;
}

static rung_status transpose_infer(const infer_args *a, rung_error *err)
{
    int perm[RUNG_MAX_RANK];
    int64_t dims[RUNG_MAX_RANK];
    rung_status st;
    if ((st = op_counts(a, 1, 1, 1, err)))
        return st;
    const value_info *x = a->in[0];
    a->out[0].type = x->type;
    if (x->rank < 0)
        return RUNG_OK;
    if ((st = perm_of(a->n, x->rank, perm, err)))
        return st;
    for (int i = 0; i < x->rank; i++)
        dims[i] = x->dims[perm[i]];
    return op_shape(&a->out[0], x->type, x->rank, dims, err);
}

rung_status transpose_read(const eval_args *a, strided *s, rung_error *err)
{
    int perm[RUNG_MAX_RANK];
    int64_t own[RUNG_MAX_RANK];
    const tensor *x = &a->in[0];
    const rung_status st = perm_of(a->n, x->rank, perm, err);
    if (st)
        return st;
    *s = (strided){.rank = x->rank};
    dims_strides(x->rank, x->dims, own);
    for (int i = 0; i < x->rank; i++) {
        s->dims[i] = x->dims[perm[i]];
        s->strides[i] = own[perm[i]];
    }
    return RUNG_OK;
}

static rung_status transpose_eval(const eval_args *a, rung_error *err)
{
    strided s;
    const rung_status st = transpose_read(a, &s, err);
    return st ? st : eval_strided(a, &s, err);
}

/* --- Slice ------------------------------------------------------------------------------------ */
static int64_t clamp(int64_t v, int64_t lo, int64_t hi)
{
    return v < lo ? lo : v > hi ? hi : v;
}

static rung_status slice_axis(slice *s, int axis, int64_t dim, int64_t from, int64_t to,
                              int64_t by, rung_error *err)
{
    if (by == 0)
        return fail(err, RUNG_EMODEL, "the step of axis %d is 0", axis);
    if (by == INT64_MIN)
        by = -INT64_MAX; /* so that it can be negated */
    s->step[axis] = by;
    s->count[axis] = DIM_UNKNOWN;
    if (dim == DIM_UNKNOWN)
        return RUNG_OK;
    from += from < 0 ? dim : 0;
    to += to < 0 ? dim : 0;
    from = by > 0 ? clamp(from, 0, dim) : clamp(from, 0, dim - 1);
    to = by > 0 ? clamp(to, 0, dim) : clamp(to, -1, dim - 1);
    const int64_t reach = by > 0 ? to - from : from - to;
    s->start[axis] = from;
    s->count[axis] = reach <= 0 || dim == 0 ? 0 : (reach - 1) / (by > 0 ? by : -by) + 1;
    return RUNG_OK;
}

rung_status slice_of(const tensor *starts, const tensor *ends, const tensor *axis_list,
                     const tensor *steps, int rank, const int64_t *dims, slice *out,
                     rung_error *err)
{
    int64_t from[RUNG_MAX_RANK], to[RUNG_MAX_RANK], at[RUNG_MAX_RANK], by[RUNG_MAX_RANK];
    size_t n, n_ends, n_axes, n_steps;
    axes list;
    rung_status st;
    if ((st = op_ints(starts, "starts", (size_t)rank, from, &n, err)) ||
        (st = op_ints(ends, "ends", (size_t)rank, to, &n_ends, err)))
        return st;
    for (size_t i = 0; i < n; i++) {
        at[i] = (int64_t)i;
        by[i] = 1;
    }
    n_axes = n_steps = n;
    if ((axis_list && (st = op_ints(axis_list, "axes", (size_t)rank, at, &n_axes, err))) ||
        (steps && (st = op_ints(steps, "steps", (size_t)rank, by, &n_steps, err))))
        return st;
    if (n_ends != n || n_axes != n || n_steps != n)
        return fail(err, RUNG_EMODEL, "%zu starts, %zu ends, %zu axes, %zu steps", n, n_ends,
                    n_axes, n_steps);
    if ((st = op_axes(at, n, rank, &list, err)))
        return st;
    for (int i = 0; i < rank; i++) {
        out->start[i] = 0;
        out->step[i] = 1;
        out->count[i] = dims[i];
    }
    for (size_t i = 0; st == RUNG_OK && i < n; i++)
        st = slice_axis(out, list.at[i], dims[list.at[i]], from[i], to[i], by[i], err);
    return st;
}

/* The bounds are not known: so are the dimensions of the axes they are for (all, if those too). */
static rung_status slice_unknown(const infer_args *a, rung_error *err)
{
    const value_info *x = a->in[0], *list = op_in(a, 3);
    int64_t dims[RUNG_MAX_RANK], v[RUNG_MAX_RANK];
    axes cut = {.n = 0};
    size_t n = 0;
    rung_status st;
    if (list && list->data &&
        ((st = op_ints(list->data, "axes", (size_t)x->rank, v, &n, err)) ||
         (st = op_axes(v, n, x->rank, &cut, err))))
        return st;
    const bool all = !list || !list->data;
    for (int i = 0; i < x->rank; i++)
        dims[i] = all || cut.has[i] ? DIM_UNKNOWN : x->dims[i];
    return op_shape(&a->out[0], x->type, x->rank, dims, err);
}

static const tensor *known(const value_info *v)
{
    return v ? v->data : NULL;
}

static rung_status slice_infer(const infer_args *a, rung_error *err)
{
    slice s;
    rung_status st;
    if ((st = op_counts(a, 3, 5, 1, err)))
        return st;
    const value_info *x = a->in[0];
    a->out[0].type = x->type;
    for (int i = 1; i < 5; i++) {
        if ((st = op_type(a, i, TYPES_INDEX, err)))
            return st;
    }
    if (x->rank < 0)
        return RUNG_OK;
    for (int i = 1; i < 5; i++) {
        if (op_in(a, i) && !a->in[i]->data)
            return slice_unknown(a, err);
    }
    if ((st = slice_of(a->in[1]->data, a->in[2]->data, known(op_in(a, 3)), known(op_in(a, 4)),
                       x->rank, x->dims, &s, err)))
        return st;
    return op_shape(&a->out[0], x->type, x->rank, s.count, err);
}

rung_status slice_read(const eval_args *a, strided *s, rung_error *err)
{
    slice cut;
    int64_t own[RUNG_MAX_RANK];
    const tensor *x = &a->in[0];
    const rung_status st = slice_of(&a->in[1], &a->in[2], eval_in(a, 3), eval_in(a, 4), x->rank,
                                    x->dims, &cut, err);
    if (st)
        return st;
    *s = (strided){.rank = x->rank};
    memcpy(s->dims, cut.count, (size_t)x->rank * sizeof *s->dims);
    if (dims_count(s->rank, s->dims) == 0)
        return RUNG_OK;
    dims_strides(x->rank, x->dims, own);
    for (int i = 0; i < x->rank; i++) {
        s->first += (size_t)(cut.start[i] * own[i]);
        s->strides[i] = cut.count[i] > 1 ? own[i] * cut.step[i] : 0;
    }
    return RUNG_OK;
}

static rung_status slice_eval(const eval_args *a, rung_error *err)
{
    strided s;
    rung_status st;
    if ((st = slice_read(a, &s, err)) ||
        (st = op_check_output(&a->out[0], s.rank, s.dims, err)))
        return st;
    return eval_strided(a, &s, err);
}

/* --- Concat ----------------------------------------------------------------------------------- */
/* Joins input v to the dims so far. */
static rung_status join(int64_t *dims, const value_info *v, int axis, int i, rung_error *err)
{
    for (int d = 0; d < v->rank; d++) {
        const int64_t have = v->dims[d];
        if (d == axis) {
            if (have == DIM_UNKNOWN || dims[d] == DIM_UNKNOWN)
                dims[d] = DIM_UNKNOWN;
            else if (__builtin_add_overflow(dims[d], have, &dims[d]))
                return fail(err, RUNG_EMODEL, "the output's dimension %d overflows", d);
        } else if (dims[d] == DIM_UNKNOWN) {
            dims[d] = have;
        } else if (have != DIM_UNKNOWN && have != dims[d]) {
            return fail(err, RUNG_EMODEL, "dimension %d of input %d is %lld, of those before %lld",
                        d, i, (long long)have, (long long)dims[d]);
        }
    }
    return RUNG_OK;
}

static rung_status concat_infer(const infer_args *a, rung_error *err)
{
    dtype type;
    int axis = 0;
    int64_t dims[RUNG_MAX_RANK];
    const int n = a->n->n_inputs;
    rung_status st;
    if ((st = op_counts(a, n > 0 ? n : 1, INT32_MAX, 1, err)) ||
        (st = op_same_type(a, 0, n - 1, TYPES_ANY, &type, err)))
        return st;
    a->out[0].type = type;
    if (!node_attr(a->n, "axis"))
        return fail(err, RUNG_EMODEL, "the attribute axis is missing");
    for (int i = 0; i < n; i++) {
        if (a->in[i]->rank < 0)
            return RUNG_OK;
        if ((st = op_rank(a, i, a->in[0]->rank, err)))
            return st;
    }
    if ((st = op_axis(node_int(a->n, "axis", 0), a->in[0]->rank, &axis, err)))
        return st;
    memcpy(dims, a->in[0]->dims, sizeof dims);
    for (int i = 1; st == RUNG_OK && i < n; i++)
        st = join(dims, a->in[i], axis, i, err);
    return st ? st : op_shape(&a->out[0], type, a->in[0]->rank, dims, err);
}

static rung_status concat_eval(const eval_args *a, rung_error *err)
{
    tensor *y = &a->out[0];
    int axis = 0;
    rung_status st;
    if ((st = check_movable(y->type, err)) ||
        (st = op_axis(node_int(a->n, "axis", 0), y->rank, &axis, err)))
        return st;
    const size_t outer = dims_product(y->dims, 0, axis), elem = movable_size(y->type);
    const size_t row = dims_product(y->dims, axis, y->rank) * elem;
    char *to = y->data;
    for (int i = 0; i < a->n_in; i++) {
        const tensor *x = &a->in[i];
        const size_t part = dims_product(x->dims, axis, x->rank) * elem;
        for (size_t o = 0; part && o < outer; o++)
            memcpy(to + o * row, (const char *)x->data + o * part, part);
        to += part;
    }
    return RUNG_OK;
}

/* --- Split ------------------------------------------------------------------------------------ */
/* Equal parts; from opset 18 on the last may be smaller. */
static rung_status split_evenly(const node *n, int64_t version, int64_t dim, int64_t *sizes,
                                rung_error *err)
{
    const int64_t parts = node_int(n, "num_outputs", n->n_outputs);
    if (parts != n->n_outputs)
        return fail(err, RUNG_EMODEL, "num_outputs = %lld, but there are %d outputs",
                    (long long)parts, n->n_outputs);
    if (version < 18 && dim != DIM_UNKNOWN && dim % parts != 0)
        return fail(err, RUNG_EMODEL, "%lld does not split into %lld equal parts", (long long)dim,
                    (long long)parts);
    const int64_t size = dim / parts + (dim % parts != 0);
    for (int64_t i = 0, left = dim; i < parts; i++) {
        sizes[i] = dim == DIM_UNKNOWN ? DIM_UNKNOWN : left < size ? left : size;
        left -= sizes[i];
    }
    return RUNG_OK;
}

rung_status split_of(const node *n, int64_t version, const tensor *split, int rank,
                     const int64_t *dims, int *axis, int64_t *sizes, rung_error *err)
{
    size_t count = 0;
    int64_t sum = 0;
    rung_status st;
    if ((st = op_axis(node_int(n, "axis", 0), rank, axis, err)))
        return st;
    if (!split)
        return split_evenly(n, version, dims[*axis], sizes, err);
    if ((st = op_ints(split, "split", (size_t)n->n_outputs, sizes, &count, err)))
        return st;
    if (count != (size_t)n->n_outputs)
        return fail(err, RUNG_EMODEL, "split has %zu entries for %d outputs", count, n->n_outputs);
    for (size_t i = 0; i < count; i++) {
        if (sizes[i] < 0 || __builtin_add_overflow(sum, sizes[i], &sum))
            return fail(err, RUNG_EMODEL, "split[%zu] is %lld", i, (long long)sizes[i]);
    }
    if (dims[*axis] != DIM_UNKNOWN && sum != dims[*axis])
        return fail(err, RUNG_EMODEL, "split sums to %lld, dimension %d is %lld", (long long)sum,
                    *axis, (long long)dims[*axis]);
    return RUNG_OK;
}

static rung_status split_infer(const infer_args *a, rung_error *err)
{
    int axis = 0;
    rung_status st;
    if ((st = op_counts(a, 1, 2, INT32_MAX, err)) || (st = op_type(a, 1, TYPE(RUNG_I64), err)))
        return st;
    const value_info *x = a->in[0], *split = op_in(a, 1);
    for (int i = 0; i < a->n->n_outputs; i++)
        a->out[i].type = x->type;
    if (x->rank < 0)
        return RUNG_OK;
    int64_t *sizes = arena_zero(a->mem, (size_t)a->n->n_outputs, sizeof *sizes);
    if (!sizes)
        return fail_memory(err, "split sizes", (size_t)a->n->n_outputs * sizeof *sizes);
    if (split && !split->data) {
        if ((st = op_axis(node_int(a->n, "axis", 0), x->rank, &axis, err)))
            return st;
        for (int i = 0; i < a->n->n_outputs; i++)
            sizes[i] = DIM_UNKNOWN;
    } else if ((st = split_of(a->n, a->opset, known(split), x->rank, x->dims, &axis, sizes, err))) {
        return st;
    }
    for (int i = 0; st == RUNG_OK && i < a->n->n_outputs; i++) {
        int64_t dims[RUNG_MAX_RANK];
        memcpy(dims, x->dims, sizeof dims);
        dims[axis] = sizes[i];
        st = op_shape(&a->out[i], x->type, x->rank, dims, err);
    }
    return st;
}

static rung_status split_eval(const eval_args *a, rung_error *err)
{
    const tensor *x = &a->in[0];
    int axis = 0;
    int64_t *sizes = arena_zero(a->mem, (size_t)a->n_out, sizeof *sizes);
    rung_status st;
    if (!sizes)
        return fail_memory(err, "split sizes", (size_t)a->n_out * sizeof *sizes);
    if ((st = check_movable(x->type, err)) ||
        (st = split_of(a->n, a->opset, eval_in(a, 1), x->rank, x->dims, &axis, sizes, err)))
        return st;
    const size_t outer = dims_product(x->dims, 0, axis);
    const size_t inner = dims_product(x->dims, axis + 1, x->rank) * movable_size(x->type);
    const size_t row = (size_t)x->dims[axis] * inner;
    const char *from = x->data;
    for (int i = 0; i < a->n_out; i++) {
        const size_t part = (size_t)sizes[i] * inner;
        if (a->out[i].data && tensor_count(&a->out[i]) != outer * (part / movable_size(x->type)))
            return fail(err, RUNG_EMODEL, "output %d is declared with another size", i);
        for (size_t o = 0; part && a->out[i].data && o < outer; o++)
            memcpy((char *)a->out[i].data + o * part, from + o * row, part);
        from += part;
    }
    return RUNG_OK;
}

#define MOVED .quant = {QUANT_SHARES_INPUT, .activations = 1}

const op_def op_concat = {.name = "Concat", .domain = "", .infer = concat_infer,
                          .eval = concat_eval, .grad = concat_grad, .lower = lower_concat,
                          .quant = {QUANT_COMPUTE, .activations = ~0u}, .layout = LAYOUT_FOLLOWS};
const op_def op_slice = {.name = "Slice", .domain = "", .infer = slice_infer, .eval = slice_eval,
                         .grad = slice_grad,
                         .lower = lower_slice, MOVED, .layout = LAYOUT_FOLLOWS};
const op_def op_split = {.name = "Split", .domain = "", .infer = split_infer, .eval = split_eval,
                         .grad = split_grad,
                         .lower = lower_split, MOVED, .layout = LAYOUT_FOLLOWS};
const op_def op_transpose = {.name = "Transpose",
                             .domain = "",
                             .infer = transpose_infer,
                             .eval = transpose_eval,
                             .grad = transpose_grad,
                             .lower = lower_transpose,
                             MOVED,
                             .layout = LAYOUT_PLAIN};
