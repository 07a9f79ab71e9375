/* Integer products with a float result: the pattern of dynamic quantization, and a MatMul or Gemm
 * of dequantized operands whose result is not quantized. */
#include <string.h>

#include "engine/plan.h"

static bool is_float_constant(const tensor *t)
{
    return t && t->type == RUNG_F32 && tensor_count(t) > 0;
}

/* One number, or one for each output channel: of a matrix's columns (the last axis), or of an
 * image's channels (with `tail` axes of 1 behind). */
static bool is_per_channel(const tensor *t, int64_t channels, int tail)
{
    if (tensor_count(t) == 1)
        return true;
    const int axis = t->rank - 1 - tail;
    return axis >= 0 && t->dims[axis] == channels && (int64_t)tensor_count(t) == channels;
}

/* The operand of a two-operand node that is not v. */
static int other_operand(const node *n, int v)
{
    return n->n_inputs == 2 ? n->inputs[n->inputs[0] == v] : -1;
}

/* Mul of x_scale and w_scale, in either order. */
static bool take_scales(const plan *p, dynamic_tail *t, int v, int64_t channels, int tail)
{
    const int producer = v < 0 ? -1 : p->g->values[v].producer;
    const node *n = producer < 0 ? NULL : &p->g->nodes[producer];
    if (!n || !is_op(n, "Mul") || n->n_inputs != 2)
        return false;
    const int c = constant_input(p, n, 1) ? 1 : 0;
    const tensor *w = constant_input(p, n, c);
    const value_info *x = &p->info[n->inputs[1 - c]];
    if (!is_float_constant(w) || !is_per_channel(w, channels, tail) ||
        constant_input(p, n, 1 - c) || x->type != RUNG_F32 || x->rank != 0)
        return false;
    t->scales = n;
    t->owns_scales = sole_user(p, v) == t->mul;
    t->x_scale = n->inputs[1 - c];
    t->w_scale = w;
    return true;
}

static void take_bias(const plan *p, dynamic_tail *t, int y, int64_t channels, int tail)
{
    const node *add = sole_user(p, y);
    if (!add || !is_op(add, "Add"))
        return;
    const int other = other_operand(add, y);
    const tensor *b = other < 0 ? NULL : p->constant[other];
    const int rank = p->info[y].rank;
    if (!is_float_constant(b) || !is_per_channel(b, channels, tail) || b->rank > rank ||
        tensor_count(b) == 1)
        return;
    t->add = add;
    t->bias = b;
}

/* Weights that the kernels take: int8, or uint8 around 128. */
static bool takes_weight(const plan *p, const node *n)
{
    const tensor *w = constant_input(p, n, 1), *z = constant_input(p, n, 3);
    const bool has_zero = n->n_inputs > 3 && n->inputs[3] >= 0;
    if (!w || (w->type != RUNG_I8 && w->type != RUNG_U8) || (has_zero && !z) ||
        (w->type == RUNG_U8 && !z))
        return false;
    for (size_t i = 0; z && i < tensor_count(z); i++)
        if (tensor_get_int(z, i) != (w->type == RUNG_U8 ? 128 : 0))
            return false;
    return true;
}

/* One zero point of the activations, found when the model runs or constant. */
static bool takes_activation(const plan *p, const node *n)
{
    const int z = n->n_inputs > 2 ? n->inputs[2] : -1;
    const value_info *x = &p->info[n->inputs[0]];
    return !p->constant[n->inputs[0]] && x->type == RUNG_U8 &&
           (z < 0 || (p->info[z].type == RUNG_U8 && p->info[z].rank == 0));
}

static bool find_tail(const plan *p, const node *n, dynamic_tail *t)
{
    const bool conv = is_op(n, "ConvInteger");
    if ((!conv && !is_op(n, "MatMulInteger")) || !takes_weight(p, n) || !takes_activation(p, n))
        return false;
    const tensor *w = constant_input(p, n, 1);
    const int tail = conv ? w->rank - 2 : 0;
    if (w->rank < 2 || (!conv && w->rank != 2))
        return false;
    const int64_t channels = w->dims[conv ? 0 : 1];
    t->cast = sole_user(p, n->outputs[0]);
    if (!t->cast || !is_op(t->cast, "Cast") || p->info[t->cast->outputs[0]].type != RUNG_F32)
        return false;
    t->mul = sole_user(p, t->cast->outputs[0]);
    if (!t->mul || !is_op(t->mul, "Mul") ||
        !take_scales(p, t, other_operand(t->mul, t->cast->outputs[0]), channels, tail))
        return false;
    take_bias(p, t, t->mul->outputs[0], channels, tail);
    t->w = w;
    t->w_source = constant_source(p, n->inputs[1]);
    return true;
}

/* --- dequantized operands --------------------------------------------------------------------- */

static const node *dequantize_before(const plan *p, int v)
{
    const int producer = v < 0 ? -1 : p->g->values[v].producer;
    return producer >= 0 && is_dequantize(&p->g->nodes[producer]) ? &p->g->nodes[producer] : NULL;
}

