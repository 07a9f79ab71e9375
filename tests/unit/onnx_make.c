#include "onnx_make.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

static void *need(void *p)
{
    if (!p) {
        fprintf(stderr, "the test is out of memory\n");
        exit(2);
    }
    return p;
}

static void *new_message(arena *mem, const descriptor *d)
{
    return need(proto_new(d, mem));
}

/* A list one longer, the new item at its end. */
static void *append(arena *mem, void *list, size_t n, void *item)
{
    void **longer = need(arena_zero(mem, n + 1, sizeof *longer));
    if (n)
        memcpy(longer, list, n * sizeof *longer);
    longer[n] = item;
    return longer;
}

model_proto *make_model(arena *mem)
{
    model_proto *m = new_message(mem, MODEL_PROTO);
    opset_proto *o = new_message(mem, OPSET_PROTO);
    m->has_ir_version = true;
    m->ir_version = 8;
    o->domain = (char *)"";
    o->has_version = true;
    o->version = 13;
    m->opset_import = append(mem, NULL, 0, o);
    m->n_opset_import = 1;
    m->graph = new_message(mem, GRAPH_PROTO);
    m->graph->name = (char *)"g";
    return m;
}

static char **split(arena *mem, const char *names, size_t *n)
{
    char **list = NULL;
    *n = 0;
    while (*names) {
        const size_t length = strcspn(names, ",");
        list = append(mem, list, (*n)++, need(arena_strndup(mem, names, length)));
        names += length + (names[length] == ',');
    }
    return list;
}

node_proto *make_node(arena *mem, graph_proto *g, const char *op, const char *in, const char *out)
{
    node_proto *n = new_message(mem, NODE_PROTO);
    n->op_type = (char *)op;
    n->input = split(mem, in, &n->n_input);
    n->output = split(mem, out, &n->n_output);
    g->node = append(mem, g->node, g->n_node++, n);
    return n;
}

static value_proto *make_value(arena *mem, const char *name, dtype type)
{
    value_proto *v = new_message(mem, VALUE_PROTO);
    v->name = (char *)name;
    v->type = new_message(mem, TYPE_PROTO);
    v->type->tensor_type = new_message(mem, TENSOR_TYPE_PROTO);
    v->type->tensor_type->has_elem_type = true;
    v->type->tensor_type->elem_type = (int32_t)type;
    return v;
}

value_proto *make_input(arena *mem, graph_proto *g, const char *name, dtype type)
{
    value_proto *v = make_value(mem, name, type);
    g->input = append(mem, g->input, g->n_input++, v);
    return v;
}

value_proto *make_output(arena *mem, graph_proto *g, const char *name, dtype type)
{
    value_proto *v = make_value(mem, name, type);
    g->output = append(mem, g->output, g->n_output++, v);
    return v;
}

value_proto *make_info(arena *mem, graph_proto *g, const char *name, dtype type)
{
    value_proto *v = make_value(mem, name, type);
    g->value_info = append(mem, g->value_info, g->n_value_info++, v);
    return v;
}

tensor_proto *make_tensor(arena *mem, graph_proto *g, const char *name, dtype type, int rank,
                          const int64_t *dims)
{
    tensor_proto *t = new_message(mem, TENSOR_PROTO);
    t->name = (char *)name;
    t->has_data_type = true;
    t->data_type = (int32_t)type;
    t->n_dims = (size_t)rank;
    t->dims = need(arena_copy(mem, dims, (size_t)rank * sizeof *dims));
    g->initializer = append(mem, g->initializer, g->n_initializer++, t);
    return t;
}

attr_proto *make_attr(arena *mem, node_proto *n, const char *name, attr_kind kind)
{
    attr_proto *a = new_message(mem, ATTR_PROTO);
    a->name = (char *)name;
    a->has_type = true;
    a->type = (int32_t)kind;
    n->attribute = append(mem, n->attribute, n->n_attribute++, a);
    return a;
}

