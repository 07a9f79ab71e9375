/* Post-training quantization: ranges from calibration, parameters from ranges, Q/DQ pairs in the
 * graph. */
#ifndef RUNG_QUANT_QUANT_H
#define RUNG_QUANT_QUANT_H

#include "data/data.h"
#include "graph/diagnostic.h"
#include "graph/op.h"
#include "measure/mixed_record.h"
#include "quant/observer.h"

/* g (any opset from 7) is copied, prepared (rewrite_prepare), calibrated on data and returned with
 * Q/DQ pairs, opset 13 or later (21 with activations of 16 bits). opt as in rung.h, checked by the
 * caller. */
rung_status quantize_static(const graph *g, dataset *data, const rung_quant_options *opt,
                            graph **out, diagnostics *diag, rung_error *err);

/* The same, but some layers may have more bits (quant/mixed.h): so many that the drop of accuracy
 * on `eval` (NULL: no budget) is within max_drop points, and, with `fastest`, those that are slower
 * in int8 here. RUNG_OK also where the budget is not met: *record, the caller's, says so. */
typedef struct mixed_wish {
    dataset *eval;
    double   max_drop;
    bool     fastest;
    double   seconds; /* of measuring latency, once the choice is made; 0: 1 */
} mixed_wish;
rung_status quantize_mixed(const graph *g, dataset *data, const rung_quant_options *opt,
                           const mixed_wish *wish, graph **out, mixed_record **record,
                           diagnostics *diag, rung_error *err);

/* int8 weights and activations ranged at run time, or integer weights only; data: samples for
 * methods, NULL: none. */
rung_status quantize_dynamic(const graph *g, dataset *data, const rung_quant_options *opt,
                             graph **out, diagnostics *diag, rung_error *err);
rung_status quantize_weights(const graph *g, dataset *data, const rung_quant_options *opt,
                             graph **out, diagnostics *diag, rung_error *err);

/* --- parts of static quantization, in their order --------------------------------------------- */

/* Readies constants for placing: Gemm's alpha and beta go into its weight and bias, biases become
 * vectors of one number per channel, and a constant that is used in more than one role gets a copy
 * for each. */
rung_status split_roles(graph *g, rung_error *err);

/* Which values get a Q/DQ pair, and how (design section 4), by value id. */
typedef enum place_kind {
    PLACE_NONE = 0,
    PLACE_ACTIVATION, /* a pair, parameters from its own range */
    PLACE_SHARED,     /* a pair, parameters of the value `shares` */
    PLACE_FIXED,      /* a pair, the fixed range lo, hi */
    PLACE_CONSTANT,   /* DequantizeLinear behind a constant of the activations' type */
    PLACE_WEIGHT,     /* DequantizeLinear behind an int8 constant */
    PLACE_BIAS,       /* DequantizeLinear behind an int32 constant, scale s_x * s_w */
} place_kind;

typedef struct placement {
    place_kind kind;
    int        shares; /* root value whose range is used; ranges of all that share it are merged */
    bool       derived; /* its values are among those it shares parameters with: adds no range */
    float      lo, hi; /* PLACE_FIXED */
    int        axis;   /* PLACE_WEIGHT: axis of the scales, -1 per tensor */
    int        channel_axis; /* PLACE_WEIGHT: output channels, whatever the scales */
    int        input, weight; /* PLACE_BIAS: values whose scales it multiplies */
    bool       narrow; /* PLACE_BIAS: the input is read behind its 8-bit pair (recipe.narrow) */
} placement;

/* Whether names and operator types of opt leave n to be quantized. */
bool options_allow(const rung_quant_options *opt, const node *n);

/* placements: [g->n_values]. skip_node[i] (by node index, NULL: none): stays float. quantized[i]
 * (by node index): node i works on quantized operands. */
rung_status place_pairs(const graph *g, const value_info *info, const rung_quant_options *opt,
                        const bool *skip_node, placement *placements, bool *quantized,
                        diagnostics *diag, rung_error *err);

/* Runs g in float over data; observers: [g->n_values], NULL where not observed. */
rung_status calibrate(const graph *g, dataset *data, const rung_quant_options *opt,
                      observer *const *observers, rung_error *err);

/* Affine parameters of one activation: real = scale * (q - zero). */
typedef struct qparams {
    float scale;
    int   zero;
    dtype type;
    int   bits; /* codes are within so many: from 0, or about it */
} qparams;

/* From [lo, hi] (widened to hold 0; nudged so that 0 is exact). Repairs a range of zero width or
 * with a scale under FLT_MIN; *repaired says so. */
qparams qparams_from_range(float lo, float hi, dtype type, int bits, bool symmetric,
                           bool *repaired);
/* The ends of its codes, [-8, 7] for int8 and 4 bits. */
int qparams_lowest(const qparams *p);
int qparams_highest(const qparams *p);

/* saturate(rne(x / scale) + zero) to those ends; NaN gives zero. */
int qparams_code(const qparams *p, float x);
/* The same as the byte of p's type, which has 8 bits. */
uint8_t qparams_quantize(const qparams *p, float x);

/* Symmetric int8 weights in [-127, 127] along axis (-1: one scale). w: float32; scales: [channels];
 * q: [count]. Returns the number of values that were not finite (taken as 0). */
size_t weight_quantize(const tensor *w, int axis, float *scales, int8_t *q);

/* Its two halves: scales, and codes by given scales. */
size_t weight_scales(const tensor *w, int axis, float *scales);
void   weight_codes(const tensor *w, int axis, const float *scales, int lowest, int8_t *q);
size_t weight_channels(const tensor *w, int axis);
/* Sum of the magnitudes of one channel's codes at that scale. */
double weight_code_sum(const tensor *w, int axis, size_t channel, float scale);
/* rne(b / scale), saturated; 0 when b is not finite. */
int32_t bias_code(float b, float scale);

#endif
