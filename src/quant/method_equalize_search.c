/* What factors cost, and the best ones of a few families of candidates.
 *
 * The noise of a pair is that of a uniform rounding, width^2 / 12; seen through the layers that use
 * the tensor it is gain times that. The noise of a weight is scale^2 / 12 times the variance of its
 * input. All of it is taken relative to the power of the output it reaches. Equalization in the
 * literature (Nagel 2019) balances the ranges of two weights; here the ranges of the activations
 * between them count too, which is what 8-bit tensors with one scale suffer from. */
#include <math.h>
#include <string.h>

#include "quant/equalize.h"

#define SHARE (1.0 / 128)  /* added to each channel's use: one that hardly fires in calibration may
                            * fire elsewhere, and beyond such a factor there is nothing to gain */
#define FLOOR (1.0 / 1024) /* of weights */

/* factor = use^-a * column^b * row^-c, each relative to the largest of its tensor: how much of the
 * range the channel uses, how large the weights behind it and before it are. */
static const double exponents[][3] = {
    { 0, 0, 0 },   { .25, 0, 0 },  { .5, 0, 0 },  { .75, 0, 0 },   { 1, 0, 0 },
    { 0, .25, 0 }, { 0, .5, 0 },   { 0, 1, 0 },   { .25, .25, 0 }, { .25, .5, 0 },
    { .5, .25, 0 }, { .5, .5, 0 }, { .75, .25, 0 }, { .75, .5, 0 }, { 1, .25, 0 },
    { 1, .5, 0 },  { 1, 1, 0 },    { 0, .5, .5 }, { 0, .25, .5 },  { 0, .5, 1 },
    { 0, 0, .5 },  { .25, .25, .25 }, { .5, .5, .5 }, { .5, .5, .25 }, { .25, .5, .5 },
};

/* --- noise ------------------------------------------------------------------------------------ */

static bool has_pair(const equalizer *q, int v)
{
    const place_kind k = q->places[v].kind;
    return (k == PLACE_ACTIVATION || k == PLACE_SHARED) && q->base[v] >= 0;
}

static double channel_width(const channel_stats *s)
{
    return s->count > 0 ? fmax(s->hi, 0) - fmin(s->lo, 0) : 0;
}

static double width_of(const equalizer *q, int v)
{
    double lo = 0, hi = 0;
    for (size_t c = 0; c < channels_of_value(q, v); c++) {
        const channel_stats *s = &q->stats[(size_t)q->base[v] + c];
        const double f = factor_of(q, v, c);
        if (s->count > 0) {
            lo = fmin(lo, s->lo * f);
            hi = fmax(hi, s->hi * f);
        }
    }
    return hi - lo;
}

/* Of the tensors of one family. */
static double activation_noise(const equalizer *q, int family)
{
    double all = 0;
    for (size_t v = 0; v < q->g->n_values; v++)
        q->width[v] = 0;
    for (size_t v = 0; v < q->g->n_values; v++)
        if (has_pair(q, (int)v) && family_root(q, (int)v) == family)
            q->width[q->places[v].shares] =
                fmax(q->width[q->places[v].shares], width_of(q, (int)v));
    for (size_t v = 0; v < q->g->n_values; v++) {
        if (!has_pair(q, (int)v) || family_root(q, (int)v) != family || q->places[v].derived)
            continue;
        const double step = q->width[q->places[v].shares] / 255;
        double gain = 0;
        for (size_t c = 0; c < channels_of_value(q, (int)v); c++) {
            const double f = factor_of(q, (int)v, c);
            gain += q->gain[(size_t)q->base[v] + c] / (f * f);
        }
        all += step * step / 12 * gain;
    }
    return all;
}

static double power_of(const equalizer *q, int v)
{
    double power = 0;
    for (size_t c = 0; c < channels_of_value(q, v); c++) {
        const channel_stats *s = &q->stats[(size_t)q->base[v] + c];
        if (s->count > 0)
            power += s->squares / s->count - (s->sum / s->count) * (s->sum / s->count);
    }
    return power;
}

static double variance_of(const equalizer *q, int v, size_t c)
{
    const channel_stats *s = &q->stats[(size_t)q->base[v] + c];
    if (q->base[v] < 0 || s->count == 0)
        return 0;
    const double mean = s->sum / s->count;
    return fmax(s->squares / s->count - mean * mean, 0);
}

