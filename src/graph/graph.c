/* Making a graph and adding to it. */
#include "graph/graph.h"

#include <limits.h>
#include <string.h>

rung_status graph_create(op_lookup find_op, graph **out, rung_error *err)
{
    arena *mem = arena_new();
    graph *g = mem ? arena_zero(mem, 1, sizeof *g) : NULL;
    strmap *names = g ? strmap_new() : NULL;
    *out = NULL;
    if (!names) {
        arena_free(mem);
        return fail_memory(err, "a graph", sizeof *g);
    }
    g->mem = mem;
    g->by_name = names;
    g->find_op = find_op;
    g->name = "";
    *out = g;
    return RUNG_OK;
}

void graph_free(graph *g)
{
    if (!g)
        return;
    strmap_free(g->by_name);
    arena_free(g->mem); /* g itself lives there */
}

enum { MANY = 32 };

/* `hint`, or the first of hint_1, hint_2 ... that no value has; in g->mem. */
static const char *free_name(graph *g, const char *hint)
{
    if (!hint || !*hint)
        hint = "value";
    if (strmap_get(g->by_name, hint, -1) < 0)
        return arena_strdup(g->mem, hint);
    for (int i = 1; i < INT_MAX; i++) {
        if (i == MANY) /* thousands of one hint would make the search quadratic */
            i += (int)g->n_values;
        char *name = arena_printf(g->mem, "%s_%d", hint, i);
        if (!name || strmap_get(g->by_name, name, -1) < 0)
            return name;
    }
    return NULL;
}

int graph_add_value(graph *g, const char *hint, dtype type, int rank, const int64_t *dims)
{
    if (rank > RUNG_MAX_RANK || g->n_values >= INT_MAX - MANY)
        return -1;
    value *values = arena_grow(g->mem, g->values, &g->cap_values, g->n_values + 1, sizeof *values);
    if (!values)
        return -1;
    g->values = values;
    const int id = (int)g->n_values;
    value *v = &values[id];
    memset(v, 0, sizeof *v);
    v->name = free_name(g, hint);
    v->type = type;
    v->rank = rank < 0 ? -1 : rank;
    v->producer = -1;
    for (int i = 0; i < v->rank; i++)
        v->dims[i] = dims[i] < 0 ? DIM_UNKNOWN : dims[i];
    if (!v->name || !strmap_set(g->by_name, v->name, id))
        return -1;
    g->n_values++;
    return id;
}

int graph_add_constant(graph *g, const char *hint, const tensor *t)
{
    const tensor *copy = tensor_copy(g->mem, t);
    const int id = copy ? graph_add_value(g, hint, t->type, t->rank, t->dims) : -1;
    if (id >= 0)
        g->values[id].constant = copy;
    return id;
}

/* The list with one more id at its end, or NULL. */
static int *append_id(graph *g, const int *list, int n, int id)
{
    int *longer = arena_zero(g->mem, (size_t)n + 1, sizeof *longer);
    if (!longer)
        return NULL;
    if (n)
        memcpy(longer, list, (size_t)n * sizeof *longer);
    longer[n] = id;
    return longer;
}

rung_status graph_mark_input(graph *g, int id, rung_error *err)
{
    int *list = append_id(g, g->inputs, g->n_inputs, id);
    if (!list)
        return fail_memory(err, "the graph's inputs", sizeof *list);
    g->inputs = list;
    g->n_inputs++;
    g->values[id].is_input = true;
    return RUNG_OK;
}

rung_status graph_mark_output(graph *g, int id, rung_error *err)
{
    int *list = append_id(g, g->outputs, g->n_outputs, id);
    if (!list)
        return fail_memory(err, "the graph's outputs", sizeof *list);
    g->outputs = list;
    g->n_outputs++;
    g->values[id].is_output = true;
    return RUNG_OK;
}

int graph_add_node(graph *g, const char *op_type, const char *domain, const char *name,
                   const int *in, int n_in, const int *out, int n_out)
{
    if (g->n_nodes >= INT_MAX)
        return -1;
    node *nodes = arena_grow(g->mem, g->nodes, &g->cap_nodes, g->n_nodes + 1, sizeof *nodes);
    if (!nodes)
        return -1;
    g->nodes = nodes;
    const int index = (int)g->n_nodes;
    node *n = &nodes[index];
    memset(n, 0, sizeof *n);
    n->op_type = arena_strdup(g->mem, op_type);
    n->domain = domain && *domain && strcmp(domain, "ai.onnx") ? arena_strdup(g->mem, domain) : "";
    n->name = name && *name ? arena_strdup(g->mem, name) : "";
    n->inputs = arena_copy(g->mem, in, (size_t)n_in * sizeof *in);
    n->outputs = arena_copy(g->mem, out, (size_t)n_out * sizeof *out);
    if (!n->op_type || !n->domain || !n->name || !n->inputs || !n->outputs)
        return -1;
    n->n_inputs = n_in;
    n->n_outputs = n_out;
    n->op = g->find_op ? g->find_op(n->op_type, n->domain) : NULL;
    for (int i = 0; i < n_out; i++)
        if (out[i] >= 0)
            g->values[out[i]].producer = index;
    g->n_nodes++;
    return index;
}

/* --- opsets and metadata ---------------------------------------------------------------------- */

static bool same_domain(const char *a, const char *b)
{
    if (!strcmp(a, "ai.onnx"))
        a = "";
    if (!strcmp(b, "ai.onnx"))
        b = "";
    return !strcmp(a, b);
}

int64_t graph_opset(const graph *g, const char *domain)
{
    for (int i = 0; i < g->n_opsets; i++)
        if (same_domain(g->opsets[i].domain, domain))
            return g->opsets[i].version;
    return 0;
}

rung_status graph_set_opset(graph *g, const char *domain, int64_t version, rung_error *err)
{
    for (int i = 0; i < g->n_opsets; i++) {
        if (same_domain(g->opsets[i].domain, domain)) {
            g->opsets[i].version = version;
            return RUNG_OK;
        }
    }
    opset *list = arena_zero(g->mem, (size_t)g->n_opsets + 1, sizeof *list);
    const char *copy = arena_strdup(g->mem, domain);
    if (!list || !copy)
        return fail_memory(err, "the opset imports", sizeof *list);
    if (g->n_opsets)
        memcpy(list, g->opsets, (size_t)g->n_opsets * sizeof *list);
    list[g->n_opsets] = (opset){ copy, version };
    g->opsets = list;
    g->n_opsets++;
    return RUNG_OK;
}

const char *graph_metadata(const graph *g, const char *key)
{
    for (int i = 0; i < g->n_metadata; i++)
        if (!strcmp(g->metadata[i].key, key))
            return g->metadata[i].value;
    return NULL;
}

rung_status graph_set_metadata(graph *g, const char *key, const char *v, rung_error *err)
{
    const char *copy = arena_strdup(g->mem, v);
    for (int i = 0; copy && i < g->n_metadata; i++) {
        if (!strcmp(g->metadata[i].key, key)) {
            g->metadata[i].value = copy;
            return RUNG_OK;
        }
    }
    const char *key_copy = arena_strdup(g->mem, key);
    metadata *list = arena_zero(g->mem, (size_t)g->n_metadata + 1, sizeof *list);
    if (!copy || !key_copy || !list)
        return fail_memory(err, "the model's metadata", strlen(key) + strlen(v));
    if (g->n_metadata)
        memcpy(list, g->metadata, (size_t)g->n_metadata * sizeof *list);
    list[g->n_metadata] = (metadata){ key_copy, copy };
    g->metadata = list;
    g->n_metadata++;
    return RUNG_OK;
}
