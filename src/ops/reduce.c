/* Reductions over axes, ArgMax and ArgMin. */
#include "ops/reduce.h"

#include <math.h>
#include <string.h>

#include "ops/args.h"
#include "ops/element.h"
#include "ops/entries.h"
#include "ops/grad.h"
#include "ops/lower.h"
#include "ops/taps.h"
#include "ops/walk.h"

/* --- the axes --------------------------------------------------------------------------------- */
rung_status reduced_axes(const node *n, const tensor *list, int rank, axes *out, rung_error *err)
{
    static const int64_t all[RUNG_MAX_RANK] = {0, 1, 2, 3, 4, 5, 6, 7};
    int64_t v[RUNG_MAX_RANK];
    const int64_t *at = v;
    size_t count = 0;
    rung_status st;
    if (list && (st = op_ints(list, "axes", RUNG_MAX_RANK, v, &count, err)))
        return st;
    if (!list)
        count = node_ints(n, "axes", &at);
    if (count == 0 && node_int(n, "noop_with_empty_axes", 0) == 0) {
        at = all;
        count = (size_t)rank;
    }
    return op_axes(at, count, rank, out, err);
}

static rung_status reduced_shape(const value_info *x, const bool *gone, bool keep, dtype type,
                                 value_info *out, rung_error *err)
{
    int64_t dims[RUNG_MAX_RANK];
    int rank = 0;
    for (int i = 0; i < x->rank; i++) {
        if (!gone[i] || keep)
            dims[rank++] = gone[i] ? 1 : x->dims[i];
    }
    return op_shape(out, type, rank, dims, err);
}

static rung_status reduce_infer(const infer_args *a, rung_error *err)
{
    axes gone;
    rung_status st;
    if ((st = op_counts(a, 1, 2, 1, err)) ||
        (st = op_type(a, 0, TYPES_NUMBER | TYPE(RUNG_BOOL), err)) ||
        (st = op_type(a, 1, TYPE(RUNG_I64), err)))
        return st;
    const value_info *x = a->in[0], *list = op_in(a, 1);
    const bool keep = node_int(a->n, "keepdims", 1) != 0;
    a->out[0].type = x->type;
    if (x->rank < 0)
        return RUNG_OK;
    if (list && !list->data) {
        int64_t dims[RUNG_MAX_RANK];
        for (int i = 0; i < x->rank; i++)
            dims[i] = DIM_UNKNOWN;
        return keep ? op_shape(&a->out[0], x->type, x->rank, dims, err) : RUNG_OK;
    }
    if ((st = reduced_axes(a->n, list ? list->data : NULL, x->rank, &gone, err)))
        return st;
    return reduced_shape(x, gone.has, keep, x->type, &a->out[0], err);
}

/* --- formulas: of elements first + offsets[i] ------------------------------------------------- */
typedef struct picked {
    const tensor *x;
    size_t        first, n;
    const size_t *offsets;
} picked;

static double element(const picked *p, size_t i)
{
    return tensor_get(p->x, p->first + p->offsets[i]);
}

#define FOLD(name, start, formula)                                                                 \
    static double name(const picked *p)                                                            \
    {                                                                                              \
        double r = start;                                                                          \
        for (size_t i = 0; i < p->n; i++) {                                                        \
            const double v = element(p, i);                                                        \
            r = formula;                                                                           \
        }                                                                                          \
        return r;                                                                                  \
    }
FOLD(f_sum, 0, r + v)
FOLD(f_prod, 1, r * v)
FOLD(f_max, -INFINITY, v > r || isnan(v) ? v : r)
FOLD(f_min, INFINITY, v < r || isnan(v) ? v : r)
FOLD(f_l1, 0, r + fabs(v))
FOLD(f_sum_square, 0, r + v * v)
#undef FOLD

static double f_mean(const picked *p)
{
    return f_sum(p) / (double)p->n;
}

static double f_l2(const picked *p)
{
    return sqrt(f_sum_square(p));
}

static double f_log_sum(const picked *p)
{
    return log(f_sum(p));
}

