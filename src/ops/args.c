#include "ops/args.h"

#include <string.h>

const value_info *op_in(const infer_args *a, int i)
{
    return i < a->n->n_inputs ? a->in[i] : NULL;
}

const tensor *eval_in(const eval_args *a, int i)
{
    return i < a->n_in && a->in[i].data ? &a->in[i] : NULL;
}

rung_status op_counts(const infer_args *a, int min_in, int max_in, int max_out, rung_error *err)
{
    const node *n = a->n;
    if (n->n_inputs < min_in || n->n_inputs > max_in)
        return fail(err, RUNG_EMODEL, "%d inputs where %d to %d are allowed", n->n_inputs, min_in,
                    max_in);
    for (int i = 0; i < min_in; i++) {
        if (!a->in[i])
            return fail(err, RUNG_EMODEL, "input %d is missing", i);
    }
    if (n->n_outputs < 1 || n->n_outputs > max_out)
        return fail(err, RUNG_EMODEL, "%d outputs where 1 to %d are allowed", n->n_outputs,
                    max_out);
    return RUNG_OK;
}

rung_status op_type(const infer_args *a, int i, unsigned types, rung_error *err)
{
    const value_info *in = op_in(a, i);
    if (!in || in->type == RUNG_UNDEFINED || (types & TYPE(in->type)))
        return RUNG_OK;
    return fail(err, RUNG_EMODEL, "input %d is %s, which the operator does not take", i,
                dtype_name(in->type));
}

rung_status op_same_type(const infer_args *a, int first, int last, unsigned types, dtype *out,
                         rung_error *err)
{
    *out = RUNG_UNDEFINED;
    for (int i = first; i <= last; i++) {
        const value_info *in = op_in(a, i);
        if (!in || in->type == RUNG_UNDEFINED)
            continue;
        const rung_status st = op_type(a, i, types, err);
        if (st != RUNG_OK)
            return st;
        if (*out != RUNG_UNDEFINED && *out != in->type)
            return fail(err, RUNG_EMODEL, "input %d is %s, the inputs before it are %s", i,
                        dtype_name(in->type), dtype_name(*out));
        *out = in->type;
    }
    return RUNG_OK;
}

bool op_knows_rank(const infer_args *a, int i)
{
    const value_info *in = op_in(a, i);
    return in && in->rank >= 0;
}

rung_status op_rank(const infer_args *a, int i, int rank, rung_error *err)
{
    if (!op_knows_rank(a, i) || a->in[i]->rank == rank)
        return RUNG_OK;
    return fail(err, RUNG_EMODEL, "input %d has rank %d, not %d", i, a->in[i]->rank, rank);
}

rung_status op_min_rank(const infer_args *a, int i, int min, rung_error *err)
{
    if (!op_knows_rank(a, i) || a->in[i]->rank >= min)
        return RUNG_OK;
    return fail(err, RUNG_EMODEL, "input %d has rank %d; the operator needs %d or more", i,
                a->in[i]->rank, min);
}

rung_status op_vector(const infer_args *a, int i, int64_t n, rung_error *err)
{
    const rung_status st = op_rank(a, i, 1, err);
    if (st != RUNG_OK || !op_knows_rank(a, i))
        return st;
    const int64_t have = a->in[i]->dims[0];
    if (n == DIM_UNKNOWN || have == DIM_UNKNOWN || have == n)
        return RUNG_OK;
    return fail(err, RUNG_EMODEL, "input %d has %lld elements, not %lld", i, (long long)have,
                (long long)n);
}

rung_status op_shape(value_info *out, dtype type, int rank, const int64_t *dims, rung_error *err)
{
    if (rank > RUNG_MAX_RANK)
        return fail(err, RUNG_EUNSUPPORTED, "the output has rank %d; rung's limit is %d", rank,
                    RUNG_MAX_RANK);
    out->type = type;
    out->rank = rank;
    uint64_t size = 8; /* bytes of the widest type */
    for (int i = 0; i < rank; i++) {
        out->dims[i] = dims[i];
        if (dims[i] == DIM_UNKNOWN)
            continue;
        if (dims[i] < 0)
            return fail(err, RUNG_EMODEL, "dimension %d of the output would be %lld", i,
                        (long long)dims[i]);
        if (dims[i] != 0 && size > (uint64_t)INT64_MAX / (uint64_t)dims[i])
            return fail(err, RUNG_EMODEL, "the output's size overflows at dimension %d = %lld", i,
                        (long long)dims[i]);
        size *= dims[i] ? (uint64_t)dims[i] : 1;
    }
    return RUNG_OK;
}

