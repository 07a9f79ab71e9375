#include "measure/spread.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

/* Where 2^-149, the smallest float, has a bin of its own. */
#define LEAST_EXPONENT (-149)

/* Bins to either side of 0 become half as many, twice as wide. */
static void merge_pairs(spread *s)
{
    for (int i = 0; i < SPREAD_SIDE; i++) {
        const bool inside = i < SPREAD_SIDE / 2;
        uint64_t *up = s->bins + SPREAD_SIDE, *down = s->bins + SPREAD_SIDE - 1;
        up[i] = inside ? up[2 * i] + up[2 * i + 1] : 0;
        down[-i] = inside ? down[-2 * i] + down[-2 * i - 1] : 0;
    }
    s->exponent++;
}

/* The smallest exponent whose bins reach beyond x. */
static int exponent_for(double x)
{
    int e;
    frexp(x, &e); /* x < 2^e */
    return e - 10; /* SPREAD_SIDE = 2^10 bins */
}

static void make_room(spread *s, double largest)
{
    const int wanted = largest > 0 ? exponent_for(largest) : LEAST_EXPONENT;
    if (s->n == 0)
        s->exponent = wanted; /* after zeros alone: the finest, so that they do not coarsen it */
    while (s->exponent < wanted)
        merge_pairs(s);
}

void spread_add(spread *s, const float *x, size_t n)
{
    double largest = 0;
    for (size_t i = 0; i < n; i++) {
        const double v = fabs((double)x[i]);
        largest = v > largest && isfinite(v) ? v : largest;
    }
    make_room(s, largest);
    const double inverse = ldexp(1, -s->exponent);
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(x[i]))
            continue;
        s->bins[SPREAD_SIDE + (int)floor(x[i] * inverse)]++;
        s->lo = s->n == 0 || x[i] < s->lo ? x[i] : s->lo;
        s->hi = s->n == 0 || x[i] > s->hi ? x[i] : s->hi;
        s->n++;
    }
}

/* count values that are even in [from, to], to the parts that they lie in. */
static void share_bin(double from, double to, double count, double lo, double part, int n,
                      double *counts)
{
    const int last = n - 1;
    int i = from > lo ? (int)((from - lo) / part) : 0;
    if (!(to > from)) {
        counts[i < last ? i : last] += count; /* the upper border belongs to the last part */
        return;
    }
    for (; i < n && lo + i * part < to; i++) {
        const double a = fmax(from, lo + i * part);
        const double z = i == last ? fmin(to, lo + n * part) : fmin(to, lo + (i + 1) * part);
        if (z > a)
            counts[i] += count * (z - a) / (to - from);
    }
}

void spread_fold(const spread *s, double lo, double hi, int n, double *counts)
{
    const double width = ldexp(1, s->exponent), part = (hi - lo) / n;
    memset(counts, 0, (size_t)n * sizeof *counts);
    for (int b = 0; b < SPREAD_BINS; b++) {
        const double from = fmax((b - SPREAD_SIDE) * width, s->lo);
        const double to = fmin((b - SPREAD_SIDE + 1) * width, s->hi);
        if (s->bins[b] && from <= hi && to >= lo)
            share_bin(from, to, (double)s->bins[b], lo, part, n, counts);
    }
}
