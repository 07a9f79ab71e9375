/* Elementwise operators of two or more broadcast operands. */
#include <math.h>
#include <string.h>

#include "ops/args.h"
#include "ops/element.h"
#include "ops/entries.h"
#include "ops/grad.h"
#include "ops/lower.h"
#include "ops/walk.h"

#define CHUNK 256

/* --- formulas: floats in double, integers modulo 2^64 (unsigned64: the bits are uint64) ------- */
#define F(name, formula)                                                                           \
    static double name(double x, double y)                                                         \
    {                                                                                              \
        return formula;                                                                            \
    }
#define I(name, formula)                                                                           \
    static int64_t name(int64_t x, int64_t y, bool unsigned64)                                     \
    {                                                                                              \
        return formula;                                                                            \
    }

static bool int_less(int64_t x, int64_t y, bool unsigned64)
{
    return unsigned64 ? (uint64_t)x < (uint64_t)y : x < y;
}

/* Toward zero; y != 0 was checked. INT64_MIN / -1 wraps. */
static int64_t int_div(int64_t x, int64_t y, bool unsigned64)
{
    if (unsigned64)
        return (int64_t)((uint64_t)x / (uint64_t)y);
    return y == -1 ? (int64_t)(0 - (uint64_t)x) : x / y;
}

/* The sign of the divisor (Python's); y != 0 was checked. */
static int64_t int_mod(int64_t x, int64_t y, bool unsigned64)
{
    if (unsigned64)
        return (int64_t)((uint64_t)x % (uint64_t)y);
    const int64_t r = y == -1 ? 0 : x % y;
    return r != 0 && (r < 0) != (y < 0) ? r + y : r;
}

/* The sign of the dividend (C's). */
static int64_t int_fmod(int64_t x, int64_t y, bool unsigned64)
{
    if (unsigned64)
        return (int64_t)((uint64_t)x % (uint64_t)y);
    return y == -1 ? 0 : x % y;
}

/* By squaring; negative exponents give what 1 / x^n truncates to. */
static int64_t int_pow(int64_t x, int64_t y, bool unsigned64)
{
    if (!unsigned64 && y < 0)
        return x == 1 ? 1 : x == -1 ? (y % 2 ? -1 : 1) : 0;
    uint64_t base = (uint64_t)x, result = 1;
    for (uint64_t n = (uint64_t)y; n; n >>= 1, base *= base) {
        if (n & 1)
            result *= base;
    }
    return (int64_t)result;
}

F(f_add, x + y)
F(f_sub, x - y)
F(f_mul, x * y)
F(f_div, x / y)
F(f_pow, pow(x, y))
F(f_min, isnan(x) || x < y ? x : y)
F(f_max, isnan(x) || x > y ? x : y)
F(f_mod, fmod(x, y))
F(f_equal, x == y)
F(f_less, x < y)
F(f_less_equal, x <= y)
F(f_greater, x > y)
F(f_greater_equal, x >= y)
F(f_prelu, x < 0 ? x * y : x)
I(i_add, (int64_t)((uint64_t)x + (uint64_t)y))
I(i_sub, (int64_t)((uint64_t)x - (uint64_t)y))
I(i_mul, (int64_t)((uint64_t)x * (uint64_t)y))
I(i_min, int_less(x, y, unsigned64) ? x : y)
I(i_max, int_less(x, y, unsigned64) ? y : x)
I(i_equal, x == y)
I(i_less, int_less(x, y, unsigned64))
I(i_less_equal, !int_less(y, x, unsigned64))
I(i_greater, int_less(y, x, unsigned64))
I(i_greater_equal, !int_less(x, y, unsigned64))
I(i_and, x && y)
I(i_or, x || y)
I(i_xor, !x != !y)
I(i_prelu, !unsigned64 && x < 0 ? (int64_t)((uint64_t)x * (uint64_t)y) : x)
#undef F
#undef I

typedef double (*float_fn)(double x, double y);
typedef int64_t (*int_fn)(int64_t x, int64_t y, bool unsigned64);

