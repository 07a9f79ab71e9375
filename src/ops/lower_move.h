/* How the movers build their steps. */
#ifndef RUNG_OPS_LOWER_MOVE_H
#define RUNG_OPS_LOWER_MOVE_H

#include "ops/lower.h"

typedef struct mover {
    const lowering *l;
    move_step *m;
    size_t elem, cap;
} mover;

/* Where operands of different type, or partly quantized, or of elements that cannot be moved singly
 * stand: RUNG_EUNSUPPORTED. */
rung_status mover_begin(mover *b, const lowering *l, rung_error *err);
/* A copy of dims elements from input `in` (or -1: the fill value) to output `out`, offsets and
 * strides in elements. The codes are translated to the output's parameters. */
rung_status mover_add(mover *b, int in, int out, int64_t x_offset, int64_t y_offset, int rank,
                      const int64_t *dims, const int64_t *x_strides, const int64_t *y_strides,
                      rung_error *err);
/* Fills the step; one copy that changes nothing becomes a view. */
rung_status mover_end(mover *b, const char *kernel, step *s, rung_error *err);

#endif
