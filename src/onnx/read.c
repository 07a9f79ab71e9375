/* ModelProto -> graph. The message is unpacked into the graph's own memory, so that names and
 * tensors are used where they lie. */
#include "onnx/onnx.h"

#include <string.h>

#include "base/file.h"
#include "onnx/parts.h"
#include "ops/ops.h"

enum { OLDEST_IR = 3, OLDEST_OPSET = 7 };

/* --- model ------------------------------------------------------------------------------------ */

static rung_status read_opsets(reader *r, const model_proto *p, rung_error *err)
{
    graph *g = r->g;
    g->opsets = arena_zero(g->mem, p->n_opset_import, sizeof *g->opsets);
    if (!g->opsets)
        return fail_memory(err, "the opset imports", p->n_opset_import * sizeof *g->opsets);
    for (size_t i = 0; i < p->n_opset_import; i++) {
        const char *domain = proto_text(p->opset_import[i]->domain);
        if (!strcmp(domain, "ai.onnx"))
            domain = "";
        g->opsets[i] = (opset){ domain, p->opset_import[i]->version };
    }
    g->n_opsets = (int)p->n_opset_import;
    return RUNG_OK;
}

static rung_status check_versions(const graph *g, const model_proto *p, rung_error *err)
{
    const long long ir = p->ir_version, version = graph_opset(g, "");
    if (!p->has_ir_version || !p->graph)
        return fail(err, RUNG_EFORMAT, "no ONNX model: it has no %s",
                    p->graph ? "ir_version" : "graph");
    if (ir < OLDEST_IR)
        return fail(err, RUNG_EUNSUPPORTED,
                    "ir_version %lld is older than %d: write the model anew with onnx 1.2 or later",
                    ir, OLDEST_IR);
    if (version <= 0)
        return fail(err, RUNG_EFORMAT, "the model imports no opset of ONNX's own operators");
    if (version < OLDEST_OPSET)
        return fail(err, RUNG_EUNSUPPORTED,
                    "opset %lld is older than %d: convert the model with onnx.version_converter",
                    version, OLDEST_OPSET);
    return RUNG_OK;
}

static rung_status read_metadata(reader *r, const model_proto *p, rung_error *err)
{
    graph *g = r->g;
    g->metadata = arena_zero(g->mem, p->n_metadata_props, sizeof *g->metadata);
    if (!g->metadata)
        return fail_memory(err, "the metadata", p->n_metadata_props * sizeof *g->metadata);
    for (size_t i = 0; i < p->n_metadata_props; i++) {
        const entry_proto *e = p->metadata_props[i];
        g->metadata[i] = (metadata){ proto_text(e->key), proto_text(e->value) };
    }
    g->n_metadata = (int)p->n_metadata_props;
    return RUNG_OK;
}

static rung_status keep_model_rest(reader *r, const model_proto *p, rung_error *err)
{
    model_proto rest = *p;
    rest.has_ir_version = false;
    rest.graph = NULL;
    rest.n_opset_import = rest.n_metadata_props = 0;
    return proto_keep(&rest, r->g->mem, &r->g->model_extra, err);
}

/* --- graph ------------------------------------------------------------------------------------ */

/* A value that the file declares; not there before. */
static rung_status new_value(reader *r, const char *name, const char *what, int *id,
                             rung_error *err)
{
    if (!name || !*name)
        return fail(err, RUNG_EFORMAT, "a graph %s has no name", what);
    if (strmap_get(r->g->by_name, name, -1) >= 0)
        return fail(err, RUNG_EMODEL, "two graph %ss have the name '%s'", what, name);
    *id = graph_add_value(r->g, name, RUNG_UNDEFINED, -1, NULL);
    return *id >= 0 ? RUNG_OK : fail_memory(err, name, sizeof(value));
}

static rung_status read_initializer(reader *r, const tensor_proto *p, rung_error *err)
{
    int id;
    const tensor *t;
    rung_status st = new_value(r, p->name, "initializer", &id, err);
    if (st == RUNG_OK)
        st = tensor_read(r, p, p->name, &t, err);
    if (st != RUNG_OK)
        return st;
    value *v = &r->g->values[id];
    v->constant = t;
    v->type = t->type;
    v->rank = t->rank;
    memcpy(v->dims, t->dims, sizeof v->dims);
    return RUNG_OK;
}

/* Inputs that are initializers too are constants with a default's standing: kept apart. */
static rung_status read_input(reader *r, value_proto *p, rung_error *err)
{
    graph *g = r->g;
    rung_status st = RUNG_OK;
    int id = p->name ? strmap_get(g->by_name, p->name, -1) : -1;
    if (id >= 0 && g->values[id].constant && !g->values[id].listed_input)
        g->values[id].listed_input = true;
    else if ((st = new_value(r, p->name, "input", &id, err)) == RUNG_OK) {
        g->values[id].is_input = true;
        g->inputs[g->n_inputs++] = id;
    }
    return st == RUNG_OK ? value_read(r, p, &g->values[id], err) : st;
}

static rung_status read_output(reader *r, value_proto *p, rung_error *err)
{
    graph *g = r->g;
    const int id = p->name ? strmap_get(g->by_name, p->name, -1) : -1;
    if (id < 0)
        return fail(err, RUNG_EMODEL, "graph output '%s' is made by no node", proto_text(p->name));
    value *v = &g->values[id];
    g->outputs[g->n_outputs++] = id;
    const bool declared = v->is_input || v->is_output || v->listed_input;
    v->is_output = true;
    return declared ? RUNG_OK : value_read(r, p, v, err);
}

