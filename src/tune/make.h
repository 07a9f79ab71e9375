/* Making and measuring the trials. */
#ifndef RUNG_TUNE_MAKE_H
#define RUNG_TUNE_MAKE_H

#include "measure/turns.h"
#include "tune/store.h"
#include "tune/tune.h"

typedef struct maker {
    const graph        *g; /* float */
    dataset            *data, *eval;
    const tune_options *opt;
    uint64_t            key; /* of model, data and machine */
    uint64_t            keys[TRIAL_KINDS];
    size_t              float_bytes;
    loader             *l;
    const batch        *sample; /* of eval: what latency is measured on */
    turns              *t;
} maker;

/* A policy's trial_maker; ctx: maker. */
rung_status make_trial(void *ctx, tune_record *r, trial_kind k, rung_error *err);

/* --- parts of it ------------------------------------------------------------------------------ */

/* What a trial is made by. */
typedef struct plan {
    rung_quant_options quant;
    train_options      train; /* of those that train */
} plan;

/* Training (make_train.c): *out is the deployable model; NULL and RUNG_OK: there is no time for one
 * epoch, t->note says so. begun: the trial's record, where a run was interrupted; it is written
 * before training begins. Fills epochs and seconds of t, the time of training. */
rung_status make_trained(const maker *m, const tune_record *r, trial_kind k, const plan *p,
                         const stored *begun, tune_trial *t, graph **out, rung_error *err);

#endif
