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
        s->n++;
    }
}

void spread_fold(const spread *s, double lo, double hi, int n, double *counts)
{
    const double width = ldexp(1, s->exponent), part = (hi - lo) / n;
    memset(counts, 0, (size_t)n * sizeof *counts);
    for (int b = 0; b < SPREAD_BINS; b++) {
        const double from = (b - SPREAD_SIDE) * width, to = from + width;
        if (!s->bins[b] || to <= lo || from >= hi)
            continue;
        int i = from > lo ? (int)((from - lo) / part) : 0;
        for (; i < n && lo + i * part < to; i++) {
            const double a = fmax(from, lo + i * part), z = fmin(to, lo + (i + 1) * part);
            if (z > a)
                counts[i] += (double)s->bins[b] * (z - a) / width;
        }
    }
}
