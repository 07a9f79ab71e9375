/* A tool for tests/model: the gradient of one operator.
 *
 *     op_grad MODEL.onnx OUT_DIR
 *
 * MODEL has one node; its operands are constants, and dL/doutput i is the constant "grad_i"
 * (absent: zero). Writes dL/dinput i to OUT_DIR/i.npy for each float32 operand. Exit status: 0, 2
 * where something is not supported, else 1; the sentence on standard error. */
#include <stdio.h>
#include <string.h>

#include "data/npy.h"
#include "graph/op.h"
#include "onnx/onnx.h"

enum { MOST = 16 };

typedef struct trial {
    const node *n;
    int64_t     opset;
    tensor      in[MOST], out[MOST], dout[MOST], din[MOST];
    arena      *mem;
} trial;

/* The operands, and memory for the results and the gradients. */
static rung_status load(graph *g, trial *t, rung_error *err)
{
    value_info *info = arena_zero(t->mem, g->n_values + 1, sizeof *info);
    if (!info)
        return fail_memory(err, "values", g->n_values * sizeof *info);
    if (g->n_nodes != 1 || !g->nodes[0].op || g->nodes[0].n_inputs > MOST ||
        g->nodes[0].n_outputs > MOST)
        return fail(err, RUNG_EARGUMENT, "the model is not one known node");
    const rung_status st = graph_infer(g, NULL, t->mem, info, err);
    t->n = &g->nodes[0];
    t->opset = graph_opset(g, "");
    for (int i = 0; st == RUNG_OK && i < t->n->n_inputs; i++) {
        const int v = t->n->inputs[i];
        if (v < 0)
            continue;
        if (!g->values[v].constant)
            return fail(err, RUNG_EARGUMENT, "operand %d is no constant", i);
        t->in[i] = t->din[i] = *g->values[v].constant;
        t->din[i].data = NULL;
        if (t->in[i].type != RUNG_F32)
            continue;
        const tensor *d = tensor_new(t->mem, RUNG_F32, t->in[i].rank, t->in[i].dims);
        if (!d)
            return fail_memory(err, "a gradient", tensor_count(&t->in[i]));
        t->din[i] = *d;
    }
    for (int i = 0; st == RUNG_OK && i < t->n->n_outputs; i++) {
        char name[32];
        snprintf(name, sizeof name, "grad_%d", i);
        const value_info *v = &info[t->n->outputs[i]];
        const int id = strmap_get(g->by_name, name, -1);
        const tensor *out = tensor_new(t->mem, v->type, v->rank, v->dims);
        if (!out)
            return fail_memory(err, "a result", 0);
        t->out[i] = t->dout[i] = *out;
        t->dout[i].data = id < 0 ? NULL : g->values[id].constant->data;
    }
    return st;
}

static rung_status run(graph *g, const char *folder, arena *mem, rung_error *err)
{
    trial t = {.mem = mem};
    rung_status st = load(g, &t, err);
    if (st)
        return st;
    const eval_args e = {t.n, t.opset, t.in, t.n->n_inputs, t.out, t.n->n_outputs, mem};
    const grad_args a = {t.n, t.opset, t.in, t.n->n_inputs, t.out, t.n->n_outputs, t.dout, t.din,
                         mem};
    if (!t.n->op->grad)
        return fail(err, RUNG_EUNSUPPORTED, "%s has no gradient", t.n->op_type);
    if ((st = t.n->op->eval(&e, err)) || (st = t.n->op->grad(&a, err)))
        return st;
    for (int i = 0; st == RUNG_OK && i < t.n->n_inputs; i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%d.npy", folder, i);
        st = t.din[i].data ? npy_write_file(path, &t.din[i], err) : RUNG_OK;
    }
    return st;
}

int main(int argc, char **argv)
{
    graph *g = NULL;
    rung_error err = {""};
    if (argc != 3) {
        fprintf(stderr, "usage: op_grad MODEL.onnx OUT_DIR\n");
        return 1;
    }
    arena *mem = arena_new();
    rung_status st = mem ? onnx_read_file(argv[1], &g, &err) : fail_memory(&err, "values", 0);
    if (st == RUNG_OK)
        st = run(g, argv[2], mem, &err);
    if (st != RUNG_OK)
        fprintf(stderr, "%s\n", err.message);
    graph_free(g);
    arena_free(mem);
    return st == RUNG_OK ? 0 : st == RUNG_EUNSUPPORTED ? 2 : 1;
}
