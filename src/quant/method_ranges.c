/* The range of a layer's input by measured error: of the ranges that the methods of calibration
 * give, the one with which the output of the layer (behind its Relu) errs least on samples. The
 * range that is best for the tensor need not be it: what clips rarely may be what the next layer
 * looks for. */
#include <math.h>
#include <string.h>

#include "quant/method.h"

enum { CANDIDATES = 5 };

range range_of_params(const qparams *p)
{
    return (range){ p->scale * (float)(qparams_lowest(p) - p->zero),
                    p->scale * (float)(qparams_highest(p) - p->zero) };
}

void set_params(recipe *r, int root, const qparams *p)
{
    for (size_t v = 0; v < r->n_values; v++) {
        const placement *at = &r->places[v];
        if ((int)v == root || (at->kind == PLACE_SHARED && at->shares == root))
            r->params[v] = *p;
    }
}

static double reach_of(const recipe *r, int root, const double *reach)
{
    double most = reach[root];
    for (size_t v = 0; v < r->n_values; v++)
        if (r->places[v].kind == PLACE_SHARED && r->places[v].shares == root)
            most = fmax(most, reach[v]);
    return most;
}

void stretch_ranges(recipe *r, const double *reach)
{
    for (size_t v = 0; v < r->n_values; v++) {
        const qsettings *s = &r->set[v];
        bool repaired;
        if (r->places[v].kind != PLACE_ACTIVATION)
            continue;
        const float f = (float)reach_of(r, (int)v, reach);
        const range now = range_of_params(&r->params[v]);
        const qparams p = qparams_from_range(now.lo * f, now.hi * f, s->act_type,
                                             qsettings_bits(s), s->act_symmetric, &repaired);
        if (f > 1)
            set_params(r, (int)v, &p);
    }
}

/* The current range first; the others are wider. */
static int list_candidates(const recipe *r, int root, qparams list[CANDIDATES])
{
    const qsettings *s = &r->set[root];
    const observer *o = r->observers[root];
    const range now = range_of_params(&r->params[root]);
    const range all = observer_range(o, RUNG_RANGE_MINMAX, 0, 8, s->act_symmetric);
    const range most = observer_range(o, RUNG_RANGE_PERCENTILE, 99.99, 8, s->act_symmetric);
    const range ranges[] = {
        { now.lo + (all.lo - now.lo) / 4, now.hi + (all.hi - now.hi) / 4 },
        { (now.lo + all.lo) / 2, (now.hi + all.hi) / 2 },
        all,
        most,
    };
    int n = 1;
    bool repaired;
    list[0] = r->params[root];
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
        list[n] = qparams_from_range(ranges[i].lo, ranges[i].hi, s->act_type, qsettings_bits(s),
                                     s->act_symmetric, &repaired);
        n += list[n].scale > list[0].scale * 1.001f; /* smaller ones might not hold the bias */
    }
    return n;
}

static void quantize_rows(const qparams *p, const float *x, size_t n, int n_threads, float *to)
{
    const bool wide = p->type == RUNG_U16 || p->type == RUNG_I16;
    const qparams whole = { .type = p->type, .bits = wide ? 16 : 8 };
    const float lo = (float)(qparams_lowest(&whole) - p->zero);
    const float hi = (float)(qparams_highest(&whole) - p->zero);
#pragma omp parallel for num_threads(n_threads) if (n_threads > 1)
    for (size_t i = 0; i < n; i++)
        to[i] = fminf(fmaxf(rintf(x[i] / p->scale), lo), hi) * p->scale;
}

rung_status choose_range(recipe *r, const fit *f, int root, bool search, rung_error *err)
{
    const evidence *e = f->e;
    const size_t columns = f->l->groups * f->l->in, from = e->fit_rows < e->rows ? e->fit_rows : 0;
    const size_t n_check = (e->rows - from) * columns;
    float *kept = arena_copy(f->mem, e->x + from * columns, n_check * sizeof *kept);
    qparams list[CANDIDATES];
    double least = INFINITY;
    int best = 0;
    if (!kept)
        return fail_memory(err, "a layer's inputs", n_check * sizeof *kept);
    search = search && r->observers[root] && !qsettings_wide(&r->set[root]);
    const int n = search ? list_candidates(r, root, list) : 0;
    for (int i = 0; i < n; i++) {
        quantize_rows(&list[i], kept, n_check, f->n_threads, e->x + from * columns);
        const double error = fit_float_error(f);
        if (error < least) {
            least = error;
            best = i;
        }
    }
    if (n)
        set_params(r, root, &list[best]);
    memcpy(e->x + from * columns, kept, n_check * sizeof *kept);
    quantize_rows(read_params(r, &r->g->nodes[f->l->node], f->l->x), e->x, e->rows * columns,
                  f->n_threads, e->x);
    return RUNG_OK;
}
