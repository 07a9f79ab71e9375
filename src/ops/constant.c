/* Constant, ConstantOfShape, Range: values out of attributes and numbers. */
#include <math.h>
#include <string.h>

#include "ops/args.h"
#include "ops/element.h"
#include "ops/entries.h"
#include "ops/move.h"

/* --- Constant --------------------------------------------------------------------------------- */
/* A tensor in mem: rank 0 when count < 0. */
static const tensor *make(arena *mem, dtype type, int64_t count, const void *data)
{
    tensor *t = tensor_new(mem, type, count < 0 ? 0 : 1, &count);
    const size_t n = dtype_bytes(type, count < 0 ? 1 : (size_t)count);
    if (t && n)
        memcpy(t->data, data, n);
    return t;
}

/* The value the attribute holds; NULL: it is of a kind that is no number (or memory is out). */
static const tensor *constant_value(const node *n, arena *mem)
{
    const attr *a = n->n_attrs == 1 ? &n->attrs[0] : NULL;
    if (!a)
        return NULL;
    switch (a->kind) {
    case ATTR_TENSOR:
        return a->t;
    case ATTR_FLOAT:
        return make(mem, RUNG_F32, -1, &a->f);
    case ATTR_INT:
        return make(mem, RUNG_I64, -1, &a->i);
    case ATTR_FLOATS:
        return make(mem, RUNG_F32, (int64_t)a->floats.n, a->floats.v);
    case ATTR_INTS:
        return make(mem, RUNG_I64, (int64_t)a->ints.n, a->ints.v);
    default:
        return NULL;
    }
}

static rung_status constant_infer(const infer_args *a, rung_error *err)
{
    rung_status st;
    if ((st = op_counts(a, 0, 0, 1, err)))
        return st;
    if (a->n->n_attrs != 1)
        return fail(err, RUNG_EMODEL, "%d attributes where one holds the value", a->n->n_attrs);
    const tensor *t = constant_value(a->n, a->mem);
    if (!t)
        return RUNG_OK; /* strings, sparse tensors: nothing is known */
    a->out[0].data = t;
    return op_shape(&a->out[0], t->type, t->rank, t->dims, err);
}

static rung_status constant_eval(const eval_args *a, rung_error *err)
{
    const tensor *t = constant_value(a->n, a->mem);
    if (!t)
        return fail(err, RUNG_EUNSUPPORTED, "the value is no dense tensor of numbers");
    return copy_tensor(t, &a->out[0], err);
}

/* --- ConstantOfShape -------------------------------------------------------------------------- */
static rung_status fill_value(const node *n, const tensor **out, rung_error *err)
{
    static const float zero;
    static const tensor none = {.type = RUNG_F32, .rank = 1, .dims = {1}, .data = (void *)&zero};
    const attr *a = node_attr(n, "value");
    *out = &none;
    if (!a)
        return RUNG_OK;
    if (a->kind != ATTR_TENSOR || tensor_count(a->t) != 1)
        return fail(err, RUNG_EMODEL, "value is no tensor of one element");
    *out = a->t;
    return RUNG_OK;
}

static rung_status constant_of_shape_infer(const infer_args *a, rung_error *err)
{
    const tensor *v = NULL;
    int64_t dims[RUNG_MAX_RANK];
    size_t n = 0;
    rung_status st;
    if ((st = op_counts(a, 1, 1, 1, err)) || (st = op_type(a, 0, TYPE(RUNG_I64), err)) ||
        (st = fill_value(a->n, &v, err)))
        return st;
    const value_info *shape = a->in[0];
    a->out[0].type = v->type;
    if (!shape->data)
        return RUNG_OK;
    if ((st = op_ints(shape->data, "the shape", RUNG_MAX_RANK, dims, &n, err)))
        return st;
    for (size_t i = 0; i < n; i++) {
        if (dims[i] < 0)
            return fail(err, RUNG_EMODEL, "the shape has %lld at %zu", (long long)dims[i], i);
    }
    return op_shape(&a->out[0], v->type, (int)n, dims, err);
}

static rung_status constant_of_shape_eval(const eval_args *a, rung_error *err)
{
    static const int64_t no_strides[RUNG_MAX_RANK];
    const tensor *v = NULL;
    rung_status st;
    if ((st = fill_value(a->n, &v, err)) || (st = check_movable(v->type, err)))
        return st;
    gather_strided(v, 0, no_strides, &a->out[0]);
    return RUNG_OK;
}

/* --- Range ------------------------------------------------------------------------------------ */
/* Elements of start, start + delta, ... below limit. */
static rung_status range_count(const tensor *start, const tensor *limit, const tensor *delta,
                               int64_t *out, rung_error *err)
{
    if (tensor_count(start) != 1 || tensor_count(limit) != 1 || tensor_count(delta) != 1)
        return fail(err, RUNG_EMODEL, "start, limit and delta are not single numbers");
    const double by = tensor_get(delta, 0);
    if (by == 0)
        return fail(err, RUNG_EMODEL, "delta is 0");
    const double n = ceil((tensor_get(limit, 0) - tensor_get(start, 0)) / by);
    if (!(n < 0x1p48))
        return fail(err, RUNG_EMODEL, "the range would have %g elements", n);
    *out = n > 0 ? (int64_t)n : 0;
    return RUNG_OK;
}

static rung_status range_infer(const infer_args *a, rung_error *err)
{
    dtype type;
    int64_t n = DIM_UNKNOWN;
    rung_status st;
    if ((st = op_counts(a, 3, 3, 1, err)) || (st = op_same_type(a, 0, 2, TYPES_NUMBER, &type, err)))
        return st;
    if (a->in[0]->data && a->in[1]->data && a->in[2]->data &&
        (st = range_count(a->in[0]->data, a->in[1]->data, a->in[2]->data, &n, err)))
        return st;
    return op_shape(&a->out[0], type, 1, &n, err);
}

static rung_status range_eval(const eval_args *a, rung_error *err)
{
    tensor *y = &a->out[0];
    const size_t n = tensor_count(y);
    for (size_t i = 0; i < n; i++) {
        if (dtype_is_float(y->type)) {
            const double v = tensor_get(&a->in[0], 0) + (double)i * tensor_get(&a->in[2], 0);
            store_doubles(y, i, 1, &v);
        } else {
            const uint64_t by = (uint64_t)tensor_get_int(&a->in[2], 0);
            const int64_t v = (int64_t)((uint64_t)tensor_get_int(&a->in[0], 0) + i * by);
            store_ints(y, i, 1, &v);
        }
    }
    return RUNG_OK;
}

const op_def op_constant = {.name = "Constant", .domain = "", .infer = constant_infer,
                            .eval = constant_eval};
const op_def op_constant_of_shape = {.name = "ConstantOfShape", .domain = "",
                                     .infer = constant_of_shape_infer,
                                     .eval = constant_of_shape_eval};
const op_def op_range = {.name = "Range", .domain = "", .infer = range_infer, .eval = range_eval};
