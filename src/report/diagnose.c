#include "report/diagnose.h"

#include <string.h>

#include "graph/op.h"
#include "graph/pass.h"

int exam_output(const node *n, int i)
{
    return i < n->n_outputs ? n->outputs[i] : -1;
}

bool exam_is_integer(const tensor *t)
{
    switch (t->type) {
    case RUNG_U4:
    case RUNG_I4:
    case RUNG_U8:
    case RUNG_I8:
    case RUNG_U16:
    case RUNG_I16:
    case RUNG_I32: return true;
    default: return false;
    }
}

bool exam_is_quantize(const node *n)
{
    return node_is(n, "QuantizeLinear");
}

bool exam_is_dequantize(const node *n)
{
    return node_is(n, "DequantizeLinear");
}

const node *exam_maker(const exam *x, int v)
{
    const int maker = v < 0 ? -1 : x->g->values[v].producer;
    return maker < 0 ? NULL : &x->g->nodes[maker];
}

const node *exam_dequantize(const exam *x, int v)
{
    const node *n = exam_maker(x, v);
    return n && exam_is_dequantize(n) && node_input(n, 0) >= 0 ? n : NULL;
}

const node *exam_activation(const exam *x, int v)
{
    const node *n = exam_dequantize(x, v);
    return n && !x->g->values[n->inputs[0]].constant ? n : NULL;
}

int exam_n_uses(const exam *x, int v)
{
    return x->use.first[v + 1] - x->use.first[v] + x->g->values[v].is_output;
}

static const node *only_user(const exam *x, int v)
{
    return exam_n_uses(x, v) == 1 && !x->g->values[v].is_output
               ? &x->g->nodes[x->use.list[x->use.first[v]]]
               : NULL;
}

const node *exam_quantize_behind(const exam *x, int v, const node **clamp)
{
    const node *user = only_user(x, v);
    if (clamp)
        *clamp = NULL;
    if (user && (node_is(user, "Relu") || node_is(user, "Clip")) && node_input(user, 0) == v) {
        if (clamp)
            *clamp = user;
        v = exam_output(user, 0);
    }
    for (int i = v < 0 ? 0 : x->use.first[v]; v >= 0 && i < x->use.first[v + 1]; i++)
        if (exam_is_quantize(&x->g->nodes[x->use.list[i]]))
            return &x->g->nodes[x->use.list[i]];
    return NULL;
}

bool exam_has_integer_inputs(const exam *x, const node *n)
{
    bool any = false;
    if (exam_is_quantize(n) || exam_is_dequantize(n))
        return false;
    for (int i = 0; i < n->n_inputs; i++) {
        const int v = n->inputs[i];
        if (v < 0 || x->g->values[v].constant)
            continue;
        if (!exam_dequantize(x, v))
            return false;
        any |= exam_activation(x, v) != NULL;
    }
    return any;
}

dtype exam_code_type(const exam *x, const node *n)
{
    const tensor *zero = node_constant(x->g, n, 2), *codes = node_constant(x->g, n, 0);
    if (zero)
        return zero->type;
    if (exam_is_dequantize(n) && codes)
        return codes->type;
    return node_input(n, 2) < 0 && exam_is_quantize(n) ? RUNG_U8 : RUNG_UNDEFINED;
}

bool exam_params(const exam *x, const node *n, double *scale, int64_t *zero)
{
    const tensor *s = node_constant(x->g, n, 1), *z = node_constant(x->g, n, 2);
    if (!s || !dtype_is_float(s->type) || tensor_count(s) != 1 || (!z && node_input(n, 2) >= 0) ||
        (z && (tensor_count(z) != 1 || !exam_is_integer(z))))
        return false;
    *scale = tensor_get(s, 0);
    *zero = z ? tensor_get_int(z, 0) : 0;
    return true;
}

const node *exam_weight(const exam *x, const node *n)
{
    const int i = n->op ? n->op->quant.weight : 0;
    const node *dq = i ? exam_dequantize(x, node_input(n, i)) : NULL;
    return dq && x->g->values[dq->inputs[0]].constant ? dq : NULL;
}

const char *exam_label(const exam *x, const node *n)
{
    char label[NODE_LABEL_SIZE];
    const char *copy = arena_strdup(x->mem, node_label(x->g, n, label, sizeof label));
    return copy ? copy : n->op_type;
}

static void mark_captured(exam *x)
{
    for (size_t i = 0; i < x->g->n_nodes; i++)
        for (int k = 0; k < x->g->nodes[i].n_captures; k++)
            x->captured[x->g->nodes[i].captures[k]] = true;
}

rung_status diagnose_model(const graph *g, diagnostics *d, rung_error *err)
{
    exam x = {.g = g, .mem = arena_new(), .d = d};
    rung_status st = RUNG_OK;
    x.captured = x.mem ? arena_zero(x.mem, g->n_values + 1, sizeof *x.captured) : NULL;
    if (!x.captured)
        st = fail_memory(err, "diagnostics", g->n_values);
    if (st == RUNG_OK && (st = graph_uses(g, x.mem, &x.use, err)) == RUNG_OK) {
        mark_captured(&x);
        diagnose_graph(&x);
        diagnose_pairs(&x);
        diagnose_layers(&x);
        diagnose_onnxruntime(&x);
    }
    arena_free(x.mem);
    return st;
}
