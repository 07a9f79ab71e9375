/* One layer: the candidates of all methods, and the one whose outputs err least on rows that none
 * of them was fitted to.
 *
 * Rounding with error feedback: Frantar et al., GPTQ, ICLR 2023, in the form of Babai's nearest
 * plane (the same sequence, seen from the other end). The layer's inputs are those of the quantized
 * model and its target is the float model's output, so that weights are refitted to noisy inputs
 * before they are rounded (as Li et al., GPTAQ, ICML 2025): a ridge regression towards the float
 * weights. Bias correction: Nagel et al., Data-free quantization through weight equalization and
 * bias correction, ICCV 2019, its empirical form. */
#include <math.h>
#include <string.h>

#include "base/threads.h"
#include "quant/method.h"

enum { MOST_INPUTS = 2304 }; /* of a group, for second moments: 21 MB of float32 */

static const double ridges[] = { 1e-3, 1e-2, 1e-1, 1 }; /* of the inputs' mean variance */

typedef struct bench {
    const fit *f;
    size_t     groups, in, out, rows; /* rows: groups * out */
    float     *moments;   /* [groups][in][in]: centred second moments of inputs */
    float     *residual;  /* [groups][in][out]: what the float weights do not explain, by input */
    double    *variance;  /* [groups * in] */
    double    *factor;    /* [groups][in][in]: Cholesky, damped, inputs in `order` */
    size_t    *order;     /* [groups][in] */
    float     *target;    /* [rows][in]: refitted weights */
    rounding   trial;
} bench;

/* --- error ------------------------------------------------------------------------------------ */

static void transpose(const float *w, size_t rows, size_t columns, float *to)
{
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < columns; j++)
            to[j * rows + i] = w[i * columns + j];
}

/* What is added to the centred output so that it is the layer's. */
static double offset_of(const fit *f, const rounding *r, size_t o)
{
    const size_t in = f->l->in;
    const double *mean = f->e->x_mean + o / f->l->out * in;
    double sum = r->bias[o];
    for (size_t i = 0; i < in; i++)
        sum += (double)r->codes[o * in + i] * r->scales[o] * mean[i];
    return sum;
}

static double clamp(double v, const layer *l)
{
    return fmin(fmax(v, l->lo), l->hi);
}

/* w: [groups][in][out]; sum: [groups * out] scratch. */
static double row_squares(const fit *f, const float *w, const double *offset, size_t row,
                          float *sum)
{
    const layer *l = f->l;
    const float *x = f->e->x + row * l->groups * l->in, *y = f->e->y + row * l->groups * l->out;
    double squares = 0;
    memset(sum, 0, l->groups * l->out * sizeof *sum);
    for (size_t g = 0; g < l->groups; g++)
        for (size_t i = 0; i < l->in; i++) {
            const float v = x[g * l->in + i], *wi = w + (g * l->in + i) * l->out;
            float *restrict s = sum + g * l->out;
            for (size_t o = 0; o < l->out; o++)
                s[o] += v * wi[o];
        }
    for (size_t o = 0; o < l->groups * l->out; o++) {
        const double d = clamp(sum[o] + offset[o], l) - clamp(y[o] + f->e->y_mean[o], l);
        squares += d * d;
    }
    return squares;
}

/* Of weights w [rows][in] and offsets to the centred output. NaN: memory is out. */
static double error_of(const fit *f, const float *w, const double *offset)
{
    const layer *l = f->l;
    const size_t rows = l->groups * l->out, from = f->e->fit_rows < f->e->rows ? f->e->fit_rows : 0;
    arena *mem = arena_new();
    float *back = mem ? arena_zero(mem, rows * l->in, sizeof *back) : NULL;
    float *sums = mem ? arena_zero(mem, rows * (size_t)f->n_threads, sizeof *sums) : NULL;
    double *each = mem ? arena_zero(mem, f->e->rows, sizeof *each) : NULL, all = 0;
    if (!back || !sums || !each) {
        arena_free(mem);
        return NAN;
    }
    for (size_t g = 0; g < l->groups; g++)
        transpose(w + g * l->out * l->in, l->out, l->in, back + g * l->out * l->in);
#pragma omp parallel for num_threads(f->n_threads) if (f->n_threads > 1)
    for (int t = 0; t < f->n_threads; t++) {
        size_t first, last;
        share(f->e->rows - from, 1, t, f->n_threads, &first, &last);
        for (size_t i = first; i < last; i++)
            each[from + i] = row_squares(f, back, offset, from + i, sums + rows * (size_t)t);
    }
    for (size_t i = from; i < f->e->rows; i++)
        all += each[i];
    arena_free(mem);
    return all / (double)(f->e->rows - from);
}