static double f_log_sum_exp(const picked *p)
{
    const double max = f_max(p);
    double sum = 0;
    if (!isfinite(max))
        return max;
    for (size_t i = 0; i < p->n; i++)
        sum += exp(element(p, i) - max);
    return max + log(sum);
}

/* Integers: exact modulo 2^64; an empty maximum or minimum saturates to the type's end. */
static int64_t int_sum(const picked *p)
{
    uint64_t r = 0;
    for (size_t i = 0; i < p->n; i++)
        r += (uint64_t)tensor_get_int(p->x, p->first + p->offsets[i]);
    return (int64_t)r;
}

static int64_t int_prod(const picked *p)
{
    uint64_t r = 1;
    for (size_t i = 0; i < p->n; i++)
        r *= (uint64_t)tensor_get_int(p->x, p->first + p->offsets[i]);
    return (int64_t)r;
}

static const struct reduction {
    const char *op;
    double (*f)(const picked *p);
    int64_t (*exact)(const picked *p); /* NULL: integers go through f */
} reductions[] = {
    {"ReduceL1", f_l1, NULL},
    {"ReduceL2", f_l2, NULL},
    {"ReduceLogSum", f_log_sum, NULL},
    {"ReduceLogSumExp", f_log_sum_exp, NULL},
    {"ReduceMax", f_max, NULL},
    {"ReduceMean", f_mean, NULL},
    {"ReduceMin", f_min, NULL},
    {"ReduceProd", f_prod, int_prod},
    {"ReduceSum", f_sum, int_sum},
    {"ReduceSumSquare", f_sum_square, NULL},
};

static const struct reduction *reduction_of(const node *n)
{
    size_t i = 0;
    while (strcmp(reductions[i].op, n->op_type) != 0)
        i++; /* the entries below are all in the list */
    return &reductions[i];
}

/* --- evaluation ------------------------------------------------------------------------------- */
/* The offsets of all elements that meet in one result; NULL: memory is out. */
static size_t *reduced_offsets(const tensor *x, const axes *gone, const int64_t *strides,
                               arena *mem, size_t *n)
{
    int64_t dims[RUNG_MAX_RANK], at[RUNG_MAX_RANK] = {0};
    *n = 1;
    for (int i = 0; i < x->rank; i++) {
        dims[i] = gone->has[i] ? x->dims[i] : 1;
        *n *= (size_t)dims[i];
    }
    size_t *offsets = arena_zero(mem, *n + 1, sizeof *offsets), i = 0;
    if (!offsets || *n == 0)
        return offsets;
    do {
        size_t offset = 0;
        for (int d = 0; d < x->rank; d++)
            offset += (size_t)(at[d] * strides[d]);
        offsets[i++] = offset;
    } while (next_position(x->rank, dims, at));
    return offsets;
}

static void reduce_one(const struct reduction *r, const picked *p, tensor *y, size_t i)
{
    if (!dtype_is_float(y->type) && r->exact) {
        const int64_t v = r->exact(p);
        store_ints(y, i, 1, &v);
    } else {
        const double v = y->type == RUNG_BOOL ? r->f(p) > 0 : r->f(p); /* none: -inf is false */
        store_doubles(y, i, 1, &v);
    }
}

static rung_status reduce_eval(const eval_args *a, rung_error *err)
{
    const tensor *x = &a->in[0];
    const struct reduction *r = reduction_of(a->n);
    int64_t strides[RUNG_MAX_RANK], dims[RUNG_MAX_RANK], at[RUNG_MAX_RANK] = {0};
    axes gone;
    picked p = {.x = x};
    const rung_status st = reduced_axes(a->n, eval_in(a, 1), x->rank, &gone, err);
    if (st)
        return st;
    dims_strides(x->rank, x->dims, strides);
    if (!(p.offsets = reduced_offsets(x, &gone, strides, a->mem, &p.n)))
        return fail_memory(err, "reduction offsets", p.n * sizeof *p.offsets);
    for (int i = 0; i < x->rank; i++)
        dims[i] = gone.has[i] ? 1 : x->dims[i];
    if (tensor_count(&a->out[0]) != dims_count(x->rank, dims))
        return fail(err, RUNG_EMODEL, "the output is declared with another size");
    if (tensor_count(&a->out[0]) == 0)
        return RUNG_OK;
    size_t i = 0;
    do {
        p.first = 0;
        for (int d = 0; d < x->rank; d++)
            p.first += (size_t)(at[d] * strides[d]);
        reduce_one(r, &p, &a->out[0], i++);
    } while (next_position(x->rank, dims, at));
    return RUNG_OK;
}

