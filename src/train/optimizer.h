/* Optimizers: one step over the block of parameters. */
#ifndef RUNG_TRAIN_OPTIMIZER_H
#define RUNG_TRAIN_OPTIMIZER_H

#include "train/params.h"

typedef enum optimizer_kind { OPTIMIZER_SGD, OPTIMIZER_ADAMW } optimizer_kind;
typedef enum schedule_kind { SCHEDULE_COSINE, SCHEDULE_STEP, SCHEDULE_CONSTANT } schedule_kind;

typedef struct optimizer_options {
    optimizer_kind kind;
    float rate;           /* the learning rate at its highest */
    float momentum;       /* SGD */
    bool  nesterov;
    float beta1, beta2, epsilon; /* AdamW (Loshchilov 2019) */
    float weight_decay;   /* of weights only: not of biases, norms and step sizes */
    float clip_norm;      /* gradients longer than this are scaled to it; 0: off */
    float scale_rate; /* the rate of step sizes, as a share of rate; both optimizers move their
                       * logarithms */
    schedule_kind schedule;
    size_t warmup, total; /* steps: linear from 0, then the schedule to `total` */
    size_t step_every;    /* SCHEDULE_STEP: times step_factor every so many steps */
    float step_factor;
    float ema; /* of the parameters: average = f average + (1 - f) now with f = min(ema, (1 + k) /
                * (10 + k)) in step k; 0: off */
} optimizer_options;

typedef struct optimizer {
    optimizer_options opt;
    const params *p;
    size_t step;
    float *first, *second; /* momentum, second moment: [p->total]; NULL where not needed */
    float *average;        /* EMA; NULL: off */
} optimizer;

rung_status optimizer_create(const params *p, const optimizer_options *opt, optimizer **out,
                             rung_error *err);
void        optimizer_free(optimizer *o);
float       optimizer_rate(const optimizer *o); /* of the coming step */
/* Moves data by grad ([p->total] each; grad is scaled in place where it is clipped). *norm (may be
 * NULL): the gradients' length before. RUNG_EMODEL names the parameter whose gradient is not
 * finite; nothing has moved then. */
rung_status optimizer_step(optimizer *o, float *data, float *grad, double *norm, rung_error *err);
/* What a checkpoint must hold beside the parameters: floats and step, in one order. */
size_t optimizer_state(const optimizer *o, float **parts[3]);

#endif
