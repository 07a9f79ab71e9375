/* From observations to the parameters of every pair. */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "base/mem.h"
#include "quant/parts.h"

/* --- the ranges of those that share ----------------------------------------------------------- */

/* Observations of all that shares v's parameters go to v's observer. */
static void merge_shared(recipe *r)
{
    for (size_t v = 0; v < r->n_values; v++) {
        const placement *p = &r->places[v];
        if (p->kind == PLACE_SHARED && !p->derived && r->observers[p->shares] && r->observers[v])
            observer_merge(r->observers[p->shares], r->observers[v]);
    }
}

static range constant_range(const tensor *t)
{
    range r = { 0, 0 };
    for (size_t i = 0; i < tensor_count(t); i++) {
        const float x = ((const float *)t->data)[i];
        r.lo = isfinite(x) ? fminf(r.lo, x) : r.lo;
        r.hi = isfinite(x) ? fmaxf(r.hi, x) : r.hi;
    }
    return r;
}

/* Of 65536 steps half are for values that calibration did not see: a clipped one costs more than a
 * step twice as wide. A percentile is what was asked for. */
static range observed_range(const observer *o, const qsettings *s)
{
    if (!qsettings_wide(s) || s->range == RUNG_RANGE_PERCENTILE)
        return observer_range(o, s->range, s->percentile, qsettings_bits(s), s->act_symmetric);
    const range seen = observer_range(o, RUNG_RANGE_MINMAX, 0, 16, s->act_symmetric);
    return (range){ 2 * seen.lo, 2 * seen.hi };
}

static range range_of(const recipe *r, int v)
{
    const placement *p = &r->places[v];
    const qsettings *s = &r->set[v];
    if (p->kind == PLACE_FIXED)
        return (range){ p->lo, p->hi };
    if (p->kind == PLACE_CONSTANT)
        return constant_range(r->g->values[v].constant);
    return observed_range(r->observers[v], s);
}

static bool has_own_range(const recipe *r, size_t v)
{
    const place_kind k = r->places[v].kind;
    return k == PLACE_ACTIVATION || k == PLACE_FIXED || k == PLACE_CONSTANT;
}

/* --- reports ---------------------------------------------------------------------------------- */

static void report(const recipe *r, int v, range g, bool repaired)
{
    const char *name = r->g->values[v].name;
    const observer *o = r->observers[v];
    const range seen = o ? observer_range(o, RUNG_RANGE_MINMAX, 0, 8, false) : g;
    const double scale = r->params[v].scale;
    if (seen.lo == 0 && seen.hi == 0)
        diagnose(r->diag, "constant-tensor", name, "it was 0 in every sample: its scale is %g",
                 scale);
    else if (seen.lo == seen.hi)
        diagnose(r->diag, "constant-tensor", name,
                 "it was %g in every sample: the range was widened to hold 0", (double)seen.lo);
    if (repaired && (g.lo < 0 || g.hi > 0))
        diagnose(r->diag, "tiny-scale", name,
                 "its range [%g, %g] is too narrow for a normal float32 scale: %g is used",
                 (double)g.lo, (double)g.hi, scale);
}

static rung_status check_constant(recipe *r, int v, rung_error *err)
{
    const tensor *t = r->g->values[v].constant;
    const size_t count = tensor_count(t), bad = count_not_finite(t);
    if (count && bad == count)
        return fail(err, RUNG_EMODEL, "constant '%s': not one of its %zu values is finite",
                    r->g->values[v].name, bad);
    if (bad)
        diagnose(r->diag, "not-finite-weights", r->g->values[v].name,
                 "%zu of %zu values are NaN or infinite: NaN is taken as 0, infinities as the ends "
                 "of its range", bad, count);
    return RUNG_OK;
}

qparams params_as(const recipe *r, int v, const qsettings *s)
{
    const int root = r->places[v].shares;
    const placement *p = &r->places[root];
    const range seen = p->kind == PLACE_FIXED ? (range){ p->lo, p->hi }
                                              : observed_range(r->observers[root], s);
    bool repaired;
    return qparams_from_range(seen.lo, seen.hi, s->act_type, qsettings_bits(s), s->act_symmetric,
                              &repaired);
}

void choose_narrow(recipe *r)
{
    memset(r->narrow, 0, r->n_values * sizeof *r->narrow);
    for (size_t i = 0; i < r->n_nodes; i++) {
        const node *n = &r->g->nodes[i];
        for (int k = 0; r->quantized[i] && k < n->n_inputs; k++) {
            const int v = n->inputs[k];
            if (!is_activation(n, k) || !reads_narrow(r, n, v) || r->narrow[v].scale > 0)
                continue;
            const qsettings s = node_settings(r, n, v);
            r->narrow[v] = params_as(r, v, &s);
        }
    }
}

rung_status choose_params(recipe *r, rung_error *err)
{
    range *ranges = arena_zero(r->mem, r->n_values, sizeof *ranges);
    rung_status st = RUNG_OK;
    if (!ranges)
        return fail_memory(err, "ranges", r->n_values * sizeof *ranges);
    merge_shared(r);
    const int n_threads = r->opt->n_threads > 0 ? r->opt->n_threads : omp_get_num_procs();
#pragma omp parallel for schedule(dynamic) num_threads(n_threads)
    for (size_t v = 0; v < r->n_values; v++)
        if (has_own_range(r, v))
            ranges[v] = range_of(r, (int)v);
    for (size_t v = 0; v < r->n_values && st == RUNG_OK; v++) {
        bool repaired;
        if (!has_own_range(r, v))
            continue;
        const bool constant = r->places[v].kind == PLACE_CONSTANT;
        r->params[v] = qparams_from_range(ranges[v].lo, ranges[v].hi, r->set[v].act_type,
                                          qsettings_bits(&r->set[v]), r->set[v].act_symmetric,
                                          &repaired);
        if (constant)
            st = check_constant(r, (int)v, err);
        else
            report(r, (int)v, ranges[v], repaired);
    }
    for (size_t v = 0; v < r->n_values; v++)
        if (r->places[v].kind == PLACE_SHARED)
            r->params[v] = r->params[r->places[v].shares];
    choose_narrow(r);
    return st;
}
