#include <math.h>
#include <string.h>

#include "base/threads.h"
#include "kernels/kernels.h"
#include "nn/layout.h"
#include "nn/rows.h"
#include "nn/vec.h"

/* The same places in memory: equal dims and layout (layouts do not differ where at most one of the
 * channel and spatial dims is more than 1, but then their strides are compared). */
static bool same_storage(const operand *a, const operand *b)
{
    int64_t a_strides[RUNG_MAX_RANK], b_strides[RUNG_MAX_RANK];
    if (a->rank != b->rank || memcmp(a->dims, b->dims, (size_t)a->rank * sizeof *a->dims) != 0)
        return false;
    stored_strides(a, a_strides);
    stored_strides(b, b_strides);
    for (int i = 0; i < a->rank; i++) {
        if (a->dims[i] != 1 && a_strides[i] != b_strides[i])
            return false;
    }
    return true;
}

/* --- unary ------------------------------------------------------------------------------------ */
typedef struct unary {
    const vec_ops *ops;
    vec_unary      kind;
    size_t         n;
    float          a, b;
    bool           clamp;
    float          lo, hi;
    int            out_buf;
} unary;

static void unary_run(const step *s, void *const *bufs, void *scratch, int thread, int n_threads)
{
    const unary *u = s->params;
    size_t first, last;
    share(u->n, 16, thread, n_threads, &first, &last);
    float *y = (float *)bufs[u->out_buf] + first;
    u->ops->unary[u->kind]((const float *)bufs[0] + first, last - first, u->a, u->b, y);
    if (u->clamp)
        u->ops->unary[VEC_CLAMP](y, last - first, u->lo, u->hi, y);
}

typedef struct unary_name {
    const char *op;
    vec_unary   kind;
    const char *a_name, *b_name; /* attributes */
    float       a, b;            /* their defaults */
} unary_name;

static const unary_name unary_names[] = {
    {"Abs", VEC_ABS, NULL, NULL, 0, 0},
    {"Elu", VEC_ELU, "alpha", NULL, 1.0f, 0},
    {"Erf", VEC_ERF, NULL, NULL, 0, 0},
    {"Exp", VEC_EXP, NULL, NULL, 0, 0},
    {"HardSigmoid", VEC_AFFINE_CLAMP, "alpha", "beta", 0.2f, 0.5f},
    {"HardSwish", VEC_HARD_SWISH, NULL, NULL, 0, 0},
    {"LeakyRelu", VEC_LEAKY, "alpha", NULL, 0.01f, 0},
    {"Neg", VEC_NEG, NULL, NULL, 0, 0},
    {"Relu", VEC_CLAMP, NULL, NULL, 0, INFINITY},
    {"Sigmoid", VEC_SIGMOID, NULL, NULL, 0, 0},
    {"Sqrt", VEC_SQRT, NULL, NULL, 0, 0},
    {"Tanh", VEC_TANH, NULL, NULL, 0, 0},
};

static bool read_bound(const lowering *l, int i, const char *attribute, float *v)
{
    *v = node_float(l->n, attribute, *v);
    if (!has_input(l, i))
        return true;
    const tensor *t = l->in[i].constant;
    if (!t || t->type != RUNG_F32 || tensor_count(t) != 1)
        return false;
    *v = *(const float *)t->data;
    return true;
}

static bool read_unary(const lowering *l, unary *u)
{
    float exponent = 0;
    if (strcmp(l->n->op_type, "Pow") == 0) { /* the variance of a layer normalization */
        u->kind = VEC_SQUARE;
        return has_input(l, 1) && read_bound(l, 1, "", &exponent) && exponent == 2;
    }
    if (strcmp(l->n->op_type, "Clip") == 0) {
        u->kind = VEC_CLAMP;
        u->a = -INFINITY;
        u->b = INFINITY;
        return read_bound(l, 1, "min", &u->a) && read_bound(l, 2, "max", &u->b) && u->a <= u->b;
    }
    for (size_t i = 0; i < sizeof unary_names / sizeof *unary_names; i++) {
        const unary_name *k = &unary_names[i];
        if (strcmp(k->op, l->n->op_type) != 0)
            continue;
        u->kind = k->kind;
        u->a = k->a_name ? node_float(l->n, k->a_name, k->a) : k->a;
        u->b = k->b_name ? node_float(l->n, k->b_name, k->b) : k->b;
        return true;
    }
    return false;
}

