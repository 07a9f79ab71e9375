/* What a model is. */
#include "report/report.h"

#include <string.h>

#include <cjson/cJSON.h>

#include "base/mem.h"
#include "base/strmap.h"
#include "graph/pass.h"
#include "graph/rewrite.h"
#include "report/diagnose.h"
#include "report/text.h"

typedef struct op_count {
    const char *op_type;
    int n;
} op_count;

typedef struct inspection {
    const graph *g;
    op_count *ops;
    size_t n_ops, n_nodes;
    int pairs[4]; /* QuantizeLinear of activations, by pair_types */
    size_t parameters, bytes;
    engine *e; /* NULL: it cannot be planned, why_not says the reason */
    rung_error why_not;
    diagnostics *remarks;
} inspection;

static rung_status count_ops(inspection *in, rung_error *err)
{
    const graph *g = in->g;
    strmap *seen = strmap_new();
    in->ops = mem_zero(g->n_nodes + 1, sizeof *in->ops);
    rung_status st = seen && in->ops ? RUNG_OK : fail_memory(err, "operator counts", g->n_nodes);
    for (size_t i = 0; i < g->n_nodes && st == RUNG_OK; i++) {
        const int at = strmap_get(seen, g->nodes[i].op_type, -1);
        if (at >= 0) {
            in->ops[at].n++;
            continue;
        }
        if (!strmap_set(seen, g->nodes[i].op_type, (int)in->n_ops))
            st = fail_memory(err, "operator counts", g->n_nodes);
        in->ops[in->n_ops++] = (op_count){g->nodes[i].op_type, 1};
    }
    in->n_nodes = g->n_nodes;
    strmap_free(seen);
    return st;
}

static const dtype pair_types[4] = {RUNG_U8, RUNG_I8, RUNG_U16, RUNG_I16};

static void count_pairs(inspection *in)
{
    const graph *g = in->g;
    for (size_t i = 0; i < g->n_nodes; i++) {
        const node *n = &g->nodes[i];
        if (!node_is(n, "QuantizeLinear") || node_constant(g, n, 0))
            continue;
        const tensor *zero = node_constant(g, n, 2);
        const dtype type = zero ? zero->type : RUNG_U8;
        for (int k = 0; k < 4; k++)
            in->pairs[k] += type == pair_types[k];
    }
}

/* Constants of float type, or of integer type that go through a DequantizeLinear, are parameters;
 * the shapes and axes of other nodes are not. All constants count as bytes. */
static rung_status count_parameters(inspection *in, rung_error *err)
{
    const graph *g = in->g;
    bool *is_quantized = mem_zero(g->n_values + 1, sizeof *is_quantized);
    if (!is_quantized)
        return fail_memory(err, "parameter counts", g->n_values);
    for (size_t i = 0; i < g->n_nodes; i++)
        if (strcmp(g->nodes[i].op_type, "DequantizeLinear") == 0 && g->nodes[i].n_inputs > 0 &&
            g->nodes[i].inputs[0] >= 0)
            is_quantized[g->nodes[i].inputs[0]] = true;
    for (size_t v = 0; v < g->n_values; v++) {
        const tensor *t = g->values[v].constant;
        if (!t)
            continue;
        in->bytes += dtype_bytes(t->type, tensor_count(t));
        if (dtype_is_float(t->type) || is_quantized[v])
            in->parameters += tensor_count(t);
    }
    mem_free(is_quantized);
    return RUNG_OK;
}

/* Unknown dims are taken as 1, or 224 for height and width: which steps are integer does not depend
 * on them. */
static void plan_model(inspection *in)
{
    const graph *g = in->g;
    const size_t n = (size_t)g->n_inputs + 1;
    const int64_t **dims = mem_zero(n, sizeof *dims);
    int64_t(*store)[RUNG_MAX_RANK] = mem_zero(n, sizeof *store);
    if (!dims || !store) {
        fail_memory(&in->why_not, "input shapes", n * sizeof *store);
        goto done;
    }
    for (int i = 0; i < g->n_inputs; i++) {
        const value *v = &g->values[g->inputs[i]];
        for (int d = 0; d < v->rank; d++)
            store[i][d] = v->dims[d] != DIM_UNKNOWN ? v->dims[d] : v->rank == 4 && d > 1 ? 224 : 1;
        dims[i] = v->rank >= 0 ? store[i] : NULL;
    }
    const engine_options opt = {.n_threads = 1, .input_dims = dims};
    engine_create(g, &opt, &in->e, &in->why_not);
done:
    mem_free(dims);
    mem_free(store);
}

