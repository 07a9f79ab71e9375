/* Ranges for samples that were not calibrated on. Some go beyond all that calibration saw, and what
 * is clipped of them may be most of the error. How far they go shows where samples are left out:
 * the samples are split into folds, and the largest value of each is held against the range that
 * the others give. Equalization makes it worse: each channel then reaches the end of the range, and
 * each may go beyond; so the factors are those that the other folds give. Where all samples reach
 * the same end (the white of images, what a Clip bounds) nothing is stretched.
 *
 * A wider range costs as well: all values get coarser steps. A range is stretched by that part of
 * the reach that leaves the least squared error: what would have been clipped of the folds, each
 * with a range that the others give, and the rounding of all values. Of what is clipped only the
 * largest value of each channel in each fold is known, and counted: a lower bound. */
#include <math.h>
#include <string.h>

#include "quant/equalize.h"

enum { PARTS = 5, NONE = -1 }; /* of the reach: 0, 1/4 ... 1 */

/* By value id, in units of the range. */
typedef struct reaching {
    double *all;            /* the farthest fold beyond what the others reach: >= 1 */
    double *known;          /* the same without the fold that is looked at */
    double *clipped[PARTS]; /* squares of what is beyond, of all folds */
} reaching;

/* The statistics without folds a and b. */
static void leave_out(equalizer *q, int a, int b)
{
    for (size_t e = 0; e < q->n_elements; e++) {
        channel_stats *s = &q->stats[e];
        s->lo = s->hi = 0;
        for (int k = 0; k < FOLDS; k++) {
            s->lo = k == a || k == b ? s->lo : fminf(s->lo, s->lows[k]);
            s->hi = k == a || k == b ? s->hi : fmaxf(s->hi, s->highs[k]);
        }
    }
}

static void set_factors(equalizer *q, bool equal)
{
    for (size_t e = 0; e < q->n_elements; e++)
        q->factor[e] = 1;
    if (equal)
        equalizer_refactor(q);
}

/* The ends of v, 0 among them, that the statistics give. */
static void ends_of(const equalizer *q, int v, double *lo, double *hi)
{
    *lo = *hi = 0;
    for (size_t c = 0; c < channels_of_value(q, v); c++) {
        const channel_stats *s = &q->stats[(size_t)q->base[v] + c];
        *lo = fmin(*lo, factor_of(q, v, c) * s->lo);
        *hi = fmax(*hi, factor_of(q, v, c) * s->hi);
    }
}

/* How far the fold goes beyond the range of v that the statistics give. */
static double excess(const equalizer *q, int v, int fold)
{
    double lo, hi, low = 0, high = 0;
    ends_of(q, v, &lo, &hi);
    for (size_t c = 0; c < channels_of_value(q, v); c++) {
        const channel_stats *s = &q->stats[(size_t)q->base[v] + c];
        low = fmin(low, factor_of(q, v, c) * s->lows[fold]);
        high = fmax(high, factor_of(q, v, c) * s->highs[fold]);
    }
    return fmax(hi > 0 ? high / hi : 1, lo < 0 ? low / lo : 1);
}

static void add_excess(const equalizer *q, int fold, double *to)
{
    for (size_t v = 0; v < q->g->n_values; v++)
        if (channels_of_value(q, (int)v))
            to[v] = fmax(to[v], excess(q, (int)v, fold));
}

/* What the fold's largest values are beyond [lo, hi], squared. */
static double beyond(const equalizer *q, int v, int fold, double lo, double hi)
{
    double all = 0;
    for (size_t c = 0; c < channels_of_value(q, v); c++) {
        const channel_stats *s = &q->stats[(size_t)q->base[v] + c];
        const double f = factor_of(q, v, c);
        const double above = fmax(f * s->highs[fold] - hi, 0);
        const double below = fmax(lo - f * s->lows[fold], 0);
        all += above * above + below * below;
    }
    return all;
}

static void add_clipped(const equalizer *q, int fold, const reaching *to)
{
    for (size_t v = 0; v < q->g->n_values; v++) {
        double lo, hi;
        ends_of(q, (int)v, &lo, &hi);
        for (int i = 0; i < PARTS && hi > lo; i++) {
            const double f = 1 + (to->known[v] - 1) * i / (PARTS - 1);
            to->clipped[i][v] += beyond(q, (int)v, fold, lo * f, hi * f) / ((hi - lo) * (hi - lo));
        }
    }
}

static void measure_fold(equalizer *q, int fold, bool equal, const reaching *to)
{
    for (size_t v = 0; v < q->g->n_values; v++)
        to->known[v] = 1;
    for (int other = 0; other < FOLDS; other++) {
        if (other == fold)
            continue;
        leave_out(q, fold, other);
        set_factors(q, equal);
        add_excess(q, other, to->known);
    }
    leave_out(q, fold, NONE);
    set_factors(q, equal);
    add_excess(q, fold, to->all);
    add_clipped(q, fold, to);
}

static double count_of(const equalizer *q, int v)
{
    double n = 0;
    for (size_t c = 0; c < channels_of_value(q, v); c++)
        n += q->stats[(size_t)q->base[v] + c].count;
    return n;
}

/* The part of v's reach that leaves the least error, as a factor. */
static double best_stretch(const equalizer *q, int v, const reaching *from)
{
    double least = INFINITY, best = 1;
    for (int i = 0; i < PARTS; i++) {
        const double f = 1 + (from->all[v] - 1) * i / (PARTS - 1);
        const double error = from->clipped[i][v] + count_of(q, v) * (f / 255) * (f / 255) / 12;
        if (error < least) {
            least = error;
            best = f;
        }
    }
    return best;
}

static rung_status measure(equalizer *q, bool equal, double *to, rung_error *err)
{
    const size_t n = q->g->n_values;
    reaching all = { arena_zero(q->mem, n, sizeof(double)), arena_zero(q->mem, n, sizeof(double)),
                     { NULL } };
    bool good = all.all && all.known;
    for (int i = 0; i < PARTS && good; i++)
        good = (all.clipped[i] = arena_zero(q->mem, n, sizeof(double))) != NULL;
    if (!good)
        return fail_memory(err, "ranges", n * sizeof(double));
    for (size_t v = 0; v < n; v++)
        all.all[v] = 1;
    for (int fold = 0; fold < FOLDS; fold++)
        measure_fold(q, fold, equal, &all);
    for (size_t v = 0; v < n; v++)
        to[v] = best_stretch(q, (int)v, &all);
    return RUNG_OK;
}

rung_status equalizer_reach(equalizer *q, double *plain, double *equal, rung_error *err)
{
    channel_stats *kept = arena_copy(q->mem, q->stats, q->n_elements * sizeof *kept);
    double *factor = arena_copy(q->mem, q->factor, q->n_elements * sizeof *factor);
    if (!kept || !factor)
        return fail_memory(err, "folds", q->n_elements * sizeof *kept);
    rung_status st = measure(q, false, plain, err);
    if (st == RUNG_OK)
        st = measure(q, true, equal, err);
    memcpy(q->stats, kept, q->n_elements * sizeof *kept);
    memcpy(q->factor, factor, q->n_elements * sizeof *factor);
    return st;
}