/* An int8 matrix without zero points, one scale or one for each of the product's outputs. */
static bool take_matrix(const plan *p, const node *n, dynamic_tail *t)
{
    const node *dq = dequantize_before(p, n->inputs[1]);
    const tensor *w = dq ? constant_input(p, dq, 0) : NULL;
    const tensor *scale = dq ? constant_input(p, dq, 1) : NULL, *z;
    if (!w || w->type != RUNG_I8 || w->rank != 2 || !is_float_constant(scale) ||
        node_int(dq, "block_size", 0) || (dq->n_inputs > 2 && dq->inputs[2] >= 0 &&
                                          !constant_input(p, dq, 2)))
        return false;
    t->transposed = is_op(n, "Gemm") && node_int(n, "transB", 0);
    const int outputs = t->transposed ? 0 : 1;
    const int64_t axis = node_int(dq, "axis", 1);
    if (tensor_count(scale) != 1 && ((axis < 0 ? axis + 2 : axis) != outputs || scale->rank != 1 ||
                                     scale->dims[0] != w->dims[outputs]))
        return false;
    z = constant_input(p, dq, 2);
    for (size_t i = 0; z && i < tensor_count(z); i++)
        if (tensor_get_int(z, i))
            return false;
    t->w = w;
    t->w_source = constant_source(p, dq->inputs[0]);
    t->w_scale = scale;
    return true;
}

/* Gemm's C: one float32 number for each output, or int32 codes of such behind a DequantizeLinear.
 * False: there is another C. */
static bool take_row(const plan *p, const node *n, int64_t channels, dynamic_tail *t)
{
    const int c = n->n_inputs > 2 ? n->inputs[2] : -1;
    const node *dq = dequantize_before(p, c);
    const tensor *codes = dq ? constant_input(p, dq, 0) : NULL;
    const tensor *scale = dq ? constant_input(p, dq, 1) : NULL;
    if (c < 0 || p->constant[c]) {
        t->bias = c < 0 ? NULL : p->constant[c];
        return c < 0 || (is_float_constant(t->bias) && is_per_channel(t->bias, channels, 0));
    }
    if (!codes || codes->type != RUNG_I32 || !is_per_channel(codes, channels, 0) ||
        !is_float_constant(scale) || (dq->n_inputs > 2 && dq->inputs[2] >= 0) ||
        (tensor_count(scale) != 1 && tensor_count(scale) != tensor_count(codes)))
        return false;
    tensor *b = tensor_new(p->mem, RUNG_F32, codes->rank, codes->dims);
    for (size_t i = 0; b && i < tensor_count(codes); i++)
        ((float *)b->data)[i] = (float)tensor_get_int(codes, i) *
                                (float)tensor_get(scale, tensor_count(scale) == 1 ? 0 : i);
    t->bias = b;
    return b != NULL;
}

/* Whether the result, a Relu or Clip behind it, is quantized and not used otherwise: then the whole
 * may be an integer step. */
static bool is_requantized(const plan *p, int v)
{
    const node *user = sole_user(p, v);
    float lo, hi;
    if (user && user->inputs[0] == v && clamp_bounds(p, user, &lo, &hi))
        user = sole_user(p, user->outputs[0]);
    return user && is_quantize(user);
}

static bool find_dequantized(const plan *p, const node *n, dynamic_tail *t)
{
    const bool gemm = is_op(n, "Gemm");
    if ((!gemm && !is_op(n, "MatMul")) || n->n_inputs < 2 || is_requantized(p, n->outputs[0]) ||
        !value_is_quantized_source(p, n->inputs[0]) || !take_matrix(p, n, t) ||
        (gemm && (node_int(n, "transA", 0) || node_float(n, "alpha", 1) != 1 ||
                  node_float(n, "beta", 1) != 1)))
        return false;
    const int64_t channels = t->w->dims[t->transposed ? 0 : 1];
    t->x_dq = dequantize_before(p, n->inputs[0]);
    const dtype codes = p->info[t->x_dq->inputs[0]].type;
    if (codes != RUNG_U8 && codes != RUNG_I8)
        return false;
    if (gemm)
        return take_row(p, n, channels, t);
    take_bias(p, t, n->outputs[0], channels, 0);
    return true;
}

rung_status group_dynamic(plan *p, plan_unit *u, rung_error *err)
{
    dynamic_tail t = {0};
    if (!find_tail(p, u->n, &t)) {
        t = (dynamic_tail){0};
        if (!find_dequantized(p, u->n, &t))
            return RUNG_OK;
    }
    u->tail = arena_copy(p->mem, &t, sizeof t);
    return u->tail ? RUNG_OK : fail_memory(err, "the plan", sizeof t);
}

void dynamic_nodes(const dynamic_tail *t, const node *out[4])
{
    out[0] = t->cast;
    out[1] = t->owns_scales ? t->scales : NULL;
    out[2] = t->mul;
    out[3] = t->add;
}