static double int_macs_share(const inspection *in)
{
    const int64_t all = in->e ? engine_macs(in->e) : 0;
    return all ? (double)engine_int_macs(in->e) / (double)all : 0;
}

static void add_dims_text(text *t, const value *v)
{
    text_add(t, "%s [", dtype_name(v->type));
    for (int d = 0; d < v->rank; d++) {
        text_add(t, d ? ", " : "");
        if (v->dims[d] != DIM_UNKNOWN)
            text_add(t, "%lld", (long long)v->dims[d]);
        else
            text_add(t, "%s", v->symbols[d] ? v->symbols[d] : "?");
    }
    text_add(t, v->rank < 0 ? "any]" : "]");
}

static void add_values_text(text *t, const char *title, const graph *g, const int *ids, int n)
{
    for (int i = 0; i < n; i++) {
        text_add(t, "%-14s%s ", i ? "" : title, g->values[ids[i]].name);
        add_dims_text(t, &g->values[ids[i]]);
        text_add(t, "\n");
    }
}

static void add_remarks_text(text *t, const diagnostics *d)
{
    for (size_t i = 0; i < d->n; i++)
        text_add(t, "%-14s%s: %s: %s\n", i ? "" : "diagnostics", d->list[i].code, d->list[i].where,
                 d->list[i].message);
}

static void add_pairs_text(text *t, const inspection *in)
{
    bool any = false;
    for (int k = 0; k < 4; k++) {
        if (!in->pairs[k])
            continue;
        if (any)
            text_add(t, ", %d %s", in->pairs[k], dtype_name(pair_types[k]));
        else
            text_add(t, "%-14s%d %s", "activations", in->pairs[k], dtype_name(pair_types[k]));
        any = true;
    }
    if (any)
        text_add(t, "\n");
}

static rung_status inspect_text(const inspection *in, char **out, rung_error *err)
{
    const graph *g = in->g;
    text t = {0};
    text_add(&t, "%-14s%s, opset %lld\n", "graph", g->name, (long long)graph_opset(g, ""));
    add_values_text(&t, "inputs", g, g->inputs, g->n_inputs);
    add_values_text(&t, "outputs", g, g->outputs, g->n_outputs);
    text_add(&t, "%-14s%zu\n", "nodes", in->n_nodes);
    for (size_t i = 0; i < in->n_ops; i++)
        text_add(&t, "%-14s%4d %s\n", i ? "" : "operators", in->ops[i].n, in->ops[i].op_type);
    add_pairs_text(&t, in);
    text_add(&t, "%-14s%zu (%.2f MB)\n", "parameters", in->parameters, (double)in->bytes / 1e6);
    for (int i = 0; i < g->n_metadata; i++)
        text_add(&t, "%-14s%s = %s\n", i ? "" : "metadata", g->metadata[i].key,
                 g->metadata[i].value);
    if (!in->e) {
        text_add(&t, "%-14scannot be executed: %s\n", "plan", in->why_not.message);
        add_remarks_text(&t, in->remarks);
        return text_take(&t, out, err);
    }
    text_add(&t, "%-14s%.1f M multiply-accumulates, %.1f %% of them in integers\n", "work",
             (double)engine_macs(in->e) / 1e6, 100 * int_macs_share(in));
    const float_island *islands = engine_islands(in->e);
    for (size_t i = 0; i < engine_n_islands(in->e); i++)
        text_add(&t, "%-14s%s: %s\n", i ? "" : "float islands", islands[i].node, islands[i].reason);
    add_remarks_text(&t, in->remarks);
    return text_take(&t, out, err);
}

/* --- JSON ------------------------------------------------------------------------------------ */
static void add_values_json(cJSON *to, const char *key, const graph *g, const int *ids, int n)
{
    cJSON *list = cJSON_AddArrayToObject(to, key);
    for (int i = 0; i < n; i++) {
        const value *v = &g->values[ids[i]];
        cJSON *o = cJSON_CreateObject();
        cJSON_AddStringToObject(o, "name", v->name);
        cJSON_AddStringToObject(o, "type", dtype_name(v->type));
        cJSON *dims = cJSON_AddArrayToObject(o, "dims");
        for (int d = 0; d < v->rank; d++)
            cJSON_AddItemToArray(dims,
                                 v->dims[d] != DIM_UNKNOWN
                                     ? cJSON_CreateNumber((double)v->dims[d])
                                     : cJSON_CreateString(v->symbols[d] ? v->symbols[d] : ""));
        cJSON_AddItemToArray(list, o);
    }
}

