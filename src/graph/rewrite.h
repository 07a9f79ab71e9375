/* Rewrites: each takes a valid graph and leaves a valid graph that computes the same function (to
 * float rounding). Each returns RUNG_OK also when it finds nothing to do. A value that is a graph
 * output, or that a subgraph captures, keeps its name and meaning. Value ids are kept. After a
 * failure the graph may be half rewritten: it is good for graph_free only. */
#ifndef RUNG_GRAPH_REWRITE_H
#define RUNG_GRAPH_REWRITE_H

#include "graph/op.h"

/* Brings operators of opsets 7 to 12 to their form in opset 13 and sets the opset; 13 and later are
 * left as they are. RUNG_EUNSUPPORTED names a node that cannot be brought over. */
rung_status rewrite_upgrade(graph *g, rung_error *err);

/* Brings operators of opsets 13 to 20 to their form in opset `to` (at most 21: blocked and 4-bit
 * weights, 16-bit activations) and sets the opset; later ones are left as they are.
 * RUNG_EUNSUPPORTED names a node that cannot be brought over. */
rung_status rewrite_raise_opset(graph *g, int64_t to, rung_error *err);

/* Nodes whose inputs are all constant become constants; DequantizeLinear and QuantizeLinear of a
 * constant stay, they are the model's weights. Bounded: no constant over 64 MiB is made. */
rung_status rewrite_fold_constants(graph *g, rung_error *err);

/* Identity, Dropout (inference), Cast to the same type, no-op Reshape, Transpose, Pad, Slice and
 * Expand, Concat and Sum of one operand. */
rung_status rewrite_remove_identities(graph *g, rung_error *err);

/* MatMul + Add of a constant row becomes Gemm where the left operand has rank 2. */
rung_status rewrite_fuse_matmul_add(graph *g, rung_error *err);

/* BatchNormalization into the Conv, ConvTranspose or Gemm before it, or into the Conv behind it
 * where that is exact (no padding, or a zero shift); computed in double. A BatchNormalization that
 * cannot be folded becomes Mul and Add with constants [C,1,1]. */
rung_status rewrite_fold_batchnorm(graph *g, rung_error *err);

/* Pad (constant 0, spatial axes only) into the Conv behind it; into an AveragePool with
 * count_include_pad = 1; into a MaxPool where its constant cannot win (-inf, or 0 behind Relu). */
rung_status rewrite_fold_pad(graph *g, rung_error *err);

/* Nodes that reach no output (and, then, constants nobody uses: their values stay, unused). */
rung_status rewrite_remove_dead(graph *g, rung_error *err);

/* All of the above in their order: what `quantize` and the engine begin with. */
rung_status rewrite_prepare(graph *g, rung_error *err);

#endif
