/* The trials of a tune: what was tried, what came of it, what is recommended. */
#ifndef RUNG_REPORT_TUNE_H
#define RUNG_REPORT_TUNE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"

/* In the order in which they are tried, cheap to dear. */
typedef enum trial_kind {
    TRIAL_FLOAT = 0, /* the reference */
    TRIAL_DYNAMIC,
    TRIAL_WEIGHTS,
    TRIAL_STATIC,    /* rounded to the nearest */
    TRIAL_AUTO,      /* the cheap methods */
    TRIAL_ADAROUND,  /* and learned rounding */
    TRIAL_MIXED,     /* layers to blame stay float */
    TRIAL_QAT,
    TRIAL_QAT_LONG,
    TRIAL_KINDS,
} trial_kind;

typedef enum trial_state {
    TRIAL_UNTRIED = 0, /* note: why */
    TRIAL_DONE,
    TRIAL_FAILED,      /* note: the sentence */
} trial_state;

/* Accuracies in percent, -1: not known; loss and SQNR NaN: not known. */
typedef struct tune_trial {
    trial_state state;
    bool   kept;   /* of an earlier run */
    bool   answer; /* it is what was asked for; otherwise a row to compare with */
    double top1, agreement, loss, sqnr_db;
    double drop;   /* points of top-1, without labels of agreement */
    size_t bytes;  /* of the file */
    /* Latency of a sample, least of many rounds, in which what else the machine does counts least;
     * and over that of the float model, which takes turns with it. */
    double ms, ratio;
    double int_share;    /* of its multiply-accumulates that is in integers */
    double seconds;      /* making, writing and measuring it */
    size_t wide_layers, float_layers; /* of TRIAL_MIXED: 16-bit activations; in float, and their */
    double wide_share, float_share;   /* shares of the work */
    size_t epochs;       /* of TRIAL_QAT and TRIAL_QAT_LONG */
    char   note[512];
} tune_trial;

typedef struct tune_record {
    char        model[256], data[256], eval[256]; /* what the caller calls them, cut where long */
    tune_trial  trials[TRIAL_KINDS];
    double      max_drop;    /* points */
    double      time_budget; /* seconds; 0: none */
    bool        prefer_size; /* otherwise latency */
    bool        no_train;
    double      min_share;   /* of the work that `static` has as asked, what a mixed model must */
    int         weight_bits, act_bits;
    double      matrix_share; /* of the float model's work: products with matrices */
    size_t      samples, calibration, eval_samples;
    bool        labelled;     /* the drop is of top-1; otherwise of agreement */
    int         threads;
    bool        met;
    trial_kind  best;         /* TRIAL_FLOAT: nothing could be quantized */
    double      seconds;      /* of all trials, those kept from earlier runs too */
    char        reason[1024];
} tune_record;

const char *trial_name(trial_kind k);  /* "static, auto": for a person */
const char *trial_key(trial_kind k);   /* "static-auto": for programs and files */
bool        trial_trains(trial_kind k);
/* Of the trials that are done or kept, the quantized one before training with the least drop;
 * TRIAL_FLOAT: there is none. trains: among those that train. */
trial_kind tune_least_drop(const tune_record *r, bool trains);
/* The share of a trial's multiply-accumulates in the integers that were asked for: those of layers
 * in float, or with 16-bit activations where fewer bits lose too much, are not. */
double tune_asked_share(const tune_record *r, trial_kind k);

/* mem_alloc'ed texts, the caller's. */
rung_status report_tune_text(const tune_record *r, char **text, rung_error *err);
rung_status report_tune_json(const tune_record *r, char **text, rung_error *err);
rung_status report_tune_html(const tune_record *r, char **text, rung_error *err);

#endif