void make_raw(arena *mem, tensor_proto *t, const void *data, size_t size)
{
    t->has_raw_data = true;
    t->raw_data = proto_binary((bytes){ need(arena_copy(mem, data, size)), size });
}

/* --- a model with something of everything ----------------------------------------------------- */

static void add_attributes(arena *mem, node_proto *n)
{
    static const float floats[] = { 0.5f, -1 };
    static const int64_t ints[] = { 1, -2, 300 };
    attr_proto *a = make_attr(mem, n, "f", ATTR_FLOAT);
    a->has_f = true;
    a->f = 2.5f;
    a = make_attr(mem, n, "i", ATTR_INT);
    a->has_i = true;
    a->i = -3;
    a = make_attr(mem, n, "s", ATTR_STRING);
    a->has_s = true;
    a->s = proto_binary((bytes){ (const unsigned char *)"text", 4 });
    a = make_attr(mem, n, "floats", ATTR_FLOATS);
    a->n_floats = 2;
    a->floats = (float *)floats;
    a = make_attr(mem, n, "ints", ATTR_INTS);
    a->n_ints = 3;
    a->ints = (int64_t *)ints;
    a = make_attr(mem, n, "strings", ATTR_STRINGS);
    a->n_strings = 1;
    a->strings = need(arena_zero(mem, 1, sizeof *a->strings));
    a->strings[0] = proto_binary((bytes){ (const unsigned char *)"one", 3 });
    a = make_attr(mem, n, "t", ATTR_TENSOR);
    a->t = new_message(mem, TENSOR_PROTO);
    a->t->name = (char *)"named";
    a->t->has_data_type = true;
    a->t->data_type = RUNG_F32;
    make_raw(mem, a->t, floats, sizeof *floats);
}

static void add_branch(arena *mem, node_proto *n, const char *name, const char *in)
{
    graph_proto *g = new_message(mem, GRAPH_PROTO);
    g->name = (char *)name;
    make_node(mem, g, "Add", in, "inner");
    make_output(mem, g, "inner", RUNG_F32);
    attr_proto *a = make_attr(mem, n, name, ATTR_GRAPH);
    a->has_g = true;
    a->g = proto_binary(proto_pack(g, mem));
    need(a->g.data);
}

static void add_tensors(arena *mem, graph_proto *g)
{
    static const float w[] = { 1, 2, 3, 4, 5, 6 };
    static const int32_t small[] = { -1, 2, 3 };
    static const int64_t two_three[] = { 2, 3 }, three[] = { 3 };
    make_raw(mem, make_tensor(mem, g, "w", RUNG_F32, 2, two_three), w, sizeof w);
    tensor_proto *t = make_tensor(mem, g, "typed", RUNG_I8, 1, three);
    t->n_int32_data = 3;
    t->int32_data = (int32_t *)small;
    t = make_tensor(mem, g, "listed", RUNG_F32, 2, two_three);
    t->n_float_data = 6;
    t->float_data = (float *)w;
    make_input(mem, g, "listed", RUNG_F32);
    t = make_tensor(mem, g, "words", RUNG_STRING, 0, NULL);
    t->n_string_data = 1;
    t->string_data = need(arena_zero(mem, 1, sizeof *t->string_data));
    t->string_data[0] = proto_binary((bytes){ (const unsigned char *)"word", 4 });
}

static void add_shape(arena *mem, value_proto *v)
{
    dim_proto *batch = new_message(mem, DIM_PROTO), *three = new_message(mem, DIM_PROTO);
    shape_proto *s = new_message(mem, SHAPE_PROTO);
    batch->dim_param = (char *)"batch";
    three->has_dim_value = true;
    three->dim_value = 3;
    s->dim = append(mem, NULL, 0, batch);
    s->dim = append(mem, s->dim, 1, three);
    s->n_dim = 2;
    v->type->tensor_type->shape = s;
}

