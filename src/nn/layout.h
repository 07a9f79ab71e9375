/* Where an operand's elements are: what the float rows need beside stored_count and
 * stored_strides. */
#ifndef RUNG_NN_LAYOUT_H
#define RUNG_NN_LAYOUT_H

#include "ops/lower.h"

/* Stored as N, spatial..., C and not in ONNX order. Constants never are. */
bool operand_channels_last(const operand *o);

/* order[i]: the ONNX dimension that stands at place i in memory, outermost first. */
void operand_order(const operand *o, int order[RUNG_MAX_RANK]);

/* The tensor as [outer][n][inner] in memory around the dimensions marked in `axes` (bit i: ONNX
 * dimension i), which must stand side by side there (dimensions of 1 do not matter). */
bool operand_block(const operand *o, unsigned axes, size_t *outer, size_t *n, size_t *inner);

/* The same places in memory: equal dims and layout (layouts do not differ where at most one of the
 * channel and spatial dims is more than 1, but then their strides are compared). */
bool operand_same_storage(const operand *a, const operand *b);

/* Whether the node has operand i: absent ones have type RUNG_UNDEFINED or lie beyond n_in, and the
 * one that the epilogue adds is not the node's. */
bool has_input(const lowering *l, int i);

/* Input i as it is read during a run: from its buffer or, when it is constant, from a copy. */
typedef struct source {
    int         buf;
    const void *fixed; /* NULL: bufs[buf] */
} source;
rung_status source_open(const lowering *l, int i, source *out, rung_error *err);
static inline const void *source_data(const source *s, void *const *bufs)
{
    return s->fixed ? s->fixed : bufs[s->buf];
}

/* Axis -rank..rank-1 brought to 0..rank-1; false: out of range. */
bool axis_normal(int64_t axis, int rank, int *out);

/* A constant input as integers (shapes, axes, pads): at most RUNG_MAX_RANK * 2 of them. Returns how
 * many, -1 when it is not a constant of an integer type or has more. */
int constant_ints(const lowering *l, int i, int64_t v[RUNG_MAX_RANK * 2]);

/* A constant input of one float32 element; absent: *v stays. False: another input. */
bool constant_number(const lowering *l, int i, float *v);

#endif
