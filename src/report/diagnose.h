/* What is worth a remark in a model as it stands (docs/diagnostics.md lists the codes). Each remark
 * names a node or a tensor and says what to do. */
#ifndef RUNG_REPORT_DIAGNOSE_H
#define RUNG_REPORT_DIAGNOSE_H

#include "graph/diagnostic.h"
#include "graph/graph.h"

/* All remarks about g, which is valid, added to d. */
rung_status diagnose_model(const graph *g, diagnostics *d, rung_error *err);

/* --- what the files of diagnose share ----------------------------------------------------------
 */

typedef struct exam {
    const graph *g;
    arena *mem;
    uses use;
    bool *captured; /* by value id: a subgraph reads it */
    diagnostics *d;
} exam;

void diagnose_graph(const exam *x);  /* tied weights, what nobody uses */
void diagnose_pairs(const exam *x);  /* pairs and patterns that no engine can fuse */
void diagnose_layers(const exam *x); /* weights and biases */
void diagnose_onnxruntime(
    const exam *x); /* what ONNX Runtime leaves in float on x86, or saturates */

bool exam_is_quantize(const node *n);
bool exam_is_dequantize(const node *n);
/* The node that makes v, NULL: none. */
const node *exam_maker(const exam *x, int v);
/* The DequantizeLinear that makes v, NULL: v is made otherwise, or v < 0. */
const node *exam_dequantize(const exam *x, int v);
/* That of an activation: what it reads is no constant. */
const node *exam_activation(const exam *x, int v);
/* The QuantizeLinear behind v, a lone Relu or Clip between; *clamp (NULL: not wanted) is that, or
 * NULL. NULL: nobody quantizes v. */
const node *exam_quantize_behind(const exam *x, int v, const node **clamp);
/* A node whose operands of float type are all behind DequantizeLinear or constant, one an
 * activation at least: integer kernels take it if its result is quantized. */
bool exam_has_integer_inputs(const exam *x, const node *n);
/* Type of the codes of a QuantizeLinear or DequantizeLinear, and its only zero point, where they
 * are known: RUNG_UNDEFINED. */
dtype exam_code_type(const exam *x, const node *n);
bool exam_params(const exam *x, const node *n, double *scale, int64_t *zero);
int exam_n_uses(const exam *x, int v);
/* Conv, ConvTranspose, Gemm, MatMul with a constant weight behind a DequantizeLinear: that node. */
const node *exam_weight(const exam *x, const node *n);
/* Output i, a value id; -1: absent. */
int exam_output(const node *n, int i);
/* Whether t holds integers that tensor_get_int can read. */
bool exam_is_integer(const tensor *t);
const char *exam_label(const exam *x, const node *n); /* lives as long as x->mem */

#endif
