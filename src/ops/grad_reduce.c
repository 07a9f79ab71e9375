/* Gradients of the reductions and of CumSum. */
#include <math.h>
#include <string.h>

#include "ops/element.h"
#include "ops/grad.h"
#include "ops/reduce.h"

#define CHUNK 256

/* A reduction's y and dy have the dims of x with 1 for the axes that are gone, so that they
 * broadcast to x. v[i] is x's element on entry; y, dy: of its result; s: two sums a result. */
typedef struct reduced {
    tensor  x, y, dy;   /* data = NULL where it is not read */
    double *sums[2];    /* by result; made where the reduction has a pass that fills them */
    double  count;      /* elements a result */
} reduced;

/* dx of n elements, or what a pass adds up, in *v; k: index of the result, hop: 1, or 0 where one
 * result is for all n. */
typedef void (*reduce_fn)(const reduced *r, size_t k, size_t hop, size_t n, double *v);

#define EACH(formula)                                                                              \
    for (size_t i = 0; i < n; i++, k += hop) {                                                     \
        const double g = ((const float *)r->dy.data)[k];                                           \
        v[i] = formula;                                                                            \
    }
#define GRAD(name, formula)                                                                        \
    static void name(const reduced *r, size_t k, size_t hop, size_t n, double *v)                  \
    {                                                                                              \
        EACH(formula)                                                                              \
    }

static double result(const reduced *r, size_t k)
{
    return ((const float *)r->y.data)[k];
}

static double sign(double x)
{
    return (x > 0) - (x < 0);
}

/* The product of the others: sums[0] is the product without zeros, sums[1] their number. */
static double other_factors(const reduced *r, size_t k, double x)
{
    const double zeros = r->sums[1][k];
    return zeros == 0 ? r->sums[0][k] / x : zeros == 1 && x == 0 ? r->sums[0][k] : 0;
}

GRAD(d_sum, g)
GRAD(d_mean, g / r->count)
GRAD(d_l1, g * sign(v[i]))
GRAD(d_l2, result(r, k) == 0 ? 0 : g * v[i] / result(r, k))
GRAD(d_log_sum, g * exp(-result(r, k)))
GRAD(d_log_sum_exp, g * exp(v[i] - result(r, k)))
GRAD(d_sum_square, 2 * g * v[i])
GRAD(d_extreme, v[i] == r->sums[0][k] ? g / r->sums[1][k] : 0)
GRAD(d_prod, g * other_factors(r, k, v[i]))
#undef GRAD
#undef EACH

/* Passes before: over all elements of x. */
#define PASS(name, statement)                                                                      \
    static void name(const reduced *r, size_t k, size_t hop, size_t n, double *v)                  \
    {                                                                                              \
        double *a = r->sums[0], *b = r->sums[1];                                                   \
        for (size_t i = 0; i < n; i++, k += hop)                                                   \
            statement;                                                                             \
    }
PASS(find_max, { a[k] = fmax(a[k], v[i]); b[k] = 0; })
PASS(find_min, { a[k] = fmin(a[k], v[i]); b[k] = 0; })
PASS(count_ties, b[k] += v[i] == a[k])
PASS(multiply, { a[k] *= v[i] == 0 ? 1 : v[i]; b[k] += v[i] == 0; })
#undef PASS

static const struct reduction {
    const char *op;
    reduce_fn   dx;
    reduce_fn   before[2]; /* NULL: not needed */
    double      start;     /* of sums[0] */
} reductions[] = {
    {"ReduceL1", d_l1, {NULL}, 0},
    {"ReduceL2", d_l2, {NULL}, 0},
    {"ReduceLogSum", d_log_sum, {NULL}, 0},
    {"ReduceLogSumExp", d_log_sum_exp, {NULL}, 0},
    {"ReduceMax", d_extreme, {find_max, count_ties}, -INFINITY},
    {"ReduceMean", d_mean, {NULL}, 0},
    {"ReduceMin", d_extreme, {find_min, count_ties}, INFINITY},
    {"ReduceProd", d_prod, {multiply, NULL}, 1},
    {"ReduceSum", d_sum, {NULL}, 0},
    {"ReduceSumSquare", d_sum_square, {NULL}, 0},
};

