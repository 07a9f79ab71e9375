/* SmoothQuant: Xiao et al., "SmoothQuant: Accurate and Efficient Post-Training Quantization for
 * Large Language Models", ICML 2023 (arXiv 2211.10438).
 *
 * A few channels of a transformer's activations are much larger than the others and take the 8-bit
 * range for themselves. Each channel is divided by f = max|x|^a / max|W|^(1-a), the weights behind
 * it multiplied. The paper has one a for a model; here it is searched for each group of products
 * that share an activation or a weight, by the error that quantizing both makes of their outputs on
 * calibration rows. It is kept where it lowers that error on rows kept apart, and the error of the
 * whole network there: a normalization behind may care for other outputs than the largest. The
 * network is judged with activations ranged when it runs, as ranges are not chosen yet. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "base/progress.h"
#include "graph/pass.h"
#include "quant/rescale.h"

enum { ROWS = 1024, ALPHAS = 10 }; /* a = 0.1 to 1 */

/* A group's numbers, and scratch for one trial. All in mem. */
typedef struct trial {
    const rung_quant_options *opt;
    const product_group      *p;
    group_rows                rows;
    int                       n_threads;
    arena                    *mem;
    tensor                  **w; /* [n_ws]: [in][out] */
    float                    *x_most, *w_most, *f; /* [in] */
    float                    *x_codes; /* [in][rows]: x / f, quantized, and back */
    float                    *lo, *hi; /* [n_xs] */
} trial;

static void measure_channels(trial *t)
{
    const size_t in = t->rows.in;
    for (size_t i = 0; i < t->p->n_xs * in; i++)
        t->x_most[i % in] = fmaxf(t->x_most[i % in], fmaxf(-t->rows.lo[i], t->rows.hi[i]));
    for (size_t k = 0; k < t->p->n_ws; k++) {
        const size_t out = (size_t)t->w[k]->dims[1];
        const float *w = t->w[k]->data;
        for (size_t i = 0; i < in * out; i++)
            t->w_most[i / out] = fmaxf(t->w_most[i / out], fabsf(w[i]));
    }
}

/* The factors, of geometric mean 1. A channel that is never seen, or has no weight, keeps 1. */
static bool choose_factors(trial *t, float a)
{
    double logs = 0;
    size_t n = 0;
    for (size_t i = 0; i < t->rows.in; i++) {
        const bool live = t->x_most[i] > FLT_MIN && t->w_most[i] > FLT_MIN &&
                          isfinite(t->x_most[i]) && isfinite(t->w_most[i]);
        t->f[i] = live ? powf(t->x_most[i], a) / powf(t->w_most[i], 1 - a) : 0;
        logs += live ? log(t->f[i]) : 0;
        n += live;
    }
    const float mean = n ? (float)exp(logs / (double)n) : 1;
    for (size_t i = 0; i < t->rows.in; i++)
        t->f[i] = t->f[i] > 0 ? fminf(fmaxf(t->f[i] / mean, 1e-4f), 1e4f) : 1;
    return n > 0;
}

/* x / f in the codes of its activation's range, and back, transposed. */
static void quantize_rows(trial *t, size_t first, size_t end)
{
    const size_t in = t->rows.in, n = end - first;
    for (size_t k = 0; k < t->p->n_xs; k++) {
        t->lo[k] = t->hi[k] = 0;
        for (size_t i = 0; i < in; i++) {
            t->lo[k] = fminf(t->lo[k], t->rows.lo[k * in + i] / t->f[i]);
            t->hi[k] = fmaxf(t->hi[k], t->rows.hi[k * in + i] / t->f[i]);
        }
    }
    for (size_t r = first; r < end; r++) {
        bool repaired;
        const int k = t->rows.owner[r];
        const qparams q = qparams_from_range(t->lo[k], t->hi[k], RUNG_U8, 8, t->opt->act_symmetric,
                                             &repaired);
        for (size_t i = 0; i < in; i++) {
            const int code = qparams_quantize(&q, t->rows.x[r * in + i] / t->f[i]);
            t->x_codes[i * n + r - first] = (float)(code - q.zero) * q.scale;
        }
    }
}

/* f W in int8 codes, and back. */
static bool quantize_matrix(const trial *t, const tensor *w, float *to)
{
    const size_t out = (size_t)w->dims[1], n = tensor_count(w);
    const int axis = t->opt->per_tensor ? -1 : 1, top = weight_top(t->opt);
    const float *from = w->data;
    float *scales = arena_zero(t->mem, out, sizeof *scales);
    tensor scaled = *w;
    if (!scales)
        return false;
    scaled.data = to;
    for (size_t i = 0; i < n; i++)
        to[i] = from[i] * t->f[i / out];
    weight_scales(&scaled, axis, scales);
    for (size_t i = 0; i < n; i++) {
        const float s = scales[axis < 0 ? 0 : i % out] * 127 / (float)top;
        to[i] = fminf(fmaxf(nearbyintf(to[i] / s), (float)-top), (float)top) * s;
    }
    return true;
}

