/* From a float model and a drop that is allowed to the quantized model to use: post-training
 * quantization from cheap to dear, then training, each trial measured on this machine. */
#ifndef RUNG_TUNE_TUNE_H
#define RUNG_TUNE_TUNE_H

#include "data/data.h"
#include "report/tune.h"
#include "train/run.h"

typedef struct tune_options {
    rung_quant_options quant; /* bits, names, qconfig, samples, seed, threads; methods are chosen */
    train_options      train; /* of the shorter training; the longer has LONG_TRAINING times as many
                               * epochs. Checkpoints are the tune's own */
    double             max_drop;    /* points */
    double             time_budget; /* seconds of all trials, earlier runs included; 0: none. What
                                     * has begun is ended, training has as many epochs as fit */
    double             min_share; /* of the work that `static` has as asked, what a mixed model
                                   * must have to be an answer; 0: any is */
    bool               prefer_size, no_train;
    const char        *work; /* a folder, made where it is missing: a record and a model for each
                              * trial. Those of the same model, data and settings are used again */
    const char        *model, *data, *eval; /* what they are called; part of "the same" */
    bool               quiet;
} tune_options;

enum { LONG_TRAINING = 3, TUNE_CALIBRATION = 500 }; /* samples, where quant.samples is 0 */

/* g: float. *out: the recommended model, or the best found (record->met). Both are the caller's. */
rung_status tune_run(const graph *g, dataset *data, dataset *eval, const tune_options *opt,
                     graph **out, tune_record **record, rung_error *err);

#endif