rung_status op_like(const infer_args *a, int in, int out, dtype type, rung_error *err)
{
    return op_shape(&a->out[out], type, a->in[in]->rank, a->in[in]->dims, err);
}

rung_status op_axis(int64_t axis, int rank, int *out, rung_error *err)
{
    if (axis < -rank || axis >= rank)
        return fail(err, RUNG_EMODEL, "axis %lld is not in [-%d, %d)", (long long)axis, rank, rank);
    *out = (int)(axis < 0 ? axis + rank : axis);
    return RUNG_OK;
}

rung_status op_axes(const int64_t *v, size_t n, int rank, axes *out, rung_error *err)
{
    memset(out, 0, sizeof *out);
    for (size_t i = 0; i < n; i++) {
        int axis = 0;
        const rung_status st = op_axis(v[i], rank, &axis, err);
        if (st != RUNG_OK)
            return st;
        if (out->has[axis])
            return fail(err, RUNG_EMODEL, "axis %d is named twice", axis);
        out->has[axis] = true;
        out->at[out->n++] = axis;
    }
    return RUNG_OK;
}

rung_status op_ints(const tensor *t, const char *what, size_t max, int64_t *v, size_t *n,
                    rung_error *err)
{
    *n = tensor_count(t);
    if (t->rank > 1 || !(TYPES_INT & TYPE(t->type)))
        return fail(err, RUNG_EMODEL, "%s is not a vector of integers (%s, rank %d)", what,
                    dtype_name(t->type), t->rank);
    if (*n > max)
        return fail(err, RUNG_EMODEL, "%s has %zu entries; at most %zu make sense here", what, *n,
                    max);
    for (size_t i = 0; i < *n; i++)
        v[i] = tensor_get_int(t, i);
    return RUNG_OK;
}

static rung_status broadcast_dim(int64_t *dim, int64_t other, int axis, rung_error *err)
{
    if (other == *dim || other == 1)
        return RUNG_OK;
    if (*dim == 1 || (*dim == DIM_UNKNOWN && other > 1)) {
        *dim = other;
        return RUNG_OK;
    }
    if (other == DIM_UNKNOWN && *dim > 1)
        return RUNG_OK;
    if (other == DIM_UNKNOWN || *dim == DIM_UNKNOWN) {
        *dim = DIM_UNKNOWN;
        return RUNG_OK;
    }
    return fail(err, RUNG_EMODEL, "%lld and %lld do not broadcast (dimension %d of the result)",
                (long long)*dim, (long long)other, axis);
}

rung_status op_broadcast(int *rank, int64_t *dims, int b_rank, const int64_t *b, rung_error *err)
{
    if (b_rank > *rank) {
        memmove(dims + (b_rank - *rank), dims, (size_t)*rank * sizeof *dims);
        for (int i = 0; i < b_rank - *rank; i++)
            dims[i] = 1;
        *rank = b_rank;
    }
    for (int i = 0; i < b_rank; i++) {
        const int at = *rank - b_rank + i;
        const rung_status st = broadcast_dim(&dims[at], b[i], at, err);
        if (st != RUNG_OK)
            return st;
    }
    return RUNG_OK;
}

rung_status op_check_output(const tensor *out, int rank, const int64_t *dims, rung_error *err)
{
    bool same = out->rank == rank;
    for (int i = 0; same && i < rank; i++)
        same = out->dims[i] == dims[i];
    return same ? RUNG_OK : fail(err, RUNG_EMODEL, "the output is declared with another shape");
}

size_t dims_product(const int64_t *dims, int first, int last)
{
    size_t n = 1;
    for (int i = first; i < last; i++)
        n *= (size_t)dims[i];
    return n;
}