bytes make_rich_model(arena *mem)
{
    /* doc_string: field 10 of a graph and 6 of a node, unknown to our schema */
    static const unsigned char graph_doc[] = { 0x52, 3, 'd', 'o', 'c' };
    static const unsigned char node_doc[] = { 0x32, 2, 'n', 'd' };
    model_proto *m = make_model(mem);
    graph_proto *g = m->graph;
    entry_proto *e = new_message(mem, ENTRY_PROTO);
    e->key = (char *)"key";
    e->value = (char *)"value";
    m->metadata_props = append(mem, NULL, 0, e);
    m->n_metadata_props = 1;
    add_shape(mem, make_input(mem, g, "x", RUNG_F32));
    make_input(mem, g, "c", RUNG_BOOL);
    add_tensors(mem, g);
    node_proto *n = make_node(mem, g, "If", "c", "y");
    add_branch(mem, n, "then_branch", "late,w");
    add_branch(mem, n, "else_branch", "x,listed");
    n = make_node(mem, g, "Strange", "x,,typed", ",late");
    n->domain = (char *)"org.example";
    n->name = (char *)"strange";
    add_attributes(mem, n);
    add_shape(mem, make_info(mem, g, "late", RUNG_F32));
    add_shape(mem, make_output(mem, g, "y", RUNG_F32));
    node_proto *documented = need(proto_restore(NODE_PROTO, (bytes){ node_doc, 4 }, mem));
    n->base.n_unknown_fields = documented->base.n_unknown_fields;
    n->base.unknown_fields = documented->base.unknown_fields;
    graph_proto *doc = need(proto_restore(GRAPH_PROTO, (bytes){ graph_doc, 5 }, mem));
    g->base.n_unknown_fields = doc->base.n_unknown_fields;
    g->base.unknown_fields = doc->base.unknown_fields;
    const bytes b = proto_pack(m, mem);
    need((void *)b.data);
    return b;
}

/* --- reading and the round trip --------------------------------------------------------------- */

rung_status read_model_proto(const model_proto *m, arena *mem, graph **out, rung_error *err)
{
    const bytes b = proto_pack(m, mem);
    return onnx_read(b.data, b.size, NULL, out, err);
}

static const char *compare_second(const graph *g, const unsigned char *first, size_t size,
                                  rung_error *err)
{
    graph *again = NULL;
    unsigned char *second = NULL;
    size_t second_size;
    const char *broken = NULL;
    if (onnx_read(first, size, NULL, &again, err) != RUNG_OK)
        broken = "what was written is not read";
    else if (onnx_write(again, &second, &second_size, err) != RUNG_OK)
        broken = "it is written only once";
    else if (size != second_size || memcmp(first, second, size))
        broken = "the second file differs from the first";
    else if (g->n_nodes != again->n_nodes || g->n_inputs != again->n_inputs)
        broken = "the second graph differs from the first";
    mem_free(second);
    graph_free(again);
    return broken;
}

const char *what_breaks(const graph *g, rung_error *err)
{
    graph *clone = NULL;
    unsigned char *first = NULL, *cloned = NULL;
    size_t size, cloned_size;
    const char *broken = NULL;
    err->message[0] = '\0';
    if (graph_verify(g, err) != RUNG_OK)
        return "the graph is not valid";
    if (onnx_write(g, &first, &size, err) != RUNG_OK)
        return "it is not written";
    if (graph_clone(g, &clone, err) != RUNG_OK ||
        onnx_write(clone, &cloned, &cloned_size, err) != RUNG_OK)
        broken = "its clone is not written";
    else if (size != cloned_size || memcmp(first, cloned, size))
        broken = "its clone is written otherwise";
    else
        broken = compare_second(g, first, size, err);
    mem_free(first);
    mem_free(cloned);
    graph_free(clone);
    return broken;
}
