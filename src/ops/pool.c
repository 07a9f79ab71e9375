/* MaxPool, AveragePool, LpPool and the global pools. */
#include <math.h>

#include "ops/args.h"
#include "ops/element.h"
#include "ops/entries.h"
#include "ops/grad.h"
#include "ops/lower.h"
#include "ops/pool.h"
#include "ops/taps.h"

/* --- shapes ----------------------------------------------------------------------------------- */
static rung_status pool_shape_infer(const infer_args *a, rung_error *err)
{
    const value_info *x = a->in[0];
    window w;
    rung_status st;
    int64_t dims[RUNG_MAX_RANK];
    a->out[0].type = x->type;
    if (x->rank < 0)
        return RUNG_OK;
    if ((st = window_pool(a->n, x->rank, x->dims, &w, err)))
        return st;
    dims[0] = x->dims[0];
    dims[1] = x->dims[1];
    for (int i = 0; i < w.n; i++)
        dims[i + 2] = w.out[i];
    return op_shape(&a->out[0], x->type, x->rank, dims, err);
}

static rung_status pool_infer(const infer_args *a, rung_error *err)
{
    rung_status st;
    if ((st = op_counts(a, 1, 1, 1, err)) || (st = op_type(a, 0, TYPES_FLOAT, err)))
        return st;
    return pool_shape_infer(a, err);
}

static rung_status max_pool_infer(const infer_args *a, rung_error *err)
{
    const unsigned types = TYPES_FLOAT | TYPE(RUNG_U8) | TYPE(RUNG_I8);
    rung_status st;
    if ((st = op_counts(a, 1, 1, 2, err)) || (st = op_type(a, 0, types, err)) ||
        (st = pool_shape_infer(a, err)))
        return st;
    if (a->n->n_outputs < 2)
        return RUNG_OK;
    return op_shape(&a->out[1], RUNG_I64, a->out[0].rank, a->out[0].dims, err);
}

static rung_status global_infer(const infer_args *a, rung_error *err)
{
    int64_t dims[RUNG_MAX_RANK];
    rung_status st;
    if ((st = op_counts(a, 1, 1, 1, err)) || (st = op_type(a, 0, TYPES_FLOAT, err)) ||
        (st = op_min_rank(a, 0, 2, err)))
        return st;
    const value_info *x = a->in[0];
    for (int i = 0; i < x->rank; i++)
        dims[i] = i < 2 ? x->dims[i] : 1;
    return op_shape(&a->out[0], x->type, x->rank, dims, err);
}

/* --- evaluation ------------------------------------------------------------------------------- */
/* One result from the elements x[taps->x[..]] of a channel; extent: positions of the window that
 * count for an average. */
typedef double (*pool_fn)(const tensor *x, size_t channel_first, const taps *t, double extent,
                          int64_t p);

static double average(const tensor *x, size_t first, const taps *t, double extent, int64_t p)
{
    double sum = 0;
    for (size_t i = 0; i < t->n; i++)
        sum += tensor_get(x, first + t->x[i]);
    return extent > 0 ? sum / extent : 0;
}

static double lp_norm(const tensor *x, size_t first, const taps *t, double extent, int64_t p)
{
    double sum = 0;
    for (size_t i = 0; i < t->n; i++)
        sum += pow(fabs(tensor_get(x, first + t->x[i])), (double)p);
    return pow(sum, 1 / (double)p);
}

double pool_extent(const window *w, const int64_t *in, const int64_t *at)
{
    double n = 1;
    for (int i = 0; i < w->n; i++) {
        const int64_t start = at[i] * w->strides[i] - w->begin[i], d = w->dilations[i];
        const int64_t room = in[i] + w->end[i] - start; /* > 0: the window begins inside */
        const int64_t fit = (room + d - 1) / d;
        n *= (double)(fit < w->kernel[i] ? fit : w->kernel[i]);
    }
    return n;
}

static rung_status eval_pool(const eval_args *a, pool_fn f, bool count_pad, int64_t p,
                             rung_error *err)
{
    const tensor *x = &a->in[0];
    tensor *y = &a->out[0];
    window w;
    taps t;
    rung_status st;
    if ((st = window_pool(a->n, x->rank, x->dims, &w, err)) ||
        (st = taps_init(&t, &w, x->dims + 2, false, a->mem, err)))
        return st;
    const size_t channels = (size_t)(x->dims[0] * x->dims[1]);
    const size_t in = dims_product(x->dims, 2, x->rank), out = dims_product(y->dims, 2, y->rank);
    int64_t at[WINDOW_MAX] = {0};
    size_t i = 0;
    do {
        taps_at(&t, at);
        const double extent = count_pad ? pool_extent(&w, x->dims + 2, at) : (double)t.n;
        for (size_t c = 0; c < channels; c++) {
            const double v = f(x, c * in, &t, extent, p);
            store_doubles(y, c * out + i, 1, &v);
        }
        i++;
    } while (next_position(w.n, y->dims + 2, at));
    return RUNG_OK;
}

static rung_status average_pool_eval(const eval_args *a, rung_error *err)
{
    return eval_pool(a, average, node_int(a->n, "count_include_pad", 0) != 0, 0, err);
}

