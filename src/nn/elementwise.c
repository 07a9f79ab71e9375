#include <math.h>
#include <string.h>

#include "base/threads.h"
#include "nn/broadcast.h"
#include "nn/rows.h"
#include "nn/vec.h"

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
    return constant_number(l, i, v);
}

static bool read_unary(const lowering *l, unary *u)
{
    float exponent = 0;
    if (strcmp(l->n->op_type, "Pow") == 0) { /* the variance of a layer normalization */
        u->kind = VEC_SQUARE;
        return constant_number(l, 1, &exponent) && exponent == 2;
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
    if (l->in[0].constant || l->epi.add >= 0 || !operand_same_storage(&l->in[0], &l->out[0]))
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
    broadcast      rows;
    bool           clamp;
    float          lo, hi;
    int            out_buf;
} binary;

static void binary_run(const step *s, void *const *bufs, void *scratch, int thread, int n_threads)
{
    const binary *k = s->params;
    const broadcast *w = &k->rows;
    const float *a = source_data(&w->a, bufs), *b = source_data(&w->b, bufs);
    float *y = bufs[k->out_buf];
    broadcast_cursor c;
    size_t at, last;
    share(w->count, 16, thread, n_threads, &at, &last);
    broadcast_seek(w, at / w->inner, &c);
    for (size_t offset = at % w->inner; at < last;) {
        size_t n = w->inner - offset < last - at ? w->inner - offset : last - at;
        n = n < PIECE ? n : PIECE;
        k->ops->binary[k->kind](a + c.a + (w->a_step ? offset : 0), w->a_step,
                                b + c.b + (w->b_step ? offset : 0), w->b_step, n, y + at);
        if (k->clamp)
            k->ops->unary[VEC_CLAMP](y + at, n, k->lo, k->hi, y + at);
        at += n;
        offset += n;
        if (offset == w->inner) {
            offset = 0;
            broadcast_next(w, &c);
        }
    }
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
    binary *k = arena_zero(l->mem, 1, sizeof *k);
    if (!k)
        return fail_memory(err, "a step", sizeof *k);
    if (l->epi.add >= 0 || !read_binary(l, k))
        return fail(err, RUNG_EUNSUPPORTED, "not two operands");
    const rung_status st = broadcast_open(l, &k->rows, err);
    if (st != RUNG_OK)
        return st;
    k->ops = vec_pick();
    k->clamp = l->epi.clamp;
    k->lo = l->epi.lo;
    k->hi = l->epi.hi;
    k->out_buf = l->n_in;
    s->kernel = "binary_f32 vec";
    s->run = binary_run;
    s->params = k;
    s->in_place = operand_same_storage(&l->in[0], &l->out[0]) && !l->in[0].constant;
    return RUNG_OK;
}
