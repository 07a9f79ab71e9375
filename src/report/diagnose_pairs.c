/* Pairs of QuantizeLinear and DequantizeLinear, and what stands between them. */
#include <string.h>

#include "graph/op.h"
#include "graph/pass.h"
#include "report/diagnose.h"

static bool works_on_codes(const node *n)
{
    return strncmp(n->op_type, "QLinear", 7) == 0 || strstr(n->op_type, "Integer") != NULL;
}

/* Behind codes there may be more than one DequantizeLinear, and what moves codes. */
static void lone_quantize(const exam *x, const node *q)
{
    const int v = exam_output(q, 0);
    if (v < 0 || x->g->values[v].is_output || x->captured[v] || !exam_n_uses(x, v))
        return;
    for (int i = x->use.first[v]; i < x->use.first[v + 1]; i++) {
        const node *user = &x->g->nodes[x->use.list[i]];
        if (exam_is_dequantize(user) || works_on_codes(user))
            return;
    }
    diagnose(x->d, "lone-quantize", exam_label(x, q),
             "no DequantizeLinear reads its codes: engines "
             "find integer operators by pairs; put one behind it");
}

static bool same_constant(const exam *x, int a, int b)
{
    const tensor *s = a < 0 ? NULL : x->g->values[a].constant;
    const tensor *t = b < 0 ? NULL : x->g->values[b].constant;
    if (a == b || !s || !t) /* the same, or not to be known here */
        return true;
    if (s->type != t->type || tensor_count(s) != tensor_count(t))
        return false;
    return memcmp(s->data, t->data, dtype_bytes(s->type, tensor_count(s))) == 0;
}

static void dequantize(const exam *x, const node *dq)
{
    const node *maker = exam_maker(x, node_input(dq, 0));
    if (!maker || works_on_codes(maker) || node_is(maker, "DynamicQuantizeLinear"))
        return;
    if (!exam_is_quantize(maker))
        diagnose(x->d, "lone-dequantize", exam_label(x, dq),
                 "its codes come from %s, not from a "
                 "QuantizeLinear: engines leave both in float32; move %s before the pair",
                 exam_label(x, maker), maker->op_type);
    else if (!same_constant(x, node_input(maker, 1), node_input(dq, 1)) ||
             !same_constant(x, node_input(maker, 2), node_input(dq, 2)))
        diagnose(x->d, "pair-mismatch", exam_label(x, dq),
                 "it has another scale or zero point than "
                 "%s before it: the pair changes every value; make them equal",
                 exam_label(x, maker));
}

static bool reads_activation(const exam *x, const node *n)
{
    for (int i = 0; i < n->n_inputs; i++)
        if (exam_activation(x, n->inputs[i]))
            return true;
    return false;
}

/* A node behind a pair that stays float: no kernel, or its result is not quantized. */
static void unfused_node(const exam *x, const node *n)
{
    if (exam_is_quantize(n) || exam_is_dequantize(n) || !reads_activation(x, n))
        return;
    if (!n->op || !n->op->lower)
        diagnose(x->d, "no-integer-kernel", exam_label(x, n),
                 "it reads quantized values, but there is "
                 "no integer kernel for %s: it runs in float32; leave out the pair before it where "
                 "nothing else needs it",
                 n->op_type);
    else if (exam_output(n, 0) >= 0 && exam_has_integer_inputs(x, n) &&
             !exam_quantize_behind(x, exam_output(n, 0), NULL))
        diagnose(x->d, "missing-quantize", exam_label(x, n),
                 "its operands are quantized, its result "
                 "is not: it runs in float32; put a QuantizeLinear and DequantizeLinear behind it");
}

void diagnose_pairs(const exam *x)
{
    for (size_t i = 0; i < x->g->n_nodes; i++) {
        const node *n = &x->g->nodes[i];
        if (exam_is_quantize(n))
            lone_quantize(x, n);
        else if (exam_is_dequantize(n))
            dequantize(x, n);
        else
            unfused_node(x, n);
    }
}
