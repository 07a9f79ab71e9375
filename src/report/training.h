/* What a training run was, epoch by epoch. */
#ifndef RUNG_REPORT_TRAINING_H
#define RUNG_REPORT_TRAINING_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"

/* Accuracies in percent, -1: not known; losses and SQNR NaN: not known. */
typedef struct training_epoch {
    size_t epoch; /* 0: before training */
    double loss, accuracy; /* over the epoch's batches, as they were trained on */
    double rate;           /* of its last step */
    double top1, eval_loss, agreement, sqnr_db; /* of the deployed model on the evaluation set */
    double seconds;        /* since the beginning */
} training_epoch;

typedef struct training_record {
    training_epoch *epochs; /* mem_alloc'ed */
    size_t n, best;         /* best: index of the epoch that was kept */
    bool   is_float, evaluated;
    size_t parameters, scales; /* trained numbers; scales: of FakeQuantize, among them */
    size_t samples, eval_samples, batch, chunk, steps;
    int    lanes, ranks; /* threads of a process; processes */
    double seconds, samples_per_s;
} training_record;

void training_record_free(training_record *r);
/* Whether the last epoch's model is worse than that before training: its loss on the evaluation set
 * is higher and its top-1 no better; without labels its SQNR is lower and its agreement no better.
 * False where nothing was evaluated. */
bool training_diverged(const training_record *r);

/* mem_alloc'ed texts, the caller's. */
rung_status report_training_text(const training_record *r, char **text, rung_error *err);
rung_status report_training_json(const training_record *r, char **text, rung_error *err);
/* One page: the learning curves and a table. title: the model's name. */
rung_status report_training_html(const training_record *r, const char *title, char **text,
                                 rung_error *err);

#endif
