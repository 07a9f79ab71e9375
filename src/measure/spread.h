/* A histogram that needs no range beforehand: bins of width 2^k aligned to 0; when a larger value
 * comes, k grows and bins merge pairwise. Fixed memory; the result does not depend on the order. */
#ifndef RUNG_MEASURE_SPREAD_H
#define RUNG_MEASURE_SPREAD_H

#include <stddef.h>
#include <stdint.h>

enum { SPREAD_SIDE = 1024, SPREAD_BINS = 2 * SPREAD_SIDE };

/* All zero is the empty spread. Bin SPREAD_SIDE + i holds [i w, (i + 1) w), w = 2^exponent. */
typedef struct spread {
    int      exponent;
    uint64_t n; /* values */
    float    lo, hi; /* of them */
    uint64_t bins[SPREAD_BINS];
} spread;

/* Values that are not finite are left out. */
void spread_add(spread *s, const float *x, size_t n);

/* counts[i]: values in the i-th of n equal parts of [lo, hi], lo < hi; a bin that straddles a
 * border is split in proportion. What lies outside is not counted; hi belongs to the last part. */
void spread_fold(const spread *s, double lo, double hi, int n, double *counts);

#endif