/* What each operator computes, and the element types it takes. */
static const struct formula {
    const char *op;
    float_fn    f;
    int_fn      i;
    unsigned    types;
    bool        to_bool;
} formulas[] = {
    {"Add", f_add, i_add, TYPES_NUMBER, false},
    {"And", 0, i_and, TYPE(RUNG_BOOL), true},
    {"Div", f_div, int_div, TYPES_NUMBER, false},
    {"Equal", f_equal, i_equal, TYPES_NUMBER | TYPE(RUNG_BOOL) | TYPE(RUNG_STRING), true},
    {"Greater", f_greater, i_greater, TYPES_NUMBER, true},
    {"GreaterOrEqual", f_greater_equal, i_greater_equal, TYPES_NUMBER, true},
    {"Less", f_less, i_less, TYPES_NUMBER, true},
    {"LessOrEqual", f_less_equal, i_less_equal, TYPES_NUMBER, true},
    {"Max", f_max, i_max, TYPES_NUMBER, false},
    {"Mean", f_add, 0, TYPES_FLOAT, false},
    {"Min", f_min, i_min, TYPES_NUMBER, false},
    {"Mod", f_mod, int_mod, TYPES_NUMBER, false},
    {"Mul", f_mul, i_mul, TYPES_NUMBER, false},
    {"Or", 0, i_or, TYPE(RUNG_BOOL), true},
    {"PRelu", f_prelu, i_prelu, TYPES_NUMBER, false},
    {"Pow", f_pow, int_pow, TYPES_NUMBER, false},
    {"Sub", f_sub, i_sub, TYPES_NUMBER, false},
    {"Sum", f_add, 0, TYPES_FLOAT, false},
    {"Xor", 0, i_xor, TYPE(RUNG_BOOL), true},
};

static const struct formula *formula_of(const node *n)
{
    size_t i = 0;
    while (strcmp(formulas[i].op, n->op_type) != 0)
        i++; /* the entries below are all in the list */
    return &formulas[i];
}

/* --- shapes ----------------------------------------------------------------------------------- */
static rung_status broadcast_all(const infer_args *a, dtype type, rung_error *err)
{
    int rank = 0;
    int64_t dims[RUNG_MAX_RANK];
    a->out[0].type = type;
    for (int i = 0; i < a->n->n_inputs; i++) {
        if (!op_knows_rank(a, i))
            return RUNG_OK;
        const rung_status st = op_broadcast(&rank, dims, a->in[i]->rank, a->in[i]->dims, err);
        if (st != RUNG_OK)
            return st;
    }
    return op_shape(&a->out[0], type, rank, dims, err);
}

static rung_status infer_operands(const infer_args *a, int min_in, int max_in, rung_error *err)
{
    const struct formula *f = formula_of(a->n);
    dtype type;
    rung_status st;
    if ((st = op_counts(a, min_in, max_in, 1, err)) ||
        (st = op_same_type(a, 0, a->n->n_inputs - 1, f->types, &type, err)))
        return st;
    return broadcast_all(a, f->to_bool ? RUNG_BOOL : type, err);
}

static rung_status binary_infer(const infer_args *a, rung_error *err)
{
    return infer_operands(a, 2, 2, err);
}

static rung_status variadic_infer(const infer_args *a, rung_error *err)
{
    return infer_operands(a, a->n->n_inputs > 0 ? a->n->n_inputs : 1, INT32_MAX, err);
}

/* The exponent may have a type of its own; the result has the base's. */
static rung_status pow_infer(const infer_args *a, rung_error *err)
{
    rung_status st;
    if ((st = op_counts(a, 2, 2, 1, err)) || (st = op_type(a, 0, TYPES_NUMBER, err)) ||
        (st = op_type(a, 1, TYPES_NUMBER, err)))
        return st;
    return broadcast_all(a, a->in[0]->type, err);
}

static rung_status mod_infer(const infer_args *a, rung_error *err)
{
    const rung_status st = binary_infer(a, err);
    if (st == RUNG_OK && dtype_is_float(a->out[0].type) && node_int(a->n, "fmod", 0) == 0 &&
        a->opset < 28)
        return fail(err, RUNG_EMODEL, "floating-point operands need fmod = 1");
    return st;
}

