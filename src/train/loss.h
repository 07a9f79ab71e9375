/* Losses on the outputs of a network and their gradients. */
#ifndef RUNG_TRAIN_LOSS_H
#define RUNG_TRAIN_LOSS_H

#include "graph/graph.h"

/* A weighted sum; terms of weight 0 are not computed. Each term is a mean over samples. */
typedef struct loss_options {
    float cross_entropy;   /* softmax cross-entropy of output 0 against the labels */
    float label_smoothing; /* in [0, 1): share of the target spread evenly (Szegedy 2016) */
    float mse;             /* mean squared error of every output against the teacher's */
    float distill;         /* KL(teacher || student) of softmax(output / T), times T^2, of every
                            * output (Hinton 2015). Classes are the last axis, of rank 4 and more
                            * axis 1; the mean over the rows of a sample counts */
    float temperature;     /* T; 0: 1 */
    float features;        /* mean squared error of the extra outputs, of each sample over the mean
                            * square of the teacher's (Romero 2015) */
} loss_options;

/* One output: student, teacher (data NULL: none, terms that need it leave it out) and the gradient
 * to be written; float32, dims[0] samples. */
typedef struct loss_output {
    const tensor *y, *teacher;
    float        *dy;
} loss_output;

/* What samples are to be: labels: [n], -1: without; NULL: none. Where mixed is given (NULL: none),
 * sample i counts share[i] for mixed[i] and the rest for labels[i] (mixup, Zhang 2018). */
typedef struct loss_targets {
    const int64_t *labels, *mixed;
    const float   *share;
} loss_targets;

/* The loss summed over samples [0, n) divided by n_total (a batch may come in pieces), and its
 * gradient; samples from n on get gradient 0. n_outputs of the graph come first, then extras.
 * *correct (may be NULL): samples whose largest score is labels[i]. One thread. */
rung_status loss_eval(const loss_options *opt, const loss_output *out, int n_outputs, int n_extra,
                      size_t n, size_t n_total, const loss_targets *targets, double *loss,
                      size_t *correct, rung_error *err);

#endif