static void add_remark_json(cJSON *to, const char *code, const char *where, const char *message)
{
    cJSON *item = cJSON_CreateObject();
    cJSON_AddStringToObject(item, "code", code);
    cJSON_AddStringToObject(item, "where", where);
    cJSON_AddStringToObject(item, "message", message);
    cJSON_AddItemToArray(to, item);
}

static void add_plan_json(cJSON *o, const inspection *in)
{
    cJSON_AddNumberToObject(o, "macs", in->e ? (double)engine_macs(in->e) : 0);
    cJSON_AddNumberToObject(o, "int_macs_share", int_macs_share(in));
    cJSON *islands = cJSON_AddArrayToObject(o, "float_islands");
    for (size_t i = 0; in->e && i < engine_n_islands(in->e); i++) {
        const float_island f = engine_islands(in->e)[i];
        cJSON *item = cJSON_CreateObject();
        cJSON_AddStringToObject(item, "node", f.node);
        cJSON_AddStringToObject(item, "op", f.op_type);
        cJSON_AddStringToObject(item, "reason", f.reason);
        cJSON_AddItemToArray(islands, item);
    }
    cJSON *remarks = cJSON_AddArrayToObject(o, "diagnostics");
    if (!in->e)
        add_remark_json(remarks, "not-executable", "model", in->why_not.message);
    for (size_t i = 0; i < in->remarks->n; i++)
        add_remark_json(remarks, in->remarks->list[i].code, in->remarks->list[i].where,
                        in->remarks->list[i].message);
}

static rung_status inspect_json(const inspection *in, char **out, rung_error *err)
{
    const graph *g = in->g;
    cJSON *o = cJSON_CreateObject();
    text t = {0};
    cJSON_AddStringToObject(o, "graph", g->name);
    cJSON_AddNumberToObject(o, "opset", (double)graph_opset(g, ""));
    add_values_json(o, "inputs", g, g->inputs, g->n_inputs);
    add_values_json(o, "outputs", g, g->outputs, g->n_outputs);
    cJSON_AddNumberToObject(o, "nodes", (double)in->n_nodes);
    cJSON *ops = cJSON_AddObjectToObject(o, "ops");
    for (size_t i = 0; i < in->n_ops; i++)
        cJSON_AddNumberToObject(ops, in->ops[i].op_type, in->ops[i].n);
    cJSON *pairs = cJSON_AddObjectToObject(o, "activations");
    for (int k = 0; k < 4; k++)
        if (in->pairs[k])
            cJSON_AddNumberToObject(pairs, dtype_name(pair_types[k]), in->pairs[k]);
    cJSON_AddNumberToObject(o, "parameters", (double)in->parameters);
    cJSON_AddNumberToObject(o, "bytes", (double)in->bytes);
    cJSON *metadata_json = cJSON_AddObjectToObject(o, "metadata");
    for (int i = 0; i < g->n_metadata; i++)
        cJSON_AddStringToObject(metadata_json, g->metadata[i].key, g->metadata[i].value);
    add_plan_json(o, in);
    char *printed = cJSON_PrintUnformatted(o);
    text_add(&t, "%s\n", printed ? printed : "");
    t.failed = t.failed || !printed;
    cJSON_free(printed);
    cJSON_Delete(o);
    return text_take(&t, out, err);
}

rung_status report_inspect(const graph *g, bool json, char **out, rung_error *err)
{
    inspection in = {.g = g, .remarks = diagnostics_new()};
    rung_status st = in.remarks ? diagnose_model(g, in.remarks, err)
                                : fail_memory(err, "diagnostics", sizeof *in.remarks);
    if (st == RUNG_OK)
        st = count_ops(&in, err);
    count_pairs(&in);
    if (st == RUNG_OK)
        st = count_parameters(&in, err);
    if (st == RUNG_OK) {
        plan_model(&in);
        st = json ? inspect_json(&in, out, err) : inspect_text(&in, out, err);
    }
    engine_free(in.e);
    diagnostics_free(in.remarks);
    mem_free(in.ops);
    return st;
}
