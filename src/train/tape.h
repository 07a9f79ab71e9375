/* A graph made trainable for a fixed number of samples: forward, then one reverse walk over the
 * nodes. The graph is static, so nothing is recorded at run time.
 *
 * Of a prepared graph (quant/qat.h) the forward is the integer engine on the converted graph, made
 * anew whenever the parameters change: outputs are those of the deployed model, to the last bit.
 * The codes it leaves (one byte an activation) are all that is kept; what the backward walk reads
 * beside them is dequantized or recomputed when its turn comes. The backward of a FakeQuantize is
 * the straight-through estimator with the gradient of the step size of LSQ (Esser 2020).
 *
 * Of a float graph the forward keeps float32 values. BatchNormalization uses the batch's statistics
 * where `batch_stats` is set and moves the running ones. */
#ifndef RUNG_TRAIN_TAPE_H
#define RUNG_TRAIN_TAPE_H

#include "train/params.h"

typedef struct tape tape;

typedef struct tape_options {
    size_t batch; /* samples a run: the inputs' first dimension, which the model leaves open */
    /* One entry per graph input (NULL: none given), each NULL or the input's dims, for those that
     * the model leaves open beside the first. Read while the tape is made. */
    const int64_t *const *input_dims;
    int    n_threads; /* 0: all processors */
    bool   batch_stats;
    float  momentum; /* of the running statistics: new = momentum * old + (1 - momentum) * batch;
                      * 0: the node's own (ONNX: 0.9) */
    /* Values that count as outputs behind the graph's own: for losses on features. */
    const int *extra;
    int        n_extra;
    /* Otherwise the gradients of scales are 0; that of a graph input's always is: the data's range
     * is known, and the gradient of the data would cost as much as a layer. */
    bool learn_act_scales, learn_weight_scales;
    /* [p->n]: scales whose pairs' values are to be ranged in the backward walk (tape_seen); NULL:
     * none. Read while the tape is made. */
    const bool *observe;
} tape_options;

/* g and p are read during the tape's life. RUNG_EUNSUPPORTED names a node without a gradient that
 * lies between a parameter and an output. */
rung_status tape_create(const graph *g, const params *p, const tape_options *opt, tape **out,
                        rung_error *err);
void        tape_free(tape *t);

size_t tape_bytes(const tape *t); /* of memory: buffers, steps, the engine */

/* The graph's inputs, in its order, for opt.batch samples: to be written (row-major, ONNX
 * order). */
int           tape_n_inputs(const tape *t);
const tensor *tape_input(const tape *t, int i);
/* The outputs (extra ones behind), row-major; valid until the next forward. */
int           tape_n_outputs(const tape *t);
const tensor *tape_output(const tape *t, int i);
/* dL/doutput i, to be written by the caller before tape_backward: as tape_output. */
float *tape_output_grad(const tape *t, int i);

/* data: [p->total], the parameters to use; `changed`: since the last call. A state parameter
 * (running statistics) is written to state ([p->total], may be data; NULL: dropped). */
rung_status tape_forward(tape *t, const float *data, bool changed, float *state, rung_error *err);
/* Adds dL/dparameter to grad: [p->total]. */
rung_status tape_backward(tape *t, const float *data, float *grad, rung_error *err);
/* [2 p->n], of the last backward walk: of a scale that is observed the largest of -x and the
 * largest of x over all values x that its pairs quantize, of others -infinity. NULL where none
 * is. */
const float *tape_seen(const tape *t);

#endif
