/* Depthwise convolution, channels-last, with a weight that changes: loops over the channels. oneDNN
 * needs up to three times the time, the most for the gradient of a convolution with strides. */
#ifndef RUNG_NN_DEPTHWISE_H
#define RUNG_NN_DEPTHWISE_H

#include "nn/layout.h"

/* One filter a channel, one or two spatial axes, x and y channels-last. */
bool depthwise_takes(const lowering *l);

/* As conv_training and conv_backward. */
rung_status depthwise_training(const lowering *l, step *s, rung_error *err);
rung_status depthwise_backward(const lowering *l, unsigned wanted, step *s, rung_error *err);

#endif
