/* Gradients of the elementwise operators of two or more broadcast operands. */
#include <math.h>
#include <string.h>

#include "ops/element.h"
#include "ops/grad.h"

#define CHUNK 256

/* --- two operands ----------------------------------------------------------------------------- */
/* dx = g * dz/dx, dy = g * dz/dy. */
typedef void (*partial_fn)(const double *x, const double *y, const double *g, size_t n, double *dx,
                           double *dy);

#define PARTIALS(name, by_x, by_y)                                                                 \
    static void name(const double *x, const double *y, const double *g, size_t n, double *dx,      \
                     double *dy)                                                                   \
    {                                                                                              \
        for (size_t i = 0; i < n; i++) {                                                           \
            dx[i] = by_x;                                                                          \
            dy[i] = by_y;                                                                          \
        }                                                                                          \
    }

/* x^0 is flat, also where x^-1 is not finite. */
static double pow_by_base(double x, double y)
{
    return y == 0 ? 0 : y * pow(x, y - 1);
}

/* 0^y is flat in y >= 0. */
static double pow_by_exponent(double x, double y)
{
    return x == 0 && y >= 0 ? 0 : pow(x, y) * log(x);
}

PARTIALS(p_add, g[i], g[i])
PARTIALS(p_sub, g[i], -g[i])
PARTIALS(p_mul, g[i] * y[i], g[i] * x[i])
PARTIALS(p_div, g[i] / y[i], -g[i] * x[i] / (y[i] * y[i]))
PARTIALS(p_pow, g[i] * pow_by_base(x[i], y[i]), g[i] * pow_by_exponent(x[i], y[i]))
PARTIALS(p_prelu, x[i] > 0 ? g[i] : g[i] * y[i], x[i] > 0 ? 0 : g[i] * x[i])
#undef PARTIALS

static partial_fn partials_of(const char *op)
{
    static const struct {
        const char *op;
        partial_fn  f;
    } partials[] = {{"Add", p_add}, {"Sub", p_sub}, {"Mul", p_mul},
                    {"Div", p_div}, {"Pow", p_pow}, {"PRelu", p_prelu}};
    size_t i = 0;
    while (strcmp(partials[i].op, op) != 0)
        i++; /* the entries that name binary_grad are all in the list */
    return partials[i].f;
}

/* The rows of the result; an operand that is not read has no data and stays 0. */
static void partial_rows(const grad_args *a, walk *w, partial_fn f, grad_sum *sums)
{
    double v[2][CHUNK] = {{0}}, g[CHUNK], d[2][CHUNK];
    do {
        for (size_t first = 0; first < w->row; first += CHUNK) {
            const size_t n = w->row - first < CHUNK ? w->row - first : CHUNK;
            for (int k = 0; k < 2; k++) {
                if (a->in[k].data)
                    walk_doubles(w, k, &a->in[k], first, n, v[k]);
            }
            load_doubles(&a->dout[0], w->out + first, n, g);
            f(v[0], v[1], g, n, d[0], d[1]);
            for (int k = 0; k < 2; k++)
                grad_sum_add(&sums[k], w, k, first, n, d[k]);
        }
    } while (walk_next(w));
}

rung_status binary_grad(const grad_args *a, rung_error *err)
{
    const tensor *dout = &a->dout[0];
    grad_sum sums[2];
    bool any;
    walk w;
    rung_status st = grad_begin(a, &any, err);
    if (st || !any)
        return st;
    for (int k = 0; k < 2; k++) {
        if ((st = grad_sum_begin(&sums[k], &a->din[k], tensor_count(dout), a->mem, err)))
            return st;
    }
    if (walk_begin(&w, dout, (const tensor *const[]){&a->in[0], &a->in[1]}, 2))
        partial_rows(a, &w, partials_of(a->n->op_type), sums);
    grad_sum_end(&sums[0]);
    grad_sum_end(&sums[1]);
    return RUNG_OK;
}

/* --- Sum, Mean -------------------------------------------------------------------------------- */
rung_status variadic_grad(const grad_args *a, rung_error *err)
{
    const double factor = strcmp(a->n->op_type, "Mean") == 0 ? 1.0 / a->n_in : 1;
    bool any;
    rung_status st = grad_begin(a, &any, err);
    for (int i = 0; st == RUNG_OK && any && i < a->n_in; i++)
        st = grad_broadcast(&a->dout[0], factor, &a->din[i], a->mem, err);
    return st;
}

/* --- Max, Min --------------------------------------------------------------------------------- */
/* Of each element of the result: its value (times sign, so that it is a maximum), and how many
 * operands have it. */
typedef struct extreme {
    double       sign;
    double      *best, *ties;
    const float *g;
} extreme;

/* One pass over n elements of an operand (from element `at` of the result on); x is overwritten. */
typedef void (*pass_fn)(const extreme *e, size_t at, size_t n, double *x);

static void raise_best(const extreme *e, size_t at, size_t n, double *x)
{
    for (size_t i = 0; i < n; i++)
        e->best[at + i] = fmax(e->best[at + i], e->sign * x[i]);
}

static void count_ties(const extreme *e, size_t at, size_t n, double *x)
{
    for (size_t i = 0; i < n; i++)
        e->ties[at + i] += e->sign * x[i] == e->best[at + i];
}

static void share(const extreme *e, size_t at, size_t n, double *x)
{
    for (size_t i = 0; i < n; i++)
        x[i] = e->sign * x[i] == e->best[at + i] ? e->g[at + i] / e->ties[at + i] : 0;
}

/* Runs the pass over one operand; sum: what it leaves in x is gathered there (NULL: nowhere). */
static void operand_pass(const extreme *e, pass_fn f, const tensor *in, const tensor *dout,
                         grad_sum *sum)
{
    double x[CHUNK];
    walk w;
    if (!walk_begin(&w, dout, (const tensor *const[]){in}, 1))
        return;
    do {
        for (size_t first = 0; first < w.row; first += CHUNK) {
            const size_t n = w.row - first < CHUNK ? w.row - first : CHUNK;
            walk_doubles(&w, 0, in, first, n, x);
            f(e, w.out + first, n, x);
            if (sum)
                grad_sum_add(sum, &w, 0, first, n, x);
        }
    } while (walk_next(&w));
}

rung_status extreme_grad(const grad_args *a, rung_error *err)
{
    const tensor *dout = &a->dout[0];
    const size_t n = tensor_count(dout);
    extreme e = {.sign = strcmp(a->n->op_type, "Min") == 0 ? -1 : 1, .g = dout->data};
    bool any;
    rung_status st = grad_begin(a, &any, err);
    if (st || !any)
        return st;
    e.best = arena_zero(a->mem, n, sizeof *e.best);
    e.ties = arena_zero(a->mem, n, sizeof *e.ties);
    if (!e.best || !e.ties)
        return fail_memory(err, "the greatest operands", n * sizeof *e.best);
    for (size_t i = 0; i < n; i++)
        e.best[i] = -INFINITY;
    for (int i = 0; i < a->n_in; i++)
        operand_pass(&e, raise_best, &a->in[i], dout, NULL);
    for (int i = 0; i < a->n_in; i++)
        operand_pass(&e, count_ties, &a->in[i], dout, NULL);
    for (int i = 0; i < a->n_in; i++) {
        grad_sum sum;
        if (!a->din[i].data)
            continue;
        if ((st = grad_sum_begin(&sum, &a->din[i], n, a->mem, err)))
            return st;
        operand_pass(&e, share, &a->in[i], dout, &sum);
        grad_sum_end(&sum);
    }
    return RUNG_OK;
}
