/* In which role a node uses its constants, and one constant for each role. */
#include <limits.h>
#include <string.h>

#include "base/mem.h"
#include "graph/pass.h"
#include "quant/parts.h"

bool is_activation(const node *n, int i)
{
    return n->op && n->inputs[i] >= 0 && (n->op->quant.activations >> (i < 31 ? i : 31) & 1);
}

int weight_axis_of(const graph *g, const node *n, int i)
{
    const quant_rule *rule = n->op ? &n->op->quant : NULL;
    const tensor *t = node_constant(g, n, i);
    if (!rule || !rule->weight || rule->weight != i || !t || t->type != RUNG_F32 || t->rank < 2 ||
        tensor_count(t) == 0)
        return -1;
    if (node_is(n, "Gemm"))
        return node_int(n, "transB", 0) ? 0 : 1;
    const int axis = rule->weight_axis < 0 ? t->rank - 1 : rule->weight_axis;
    return axis < t->rank ? axis : -1;
}

int weight_of(const graph *g, const node *n)
{
    const int i = n->op ? n->op->quant.weight : 0;
    return i && weight_axis_of(g, n, i) >= 0 ? n->inputs[i] : -1;
}

int bias_of(const graph *g, const node *n)
{
    const int i = n->op ? n->op->quant.bias : 0;
    return i && node_constant(g, n, i) ? n->inputs[i] : -1;
}

/* --- Gemm ------------------------------------------------------------------------------------- */

static int scaled_copy(graph *g, int v, float factor)
{
    const tensor *t = g->values[v].constant;
    const int id = graph_add_constant(g, g->values[v].name, t);
    if (id < 0)
        return -1;
    float *x = g->values[id].constant->data; /* this copy is still ours */
    for (size_t i = 0; i < tensor_count(t); i++)
        x[i] *= factor;
    return id;
}

static bool is_float_constant(const graph *g, int v)
{
    return v >= 0 && g->values[v].constant && g->values[v].constant->type == RUNG_F32;
}

/* alpha * A B + beta * C: constants take the factors. */
static rung_status fold_factors(graph *g, node *n, rung_error *err)
{
    static const char *const names[] = { "alpha", "beta" };
    for (int k = 0; k < 2; k++) {
        const int v = node_input(n, k + 1);
        const float factor = node_float(n, names[k], 1);
        if (factor == 1 || !is_float_constant(g, v))
            continue;
        const int id = scaled_copy(g, v, factor);
        if (id < 0)
            return fail_memory(err, "a Gemm's constants", tensor_count(g->values[v].constant) * 4);
        n->inputs[k + 1] = id;
        node_remove_attr(n, names[k]);
    }
    return RUNG_OK;
}

/* --- biases ----------------------------------------------------------------------------------- */

static size_t out_channels(const graph *g, const node *n)
{
    const int i = n->op->quant.weight, axis = weight_axis_of(g, n, i);
    if (axis < 0)
        return 0;
    const size_t per = (size_t)node_constant(g, n, i)->dims[axis];
    size_t all = per;
    if (node_is(n, "ConvTranspose") &&
        !mul_fits(per, (size_t)node_int(n, "group", 1), &all))
        return 0;
    return all;
}

/* A bias of one number, or of [1,N] and the like, as [N]; another form stays as it is. */
static rung_status bias_as_vector(graph *g, node *n, rung_error *err)
{
    const int i = n->op->quant.bias, v = bias_of(g, n);
    const size_t channels = out_channels(g, n);
    if (!is_float_constant(g, v) || !channels || channels > INT_MAX)
        return RUNG_OK;
    const tensor *t = g->values[v].constant;
    const size_t count = tensor_count(t);
    const bool row = count == channels && t->rank > 0 && t->dims[t->rank - 1] == (int64_t)count;
    if ((row && t->rank == 1) || (!row && count != 1))
        return RUNG_OK;
    tensor flat = { RUNG_F32, 1, { (int64_t)channels }, t->data };
    arena *scratch = arena_new();
    float *filled = scratch ? arena_zero(scratch, channels, sizeof *filled) : NULL;
    if (filled && !row) {
        for (size_t c = 0; c < channels; c++)
            filled[c] = *(const float *)t->data;
        flat.data = filled;
    }
    const int id = filled ? graph_add_constant(g, g->values[v].name, &flat) : -1;
    arena_free(scratch);
    if (id < 0)
        return fail_memory(err, "a bias", channels * sizeof *filled);
    n->inputs[i] = id;
    return RUNG_OK;
}

/* --- one constant for each role --------------------------------------------------------------- */

enum { NO_ROLE = 0, AS_FLOAT, AS_ACTIVATION, AS_BIAS, AS_WEIGHT };

/* Weights differ in their axis too. A bias has its node's scale: no two uses are alike. */
static int role_of(const graph *g, const node *n, int i)
{
    if (!n->op || n->op->quant.kind == QUANT_NONE)
        return AS_FLOAT;
    const int axis = weight_axis_of(g, n, i);
    if (axis >= 0)
        return AS_WEIGHT + axis;
    if (i && i == n->op->quant.bias)
        return AS_BIAS;
    return is_activation(n, i) ? AS_ACTIVATION : AS_FLOAT;
}

static rung_status split_node(graph *g, node *n, int *roles, size_t n_values, rung_error *err)
{
    for (int i = 0; i < n->n_inputs; i++) {
        const int v = n->inputs[i];
        if (!is_float_constant(g, v) || (size_t)v >= n_values)
            continue;
        const int role = role_of(g, n, i);
        if (roles[v] == NO_ROLE)
            roles[v] = role;
        else if (roles[v] != role || role == AS_BIAS) {
            const int id = graph_add_constant(g, g->values[v].name, g->values[v].constant);
            if (id < 0)
                return fail_memory(err, "a constant's copy",
                                   tensor_count(g->values[v].constant) * sizeof(float));
            n->inputs[i] = id;
        }
    }
    return RUNG_OK;
}

rung_status split_roles(graph *g, rung_error *err)
{
    rung_status st = RUNG_OK;
    for (size_t i = 0; i < g->n_nodes && st == RUNG_OK; i++) {
        node *n = &g->nodes[i];
        if (n->dead || !n->op)
            continue;
        if (node_is(n, "Gemm"))
            st = fold_factors(g, n, err);
        if (st == RUNG_OK && n->op->quant.bias)
            st = bias_as_vector(g, n, err);
    }
    const size_t n_values = g->n_values;
    arena *scratch = arena_new();
    int *roles = scratch ? arena_zero(scratch, n_values, sizeof *roles) : NULL;
    if (!roles && st == RUNG_OK)
        st = fail_memory(err, "the roles of constants", n_values * sizeof *roles);
    for (size_t i = 0; i < g->n_nodes && st == RUNG_OK; i++)
        if (!g->nodes[i].dead)
            st = split_node(g, &g->nodes[i], roles, n_values, err);
    arena_free(scratch);
    return st;
}
