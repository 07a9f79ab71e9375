/* Operators of shapes, and those that change nothing but the shape. */
#include <math.h>
#include <string.h>

#include "ops/args.h"
#include "ops/element.h"
#include "ops/entries.h"
#include "ops/grad.h"
#include "ops/lower.h"
#include "ops/move.h"

static rung_status copy_eval(const eval_args *a, rung_error *err)
{
    return copy_tensor(&a->in[0], &a->out[0], err);
}

/* --- Shape, Size ------------------------------------------------------------------------------ */
static int clamp_axis(int64_t axis, int rank)
{
    const int64_t at = axis < 0 ? axis + rank : axis;
    return at < 0 ? 0 : at > rank ? rank : (int)at;
}

static void shape_range(const node *n, int rank, int *first, int *last)
{
    *first = clamp_axis(node_int(n, "start", 0), rank);
    *last = clamp_axis(node_int(n, "end", rank), rank);
    if (*last < *first)
        *last = *first;
}

static rung_status shape_infer(const infer_args *a, rung_error *err)
{
    int first, last;
    rung_status st;
    if ((st = op_counts(a, 1, 1, 1, err)))
        return st;
    const value_info *x = a->in[0];
    int64_t count = DIM_UNKNOWN;
    if (x->rank < 0)
        return op_shape(&a->out[0], RUNG_I64, 1, &count, err);
    shape_range(a->n, x->rank, &first, &last);
    count = last - first;
    for (int i = first; i < last; i++) {
        if (x->dims[i] == DIM_UNKNOWN)
            return op_shape(&a->out[0], RUNG_I64, 1, &count, err);
    }
    tensor *data = tensor_new(a->mem, RUNG_I64, 1, &count);
    if (!data)
        return fail_memory(err, "a shape", (size_t)count * sizeof(int64_t));
    memcpy(data->data, x->dims + first, (size_t)count * sizeof(int64_t));
    a->out[0].data = data;
    return op_shape(&a->out[0], RUNG_I64, 1, &count, err);
}

static rung_status shape_eval(const eval_args *a, rung_error *err)
{
    int first, last;
    shape_range(a->n, a->in[0].rank, &first, &last);
    memcpy(a->out[0].data, a->in[0].dims + first, (size_t)(last - first) * sizeof(int64_t));
    return RUNG_OK;
}

static rung_status size_infer(const infer_args *a, rung_error *err)
{
    rung_status st;
    if ((st = op_counts(a, 1, 1, 1, err)))
        return st;
    return op_shape(&a->out[0], RUNG_I64, 0, NULL, err);
}

static rung_status size_eval(const eval_args *a, rung_error *err)
{
    *(int64_t *)a->out[0].data = (int64_t)tensor_count(&a->in[0]);
    return RUNG_OK;
}

/* --- Reshape, Flatten ------------------------------------------------------------------------- */
/* The dimension that -1 stands for: what the input has, less the copied ones, by what is given. */
static rung_status reshape_rest(const value_info *x, const int64_t *want, int n, const bool *copied,
                                int64_t *rest, rung_error *err)
{
    uint64_t have = 1, given = 1;
    *rest = DIM_UNKNOWN;
    for (int i = 0; i < x->rank; i++) {
        if (i < n && copied[i])
            continue;
        if (x->dims[i] == DIM_UNKNOWN)
            return RUNG_OK;
        have *= (uint64_t)x->dims[i]; /* the size of a checked shape: fits */
    }
    for (int i = 0; i < n; i++) {
        if (copied[i] || want[i] == -1)
            continue;
        if (want[i] != 0 && given > (uint64_t)INT64_MAX / (uint64_t)want[i])
            return fail(err, RUNG_EMODEL, "the new shape's size overflows");
        given *= (uint64_t)want[i];
    }
    if (given == 0 || have % given != 0)
        return fail(err, RUNG_EMODEL, "%llu elements cannot be shaped by %llu and -1",
                    (unsigned long long)have, (unsigned long long)given);
    *rest = (int64_t)(have / given);
    return RUNG_OK;
}

/* want becomes the dims of the output (DIM_UNKNOWN where they are not known). */
static rung_status resolve_reshape(const value_info *x, bool allow_zero, int64_t *want, int n,
                                   rung_error *err)
{
    bool copied[RUNG_MAX_RANK] = {false};
    int rest = -1;
    for (int i = 0; i < n; i++) {
        if (want[i] < -1)
            return fail(err, RUNG_EMODEL, "the new shape has %lld at %d", (long long)want[i], i);
        if (want[i] == -1 && rest >= 0)
            return fail(err, RUNG_EMODEL, "the new shape has -1 twice");
        if (want[i] == -1)
            rest = i;
        if (want[i] != 0 || allow_zero)
            continue;
        if (x->rank >= 0 && i >= x->rank)
            return fail(err, RUNG_EMODEL, "the new shape copies dimension %d of rank %d", i,
                        x->rank);
        copied[i] = true;
    }
    for (int i = 0; i < n; i++) {
        if (copied[i])
            want[i] = x->rank < 0 ? DIM_UNKNOWN : x->dims[i];
    }
    if (rest < 0 || x->rank < 0)
        return RUNG_OK;
    return reshape_rest(x, want, n, copied, &want[rest], err);
}

