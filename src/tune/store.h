/* Trials on disk: WORK/NAME-KEY.onnx is the model, WORK/NAME-KEY.json what was measured. The record
 * is written after the model and holds its hash, so that a trial is whole or not there. */
#ifndef RUNG_TUNE_STORE_H
#define RUNG_TUNE_STORE_H

#include <stdint.h>

#include "graph/graph.h"
#include "report/tune.h"

enum { STORE_PATH = 4096 };

typedef enum store_state {
    STORE_NONE = 0, /* nothing, or nothing that can be believed */
    STORE_BEGUN,    /* training that was interrupted: epochs is known */
    STORE_DONE,
} store_state;

typedef struct stored {
    store_state state;
    tune_trial  trial;
    double      time_budget; /* under which epochs were chosen; 0: none */
} stored;

/* The folder, made where it is missing. */
rung_status store_open(const char *work, rung_error *err);
/* ending: "onnx", "json", "run". RUNG_EARGUMENT: the path is too long. */
rung_status store_path(const char *work, trial_kind k, uint64_t key, const char *ending,
                       char path[STORE_PATH], rung_error *err);
/* A record that is damaged, hostile, or whose model is not the one it was written for, is none. */
store_state store_read(const char *work, trial_kind k, uint64_t key, stored *out);
/* Of STORE_DONE the model must have been written. */
rung_status store_write(const char *work, trial_kind k, uint64_t key, const stored *s,
                        rung_error *err);
/* Writes the model; *size: of its files. */
rung_status store_model(const char *work, trial_kind k, uint64_t key, const graph *g, size_t *size,
                        rung_error *err);
/* *out is the caller's. */
rung_status store_load(const char *work, trial_kind k, uint64_t key, graph **out, rung_error *err);

/* The record as text, for tests: strict, every number within its range. False: it is none. */
bool store_parse(const char *text, size_t n, trial_kind k, uint64_t key, stored *out,
                 uint64_t *check);

#endif
