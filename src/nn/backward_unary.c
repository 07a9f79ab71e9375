/* Functions of one element: dx = dy * f'(x or y). */
#include <math.h>
#include <string.h>

#include "base/threads.h"
#include "nn/backward_rows.h"
#include "nn/vec_train.h"

typedef struct unary_back {
    const vec_train *ops;
    vec_slope        slope;
    size_t           n;
    float            a, b;
    int              from, dy, dx; /* buffers */
} unary_back;

static void unary_run(const step *s, void *const *bufs, void *scratch, int thread, int n_threads)
{
    const unary_back *u = s->params;
    size_t first, last;
    share(u->n, 16, thread, n_threads, &first, &last);
    u->ops->slope[u->slope]((const float *)bufs[u->from] + first,
                            (const float *)bufs[u->dy] + first, last - first, u->a, u->b,
                            (float *)bufs[u->dx] + first);
}

typedef struct slope_name {
    const char *op;
    vec_slope   slope;
    bool        of_output;
    const char *attribute; /* a, and its default */
    float       a;
} slope_name;

static const slope_name slope_names[] = {
    {"Abs", SLOPE_ABS, false, NULL, 0},
    {"Clip", SLOPE_CLIP, false, NULL, 0},
    {"Elu", SLOPE_ELU, false, "alpha", 1.0f},
    {"Erf", SLOPE_ERF, false, NULL, 0},
    {"Exp", SLOPE_EXP, true, NULL, 0},
    {"Gelu", SLOPE_GELU, false, NULL, 0},
    {"HardSigmoid", SLOPE_HARD_SIGMOID, true, "alpha", 0.2f},
    {"HardSwish", SLOPE_HARD_SWISH, false, NULL, 0},
    {"LeakyRelu", SLOPE_LEAKY, false, "alpha", 0.01f},
    {"Pow", SLOPE_SQUARE, false, NULL, 0},
    {"Relu", SLOPE_RELU, true, NULL, 0},
    {"Sigmoid", SLOPE_SIGMOID, true, NULL, 0},
    {"Sqrt", SLOPE_SQRT, true, NULL, 0},
    {"Tanh", SLOPE_TANH, true, NULL, 0},
};

static const slope_name *find_slope(const lowering *l)
{
    for (size_t i = 0; i < sizeof slope_names / sizeof *slope_names; i++) {
        if (strcmp(slope_names[i].op, l->n->op_type) == 0)
            return &slope_names[i];
    }
    return NULL;
}

/* Parameters that are no attributes; false: not constant, or not what the loops know. */
static bool read_special(const lowering *l, unary_back *u)
{
    float exponent = 0;
    if (u->slope == SLOPE_SQUARE)
        return constant_number(l, 1, &exponent) && exponent == 2;
    if (u->slope == SLOPE_CLIP) {
        u->a = node_float(l->n, "min", -INFINITY);
        u->b = node_float(l->n, "max", INFINITY);
        return constant_number(l, 1, &u->a) && constant_number(l, 2, &u->b) && u->a <= u->b;
    }
    if (u->slope == SLOPE_GELU &&
        strcmp(node_string(l->n, "approximate", "none"), "tanh") == 0)
        u->slope = SLOPE_GELU_TANH;
    return true;
}

rung_status unary_backward(const lowering *l, unsigned wanted, step *s, rung_error *err)
{
    const slope_name *k = find_slope(l);
    unary_back *u = arena_zero(l->mem, 1, sizeof *u);
    if (!u)
        return fail_memory(err, "a step", sizeof *u);
    if (!k || wanted != 1 || !operand_same_storage(&l->in[0], &l->out[0]))
        return fail(err, RUNG_EUNSUPPORTED, "two layouts, or the gradient of a parameter");
    u->slope = k->slope;
    u->a = k->attribute ? node_float(l->n, k->attribute, k->a) : 0;
    if (!read_special(l, u))
        return fail(err, RUNG_EUNSUPPORTED,
                    "bounds that are no constants, or low over high; an exponent other than 2");
    u->ops = vec_train_pick();
    u->n = stored_count(&l->out[0]);
    u->from = k->of_output ? at_out(l, 0) : 0;
    u->dy = at_dout(l, 0);
    u->dx = at_din(l, 0);
    s->kernel = "unary_backward_f32 vec";
    s->run = unary_run;
    s->params = u;
    return RUNG_OK;
}
