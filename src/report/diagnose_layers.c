/* Weights and biases of quantized layers. */
#include <math.h>

#include "graph/op.h"
#include "graph/pass.h"
#include "report/diagnose.h"

/* Relative: scales are products of float32 numbers, some written with fewer digits. */
#define CLOSE 1e-4

static void check_weight(const exam *x, const node *n, const node *dq)
{
    const tensor *zero = node_constant(x->g, dq, 2);
    size_t shifted = 0;
    for (size_t i = 0; zero && exam_is_integer(zero) && i < tensor_count(zero); i++)
        shifted += tensor_get_int(zero, i) != 0;
    if (shifted)
        diagnose(x->d, "weight-zero-point", exam_label(x, n),
                 "%zu of %zu zero points of its weight "
                 "'%s' are not 0: integer kernels want symmetric weights; quantize them so",
                 shifted, tensor_count(zero), x->g->values[dq->inputs[0]].name);
}

/* Bias scales that are not input scale x weight scale: engines take the codes as they are. */
static void check_bias_scale(const exam *x, const node *n, const node *weight, const node *bias)
{
    const node *in = exam_activation(x, node_input(n, 0));
    const tensor *w = node_constant(x->g, weight, 1), *b = node_constant(x->g, bias, 1);
    double scale;
    int64_t zero;
    size_t off = 0;
    if (!in || !w || !b || !dtype_is_float(w->type) || !dtype_is_float(b->type) ||
        !exam_params(x, in, &scale, &zero))
        return;
    const size_t n_w = tensor_count(w), n_b = tensor_count(b), most = n_w > n_b ? n_w : n_b;
    if ((n_w != 1 && n_w != most) || (n_b != 1 && n_b != most))
        return;
    for (size_t i = 0; i < most; i++) {
        const double wanted = scale * tensor_get(w, n_w == 1 ? 0 : i);
        off += !(fabs(tensor_get(b, n_b == 1 ? 0 : i) - wanted) <= CLOSE * fabs(wanted));
    }
    if (off)
        diagnose(x->d, "bias-scale", exam_label(x, n),
                 "%zu of %zu scales of its bias are not input "
                 "scale x weight scale: ONNX Runtime takes the codes as if they were; quantize the "
                 "bias anew",
                 off, most);
}

static void check_bias(const exam *x, const node *n, const node *weight)
{
    const int i = n->op->quant.bias, v = i ? node_input(n, i) : -1;
    const node *dq = exam_dequantize(x, v);
    if (v < 0 || !exam_activation(x, node_input(n, 0)))
        return;
    const tensor *codes = dq ? node_constant(x->g, dq, 0) : NULL;
    if (codes && codes->type == RUNG_I32)
        check_bias_scale(x, n, weight, dq);
    else
        diagnose(x->d, "bias-not-int32", exam_label(x, n),
                 "its bias '%s' is %s: integer kernels add "
                 "int32 at input scale x weight scale; quantize it so",
                 x->g->values[v].name, codes ? dtype_name(codes->type) : "not an integer constant");
}

void diagnose_layers(const exam *x)
{
    for (size_t i = 0; i < x->g->n_nodes; i++) {
        const node *n = &x->g->nodes[i], *weight = exam_weight(x, n);
        if (!weight)
            continue;
        check_weight(x, n, weight);
        check_bias(x, n, weight);
    }
}