rung_status unary_row(const lowering *l, step *s, rung_error *err)
{
    unary *u = arena_zero(l->mem, 1, sizeof *u);
    if (!u)
        return fail_memory(err, "a step", sizeof *u);
    if (!read_unary(l, u))
        return fail(err, RUNG_EUNSUPPORTED,
                    "bounds that are no constants, or low over high; an exponent other than 2");
    if (l->in[0].constant || l->epi.add >= 0 || !same_storage(&l->in[0], &l->out[0]))
        return fail(err, RUNG_EUNSUPPORTED, "a constant input, two layouts or an added operand");
    u->ops = vec_pick();
    u->n = stored_count(&l->out[0]);
    u->clamp = l->epi.clamp;
    u->lo = l->epi.lo;
    u->hi = l->epi.hi;
    u->out_buf = l->n_in;
    s->kernel = "unary_f32 vec";
    s->run = unary_run;
    s->params = u;
    s->in_place = true;
    return RUNG_OK;
}

/* --- binary ----------------------------------------------------------------------------------- */
#define PIECE 1024 /* elements between the operation and its clamp: they stay in the first cache */

typedef struct binary {
    const vec_ops *ops;
    vec_binary     kind;
    source         a, b;
    /* The output as rows of `inner` elements: the dims outside them, the operands' steps there. */
    int            rank;
    int64_t        dims[RUNG_MAX_RANK], a_strides[RUNG_MAX_RANK], b_strides[RUNG_MAX_RANK];
    size_t         count, inner;
    int            a_step, b_step;
    bool           clamp;
    float          lo, hi;
    int            out_buf;
} binary;

/* Where the rows of the operands begin, as the output's rows are walked. */
typedef struct cursor {
    int64_t at[RUNG_MAX_RANK], a, b;
} cursor;

static void cursor_set(const binary *k, size_t row, cursor *c)
{
    c->a = c->b = 0;
    for (int i = k->rank - 1; i >= 0; i--) {
        c->at[i] = (int64_t)(row % (size_t)k->dims[i]);
        row /= (size_t)k->dims[i];
        c->a += c->at[i] * k->a_strides[i];
        c->b += c->at[i] * k->b_strides[i];
    }
}

static void cursor_next(const binary *k, cursor *c)
{
    for (int i = k->rank - 1; i >= 0; i--) {
        c->a += k->a_strides[i];
        c->b += k->b_strides[i];
        if (++c->at[i] < k->dims[i])
            return;
        c->a -= k->dims[i] * k->a_strides[i];
        c->b -= k->dims[i] * k->b_strides[i];
        c->at[i] = 0;
    }
}

static void binary_run(const step *s, void *const *bufs, void *scratch, int thread, int n_threads)
{
    const binary *k = s->params;
    const float *a = source_data(&k->a, bufs), *b = source_data(&k->b, bufs);
    float *y = bufs[k->out_buf];
    cursor c;
    size_t at, last;
    share(k->count, 16, thread, n_threads, &at, &last);
    cursor_set(k, at / k->inner, &c);
    for (size_t offset = at % k->inner; at < last;) {
        size_t n = k->inner - offset < last - at ? k->inner - offset : last - at;
        n = n < PIECE ? n : PIECE;
        k->ops->binary[k->kind](a + c.a + (k->a_step ? offset : 0), k->a_step,
                                b + c.b + (k->b_step ? offset : 0), k->b_step, n, y + at);
        if (k->clamp)
            k->ops->unary[VEC_CLAMP](y + at, n, k->lo, k->hi, y + at);
        at += n;
        offset += n;
        if (offset == k->inner) {
            offset = 0;
            cursor_next(k, &c);
        }
    }
}

/* The strides of operand o along the output's dims, 0 where it is repeated; false: no broadcast. */
static bool broadcast_strides(const operand *o, const operand *y, int64_t out[RUNG_MAX_RANK])
{
    int64_t own[RUNG_MAX_RANK];
    const int ahead = y->rank - o->rank;
    stored_strides(o, own);
    for (int i = 0; i < y->rank; i++) {
        const int64_t d = i < ahead ? 1 : o->dims[i - ahead];
        if (ahead < 0 || (d != 1 && d != y->dims[i]))
            return false;
        out[i] = d == 1 ? 0 : own[i - ahead];
    }
    return true;
}

