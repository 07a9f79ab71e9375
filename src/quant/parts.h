/* What the files of quant share. */
#ifndef RUNG_QUANT_PARTS_H
#define RUNG_QUANT_PARTS_H

#include "quant/qconfig.h"
#include "quant/quant.h"

/* Metadata of a prepared graph, of which its integer model has none: "observed" or "fixed" where
 * scales are not learned, and the observers that the codes do not say (qat.c). */
#define META_SCALES    "rung.scales"
#define META_OBSERVERS "rung.observers"

/* A quantization in the making. All arrays are in mem; by value id where not said otherwise. */
typedef struct recipe {
    graph                    *g; /* prepared; the pairs go in here */
    const rung_quant_options *opt;
    const qconfig            *rules; /* NULL: rung's defaults */
    diagnostics              *diag;
    arena                    *mem;
    size_t                    n_values, n_nodes; /* before anything is inserted */
    value_info               *info;
    placement                *places;
    qsettings                *set; /* of what has a place other than PLACE_NONE and PLACE_BIAS */
    bool                     *skip, *quantized; /* by node index */
    const bool               *wide; /* by node index: has operands of 16 bits whatever the rules
                                     * say; NULL: none */
    observer                **observers;
    qparams                  *params; /* of activations and constants that have a pair */
    qparams                  *narrow; /* of the 8-bit pair behind a 16-bit one, which nodes of 8
                                       * bits read; scale 0: there is none */
    float                   **scales; /* of weights: one per channel, or one */
    const tensor            **unfitted; /* biases before a method fitted them to integer weights */
    int8_t                  **codes;  /* of weights, where a method chose them; NULL: the nearest */
    int                      *dequantized; /* set by insert_pairs: what consumers read instead of a
                                            * value; -1: itself */
    bool                      prepare; /* for training (qat.h): constants and biases stay float */
} recipe;

/* From a float graph to its copy with pairs; prepare as in recipe: quantize_static, qat_prepare. */
rung_status quantize_with_pairs(const graph *g, dataset *data, const rung_quant_options *opt,
                                bool prepare, graph **out, diagnostics *diag, rung_error *err);

/* From a float graph to parameters and scales: all but the pairs. r->opt, r->diag and r->g (owned,
 * split_roles done) are set. recipe_free also when it fails; it leaves r->g alone. */
rung_status recipe_begin(recipe *r, dataset *data, rung_error *err);
void        recipe_free(recipe *r);
/* The largest code of a weight. */
int weight_top(const rung_quant_options *opt);

/* Marks the nodes that rules exclude in r->skip. */
void exclude_by_rules(recipe *r);
/* Fills r->set, and brings what the qconfig says of ranges and weights into r->places. diag: NULL
 * where it was said before. */
rung_status settle(recipe *r, diagnostics *diag, rung_error *err);
/* The largest code of weight v. */
int weight_top_of(const recipe *r, int v);
/* The lowest: as far from 0, or one farther. */
int weight_lowest_of(const recipe *r, int v);

/* A tensor beside a node of 16 bits has 16 bits, its maker writes them; the nodes of 8 bits that
 * read it too do so behind one more pair, of 8 bits. What only moves values follows its tensors. */
/* What the rules say of activation v where n makes or reads it. */
qsettings node_settings(const recipe *r, const node *n, int v);
/* Whether n reads activation v behind its 8-bit pair, by the settings of v and n. */
bool reads_narrow(const recipe *r, const node *n, int v);
/* The parameters of v as n reads it. */
const qparams *read_params(const recipe *r, const node *n, int v);
/* Parameters of v by what was observed (or is fixed) of all that shares with it, as s has them. */
qparams params_as(const recipe *r, int v, const qsettings *s);
/* r->narrow of all activations by their observations. */
void choose_narrow(recipe *r);

/* ranges to parameters; reports constant tensors and tiny scales. */
rung_status choose_params(recipe *r, rung_error *err);
/* Scales of weights, raised where biases or sums would not fit int32. Reports what is not finite;
 * RUNG_EMODEL when nothing else is in a weight. */
rung_status choose_scales(recipe *r, rung_error *err);
/* Whether int32 holds every partial sum of products with codes of x: weights is the sum of an
 * output channel's magnitudes, bias its own. Codes are up to 255 from zero; of 16-bit ones the high
 * and the low bytes have sums of their own, the high one's with 1/256 of the bias and of the low
 * one's. */
bool products_fit(const qparams *x, double weights, double bias);
/* Reports what was not finite or not seen. RUNG_EMODEL when an activation was never finite: names
 * the weight, or what is first in the graph that was not. */
rung_status check_observations(const recipe *r, rung_error *err);
/* NaN and infinities of a float32 tensor. */
size_t count_not_finite(const tensor *t);
/* Marks the nodes at tensors that have a pair but no observation in r->skip. False: there are none;
 * otherwise the pairs must be placed again. */
bool skip_unobserved(recipe *r);
/* A Clip that keeps `from` within p's codes; *to: what to quantize. Its values are named after base
 * (a value's id); where the Relu or Clip `maker` (a node, -1: none) makes `from`, it takes the ends
 * over. Nothing but the pair may read `from`. */
typedef struct clip_values {
    int lo, hi, to; /* values that are there for it already; -1: to be made */
} clip_values;
rung_status clip_to_codes(graph *g, int base, int maker, int from, const qparams *p,
                          const clip_values *ready, int *to, rung_error *err);
/* Makes these values and nothing else: ids are then the same whether or not the Clip comes. */
rung_status clip_reserve(graph *g, int base, int maker, rung_error *err);
/* Writes pairs and constants into r->g, sorted and verified. */
rung_status insert_pairs(recipe *r, rung_error *err);
/* Constants that nothing uses, such as float weights that integers stand for now, are not written;
 * mem: scratch. */
rung_status drop_unused_constants(graph *g, arena *mem, rung_error *err);

/* Operand i of a node as a weight whose role (rule) it has: its output-channel axis; -1: input i is
 * no weight, not constant, or of no use as one. */
int weight_axis_of(const graph *g, const node *n, int i);
/* Value ids, -1: none. bias_of gives constants only. */
int weight_of(const graph *g, const node *n);
int bias_of(const graph *g, const node *n);
bool is_activation(const node *n, int i); /* by the rule's mask */

#endif