/* The slope broadcasts to x, not x to the slope. */
static rung_status prelu_infer(const infer_args *a, rung_error *err)
{
    const rung_status st = binary_infer(a, err);
    if (st != RUNG_OK || a->out[0].rank < 0)
        return st;
    bool same = a->out[0].rank == a->in[0]->rank;
    for (int i = 0; same && i < a->out[0].rank; i++) {
        const int64_t x = a->in[0]->dims[i];
        same = x == DIM_UNKNOWN || x == a->out[0].dims[i];
    }
    return same ? op_like(a, 0, 0, a->out[0].type, err)
                : fail(err, RUNG_EMODEL, "the slope does not broadcast to the input's shape");
}

/* --- evaluation ------------------------------------------------------------------------------- */
static void float_rows(walk *w, float_fn f, const tensor *x, const tensor *y, tensor *out)
{
    double a[CHUNK], b[CHUNK];
    do {
        for (size_t first = 0; first < w->row; first += CHUNK) {
            const size_t n = w->row - first < CHUNK ? w->row - first : CHUNK;
            walk_doubles(w, 0, x, first, n, a);
            walk_doubles(w, 1, y, first, n, b);
            for (size_t i = 0; i < n; i++)
                a[i] = f(a[i], b[i]);
            store_doubles(out, w->out + first, n, a);
        }
    } while (walk_next(w));
}

static void int_rows(walk *w, int_fn f, const tensor *x, const tensor *y, tensor *out)
{
    int64_t a[CHUNK], b[CHUNK];
    const bool unsigned64 = x->type == RUNG_U64;
    do {
        for (size_t first = 0; first < w->row; first += CHUNK) {
            const size_t n = w->row - first < CHUNK ? w->row - first : CHUNK;
            walk_ints(w, 0, x, first, n, a);
            walk_ints(w, 1, y, first, n, b);
            for (size_t i = 0; i < n; i++)
                a[i] = f(a[i], b[i], unsigned64);
            store_ints(out, w->out + first, n, a);
        }
    } while (walk_next(w));
}

static rung_status refuse_zeros(const tensor *t, rung_error *err)
{
    const size_t n = tensor_count(t);
    for (size_t i = 0; i < n; i++) {
        if (tensor_get_int(t, i) == 0)
            return fail(err, RUNG_EMODEL, "integer division by zero (element %zu)", i);
    }
    return RUNG_OK;
}

/* out = x op y; out may be x where their shapes are equal. */
static rung_status apply(const struct formula *f, const tensor *x, const tensor *y, tensor *out,
                         rung_error *err)
{
    walk w;
    if (x->type == RUNG_STRING)
        return unsupported_type(x->type, err);
    const bool as_float = dtype_is_float(x->type) || dtype_is_float(y->type);
    if (!as_float && (f->i == int_div || f->i == int_mod || f->i == int_fmod)) {
        const rung_status st = refuse_zeros(y, err);
        if (st != RUNG_OK)
            return st;
    }
    if (!walk_begin(&w, out, (const tensor *const[]){x, y}, 2))
        return RUNG_OK;
    if (as_float)
        float_rows(&w, f->f, x, y, out);
    else
        int_rows(&w, f->i, x, y, out);
    return RUNG_OK;
}

static rung_status binary_eval(const eval_args *a, rung_error *err)
{
    return apply(formula_of(a->n), &a->in[0], &a->in[1], &a->out[0], err);
}

static double mod_of_divisor(double x, double y)
{
    const double r = fmod(x, y);
    return r != 0 && (r < 0) != (y < 0) ? r + y : r;
}

static rung_status mod_eval(const eval_args *a, rung_error *err)
{
    struct formula f = *formula_of(a->n);
    if (node_int(a->n, "fmod", 0) != 0)
        f.i = int_fmod;
    else
        f.f = mod_of_divisor;
    return apply(&f, &a->in[0], &a->in[1], &a->out[0], err);
}