/* A constant is brought into the output's layout, so that its innermost steps are 0 or 1. */
static rung_status open_operand(const lowering *l, int i, source *src, int64_t *strides,
                                rung_error *err)
{
    operand o = l->in[i];
    const operand *y = &l->out[0];
    copy_shape copy = {.elem = 4};
    const rung_status st = source_open(l, i, src, err);
    if (st != RUNG_OK)
        return st;
    if (!broadcast_strides(&o, y, strides))
        return fail(err, RUNG_EUNSUPPORTED, "operands that do not broadcast to the output");
    if (!o.constant || !operand_channels_last(y) || stored_count(&o) == 1)
        return RUNG_OK;
    float *moved = arena_alloc(l->mem, stored_count(&o) * sizeof *moved);
    if (!moved)
        return fail_memory(err, "a constant operand", stored_count(&o) * sizeof *moved);
    const int ahead = y->rank - o.rank;
    operand to = {.rank = y->rank, .channels_last = true};
    int64_t to_strides[RUNG_MAX_RANK];
    for (int d = 0; d < y->rank; d++)
        to.dims[d] = d < ahead ? 1 : o.dims[d - ahead];
    stored_strides(&to, to_strides);
    copy.rank = y->rank;
    for (int d = 0; d < y->rank; d++) {
        copy.dims[d] = to.dims[d];
        copy.x_strides[d] = strides[d];
        copy.y_strides[d] = to_strides[d];
        strides[d] = to.dims[d] == 1 ? 0 : to_strides[d];
    }
    copy_shape_normalise(&copy);
    copy_strided(&copy, src->fixed, moved, 0, 1);
    src->fixed = moved;
    return RUNG_OK;
}

/* Joins the output's dims, outermost first in memory, where both operands walk on evenly, and takes
 * the last as the row. false: an operand would be walked by steps that are neither 0 nor 1. */
static bool set_rows(binary *k, const operand *y, const int64_t *a, const int64_t *b)
{
    int order[RUNG_MAX_RANK], n = 0;
    operand_order(y, order);
    for (int i = 0; i < y->rank; i++) {
        const int d = order[i];
        if (y->dims[d] == 1)
            continue;
        if (n > 0 && k->a_strides[n - 1] == a[d] * y->dims[d] &&
            k->b_strides[n - 1] == b[d] * y->dims[d])
            n--, k->dims[n] *= y->dims[d];
        else
            k->dims[n] = y->dims[d];
        k->a_strides[n] = a[d];
        k->b_strides[n++] = b[d];
    }
    k->inner = 1;
    if (n == 0)
        return true;
    k->rank = n - 1;
    k->inner = (size_t)k->dims[n - 1];
    k->a_step = (int)k->a_strides[n - 1];
    k->b_step = (int)k->b_strides[n - 1];
    return k->a_strides[n - 1] <= 1 && k->b_strides[n - 1] <= 1;
}

static bool read_binary(const lowering *l, binary *k)
{
    static const char *const names[VEC_BINARY_COUNT] = {"Add", "Sub", "Mul", "Div",
                                                        "Min", "Max", "PRelu"};
    for (int i = 0; i < VEC_BINARY_COUNT; i++) {
        if (strcmp(names[i], l->n->op_type) == 0) {
            k->kind = (vec_binary)i;
            return has_input(l, 1) && !has_input(l, 2);
        }
    }
    return false;
}

rung_status binary_row(const lowering *l, step *s, rung_error *err)
{
    int64_t a[RUNG_MAX_RANK], b[RUNG_MAX_RANK];
    binary *k = arena_zero(l->mem, 1, sizeof *k);
    if (!k)
        return fail_memory(err, "a step", sizeof *k);
    if (l->epi.add >= 0 || !read_binary(l, k))
        return fail(err, RUNG_EUNSUPPORTED, "not two operands");
    rung_status st = open_operand(l, 0, &k->a, a, err);
    if (st != RUNG_OK || (st = open_operand(l, 1, &k->b, b, err)) != RUNG_OK)
        return st;
    if (!set_rows(k, &l->out[0], a, b))
        return fail(err, RUNG_EUNSUPPORTED, "operands of different layouts");
    k->ops = vec_pick();
    k->count = stored_count(&l->out[0]);
    k->clamp = l->epi.clamp;
    k->lo = l->epi.lo;
    k->hi = l->epi.hi;
    k->out_buf = l->n_in;
    s->kernel = "binary_f32 vec";
    s->run = binary_run;
    s->params = k;
    s->in_place = same_storage(&l->in[0], &l->out[0]) && !l->in[0].constant;
    return RUNG_OK;
}
