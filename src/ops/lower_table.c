/* Functions of one value: a table of 256 entries, of 65536 for 16-bit operands. */
#include "ops/lower.h"

#include <math.h>
#include <string.h>

#include "ops/lower_wide.h"
#include "ops/unary.h"

static void run_table(const step *s, void *const *bufs, void *scratch, int thread, int n_threads)
{
    const table_step *t = s->params;
    const uint8_t *x = bufs[t->in];
    uint8_t *y = bufs[t->out];
    size_t first, end;
    kernel_share(t->n, 64, thread, n_threads, &first, &end);
    if (first < end)
        t->kernel->run(x + first, end - first, t->table, y + first);
}

/* What a table step is but for the table. */
static rung_status table_step_of(arena *mem, table_step *t, size_t n, int in, int out, step *s,
                                 rung_error *err)
{
    t->kernel = KERNEL_PICK(table_u8);
    t->n = n;
    t->in = in;
    t->out = out;
    const char *name = arena_printf(mem, "table_u8 %s", t->kernel->name);
    if (!name)
        return fail_memory(err, "a name", 1);
    *s = (step){.kernel = name, .run = run_table, .params = t, .in_place = in == 0};
    return RUNG_OK;
}

rung_status lower_table_of(arena *mem, const uint8_t table[256], size_t n, step *s, rung_error *err)
{
    table_step *t = arena_zero(mem, 1, sizeof *t);
    if (!t)
        return fail_memory(err, "a table", sizeof *t);
    memcpy(t->table, table, sizeof t->table);
    return table_step_of(mem, t, n, 0, 1, s, err);
}

const table_step *step_table(const step *s)
{
    return s->run == run_table ? s->params : NULL;
}

static double apply(double x, const void *ctx)
{
    return unary_apply(ctx, x);
}

static double itself(double x, const void *ctx)
{
    return x;
}

typedef struct bounds {
    double lo, hi;
} bounds;

static double clip(double x, const void *ctx)
{
    const bounds *b = ctx;
    return x < b->lo ? b->lo : x > b->hi ? b->hi : x;
}

static bool bound_of(const lowering *l, int i, double otherwise, double *out)
{
    *out = otherwise;
    if (i >= l->n_in || operand_absent(&l->in[i]))
        return true;
    const tensor *t = l->in[i].constant;
    if (!t || l->in[i].type != RUNG_F32 || tensor_count(t) != 1)
        return false;
    *out = tensor_get(t, 0);
    return !isnan(*out);
}

/* PRelu with one slope for all channels. */
static double leaky(double x, const void *ctx)
{
    return x < 0 ? x * *(const double *)ctx : x;
}

/* f of operand `in`, in a table. */
static rung_status tabulate(const lowering *l, int in, double (*f)(double x, const void *ctx),
                            const void *ctx, step *s, rung_error *err)
{
    const operand *x = &l->in[in], *y = &l->out[0];
    if (lowering_is_wide(l))
        return lower_wide_table(l, in, f, ctx, s, err);
    table_step *t = arena_zero(l->mem, 1, sizeof *t);
    if (!t)
        return fail_memory(err, "a table", sizeof *t);
    table_make(f, ctx, x->scale, x->zero, y->scale, y->zero, l->q_lo, l->q_hi, t->table);
    return table_step_of(l->mem, t, stored_count(y), in, l->n_in, s, err);
}

static bool is_activation(const operand *o)
{
    return o->quantized && (o->type == RUNG_U8 || o->type == RUNG_U16) && !o->constant;
}

rung_status lower_table(const lowering *l, step *s, rung_error *err)
{
    if (!is_activation(&l->in[0]) || l->in[0].channels_last != l->out[0].channels_last ||
        stored_count(&l->in[0]) != stored_count(&l->out[0]))
        return fail(err, RUNG_EUNSUPPORTED, "its input is not a quantized activation");
    const char *op = l->n->op_type;
    unary u;
    bounds b;
    double slope;
    if (strcmp(op, "Clip") == 0) {
        if (!bound_of(l, 1, -INFINITY, &b.lo) || !bound_of(l, 2, INFINITY, &b.hi))
            return fail(err, RUNG_EUNSUPPORTED, "its bounds are not constant float32 scalars");
        return tabulate(l, 0, clip, &b, s, err);
    }
    if (strcmp(op, "PRelu") == 0) {
        if (!bound_of(l, 1, 0, &slope))
            return fail(err, RUNG_EUNSUPPORTED, "its slope is not one constant float32 number");
        return tabulate(l, 0, leaky, &slope, s, err);
    }
    if (!unary_of(l->n, &u))
        return fail(err, RUNG_EUNSUPPORTED, "there is no integer kernel for %s", op);
    return tabulate(l, 0, apply, &u, s, err);
}

typedef struct scalar {
    char op;    /* + - * / ^ m M: Pow, Min, Max are ^ m M */
    bool first; /* the constant is the left operand */
    double c;
} scalar;

static double apply_scalar(double x, const void *ctx)
{
    const scalar *s = ctx;
    const double a = s->first ? s->c : x, b = s->first ? x : s->c;
    switch (s->op) {
    case '+':
        return a + b;
    case '-':
        return a - b;
    case '*':
        return a * b;
    case '/':
        return a / b;
    case '^':
        return pow(a, b);
    case 'm':
        return a < b ? a : b;
    default:
        return a > b ? a : b;
    }
}

static char scalar_code(const char *op)
{
    static const char *const names[] = {"Add", "Sub", "Mul", "Div", "Pow", "Min", "Max"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(op, names[i]) == 0)
            return "+-*/^mM"[i];
    return 0;
}

/* The number that a constant operand is; false: it is not one finite number. */
static bool scalar_value(const operand *o, double *c)
{
    const bool coded = o->quantized && o->n_scales == 1;
    if (!o->constant || stored_count(o) != 1 || (o->type != RUNG_F32 && !coded))
        return false;
    const double v = tensor_get(o->constant, 0);
    *c = coded ? (v - o->zero) * (double)o->scale : v;
    return isfinite(*c);
}

rung_status lower_scalar(const lowering *l, step *s, rung_error *err)
{
    scalar k = {.op = scalar_code(l->n->op_type)};
    if (l->n_in != 2 || !k.op)
        return fail(err, RUNG_EUNSUPPORTED, "there is no integer kernel for %s", l->n->op_type);
    k.first = l->in[0].constant != NULL;
    const operand *x = &l->in[k.first], *y = &l->out[0];
    if (!scalar_value(&l->in[!k.first], &k.c) || !is_activation(x) ||
        x->channels_last != y->channels_last || stored_count(x) != stored_count(y))
        return fail(err, RUNG_EUNSUPPORTED,
                    "%s has an integer kernel only with one constant number", l->n->op_type);
    return tabulate(l, k.first, apply_scalar, &k, s, err);
}

bool requantize_table(const operand *x, const operand *y, int lo, int hi, uint8_t table[256])
{
    uint8_t stored[256];
    bool changes = false;
    const bool raw = x->type == RUNG_I8;
    const int zero = x->zero + (raw ? 128 : 0);
    if (x->scale == y->scale && zero == y->zero) {
        for (int i = 0; i < 256; i++)
            stored[i] = (uint8_t)(i < lo ? lo : i > hi ? hi : i);
    } else {
        table_make(itself, NULL, x->scale, zero, y->scale, y->zero, lo, hi, stored);
    }
    for (int i = 0; i < 256; i++) {
        table[i] = stored[raw ? i ^ 0x80 : i];
        changes |= table[i] != i;
    }
    return changes;
}
