/* What the files of the comparison share. */
#ifndef RUNG_MEASURE_COMPARE_PARTS_H
#define RUNG_MEASURE_COMPARE_PARTS_H

#include "measure/compare.h"
#include "measure/measure.h"

/* A pair of the int8 model, by value ids there: x -> Q -> DQ -> y. */
typedef struct pair {
    int x, y, scale, zero; /* zero -1: none */
    int match; /* the value of the float model that x stands for */
} pair;

/* A weight as its layer has it: (codes[i] - zeros[channel]) * scales[channel]; real is the float
 * model's, NULL where there is none, to be multiplied by alpha. */
typedef struct weight_source {
    const node   *n, *dq;
    const tensor *codes, *scales, *zeros, *real; /* zeros may be NULL */
    int           axis; /* of the output channels */
    double        alpha;
} weight_source;

typedef struct pairing {
    const graph *reference; /* prepared: its names are those of the int8 model */
    const graph *g;
    pair        *pairs; /* [c->n_tensors], along the network */
    weight_source *sources; /* [c->n_weights] */
    int         *pair_of; /* by value id of g: the pair whose y it is, or the other DQ's; -1 */
} pairing;

/* Fills c->tensors, c->n_unmatched and p (in c->mem). */
rung_status compare_find_pairs(comparison *c, const graph *reference, const graph *g, pairing *p,
                               rung_error *err);
/* Fills c->weights, their errors left for later, and the tensors' weights. */
rung_status compare_weights(comparison *c, pairing *p, rung_error *err);

/* Copies of the two models whose outputs are the pairs' values too, at [n outputs + pair], and one
 * in which each layer reads the float model's values, fed as inputs [n inputs + pair]: exact[i] is
 * type and dims of pair i. */
rung_status compare_shown_reference(const comparison *c, const pairing *p, graph **out, int *at,
                                    rung_error *err);
rung_status compare_shown_model(const comparison *c, const pairing *p, graph **out, int *at,
                                rung_error *err);
rung_status compare_alone(const comparison *c, const pairing *p, const tensor *const *exact,
                          graph **out, int *at, rung_error *err);

/* Fills the tensors' factors, and the errors of weights, which depend on them. like: dims of the
 * pairs' values. */
rung_status compare_factors(comparison *c, const pairing *p, const tensor *const *like,
                            rung_error *err);
/* The factors fy that turn the float weights into the codes' rows, where the layer's input has the
 * factors fx (NULL: 1). */
void compare_weight_factors(const weight_record *w, const weight_source *s, const float *fx,
                            size_t n_fx, float *fy);
/* Signal, noise and magnitudes of the float weights times fy / fx. */
void compare_weight_errors(weight_record *w, const weight_source *s, const float *fx, size_t n_fx,
                           const float *fy);
/* x on the int8 model's scale; like: its dims. */
void compare_rescale(const tensor_record *t, const tensor *like, const float *x, float *out);

/* The first n values of x (float), y (int8 model) and alone (its layer fed exact values). */
void compare_tally(tensor_record *t, const float *x, const float *y, const float *alone, size_t n);

/* Both models' latencies on one sample of b, in turns. */
rung_status compare_latency(comparison *c, const graph *reference, const graph *g, const batch *b,
                            double seconds, int n_threads, rung_error *err);
/* And their layers'. */
rung_status compare_layer_times(comparison *c, const graph *reference, const graph *g,
                                const batch *b, int n_threads, rung_error *err);

/* --- compare_effects.c --- */

/* One batch as the float model and the layers alone have computed it. */
typedef struct effects_run {
    const engine *reference, *alone;
    const int    *shown, *alone_shown; /* where pair i stands among their outputs */
    const batch  *b;
    size_t        n; /* samples of it that count */
    int           n_threads;
} effects_run;

/* Runs the rest of the float network behind each layer alone and adds to the tensors' effects.
 * Memory: one network at a time. */
rung_status compare_effects(comparison *c, const pairing *p, const effects_run *run,
                            rung_error *err);
/* Elements of t that belong to the first n of the samples of `in`, the model's first input (NULL:
 * it has none); 0: they do not come first. */
size_t compare_elements(const tensor *t, const tensor *in, size_t n);

#endif
