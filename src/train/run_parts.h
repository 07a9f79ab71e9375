/* What the files of a run share. */
#ifndef RUNG_TRAIN_RUN_PARTS_H
#define RUNG_TRAIN_RUN_PARTS_H

#include <stdio.h>

#include "base/progress.h"
#include "measure/measure.h"
#include "train/run.h"

/* Where a run stands: saved as it is. */
typedef struct run_state {
    uint64_t epoch, done; /* epochs ended, batches done in the one at hand */
    uint64_t step;
    uint64_t samples, correct; /* of the epoch so far */
    uint64_t all_samples;      /* trained on, in all */
    uint64_t n_records, best;
    uint64_t metrics_bytes;
    double   loss;    /* summed over the epoch's samples */
    double   rate;    /* of the last step */
    double   seconds; /* of this run and those it resumes; in train_seconds without evaluation */
    double   train_seconds;
} run_state;

typedef struct run {
    const graph         *g, *teacher;
    dataset             *data, *eval;
    const train_options *opt;
    trainer             *t;
    augmenter           *a;
    ranks               *ranks; /* NULL: this process alone */
    size_t               batch, per_epoch; /* samples of a step, of all processes; steps */
    size_t               own_batch;        /* samples of a step, of this process, at most */
    size_t              *order;            /* of all samples in this epoch */
    uint64_t             key;
    run_state            at;
    float               *best; /* [p->total]: the best parameters so far */
    training_record     *record;
    FILE                *metrics;
    double               started, saved; /* clock */
    progress             bar;
    char                 title[80];
} run;

/* run_save.c */
rung_status run_resume(run *r, bool *found, rung_error *err);
rung_status run_save(run *r, rung_error *err);
/* run_metrics.c; none does anything where no metrics are wanted, or in another process than the
 * first. */
rung_status metrics_open(run *r, rung_error *err);
rung_status metrics_step(run *r, const step_result *s, rung_error *err);
rung_status metrics_epoch(run *r, const training_epoch *e, rung_error *err);
rung_status metrics_flush(run *r, rung_error *err);
void        metrics_close(run *r);


/* run_share.c: this process's samples of each step of an epoch. */
typedef struct feeder {
    run         *r;
    loader      *l;
    bool         whole;  /* it loads those of all processes: mixup wants a sample's neighbours */
    batch_input *inputs; /* of its part */
    batch        b;
} feeder;

/* From step r->at.done on. */
rung_status feeder_open(run *r, feeder *f, rung_error *err);
/* Augmented samples of the coming step: *b has none where the last step has fewer samples than
 * there are processes. *b, *mixed and *share are valid until the next call. */
rung_status feeder_next(feeder *f, const batch **b, const int64_t **mixed, const float **share,
                        rung_error *err);
void        feeder_close(feeder *f);

#endif
