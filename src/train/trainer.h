/* One step of training: a batch is cut into chunks, each goes forward and backward on a tape, and
 * the sum of their gradients moves the parameters.
 *
 * A lane is a tape (and the teacher's engine) for one thread; lanes take chunks as they are free,
 * and gradients are added in the order of the chunks. The size of a chunk does not depend on the
 * number of threads, so neither does any result. Where normalizations use the batch's statistics,
 * the whole batch is one chunk, and one lane has all threads, unless the caller wants less: then
 * they are those of a chunk (E. Hoffer et al., Train longer, generalize better, NeurIPS 2017,
 * section 4.1), chunks are equal parts of the batch, and the running ones follow their mean.
 *
 * Of several processes each is given its own samples of a step; gradients and ranges are those of
 * all. The batch's statistics are those of each process's own samples, as in PyTorch, and the
 * running ones the mean over the processes. */
#ifndef RUNG_TRAIN_TRAINER_H
#define RUNG_TRAIN_TRAINER_H

#include "base/ranks.h"
#include "data/data.h"
#include "train/loss.h"
#include "train/optimizer.h"

typedef struct trainer_options {
    optimizer_options optimizer; /* `total` is wanted: the steps of the whole run */
    loss_options      loss;
    size_t            batch; /* samples of a step, at most: of this process */
    /* 0: what keeps a chunk's activations near 1 MiB, at most batch / 4. With batch_stats (0: the
     * batch) the least: it becomes the next that divides the batch. */
    size_t            chunk;
    int               n_threads; /* 0: all processors */
    rung_scales       scales; /* RUNG_SCALES_DEFAULT: as the graph says (qat_scales_of) */
    bool              batch_stats; /* float graphs: normalize by the batch */
    float             momentum;    /* of running statistics, as in tape.h */
    /* Nagel 2022: the gradient of dampen * sum (w - q(w))^2 over the weights, rising from 0 to its
     * full weight over the run by half a cosine; 0: off. */
    float             dampen;
    /* Nagel 2022 too: a weight whose code turns back in a larger share of steps than this (a moving
     * average with factor 0.99) stays at the rounded average of its codes; 0: off. */
    float             freeze_oscillating;
    /* Tensors whose values are to be like the teacher's of the same name (loss.features). */
    const char *const *features;
    int                n_features;
    ranks             *ranks; /* processes that step together; NULL: this one alone */
} trainer_options;

typedef struct trainer trainer;

/* g: float or prepared (quant/qat.h). teacher (NULL: none): a float graph with the same inputs and
 * outputs. Both are read during the trainer's life. An output that a Softmax makes counts as what
 * it is made from. */
rung_status trainer_create(const graph *g, const graph *teacher, const trainer_options *opt,
                           trainer **out, rung_error *err);
void        trainer_free(trainer *t);

typedef struct step_result {
    double loss;      /* mean over the samples, of all processes here and below */
    size_t n, correct; /* samples, and those whose largest score is the label */
    double norm;      /* length of the gradient, before clipping */
    float  rate;
} step_result;

/* One step on b (b->labels may be NULL; mixed and share as in loss.h). b->n <= opt.batch, and 0
 * only among several processes; with batch_stats it is a multiple of the chunk. Nothing has moved
 * after a failure: RUNG_EMODEL where numbers are not finite names the step, and the layer or the
 * parameter. */
rung_status trainer_step(trainer *t, const batch *b, const int64_t *mixed, const float *share,
                         step_result *out, rung_error *err);
/* Samples [first, first + n) of b: the arrays are b's. inputs: [b->n_inputs]. */
batch batch_part(const batch *b, size_t first, size_t n, batch_input *inputs);
/* From now on normalizations use their running statistics. */
rung_status trainer_freeze_statistics(trainer *t, rung_error *err);

/* From now on observed scales stay as they are. */
rung_status trainer_freeze_scales(trainer *t, rung_error *err);

/* The parameters as they are, and the optimizer: for checkpoints. */
params    *trainer_params(trainer *t);
optimizer *trainer_optimizer(trainer *t);
/* How scales are trained, no default; of a float graph fixed. */
rung_scales trainer_scales(const trainer *t);
/* What else a checkpoint must hold: part 0, 1, ...; *size = 0: nothing. */
enum { TRAINER_STATES = 2 };
void        trainer_state(const trainer *t, int part, void **data, size_t *size);
/* The parameters to be used: the average, where one is kept. */
const float *trainer_weights(const trainer *t);
size_t       trainer_chunk(const trainer *t);
int          trainer_lanes(const trainer *t);
/* g with the given parameters: [p->total]; convert: its integer model, where g is prepared. */
rung_status trainer_graph(const trainer *t, const float *data, bool convert, graph **out,
                          rung_error *err);

#endif