/* Sum over rows [first, end) of the squared error of one weight's outputs; NaN: memory is out. */
static double weight_error(const trial *t, const tensor *w, size_t first, size_t end)
{
    const size_t in = t->rows.in, out = (size_t)w->dims[1], n = end - first;
    float *q = arena_alloc(t->mem, in * out * sizeof *q);
    float *x = arena_alloc(t->mem, in * n * sizeof *x);
    float *y = arena_alloc(t->mem, n * out * sizeof *y);
    float *want = arena_alloc(t->mem, n * out * sizeof *want);
    double error = 0;
    if (!q || !x || !y || !want || !quantize_matrix(t, w, q))
        return NAN;
    for (size_t r = 0; r < n; r++)
        for (size_t i = 0; i < in; i++)
            x[i * n + r] = t->rows.x[(first + r) * in + i];
    matrix_products(t->x_codes, n, n, q, out, out, in, t->n_threads, y);
    matrix_products(x, n, n, w->data, out, out, in, t->n_threads, want);
    for (size_t i = 0; i < n * out; i++)
        error += ((double)y[i] - want[i]) * ((double)y[i] - want[i]);
    return error;
}

static double error_of(const trial *t, size_t first, size_t end)
{
    trial now = *t;
    double error = 0;
    quantize_rows(&now, first, end);
    for (size_t k = 0; k < t->p->n_ws; k++) {
        now.mem = arena_new();
        error += now.mem ? weight_error(&now, t->w[k], first, end) : NAN;
        arena_free(now.mem);
    }
    return error;
}

static rung_status trial_make(trial *t, const graph *g, const samples *s, rung_error *err)
{
    const size_t in = t->p->in;
    const rung_status st = group_collect(g, t->p, s, ROWS, t->opt->seed, t->mem, &t->rows, err);
    if (st != RUNG_OK)
        return st;
    t->w = arena_zero(t->mem, t->p->n_ws, sizeof *t->w);
    t->x_most = arena_zero(t->mem, in, sizeof(float));
    t->w_most = arena_zero(t->mem, in, sizeof(float));
    t->f = arena_zero(t->mem, in, sizeof(float));
    t->lo = arena_zero(t->mem, t->p->n_xs, sizeof(float));
    t->hi = arena_zero(t->mem, t->p->n_xs, sizeof(float));
    t->x_codes = arena_zero(t->mem, in * t->rows.n, sizeof(float));
    bool good = t->w && t->x_most && t->w_most && t->f && t->lo && t->hi && t->x_codes;
    for (size_t k = 0; k < t->p->n_ws && good; k++)
        good = (t->w[k] = group_weight(g, t->p, t->p->ws[k], t->mem)) != NULL;
    return good ? RUNG_OK : fail_memory(err, "smoothing a layer", in * t->rows.n * sizeof(float));
}

/* The a of least error on the rows to fit on, in t->f; 0: none, or none that helps on the rows kept
 * apart. before, after: errors there. */
static float search(trial *t, double *before, double *after)
{
    const size_t n_fit = t->rows.n_fit, all = t->rows.n;
    float best = 0;
    for (size_t i = 0; i < t->rows.in; i++)
        t->f[i] = 1;
    double least = error_of(t, 0, n_fit);
    *before = *after = error_of(t, n_fit, all);
    measure_channels(t);
    for (int k = 1; k <= ALPHAS; k++) {
        const float a = (float)k / ALPHAS;
        const double error = choose_factors(t, a) ? error_of(t, 0, n_fit) : INFINITY;
        if (error < least) {
            least = error;
            best = a;
        }
    }
    if (best > 0 && choose_factors(t, best))
        *after = error_of(t, n_fit, all);
    return *after < *before ? best : 0;
}

/* The network's worst output, quantized as it would be by dynamic quantization. g need not be
 * sorted. */
static rung_status judge(const graph *g, const graph *reference, const samples *s,
                         const rung_quant_options *opt, double *db, rung_error *err)
{
    rung_quant_options plain = *opt;
    graph *sorted = NULL, *q = NULL;
    plain.methods = RUNG_METHOD_NONE;
    plain.weight_bits = 0;
    rung_status st = graph_clone(g, &sorted, err);
    if (st == RUNG_OK)
        st = graph_sort(sorted, err);
    if (st == RUNG_OK)
        st = quantize_dynamic(sorted, NULL, &plain, &q, NULL, err);
    if (st == RUNG_OK)
        st = samples_sqnr(s, reference, q, db, err);
    graph_free(sorted);
    graph_free(q);
    return st;
}

