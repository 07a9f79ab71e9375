/* Ranges from what an observer holds. */
#include "quant/histogram.h"

#include <math.h>

#include "base/mem.h"

enum {
    COARSE = 40, /* candidates over the whole range, then */
    FINE = 10,   /* to either side of the best, between its neighbours */
    ROUNDS = 3,  /* of moving one end, then the other */
};

int histogram_bars(const observer *o, bar *list)
{
    const double width = ldexp(1, o->exponent);
    int n = 0;
    for (int i = 0; i < HIST_BINS; i++) {
        if (!o->bins[i])
            continue;
        const double from = (i - HIST_SIDE) * width, to = from + width;
        bar *b = &list[n++];
        *b = (bar){ fmax(from, o->lo), fmin(to, o->hi), (double)o->bins[i], 0 };
        if (b->to > b->from)
            b->density = b->count / (b->to - b->from);
    }
    return n;
}

/* --- percentiles ------------------------------------------------------------------------------ */

/* The value under which `rank` of all values lie, going up from the lowest bar; zeros stand between
 * the negative and the positive bars. */
static double value_at(const bar *bars, int n, double zeros, double rank)
{
    double below = 0;
    bool passed_zero = false;
    for (int i = 0; i < n; i++) {
        if (!passed_zero && bars[i].from >= 0) {
            passed_zero = true;
            below += zeros;
            if (rank <= below)
                return 0;
        }
        if (rank <= below + bars[i].count)
            return bars[i].from +
                   (bars[i].to - bars[i].from) * fmax(rank - below, 0) / bars[i].count;
        below += bars[i].count;
    }
    return passed_zero && n ? bars[n - 1].to : 0;
}

static range percentile_range(const observer *o, const bar *bars, int n, double percentile)
{
    const double zeros = (double)o->bins[HIST_ZERO], all = (double)o->seen;
    const double rank = percentile / 100 * all;
    range r = { (float)value_at(bars, n, zeros, all - rank),
                (float)value_at(bars, n, zeros, rank) };
    r.lo = fmaxf(r.lo, o->lo);
    r.hi = fminf(r.hi, o->hi);
    if (r.lo > r.hi) /* a percentile under 50 */
        r.lo = r.hi = (r.lo + r.hi) / 2;
    return r;
}

/* --- search ----------------------------------------------------------------------------------- */

typedef struct search {
    const bar *bars;
    int        n, levels;
    range_cost cost;
    double     lo, hi, best; /* the best range so far and its cost */
} search;

/* Keeps the range where it is better by more than rounding noise. */
static bool try_range(search *s, double lo, double hi)
{
    const double c = s->cost(s->bars, s->n, lo, hi, s->levels);
    if (!(c < s->best * (1 - 1e-9)))
        return false;
    s->best = c;
    s->lo = lo;
    s->hi = hi;
    return true;
}

/* Shrinks the ends that are chosen to a part of lo and hi: coarse steps, then fine ones. */
static bool shrink(search *s, double lo, double hi, bool move_lo, bool move_hi)
{
    const double keep_lo = s->lo, keep_hi = s->hi;
    int at = -1;
    bool better = false;
    for (int i = COARSE; i > 0; i--)
        if (try_range(s, move_lo ? lo * i / COARSE : keep_lo, move_hi ? hi * i / COARSE : keep_hi))
            at = i;
    better = at > 0;
    for (int i = -FINE; at > 0 && i <= FINE; i++) {
        const double f = (at + (double)i / (FINE + 1)) / COARSE;
        if (f < 1)
            better |= try_range(s, move_lo ? lo * f : keep_lo, move_hi ? hi * f : keep_hi);
    }
    return better;
}

/* The cheapest range within the observed one: first both ends by one factor, then each alone. */
static range search_range(const observer *o, const bar *bars, int n, range_cost cost, int levels,
                          bool symmetric)
{
    const double top = fmax(-(double)o->lo, o->hi);
    const double lo = symmetric ? -top : fmin(o->lo, 0), hi = symmetric ? top : fmax(o->hi, 0);
    search s = { bars, n, levels, cost, lo, hi, cost(bars, n, lo, hi, levels) };
    if (n) {
        shrink(&s, lo, hi, true, true);
        for (int i = 0; !symmetric && lo < 0 && hi > 0 && i < ROUNDS; i++) {
            const bool moved_hi = shrink(&s, lo, hi, false, true);
            const bool moved_lo = shrink(&s, lo, hi, true, false);
            if (!moved_hi && !moved_lo)
                break;
        }
    }
    return (range){ (float)s.lo, (float)s.hi };
}

/* The divergence is blind to how far values are clipped: where most of them stand on one spot (the
 * background of an image) it would cut away all the rest. So a range that loses more than one value
 * in a hundred is no candidate. */
static double entropy_cost_of_tails(const bar *bars, int n, double lo, double hi, int levels)
{
    double all = 0, lost = 0;
    for (int i = 0; i < n; i++) {
        const double mid = (bars[i].from + bars[i].to) / 2;
        all += bars[i].count;
        lost += mid < lo || mid > hi ? bars[i].count : 0;
    }
    return lost > all / 100 ? INFINITY : entropy_cost(bars, n, lo, hi, levels);
}

range observer_range(const observer *o, rung_range method, double percentile, int bits,
                     bool symmetric)
{
    range r = { o->lo, o->hi };
    if (!o->seen)
        return (range){ 0, 0 };
    if (method == RUNG_RANGE_EMA)
        r = (range){ o->ema_lo, o->ema_hi };
    bar *bars = o->bins ? mem_alloc(HIST_BINS * sizeof *bars) : NULL;
    if (bars) { /* without histogram, or memory for it: minimum and maximum */
        const int n = histogram_bars(o, bars), levels = 1 << bits;
        if (method == RUNG_RANGE_PERCENTILE)
            r = percentile_range(o, bars, n, percentile > 0 ? percentile : 99.99);
        else if (method == RUNG_RANGE_ENTROPY)
            r = search_range(o, bars, n, entropy_cost_of_tails, levels, symmetric);
        else if (method == RUNG_RANGE_MSE || method == RUNG_RANGE_DEFAULT)
            r = search_range(o, bars, n, mse_cost, levels, symmetric);
    }
    mem_free(bars);
    return r;
}
