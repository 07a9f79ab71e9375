/* In which layout each node works: what its operator wishes, and what comes to it. */
#include "graph/pass.h"
#include "ops/lower.h"
#include "train/tape_parts.h"

static bool is_variable(const tape *t, int v)
{
    return v >= 0 && !t->constant[v] && !tape_is_param(t, v);
}

/* Weights are read as they are, whatever the activations' layout. */
static bool is_weight_operand(const node *n, int i)
{
    return i > 0 && n->op && (n->op->layout == LAYOUT_CHANNELS || node_is(n, "BatchNormalization"));
}

/* Elementwise operators and the like follow the largest operand that is not broadcast in rank. */
static bool follow(const tape *t, const node *n)
{
    size_t largest = 0;
    bool last = false;
    for (int i = 0; i < n->n_inputs; i++) {
        const int v = n->inputs[i];
        if (!is_variable(t, v))
            continue;
        if (t->info[v].rank != t->info[n->outputs[0]].rank)
            return false;
        const size_t count = tape_count(t, v);
        if (count > largest || (count == largest && t->home[v])) {
            largest = count;
            last = t->home[v];
        }
    }
    return last;
}

/* A ReduceMean that is a global pool takes what is there. */
static bool averages_image(const tape *t, const node *n)
{
    const int x = node_input(n, 0), axes = node_input(n, 1);
    return node_is(n, "ReduceMean") && x >= 0 && t->home[x] && (axes < 0 || t->constant[axes]) &&
           reduces_image(n, axes < 0 ? NULL : t->constant[axes], t->info[x].rank);
}

static node_layout layout_of(const tape *t, const node *n)
{
    const int x = node_input(n, 0);
    if (!n->op || n->n_outputs < 1 || n->outputs[0] < 0 || x < 0)
        return (node_layout){false, false};
    if (n->op->layout == LAYOUT_CHANNELS || averages_image(t, n))
        return (node_layout){true, true};
    if (node_is(n, "BatchNormalization"))
        return (node_layout){t->home[x], t->home[x]};
    if (n->op->layout == LAYOUT_FOLLOWS) {
        const bool last = follow(t, n);
        return (node_layout){last, last};
    }
    return (node_layout){false, false};
}

bool tape_input_last(const tape *t, const node *n, int i)
{
    const int v = n->inputs[i];
    return v >= 0 && t->layouts[n - t->g->nodes].in && !is_weight_operand(n, i) &&
           tape_may_be_last(t, v);
}

/* Codes lie as the engine left them, what is made of them too. */
static bool layout_of_pair(const tape *t, const pair *q, int v, bool otherwise)
{
    if (!q)
        return otherwise;
    if (v == q->codes && q->kept)
        return t->home[v];
    if (v == q->y)
        return q->kept ? t->home[q->codes] : t->home[q->x];
    return otherwise;
}

void tape_layouts(tape *t)
{
    for (size_t i = 0; i < t->g->n_nodes; i++) {
        const node *n = &t->g->nodes[i];
        node_layout l = layout_of(t, n);
        for (int k = 0; k < n->n_outputs; k++) {
            const int v = n->outputs[k];
            if (v < 0)
                continue;
            const pair *q = t->pair_at[i];
            t->home[v] = layout_of_pair(t, q, v, l.out && tape_may_be_last(t, v));
        }
        t->layouts[i] = l;
    }
}
