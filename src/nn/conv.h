/* A convolution as oneDNN counts it, for the rows that run it forward and backward. */
#ifndef RUNG_NN_CONV_H
#define RUNG_NN_CONV_H

#include "nn/lib.h"
#include "ops/window.h"

/* Formats of the operands as they are stored (bias: zeroed where there is none), and those that a
 * primitive is asked for: w_any, any format of the weight; x_like, x in the layout of y.
 * oneDNN's dilation 0 is ONNX's 1. */
typedef struct conv_params {
    int            n;
    int64_t        groups;
    dnnl_dims_t    strides, dilations, begin, end;
    dnnl_memory_desc_t x, x_like, w, w_any, bias, y;
} conv_params;

void conv_set_window(conv_params *p, const window *w);

/* Everything but the window. RUNG_EUNSUPPORTED: operands that do not fit each other. */
rung_status conv_describe(const lowering *l, conv_params *p, bool transposed, rung_error *err);

/* Multiply-accumulates over these positions: the output's of Conv, the input's of a transposed
 * one. */
int64_t conv_macs(const lowering *l, const operand *positions);

#endif
