/* How ONNX Runtime's CPU provider takes the model on x86 (found with version 1.2x and its sources).
 *
 * Its AVX2 kernel for uint8 x int8 products (MLAS, without VNNI) adds pairs of products along K by
 * VPMADDUBSW, which saturates int16: 255 * (|w0| + |w1|) of one sign must stay under 32,768. K of a
 * Conv is taken tap by tap, the channels of a group side by side (QLinearConv's ReorderFilter);
 * depthwise convolutions have a kernel of their own, which widens. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "graph/op.h"
#include "graph/pass.h"
#include "report/diagnose.h"

/* --- saturation ------------------------------------------------------------------------------- */

enum { FITS = 128 }; /* |w0| + |w1| up to this: 255 * 128 = 32,640 */

/* Weights as rows of `k`: element i of row r of a batch is codes[base + r * row + place(i)]. */
typedef struct rows {
    const int8_t *codes;
    size_t batches, batch; /* and elements of one */
    size_t n, row, k, step;
    size_t channels; /* Conv: k counts channels first, each `step` apart; 0: no Conv */
} rows;

static size_t place(const rows *w, size_t i)
{
    return w->channels ? i % w->channels * w->step + i / w->channels : i * w->step;
}

typedef struct pairs {
    size_t all, risky;
} pairs;

static pairs count_pairs(const rows *w)
{
    pairs p = {0, 0};
    for (size_t at = 0; at < w->batches * w->n; at++) {
        const int8_t *row = w->codes + at / w->n * w->batch + at % w->n * w->row;
        for (size_t i = 0; i + 1 < w->k; i += 2) {
            const int a = row[place(w, i)], b = row[place(w, i + 1)];
            p.all++;
            p.risky += (a < 0) == (b < 0) && abs(a) + abs(b) > FITS;
        }
    }
    return p;
}

static rows conv_rows(const node *n, const tensor *t)
{
    rows w = {.codes = t->data,
              .batches = 1,
              .n = (size_t)t->dims[0],
              .channels = (size_t)t->dims[1],
              .step = dims_count(t->rank - 2, t->dims + 2)};
    w.k = w.row = w.batch = w.channels * w.step;
    if (w.channels == 1 && node_int(n, "group", 1) == t->dims[0])
        w.k = 0; /* depthwise */
    return w;
}

static rows matrix_rows(const tensor *t, bool transposed)
{
    const size_t a = (size_t)t->dims[t->rank - 2], b = (size_t)t->dims[t->rank - 1];
    rows w = {.codes = t->data, .batches = dims_count(t->rank - 2, t->dims), .batch = a * b};
    w.n = transposed ? a : b;
    w.k = transposed ? b : a;
    w.row = transposed ? b : 1;
    w.step = transposed ? 1 : b;
    return w;
}

/* 16-bit activations: ONNX Runtime computes in float32 there. */
static bool is_wide(dtype t)
{
    return t == RUNG_U16 || t == RUNG_I16;
}

static pairs risk_of(const exam *x, const node *n, const node *weight)
{
    const tensor *t = x->g->values[weight->inputs[0]].constant;
    const node *dq = exam_activation(x, node_input(n, 0));
    if (!dq || is_wide(exam_code_type(x, dq)) || t->type != RUNG_I8 || t->rank < 2 ||
        tensor_count(t) == 0)
        return (pairs){0, 0};
    const rows w =
        node_is(n, "Conv") ? conv_rows(n, t) : matrix_rows(t, node_int(n, "transB", 0) != 0);
    return count_pairs(&w);
}

static void saturation(const exam *x)
{
    pairs sum = {0, 0};
    size_t layers = 0;
    for (size_t i = 0; i < x->g->n_nodes; i++) {
        const node *n = &x->g->nodes[i], *weight = exam_weight(x, n);
        if (!weight || node_is(n, "ConvTranspose"))
            continue;
        const pairs p = risk_of(x, n, weight);
        sum.all += p.all;
        sum.risky += p.risky;
        layers += p.risky > 0;
        if (p.risky)
            diagnose(x->d, "avx2-saturation", exam_label(x, n),
                     "%zu of %zu weight pairs (%.2f %%) can "
                     "saturate in ONNX Runtime on AVX2 without VNNI",
                     p.risky, p.all, 100 * (double)p.risky / (double)p.all);
    }
    if (layers)
        diagnose(
            x->d, "avx2-saturation", "model",
            "%zu of %zu weight pairs in %zu layers can saturate "
            "in ONNX Runtime on AVX2 without VNNI, silently; there quantize with --weight-bits "
            "7 (rung itself is exact everywhere)",
            sum.risky, sum.all, layers);
}