double fit_error(const fit *f, const rounding *r)
{
    const size_t in = f->l->in, rows = f->l->groups * f->l->out;
    arena *mem = arena_new();
    float *w = mem ? arena_zero(mem, rows * in, sizeof *w) : NULL;
    double *offset = mem ? arena_zero(mem, rows, sizeof *offset) : NULL, error = NAN;
    for (size_t o = 0; w && offset && o < rows; o++) {
        for (size_t i = 0; i < in; i++)
            w[o * in + i] = (float)r->codes[o * in + i] * r->scales[o];
        offset[o] = offset_of(f, r, o);
    }
    if (w && offset)
        error = error_of(f, w, offset);
    arena_free(mem);
    return error;
}

double fit_float_error(const fit *f)
{
    const size_t in = f->l->in, rows = f->l->groups * f->l->out;
    arena *mem = arena_new();
    double *offset = mem ? arena_zero(mem, rows, sizeof *offset) : NULL, error = NAN;
    for (size_t o = 0; offset && o < rows; o++) {
        offset[o] = f->now->bias[o];
        for (size_t i = 0; i < in; i++)
            offset[o] += (double)f->w[o * in + i] * f->e->x_mean[o / f->l->out * in + i];
    }
    if (offset)
        error = error_of(f, f->w, offset);
    arena_free(mem);
    return error;
}

/* --- candidates ------------------------------------------------------------------------------- */

/* The bias with which the mean error over the rows to fit on is zero. */
static void correct_bias(const fit *f, const rounding *r)
{
    memset(r->bias, 0, f->l->groups * f->l->out * sizeof *r->bias);
    for (size_t o = 0; o < f->l->groups * f->l->out; o++)
        r->bias[o] = (float)(f->e->y_mean[o] - offset_of(f, r, o));
}

static void end_candidate(const bench *b)
{
    if (b->f->has_bias && b->f->methods & (RUNG_METHOD_BIAS | RUNG_METHOD_GPTQ))
        correct_bias(b->f, &b->trial);
    else
        memcpy(b->trial.bias, b->f->now->bias, b->rows * sizeof *b->trial.bias);
}

static int8_t nearest(double v, float scale, int top)
{
    return (int8_t)fmin(fmax(rint(v / scale), -top), top);
}

static void largest_scales(const bench *b, const float *w)
{
    for (size_t o = 0; o < b->rows; o++) {
        float most = 0;
        for (size_t i = 0; i < b->in; i++)
            most = fmaxf(most, fabsf(w[o * b->in + i]));
        b->trial.scales[o] = most > 0 ? most / (float)b->f->top : b->f->now->scales[o];
    }
}

static void choose_row_scales(const bench *b, const float *w)
{
    const fit *f = b->f;
    float all = 0;
    if (f->methods & (RUNG_METHOD_CLIP | RUNG_METHOD_ADAROUND))
        clip_scales(w, b->groups, b->out, b->in, b->variance, f->top, f->per_tensor, f->n_threads,
                    b->trial.scales);
    else
        largest_scales(b, w);
    for (size_t o = 0; o < b->rows; o++) {
        b->trial.scales[o] = fmaxf(b->trial.scales[o], f->least[o]);
        all = fmaxf(all, b->trial.scales[o]);
    }
    for (size_t o = 0; o < b->rows && f->per_tensor; o++)
        b->trial.scales[o] = all;
}

static void round_nearest(const bench *b, const float *w)
{
    for (size_t o = 0; o < b->rows; o++)
        for (size_t i = 0; i < b->in; i++)
            b->trial.codes[o * b->in + i] =
                nearest(w[o * b->in + i], b->trial.scales[o], b->f->top);
}

/* One row, the input of largest variance first: the error of each code is carried to the inputs
 * that follow, by the factor of the moments. carried: [in] scratch. */
static void feed_back(const bench *b, const float *w, size_t o, double *carried)
{
    const size_t in = b->in, g = o / b->out;
    const double *factor = b->factor + g * in * in;
    const size_t *order = b->order + g * in;
    const float scale = b->trial.scales[o];
    memset(carried, 0, in * sizeof *carried);
    for (size_t k = in; k-- > 0;) {
        const size_t i = order[k];
        const double *row = factor + k * in;
        const double want = w[o * in + i] + carried[k] / row[k];
        const int8_t q = nearest(want, scale, b->f->top);
        const double error = w[o * in + i] - (double)q * scale;
        b->trial.codes[o * in + i] = q;
        for (size_t j = 0; j < k; j++)
            carried[j] += row[j] * error;
    }
}

