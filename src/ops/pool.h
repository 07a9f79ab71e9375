/* What pools' evaluation and gradients share. */
#ifndef RUNG_OPS_POOL_H
#define RUNG_OPS_POOL_H

#include "ops/window.h"

/* Positions of the window at `at` inside the padded input (in: its spatial dims): what
 * count_include_pad divides by. */
double pool_extent(const window *w, const int64_t *in, const int64_t *at);

#endif
