/* What an observer holds. Internal to quant. */
#ifndef RUNG_QUANT_HISTOGRAM_H
#define RUNG_QUANT_HISTOGRAM_H

#include "quant/observer.h"

enum {
    HIST_SIDE = 4096,          /* bins to either side of 0 */
    HIST_BINS = 2 * HIST_SIDE,
    HIST_ZERO = HIST_BINS,     /* exact zeros: every range holds them without error */
    HIST_TRASH = HIST_BINS + 1, /* what is not finite */
    HIST_SLOTS = HIST_BINS + 2,
};

struct observer {
    size_t    seen, not_finite;
    float     lo, hi; /* of the finite values; lo > hi: none seen */
    float     ema_lo, ema_hi;
    int       exponent; /* bins are 2^exponent wide */
    /* [HIST_SLOTS], NULL without histogram. With w the width, bin HIST_SIDE + i holds [i w,
     * (i+1) w) less 0 itself, bin HIST_SIDE - 1 - i holds (-(i+1) w, -i w] less 0. */
    uint64_t *bins;
    /* Ranges of the batches that had finite values, two floats each; NULL: not kept. */
    float    *trail;
    size_t    n_trail, most; /* batches in it, and those that it has room for */
};

/* A run of values of one bin, cut to [lo, hi] of the observer: uniform in [from, to]. */
typedef struct bar {
    double from, to, count;
    double density; /* count / (to - from); 0 where all its values are one */
} bar;

/* The bins that are not empty, in ascending order, exact zeros left out. list: [HIST_BINS]. Returns
 * their number. */
int histogram_bars(const observer *o, bar *list);

/* What a range [lo, hi] costs on these bars; levels: of the integer. */
typedef double (*range_cost)(const bar *bars, int n, double lo, double hi, int levels);
double mse_cost(const bar *bars, int n, double lo, double hi, int levels);
double entropy_cost(const bar *bars, int n, double lo, double hi, int levels);

#endif
