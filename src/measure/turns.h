/* Latencies of several models, measured in turns, so that all meet the same machine; and what each
 * layer takes of it. */
#ifndef RUNG_MEASURE_TURNS_H
#define RUNG_MEASURE_TURNS_H

#include "data/data.h"
#include "engine/engine.h"

enum { MAX_TURNS = 1000, MOST_MODELS = 3 };

typedef struct turns {
    double ms[MOST_MODELS][MAX_TURNS]; /* milliseconds of one run, round by round */
    int    n_models, n; /* rounds */
    int    threads;
} turns;

/* Runs the models on the first sample of b (on all of b where their number is fixed), round by
 * round, for `seconds`, at least seven rounds. */
rung_status turns_measure(const graph *const *models, int n_models, const batch *b, double seconds,
                          int n_threads, turns *out, rung_error *err);
/* Of one model's times; and of the rounds' ratios, model a over model b. part: 0 the least, 0.5 the
 * median, 1 the most. */
double turns_ms(const turns *t, int model, double part);
double turns_ratio(const turns *t, int a, int b, double part);

/* The steps of one model by their nodes: least of several profiled runs on the first sample of b.
 * Labels are node_label's. */
typedef struct layer_time {
    const char *node;
    double      ms;
    int64_t     macs;
} layer_time;

typedef struct layer_times {
    arena      *mem;
    layer_time *list;
    size_t      n;
    int64_t     macs; /* of one run */
} layer_times;

/* layer_times_free is due in every case. */
rung_status layer_times_measure(const graph *g, const batch *b, int n_threads, layer_times *out,
                                rung_error *err);
void        layer_times_free(layer_times *t);
/* All steps of that node; ms = 0: it has none. */
layer_time  layer_times_of(const layer_times *t, const char *label);

#endif
