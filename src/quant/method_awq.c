/* AWQ: Lin et al., "AWQ: Activation-aware Weight Quantization for LLM Compression and
 * Acceleration", MLSys 2024 (arXiv 2306.00978).
 *
 * Weights that large activations meet are multiplied before rounding, so that they lose less, and
 * the activations divided: f = mean|x|^a, a searched for each group of products by the error of
 * their outputs on calibration rows. What does not help on rows kept apart is undone. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "base/progress.h"
#include "graph/pass.h"
#include "quant/rounding.h"

enum { ROWS = 4096, MOST_INPUTS = 4096, ALPHAS = 20 }; /* a = 0.05 to 1 */

typedef struct trial {
    const product_group *p;
    dtype                type;
    size_t               block;
    int                  n_threads;
    arena               *mem;
    tensor             **w;  /* [n_ws]: [in][out] */
    float               *size, *f; /* [in]: mean |x|, the factors */
    const float         *fit, *check; /* sums of squares */
} trial;

static void choose_factors(const trial *t, float a)
{
    double logs = 0;
    size_t n = 0;
    for (size_t i = 0; i < t->p->in; i++) {
        const bool live = t->size[i] > FLT_MIN && isfinite(t->size[i]);
        t->f[i] = live ? powf(t->size[i], a) : 0;
        logs += live ? log(t->f[i]) : 0;
        n += live;
    }
    const float mean = n ? (float)exp(logs / (double)n) : 1;
    for (size_t i = 0; i < t->p->in; i++)
        t->f[i] = t->f[i] > 0 ? fminf(fmaxf(t->f[i] / mean, 1e-4f), 1e4f) : 1;
}

/* Of one weight: rounded times f, over f. NaN: memory is out. */
static double weight_error(const trial *t, const tensor *w, const float *h, bool search)
{
    const matrix_format m = { .in = t->p->in, .out = (size_t)w->dims[1],
                              .block = t->block ? t->block : t->p->in,
                              .f = block_format_of(t->type, search) };
    arena *mem = arena_new();
    tensor *scaled = mem ? tensor_copy(mem, w) : NULL;
    float *d = mem ? arena_alloc(mem, m.in * m.out * sizeof *d) : NULL;
    block_codes c;
    double error = NAN;
    if (scaled && d && block_codes_new(mem, &m, &c)) {
        float *x = scaled->data;
        for (size_t i = 0; i < m.in * m.out; i++)
            x[i] *= t->f[i / m.out];
        if (block_codes_nearest(scaled, &m, &c)) {
            block_codes_change(x, &m, &c, d);
            for (size_t i = 0; i < m.in * m.out; i++)
                d[i] /= t->f[i / m.out];
            error = moments_error(h, d, m.in, m.out, t->n_threads);
        }
    }
    arena_free(mem);
    return error;
}

static double error_of(const trial *t, const float *h, bool search)
{
    double error = 0;
    for (size_t k = 0; k < t->p->n_ws; k++)
        error += weight_error(t, t->w[k], h, search);
    return error;
}

static rung_status trial_make(trial *t, const graph *g, const samples *s, uint64_t seed,
                              bool *usable, rung_error *err)
{
    group_rows rows;
    const size_t in = t->p->in;
    rung_status st = RUNG_OK;
    rows.n = 0;
    if (in <= MOST_INPUTS)
        st = group_collect(g, t->p, s, ROWS, seed, t->mem, &rows, err);
    *usable = st == RUNG_OK && rows.n > 0;
    if (!*usable)
        return st;
    t->fit = rows_moments(&rows, 0, rows.n_fit, t->n_threads, t->mem);
    t->check = rows_moments(&rows, rows.n_fit, rows.n, t->n_threads, t->mem);
    t->w = arena_zero(t->mem, t->p->n_ws, sizeof *t->w);
    t->size = arena_zero(t->mem, in, sizeof(float));
    t->f = arena_zero(t->mem, in, sizeof(float));
    bool good = t->fit && t->check && t->w && t->size && t->f;
    for (size_t r = 0; r < rows.n_fit && good; r++)
        for (size_t i = 0; i < in; i++)
            t->size[i] += fabsf(rows.x[r * in + i]) / (float)rows.n_fit;
    for (size_t k = 0; k < t->p->n_ws && good; k++)
        good = (t->w[k] = group_weight(g, t->p, t->p->ws[k], t->mem)) != NULL;
    return good ? RUNG_OK : fail_memory(err, "scaling a layer", in * in * sizeof(float));
}

