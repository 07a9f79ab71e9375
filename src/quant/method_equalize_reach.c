/* Ranges for samples that were not calibrated on. Some go beyond all that calibration saw, and what
 * is clipped of them may be most of the error. How far they go shows where samples are left out:
 * the samples are split into folds, and the largest value of each is held against the range that
 * the others give. Equalization makes it worse: each channel then reaches the end of the range, and
 * each may go beyond; so the factors are those that the other folds give. Where all samples reach
 * the same end (the white of images, what a Clip bounds) nothing is stretched.
 *
 * The farthest of the folds is the exception, and a wider range gives coarser steps to all values
 * of all samples: a range is stretched half as far. */
#include <math.h>
#include <string.h>

#include "quant/equalize.h"

/* The statistics without one fold; FOLDS: with all. */
static void leave_out(equalizer *q, int fold)
{
    for (size_t e = 0; e < q->n_elements; e++) {
        channel_stats *s = &q->stats[e];
        s->lo = s->hi = 0;
        for (int k = 0; k < FOLDS; k++) {
            s->lo = k == fold ? s->lo : fminf(s->lo, s->lows[k]);
            s->hi = k == fold ? s->hi : fmaxf(s->hi, s->highs[k]);
        }
    }
}

/* How far the fold goes beyond the range of v that the others give. */
static double excess(const equalizer *q, int v, int fold)
{
    double lo = 0, hi = 0, low = 0, high = 0;
    for (size_t c = 0; c < channels_of_value(q, v); c++) {
        const channel_stats *s = &q->stats[(size_t)q->base[v] + c];
        const double f = factor_of(q, v, c);
        lo = fmin(lo, f * s->lo);
        hi = fmax(hi, f * s->hi);
        low = fmin(low, f * s->lows[fold]);
        high = fmax(high, f * s->highs[fold]);
    }
    return fmax(hi > 0 ? high / hi : 1, lo < 0 ? low / lo : 1);
}

/* Half as far as that. */
static double half(double reach)
{
    return 1 + (reach - 1) / 2;
}

static void add_excess(const equalizer *q, int fold, double *reach)
{
    for (size_t v = 0; v < q->g->n_values; v++)
        if (channels_of_value(q, (int)v))
            reach[v] = fmax(reach[v], half(excess(q, (int)v, fold)));
}

rung_status equalizer_reach(equalizer *q, double *plain, double *equal, rung_error *err)
{
    channel_stats *kept = arena_copy(q->mem, q->stats, q->n_elements * sizeof *kept);
    double *factor = arena_copy(q->mem, q->factor, q->n_elements * sizeof *factor);
    if (!kept || !factor)
        return fail_memory(err, "folds", q->n_elements * sizeof *kept);
    for (size_t v = 0; v < q->g->n_values; v++)
        plain[v] = equal[v] = 1;
    for (int fold = 0; fold < FOLDS; fold++) {
        leave_out(q, fold);
        for (size_t e = 0; e < q->n_elements; e++)
            q->factor[e] = 1;
        add_excess(q, fold, plain);
        equalizer_refactor(q);
        add_excess(q, fold, equal);
    }
    memcpy(q->stats, kept, q->n_elements * sizeof *kept);
    memcpy(q->factor, factor, q->n_elements * sizeof *factor);
    return RUNG_OK;
}
