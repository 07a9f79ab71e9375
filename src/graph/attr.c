/* Attributes: reading and setting; how messages name a node. */
#include "graph/graph.h"

#include <stdio.h>
#include <string.h>

/* --- reading ---------------------------------------------------------------------------------- */

const attr *node_attr(const node *n, const char *name)
{
    for (int i = 0; i < n->n_attrs; i++)
        if (!strcmp(n->attrs[i].name, name))
            return &n->attrs[i];
    return NULL;
}

static const attr *attr_of_kind(const node *n, const char *name, attr_kind kind)
{
    const attr *a = node_attr(n, name);
    return a && a->kind == kind ? a : NULL;
}

int64_t node_int(const node *n, const char *name, int64_t otherwise)
{
    const attr *a = attr_of_kind(n, name, ATTR_INT);
    return a ? a->i : otherwise;
}

float node_float(const node *n, const char *name, float otherwise)
{
    const attr *a = attr_of_kind(n, name, ATTR_FLOAT);
    return a ? a->f : otherwise;
}

const char *node_string(const node *n, const char *name, const char *otherwise)
{
    const attr *a = attr_of_kind(n, name, ATTR_STRING);
    return a && a->s.data ? (const char *)a->s.data : otherwise;
}

size_t node_ints(const node *n, const char *name, const int64_t **v)
{
    const attr *a = attr_of_kind(n, name, ATTR_INTS);
    if (!a)
        return 0;
    *v = a->ints.v;
    return a->ints.n;
}

const char *node_label(const graph *g, const node *n, char *buf, size_t size)
{
    if (*n->name) {
        snprintf(buf, size, "%s '%s'", n->op_type, n->name);
        return buf;
    }
    for (int i = 0; i < n->n_outputs; i++) {
        const int id = n->outputs[i];
        if (id >= 0 && (size_t)id < g->n_values) {
            snprintf(buf, size, "%s making '%s'", n->op_type, g->values[id].name);
            return buf;
        }
    }
    snprintf(buf, size, "%s", n->op_type);
    return buf;
}

/* --- setting ---------------------------------------------------------------------------------- */

static bool copy_bytes(arena *mem, bytes *b)
{
    if (!b->data)
        return true;
    unsigned char *data = arena_alloc(mem, b->size + 1);
    if (!data)
        return false;
    memcpy(data, b->data, b->size);
    data[b->size] = 0;
    b->data = data;
    return true;
}

static bool copy_strings(arena *mem, attr *a)
{
    bytes *list = arena_zero(mem, a->strings.n, sizeof *list);
    if (!list)
        return false;
    for (size_t i = 0; i < a->strings.n; i++) {
        list[i] = a->strings.v[i];
        if (!copy_bytes(mem, &list[i]))
            return false;
    }
    a->strings.v = list;
    return true;
}

bool attr_copy(arena *mem, const attr *from, attr *to)
{
    *to = *from;
    to->name = arena_strdup(mem, from->name);
    if (!to->name || !copy_bytes(mem, &to->opaque))
        return false;
    switch (from->kind) {
    case ATTR_STRING:
    case ATTR_GRAPH:
        return copy_bytes(mem, &to->s);
    case ATTR_FLOATS:
        to->floats.v = arena_copy(mem, from->floats.v, from->floats.n * sizeof(float));
        return to->floats.v != NULL;
    case ATTR_INTS:
        to->ints.v = arena_copy(mem, from->ints.v, from->ints.n * sizeof(int64_t));
        return to->ints.v != NULL;
    case ATTR_STRINGS:
        return copy_strings(mem, to);
    case ATTR_TENSOR:
        to->t = tensor_copy(mem, from->t);
        return to->t != NULL;
    default:
        return true;
    }
}

rung_status graph_set_attr(graph *g, node *n, const attr *a, rung_error *err)
{
    attr copy;
    if (!attr_copy(g->mem, a, &copy))
        return fail_memory(err, a->name, sizeof copy);
    for (int i = 0; i < n->n_attrs; i++) {
        if (!strcmp(n->attrs[i].name, a->name)) {
            n->attrs[i] = copy;
            return RUNG_OK;
        }
    }
    attr *list = arena_zero(g->mem, (size_t)n->n_attrs + 1, sizeof *list);
    if (!list)
        return fail_memory(err, a->name, sizeof copy);
    if (n->n_attrs)
        memcpy(list, n->attrs, (size_t)n->n_attrs * sizeof *list);
    list[n->n_attrs] = copy;
    n->attrs = list;
    n->n_attrs++;
    return RUNG_OK;
}

rung_status graph_set_int(graph *g, node *n, const char *name, int64_t v, rung_error *err)
{
    const attr a = { .name = name, .kind = ATTR_INT, .i = v };
    return graph_set_attr(g, n, &a, err);
}

rung_status graph_set_ints(graph *g, node *n, const char *name, const int64_t *v, size_t count,
                           rung_error *err)
{
    const attr a = { .name = name, .kind = ATTR_INTS, .ints = { v, count } };
    return graph_set_attr(g, n, &a, err);
}

rung_status graph_set_float(graph *g, node *n, const char *name, float v, rung_error *err)
{
    const attr a = { .name = name, .kind = ATTR_FLOAT, .f = v };
    return graph_set_attr(g, n, &a, err);
}

rung_status graph_set_string(graph *g, node *n, const char *name, const char *v, rung_error *err)
{
    const attr a = {
        .name = name, .kind = ATTR_STRING, .s = { (const unsigned char *)v, strlen(v) }
    };
    return graph_set_attr(g, n, &a, err);
}

void node_remove_attr(node *n, const char *name)
{
    for (int i = 0; i < n->n_attrs; i++) {
        if (!strcmp(n->attrs[i].name, name)) {
            memmove(&n->attrs[i], &n->attrs[i + 1], (size_t)(n->n_attrs - i - 1) * sizeof(attr));
            n->n_attrs--;
            return;
        }
    }
}