/* Entries about names that are no values (of local functions) stay in the message. */
static rung_status read_value_infos(reader *r, graph_proto *p, rung_error *err)
{
    graph *g = r->g;
    size_t left = 0;
    rung_status st = RUNG_OK;
    for (size_t i = 0; st == RUNG_OK && i < p->n_value_info; i++) {
        value_proto *info = p->value_info[i];
        const int id = info->name ? strmap_get(g->by_name, info->name, -1) : -1;
        if (id < 0) {
            p->value_info[left++] = info;
            continue;
        }
        value *v = &g->values[id];
        const bool declared = v->is_input || v->is_output || v->listed_input || v->has_info;
        v->has_info = true;
        if (!declared)
            st = value_read(r, info, v, err);
    }
    p->n_value_info = left;
    return st;
}

/* What graph has no field for; an initializer with fields of that sort stays by name. */
static rung_status keep_graph_rest(reader *r, graph_proto *p, rung_error *err)
{
    size_t left = 0;
    for (size_t i = 0; i < p->n_initializer; i++) {
        if (!proto_has_unknown(p->initializer[i]))
            continue;
        tensor_proto *t = proto_new(TENSOR_PROTO, r->scratch);
        if (!t)
            return fail_memory(err, "a tensor's further fields", sizeof *t);
        t->name = p->initializer[i]->name;
        t->base.n_unknown_fields = p->initializer[i]->base.n_unknown_fields;
        t->base.unknown_fields = p->initializer[i]->base.unknown_fields;
        p->initializer[left++] = t;
    }
    p->n_initializer = left;
    p->n_node = p->n_input = p->n_output = p->n_sparse_initializer = 0;
    p->name = NULL;
    return proto_keep(p, r->g->mem, &r->g->graph_extra, err);
}

static rung_status read_lists(reader *r, graph_proto *p, rung_error *err)
{
    graph *g = r->g;
    rung_status st = RUNG_OK;
    g->inputs = arena_zero(g->mem, p->n_input, sizeof *g->inputs);
    g->outputs = arena_zero(g->mem, p->n_output, sizeof *g->outputs);
    if (!g->inputs || !g->outputs)
        return fail_memory(err, "the graph's inputs and outputs", p->n_input + p->n_output);
    for (size_t i = 0; st == RUNG_OK && i < p->n_initializer; i++)
        st = read_initializer(r, p->initializer[i], err);
    for (size_t i = 0; st == RUNG_OK && i < p->n_input; i++)
        st = read_input(r, p->input[i], err);
    if (st == RUNG_OK)
        st = nodes_read(r, p, err);
    for (size_t i = 0; st == RUNG_OK && i < p->n_output; i++)
        st = read_output(r, p->output[i], err);
    return st;
}

static rung_status read_graph(reader *r, graph_proto *p, rung_error *err)
{
    rung_status st = read_lists(r, p, err);
    r->g->name = proto_text(p->name);
    if (st == RUNG_OK)
        st = read_value_infos(r, p, err);
    if (st == RUNG_OK)
        st = keep_graph_rest(r, p, err);
    if (st == RUNG_OK)
        st = graph_sort(r->g, err);
    return st == RUNG_OK ? graph_verify(r->g, err) : st;
}

static rung_status read_model(reader *r, const void *data, size_t size, rung_error *err)
{
    rung_status st;
    if (size > INT32_MAX)
        return fail(err, RUNG_EFORMAT, "no ONNX model: larger than 2 GB, which protobuf cannot be");
    model_proto *p = proto_unpack(MODEL_PROTO, (bytes){ data, size }, r->g->mem, &st, err);
    if (st != RUNG_OK)
        return st;
    r->g->ir_version = p->ir_version;
    if ((st = read_opsets(r, p, err)) != RUNG_OK ||
        (st = check_versions(r->g, p, err)) != RUNG_OK ||
        (st = read_metadata(r, p, err)) != RUNG_OK ||
        (st = keep_model_rest(r, p, err)) != RUNG_OK)
        return st;
    return read_graph(r, p->graph, err);
}

/* --- entry ------------------------------------------------------------------------------------ */

rung_status onnx_read(const void *data, size_t size, const char *folder, graph **out,
                      rung_error *err)
{
    reader r = { .folder = folder };
    rung_status st;
    *out = NULL;
    if ((st = graph_create(op_find, &r.g, err)) != RUNG_OK)
        return st;
    if (!(r.scratch = arena_new()) || !(r.files = strmap_new())) {
        st = fail_memory(err, "reading a model", sizeof r);
        goto done;
    }
    if ((st = read_model(&r, data, size, err)) != RUNG_OK)
        goto done;
    *out = r.g;
    r.g = NULL;
done:
    strmap_free(r.files);
    arena_free(r.scratch);
    graph_free(r.g);
    return st;
}

rung_status onnx_read_file(const char *path, graph **out, rung_error *err)
{
    file_map map;
    const char *slash = strrchr(path, '/');
    const size_t length = slash ? (size_t)(slash - path) + 1 : 0;
    arena *mem = arena_new();
    char *folder = !mem ? NULL : slash ? arena_strndup(mem, path, length) : arena_strdup(mem, ".");
    rung_status st;
    *out = NULL;
    if (!folder) {
        st = fail_memory(err, path, length);
        goto done;
    }
    if ((st = file_map_open(path, &map, err)) != RUNG_OK)
        goto done;
    st = onnx_read(map.data, map.size, folder, out, err);
    file_map_close(&map);
    if (st != RUNG_OK)
        fail_at(err, st, "%s", path);
done:
    arena_free(mem);
    return st;
}
