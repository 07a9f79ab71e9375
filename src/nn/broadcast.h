/* Two operands that broadcast to the output, as rows in the output's order in memory. */
#ifndef RUNG_NN_BROADCAST_H
#define RUNG_NN_BROADCAST_H

#include "nn/layout.h"

typedef struct broadcast {
    source  a, b;
    /* The output as rows of `inner` elements: the dims outside them, the operands' steps there. */
    int     rank;
    int64_t dims[RUNG_MAX_RANK], a_strides[RUNG_MAX_RANK], b_strides[RUNG_MAX_RANK];
    size_t  count, inner;
    int     a_step, b_step; /* within a row: 1, or 0 where one element is for all */
} broadcast;

/* Of l's inputs 0 and 1; *k zeroed. RUNG_EUNSUPPORTED: operands that lie in another order. */
rung_status broadcast_open(const lowering *l, broadcast *k, rung_error *err);

/* Where the rows of the operands begin, as the output's rows are walked. */
typedef struct broadcast_cursor {
    int64_t at[RUNG_MAX_RANK], a, b;
} broadcast_cursor;
void broadcast_seek(const broadcast *k, size_t row, broadcast_cursor *c);
void broadcast_next(const broadcast *k, broadcast_cursor *c);

#endif
