/* A walk over the rows of a broadcast result: its last axis, with those before it that all operands
 * go through in the same way. */
#ifndef RUNG_OPS_WALK_H
#define RUNG_OPS_WALK_H

#include "graph/op.h"

#define WALK_OPERANDS 3

/* After walk_begin and each walk_next that gives true: `row` elements of the result begin at
 * element `out`, those of operand i at offset[i] (one element for all where repeats[i]). */
typedef struct walk {
    size_t  row, out;
    size_t  offset[WALK_OPERANDS];
    bool    repeats[WALK_OPERANDS];
    int     rank, n;
    int64_t dims[RUNG_MAX_RANK], at[RUNG_MAX_RANK];
    int64_t strides[WALK_OPERANDS][RUNG_MAX_RANK];
} walk;

/* in[i]: operands that broadcast to out. False: the result has no element, nothing to walk. */
bool walk_begin(walk *w, const tensor *out, const tensor *const *in, int n);
bool walk_next(walk *w);

/* n elements of operand i's row, from its element `first` on. */
void walk_doubles(const walk *w, int i, const tensor *t, size_t first, size_t n, double *v);
void walk_ints(const walk *w, int i, const tensor *t, size_t first, size_t n, int64_t *v);

/* Row-major strides of dims, in elements. */
void dims_strides(int rank, const int64_t *dims, int64_t *strides);

#endif
