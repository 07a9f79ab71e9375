/* Small networks and what the tests of training do with them. */
#ifndef RUNG_TESTS_TRAIN_KIT_H
#define RUNG_TESTS_TRAIN_KIT_H

#include "base/rng.h"
#include "train/tape.h"

#include "graph_kit.h"

/* A tape over a graph, with its parameters, inputs that are random numbers, and a loss: the sum of
 * all outputs times fixed random numbers, so that the gradient of the outputs is those numbers. */
typedef struct trial {
    const graph *g;
    params *p;
    tape   *t;
    float  *data, *grad; /* [p->total] */
    arena  *mem;
    rng     r;
} trial;

trial trial_begin(const graph *g, const tape_options *opt, uint64_t seed);
void  trial_end(trial *t);
/* The loss of these parameters; *rounding: what float32 sums may be off by, roughly. */
double trial_loss(trial *t, const float *data, double *rounding);
/* t->grad by the tape. */
void trial_gradient(trial *t);
/* The slope of the loss along a random direction of each parameter by finite differences equals
 * that of t->grad. */
void trial_check(trial *t);

/* Networks; x: [batch, 3, 8, 8] and [batch, 6]. */
graph *net_residual(rng *r);  /* Conv, BatchNormalization, Relu, Add, pools, Gemm */
graph *net_branches(rng *r);  /* one value with many users, Concat, a weight that is used twice */
graph *net_attention(rng *r); /* MatMul, Transpose, Softmax, LayerNormalization, Gelu, Reshape */

#endif
