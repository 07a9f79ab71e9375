/* Which channels of which activations must be scaled by one factor: those that positively
 * homogeneous operators connect. */
#include <math.h>
#include <string.h>

#include "graph/pass.h"
#include "quant/equalize.h"

#define HEADROOM 0.95 /* of a Clip's bound: other data may reach further than calibration's */

size_t channels_of_value(const equalizer *q, int v)
{
    return v >= 0 && q->base[v] >= 0 ? (size_t)q->info[v].dims[1] : 0;
}

int element_root(const equalizer *q, size_t element)
{
    int e = (int)element;
    while (q->parent[e] != e)
        e = q->parent[e] = q->parent[q->parent[e]];
    return e;
}

int family_root(const equalizer *q, int v)
{
    while (q->family[v] != v)
        v = q->family[v] = q->family[q->family[v]];
    return v;
}

double factor_of(const equalizer *q, int v, size_t c)
{
    return q->base[v] < 0 ? 1 : q->factor[element_root(q, (size_t)q->base[v] + c)];
}

static void fix(equalizer *q, int v)
{
    for (size_t c = 0; c < channels_of_value(q, v); c++)
        q->fixed[element_root(q, (size_t)q->base[v] + c)] = true;
}

static void join(equalizer *q, int a, size_t ca, int b, size_t cb)
{
    const int ra = element_root(q, (size_t)q->base[a] + ca);
    const int rb = element_root(q, (size_t)q->base[b] + cb);
    if (ra != rb) {
        q->parent[rb] = ra;
        q->fixed[ra] |= q->fixed[rb];
        q->cap[ra] = fmin(q->cap[ra], q->cap[rb]);
    }
    q->family[family_root(q, b)] = family_root(q, a);
}

/* Channels of a, from `from` on, are those of b. False: their numbers do not fit. */
static bool join_all(equalizer *q, int a, size_t from, int b, size_t n)
{
    if (!n || from + n > channels_of_value(q, a) || n > channels_of_value(q, b))
        return false;
    for (size_t c = 0; c < n; c++)
        join(q, a, from + c, b, c);
    return true;
}

static bool join_same(equalizer *q, int a, int b)
{
    const size_t n = channels_of_value(q, a);
    return n == channels_of_value(q, b) && join_all(q, a, 0, b, n);
}

/* --- operators -------------------------------------------------------------------------------- */

static bool link_add(equalizer *q, const node *n)
{
    const int y = n->outputs[0];
    for (int k = 0; k < n->n_inputs; k++) {
        const int x = n->inputs[k];
        if (x < 0 || q->info[x].rank != q->info[y].rank || !join_same(q, y, x))
            return false;
    }
    return true;
}

static bool link_concat(equalizer *q, const node *n)
{
    const int rank = q->info[n->outputs[0]].rank;
    const int64_t axis = node_int(n, "axis", 1);
    size_t at = 0;
    if (axis != 1 && axis != 1 - rank)
        return false;
    for (int k = 0; k < n->n_inputs; k++) {
        const size_t c = channels_of_value(q, n->inputs[k]);
        if (!join_all(q, n->outputs[0], at, n->inputs[k], c))
            return false;
        at += c;
    }
    return true;
}

/* Zeros around: channels that are added have no other owner. */
static bool link_pad(equalizer *q, const node *n)
{
    const tensor *pads = node_constant(q->g, n, 1);
    const int rank = q->info[n->inputs[0]].rank;
    if (strcmp(node_string(n, "mode", "constant"), "constant") || !pads || node_input(n, 3) >= 0 ||
        tensor_count(pads) != 2 * (size_t)rank ||
        (node_input(n, 2) >= 0 && (!node_constant(q->g, n, 2) ||
                                   tensor_get(node_constant(q->g, n, 2), 0) != 0)))
        return false;
    const int64_t before = tensor_get_int(pads, 1);
    return before >= 0 && tensor_get_int(pads, (size_t)rank + 1) >= 0 &&
           join_all(q, n->outputs[0], (size_t)before, n->inputs[0],
                    channels_of_value(q, n->inputs[0]));
}

