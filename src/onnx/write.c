/* graph -> ModelProto. Messages are built in an arena and point to the graph's tensors. */
#include "onnx/parts.h"

#include <stdio.h>

enum {
    IR_OF_CONSTANTS = 4, /* from here on an initializer need not be a graph input too */
    EXTERNAL_FROM = 1024,
    EXTERNAL_ALIGN = 64,
};

/* --- initializers ----------------------------------------------------------------------------- */

static bool add_entry(arena *mem, entry_proto **to, const char *key, const char *text)
{
    *to = proto_new(ENTRY_PROTO, mem);
    if (!*to || !text)
        return false;
    (*to)->key = (char *)key;
    (*to)->value = (char *)text;
    return true;
}

/* p's raw_data goes to the external file. */
static bool move_out(const tensor *t, arena *mem, external_plan *plan, tensor_proto *p)
{
    const external_part *last = plan->n ? &plan->parts[plan->n - 1] : NULL;
    const uint64_t end = last ? last->offset + last->size : 0;
    const external_part part = {
        t, (end + EXTERNAL_ALIGN - 1) / EXTERNAL_ALIGN * EXTERNAL_ALIGN, p->raw_data.len
    };
    plan->parts[plan->n++] = part;
    p->has_raw_data = false;
    p->has_data_location = true;
    p->data_location = TENSOR_EXTERNAL;
    p->n_external_data = 3;
    p->external_data = arena_zero(mem, 3, sizeof *p->external_data);
    return p->external_data && add_entry(mem, &p->external_data[0], "location", plan->location) &&
           add_entry(mem, &p->external_data[1], "offset",
                     arena_printf(mem, "%llu", (unsigned long long)part.offset)) &&
           add_entry(mem, &p->external_data[2], "length", arena_printf(mem, "%zu", part.size));
}

static bool build_initializer(const value *v, arena *mem, external_plan *plan, tensor_proto *p)
{
    p->name = (char *)v->name;
    if (!tensor_build(v->constant, mem, p))
        return false;
    return !plan || p->raw_data.len <= EXTERNAL_FROM || move_out(v->constant, mem, plan, p);
}

/* The initializers that p has are those with fields rung does not know: each is filled in where its
 * value is still constant, and dropped where not. */
static bool build_initializers(const graph *g, arena *mem, external_plan *plan, graph_proto *p)
{
    tensor_proto **known = arena_zero(mem, g->n_values, sizeof *known);
    tensor_proto **list = arena_zero(mem, g->n_values, sizeof *list);
    if (!known || !list)
        return false;
    for (size_t i = 0; i < p->n_initializer; i++) {
        const int id = strmap_get(g->by_name, proto_text(p->initializer[i]->name), -1);
        if (id >= 0)
            known[id] = p->initializer[i];
    }
    p->initializer = list;
    p->n_initializer = 0;
    for (size_t v = 0; v < g->n_values; v++) {
        if (!g->values[v].constant)
            continue;
        tensor_proto *t = known[v] ? known[v] : proto_new(TENSOR_PROTO, mem);
        if (!t || !build_initializer(&g->values[v], mem, plan, t))
            return false;
        list[p->n_initializer++] = t;
    }
    return true;
}

/* --- graph ------------------------------------------------------------------------------------ */

static bool add_value(const value *v, arena *mem, value_proto **list, size_t *n)
{
    list[*n] = value_build(v, mem);
    return list[(*n)++] != NULL;
}

/* Inputs to be fed, then the initializers that are listed as inputs. */
static bool build_inputs(const graph *g, arena *mem, graph_proto *p)
{
    p->input = arena_zero(mem, g->n_values, sizeof *p->input);
    bool good = p->input != NULL;
    for (int i = 0; good && i < g->n_inputs; i++)
        good = add_value(&g->values[g->inputs[i]], mem, p->input, &p->n_input);
    for (size_t v = 0; good && v < g->n_values; v++)
        if (g->values[v].constant && g->values[v].listed_input)
            good = add_value(&g->values[v], mem, p->input, &p->n_input);
    return good;
}

static bool build_outputs(const graph *g, arena *mem, graph_proto *p)
{
    p->output = arena_zero(mem, (size_t)g->n_outputs, sizeof *p->output);
    bool good = p->output != NULL;
    for (int i = 0; good && i < g->n_outputs; i++)
        good = add_value(&g->values[g->outputs[i]], mem, p->output, &p->n_output);
    return good;
}

/* Declared of node n's outputs: what the file said, and what is known of values between nodes. */
static bool add_node_infos(const graph *g, const node *n, arena *mem, graph_proto *p)
{
    bool good = true;
    for (int k = 0; good && !n->dead && k < n->n_outputs; k++) {
        const value *v = n->outputs[k] < 0 ? NULL : &g->values[n->outputs[k]];
        if (v && (v->has_info || (v->type != RUNG_UNDEFINED && !v->is_output)))
            good = add_value(v, mem, p->value_info, &p->n_value_info);
    }
    return good;
}

