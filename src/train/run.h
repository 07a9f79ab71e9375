/* A whole run: epochs, evaluation, the best so far, checkpoints, metrics. */
#ifndef RUNG_TRAIN_RUN_H
#define RUNG_TRAIN_RUN_H

#include "data/data.h"
#include "report/training.h"
#include "train/augment.h"
#include "train/trainer.h"

typedef struct train_options {
    trainer_options trainer; /* optimizer.total, warmup, step_every are set here, from epochs */
    size_t          epochs;
    double          warmup; /* epochs, may be a part of one */
    double          step_epochs; /* SCHEDULE_STEP: the rate falls every so many epochs */
    augment_options augment;
    /* Float training with statistics of the batch: from this epoch on (from 1; 0: never) the
     * running ones are used, as in the deployed model. */
    size_t          freeze_statistics;
    size_t          freeze_scales; /* observed scales stay after so many epochs; 0: never */
    uint64_t        seed;
    const char     *checkpoint; /* a folder, made where it is missing; NULL: none are written */
    bool            resume;     /* goes on from the checkpoint, where there is one */
    double          checkpoint_seconds; /* between two within an epoch; 0: 60. Each end has one */
    const char     *metrics; /* a file of JSON lines; NULL: none */
    int             eval_batch; /* samples at a time; 0: chosen by the model's size */
    bool            quiet;
} train_options;

/* What train_run refuses by options and declared shapes, also for the float model that g is to be
 * prepared from: before calibration, which may take long. */
rung_status train_check(const graph *g, const graph *teacher, const dataset *data,
                        const train_options *opt, rung_error *err);

/* Trains g (float, or prepared: quant/qat.h). teacher (NULL: none) is what losses follow and what
 * evaluation compares with. The model is evaluated on eval (NULL: never) before training and after
 * each epoch, as it would be deployed, and the best is what comes out: by top-1, then by the loss;
 * without labels by agreement with the teacher, then by SQNR. Without eval the last one comes out.
 *
 * *model: the deployable one, *trained (NULL: not wanted): g with the same parameters. The same
 * options, seed and data give the same bytes for any number of threads (but for statistics of the
 * batch), also when the run was killed and resumed any number of times.
 *
 * Of several processes (opt->trainer.ranks) each makes the same call; opt->trainer.batch is of
 * each, so that a step has that times their number. Evaluation is split too. Process 0 reads and
 * writes files and shows progress; all return the same model and record, or the same failure. */
rung_status train_run(const graph *g, const graph *teacher, dataset *data, dataset *eval,
                      const train_options *opt, graph **model, graph **trained,
                      training_record **record, rung_error *err);

#endif