static const struct reduction *reduction_of(const node *n)
{
    size_t i = 0;
    while (strcmp(reductions[i].op, n->op_type) != 0)
        i++; /* the entries that name reduce_grad are all in the list */
    return &reductions[i];
}

/* One pass over x; what f leaves in v goes to dx (NULL: nowhere). */
static void pass_over(const reduced *r, reduce_fn f, float *dx)
{
    double v[CHUNK] = {0};
    walk w;
    if (!walk_begin(&w, &r->x, (const tensor *const[]){&r->dy}, 1))
        return;
    do {
        for (size_t first = 0; first < w.row; first += CHUNK) {
            const size_t n = w.row - first < CHUNK ? w.row - first : CHUNK;
            const size_t k = w.offset[0] + (w.repeats[0] ? 0 : first);
            if (r->x.data)
                load_doubles(&r->x, w.out + first, n, v);
            f(r, k, !w.repeats[0], n, v);
            for (size_t i = 0; dx && i < n; i++)
                dx[w.out + first + i] = (float)v[i];
        }
    } while (walk_next(&w));
}

static rung_status alloc_sums(reduced *r, double start, arena *mem, rung_error *err)
{
    const size_t n = tensor_count(&r->dy);
    for (int i = 0; i < 2; i++) {
        if (!(r->sums[i] = arena_zero(mem, n, sizeof **r->sums)))
            return fail_memory(err, "sums of a reduction", n * sizeof **r->sums);
    }
    for (size_t i = 0; i < n; i++)
        r->sums[0][i] = start;
    return RUNG_OK;
}

rung_status reduce_grad(const grad_args *a, rung_error *err)
{
    const struct reduction *op = reduction_of(a->n);
    const eval_args e = grad_as_eval(a);
    reduced r = {.x = a->in[0], .y = a->out[0], .dy = a->dout[0]};
    axes gone;
    bool any;
    rung_status st = grad_begin(a, &any, err);
    if (st || !any || !a->din[0].data ||
        (st = reduced_axes(a->n, eval_in(&e, 1), r.x.rank, &gone, err)))
        return st;
    r.dy.rank = r.x.rank;
    for (int i = 0; i < r.x.rank; i++)
        r.dy.dims[i] = gone.has[i] ? 1 : r.x.dims[i];
    if (tensor_count(&r.dy) != tensor_count(&a->dout[0]))
        return fail(err, RUNG_EMODEL, "the output is declared with another size");
    r.count = (double)(tensor_count(&r.x) / tensor_count(&r.dy));
    if (op->before[0] && (st = alloc_sums(&r, op->start, a->mem, err)))
        return st;
    for (int i = 0; i < 2; i++) {
        if (op->before[i])
            pass_over(&r, op->before[i], NULL);
    }
    pass_over(&r, op->dx, a->din[0].data);
    return RUNG_OK;
}

/* The sum runs the other way. */
rung_status cum_sum_grad(const grad_args *a, rung_error *err)
{
    const tensor *x = &a->in[0];
    const bool reverse = node_int(a->n, "reverse", 0) != 0;
    const bool exclusive = node_int(a->n, "exclusive", 0) != 0;
    const float *dy = a->dout[0].data;
    float *dx = a->din[0].data;
    int axis = 0;
    bool any;
    rung_status st = grad_begin(a, &any, err);
    if (st || !any || !dx || (st = op_axis(tensor_get_int(&a->in[1], 0), x->rank, &axis, err)))
        return st;
    const size_t outer = dims_product(x->dims, 0, axis), n = (size_t)x->dims[axis];
    const size_t inner = dims_product(x->dims, axis + 1, x->rank);
    for (size_t o = 0; o < outer * inner; o++) {
        double sum = 0;
        for (size_t k = 0; k < n; k++) {
            const size_t i = reverse ? k : n - 1 - k;
            const size_t at = (o / inner * n + i) * inner + o % inner;
            const double before = sum;
            sum += dy[at];
            dx[at] = (float)(exclusive ? before : sum);
        }
    }
    return RUNG_OK;
}
