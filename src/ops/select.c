/* Clip, Where, Not, IsNaN, IsInf. */
#include <math.h>
#include <string.h>

#include "ops/args.h"
#include "ops/element.h"
#include "ops/entries.h"
#include "ops/grad.h"
#include "ops/lower.h"
#include "ops/move.h"
#include "ops/walk.h"

/* --- Clip ------------------------------------------------------------------------------------- */
static rung_status clip_infer(const infer_args *a, rung_error *err)
{
    dtype type;
    rung_status st;
    if ((st = op_counts(a, 1, 3, 1, err)) ||
        (st = op_same_type(a, 0, 2, TYPES_NUMBER, &type, err)))
        return st;
    for (int i = 1; i < 3; i++) {
        if (op_knows_rank(a, i) && dims_count(a->in[i]->rank, a->in[i]->dims) != 1 &&
            dims_count(a->in[i]->rank, a->in[i]->dims) != SIZE_MAX)
            return fail(err, RUNG_EMODEL, "input %d is no single number", i);
    }
    return op_like(a, 0, 0, type, err);
}

static rung_status clip_floats(const tensor *x, const tensor *lo, const tensor *hi, tensor *y)
{
    const size_t n = tensor_count(y);
    const double min = lo ? tensor_get(lo, 0) : -INFINITY, max = hi ? tensor_get(hi, 0) : INFINITY;
    for (size_t i = 0; i < n; i++) {
        double v = tensor_get(x, i);
        v = v < min ? min : v;
        v = v > max ? max : v;
        store_doubles(y, i, 1, &v);
    }
    return RUNG_OK;
}

static rung_status clip_eval(const eval_args *a, rung_error *err)
{
    const tensor *x = &a->in[0], *lo = eval_in(a, 1), *hi = eval_in(a, 2);
    const size_t n = tensor_count(&a->out[0]);
    if ((lo && tensor_count(lo) != 1) || (hi && tensor_count(hi) != 1))
        return fail(err, RUNG_EMODEL, "a bound is no single number");
    if (dtype_is_float(x->type))
        return clip_floats(x, lo, hi, &a->out[0]);
    /* Flipping the sign bit makes uint64 order that of int64. */
    const uint64_t flip = x->type == RUNG_U64 ? UINT64_C(1) << 63 : 0;
    const int64_t min = lo ? (int64_t)((uint64_t)tensor_get_int(lo, 0) ^ flip) : INT64_MIN;
    const int64_t max = hi ? (int64_t)((uint64_t)tensor_get_int(hi, 0) ^ flip) : INT64_MAX;
    for (size_t i = 0; i < n; i++) {
        int64_t v = (int64_t)((uint64_t)tensor_get_int(x, i) ^ flip);
        v = v < min ? min : v;
        v = v > max ? max : v;
        v = (int64_t)((uint64_t)v ^ flip);
        store_ints(&a->out[0], i, 1, &v);
    }
    return RUNG_OK;
}

/* --- Where ------------------------------------------------------------------------------------ */
static rung_status where_infer(const infer_args *a, rung_error *err)
{
    dtype type;
    int rank = 0;
    int64_t dims[RUNG_MAX_RANK];
    rung_status st;
    if ((st = op_counts(a, 3, 3, 1, err)) || (st = op_type(a, 0, TYPE(RUNG_BOOL), err)) ||
        (st = op_same_type(a, 1, 2, TYPES_ANY, &type, err)))
        return st;
    a->out[0].type = type;
    for (int i = 0; i < 3; i++) {
        if (!op_knows_rank(a, i))
            return RUNG_OK;
        if ((st = op_broadcast(&rank, dims, a->in[i]->rank, a->in[i]->dims, err)))
            return st;
    }
    return op_shape(&a->out[0], type, rank, dims, err);
}

static rung_status where_eval(const eval_args *a, rung_error *err)
{
    tensor *y = &a->out[0];
    const size_t elem = movable_size(y->type);
    walk w;
    const rung_status st = check_movable(y->type, err);
    if (st)
        return st;
    const tensor *const in[] = {&a->in[0], &a->in[1], &a->in[2]};
    if (!walk_begin(&w, y, in, 3))
        return RUNG_OK;
    do {
        const uint8_t *choose = (const uint8_t *)in[0]->data + w.offset[0];
        for (size_t i = 0; i < w.row; i++) {
            const int from = choose[w.repeats[0] ? 0 : i] ? 1 : 2;
            const size_t at = w.offset[from] + (w.repeats[from] ? 0 : i);
            memcpy((char *)y->data + (w.out + i) * elem, (const char *)in[from]->data + at * elem,
                   elem);
        }
    } while (walk_next(&w));
    return RUNG_OK;
}

/* --- Not, IsNaN, IsInf ------------------------------------------------------------------------ */
static rung_status test_infer(const infer_args *a, unsigned types, rung_error *err)
{
    rung_status st;
    if ((st = op_counts(a, 1, 1, 1, err)) || (st = op_type(a, 0, types, err)))
        return st;
    return op_like(a, 0, 0, RUNG_BOOL, err);
}

static rung_status not_infer(const infer_args *a, rung_error *err)
{
    return test_infer(a, TYPE(RUNG_BOOL), err);
}

static rung_status float_test_infer(const infer_args *a, rung_error *err)
{
    return test_infer(a, TYPES_FLOAT, err);
}

static rung_status not_eval(const eval_args *a, rung_error *err)
{
    const uint8_t *x = a->in[0].data;
    uint8_t *y = a->out[0].data;
    const size_t n = tensor_count(&a->out[0]);
    for (size_t i = 0; i < n; i++)
        y[i] = !x[i];
    return RUNG_OK;
}

static rung_status is_nan_eval(const eval_args *a, rung_error *err)
{
    uint8_t *y = a->out[0].data;
    const size_t n = tensor_count(&a->out[0]);
    for (size_t i = 0; i < n; i++)
        y[i] = isnan(tensor_get(&a->in[0], i)) != 0;
    return RUNG_OK;
}

static rung_status is_inf_eval(const eval_args *a, rung_error *err)
{
    const bool negative = node_int(a->n, "detect_negative", 1) != 0;
    const bool positive = node_int(a->n, "detect_positive", 1) != 0;
    uint8_t *y = a->out[0].data;
    const size_t n = tensor_count(&a->out[0]);
    for (size_t i = 0; i < n; i++) {
        const double v = tensor_get(&a->in[0], i);
        y[i] = isinf(v) && (v > 0 ? positive : negative);
    }
    return RUNG_OK;
}

const op_def op_clip = {.name = "Clip", .domain = "", .infer = clip_infer, .eval = clip_eval,
                        .grad = clip_grad, .reads = {.in = 1 | 2 | 4},
                        .lower = lower_table,
                        .quant = {QUANT_ABSORBED, .activations = 1}, .layout = LAYOUT_FOLLOWS};
const op_def op_is_inf = {.name = "IsInf", .domain = "", .infer = float_test_infer,
                          .eval = is_inf_eval, .layout = LAYOUT_FOLLOWS};
const op_def op_is_nan = {.name = "IsNaN", .domain = "", .infer = float_test_infer,
                          .eval = is_nan_eval, .layout = LAYOUT_FOLLOWS};
const op_def op_not = {.name = "Not", .domain = "", .infer = not_infer, .eval = not_eval,
                       .layout = LAYOUT_FOLLOWS};
const op_def op_where = {.name = "Where", .domain = "", .infer = where_infer, .eval = where_eval,
                         .grad = where_grad, .reads = {.in = 1},
                         .layout = LAYOUT_FOLLOWS};
