/* What is remembered of an activation while calibrating: a streaming histogram of fixed memory.
 *
 * Bins have the width 2^k and are aligned to 0, 4,096 to either side; when a value falls outside, k
 * grows and bins merge pairwise, so the result does not depend on the order of the data nor on the
 * batches (EMA's average excepted, which follows the batches by definition). Memory: 64 KiB. */
#ifndef RUNG_QUANT_OBSERVER_H
#define RUNG_QUANT_OBSERVER_H

#include "base/ranks.h"

typedef struct observer observer;

/* with_histogram = false: minimum, maximum and moving averages only. NULL: memory is out. */
observer *observer_new(bool with_histogram);
void      observer_free(observer *o);

/* One batch of the tensor, split over threads by the caller's choice of n_threads. */
void observer_see(observer *o, const float *x, size_t n, int n_threads);
/* b's observations are added to a's: values that share one set of parameters. */
void observer_merge(observer *a, const observer *b);
/* To be appended: remembers the ranges of so many batches, from the first on. */
rung_status observer_keep_trail(observer *o, size_t n_batches, rung_error *err);
/* b's observations, which have a trail, behind a's: a is as if it had seen both. */
void observer_append(observer *a, const observer *b);
/* What all processes saw, in their order, becomes everyone's: list [n], with trails; NULL: no
 * observer. */
rung_status observers_join(ranks *r, observer *const *list, size_t n, rung_error *err);

size_t observer_seen(const observer *o);       /* finite values */
size_t observer_not_finite(const observer *o); /* NaN and Inf: counted, not ranged */

typedef struct range {
    float lo, hi;
} range;

/* bits: of the integer the range is for; symmetric: about 0. lo = hi = 0 when nothing was seen. */
range observer_range(const observer *o, rung_range method, double percentile, int bits,
                     bool symmetric);

#endif
