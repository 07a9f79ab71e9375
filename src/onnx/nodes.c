/* NodeProto <-> node. */
#include "onnx/parts.h"

#include <stdio.h>
#include <string.h>

/* --- reading ---------------------------------------------------------------------------------- */

/* As node_label, for a message that is not a node yet. */
static const char *label(const node_proto *p, char *buf, size_t size)
{
    const char *op = proto_text(p->op_type);
    if (p->name && *p->name)
        snprintf(buf, size, "%s '%s'", op, p->name);
    else if (p->n_output && *p->output[0])
        snprintf(buf, size, "%s making '%s'", op, p->output[0]);
    else
        snprintf(buf, size, "%s", op);
    return buf;
}

static rung_status declare_outputs(reader *r, const node_proto *p, rung_error *err)
{
    char buf[NODE_LABEL_SIZE];
    for (size_t i = 0; i < p->n_output; i++) {
        if (!*p->output[i])
            continue;
        if (strmap_get(r->g->by_name, p->output[i], -1) >= 0)
            return fail(err, RUNG_EMODEL,
                        "%s makes '%s', which is an input, an initializer or made already",
                        label(p, buf, sizeof buf), p->output[i]);
        if (graph_add_value(r->g, p->output[i], RUNG_UNDEFINED, -1, NULL) < 0)
            return fail_memory(err, p->output[i], sizeof(value));
    }
    return RUNG_OK;
}

/* Ids of names; -1 for "". The list is valid until the scratch arena ends. */
static rung_status find_ids(reader *r, const node_proto *p, char **names, size_t n, int **out,
                            rung_error *err)
{
    char buf[NODE_LABEL_SIZE];
    int *ids = arena_zero(r->scratch, n, sizeof *ids);
    if (!ids)
        return fail_memory(err, "a node's operands", n * sizeof *ids);
    for (size_t i = 0; i < n; i++) {
        ids[i] = *names[i] ? strmap_get(r->g->by_name, names[i], -1) : -1;
        if (*names[i] && ids[i] < 0)
            return fail(err, RUNG_EMODEL,
                        "%s uses '%s', which is no input, no initializer and made by no node",
                        label(p, buf, sizeof buf), names[i]);
    }
    *out = ids;
    return RUNG_OK;
}

static rung_status read_attrs(reader *r, const node_proto *p, node *n, rung_error *err)
{
    n->attrs = arena_zero(r->g->mem, p->n_attribute, sizeof *n->attrs);
    if (!n->attrs)
        return fail_memory(err, "a node's attributes", p->n_attribute * sizeof *n->attrs);
    for (size_t i = 0; i < p->n_attribute; i++) {
        const rung_status st = attr_read(r, p->attribute[i], &n->attrs[i], err);
        if (st != RUNG_OK)
            return st;
        n->n_attrs++;
    }
    return RUNG_OK;
}

/* What node has no field for. */
static rung_status keep_rest(reader *r, const node_proto *p, node *n, rung_error *err)
{
    if (!proto_has_unknown(p))
        return RUNG_OK;
    node_proto rest = *p;
    rest.n_input = rest.n_output = rest.n_attribute = 0;
    rest.name = rest.op_type = rest.domain = NULL;
    return proto_keep(&rest, r->g->mem, &n->extra, err);
}

static rung_status read_node(reader *r, node_proto *p, rung_error *err)
{
    char buf[NODE_LABEL_SIZE];
    int *in, *out;
    rung_status st;
    if (!p->op_type || !*p->op_type)
        return fail(err, RUNG_EFORMAT, "node '%s' has no op_type", proto_text(p->name));
    if ((st = find_ids(r, p, p->input, p->n_input, &in, err)) != RUNG_OK ||
        (st = find_ids(r, p, p->output, p->n_output, &out, err)) != RUNG_OK)
        return st;
    const int index = graph_add_node(r->g, p->op_type, proto_text(p->domain), proto_text(p->name),
                                     in, (int)p->n_input, out, (int)p->n_output);
    if (index < 0)
        return fail_memory(err, "a node", sizeof(node));
    node *n = &r->g->nodes[index];
    if ((st = captures_read(r, p, index, err)) == RUNG_OK &&
        (st = read_attrs(r, p, n, err)) == RUNG_OK)
        st = keep_rest(r, p, n, err);
    return st == RUNG_OK ? st : fail_at(err, st, "%s", label(p, buf, sizeof buf));
}

