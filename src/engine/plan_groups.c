/* Which nodes run as one step. Only the graph's structure is looked at here; whether a kernel
 * exists is found when the unit is emitted, and a unit without one falls apart into its nodes. */
#include "engine/plan.h"

#include <math.h>
#include <string.h>

#include "nn/nn.h"

bool is_op(const node *n, const char *op_type)
{
    return n->domain[0] == '\0' && strcmp(n->op_type, op_type) == 0;
}

bool is_quantize(const node *n)
{
    return is_op(n, "QuantizeLinear");
}

bool is_dequantize(const node *n)
{
    return is_op(n, "DequantizeLinear");
}

const tensor *constant_input(const plan *p, const node *n, int i)
{
    return i < n->n_inputs && n->inputs[i] >= 0 ? p->constant[n->inputs[i]] : NULL;
}

bool quant_params(const plan *p, const node *n, float *scale, int *zero)
{
    const tensor *s = constant_input(p, n, 1);
    const int coded = is_quantize(n) ? n->outputs[0] : n->inputs[0];
    if (!s || s->type != RUNG_F32 || tensor_count(s) != 1 || node_int(n, "block_size", 0) != 0)
        return false;
    const dtype type = p->info[coded].type;
    if (type != RUNG_U8 && type != RUNG_I8 && type != RUNG_U16 && type != RUNG_I16)
        return false;
    *scale = (float)tensor_get(s, 0);
    *zero = type == RUNG_I8 ? 1 << 7 : type == RUNG_I16 ? 1 << 15 : 0;
    if (n->n_inputs > 2 && n->inputs[2] >= 0) {
        const tensor *z = constant_input(p, n, 2);
        if (!z || z->type != type || tensor_count(z) != 1)
            return false;
        *zero += (int)tensor_get_int(z, 0);
    }
    return isfinite(*scale) && *scale > 0;
}

/* A bound of a Clip: input i, else otherwise. */
static bool clip_bound(const plan *p, const node *n, int i, float otherwise, float *bound)
{
    *bound = otherwise;
    if (i >= n->n_inputs || n->inputs[i] < 0)
        return true;
    const tensor *t = p->constant[n->inputs[i]];
    if (!t || t->type != RUNG_F32 || tensor_count(t) != 1)
        return false;
    *bound = (float)tensor_get(t, 0);
    return !isnan(*bound);
}

bool clamp_bounds(const plan *p, const node *n, float *lo, float *hi)
{
    if (is_op(n, "Relu")) {
        *lo = 0;
        *hi = INFINITY;
        return true;
    }
    return is_op(n, "Clip") && clip_bound(p, n, 1, -INFINITY, lo) &&
           clip_bound(p, n, 2, INFINITY, hi) && *lo <= *hi;
}

/* Whether a value may vanish inside a unit: nobody looks at it. */
static bool is_hidden(const plan *p, int id)
{
    return !p->g->values[id].is_output && !(p->observe && p->observe[id]);
}

const node *sole_user(const plan *p, int id)
{
    if (!is_hidden(p, id) || p->use.first[id + 1] - p->use.first[id] != 1)
        return NULL;
    const node *user = &p->g->nodes[p->use.list[p->use.first[id]]];
    return user->n_captures ? NULL : user;
}

static size_t index_of(const plan *p, const node *n)
{
    return (size_t)(n - p->g->nodes);
}

static bool same_shape(const value_info *a, const value_info *b)
{
    return a->type == b->type && a->rank == b->rank &&
           memcmp(a->dims, b->dims, (size_t)a->rank * sizeof a->dims[0]) == 0;
}

/* The Relu or Clip that alone follows a value, with constant bounds; NULL: none. */
static const node *clamp_behind(const plan *p, int id)
{
    const node *user = sole_user(p, id);
    float lo, hi;
    if (!user || user->inputs[0] != id || p->absorbed[index_of(p, user)] ||
        !clamp_bounds(p, user, &lo, &hi))
        return NULL;
    return user;
}

static const node *quantize_behind(const plan *p, int id)
{
    const node *user = sole_user(p, id);
    float scale;
    int zero;
    if (!user || !is_quantize(user) || user->inputs[0] != id ||
        !quant_params(p, user, &scale, &zero))
        return NULL;
    return user;
}

bool value_is_quantized_source(const plan *p, int id)
{
    const int producer = p->g->values[id].producer;
    float scale;
    int zero;
    if (p->constant[id] || producer < 0 || !is_dequantize(&p->g->nodes[producer]))
        return false;
    return !p->constant[p->g->nodes[producer].inputs[0]] &&
           quant_params(p, &p->g->nodes[producer], &scale, &zero);
}

/* Whether Q/DQ pairs touch the node: only then a float step is worth a remark. */
static bool touches_pairs(const plan *p, const node *n)
{
    for (int i = 0; i < n->n_inputs; i++)
        if (n->inputs[i] >= 0 && value_is_quantized_source(p, n->inputs[i]))
            return true;
    for (int i = 0; i < n->n_outputs; i++) {
        if (n->outputs[i] < 0)
            continue;
        const int *u = p->use.list + p->use.first[n->outputs[i]];
        const int *end = p->use.list + p->use.first[n->outputs[i] + 1];
        for (; u < end; u++)
            if (is_quantize(&p->g->nodes[*u]))
                return true;
    }
    return false;
}