/* Whether both counts are known and differ. */
static bool counts_differ(const value_info *x, int rank, const int64_t *dims)
{
    if (x->rank < 0)
        return false;
    const size_t have = dims_count(x->rank, x->dims), want = dims_count(rank, dims);
    return have != SIZE_MAX && want != SIZE_MAX && have != want;
}

static rung_status reshape_infer(const infer_args *a, rung_error *err)
{
    int64_t dims[RUNG_MAX_RANK];
    size_t n = 0;
    rung_status st;
    if ((st = op_counts(a, 2, 2, 1, err)) || (st = op_type(a, 1, TYPE(RUNG_I64), err)) ||
        (st = op_rank(a, 1, 1, err)))
        return st;
    const value_info *x = a->in[0], *shape = a->in[1];
    if (!shape->data) {
        for (int i = 0; i < RUNG_MAX_RANK; i++)
            dims[i] = DIM_UNKNOWN;
        const bool known = shape->rank == 1 && shape->dims[0] >= 0;
        if (known && shape->dims[0] > RUNG_MAX_RANK)
            return fail(err, RUNG_EUNSUPPORTED, "the output has rank %lld; rung's limit is %d",
                        (long long)shape->dims[0], RUNG_MAX_RANK);
        return op_shape(&a->out[0], x->type, known ? (int)shape->dims[0] : -1, dims, err);
    }
    if ((st = op_ints(shape->data, "the new shape", RUNG_MAX_RANK, dims, &n, err)) ||
        (st = resolve_reshape(x, node_int(a->n, "allowzero", 0) != 0, dims, (int)n, err)))
        return st;
    if (counts_differ(x, (int)n, dims))
        return fail(err, RUNG_EMODEL, "%zu elements do not fit a shape of %zu",
                    dims_count(x->rank, x->dims), dims_count((int)n, dims));
    return op_shape(&a->out[0], x->type, (int)n, dims, err);
}

/* The product of dims[first..last-1]; DIM_UNKNOWN when one is not known, INT64_MAX (which op_shape
 * refuses) when it does not fit. */
static int64_t known_product(const int64_t *dims, int first, int last)
{
    int64_t n = 1;
    for (int i = first; i < last; i++) {
        if (dims[i] == DIM_UNKNOWN)
            return DIM_UNKNOWN;
        if (__builtin_mul_overflow(n, dims[i], &n))
            return INT64_MAX;
    }
    return n;
}

static rung_status flatten_infer(const infer_args *a, rung_error *err)
{
    int64_t dims[2] = {DIM_UNKNOWN, DIM_UNKNOWN};
    rung_status st;
    if ((st = op_counts(a, 1, 1, 1, err)))
        return st;
    const value_info *x = a->in[0];
    if (x->rank < 0)
        return op_shape(&a->out[0], x->type, 2, dims, err);
    const int64_t axis = node_int(a->n, "axis", 1);
    if (axis < -x->rank || axis > x->rank)
        return fail(err, RUNG_EMODEL, "axis %lld is not in [-%d, %d]", (long long)axis, x->rank,
                    x->rank);
    const int at = (int)(axis < 0 ? axis + x->rank : axis);
    dims[0] = known_product(x->dims, 0, at);
    dims[1] = known_product(x->dims, at, x->rank);
    return op_shape(&a->out[0], x->type, 2, dims, err);
}

/* --- Squeeze, Unsqueeze ----------------------------------------------------------------------- */
/* The axes in input 1. */
static rung_status axes_input(const infer_args *a, int rank, axes *out, rung_error *err)
{
    int64_t v[RUNG_MAX_RANK];
    size_t n = 0;
    const rung_status st = op_ints(a->in[1]->data, "axes", RUNG_MAX_RANK, v, &n, err);
    return st ? st : op_axes(v, n, rank, out, err);
}

/* Without axes every 1 goes, which only known dimensions tell. */
static bool ones(const value_info *x, axes *out)
{
    memset(out, 0, sizeof *out);
    for (int i = 0; i < x->rank; i++) {
        if (x->dims[i] == DIM_UNKNOWN)
            return false;
        if (x->dims[i] == 1) {
            out->has[i] = true;
            out->n++;
        }
    }
    return true;
}

