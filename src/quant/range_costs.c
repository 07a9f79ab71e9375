/* What a candidate range costs: squared error, and lost information. */
#include "quant/histogram.h"

#include <math.h>

enum { MOST_LEVELS = 1 << 16 };

/* --- mean squared error ----------------------------------------------------------------------- */

/* In units of the scale, from zero: integers from..to are representable. */
typedef struct grid {
    double scale, from, to;
} grid;

static grid grid_of(double lo, double hi, int levels)
{
    const double scale = (hi - lo) / (levels - 1);
    const double from = scale > 0 ? nearbyint(lo / scale) : 0;
    return (grid){ scale, from, from + levels - 1 };
}

/* The integral of (u - q(u))^2 from 0 to u, q rounding to the nearest integer in [from, to]: each
 * whole period of the rounding error gives 1/12, beyond the ends the error grows with u. */
static double error_integral(const grid *g, double u)
{
    const double clipped = u > g->to ? g->to : u < g->from ? g->from : u;
    const double nearest = (double)(int64_t)(clipped + (clipped < 0 ? -0.5 : 0.5));
    const double d = clipped - nearest, beyond = u - clipped;
    return nearest / 12 + d * d * d / 3 + beyond * beyond * beyond / 3;
}

double mse_cost(const bar *bars, int n, double lo, double hi, int levels)
{
    const grid g = grid_of(lo, hi, levels);
    const double per_scale = 1 / g.scale;
    double sum = 0, last_to = NAN, last = 0;
    if (!(g.scale > 0))
        return INFINITY;
    for (int i = 0; i < n; i++) {
        const bar *b = &bars[i];
        const double before = b->from == last_to ? last : error_integral(&g, b->from * per_scale);
        last = error_integral(&g, b->to * per_scale);
        last_to = b->to;
        if (b->to - b->from > 1e-6 * g.scale) {
            sum += b->density * g.scale * (last - before);
        } else { /* one value: the difference would be rounding noise */
            const double u = b->from * per_scale, q = fmin(fmax(nearbyint(u), g.from), g.to);
            sum += b->count * (u - q) * (u - q);
        }
    }
    return sum * g.scale * g.scale;
}

/* --- Kullback-Leibler divergence -------------------------------------------------------------- */

/* Bars of one level. */
typedef struct level {
    double count; /* of values within the range */
    int    bars;  /* that are not empty */
} level;

static int level_of(const grid *g, const bar *b)
{
    const double q = nearbyint((b->from + b->to) / 2 / g->scale);
    return (int)(fmin(fmax(q, g->from), g->to) - g->from);
}

static double outside(const bar *b, double lo, double hi)
{
    const double mid = (b->from + b->to) / 2;
    return mid < lo || mid > hi ? b->count : 0;
}

/* The part of one bar. p: the clipped distribution, in which the outermost bars stand for what is
 * beyond them as well; q: what is left of it when a level's values are told apart no more, the
 * outliers not counted (Migacz 2017). There q is scaled up to sum to 1; here it is not, which adds
 * -log(share of values within the range): otherwise a single bar would be the best range of all. */
static double divergence(double p, double q)
{
    return p > 0 ? p * log(p / fmax(q, 1e-12)) : 0;
}

double entropy_cost(const bar *bars, int n, double lo, double hi, int levels)
{
    const grid g = grid_of(lo, hi, levels);
    int first = 0, end = n;
    double below = 0, above = 0, all = 0, sum = 0;
    if (!(g.scale > 0) || levels > MOST_LEVELS)
        return INFINITY;
    while (first < end && outside(&bars[first], lo, INFINITY) > 0)
        below += bars[first++].count;
    while (end > first && outside(&bars[end - 1], -INFINITY, hi) > 0)
        above += bars[--end].count;
    if (first == end)
        return INFINITY;
    for (int i = 0; i < n; i++)
        all += bars[i].count;
    for (int i = first; i < end;) { /* bars are ascending: those of a level stand together */
        const int at = level_of(&g, &bars[i]);
        level l = { 0, 0 };
        int next = i;
        for (; next < end && level_of(&g, &bars[next]) == at; next++) {
            l.count += bars[next].count;
            l.bars++;
        }
        const double q = l.count / l.bars / all;
        for (; i < next; i++) {
            const double beyond = (i == first ? below : 0) + (i == end - 1 ? above : 0);
            sum += divergence((bars[i].count + beyond) / all, q);
        }
    }
    return sum;
}