/* NULL when every operand of n is quantized or constant, else the reason. */
static const char *inputs_not_integer(const plan *p, const node *n)
{
    bool any = false;
    for (int i = 0; i < n->n_inputs; i++) {
        const int v = n->inputs[i];
        if (v < 0 || p->constant[v])
            continue;
        const int producer = p->g->values[v].producer;
        if (value_is_quantized_source(p, v))
            any = true;
        else if (producer < 0 || !is_dequantize(&p->g->nodes[producer]))
            return arena_printf(p->mem, "its input '%s' is not quantized", p->g->values[v].name);
        else if (!p->constant[p->g->nodes[producer].inputs[0]])
            return arena_printf(p->mem, "its input '%s' is not quantized to 8 or 16 bits per "
                                "tensor", p->g->values[v].name);
    }
    return any ? NULL : "none of its inputs is a quantized activation";
}

/* Fills u->clamp and u->quantizers; NULL when every output ends in a Q, else the reason. */
static const char *outputs_not_integer(const plan *p, plan_unit *u)
{
    const node *n = u->n;
    for (int i = 0; i < n->n_outputs; i++) {
        int v = n->outputs[i];
        if (v < 0)
            continue;
        if (n->n_outputs == 1) {
            u->clamp = clamp_behind(p, v);
            if (u->clamp && quantize_behind(p, u->clamp->outputs[0]))
                v = u->clamp->outputs[0];
            else
                u->clamp = NULL;
        }
        u->quantizers[i] = quantize_behind(p, v);
        if (!u->quantizers[i])
            return arena_printf(p->mem, "its output '%s' is not quantized, or used otherwise too",
                                p->g->values[v].name);
    }
    return NULL;
}

static bool takes_part(const plan *p, const node *n)
{
    return !is_quantize(n) && !is_dequantize(n) && n->op;
}

/* Makes u an integer unit, or says why not. */
static void group_integer(const plan *p, plan_unit *u)
{
    if (!p->has_pairs || !takes_part(p, u->n) || !touches_pairs(p, u->n))
        return;
    u->why = inputs_not_integer(p, u->n);
    if (!u->why)
        u->why = outputs_not_integer(p, u);
    if (!u->why && !u->n->op->lower)
        u->why = arena_printf(p->mem, "there is no integer kernel for %s", u->n->op_type);
    u->integer = !u->why;
    if (!u->integer)
        u->clamp = NULL;
}

/* The Add that alone follows the output of n and adds an activation of the same shape. */
static const node *residual_behind(const plan *p, const node *n)
{
    const int v = n->outputs[0];
    const node *user = sole_user(p, v);
    if (!user || !is_op(user, "Add") || p->absorbed[index_of(p, user)] ||
        p->unit_at[index_of(p, user)])
        return NULL;
    const int other = user->inputs[user->inputs[0] == v];
    if (other == v || p->constant[other] || !same_shape(&p->info[other], &p->info[v]))
        return NULL;
    return user;
}

static void group_float(const plan *p, plan_unit *u)
{
    const node *n = u->n;
    if (!takes_part(p, n) || n->n_outputs != 1 || p->info[n->outputs[0]].type != RUNG_F32)
        return;
    int end = n->outputs[0];
    if (nn_takes_add(n)) {
        u->add = residual_behind(p, n);
        if (u->add)
            end = u->add->outputs[0];
    }
    if (nn_takes_clamp(n))
        u->clamp = clamp_behind(p, end);
}

/* The unit is emitted where its last node stands: there all its operands exist. */
static void place_unit(plan *p, plan_unit *u)
{
    size_t at = index_of(p, u->n);
    p->absorbed[at] = true;
    const node *more[2] = {u->add, u->clamp};
    for (int i = 0; i < 2; i++) {
        if (!more[i])
            continue;
        p->absorbed[index_of(p, more[i])] = true;
        at = index_of(p, more[i]) > at ? index_of(p, more[i]) : at;
    }
    const node *behind[4] = {NULL};
    if (u->tail)
        dynamic_nodes(u->tail, behind);
    for (int i = 0; i < 4; i++) {
        if (!behind[i])
            continue;
        p->absorbed[index_of(p, behind[i])] = true;
        p->unit_at[index_of(p, behind[i])] = NULL;
        at = index_of(p, behind[i]) > at ? index_of(p, behind[i]) : at;
    }
    for (int i = 0; u->integer && i < u->n->n_outputs; i++) {
        if (!u->quantizers[i])
            continue;
        const size_t q = index_of(p, u->quantizers[i]);
        p->absorbed[q] = true;
        at = q > at ? q : at;
    }
    p->unit_at[at] = u;
}

rung_status plan_groups(plan *p, rung_error *err)
{
    const graph *g = p->g;
    for (size_t i = 0; i < g->n_nodes; i++)
        p->has_pairs |= is_quantize(&g->nodes[i]) || is_dequantize(&g->nodes[i]);
    for (size_t i = 0; i < g->n_nodes; i++) {
        const node *n = &g->nodes[i];
        if (n->dead || p->absorbed[i])
            continue;
        plan_unit *u = arena_zero(p->mem, 1, sizeof *u);
        const size_t n_outputs = (size_t)n->n_outputs;
        const node **q = u ? arena_zero(p->mem, n_outputs + 1, sizeof *q) : NULL;
        if (!q)
            return fail_memory(err, "the plan", sizeof *u);
        u->n = n;
        u->quantizers = q;
        const rung_status st = group_dynamic(p, u, err);
        if (st != RUNG_OK)
            return st;
        group_integer(p, u);
        if (!u->integer && !u->tail)
            group_float(p, u);
        place_unit(p, u);
    }
    return RUNG_OK;
}
