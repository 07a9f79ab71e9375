/* Accuracy, SQNR and latency of a model. */
#ifndef RUNG_MEASURE_MEASURE_H
#define RUNG_MEASURE_MEASURE_H

#include "data/data.h"
#include "engine/engine.h"

/* Whether an array of these dims can be input v: its rank, and each dim from `first` on that the
 * model declares. The error names the input and both shapes. */
rung_status input_fits(const value *v, const rung_tensor *given, int first, rung_error *err);
/* Engine for g whose unknown dims are those of the batch (inputs matched by name, or the only one);
 * observe as in engine_options. g outlives it. */
rung_status engine_for_batch(const graph *g, const batch *b, int n_threads, const bool *observe,
                             engine **out, rung_error *err);
/* Copies a batch into the engine's inputs (converting types where exact). The batch may hold fewer
 * samples than the engine: the rest is zero. Errors name the input and both shapes. */
rung_status engine_feed(engine *e, const graph *g, const batch *b, rung_error *err);
/* The same for input i of g alone, into t: its type and dims, data to be written. */
rung_status batch_feed(const batch *b, const graph *g, int i, const tensor *t, rung_error *err);

/* Samples at a time: the model's own number where it is fixed; else wanted, or (wanted = 0) what
 * keeps the activations of g near 64 MB: 1 to MOST_AT_ONCE. */
enum { MOST_AT_ONCE = 32 };
int measure_batch_size(const graph *g, int wanted);

typedef struct output_sqnr {
    const char *name; /* the graph's */
    double      db;
} output_sqnr;

/* sqnr: NULL or [g->n_outputs]. */
rung_status measure_eval(const graph *g, const graph *reference, dataset *data,
                         const rung_eval_options *opt, rung_eval_result *result,
                         output_sqnr *sqnr, rung_error *err);

/* steps: NULL, or called with the profiled engine before it is freed. */
rung_status measure_bench(const graph *g, const rung_bench_options *opt, rung_bench_result *result,
                          void (*steps)(void *ctx, const engine *e), void *ctx, rung_error *err);

#endif
