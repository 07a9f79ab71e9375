/* Quantization-aware training's two ends (Jacob 2018): prepare puts FakeQuantize in, convert takes
 * it out. A Q->DQ pair is the FakeQuantize, so both graphs are ordinary ONNX. */
#ifndef RUNG_QUANT_QAT_H
#define RUNG_QUANT_QAT_H

#include "quant/quant.h"

/* g is copied, prepared and given parameters by static quantization (opt as there, methods
 * included). In the result weights stay float32 constants, each behind a QuantizeLinear and a
 * DequantizeLinear; biases stay float32 constants that the operator reads. Weights whose codes a
 * method chose are moved into the rounding cells of those codes, so that qat_convert gives the
 * model that static quantization gives, to the byte. Value ids of the float graph that rewrites left
 * alone mean the same tensors. */
rung_status qat_prepare(const graph *g, dataset *data, const rung_quant_options *opt, graph **out,
                        diagnostics *diag, rung_error *err);

/* Whether g is such a graph: a float32 constant behind a QuantizeLinear. */
bool qat_is_prepared(const graph *g);

/* The codes that a QuantizeLinear of a prepared graph may give, in its own type: -127 to 127 of
 * weights, fewer where weights or activations have fewer than 8 bits. The graph's metadata says so:
 * a Clip's constant bounds could not follow a scale that is learned, and of a weight with a scale
 * per channel there is no Clip at all. qat_convert clips weights to them, and puts a Clip (as
 * clip_to_codes does, from the scales as they are then) before the QuantizeLinear of such an
 * activation; the prepared graph has none. */
typedef struct qat_codes {
    int lo, hi;
} qat_codes;
qat_codes qat_codes_of(const graph *g, const node *quantize);

/* The integer model of a prepared graph: codes for weights, int32 biases at scale s_x * s_w. value
 * (NULL: none; by value id, entries NULL where the graph's constant counts): float32 data that
 * stands for the constant. g is copied and ids are kept. Scales that are too small for the biases or
 * sums to fit int32 are an error that names the weight. */
rung_status qat_convert(const graph *g, const float *const *value, graph **out, rung_error *err);

#endif