static rung_status squeeze_infer(const infer_args *a, rung_error *err)
{
    axes gone;
    rung_status st;
    if ((st = op_counts(a, 1, 2, 1, err)) || (st = op_type(a, 1, TYPE(RUNG_I64), err)))
        return st;
    const value_info *x = a->in[0], *list = op_in(a, 1);
    a->out[0].type = x->type;
    if (x->rank < 0 || (list && !list->data) || (!list && !ones(x, &gone)))
        return RUNG_OK;
    if (list && (st = axes_input(a, x->rank, &gone, err)))
        return st;
    int64_t dims[RUNG_MAX_RANK];
    int rank = 0;
    for (int i = 0; i < x->rank; i++) {
        if (!gone.has[i])
            dims[rank++] = x->dims[i];
        else if (x->dims[i] != 1 && x->dims[i] != DIM_UNKNOWN)
            return fail(err, RUNG_EMODEL, "dimension %d is %lld and cannot be squeezed", i,
                        (long long)x->dims[i]);
    }
    return op_shape(&a->out[0], x->type, rank, dims, err);
}

static rung_status unsqueeze_infer(const infer_args *a, rung_error *err)
{
    axes added;
    rung_status st;
    if ((st = op_counts(a, 2, 2, 1, err)) || (st = op_type(a, 1, TYPE(RUNG_I64), err)))
        return st;
    const value_info *x = a->in[0], *list = a->in[1];
    a->out[0].type = x->type;
    if (x->rank < 0 || !list->data)
        return RUNG_OK;
    const size_t n = tensor_count(list->data);
    if (n > RUNG_MAX_RANK - (size_t)x->rank)
        return fail(err, RUNG_EUNSUPPORTED, "the output would pass rank %d", RUNG_MAX_RANK);
    if ((st = axes_input(a, x->rank + (int)n, &added, err)))
        return st;
    int64_t dims[RUNG_MAX_RANK];
    for (int i = 0, from = 0; i < x->rank + (int)n; i++)
        dims[i] = added.has[i] ? 1 : x->dims[from++];
    return op_shape(&a->out[0], x->type, x->rank + (int)n, dims, err);
}

/* --- Identity, Dropout ------------------------------------------------------------------------ */
static rung_status identity_infer(const infer_args *a, rung_error *err)
{
    rung_status st;
    if ((st = op_counts(a, 1, 1, 1, err)))
        return st;
    a->out[0].data = a->in[0]->data;
    return op_like(a, 0, 0, a->in[0]->type, err);
}

static rung_status dropout_infer(const infer_args *a, rung_error *err)
{
    rung_status st;
    if ((st = op_counts(a, 1, 3, 2, err)) || (st = op_type(a, 2, TYPE(RUNG_BOOL), err)) ||
        (st = op_like(a, 0, 0, a->in[0]->type, err)))
        return st;
    return a->n->n_outputs > 1 ? op_like(a, 0, 1, RUNG_BOOL, err) : RUNG_OK;
}

static rung_status dropout_eval(const eval_args *a, rung_error *err)
{
    const tensor *training = eval_in(a, 2);
    if (training && tensor_count(training) > 0 && tensor_get_int(training, 0) != 0)
        return fail(err, RUNG_EUNSUPPORTED, "training_mode is on; rung only does inference");
    if (a->n_out > 1 && a->out[1].data)
        memset(a->out[1].data, 1, tensor_count(&a->out[1]));
    return copy_tensor(&a->in[0], &a->out[0], err);
}

#define MOVED .quant = {QUANT_SHARES_INPUT, .activations = 1}, .layout = LAYOUT_PLAIN

const op_def op_dropout = {.name = "Dropout", .domain = "", .infer = dropout_infer,
                           .eval = dropout_eval, .grad = copy_grad,
                           .quant = {QUANT_SHARES_INPUT, .activations = 1},
                           .layout = LAYOUT_FOLLOWS};
const op_def op_flatten = {.name = "Flatten", .domain = "", .infer = flatten_infer,
                           .eval = copy_eval, .grad = copy_grad, .lower = lower_view, MOVED};
const op_def op_identity = {.name = "Identity", .domain = "", .infer = identity_infer,
                            .eval = copy_eval, .grad = copy_grad, .lower = lower_view,
                            .quant = {QUANT_SHARES_INPUT, .activations = 1},
                            .layout = LAYOUT_FOLLOWS};
const op_def op_reshape = {.name = "Reshape", .domain = "", .infer = reshape_infer,
                           .eval = copy_eval, .grad = copy_grad, .lower = lower_view, MOVED};
const op_def op_shape_of = {.name = "Shape", .domain = "", .infer = shape_infer,
                            .eval = shape_eval, .layout = LAYOUT_PLAIN};
const op_def op_size = {.name = "Size", .domain = "", .infer = size_infer, .eval = size_eval,
                        .layout = LAYOUT_PLAIN};
const op_def op_squeeze = {.name = "Squeeze", .domain = "", .infer = squeeze_infer,
                           .eval = copy_eval, .grad = copy_grad, .lower = lower_view, MOVED};
const op_def op_unsqueeze = {.name = "Unsqueeze", .domain = "", .infer = unsqueeze_infer,
                             .eval = copy_eval, .grad = copy_grad, .lower = lower_view, MOVED};
