/* A tool for tests/model: evaluates a model without inputs (all are constants) node by node through
 * the operators' plain eval.
 *
 *     graph_eval MODEL.onnx OUT_DIR
 *
 * writes output i to OUT_DIR/i.npy; one of a type that .npy has not as uint8, its bytes. Exit
 * status: 0, 2 where something is not supported, else 1; the sentence on standard error. */
#include <stdio.h>
#include <string.h>

#include "data/npy.h"
#include "graph/pass.h"
#include "onnx/onnx.h"

/* What is known of n's outputs; all that are there need it. */
static rung_status known_outputs(const graph *g, const node *n, const value_info *info,
                                 value_info *known, rung_error *err)
{
    char label[NODE_LABEL_SIZE];
    for (int i = 0; i < n->n_outputs; i++) {
        known[i].rank = -1;
        if (n->outputs[i] < 0)
            continue;
        known[i] = info[n->outputs[i]];
        if (known[i].rank < 0 || dims_count(known[i].rank, known[i].dims) == SIZE_MAX)
            return fail(err, RUNG_EUNSUPPORTED, "%s: the shape is not known",
                        node_label(g, n, label, sizeof label));
    }
    return RUNG_OK;
}

static rung_status run_node(const graph *g, const node *n, const value_info *info,
                            const tensor **content, arena *mem, rung_error *err)
{
    const tensor **in = arena_zero(mem, (size_t)n->n_inputs + 1, sizeof *in);
    tensor **out = arena_zero(mem, (size_t)n->n_outputs + 1, sizeof *out);
    value_info *known = arena_zero(mem, (size_t)n->n_outputs + 1, sizeof *known);
    char label[NODE_LABEL_SIZE];
    if (!in || !out || !known)
        return fail_memory(err, "operands", sizeof *in);
    if (!n->op || !n->op->eval)
        return fail(err, RUNG_EUNSUPPORTED, "%s: no evaluation",
                    node_label(g, n, label, sizeof label));
    for (int i = 0; i < n->n_inputs; i++)
        in[i] = n->inputs[i] < 0 ? NULL : content[n->inputs[i]];
    rung_status st = known_outputs(g, n, info, known, err);
    if (st == RUNG_OK)
        st = node_eval(g, n, in, known, mem, out, err);
    for (int i = 0; st == RUNG_OK && i < n->n_outputs; i++) {
        if (n->outputs[i] >= 0)
            content[n->outputs[i]] = out[i];
    }
    return st;
}

static rung_status write_output(const char *folder, int i, const tensor *t, rung_error *err)
{
    const unsigned plain = 1u << RUNG_F32 | 1u << RUNG_F64 | 1u << RUNG_F16 | 1u << RUNG_BOOL |
                           1u << RUNG_U8 | 1u << RUNG_I8 | 1u << RUNG_U16 | 1u << RUNG_I16 |
                           1u << RUNG_U32 | 1u << RUNG_I32 | 1u << RUNG_U64 | 1u << RUNG_I64;
    char path[4096];
    snprintf(path, sizeof path, "%s/%d.npy", folder, i);
    if (plain & 1u << t->type)
        return npy_write_file(path, t, err);
    tensor raw = {.type = RUNG_U8, .rank = 1, .data = t->data};
    raw.dims[0] = (int64_t)dtype_bytes(t->type, tensor_count(t));
    return npy_write_file(path, &raw, err);
}

static rung_status run_graph(graph *g, const char *folder, arena *mem, rung_error *err)
{
    value_info *info = arena_zero(mem, g->n_values, sizeof *info);
    const tensor **content = arena_zero(mem, g->n_values, sizeof *content);
    if (!info || !content)
        return fail_memory(err, "values", g->n_values * sizeof *info);
    if (g->n_inputs > 0)
        return fail(err, RUNG_EARGUMENT, "the model has inputs");
    rung_status st = graph_infer(g, NULL, mem, info, err);
    for (size_t i = 0; i < g->n_values; i++)
        content[i] = g->values[i].constant;
    for (size_t i = 0; st == RUNG_OK && i < g->n_nodes; i++)
        st = run_node(g, &g->nodes[i], info, content, mem, err);
    for (int i = 0; st == RUNG_OK && i < g->n_outputs; i++) {
        if (content[g->outputs[i]])
            st = write_output(folder, i, content[g->outputs[i]], err);
    }
    return st;
}

int main(int argc, char **argv)
{
    graph *g = NULL;
    rung_error err = {""};
    if (argc != 3) {
        fprintf(stderr, "usage: graph_eval MODEL.onnx OUT_DIR\n");
        return 1;
    }
    arena *mem = arena_new();
    rung_status st = mem ? onnx_read_file(argv[1], &g, &err) : fail_memory(&err, "values", 0);
    if (st == RUNG_OK)
        st = run_graph(g, argv[2], mem, &err);
    if (st != RUNG_OK)
        fprintf(stderr, "%s\n", err.message);
    graph_free(g);
    arena_free(mem);
    return st == RUNG_OK ? 0 : st == RUNG_EUNSUPPORTED ? 2 : 1;
}