static bool link_slice(equalizer *q, const node *n)
{
    const tensor *axes = node_constant(q->g, n, 3);
    const int rank = q->info[n->inputs[0]].rank;
    for (size_t i = 0; axes && i < tensor_count(axes); i++)
        if (tensor_get_int(axes, i) == 1 || tensor_get_int(axes, i) == 1 - rank)
            return false;
    return axes && join_same(q, n->outputs[0], n->inputs[0]);
}

/* [N, C, 1, 1] to [N, C]. */
static bool link_flatten(equalizer *q, const node *n)
{
    const value_info *x = &q->info[n->inputs[0]];
    for (int i = 2; i < x->rank; i++)
        if (x->dims[i] != 1)
            return false;
    return q->info[n->outputs[0]].rank == 2 && join_same(q, n->outputs[0], n->inputs[0]);
}

/* A channel that reaches the bound must stay as it is, others may grow up to it. */
static bool link_clip(equalizer *q, const node *n)
{
    const int x = n->inputs[0], y = n->outputs[0];
    const tensor *lo = node_constant(q->g, n, 1), *hi = node_constant(q->g, n, 2);
    if (!lo || tensor_count(lo) != 1 || tensor_get(lo, 0) != 0 || !hi || tensor_count(hi) != 1 ||
        !join_same(q, y, x))
        return false;
    const double bound = tensor_get(hi, 0);
    for (size_t c = 0; c < channels_of_value(q, y); c++) {
        const channel_stats *s = &q->stats[(size_t)q->base[y] + c];
        const int root = element_root(q, (size_t)q->base[y] + c);
        if (!(s->hi < bound) || s->count == 0)
            q->fixed[root] = true;
        else if (s->hi > 0)
            q->cap[root] = fmin(q->cap[root], fmax(HEADROOM * bound / s->hi, 1));
    }
    return true;
}

static bool link_node(equalizer *q, const node *n)
{
    static const char *const same[] = { "Relu", "LeakyRelu", "MaxPool", "AveragePool",
                                        "GlobalAveragePool", "GlobalMaxPool", "Identity" };
    if (n->n_inputs < 1 || n->inputs[0] < 0 || n->outputs[0] < 0 || n->n_captures)
        return false;
    for (size_t i = 0; i < sizeof same / sizeof *same; i++)
        if (node_is(n, same[i]))
            return n->n_outputs == 1 && join_same(q, n->outputs[0], n->inputs[0]);
    if (node_is(n, "Add") || node_is(n, "Sum"))
        return link_add(q, n);
    if (node_is(n, "Concat"))
        return link_concat(q, n);
    if (node_is(n, "Pad"))
        return link_pad(q, n);
    if (node_is(n, "Slice"))
        return link_slice(q, n);
    if (node_is(n, "Flatten") || node_is(n, "Reshape"))
        return link_flatten(q, n);
    return node_is(n, "Clip") && link_clip(q, n);
}

static bool is_linear(const equalizer *q, size_t node_index)
{
    for (size_t i = 0; i < q->n_linears; i++)
        if (q->linears[i].l.node == node_index)
            return true;
    return false;
}

rung_status equalizer_link(equalizer *q, rung_error *err)
{
    graph *g = q->g;
    (void)err;
    for (size_t e = 0; e < q->n_elements; e++) {
        q->parent[e] = (int)e;
        q->cap[e] = INFINITY;
        q->factor[e] = 1;
    }
    for (size_t v = 0; v < g->n_values; v++) {
        q->family[v] = (int)v;
        if (g->values[v].is_input || g->values[v].is_output)
            fix(q, (int)v);
    }
    for (size_t i = 0; i < g->n_nodes; i++) {
        const node *n = &g->nodes[i];
        if (is_linear(q, i) || link_node(q, n))
            continue;
        for (int k = 0; k < n->n_inputs; k++)
            fix(q, n->inputs[k]);
        for (int k = 0; k < n->n_outputs; k++)
            fix(q, n->outputs[k]);
        for (int k = 0; k < n->n_captures; k++)
            fix(q, n->captures[k]);
    }
    return RUNG_OK;
}
