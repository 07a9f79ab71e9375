/* The rules of a valid graph. */
#include "graph/op.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

/* Whether t's fields describe memory that can exist and is there. */
static rung_status check_tensor(const tensor *t, const char *what, const char *name,
                                rung_error *err)
{
    if (!dtype_valid(t->type) || t->type == RUNG_UNDEFINED)
        return fail(err, RUNG_EMODEL, "%s '%s' has an unknown element type %d", what, name,
                    (int)t->type);
    if (t->rank < 0 || t->rank > RUNG_MAX_RANK)
        return fail(err, RUNG_EMODEL, "%s '%s' has rank %d: at most %d is possible", what, name,
                    t->rank, RUNG_MAX_RANK);
    const size_t count = tensor_count(t);
    const size_t size = count == SIZE_MAX ? SIZE_MAX : dtype_bytes(t->type, count);
    if (size > SIZE_MAX / 2)
        return fail(err, RUNG_EMODEL, "%s '%s': its dimensions are negative or too large", what,
                    name);
    if (count > 0 && !t->data)
        return fail(err, RUNG_EMODEL, "%s '%s' has no data", what, name);
    return RUNG_OK;
}

static rung_status check_constant(const value *v, rung_error *err)
{
    const tensor *t = v->constant;
    const rung_status st = check_tensor(t, "constant", v->name, err);
    if (st != RUNG_OK)
        return st;
    if (v->type != t->type || v->rank != t->rank ||
        memcmp(v->dims, t->dims, (size_t)t->rank * sizeof *t->dims))
        return fail(err, RUNG_EMODEL, "constant '%s' differs from its declared type or dimensions",
                    v->name);
    if (v->is_input)
        return fail(err, RUNG_EMODEL, "value '%s' is both a constant and an input to be fed",
                    v->name);
    return RUNG_OK;
}

static rung_status check_value(const graph *g, int id, rung_error *err)
{
    const value *v = &g->values[id];
    if (!v->name || !*v->name)
        return fail(err, RUNG_EMODEL, "value %d has no name", id);
    if (strmap_get(g->by_name, v->name, -1) != id)
        return fail(err, RUNG_EMODEL, "two values have the name '%s'", v->name);
    if (!dtype_valid(v->type))
        return fail(err, RUNG_EMODEL, "value '%s' has an unknown element type %d", v->name,
                    (int)v->type);
    if (v->rank < -1 || v->rank > RUNG_MAX_RANK)
        return fail(err, RUNG_EMODEL, "value '%s' has rank %d: at most %d is possible", v->name,
                    v->rank, RUNG_MAX_RANK);
    for (int i = 0; i < v->rank; i++)
        if (v->dims[i] < DIM_UNKNOWN)
            return fail(err, RUNG_EMODEL, "value '%s' has a negative dimension", v->name);
    return v->constant ? check_constant(v, err) : RUNG_OK;
}

/* The list of inputs or outputs names each flagged value, and only those. */
static rung_status check_list(const graph *g, bool inputs, unsigned char *seen, rung_error *err)
{
    const int *list = inputs ? g->inputs : g->outputs;
    const int n = inputs ? g->n_inputs : g->n_outputs;
    const char *what = inputs ? "input" : "output";
    memset(seen, 0, g->n_values + 1);
    for (int i = 0; i < n; i++) {
        if (list[i] < 0 || (size_t)list[i] >= g->n_values)
            return fail(err, RUNG_EMODEL, "graph %s %d is value %d, which does not exist", what, i,
                        list[i]);
        if (inputs && seen[list[i]])
            return fail(err, RUNG_EMODEL, "value '%s' is listed twice as graph input",
                        g->values[list[i]].name);
        seen[list[i]] = 1;
    }
    for (size_t v = 0; v < g->n_values; v++)
        if (seen[v] != (inputs ? g->values[v].is_input : g->values[v].is_output))
            return fail(err, RUNG_EMODEL, "value '%s' is %s the list of graph %ss, its flag is not",
                        g->values[v].name, seen[v] ? "on" : "missing on", what);
    return RUNG_OK;
}

static rung_status check_attrs(const node *n, const char *label, rung_error *err)
{
    if (n->n_attrs < 0)
        return fail(err, RUNG_EMODEL, "%s has %d attributes", label, n->n_attrs);
    for (int i = 0; i < n->n_attrs; i++) {
        const attr *a = &n->attrs[i];
        if (!a->name || !*a->name)
            return fail(err, RUNG_EMODEL, "%s: attribute %d has no name", label, i);
        if (a->kind < ATTR_OPAQUE || a->kind > ATTR_STRINGS)
            return fail(err, RUNG_EMODEL, "%s: attribute '%s' is of unknown kind %d", label,
                        a->name, (int)a->kind);
        if (a->kind != ATTR_TENSOR)
            continue;
        if (!a->t)
            return fail(err, RUNG_EMODEL, "%s: attribute '%s' has no tensor", label, a->name);
        const rung_status st = check_tensor(a->t, "attribute", a->name, err);
        if (st != RUNG_OK)
            return fail_at(err, st, "%s", label);
    }
    return RUNG_OK;
}

