/* What reductions' evaluation and gradients share. */
#ifndef RUNG_OPS_REDUCE_H
#define RUNG_OPS_REDUCE_H

#include "ops/args.h"

/* The axes that go: from input 1 (list) or the attribute; none: all, or none at all where
 * noop_with_empty_axes says so. */
rung_status reduced_axes(const node *n, const tensor *list, int rank, axes *out, rung_error *err);

#endif
