#include "measure/scores.h"

#include <math.h>

bool is_scores(const tensor *t)
{
    if (t->type != RUNG_F32 || t->rank < 2 || t->dims[1] < 2)
        return false;
    for (int i = 2; i < t->rank; i++)
        if (t->dims[i] != 1)
            return false;
    return true;
}

size_t arg_max(const float *x, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (x[i] > x[best])
            best = i;
    return best;
}

size_t rank_of(const float *x, size_t n, size_t label)
{
    size_t above = 0;
    for (size_t i = 0; i < n; i++)
        above += x[i] > x[label] || (x[i] == x[label] && i < label);
    return above;
}

double decibels(double signal, double noise)
{
    return noise > 0 ? 10 * log10(signal / noise) : signal > 0 ? INFINITY : NAN;
}