/* The a of least error, in t->f; 0: none that helps on the rows kept apart. The search is by ranges
 * alone, which is quick; what decides rounds as the model will. */
static float search(const trial *t, double *before, double *after)
{
    float best = 0;
    choose_factors(t, 0);
    *before = *after = error_of(t, t->check, true);
    double least = error_of(t, t->fit, false);
    for (int k = 1; k <= ALPHAS; k++) {
        choose_factors(t, (float)k / ALPHAS);
        const double error = error_of(t, t->fit, false);
        if (error < least) {
            least = error;
            best = (float)k / ALPHAS;
        }
    }
    choose_factors(t, best);
    if (best > 0)
        *after = error_of(t, t->check, true);
    return *after < *before ? best : 0;
}

static rung_status scale_group(graph *g, trial *t, const samples *s, uint64_t seed,
                               diagnostics *diag, bool *changed, rung_error *err)
{
    uses u;
    double before, after;
    size_t n_muls = 0;
    bool usable;
    const char *name = g->values[t->p->ws[0]].name;
    rung_status st = trial_make(t, g, s, seed, &usable, err);
    if (st == RUNG_OK && !usable)
        diagnose(diag, "method-undone", name, "awq: more than %d inputs, or no rows to look at",
                 MOST_INPUTS);
    if (st != RUNG_OK || !usable || (st = graph_uses(g, t->mem, &u, err)) != RUNG_OK)
        return st;
    const float a = search(t, &before, &after);
    if (a == 0) {
        diagnose(diag, "method-undone", name, "awq: no factors lower the error of its outputs");
        return RUNG_OK;
    }
    *changed = true;
    st = rescale_apply(g, &u, t->p, t->f, &n_muls, err);
    if (st == RUNG_OK)
        diagnose(diag, "method", name, "awq: exponent %.2f, error of its outputs %.2f dB lower on "
                 "samples kept apart%s", (double)a, 10 * log10(before / after),
                 n_muls ? ", by a Mul of its own" : "");
    return st;
}

rung_status methods_awq(graph *g, const samples *s, const rung_quant_options *opt,
                        const bool *wanted, dtype type, size_t block, diagnostics *diag, size_t *n,
                        rung_error *err)
{
    arena *mem = arena_new();
    value_info *info = mem ? arena_zero(mem, g->n_values + 1, sizeof *info) : NULL;
    product_group *groups = NULL;
    size_t n_groups = 0;
    progress bar;
    rung_status st = info ? graph_infer(g, NULL, mem, info, err)
                          : fail_memory(err, "scaling", g->n_values * sizeof *info);
    if (st == RUNG_OK)
        st = groups_find(g, info, wanted, mem, &groups, &n_groups, err);
    progress_begin(&bar, "scaling", "groups", n_groups, opt->quiet);
    *n = 0;
    for (size_t i = 0; i < n_groups && st == RUNG_OK; i++) {
        bool changed = false;
        trial t = { .p = &groups[i], .type = type, .block = block, .n_threads = s->n_threads,
                    .mem = arena_new() };
        st = t.mem ? scale_group(g, &t, s, opt->seed, diag, &changed, err)
                   : fail_memory(err, "scaling", sizeof t);
        *n += changed;
        arena_free(t.mem);
        progress_step(&bar, 1);
    }
    progress_end(&bar);
    arena_free(mem);
    return st == RUNG_OK ? graph_sort(g, err) : st;
}
