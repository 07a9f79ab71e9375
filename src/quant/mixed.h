/* Mixed precision: which layers of a quantized network get activations of 16 bits or stay float, so
 * that it keeps its accuracy or becomes faster. Every choice is judged by the real model, never by
 * a prediction alone. */
#ifndef RUNG_QUANT_MIXED_H
#define RUNG_QUANT_MIXED_H

#include "measure/measure.h"
#include "measure/mixed_record.h"
#include "measure/turns.h"
#include "quant/parts.h"

/* A graph with pairs from r, in which nodes have the levels given (by node index of r->g). A layer
 * in float has the bias it had before a method fitted one to its integer weights. */
rung_status mixed_graph(const recipe *r, const level *levels, graph **out, rung_error *err);
/* Whether node i may have LEVEL_WIDE: its activations have 8 bits, its biases and sums fit int32
 * with the scales of its weights as they are. */
bool can_be_wide(const recipe *r, size_t i);

/* r becomes ready to be written: r->g is exchanged for the graph with the pairs that wish leaves.
 * reference: the float model, data: to calibrate on. *record is the caller's. */
rung_status mixed_finish(recipe *r, const graph *reference, dataset *data, const mixed_wish *wish,
                         mixed_record **record, rung_error *err);

/* --- accuracy (mixed_judge.c) ----------------------------------------------------------------- */

/* What the float model decides on the samples to evaluate on. As many batches as fit in keep_bytes
 * stay in memory, the rest is read again each time. */
typedef struct judge {
    arena       *mem;
    dataset     *data;
    const graph *reference;
    int          n_threads, size; /* samples of a batch */
    bool         quiet;
    size_t       keep_bytes;
    batch       *kept;
    size_t       n_kept, kept_samples, n;
    size_t      *decisions;  /* [n], the float model's */
    size_t       labelled, float_right;
    size_t       evaluations; /* so far */
} judge;

enum { JUDGE_BYTES = 96 << 20 };

/* keep_bytes: JUDGE_BYTES, but in tests. judge_end is due in every case. RUNG_EARGUMENT: the model
 * gives no class scores. */
rung_status judge_begin(judge *j, const graph *reference, dataset *data,
                        const rung_quant_options *opt, size_t keep_bytes, rung_error *err);
/* Points that q loses: of top-1 where there are labels, otherwise of agreement with float. */
rung_status judge_drop(judge *j, const graph *q, double *drop, rung_error *err);
void        judge_end(judge *j);

/* --- the search (mixed_search.c) -------------------------------------------------------------- */

/* The layers to choose from, as nodes of the recipe's graph. */
typedef struct candidates {
    const recipe *r;
    mixed_layer  *layers;
    size_t       *nodes; /* [n]: of layer i */
    bool         *can_widen; /* [n]: layer i may have LEVEL_WIDE */
    size_t        n;
    int64_t       macs;
    level        *levels; /* by node index: the choice */
} candidates;

/* The drop of accuracy, in points, of a network with these levels. */
typedef rung_status (*drop_of)(void *ctx, const level *levels, double *drop, rung_error *err);

/* Raises layers until drop <= most, as few as it finds, beginning with those of most effect for
 * their cost: to LEVEL_WIDE where that is enough, else to LEVEL_FLOAT; at least one stays integer.
 * *met = false: that is not enough, and the choice is the one of least drop among those tried.
 * *drop: what it is now, on entry and at the end. */
rung_status search_levels(candidates *c, double most, drop_of measure, void *ctx, double *drop,
                          bool *met, rung_error *err);

/* --- latency (mixed_fastest.c) ---------------------------------------------------------------- */

/* Whether the network with levels b is measurably faster than with levels a. */
typedef rung_status (*faster_than)(void *ctx, const level *a, const level *b, bool *yes,
                                   rung_error *err);

/* Layers that take longer in int8 than in float (layers' int8_ms, float_ms) go to float, each only
 * where the whole network is faster for it. */
rung_status free_slow_layers(candidates *c, faster_than is_faster, void *ctx, rung_error *err);

#endif