static rung_status lp_pool_eval(const eval_args *a, rung_error *err)
{
    const int64_t p = node_int(a->n, "p", 2);
    if (p < 1)
        return fail(err, RUNG_EMODEL, "p is %lld", (long long)p);
    return eval_pool(a, lp_norm, false, p, err);
}

/* The greatest of a channel's taps and where it stands (the first of equals); NaN wins. Without
 * taps: the type's lowest value. */
static double greatest(const tensor *x, size_t first, const taps *t, size_t *where)
{
    double best = dtype_is_float(x->type) ? -INFINITY : x->type == RUNG_I8 ? INT8_MIN : 0;
    *where = t->n ? t->x[0] : 0;
    for (size_t i = 0; i < t->n; i++) {
        const double v = tensor_get(x, first + t->x[i]);
        if (v > best || (isnan(v) && !isnan(best))) {
            best = v;
            *where = t->x[i];
        }
    }
    return best;
}

/* A spatial index, row-major, as one that counts the first axis fastest (storage_order = 1). */
static size_t column_major(size_t index, int n, const int64_t *dims)
{
    size_t hop = 1, result = 0, below = dims_product(dims, 0, n);
    for (int i = 0; i < n; i++) {
        below /= (size_t)dims[i];
        result += index / below % (size_t)dims[i] * hop;
        hop *= (size_t)dims[i];
    }
    return result;
}

static rung_status max_pool_eval(const eval_args *a, rung_error *err)
{
    const tensor *x = &a->in[0];
    tensor *y = &a->out[0];
    int64_t *indices = a->n_out > 1 ? a->out[1].data : NULL;
    window w;
    taps t;
    rung_status st;
    if ((st = window_pool(a->n, x->rank, x->dims, &w, err)) ||
        (st = taps_init(&t, &w, x->dims + 2, false, a->mem, err)))
        return st;
    const bool columns = node_int(a->n, "storage_order", 0) != 0;
    const size_t channels = (size_t)(x->dims[0] * x->dims[1]);
    const size_t in = dims_product(x->dims, 2, x->rank), out = dims_product(y->dims, 2, y->rank);
    int64_t at[WINDOW_MAX] = {0};
    size_t i = 0, where = 0;
    do {
        taps_at(&t, at);
        for (size_t c = 0; c < channels; c++) {
            const double v = greatest(x, c * in, &t, &where);
            store_doubles(y, c * out + i, 1, &v);
            if (indices)
                indices[c * out + i] = (int64_t)(
                    c * in + (columns ? column_major(where, w.n, x->dims + 2) : where));
        }
        i++;
    } while (next_position(w.n, y->dims + 2, at));
    return RUNG_OK;
}

static rung_status global_average_eval(const eval_args *a, rung_error *err)
{
    const tensor *x = &a->in[0];
    const size_t n = dims_product(x->dims, 2, x->rank), channels = tensor_count(&a->out[0]);
    for (size_t c = 0; c < channels; c++) {
        double sum = 0;
        for (size_t i = 0; i < n; i++)
            sum += tensor_get(x, c * n + i);
        sum /= (double)n;
        store_doubles(&a->out[0], c, 1, &sum);
    }
    return RUNG_OK;
}

static rung_status global_max_eval(const eval_args *a, rung_error *err)
{
    const tensor *x = &a->in[0];
    const size_t n = dims_product(x->dims, 2, x->rank), channels = tensor_count(&a->out[0]);
    for (size_t c = 0; c < channels; c++) {
        double best = -INFINITY;
        for (size_t i = 0; i < n; i++) {
            const double v = tensor_get(x, c * n + i);
            best = v > best || isnan(v) ? v : best;
        }
        store_doubles(&a->out[0], c, 1, &best);
    }
    return RUNG_OK;
}

#define COMPUTED .quant = {QUANT_COMPUTE, .activations = 1}, .layout = LAYOUT_CHANNELS
#define SHARED .quant = {QUANT_SHARES_INPUT, .activations = 1}, .layout = LAYOUT_CHANNELS

const op_def op_average_pool = {.name = "AveragePool", .domain = "", .infer = pool_infer,
                                .eval = average_pool_eval, .grad = average_pool_grad,
                                .lower = lower_pool, COMPUTED};
const op_def op_global_average_pool = {.name = "GlobalAveragePool", .domain = "",
                                       .infer = global_infer, .eval = global_average_eval,
                                       .grad = global_average_grad, .lower = lower_pool,
                                       COMPUTED};
const op_def op_global_max_pool = {.name = "GlobalMaxPool", .domain = "", .infer = global_infer,
                                   .eval = global_max_eval, .grad = global_max_grad,
                                   .reads = {.in = 1}, .lower = lower_pool, SHARED};
const op_def op_lp_pool = {.name = "LpPool", .domain = "", .infer = pool_infer,
                           .eval = lp_pool_eval, .grad = lp_pool_grad,
                           .reads = {.in = 1, .out = 1}, .layout = LAYOUT_CHANNELS};
const op_def op_max_pool = {.name = "MaxPool", .domain = "", .infer = max_pool_infer,
                            .eval = max_pool_eval, .grad = max_pool_grad, .reads = {.in = 1},
                            .lower = lower_pool, SHARED};
