/* Errors of one tensor, summed. */
#include <math.h>

#include "measure/compare_parts.h"

/* What remains of x behind the pair, and whether its code saturates. */
static double represented(const tensor_record *t, float x, bool *clipped)
{
    const double v = nearbyint((double)(x / (float)t->scale)) * t->scale;
    *clipped = v < t->clip_lo || v > t->clip_hi;
    return v < t->clip_lo ? t->clip_lo : v > t->clip_hi ? t->clip_hi : v;
}

static void see_range(tensor_record *t, double v)
{
    if (t->lo > t->hi) {
        t->lo = t->hi = v;
        return;
    }
    t->lo = v < t->lo ? v : t->lo;
    t->hi = v > t->hi ? v : t->hi;
}

void compare_tally(tensor_record *t, const float *x, const float *y, const float *alone, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const double v = x[i];
        bool clipped;
        if (!isfinite(v))
            continue;
        const double error = v - y[i], own = v - alone[i];
        const double kept = v - represented(t, x[i], &clipped);
        t->count++;
        t->n_clipped += clipped;
        t->signal += v * v;
        t->noise += error * error;
        t->own_noise += own * own;
        *(clipped ? &t->clip_noise : &t->round_noise) += kept * kept;
        see_range(t, v);
    }
    spread_add(t->values, x, n);
}
