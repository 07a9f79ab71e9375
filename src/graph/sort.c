/* Execution order, and who uses what. */
#include "graph/graph.h"

#include <string.h>

#include "base/mem.h"

/* --- uses ------------------------------------------------------------------------------------- */

static void count_uses(const graph *g, int *count)
{
    for (size_t i = 0; i < g->n_nodes; i++) {
        const node *n = &g->nodes[i];
        if (n->dead)
            continue;
        for (int k = 0; k < n->n_inputs; k++)
            if (n->inputs[k] >= 0)
                count[n->inputs[k]]++;
        for (int k = 0; k < n->n_captures; k++)
            count[n->captures[k]]++;
    }
}

/* first[v] is the place of v's next entry; afterwards it is the end of v's entries. */
static void list_uses(const graph *g, int *first, int *list)
{
    for (size_t i = 0; i < g->n_nodes; i++) {
        const node *n = &g->nodes[i];
        if (n->dead)
            continue;
        for (int k = 0; k < n->n_inputs; k++)
            if (n->inputs[k] >= 0)
                list[first[n->inputs[k]]++] = (int)i;
        for (int k = 0; k < n->n_captures; k++)
            list[first[n->captures[k]]++] = (int)i;
    }
}

rung_status graph_uses(const graph *g, arena *mem, uses *out, rung_error *err)
{
    /* One slot more in front: list_uses leaves first[v + 1] at [v]. */
    int *counts = arena_zero(mem, g->n_values + 2, sizeof *counts);
    if (!counts)
        return fail_memory(err, "the table of uses", g->n_values * sizeof *counts);
    count_uses(g, counts + 1);
    int total = 0;
    for (size_t v = 1; v <= g->n_values; v++) {
        const int n = counts[v];
        counts[v] = total;
        total += n;
    }
    int *list = arena_zero(mem, (size_t)total, sizeof *list);
    if (!list)
        return fail_memory(err, "the table of uses", (size_t)total * sizeof *list);
    list_uses(g, counts + 1, list);
    *out = (uses){ counts, list };
    return RUNG_OK;
}

void graph_replace_uses(graph *g, int from, int to)
{
    for (size_t i = 0; i < g->n_nodes; i++)
        for (int k = 0; k < g->nodes[i].n_inputs; k++)
            if (g->nodes[i].inputs[k] == from)
                g->nodes[i].inputs[k] = to;
}

/* --- sort ------------------------------------------------------------------------------------- */

enum { NEW, OPEN, DONE };

/* A depth-first walk: each node behind the makers of its operands, else in the order it stood. */
typedef struct walk {
    const graph   *g;
    const int     *maker; /* [n_values] */
    unsigned char *state; /* [n_nodes] */
    int           *stack, *next; /* [n_nodes]: open nodes, and the operand each looks at next */
    int           *order; /* [n_nodes]: the result */
    size_t         n_order;
} walk;

static rung_status find_makers(const graph *g, int *maker, rung_error *err)
{
    char label[NODE_LABEL_SIZE], other[NODE_LABEL_SIZE];
    for (size_t v = 0; v < g->n_values; v++)
        maker[v] = -1;
    for (size_t i = 0; i < g->n_nodes; i++) {
        const node *n = &g->nodes[i];
        for (int k = 0; !n->dead && k < n->n_outputs; k++) {
            const int id = n->outputs[k];
            if (id < 0)
                continue;
            if (maker[id] >= 0)
                return fail(err, RUNG_EMODEL, "value '%s' is made twice: by %s and by %s",
                            g->values[id].name,
                            node_label(g, &g->nodes[maker[id]], other, sizeof other),
                            node_label(g, n, label, sizeof label));
            maker[id] = (int)i;
        }
    }
    return RUNG_OK;
}

/* The node that makes operand or capture k of n, -1: none or absent. */
static int dependency(const walk *w, const node *n, int k)
{
    const int id = k < n->n_inputs ? n->inputs[k] : n->captures[k - n->n_inputs];
    return id < 0 ? -1 : w->maker[id];
}

static rung_status visit(walk *w, int root, rung_error *err)
{
    char label[NODE_LABEL_SIZE];
    size_t depth = 1;
    w->stack[0] = root;
    w->next[0] = 0;
    w->state[root] = OPEN;
    while (depth) {
        const int at = w->stack[depth - 1];
        const node *n = &w->g->nodes[at];
        if (w->next[depth - 1] == n->n_inputs + n->n_captures) {
            w->state[at] = DONE;
            w->order[w->n_order++] = at;
            depth--;
            continue;
        }
        const int before = dependency(w, n, w->next[depth - 1]++);
        if (before < 0 || w->state[before] == DONE)
            continue;
        if (w->state[before] == OPEN)
            return fail(err, RUNG_EMODEL, "%s stands on a cycle: it needs its own output",
                        node_label(w->g, n, label, sizeof label));
        w->state[before] = OPEN;
        w->stack[depth] = before;
        w->next[depth++] = 0;
    }
    return RUNG_OK;
}

static void apply_order(graph *g, const int *order, size_t n_order, node *sorted)
{
    for (size_t i = 0; i < n_order; i++)
        sorted[i] = g->nodes[order[i]];
    if (n_order)
        memcpy(g->nodes, sorted, n_order * sizeof *sorted);
    g->n_nodes = n_order;
    for (size_t v = 0; v < g->n_values; v++)
        g->values[v].producer = -1;
    for (size_t i = 0; i < n_order; i++)
        for (int k = 0; k < g->nodes[i].n_outputs; k++)
            if (g->nodes[i].outputs[k] >= 0)
                g->values[g->nodes[i].outputs[k]].producer = (int)i;
}

rung_status graph_sort(graph *g, rung_error *err)
{
    const size_t n = g->n_nodes;
    int *ids = mem_zero(g->n_values + 3 * n + 1, sizeof *ids);
    unsigned char *state = mem_zero(n + 1, 1);
    node *sorted = mem_zero(n + 1, sizeof *sorted);
    rung_status st = RUNG_OK;
    if (!ids || !state || !sorted) {
        st = fail_memory(err, "sorting the graph", n * sizeof *sorted);
        goto done;
    }
    walk w = { .g = g, .maker = ids, .state = state };
    w.stack = ids + g->n_values;
    w.next = w.stack + n;
    w.order = w.next + n;
    st = find_makers(g, ids, err);
    for (size_t i = 0; st == RUNG_OK && i < n; i++)
        if (!g->nodes[i].dead && state[i] == NEW)
            st = visit(&w, (int)i, err);
    if (st == RUNG_OK)
        apply_order(g, w.order, w.n_order, sorted);
done:
    mem_free(ids);
    mem_free(state);
    mem_free(sorted);
    return st;
}
