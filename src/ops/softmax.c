/* Softmax, LogSoftmax, Hardmax along one axis. */
#include <math.h>

#include "ops/args.h"
#include "ops/element.h"
#include "ops/entries.h"
#include "ops/grad.h"
#include "ops/lower.h"

static rung_status softmax_infer(const infer_args *a, rung_error *err)
{
    int axis = 0;
    rung_status st;
    if ((st = op_counts(a, 1, 1, 1, err)) || (st = op_type(a, 0, TYPES_FLOAT, err)) ||
        (st = op_min_rank(a, 0, 1, err)))
        return st;
    const value_info *x = a->in[0];
    if (x->rank > 0 && (st = op_axis(node_int(a->n, "axis", -1), x->rank, &axis, err)))
        return st;
    return op_like(a, 0, 0, x->type, err);
}

/* One line of n values in place. */
typedef void (*line_fn)(double *v, size_t n);

static double largest(const double *v, size_t n)
{
    double best = -INFINITY;
    for (size_t i = 0; i < n; i++)
        best = v[i] > best ? v[i] : best;
    return best;
}

static void softmax_line(double *v, size_t n)
{
    const double max = largest(v, n);
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += v[i] = exp(v[i] - max);
    for (size_t i = 0; i < n; i++)
        v[i] /= sum;
}

static void log_softmax_line(double *v, size_t n)
{
    const double max = largest(v, n);
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += exp(v[i] - max);
    for (size_t i = 0; i < n; i++)
        v[i] -= max + log(sum);
}

static void hardmax_line(double *v, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        best = v[i] > v[best] ? i : best;
    for (size_t i = 0; i < n; i++)
        v[i] = i == best;
}

static rung_status eval_lines(const eval_args *a, line_fn f, rung_error *err)
{
    const tensor *x = &a->in[0];
    int axis = 0;
    const rung_status st = op_axis(node_int(a->n, "axis", -1), x->rank, &axis, err);
    if (st)
        return st;
    const size_t outer = dims_product(x->dims, 0, axis), n = (size_t)x->dims[axis];
    const size_t inner = dims_product(x->dims, axis + 1, x->rank);
    double *v = arena_zero(a->mem, n + 1, sizeof *v);
    if (!v)
        return fail_memory(err, "one line of the input", n * sizeof *v);
    for (size_t o = 0; n && o < outer * inner; o++) {
        const size_t first = o / inner * n * inner + o % inner;
        for (size_t i = 0; i < n; i++)
            v[i] = tensor_get(x, first + i * inner);
        f(v, n);
        for (size_t i = 0; i < n; i++)
            store_doubles(&a->out[0], first + i * inner, 1, &v[i]);
    }
    return RUNG_OK;
}

static rung_status softmax_eval(const eval_args *a, rung_error *err)
{
    return eval_lines(a, softmax_line, err);
}

static rung_status log_softmax_eval(const eval_args *a, rung_error *err)
{
    return eval_lines(a, log_softmax_line, err);
}

static rung_status hardmax_eval(const eval_args *a, rung_error *err)
{
    return eval_lines(a, hardmax_line, err);
}

const op_def op_hardmax = {.name = "Hardmax", .domain = "", .infer = softmax_infer,
                           .eval = hardmax_eval};
const op_def op_log_softmax = {.name = "LogSoftmax", .domain = "", .infer = softmax_infer,
                               .eval = log_softmax_eval, .grad = log_softmax_grad,
                               .reads = {.out = 1}};
const op_def op_softmax = {
    .name = "Softmax",
    .domain = "",
    .infer = softmax_infer,
    .eval = softmax_eval,
    .grad = softmax_grad,
    .reads = {.out = 1},
    .lower = lower_softmax,
    .quant = {QUANT_FIXED_OUTPUT, .activations = 1, .fixed_lo = 0, .fixed_hi = 1},
};
