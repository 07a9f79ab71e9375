/* A copy of a graph, ids kept: deep, or with the constants of the original. */
#include "graph/graph.h"

#include <string.h>

static bool copy_bytes(arena *mem, bytes *b)
{
    if (b->data)
        b->data = arena_copy(mem, b->data, b->size);
    return b->data != NULL || b->size == 0;
}

static bool copy_string(arena *mem, const char **s)
{
    if (*s)
        *s = arena_strdup(mem, *s);
    return *s != NULL;
}

static bool copy_ids(arena *mem, int **ids, int n)
{
    *ids = arena_copy(mem, *ids, (size_t)n * sizeof **ids);
    return *ids != NULL;
}

static bool copy_value(graph *c, int id, const value *from, bool shares)
{
    value *v = &c->values[id];
    *v = *from;
    if (!copy_string(c->mem, &v->name) || !strmap_set(c->by_name, v->name, id))
        return false;
    for (int i = 0; i < v->rank; i++)
        if (v->symbols[i] && !copy_string(c->mem, &v->symbols[i]))
            return false;
    if (v->constant && !shares && !(v->constant = tensor_copy(c->mem, from->constant)))
        return false;
    return copy_bytes(c->mem, &v->type_proto) && copy_bytes(c->mem, &v->extra);
}

static bool copy_values(graph *c, const graph *g, bool shares)
{
    c->values = arena_zero(c->mem, g->n_values, sizeof(value));
    if (!c->values)
        return false;
    c->n_values = c->cap_values = g->n_values;
    for (size_t i = 0; i < g->n_values; i++)
        if (!copy_value(c, (int)i, &g->values[i], shares))
            return false;
    return true;
}

static bool copy_node(graph *c, node *n)
{
    if (!copy_string(c->mem, &n->name) || !copy_string(c->mem, &n->op_type) ||
        !copy_string(c->mem, &n->domain) || !copy_bytes(c->mem, &n->extra))
        return false;
    if (!copy_ids(c->mem, &n->inputs, n->n_inputs) ||
        !copy_ids(c->mem, &n->outputs, n->n_outputs) ||
        !copy_ids(c->mem, &n->captures, n->n_captures))
        return false;
    attr *attrs = arena_zero(c->mem, (size_t)n->n_attrs, sizeof *attrs);
    if (!attrs)
        return false;
    for (int i = 0; i < n->n_attrs; i++)
        if (!attr_copy(c->mem, &n->attrs[i], &attrs[i]))
            return false;
    n->attrs = attrs;
    return true;
}

static bool copy_nodes(graph *c, const graph *g)
{
    c->nodes = arena_zero(c->mem, g->n_nodes, sizeof(node));
    if (!c->nodes)
        return false;
    c->n_nodes = c->cap_nodes = g->n_nodes;
    for (size_t i = 0; i < g->n_nodes; i++) {
        c->nodes[i] = g->nodes[i];
        if (!copy_node(c, &c->nodes[i]))
            return false;
    }
    return true;
}

static bool copy_opsets(graph *c)
{
    opset *list = arena_copy(c->mem, c->opsets, (size_t)c->n_opsets * sizeof *list);
    for (int i = 0; list && i < c->n_opsets; i++)
        if (!copy_string(c->mem, &list[i].domain))
            return false;
    c->opsets = list;
    return list != NULL;
}

static bool copy_metadata(graph *c)
{
    metadata *list = arena_copy(c->mem, c->metadata, (size_t)c->n_metadata * sizeof *list);
    for (int i = 0; list && i < c->n_metadata; i++)
        if (!copy_string(c->mem, &list[i].key) || !copy_string(c->mem, &list[i].value))
            return false;
    c->metadata = list;
    return list != NULL;
}

static bool copy_rest(graph *c, const graph *g)
{
    arena *mem = c->mem;
    strmap *names = c->by_name;
    value *values = c->values;
    node *nodes = c->nodes;
    *c = *g;
    c->mem = mem;
    c->by_name = names;
    c->values = values;
    c->cap_values = c->n_values;
    c->nodes = nodes;
    c->cap_nodes = c->n_nodes;
    return copy_ids(mem, &c->inputs, c->n_inputs) && copy_ids(mem, &c->outputs, c->n_outputs) &&
           copy_opsets(c) && copy_metadata(c) && copy_string(mem, &c->name) &&
           copy_bytes(mem, &c->model_extra) && copy_bytes(mem, &c->graph_extra);
}

static rung_status clone(const graph *g, bool shares, graph **out, rung_error *err)
{
    graph *c;
    *out = NULL;
    rung_status st = graph_create(g->find_op, &c, err);
    if (st != RUNG_OK)
        return st;
    if (!copy_values(c, g, shares) || !copy_nodes(c, g) || !copy_rest(c, g)) {
        graph_free(c);
        return fail_memory(err, "a copy of the graph", arena_bytes(g->mem));
    }
    *out = c;
    return RUNG_OK;
}

rung_status graph_clone(const graph *g, graph **out, rung_error *err)
{
    return clone(g, false, out, err);
}

rung_status graph_clone_shared(const graph *g, graph **out, rung_error *err)
{
    return clone(g, true, out, err);
}