/* The largest weight of an output, as scaled; *spread: of its inputs' variances, as scaled. */
static double output_range(const equalizer *q, const linear *n, size_t o, double *spread)
{
    const size_t in = n->l.in / n->taps, first = o / n->l.out * in;
    double most = 0;
    *spread = 0;
    for (size_t i = 0; i < in; i++) {
        const double f = factor_of(q, n->l.x, first + i);
        most = fmax(most, n->largest[o * in + i] / f);
        *spread += (double)n->taps * f * f * variance_of(q, n->l.x, first + i);
    }
    return most;
}

static double weight_noise(const equalizer *q, const linear *n)
{
    const double power = power_of(q, n->measured);
    double all = 0, top = 0, spread;
    const size_t rows = n->l.groups * n->l.out;
    if (!(power > 0) || q->base[n->l.x] < 0)
        return 0;
    for (size_t o = 0; o < rows && q->opt->per_tensor; o++)
        top = fmax(top, output_range(q, n, o, &spread) * factor_of(q, n->l.y, o));
    for (size_t o = 0; o < rows; o++) {
        const double own = output_range(q, n, o, &spread);
        const double step = (q->opt->per_tensor ? top / factor_of(q, n->l.y, o) : own) /
                            weight_top(q->opt);
        all += step * step / 12 * spread;
    }
    return all / power;
}

static double family_cost(const equalizer *q, int family)
{
    double all = activation_noise(q, family);
    for (size_t i = 0; i < q->n_linears; i++) {
        const layer *l = &q->linears[i].l;
        if ((q->base[l->x] >= 0 && family_root(q, l->x) == family) ||
            (q->opt->per_tensor && q->base[l->y] >= 0 && family_root(q, l->y) == family))
            all += weight_noise(q, &q->linears[i]);
    }
    return all;
}

/* --- gains ------------------------------------------------------------------------------------ */

static void linear_gain(equalizer *q, const linear *n)
{
    const float *w = q->g->values[n->l.weight].constant->data;
    const double power = power_of(q, n->measured);
    const size_t rows = n->l.groups * n->l.out, in = n->l.in;
    if (!(power > 0) || q->base[n->l.x] < 0)
        return;
    for (size_t o = 0; o < rows; o++)
        for (size_t i = 0; i < in; i++) {
            const size_t c = o / n->l.out * (in / n->taps) + i / n->taps;
            const double x = w[n->l.transposed ? i * rows + o : o * in + i];
            q->gain[(size_t)q->base[n->l.x] + c] += x * x / power;
        }
}

static double positions_of(const value_info *info)
{
    double n = 1;
    for (int i = 2; i < info->rank; i++)
        n *= info->dims[i] > 0 ? (double)info->dims[i] : 1;
    return n;
}

/* What passes through a node that only joins channels: an element's gain goes to what makes it. */
static void pass_gain(equalizer *q, const node *n)
{
    const int y = n->n_outputs ? n->outputs[0] : -1;
    if (!channels_of_value(q, y))
        return;
    for (int k = 0; k < n->n_inputs; k++) {
        const int x = n->inputs[k];
        const size_t channels = channels_of_value(q, x);
        if (!channels || family_root(q, x) != family_root(q, y))
            continue;
        const double pooled = positions_of(&q->info[x]) / positions_of(&q->info[y]);
        const bool averages = strstr(n->op_type, "Average") != NULL;
        for (size_t c = 0, at = 0; c < channels && at < channels_of_value(q, y); at++) {
            const size_t ex = (size_t)q->base[x] + c, ey = (size_t)q->base[y] + at;
            if (element_root(q, ex) != element_root(q, ey))
                continue; /* Concat, Pad: x's channels stand further on */
            q->gain[ex] += q->gain[ey] / (averages ? pooled : 1);
            c++;
        }
    }
}

static void find_gains(equalizer *q)
{
    for (size_t i = q->g->n_nodes; i-- > 0;) {
        const linear *at = NULL;
        for (size_t k = 0; k < q->n_linears; k++)
            if (q->linears[k].l.node == i)
                at = &q->linears[k];
        if (at)
            linear_gain(q, at);
        else
            pass_gain(q, &q->g->nodes[i]);
    }
}

