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

rung_status clip_to_codes(graph *g, int v, int from, const qparams *p, int *to, rung_error *err)
{
    const char *base = g->values[v].name;
    float lo = p->scale * (float)(qparams_lowest(p) - p->zero);
    float hi = p->scale * (float)(qparams_highest(p) - p->zero);
    const int maker = g->values[v].producer;
    const bool joins = maker >= 0 && !is_captured(g, v) &&
                       join_bounds(g, &g->nodes[maker], &lo, &hi);
    const int ends[2] = { pass_add_scalar(g, base, "_lo", RUNG_F32, lo),
                          pass_add_scalar(g, base, "_hi", RUNG_F32, hi) };
    if (ends[0] < 0 || ends[1] < 0)
        return fail_memory(err, "a Clip", sizeof(node));
    if (joins) {
        node *n = &g->nodes[maker];
        const int in[] = { n->inputs[0], ends[0], ends[1] };
        n->op_type = "Clip";
        n->op = g->find_op("Clip", "");
        *to = from;
        return node_set_inputs(g, n, in, 3, err);
    }
    *to = graph_add_value(g, base, RUNG_UNDEFINED, -1, NULL);
    const int in[] = { from, ends[0], ends[1] };
    if (*to < 0 || graph_add_node(g, "Clip", "", "", in, 3, to, 1) < 0)
        return fail_memory(err, "a Clip", sizeof(node));
    return RUNG_OK;
}