/* --- ArgMax, ArgMin --------------------------------------------------------------------------- */
static rung_status arg_infer(const infer_args *a, rung_error *err)
{
    bool gone[RUNG_MAX_RANK] = {false};
    int axis = 0;
    rung_status st;
    if ((st = op_counts(a, 1, 1, 1, err)) || (st = op_type(a, 0, TYPES_NUMBER, err)))
        return st;
    const value_info *x = a->in[0];
    a->out[0].type = RUNG_I64;
    if (x->rank < 0)
        return RUNG_OK;
    if ((st = op_axis(node_int(a->n, "axis", 0), x->rank, &axis, err)))
        return st;
    if (x->dims[axis] == 0)
        return fail(err, RUNG_EMODEL, "axis %d is empty", axis);
    gone[axis] = true;
    return reduced_shape(x, gone, node_int(a->n, "keepdims", 1) != 0, RUNG_I64, &a->out[0], err);
}

static rung_status eval_arg(const eval_args *a, bool greatest, rung_error *err)
{
    const tensor *x = &a->in[0];
    int axis = 0;
    const rung_status st = op_axis(node_int(a->n, "axis", 0), x->rank, &axis, err);
    if (st)
        return st;
    const bool last = node_int(a->n, "select_last_index", 0) != 0;
    const size_t n = (size_t)x->dims[axis], inner = dims_product(x->dims, axis + 1, x->rank);
    const size_t count = tensor_count(&a->out[0]);
    for (size_t o = 0; o < count; o++) {
        const size_t first = o / inner * n * inner + o % inner;
        size_t where = 0;
        double best = tensor_get(x, first);
        for (size_t i = 1; i < n; i++) {
            const double v = tensor_get(x, first + i * inner);
            if ((greatest ? v > best : v < best) || (last && v == best)) {
                best = v;
                where = i;
            }
        }
        ((int64_t *)a->out[0].data)[o] = (int64_t)where;
    }
    return RUNG_OK;
}

static rung_status arg_max_eval(const eval_args *a, rung_error *err)
{
    return eval_arg(a, true, err);
}

static rung_status arg_min_eval(const eval_args *a, rung_error *err)
{
    return eval_arg(a, false, err);
}

#define REDUCE(op)                                                                                 \
    .name = op, .domain = "", .infer = reduce_infer, .eval = reduce_eval, .grad = reduce_grad

const op_def op_arg_max = {.name = "ArgMax", .domain = "", .infer = arg_infer,
                           .eval = arg_max_eval};
const op_def op_arg_min = {.name = "ArgMin", .domain = "", .infer = arg_infer,
                           .eval = arg_min_eval};
const op_def op_reduce_l1 = {REDUCE("ReduceL1"), .reads = {.in = 1}};
const op_def op_reduce_l2 = {REDUCE("ReduceL2"), .reads = {.in = 1, .out = 1}};
const op_def op_reduce_log_sum = {REDUCE("ReduceLogSum"), .reads = {.out = 1}};
const op_def op_reduce_log_sum_exp = {REDUCE("ReduceLogSumExp"), .reads = {.in = 1, .out = 1}};
const op_def op_reduce_max = {REDUCE("ReduceMax"), .reads = {.in = 1}};
const op_def op_reduce_mean = {REDUCE("ReduceMean"), .lower = lower_pool,
                                .quant = {QUANT_COMPUTE, .activations = 1}};
const op_def op_reduce_min = {REDUCE("ReduceMin"), .reads = {.in = 1}};
const op_def op_reduce_prod = {REDUCE("ReduceProd"), .reads = {.in = 1}};
const op_def op_reduce_sum = {REDUCE("ReduceSum")};
const op_def op_reduce_sum_square = {REDUCE("ReduceSumSquare"), .reads = {.in = 1}};
