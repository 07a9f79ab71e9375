/* Training rows: float32 forward with operands that change between runs, and backward. oneDNN's
 * primitives and plain C loops, in the layout the operands have; each row is tested against the
 * operator's plain entry (op_def.eval, op_def.grad). */
#ifndef RUNG_NN_BACKWARD_H
#define RUNG_NN_BACKWARD_H

#include "ops/step.h"

/* Like nn_lower, but weights are ordinary operands: nothing is packed for good. l->epi is empty.
 * Where nn_lower itself reads the operand from its buffer, this is nn_lower. The buffers of
 * constant operands hold their data too. RUNG_EUNSUPPORTED: no fast row: op_def.eval.
 *
 * Steps of both kinds that are `library` and were lowered for n_threads = 1 may be run inside a
 * parallel region, by one thread at a time; each lowering is a step of its own. Activations that
 * the operator wants channels-last are fast so, and weights are in ONNX order; the input of a first
 * layer (up to 3 channels) may be plain while its output is channels-last, and is fast so. */
rung_status nn_lower_training(const lowering *l, step *s, rung_error *err);

/* Fills s with the backward step of l's node. Its buffers: the inputs, the outputs, dL/doutput for
 * each output, dL/dinput for each input, each laid out as its operand; NULL where the operand is
 * absent, where the operator's grad_reads do not name it, or where it is not wanted. Bit i of
 * wanted: dL/dinput i is written whole; not every row has each mask, but those of the operands that
 * are trained (a convolution's and a product's three, both of Add, the input of all others) it has.
 * RUNG_EUNSUPPORTED: the caller uses op_def.grad. */
rung_status nn_lower_backward(const lowering *l, unsigned wanted, step *s, rung_error *err);

/* BatchNormalization with the batch's own statistics (with those of its operands it is a row as the
 * others); l's inputs are the node's five. Buffers: x, scale, bias, y, mean, variance (the batch's,
 * biased: written). Its backward's: x, scale, mean, variance, dL/dy, dL/dx (may be NULL),
 * dL/dscale, dL/dbias. */
rung_status nn_lower_batchnorm_training(const lowering *l, step *s, rung_error *err);
rung_status nn_lower_batchnorm_backward(const lowering *l, step *s, rung_error *err);

#endif
