/* Losses on the outputs of a network and their gradients. */
#ifndef RUNG_TRAIN_LOSS_H
#define RUNG_TRAIN_LOSS_H

#include "graph/graph.h"

/* A weighted sum; terms of weight 0 are not computed. */
typedef struct loss_options {
    float cross_entropy;   /* softmax cross-entropy of output 0 against the labels */
    float label_smoothing; /* in [0, 1): share of the target spread evenly (Szegedy 2016) */
    float mse;             /* mean squared error of every output against the teacher's */
    float distill;         /* KL(teacher || student) of softmax(output 0 / T), times T^2
                            * (Hinton 2015) */
    float temperature;     /* T; 0: 1 */
    float features;        /* mean squared error of the extra outputs, each over the teacher's mean
                            * square (Romero 2015) */
} loss_options;

/* One output: student, teacher (data NULL: none) and the gradient to be written; dims[0] samples. */
typedef struct loss_output {
    const tensor *y, *teacher;
    float        *dy;
} loss_output;

/* The loss summed over samples [0, n) divided by n_total (a batch may come in pieces), and its
 * gradient; samples from n on get gradient 0. labels: [n], -1: without; NULL: none. mixed (NULL:
 * none): second labels, sample i counts label 1 - share[i] (mixup). n_outputs of the graph come
 * first, then extras. *correct (may be NULL): samples whose largest score is the label. */
rung_status loss_eval(const loss_options *opt, const loss_output *out, int n_outputs, int n_extra,
                      size_t n, size_t n_total, const int64_t *labels, const int64_t *mixed,
                      const float *share, double *loss, size_t *correct, rung_error *err);

#endif
