/* Constants that several nodes share, and what nobody uses. */
#include "graph/pass.h"
#include "report/diagnose.h"

enum { SMALL = 64 }; /* elements: shapes, scales and scalars are shared by habit */

/* Nodes that work on constant v; those behind one DequantizeLinear count one by one. */
static int count_users(const exam *x, int v, const node **first)
{
    int n = 0;
    for (int i = x->use.first[v]; i < x->use.first[v + 1]; i++) {
        const node *user = &x->g->nodes[x->use.list[i]];
        const int behind = exam_is_dequantize(user) ? exam_output(user, 0) : -1;
        const int n_behind = behind < 0 ? 1 : x->use.first[behind + 1] - x->use.first[behind];
        if (!*first && n_behind)
            *first = behind < 0 ? user : &x->g->nodes[x->use.list[x->use.first[behind]]];
        n += n_behind;
    }
    return n;
}

static void tied_weight(const exam *x, int v)
{
    const tensor *t = x->g->values[v].constant;
    const node *first = NULL;
    if (t->rank < 2 || tensor_count(t) < SMALL)
        return;
    const int n = count_users(x, v, &first);
    if (n > 1)
        diagnose(x->d, "tied-weights", x->g->values[v].name,
                 "%d nodes use this constant, the first is "
                 "%s: what changes it for one of them changes all; a tool that needs one weight a "
                 "layer must copy it",
                 n, exam_label(x, first));
}

static void unused_value(const exam *x, int v)
{
    const value *at = &x->g->values[v];
    if (exam_n_uses(x, v) || x->captured[v])
        return;
    if (at->constant)
        diagnose(x->d, "unused-initializer", at->name,
                 "no node uses it: %zu bytes of the file can be "
                 "dropped",
                 dtype_bytes(at->constant->type, tensor_count(at->constant)));
    else if (at->is_input)
        diagnose(x->d, "unused-input", at->name,
                 "no node uses this input, yet every caller must feed "
                 "it: drop it from the model");
}

static void unused_node(const exam *x, const node *n)
{
    for (int k = 0; k < n->n_outputs; k++)
        if (n->outputs[k] >= 0 && (exam_n_uses(x, n->outputs[k]) || x->captured[n->outputs[k]]))
            return;
    diagnose(x->d, "unused-output", exam_label(x, n),
             "nobody uses what it computes: declare it as an "
             "output of the graph, or drop the node");
}

void diagnose_graph(const exam *x)
{
    for (size_t v = 0; v < x->g->n_values; v++) {
        if (x->g->values[v].constant)
            tied_weight(x, (int)v);
        unused_value(x, (int)v);
    }
    for (size_t i = 0; i < x->g->n_nodes; i++)
        unused_node(x, &x->g->nodes[i]);
}