/* A sparse initializer is a Constant node with sparse_value: the same to ONNX, and its value has a
 * producer as every other. The node's attribute stays bytes. */
static node_proto *sparse_node(reader *r, ProtobufCBinaryData b, rung_status *st, rung_error *err)
{
    enum { SPARSE_TENSOR = 11 };
    arena *mem = r->g->mem;
    const sparse_proto *s = proto_unpack(SPARSE_PROTO, proto_bytes(b), mem, st, err);
    if (*st != RUNG_OK)
        return NULL;
    if (!s->values || !s->values->name || !*s->values->name) {
        *st = fail(err, RUNG_EFORMAT, "a sparse initializer has no name");
        return NULL;
    }
    node_proto *n = proto_new(NODE_PROTO, mem);
    attr_proto *a = proto_new(ATTR_PROTO, mem);
    struct lists {
        char *output;
        attr_proto *attribute;
    } *lists = arena_zero(mem, 1, sizeof *lists);
    if (!n || !a || !lists) {
        *st = fail_memory(err, s->values->name, sizeof *n);
        return NULL;
    }
    a->name = (char *)"sparse_value";
    a->has_type = a->has_sparse_tensor = true;
    a->type = SPARSE_TENSOR;
    a->sparse_tensor = b;
    *lists = (struct lists){ s->values->name, a };
    n->op_type = (char *)"Constant";
    n->n_output = n->n_attribute = 1;
    n->output = &lists->output;
    n->attribute = &lists->attribute;
    return n;
}

/* p's nodes, with those of its sparse initializers in front. */
static rung_status all_nodes(reader *r, const graph_proto *p, node_proto ***out, size_t *n,
                             rung_error *err)
{
    rung_status st = RUNG_OK;
    const size_t n_sparse = p->n_sparse_initializer;
    node_proto **list = arena_zero(r->scratch, n_sparse + p->n_node, sizeof *list);
    if (!list)
        return fail_memory(err, "the list of nodes", (n_sparse + p->n_node) * sizeof *list);
    for (size_t i = 0; i < n_sparse && st == RUNG_OK; i++)
        list[i] = sparse_node(r, p->sparse_initializer[i], &st, err);
    if (p->n_node)
        memcpy(list + n_sparse, p->node, p->n_node * sizeof *list);
    *out = list;
    *n = n_sparse + p->n_node;
    return st;
}

rung_status nodes_read(reader *r, graph_proto *p, rung_error *err)
{
    node_proto **list = NULL;
    size_t n = 0;
    rung_status st = all_nodes(r, p, &list, &n, err);
    for (size_t i = 0; st == RUNG_OK && i < n; i++)
        st = declare_outputs(r, list[i], err);
    if (st != RUNG_OK)
        return st;
    r->stamps = arena_zero(r->scratch, r->g->n_values, sizeof *r->stamps);
    if (!r->stamps)
        return fail_memory(err, "reading nodes", r->g->n_values * sizeof *r->stamps);
    for (size_t i = 0; st == RUNG_OK && i < n; i++)
        st = read_node(r, list[i], err);
    return st;
}

/* --- building --------------------------------------------------------------------------------- */

static char **build_names(const graph *g, const int *ids, int n, arena *mem)
{
    char **names = arena_zero(mem, (size_t)n, sizeof *names);
    for (int i = 0; names && i < n; i++)
        names[i] = (char *)(ids[i] < 0 ? "" : g->values[ids[i]].name);
    return names;
}

node_proto *node_build(const graph *g, const node *n, arena *mem)
{
    node_proto *p = proto_restore(NODE_PROTO, n->extra, mem);
    if (!p)
        return NULL;
    p->input = build_names(g, n->inputs, n->n_inputs, mem);
    p->output = build_names(g, n->outputs, n->n_outputs, mem);
    p->attribute = arena_zero(mem, (size_t)n->n_attrs, sizeof *p->attribute);
    if (!p->input || !p->output || !p->attribute)
        return NULL;
    p->n_input = (size_t)n->n_inputs;
    p->n_output = (size_t)n->n_outputs;
    for (int i = 0; i < n->n_attrs; i++)
        if (!(p->attribute[i] = attr_build(&n->attrs[i], mem)))
            return NULL;
    p->n_attribute = (size_t)n->n_attrs;
    p->name = *n->name ? (char *)n->name : NULL;
    p->op_type = (char *)n->op_type;
    p->domain = *n->domain ? (char *)n->domain : NULL;
    return p;
}