/* A way that is gone group by group; node indices of g stay. */
typedef struct walk {
    graph                    *g; /* owned: another one after every change */
    const graph              *reference; /* g as it came */
    const samples            *s;
    const rung_quant_options *opt;
    diagnostics              *diag;
    bool                      may_add;
    double                    db; /* of g as it is */
    size_t                    n;  /* groups that were changed */
    bool                     *taken; /* by group */
    bool                      again; /* the second time: what is left alone now is undone */
} walk;

/* g with t's factors, if the network is the better for it. */
static rung_status accept(walk *w, const trial *t, const uses *u, float a, double gain,
                          bool *taken, rung_error *err)
{
    graph *next = NULL;
    size_t n_muls = 0;
    double db = 0;
    const char *name = w->g->values[t->p->ws[0]].name;
    rung_status st = graph_clone(w->g, &next, err);
    if (st == RUNG_OK)
        st = rescale_apply(next, u, t->p, t->f, &n_muls, err);
    if (st == RUNG_OK)
        st = judge(next, w->reference, w->s, w->opt, &db, err);
    if (st == RUNG_OK && db > w->db) {
        graph *old = w->g;
        diagnose(w->diag, "method", name, "smooth: alpha %.1f, error of its outputs %.2f dB lower, "
                 "the network %.2f dB instead of %.2f dB on samples kept apart%s", (double)a, gain,
                 db, w->db, n_muls ? ", by a Mul of its own" : "");
        w->g = next;
        next = old;
        w->db = db;
        w->n++;
        *taken = true;
    } else if (st == RUNG_OK && w->again) {
        diagnose(w->diag, "method-undone", name, "smooth: the network has %.2f dB instead of %.2f "
                 "dB on samples kept apart", db, w->db);
    }
    graph_free(next);
    return st;
}

static rung_status smooth_group(walk *w, trial *t, bool *taken, rung_error *err)
{
    uses u;
    double before, after;
    rung_status st = graph_uses(w->g, t->mem, &u, err);
    if (st != RUNG_OK || (!w->may_add && !rescale_folds(w->g, &u, t->p)) ||
        (st = trial_make(t, w->g, w->s, err)) != RUNG_OK || !t->rows.n)
        return st;
    const float a = search(t, &before, &after);
    if (a > 0)
        return accept(w, t, &u, a, 10 * log10(before / after), taken, err);
    if (w->again)
        diagnose(w->diag, "method-undone", w->g->values[t->p->ws[0]].name,
                 "smooth: no factors lower the error of its outputs");
    return RUNG_OK;
}

/* Twice: what one group gains the network may depend on the others. */
static rung_status smooth_all(walk *w, const product_group *groups, size_t n_groups,
                              rung_error *err)
{
    progress bar;
    rung_status st = n_groups ? judge(w->g, w->reference, w->s, w->opt, &w->db, err) : RUNG_OK;
    progress_begin(&bar, "smoothing", "groups", 2 * n_groups, w->opt->quiet);
    for (size_t i = 0; i < 2 * n_groups && st == RUNG_OK; i++) {
        bool *taken = &w->taken[i % n_groups];
        trial t = { .opt = w->opt, .p = &groups[i % n_groups], .n_threads = w->s->n_threads };
        w->again = i >= n_groups;
        progress_step(&bar, 1);
        if (*taken)
            continue;
        t.mem = arena_new();
        st = t.mem ? smooth_group(w, &t, taken, err) : fail_memory(err, "smoothing", sizeof t);
        arena_free(t.mem);
    }
    progress_end(&bar);
    return st;
}

rung_status methods_smooth(graph **g, const samples *s, const rung_quant_options *opt,
                           const bool *wanted, bool may_add, diagnostics *diag, size_t *n,
                           rung_error *err)
{
    arena *mem = arena_new();
    value_info *info = mem ? arena_zero(mem, (*g)->n_values + 1, sizeof *info) : NULL;
    product_group *groups = NULL;
    graph *reference = NULL;
    size_t n_groups = 0;
    rung_status st = info ? graph_infer(*g, NULL, mem, info, err)
                          : fail_memory(err, "smoothing", (*g)->n_values * sizeof *info);
    if (st == RUNG_OK)
        st = groups_find(*g, info, wanted, mem, &groups, &n_groups, err);
    if (st == RUNG_OK)
        st = graph_clone(*g, &reference, err);
    walk w = { .g = *g, .reference = reference, .s = s, .opt = opt, .diag = diag,
               .may_add = may_add };
    w.taken = st == RUNG_OK ? arena_zero(mem, n_groups + 1, sizeof *w.taken) : NULL;
    if (st == RUNG_OK && !w.taken)
        st = fail_memory(err, "smoothing", n_groups);
    if (st == RUNG_OK)
        st = smooth_all(&w, groups, n_groups, err);
    *g = w.g;
    *n = w.n;
    graph_free(reference);
    arena_free(mem);
    return st == RUNG_OK ? graph_sort(*g, err) : st;
}