/* Behind the entries that p has, those about names that are no values: inputs, constants, then what
 * nodes make, in the file's order. Value ids would do, but come in another order when the file is
 * read again. */
static bool build_value_infos(const graph *g, arena *mem, graph_proto *p)
{
    value_proto **others = p->value_info;
    const size_t n_others = p->n_value_info;
    p->value_info = arena_zero(mem, n_others + g->n_values, sizeof *p->value_info);
    p->n_value_info = 0;
    bool good = p->value_info != NULL;
    for (size_t i = 0; good && i < n_others; i++)
        if (strmap_get(g->by_name, proto_text(others[i]->name), -1) < 0)
            p->value_info[p->n_value_info++] = others[i];
    for (int i = 0; good && i < g->n_inputs; i++)
        if (g->values[g->inputs[i]].has_info)
            good = add_value(&g->values[g->inputs[i]], mem, p->value_info, &p->n_value_info);
    for (size_t v = 0; good && v < g->n_values; v++)
        if (g->values[v].constant && g->values[v].has_info)
            good = add_value(&g->values[v], mem, p->value_info, &p->n_value_info);
    for (size_t i = 0; good && i < g->n_nodes; i++)
        good = add_node_infos(g, &g->nodes[i], mem, p);
    return good;
}

static bool build_nodes(const graph *g, arena *mem, graph_proto *p)
{
    p->node = arena_zero(mem, g->n_nodes, sizeof *p->node);
    if (!p->node)
        return false;
    for (size_t i = 0; i < g->n_nodes; i++) {
        if (g->nodes[i].dead)
            continue;
        if (!(p->node[p->n_node] = node_build(g, &g->nodes[i], mem)))
            return false;
        p->n_node++;
    }
    return true;
}

static graph_proto *build_graph(const graph *g, arena *mem, external_plan *plan)
{
    graph_proto *p = proto_restore(GRAPH_PROTO, g->graph_extra, mem);
    if (!p)
        return NULL;
    p->name = (char *)(*g->name ? g->name : "rung"); /* ONNX wants one */
    const bool good = build_nodes(g, mem, p) && build_initializers(g, mem, plan, p) &&
                      build_inputs(g, mem, p) && build_outputs(g, mem, p) &&
                      build_value_infos(g, mem, p);
    return good ? p : NULL;
}

/* --- model ------------------------------------------------------------------------------------ */

static bool build_opsets(const graph *g, arena *mem, model_proto *p)
{
    p->opset_import = arena_zero(mem, (size_t)g->n_opsets, sizeof *p->opset_import);
    if (!p->opset_import)
        return false;
    for (int i = 0; i < g->n_opsets; i++) {
        opset_proto *o = p->opset_import[i] = proto_new(OPSET_PROTO, mem);
        if (!o)
            return false;
        o->domain = (char *)g->opsets[i].domain;
        o->has_version = true;
        o->version = g->opsets[i].version;
    }
    p->n_opset_import = (size_t)g->n_opsets;
    return true;
}

static bool build_metadata(const graph *g, arena *mem, model_proto *p)
{
    p->metadata_props = arena_zero(mem, (size_t)g->n_metadata, sizeof *p->metadata_props);
    if (!p->metadata_props)
        return false;
    for (int i = 0; i < g->n_metadata; i++)
        if (!add_entry(mem, &p->metadata_props[i], g->metadata[i].key, g->metadata[i].value))
            return false;
    p->n_metadata_props = (size_t)g->n_metadata;
    return true;
}

/* Up to ir_version 3 every initializer is a graph input: a graph with others is of a later one. */
static int64_t version_of(const graph *g)
{
    for (size_t v = 0; g->ir_version < IR_OF_CONSTANTS && v < g->n_values; v++)
        if (g->values[v].constant && !g->values[v].listed_input)
            return IR_OF_CONSTANTS;
    return g->ir_version;
}

model_proto *model_build(const graph *g, arena *mem, external_plan *plan)
{
    model_proto *p = proto_restore(MODEL_PROTO, g->model_extra, mem);
    if (!p)
        return NULL;
    if (plan) {
        plan->n = 0;
        plan->parts = arena_zero(mem, g->n_values, sizeof *plan->parts);
        if (!plan->parts)
            return NULL;
    }
    p->has_ir_version = true;
    p->ir_version = version_of(g);
    p->graph = build_graph(g, mem, plan);
    return p->graph && build_opsets(g, mem, p) && build_metadata(g, mem, p) ? p : NULL;
}
