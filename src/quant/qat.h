/* Quantization-aware training's two ends (Jacob 2018): prepare puts FakeQuantize in, convert takes
 * it out. A Q->DQ pair is the FakeQuantize, so both graphs are ordinary ONNX. */
#ifndef RUNG_QUANT_QAT_H
#define RUNG_QUANT_QAT_H

#include "quant/fake.h"
#include "quant/quant.h"

/* g is copied, prepared and given parameters by static quantization (opt as there, methods
 * included). In the result weights and other constants that have codes stay float32, each behind a
 * QuantizeLinear and a DequantizeLinear; biases stay float32 constants that the operator reads.
 * Where codes have fewer than 8 bits (weights: where -128 is none), a Clip of the codes stands
 * between the two (quant/fake.h reads all that); in the converted graph the codes are within these
 * ends, those of activations because real values are clipped before QuantizeLinear.
 *
 * Weights whose codes a method chose are moved into the rounding cells of those codes, so that
 * qat_convert gives the model that static quantization gives, to the byte. Value ids of the float
 * graph that rewrites left alone mean the same tensors, and what QuantizeLinear makes has the same
 * id in the prepared and in the converted graph. */
rung_status qat_prepare(const graph *g, dataset *data, const rung_quant_options *opt, graph **out,
                        diagnostics *diag, rung_error *err);

/* Whether g is such a graph: a float32 constant behind a QuantizeLinear. */
bool qat_is_prepared(const graph *g);

/* The codes that a QuantizeLinear of a prepared graph may give, in its own type: -127 to 127 of
 * weights, fewer where weights or activations have fewer than 8 bits: the constant bounds of the
 * Clip behind it, which do not depend on a scale that is learned. (QuantizeLinear -> Clip ->
 * DequantizeLinear: fake_read gives all three; the tape passes over the Clip.) */
typedef struct qat_codes {
    int lo, hi;
} qat_codes;
qat_codes qat_codes_of(const graph *g, const node *quantize);

/* How the scale of an activation follows a range: for codes of so many bits, fewer than the type's
 * where the range is reduced (qconfig.h), about 0 or not. f: a pair that has it; its name. The
 * prepared graph keeps in its metadata what the codes do not say. */
typedef struct qat_observer {
    int  bits;
    bool symmetric;
} qat_observer;
qat_observer qat_observer_of(const graph *g, const char *scale, const fake_quantizer *f);
/* How the scales of a prepared graph are to be trained, by the qconfig that it was made with. */
rung_scales qat_scales_of(const graph *g);

/* The integer model of a prepared graph: codes for weights, int32 biases at scale s_x * s_w. data
 * (NULL: none; by value id, entries NULL where the graph's constant counts): float32 numbers in
 * place of the constant's, for weights, biases, scales and zero points (whole ones) alike. g is
 * copied and ids are kept.
 * Scales that are too small for the biases or sums to fit int32 are an error that names the weight.
 * One thread. */
rung_status qat_convert(const graph *g, const float *const *data, graph **out, rung_error *err);
/* The same, but constants that stay as they are are those of g, which outlives *out. */
rung_status qat_convert_shared(const graph *g, const float *const *data, graph **out,
                               rung_error *err);

#endif