/* An id that n reads: it exists, and by now has a content. */
static rung_status check_use(const graph *g, int id, const unsigned char *ready, const char *label,
                             rung_error *err)
{
    if (id < 0 || (size_t)id >= g->n_values)
        return fail(err, RUNG_EMODEL, "%s uses value %d, which does not exist", label, id);
    if (!ready[id])
        return fail(err, RUNG_EMODEL,
                    "%s uses '%s', which is no input, no constant and not made before it", label,
                    g->values[id].name);
    return RUNG_OK;
}

static rung_status check_output(const graph *g, int index, int id, unsigned char *ready,
                                const char *label, rung_error *err)
{
    if (id < -1 || (id >= 0 && (size_t)id >= g->n_values))
        return fail(err, RUNG_EMODEL, "%s makes value %d, which does not exist", label, id);
    if (id < 0)
        return RUNG_OK;
    if (ready[id])
        return fail(err, RUNG_EMODEL, "%s makes '%s', which is there already", label,
                    g->values[id].name);
    if (g->values[id].producer != index)
        return fail(err, RUNG_EMODEL, "%s makes '%s', whose producer says %d, not %d", label,
                    g->values[id].name, g->values[id].producer, index);
    ready[id] = 1;
    return RUNG_OK;
}

static rung_status check_node(const graph *g, int index, unsigned char *ready, rung_error *err)
{
    const node *n = &g->nodes[index];
    char label[NODE_LABEL_SIZE];
    if (!n->op_type || !*n->op_type || !n->domain || !n->name)
        return fail(err, RUNG_EMODEL, "node %d has no operator type, domain or name", index);
    node_label(g, n, label, sizeof label);
    if (n->dead)
        return fail(err, RUNG_EMODEL, "%s is removed but not dropped (graph_sort)", label);
    if (n->n_inputs < 0 || n->n_outputs < 0 || n->n_captures < 0)
        return fail(err, RUNG_EMODEL, "%s has a negative number of operands", label);
    if (n->op && strcmp(n->op->name, n->op_type))
        return fail(err, RUNG_EMODEL, "%s has the entry of operator %s", label, n->op->name);
    rung_status st = check_attrs(n, label, err);
    for (int k = 0; st == RUNG_OK && k < n->n_inputs; k++)
        if (n->inputs[k] != -1)
            st = check_use(g, n->inputs[k], ready, label, err);
    for (int k = 0; st == RUNG_OK && k < n->n_captures; k++)
        st = check_use(g, n->captures[k], ready, label, err);
    for (int k = 0; st == RUNG_OK && k < n->n_outputs; k++)
        st = check_output(g, index, n->outputs[k], ready, label, err);
    return st;
}

/* Nodes in order; ready[v]: v has a content. */
static rung_status check_nodes(const graph *g, unsigned char *ready, rung_error *err)
{
    rung_status st = RUNG_OK;
    for (size_t v = 0; v < g->n_values; v++)
        ready[v] = g->values[v].is_input || g->values[v].constant;
    for (size_t i = 0; st == RUNG_OK && i < g->n_nodes; i++)
        st = check_node(g, (int)i, ready, err);
    for (int i = 0; st == RUNG_OK && i < g->n_outputs; i++)
        if (!ready[g->outputs[i]])
            st = fail(err, RUNG_EMODEL, "graph output '%s' is made by no node",
                      g->values[g->outputs[i]].name);
    for (size_t v = 0; st == RUNG_OK && v < g->n_values; v++) {
        const int made_by = g->values[v].producer;
        if (made_by != -1 && (!ready[v] || g->values[v].is_input || g->values[v].constant))
            st = fail(err, RUNG_EMODEL, "value '%s' names node %d as its maker, which it is not",
                      g->values[v].name, made_by);
    }
    return st;
}

rung_status graph_verify(const graph *g, rung_error *err)
{
    unsigned char *flags = mem_zero(g->n_values + 1, 1);
    rung_status st = RUNG_OK;
    if (!flags)
        return fail_memory(err, "checking the graph", g->n_values);
    for (size_t v = 0; st == RUNG_OK && v < g->n_values; v++)
        st = check_value(g, (int)v, err);
    if (st == RUNG_OK)
        st = check_list(g, true, flags, err);
    if (st == RUNG_OK)
        st = check_list(g, false, flags, err);
    if (st == RUNG_OK)
        st = check_nodes(g, flags, err);
    mem_free(flags);
    return st;
}
