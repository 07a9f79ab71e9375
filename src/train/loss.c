/* Losses and their gradients, sample by sample in double: a few thousand numbers beside the
 * network's millions. */
#include "train/loss.h"

#include <math.h>
#include <string.h>

/* One sample of an output as [outer][classes][inner]. */
typedef struct rows {
    size_t outer, classes, inner;
} rows;

static size_t per_sample(const tensor *t)
{
    return t->rank > 0 && t->dims[0] > 0 ? tensor_count(t) / (size_t)t->dims[0] : 0;
}

static rows rows_of(const tensor *t)
{
    if (t->rank < 2)
        return (rows){ 1, per_sample(t), 1 };
    const int axis = t->rank >= 4 ? 1 : t->rank - 1;
    return (rows){ dims_count(axis - 1, t->dims + 1), (size_t)t->dims[axis],
                   dims_count(t->rank - axis - 1, t->dims + axis + 1) };
}

static double largest(const float *x, size_t n, size_t stride)
{
    double most = x[0];
    for (size_t i = 1; i < n; i++)
        most = fmax(most, x[i * stride]);
    return most;
}

/* log of the sum of exp(x / T); x: n numbers, stride apart. */
static double log_sum_exp(const float *x, size_t n, size_t stride, double t)
{
    const double most = largest(x, n, stride);
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += exp((x[i * stride] - most) / t);
    return most / t + log(sum);
}

/* --- cross-entropy ---------------------------------------------------------------------------- */

static size_t best(const float *y, size_t n)
{
    size_t at = 0;
    for (size_t c = 1; c < n; c++)
        at = y[c] > y[at] ? c : at;
    return at;
}

/* A sample's label and, for share, the one that is mixed in. */
typedef struct target {
    int64_t label, mixed;
    double  share;
} target;

static target target_of(const loss_targets *t, size_t i)
{
    target out = { t->labels ? t->labels[i] : -1, -1, 0 };
    out.mixed = t->mixed ? t->mixed[i] : out.label;
    out.share = t->mixed && t->share ? t->share[i] : 0;
    return out;
}

/* Adds the gradient of one sample, `weight` times. */
static double cross_entropy(const loss_options *opt, const target *t, const float *y, size_t n,
                            double weight, float *dy)
{
    const double even = opt->label_smoothing / (double)n, rest = 1 - opt->label_smoothing;
    const double all = log_sum_exp(y, n, 1, 1);
    double loss = 0;
    for (size_t c = 0; c < n; c++) {
        const double hot = (t->label == (int64_t)c ? 1 - t->share : 0) +
                           (t->mixed == (int64_t)c ? t->share : 0);
        const double want = rest * hot + even, log_p = y[c] - all;
        loss -= want * log_p;
        dy[c] += (float)(weight * (exp(log_p) - want));
    }
    return weight * loss;
}

static rung_status score(const loss_options *opt, const loss_output *out, size_t n, size_t n_total,
                         const loss_targets *targets, double *loss, size_t *correct,
                         rung_error *err)
{
    const size_t per = per_sample(out->y);
    const float *y = out->y->data;
    for (size_t i = 0; i < n && per; i++) {
        const target t = target_of(targets, i);
        if (t.label < 0 || t.mixed < 0)
            continue;
        if ((size_t)t.label >= per || (size_t)t.mixed >= per)
            return fail(err, RUNG_EARGUMENT, "label %lld: the first output has %zu scores a sample",
                        (long long)(t.label > t.mixed ? t.label : t.mixed), per);
        if (correct)
            *correct += best(y + i * per, per) == (size_t)t.label;
        if (opt->cross_entropy > 0)
            *loss += cross_entropy(opt, &t, y + i * per, per,
                                   (double)opt->cross_entropy / (double)n_total,
                                   out->dy + i * per);
    }
    return RUNG_OK;
}

/* --- against the teacher ---------------------------------------------------------------------- */

static bool has_teacher(const loss_output *o)
{
    return o->teacher && o->teacher->data && tensor_count(o->teacher) == tensor_count(o->y);
}

/* Mean squared error of one sample; relative: over the mean square of t. */
static double squared_error(const float *y, const float *t, size_t n, double weight, bool relative,
                            float *dy)
{
    double error = 0, square = 0;
    for (size_t i = 0; i < n; i++) {
        const double d = (double)y[i] - t[i];
        error += d * d;
        square += (double)t[i] * t[i];
    }
    const double by = relative ? square : (double)n;
    if (!(by > 0))
        return 0;
    for (size_t i = 0; i < n; i++)
        dy[i] += (float)(2 * weight / by * ((double)y[i] - t[i]));
    return weight * error / by;
}

static double distill_row(const float *y, const float *t, const rows *r, double temperature,
                          double weight, float *dy)
{
    const double all_y = log_sum_exp(y, r->classes, r->inner, temperature);
    const double all_t = log_sum_exp(t, r->classes, r->inner, temperature);
    double kl = 0;
    for (size_t c = 0; c < r->classes; c++) {
        const size_t i = c * r->inner;
        const double log_y = y[i] / temperature - all_y, log_t = t[i] / temperature - all_t;
        const double p = exp(log_t);
        kl += p * (log_t - log_y);
        dy[i] += (float)(weight * temperature * (exp(log_y) - p));
    }
    return weight * temperature * temperature * kl;
}

static double distill(const float *y, const float *t, const rows *r, double temperature,
                      double weight, float *dy)
{
    const double each = weight / ((double)r->outer * (double)r->inner);
    double loss = 0;
    for (size_t o = 0; o < r->outer; o++)
        for (size_t k = 0; k < r->inner; k++) {
            const size_t at = o * r->classes * r->inner + k;
            loss += distill_row(y + at, t + at, r, temperature, each, dy + at);
        }
    return loss;
}

static double follow_teacher(const loss_options *opt, const loss_output *o, bool extra, size_t n,
                             size_t n_total)
{
    const size_t per = per_sample(o->y);
    const rows r = rows_of(o->y);
    const double mse = (double)(extra ? opt->features : opt->mse) / (double)n_total;
    const double kl = extra ? 0 : (double)opt->distill / (double)n_total;
    const double temperature = opt->temperature > 0 ? opt->temperature : 1;
    double loss = 0;
    if (!has_teacher(o) || !per)
        return 0;
    for (size_t i = 0; i < n; i++) {
        const float *y = (const float *)o->y->data + i * per;
        const float *t = (const float *)o->teacher->data + i * per;
        if (mse > 0)
            loss += squared_error(y, t, per, mse, extra, o->dy + i * per);
        if (kl > 0)
            loss += distill(y, t, &r, temperature, kl, o->dy + i * per);
    }
    return loss;
}

rung_status loss_eval(const loss_options *opt, const loss_output *out, int n_outputs, int n_extra,
                      size_t n, size_t n_total, const loss_targets *targets, double *loss,
                      size_t *correct, rung_error *err)
{
    rung_status st = RUNG_OK;
    *loss = 0;
    if (correct)
        *correct = 0;
    for (int i = 0; i < n_outputs + n_extra; i++)
        memset(out[i].dy, 0, tensor_count(out[i].y) * sizeof *out[i].dy);
    if (n_outputs > 0)
        st = score(opt, &out[0], n, n_total, targets, loss, correct, err);
    for (int i = 0; i < n_outputs + n_extra && st == RUNG_OK; i++)
        *loss += follow_teacher(opt, &out[i], i >= n_outputs, n, n_total);
    return st;
}
