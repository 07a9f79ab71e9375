/* Scales by observation, the other way beside learning them: moving averages of minimum and maximum
 * (B. Jacob et al., Quantization and training of neural networks for efficient integer-arithmetic-
 * only inference, CVPR 2018, section 3.1), with the meaning of PyTorch's
 * MovingAverageMinMaxObserver and MovingAveragePerChannelMinMaxObserver (averaging constant 0.01).
 *
 * What an activation's scale and zero point are made from is the average of the batches' ranges
 * before the step at hand: the batch goes through the arithmetic of the model as it would be
 * deployed then (PyTorch counts the batch itself, too). Those of a weight, symmetric, one for each
 * channel or one, follow the weight after each step. The averages begin with the range that an
 * activation's parameters stand for, and with that of the weight. */
#ifndef RUNG_TRAIN_OBSERVE_H
#define RUNG_TRAIN_OBSERVE_H

#include "train/params.h"

typedef struct observers observers;

/* g: prepared (quant/qat.h). The observers own a copy of it in which each activation's scale has a
 * zero point of its own, with the same ids and more, and *p, the caller's, is of that copy.
 * RUNG_EUNSUPPORTED names a scale whose pairs cannot be ranged together. */
rung_status observers_create(const graph *g, observers **out, params **p, rung_error *err);
void        observers_free(observers *o);
const graph *observers_graph(const observers *o);
/* [p->n]: what tape_options.observe is to be. */
const bool *observers_watched(const observers *o);
/* One more step: seen, [2 p->n], is that of the whole batch (tape_seen; the larger of any two
 * chunks'), data holds the weights after it. Writes scales and zero points to data and to average
 * (NULL: none). */
void observers_step(observers *o, const float *seen, float *data, float *average);
/* The moving averages: what a checkpoint must hold. */
void observers_state(const observers *o, void **data, size_t *size);

#endif