/* --- candidates ------------------------------------------------------------------------------- */

static void raise_to(double *at, double v)
{
    *at = fmax(*at, v);
}

static void measure_uses(const equalizer *q)
{
    for (size_t v = 0; v < q->g->n_values; v++) {
        const double width = has_pair(q, (int)v) ? width_of(q, (int)v) : 0;
        for (size_t c = 0; width > 0 && c < channels_of_value(q, (int)v); c++) {
            const size_t e = (size_t)q->base[v] + c;
            raise_to(&q->use[element_root(q, e)], channel_width(&q->stats[e]) / width);
        }
    }
}

static void measure_linear(const equalizer *q, const linear *n)
{
    const size_t in = n->l.in / n->taps, rows = n->l.groups * n->l.out;
    double most = 0;
    for (size_t i = 0; i < rows * in; i++)
        most = fmax(most, n->largest[i]);
    for (size_t o = 0; o < rows && most > 0; o++) {
        double row = 0;
        for (size_t i = 0; i < in; i++) {
            const double w = n->largest[o * in + i] / most;
            const size_t c = o / n->l.out * in + i;
            if (q->base[n->l.x] >= 0)
                raise_to(&q->column[element_root(q, (size_t)q->base[n->l.x] + c)], w);
            row = fmax(row, w);
        }
        if (q->base[n->l.y] >= 0)
            raise_to(&q->row[element_root(q, (size_t)q->base[n->l.y] + o)], row);
    }
}

static void set_factors(const equalizer *q, int family, const double e[3])
{
    for (size_t v = 0; v < q->g->n_values; v++) {
        if (q->base[v] < 0 || family_root(q, (int)v) != family)
            continue;
        for (size_t c = 0; c < channels_of_value(q, (int)v); c++) {
            const int k = element_root(q, (size_t)q->base[v] + c);
            const double f = pow((q->use[k] + SHARE) / (1 + SHARE), -e[0]) *
                             pow(fmax(q->column[k], FLOOR), e[1]) *
                             pow(fmax(q->row[k], FLOOR), -e[2]);
            q->factor[k] = q->fixed[k] || !(q->use[k] > 0) ? 1 : fmin(f, q->cap[k]);
        }
    }
}

static bool is_free(const equalizer *q, int family)
{
    for (size_t v = 0; v < q->g->n_values; v++)
        if (q->base[v] >= 0 && family_root(q, (int)v) == family)
            for (size_t c = 0; c < channels_of_value(q, (int)v); c++)
                if (!q->fixed[element_root(q, (size_t)q->base[v] + c)])
                    return true;
    return false;
}

/* Sets the factors of the cheapest candidate; true: they are not all 1. */
static bool search_family(const equalizer *q, int family)
{
    const size_t n = sizeof exponents / sizeof *exponents;
    size_t best = 0;
    double least = INFINITY;
    for (size_t i = 0; i < n; i++) {
        set_factors(q, family, exponents[i]);
        const double cost = family_cost(q, family);
        if (cost < least * (1 - 1e-3)) {
            least = cost;
            best = i;
        }
    }
    set_factors(q, family, exponents[best]);
    q->choice[family] = best;
    return best > 0;
}

static bool is_family(const equalizer *q, size_t v)
{
    return q->base[v] >= 0 && family_root(q, (int)v) == (int)v && is_free(q, (int)v);
}

size_t equalizer_search(equalizer *q)
{
    size_t changed = 0;
    find_gains(q);
    measure_uses(q);
    for (size_t i = 0; i < q->n_linears; i++)
        measure_linear(q, &q->linears[i]);
    for (int round = 0; round < 2; round++) {
        changed = 0;
        for (size_t v = 0; v < q->g->n_values; v++)
            if (is_family(q, v))
                changed += search_family(q, (int)v);
    }
    return changed;
}

void equalizer_refactor(equalizer *q)
{
    for (size_t e = 0; e < q->n_elements; e++) {
        q->factor[e] = 1;
        q->use[e] = 0;
    }
    measure_uses(q);
    for (size_t v = 0; v < q->g->n_values; v++)
        if (is_family(q, v))
            set_factors(q, (int)v, exponents[q->choice[v]]);
}