static rung_status round_with_feedback(const bench *b, const float *w, rung_error *err)
{
    const int n = b->f->n_threads;
    arena *mem = arena_new();
    double *carried = mem ? arena_zero(mem, b->in * (size_t)n, sizeof *carried) : NULL;
    if (carried) {
#pragma omp parallel for num_threads(n) if (n > 1)
        for (int t = 0; t < n; t++) {
            size_t first, last;
            share(b->rows, 1, t, n, &first, &last);
            for (size_t o = first; o < last; o++)
                feed_back(b, w, o, carried + b->in * (size_t)t);
        }
    }
    arena_free(mem);
    return carried ? RUNG_OK : fail_memory(err, "rounding", b->in * sizeof(double));
}

/* --- moments ---------------------------------------------------------------------------------- */

static void measure_variance(const bench *b)
{
    const evidence *e = b->f->e;
    const size_t n = b->groups * b->in;
    for (size_t r = 0; r < e->fit_rows; r++)
        for (size_t i = 0; i < n; i++)
            b->variance[i] += (double)e->x[r * n + i] * e->x[r * n + i];
}

static void measure_moments(const bench *b, size_t g, int n_threads)
{
    const evidence *e = b->f->e;
    const size_t in = b->in, out = b->out, ldx = b->groups * in, ldy = b->groups * out;
    float *h = b->moments + g * in * in, *d = b->residual + g * in * out;
    const float *x = e->x + g * in, *w = b->f->w + g * out * in;
    matrix_products(x, ldx, in, x, ldx, in, e->fit_rows, n_threads, h);
    matrix_products(x, ldx, in, e->y + g * out, ldy, out, e->fit_rows, n_threads, d);
    for (size_t i = 0; i < in; i++) /* less what the float weights explain */
        for (size_t o = 0; o < out; o++) {
            double sum = 0;
            for (size_t j = 0; j < in; j++)
                sum += (double)h[i * in + j] * w[o * in + j];
            d[i * out + o] -= (float)sum;
        }
}

static double mean_variance(const bench *b, size_t g)
{
    double sum = 0;
    for (size_t i = 0; i < b->in; i++)
        sum += b->variance[g * b->in + i];
    return sum / (double)b->in;
}

static void sort_by_variance(const bench *b, size_t g)
{
    size_t *order = b->order + g * b->in;
    const double *v = b->variance + g * b->in;
    for (size_t i = 0; i < b->in; i++) { /* insertion; equal ones keep their order */
        size_t k = i;
        for (; k > 0 && v[order[k - 1]] > v[i]; k--)
            order[k] = order[k - 1];
        order[k] = i;
    }
}

/* The moments of group g with `ridge` times the mean variance on the diagonal, inputs in order
 * (NULL: as they are), factored. An input that never varies takes part in nothing. */
static bool factor_moments(const bench *b, size_t g, double ridge, const size_t *order, double *to,
                           int n_threads)
{
    const size_t in = b->in;
    const float *h = b->moments + g * in * in;
    const double mean = mean_variance(b, g), more = mean > 0 ? mean * ridge : 1;
    for (size_t i = 0; i < in; i++) {
        const float *row = h + (order ? order[i] : i) * in;
        for (size_t j = 0; j <= i; j++)
            to[i * in + j] = row[order ? order[j] : j];
        to[i * in + i] += more;
    }
    return matrix_cholesky(to, in, n_threads);
}

/* --- refitting -------------------------------------------------------------------------------- */

/* target = w + (H + ridge)^-1 residual; [in][out] scratch. */
static bool refit_group(const bench *b, size_t g, double ridge, double *factor, double *change,
                        int n_threads)
{
    const size_t in = b->in, out = b->out;
    if (!factor_moments(b, g, ridge, NULL, factor, n_threads))
        return false;
    for (size_t i = 0; i < in * out; i++)
        change[i] = b->residual[g * in * out + i];
    matrix_solve(factor, in, change, out, n_threads);
    for (size_t o = 0; o < out; o++)
        for (size_t i = 0; i < in; i++) {
            const size_t at = (g * out + o) * in + i;
            b->target[at] = (float)(b->f->w[at] + change[i * out + o]);
        }
    return true;
}

static bool refit(const bench *b, double ridge, double *factor, double *change)
{
    bool good = true;
    for (size_t g = 0; g < b->groups && good; g++)
        good = refit_group(b, g, ridge, factor, change, b->groups > 1 ? 1 : b->f->n_threads);
    return good;
}