/* --- what it leaves in float ------------------------------------------------------------------ */

/* Conv takes int8; operators that only move values drop the pair. */
static bool wants_uint8(const node *n)
{
    static const char *const ops[] = {
        "Add",    "Mul",     "MatMul",    "Gemm",   "AveragePool", "GlobalAveragePool",
        "Concat", "Sigmoid", "LeakyRelu", "Softmax"};
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        if (node_is(n, ops[i]))
            return true;
    return false;
}

static void code_types(const exam *x, const node *n, const node *q)
{
    const dtype out = exam_code_type(x, q);
    for (int i = 0; i < n->n_inputs; i++) {
        const node *dq = exam_activation(x, n->inputs[i]);
        const dtype in = dq ? exam_code_type(x, dq) : RUNG_UNDEFINED;
        if (in != RUNG_UNDEFINED && out != RUNG_UNDEFINED && in != out && !is_wide(in) &&
            !is_wide(out)) {
            diagnose(x->d, "mixed-types", exam_label(x, n),
                     "it reads %s and gives %s: ONNX Runtime may run it in float32; quantize both "
                     "to one type",
                     dtype_name(in), dtype_name(out));
            return;
        }
    }
    if (out == RUNG_I8 && wants_uint8(n))
        diagnose(x->d, "ort-int8", exam_label(x, n),
                 "ONNX Runtime on x86 has no kernel for %s with "
                 "int8 activations and may run it in float32; quantize with --act-type uint8 there",
                 n->op_type);
}

/* The clamp's bounds; false: they are not known. */
static bool bounds(const exam *x, const node *clamp, double *lo, double *hi)
{
    const bool relu = node_is(clamp, "Relu");
    *lo = relu ? 0 : -INFINITY;
    *hi = INFINITY;
    for (int i = 1; i < 3 && !relu; i++) {
        const tensor *t = node_constant(x->g, clamp, i);
        if (node_input(clamp, i) >= 0 && (!t || !dtype_is_float(t->type) || tensor_count(t) != 1))
            return false;
        if (t)
            *(i == 1 ? lo : hi) = tensor_get(t, 0);
    }
    return true;
}

/* A clamp that the codes make anyway is dropped; any other parts the operator from its Q. */
static void clamped(const exam *x, const node *n, const node *clamp, const node *q)
{
    const dtype type = exam_code_type(x, q);
    const int first = type == RUNG_I8 ? -128 : 0;
    double lo, hi, scale;
    int64_t zero;
    if ((type != RUNG_U8 && type != RUNG_I8) || !exam_params(x, q, &scale, &zero) ||
        !bounds(x, clamp, &lo, &hi))
        return;
    const double slack = scale / 2; /* such a bound rounds to the first or last code */
    if (lo > scale * (double)(first - zero) + slack ||
        hi < scale * (double)(first + 255 - zero) - slack)
        diagnose(x->d, "ort-clamp", exam_label(x, n),
                 "the %s behind it cuts off codes that %s would "
                 "give (zero point %lld): ONNX Runtime keeps both in float32; choose the range so "
                 "that its ends are the clamp's",
                 clamp->op_type, q->op_type, (long long)zero);
}

void diagnose_onnxruntime(const exam *x)
{
    for (size_t i = 0; i < x->g->n_nodes; i++) {
        const node *n = &x->g->nodes[i], *clamp;
        if (!n->op || !n->op->lower || exam_output(n, 0) < 0 ||
            !exam_has_integer_inputs(x, n))
            continue;
        const node *q = exam_quantize_behind(x, n->outputs[0], &clamp);
        if (!q)
            continue;
        code_types(x, n, q);
        if (clamp)
            clamped(x, n, clamp, q);
    }
    saturation(x);
}
