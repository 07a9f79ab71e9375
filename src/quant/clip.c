/* Activations of fewer than 8 bits: a Clip to the ends of their codes stands before the 8-bit
 * QuantizeLinear, which every runtime reads. A Relu or Clip there takes the ends over: engines fuse
 * one clamp with the operator before it. */
#include <math.h>

#include "graph/pass.h"
#include "quant/parts.h"

/* A constant bound of a Clip. False: it is none that can be joined with another. */
static bool bound_of(const graph *g, const node *n, int i, float *bound)
{
    const tensor *t = node_constant(g, n, i);
    if (node_input(n, i) < 0)
        return true;
    if (!t || t->type != RUNG_F32 || tensor_count(t) != 1)
        return false;
    *bound = (float)tensor_get(t, 0);
    return !isnan(*bound);
}

static bool is_captured(const graph *g, int v)
{
    for (size_t i = 0; i < g->n_nodes; i++)
        for (int k = 0; k < g->nodes[i].n_captures; k++)
            if (g->nodes[i].captures[k] == v)
                return true;
    return false;
}

/* Narrows [lo, hi] by the Relu or Clip n; false: it is neither. */
static bool join_bounds(const graph *g, const node *n, float *lo, float *hi)
{
    float from = node_is(n, "Relu") ? 0 : -INFINITY, to = INFINITY;
    if (!node_is(n, "Relu") &&
        !(node_is(n, "Clip") && bound_of(g, n, 1, &from) && bound_of(g, n, 2, &to)))
        return false;
    *lo = fminf(fmaxf(*lo, from), fmaxf(*hi, from));
    *hi = fmaxf(fminf(*hi, to), *lo);
    return true;
}

static bool joins(const graph *g, int base, int maker, float *lo, float *hi)
{
    return maker >= 0 && !is_captured(g, base) && join_bounds(g, &g->nodes[maker], lo, hi);
}

/* A constant bound: the reserved value, or a new one. -1: memory is out. */
static int add_bound(graph *g, int base, const char *suffix, int ready, float x)
{
    const tensor t = { .type = RUNG_F32, .data = &x };
    if (ready < 0)
        return pass_add_scalar(g, g->values[base].name, suffix, RUNG_F32, x);
    value *v = &g->values[ready];
    v->constant = tensor_copy(g->mem, &t);
    return v->constant ? ready : -1;
}

rung_status clip_to_codes(graph *g, int base, int maker, int from, const qparams *p,
                          const clip_values *ready, int *to, rung_error *err)
{
    static const clip_values none = { -1, -1, -1 };
    float lo = p->scale * (float)(qparams_lowest(p) - p->zero);
    float hi = p->scale * (float)(qparams_highest(p) - p->zero);
    const bool joined = joins(g, base, maker, &lo, &hi);
    ready = ready ? ready : &none;
    const int bounds[2] = { add_bound(g, base, "_lo", ready->lo, lo),
                            add_bound(g, base, "_hi", ready->hi, hi) };
    if (bounds[0] < 0 || bounds[1] < 0)
        return fail_memory(err, "a Clip", sizeof(node));
    if (joined) {
        node *n = &g->nodes[maker];
        const int in[] = { n->inputs[0], bounds[0], bounds[1] };
        n->op_type = "Clip";
        n->op = g->find_op("Clip", "");
        *to = from;
        return node_set_inputs(g, n, in, 3, err);
    }
    *to = ready->to >= 0 ? ready->to
                         : graph_add_value(g, g->values[base].name, RUNG_UNDEFINED, -1, NULL);
    const int in[] = { from, bounds[0], bounds[1] };
    if (*to < 0 || graph_add_node(g, "Clip", "", "", in, 3, to, 1) < 0)
        return fail_memory(err, "a Clip", sizeof(node));
    return RUNG_OK;
}

rung_status clip_reserve(graph *g, int base, int maker, rung_error *err)
{
    float lo = 0, hi = 0;
    const char *name = g->values[base].name;
    const char *low = arena_printf(g->mem, "%s_lo", name);
    const char *high = arena_printf(g->mem, "%s_hi", name);
    if (!low || !high || graph_add_value(g, low, RUNG_F32, 0, NULL) < 0 ||
        graph_add_value(g, high, RUNG_F32, 0, NULL) < 0 ||
        (!joins(g, base, maker, &lo, &hi) &&
         graph_add_value(g, name, RUNG_UNDEFINED, -1, NULL) < 0))
        return fail_memory(err, "a Clip", sizeof(node));
    return RUNG_OK;
}