/* --- choice ----------------------------------------------------------------------------------- */

typedef struct choice {
    rounding   *best;
    double      error;
    const char *name;
} choice;

static void judge(const bench *b, choice *c, const char *name)
{
    end_candidate(b);
    const double e = fit_error(b->f, &b->trial);
    if (!(e < c->error))
        return;
    c->error = e;
    c->name = name;
    memcpy(c->best->codes, b->trial.codes, b->rows * b->in);
    memcpy(c->best->scales, b->trial.scales, b->rows * sizeof(float));
    memcpy(c->best->bias, b->trial.bias, b->rows * sizeof(float));
}

static rung_status try_adaround(const bench *b, const float *w, choice *c, rung_error *err)
{
    choose_row_scales(b, w);
    end_candidate(b);
    const rung_status st = adaround(b->f, w, &b->trial, err);
    if (st == RUNG_OK)
        judge(b, c, "adaround");
    return st;
}

static rung_status try_feedback(const bench *b, choice *c, rung_error *err)
{
    const size_t in = b->in;
    double *factor = arena_zero(b->f->mem, in * in, sizeof *factor);
    double *change = arena_zero(b->f->mem, in * b->out, sizeof *change);
    bool good = factor && change;
    if (!good)
        return fail_memory(err, "second moments", in * in * sizeof *factor);
    for (size_t g = 0; g < b->groups && good; g++) {
        const int n = b->groups > 1 ? 1 : b->f->n_threads;
        measure_moments(b, g, n);
        sort_by_variance(b, g);
        good = factor_moments(b, g, 0.01, b->order + g * in, b->factor + g * in * in, n);
    }
    rung_status st = RUNG_OK;
    for (int k = -1; good && st == RUNG_OK && k < (int)(sizeof ridges / sizeof *ridges); k++) {
        if (k >= 0 && !refit(b, ridges[k], factor, change))
            break;
        const float *w = k < 0 ? b->f->w : b->target;
        choose_row_scales(b, w);
        if ((st = round_with_feedback(b, w, err)) == RUNG_OK)
            judge(b, c, k < 0 ? "gptq" : "gptq, refitted");
    }
    return st;
}

static bool bench_make(bench *b, const fit *f)
{
    const size_t groups = f->l->groups, in = f->l->in, out = f->l->out, rows = groups * out;
    *b = (bench){ .f = f, .groups = groups, .in = in, .out = out, .rows = rows };
    b->variance = arena_zero(f->mem, groups * in, sizeof *b->variance);
    b->trial.codes = arena_zero(f->mem, rows, in);
    b->trial.scales = arena_zero(f->mem, rows, sizeof(float));
    b->trial.bias = arena_zero(f->mem, rows, sizeof(float));
    if (f->methods & RUNG_METHOD_GPTQ && in <= MOST_INPUTS) {
        b->moments = arena_zero(f->mem, groups * in * in, sizeof(float));
        b->factor = arena_zero(f->mem, groups * in * in, sizeof(double));
        b->residual = arena_zero(f->mem, groups * in * out, sizeof(float));
        b->order = arena_zero(f->mem, groups * in, sizeof(size_t));
        b->target = arena_zero(f->mem, rows * in, sizeof(float));
        if (!b->moments || !b->factor || !b->residual || !b->order || !b->target)
            return false;
    }
    return b->variance && b->trial.codes && b->trial.scales && b->trial.bias;
}

rung_status fit_layer(const fit *f, rounding *best, const char **name, double *before,
                      double *after, rung_error *err)
{
    bench b;
    rung_status st = RUNG_OK;
    if (!bench_make(&b, f))
        return fail_memory(err, "fitting a layer", f->l->in * f->l->out);
    choice c = { best, *before = fit_error(f, f->now), NULL };
    measure_variance(&b);
    if (f->methods & RUNG_METHOD_BIAS && f->has_bias) {
        memcpy(b.trial.codes, f->now->codes, b.rows * b.in);
        memcpy(b.trial.scales, f->now->scales, b.rows * sizeof(float));
        judge(&b, &c, "bias");
    }
    if (f->methods & RUNG_METHOD_CLIP) {
        choose_row_scales(&b, f->w);
        round_nearest(&b, f->w);
        judge(&b, &c, "clip");
    }
    if (b.moments)
        st = try_feedback(&b, &c, err);
    if (st == RUNG_OK && f->methods & RUNG_METHOD_ADAROUND)
        st = try_adaround(&b, f->w, &c, err);
    *after = c.error;
    *name = c.name;
    return st;
}