/* Sums over all operands are kept in double, so that the order of rounding does not matter. */
static rung_status variadic_eval(const eval_args *a, rung_error *err)
{
    const struct formula *f = formula_of(a->n);
    tensor *out = &a->out[0], *sum = out;
    const size_t n = tensor_count(out);
    if (dtype_is_float(out->type) && !(sum = tensor_new(a->mem, RUNG_F64, out->rank, out->dims)))
        return fail_memory(err, "the sum", n * sizeof(double));
    tensor zero = {.type = a->in[0].type, .data = (uint64_t[1]){0}};
    const struct formula copy = {.f = f_add, .i = i_add};
    rung_status st = apply(&copy, &a->in[0], &zero, sum, err);
    for (int i = 1; st == RUNG_OK && i < a->n_in; i++)
        st = apply(f, sum, &a->in[i], sum, err);
    const double divisor = strcmp(f->op, "Mean") == 0 ? a->n_in : 1;
    for (size_t i = 0; st == RUNG_OK && sum != out && i < n; i++) {
        const double v = tensor_get(sum, i) / divisor;
        store_doubles(out, i, 1, &v);
    }
    return st;
}

#define QUANT_OPERANDS                                                                             \
    .lower = lower_binary, .quant = {QUANT_COMPUTE, .activations = 1 | 2}, .layout = LAYOUT_FOLLOWS
#define BINARY(op) .name = op, .domain = "", .infer = binary_infer, .eval = binary_eval
#define GRAD_OF(operands) .grad = binary_grad, .reads = {.in = operands}
#define VARIADIC(op) .name = op, .domain = "", .infer = variadic_infer, .eval = variadic_eval

const op_def op_add = {BINARY("Add"), GRAD_OF(0), QUANT_OPERANDS};
const op_def op_and = {BINARY("And"), .layout = LAYOUT_FOLLOWS};
const op_def op_div = {BINARY("Div"), GRAD_OF(1 | 2), .lower = lower_binary,
                       .layout = LAYOUT_FOLLOWS};
const op_def op_equal = {BINARY("Equal"), .layout = LAYOUT_FOLLOWS};
const op_def op_greater = {BINARY("Greater"), .layout = LAYOUT_FOLLOWS};
const op_def op_greater_or_equal = {BINARY("GreaterOrEqual"), .layout = LAYOUT_FOLLOWS};
const op_def op_less = {BINARY("Less"), .layout = LAYOUT_FOLLOWS};
const op_def op_less_or_equal = {BINARY("LessOrEqual"), .layout = LAYOUT_FOLLOWS};
const op_def op_max = {VARIADIC("Max"), .grad = extreme_grad, .reads = {.in = ~0u},
                       .lower = lower_binary, .layout = LAYOUT_FOLLOWS};
const op_def op_mean = {VARIADIC("Mean"), .grad = variadic_grad, .layout = LAYOUT_FOLLOWS};
const op_def op_min = {VARIADIC("Min"), .grad = extreme_grad, .reads = {.in = ~0u},
                       .lower = lower_binary, .layout = LAYOUT_FOLLOWS};
const op_def op_mod = {.name = "Mod", .domain = "", .infer = mod_infer, .eval = mod_eval,
                       .layout = LAYOUT_FOLLOWS};
const op_def op_mul = {BINARY("Mul"), GRAD_OF(1 | 2), QUANT_OPERANDS};
const op_def op_or = {BINARY("Or"), .layout = LAYOUT_FOLLOWS};
const op_def op_prelu = {.name = "PRelu", .domain = "", .infer = prelu_infer, .eval = binary_eval,
                         GRAD_OF(1 | 2), .lower = lower_table,
                         .quant = {QUANT_COMPUTE, .activations = 1},
                         .layout = LAYOUT_FOLLOWS};
const op_def op_pow = {.name = "Pow", .domain = "", .infer = pow_infer, .eval = binary_eval,
                       GRAD_OF(1 | 2), .lower = lower_binary, .layout = LAYOUT_FOLLOWS};
const op_def op_sub = {BINARY("Sub"), GRAD_OF(0), QUANT_OPERANDS};
const op_def op_sum = {VARIADIC("Sum"), .grad = variadic_grad, .layout = LAYOUT_FOLLOWS};
const op_def op_xor = {BINARY("Xor"), .layout = LAYOUT_FOLLOWS};
