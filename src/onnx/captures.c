/* What subgraphs use of the main graph, and of the folder. A subgraph is bytes; each level is
 * unpacked here with the same schema, so that nesting costs a frame of ours, not of the protobuf
 * reader, and is counted. Its bytes stay as they are, unless it has external data: that is taken
 * in, because the model may be written elsewhere. */
#include "onnx/parts.h"

enum { DEEPEST = 64 };

/* The names that a subgraph defines, within those around it. */
typedef struct scope {
    strmap *names;
    const struct scope *outer;
} scope;

typedef struct walk {
    reader *r;
    int     index; /* of the main graph's node */
    size_t  cap;   /* of its captures */
    int     depth;
    bool    changed; /* the subgraph that was walked last has new bytes */
} walk;

static rung_status walk_attrs(walk *w, node_proto *p, const scope *outer, rung_error *err);

static rung_status take_value(walk *w, int id, rung_error *err)
{
    node *n = &w->r->g->nodes[w->index];
    if (w->r->stamps[id] == w->index + 1)
        return RUNG_OK;
    int *list = arena_grow(w->r->g->mem, n->captures, &w->cap, (size_t)n->n_captures + 1,
                           sizeof *list);
    if (!list)
        return fail_memory(err, "the captures of a subgraph", (size_t)n->n_captures * sizeof *list);
    w->r->stamps[id] = w->index + 1;
    n->captures = list;
    n->captures[n->n_captures++] = id;
    return RUNG_OK;
}

/* A name that a subgraph uses: its own, one of a subgraph around it, or the main graph's. */
static rung_status use_name(walk *w, const char *name, const scope *s, rung_error *err)
{
    if (!*name)
        return RUNG_OK;
    for (; s; s = s->outer)
        if (strmap_get(s->names, name, 0))
            return RUNG_OK;
    const int id = strmap_get(w->r->g->by_name, name, -1);
    return id < 0 ? RUNG_OK : take_value(w, id, err);
}

static bool define(strmap *names, const char *name)
{
    return !name || !*name || strmap_set(names, name, 1);
}

static bool define_all(const graph_proto *p, arena *mem, strmap *names)
{
    bool good = true;
    for (size_t i = 0; good && i < p->n_input; i++)
        good = define(names, p->input[i]->name);
    for (size_t i = 0; good && i < p->n_initializer; i++)
        good = define(names, p->initializer[i]->name);
    for (size_t i = 0; good && i < p->n_sparse_initializer; i++) {
        rung_status st;
        const sparse_proto *s =
            proto_unpack(SPARSE_PROTO, proto_bytes(p->sparse_initializer[i]), mem, &st, NULL);
        good = st != RUNG_EMEMORY && (!s || !s->values || define(names, s->values->name));
    }
    for (size_t i = 0; good && i < p->n_node; i++)
        for (size_t k = 0; good && k < p->node[i]->n_output; k++)
            good = define(names, p->node[i]->output[k]);
    return good;
}

/* External data of a subgraph's tensor becomes raw_data. */
static rung_status take_in(walk *w, tensor_proto *p, rung_error *err)
{
    const tensor *t;
    if (!p || p->data_location != TENSOR_EXTERNAL)
        return RUNG_OK;
    const rung_status st = tensor_read(w->r, p, proto_text(p->name), &t, err);
    if (st != RUNG_OK)
        return st;
    if (!tensor_build(t, w->r->g->mem, p))
        return fail_memory(err, proto_text(p->name), 0);
    p->n_external_data = 0;
    p->has_data_location = false;
    w->changed = true;
    return RUNG_OK;
}

static rung_status walk_nodes(walk *w, const graph_proto *p, const scope *s, rung_error *err)
{
    rung_status st = RUNG_OK;
    for (size_t i = 0; st == RUNG_OK && i < p->n_initializer; i++)
        st = take_in(w, p->initializer[i], err);
    for (size_t i = 0; st == RUNG_OK && i < p->n_node; i++) {
        for (size_t k = 0; st == RUNG_OK && k < p->node[i]->n_input; k++)
            st = use_name(w, p->node[i]->input[k], s, err);
        if (st == RUNG_OK)
            st = walk_attrs(w, p->node[i], s, err);
    }
    for (size_t i = 0; st == RUNG_OK && i < p->n_output; i++)
        st = use_name(w, proto_text(p->output[i]->name), s, err);
    return st;
}

static rung_status walk_graph(walk *w, ProtobufCBinaryData *b, const scope *outer, rung_error *err)
{
    const bool changed_before = w->changed;
    arena *mem = NULL;
    scope s = { NULL, outer };
    bytes changed;
    rung_status st = RUNG_OK;
    if (w->depth == DEEPEST)
        return fail(err, RUNG_EFORMAT, "subgraphs are nested deeper than %d", DEEPEST);
    w->depth++;
    w->changed = false;
    if (!(mem = arena_new()) || !(s.names = strmap_new())) {
        st = fail_memory(err, "a subgraph", b->len);
        goto done;
    }
    const graph_proto *p = proto_unpack(GRAPH_PROTO, proto_bytes(*b), mem, &st, err);
    if (st == RUNG_OK && !define_all(p, mem, s.names))
        st = fail_memory(err, "the names of a subgraph", b->len);
    if (st == RUNG_OK)
        st = walk_nodes(w, p, &s, err);
    if (st == RUNG_OK && w->changed)
        st = proto_keep(p, w->r->g->mem, &changed, err);
    if (st == RUNG_OK && w->changed)
        *b = proto_binary(changed);
done:
    w->depth--;
    w->changed |= changed_before;
    strmap_free(s.names);
    arena_free(mem);
    return st;
}

static rung_status walk_attrs(walk *w, node_proto *p, const scope *outer, rung_error *err)
{
    rung_status st = RUNG_OK;
    for (size_t i = 0; st == RUNG_OK && i < p->n_attribute; i++) {
        attr_proto *a = p->attribute[i];
        if (w->depth > 0)
            st = take_in(w, a->t, err);
        if (st == RUNG_OK && a->has_g)
            st = walk_graph(w, &a->g, outer, err);
        for (size_t k = 0; st == RUNG_OK && k < a->n_graphs; k++)
            st = walk_graph(w, &a->graphs[k], outer, err);
        if (st != RUNG_OK && w->depth == 0) /* the outermost, where a person begins to look */
            return fail_at(err, st, "attribute '%s'", proto_text(a->name));
    }
    return st;
}

rung_status captures_read(reader *r, node_proto *p, int index, rung_error *err)
{
    walk w = { r, index, 0, 0, false };
    return walk_attrs(&w, p, NULL, err);
}
