/* A tool for tests/model: evaluates a model node by node through the operators' plain eval.
 *
 *     graph_eval MODEL.onnx OUT_DIR INPUT.npy ...
 *
 * Inputs stand in the model's order, "-" for one that is not given; output i is written to
 * OUT_DIR/i.npy. Their contents are known while shapes are inferred, so that shapes may hang on
 * them. Exit status: 0, 2 where something is not supported, else 1; the sentence on stderr. */
#include <stdio.h>
#include <string.h>

#include "data/npy.h"
#include "graph/pass.h"
#include "onnx/onnx.h"

static rung_status read_input(graph *g, int k, const char *path, arena *mem, rung_error *err)
{
    value *v = &g->values[g->inputs[k]];
    tensor *t = arena_zero(mem, 1, sizeof *t);
    if (!t)
        return fail_memory(err, path, sizeof *t);
    const rung_status st = npy_read_file(path, mem, t, err);
    if (st != RUNG_OK)
        return st;
    if (v->type != t->type)
        return fail(err, RUNG_EARGUMENT, "%s is %s, the model wants %s", path, dtype_name(t->type),
                    dtype_name(v->type));
    v->constant = t;
    v->rank = t->rank;
    memcpy(v->dims, t->dims, sizeof v->dims);
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
    for (int i = 0; i < n->n_outputs; i++) {
        if (n->outputs[i] < 0) {
            known[i].rank = -1;
            continue;
        }
        known[i] = info[n->outputs[i]];
        if (known[i].rank < 0 || dims_count(known[i].rank, known[i].dims) == SIZE_MAX)
            return fail(err, RUNG_EUNSUPPORTED, "%s: the shape is not known",
                        node_label(g, n, label, sizeof label));
    }
    const rung_status st = node_eval(g, n, in, known, mem, out, err);
    for (int i = 0; st == RUNG_OK && i < n->n_outputs; i++) {
        if (n->outputs[i] >= 0)
            content[n->outputs[i]] = out[i];
    }
    return st;
}

static rung_status run_graph(graph *g, char **paths, int n_paths, const char *folder, arena *mem,
                             rung_error *err)
{
    char path[4096];
    value_info *info = arena_zero(mem, g->n_values, sizeof *info);
    const tensor **content = arena_zero(mem, g->n_values, sizeof *content);
    rung_status st = RUNG_OK;
    if (!info || !content)
        return fail_memory(err, "values", g->n_values * sizeof *info);
    for (int i = 0; st == RUNG_OK && i < n_paths && i < g->n_inputs; i++) {
        if (strcmp(paths[i], "-") != 0)
            st = read_input(g, i, paths[i], mem, err);
    }
    if (st == RUNG_OK)
        st = graph_infer(g, NULL, mem, info, err);
    for (size_t i = 0; i < g->n_values; i++)
        content[i] = g->values[i].constant;
    for (size_t i = 0; st == RUNG_OK && i < g->n_nodes; i++)
        st = run_node(g, &g->nodes[i], info, content, mem, err);
    for (int i = 0; st == RUNG_OK && i < g->n_outputs; i++) {
        snprintf(path, sizeof path, "%s/%d.npy", folder, i);
        if (content[g->outputs[i]])
            st = npy_write_file(path, content[g->outputs[i]], err);
    }
    return st;
}

int main(int argc, char **argv)
{
    graph *g = NULL;
    rung_error err = {""};
    if (argc < 3) {
        fprintf(stderr, "usage: graph_eval MODEL.onnx OUT_DIR INPUT.npy ...\n");
        return 1;
    }
    arena *mem = arena_new();
    rung_status st = mem ? onnx_read_file(argv[1], &g, &err) : fail_memory(&err, "values", 0);
    if (st == RUNG_OK)
        st = run_graph(g, argv + 3, argc - 3, argv[2], mem, &err);
    if (st != RUNG_OK)
        fprintf(stderr, "%s\n", err.message);
    graph_free(g);
    arena_free(mem);
    return st == RUNG_OK ? 0 : st == RUNG_EUNSUPPORTED ? 2 : 1;
}
