/* SGD and AdamW over one block.
 *
 * SGD as PyTorch has it: m = momentum m + g (m = g in the first step), step by m, or by
 * g + momentum m (Nesterov). AdamW: I. Loshchilov, F. Hutter, Decoupled weight decay
 * regularization, ICLR 2019. Weight decay of SGD is added to the gradient. */
#include "train/optimizer.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"

rung_status optimizer_create(const params *p, const optimizer_options *opt, optimizer **out,
                             rung_error *err)
{
    optimizer *o = mem_zero(1, sizeof *o);
    const bool adam = opt->kind == OPTIMIZER_ADAMW, first = adam || opt->momentum > 0;
    *out = NULL;
    if (o) {
        o->opt = *opt;
        o->p = p;
        o->first = first ? mem_zero(p->total, sizeof *o->first) : NULL;
        o->second = adam ? mem_zero(p->total, sizeof *o->second) : NULL;
        o->average = opt->ema > 0 ? mem_alloc(p->total * sizeof *o->average) : NULL;
    }
    if (!o || (first && !o->first) || (adam && !o->second) || (opt->ema > 0 && !o->average)) {
        optimizer_free(o);
        return fail_memory(err, "the optimizer's state", p->total * sizeof(float));
    }
    if (o->average)
        memcpy(o->average, p->data, p->total * sizeof *o->average);
    *out = o;
    return RUNG_OK;
}

void optimizer_free(optimizer *o)
{
    if (!o)
        return;
    mem_free(o->first);
    mem_free(o->second);
    mem_free(o->average);
    mem_free(o);
}

/* --- schedule --------------------------------------------------------------------------------- */

float optimizer_rate(const optimizer *o)
{
    const optimizer_options *opt = &o->opt;
    if (o->step < opt->warmup)
        return (float)(opt->rate * (double)(o->step + 1) / (double)(opt->warmup + 1));
    const size_t at = o->step - opt->warmup;
    const size_t all = opt->total > opt->warmup ? opt->total - opt->warmup : 1;
    if (opt->schedule == SCHEDULE_COSINE) {
        const double share = at < all ? (double)at / (double)all : 1;
        return (float)(opt->rate * 0.5 * (1 + cos(3.14159265358979323846 * share)));
    }
    if (opt->schedule == SCHEDULE_STEP && opt->step_every)
        return (float)(opt->rate * pow(opt->step_factor, (double)(o->step / opt->step_every)));
    return opt->rate;
}

/* --- one step --------------------------------------------------------------------------------- */

/* Sums side by side: their order is the same with every compiler and vector width. */
static double sum_of_squares(const float *x, size_t n)
{
    enum { LANES = 8 };
    double sum[LANES] = { 0 };
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++)
            sum[j] += (double)x[i + j] * x[i + j];
    for (; i < n; i++)
        sum[0] += (double)x[i] * x[i];
    return ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));
}

static rung_status measure(const optimizer *o, const float *grad, double *norm, rung_error *err)
{
    double all = 0;
    for (size_t i = 0; i < o->p->n; i++) {
        const param *a = &o->p->list[i];
        const double squares = sum_of_squares(grad + a->first, a->count);
        if (!isfinite(squares))
            return fail(err, RUNG_EMODEL, "step %zu: the gradient of '%s' is not finite: a smaller "
                        "learning rate or gradient clipping may help", o->step + 1, a->name);
        all += a->kind == PARAM_STATE ? 0 : squares;
    }
    *norm = sqrt(all);
    return RUNG_OK;
}

/* What one parameter's update is made with. */
typedef struct update {
    float rate, decay, scale; /* scale: of gradients, by clipping */
    float correct1, correct2; /* AdamW: what the moments are divided by */
    bool  first_step;
} update;

static bool is_scale(const param *a)
{
    return a->kind == PARAM_WEIGHT_SCALE || a->kind == PARAM_ACT_SCALE;
}

/* A scale moves in its logarithm: S. Jain et al., Trained quantization thresholds, MLSys 2020. Its
 * own gradient is as large as that of all the values it scales, and it is a small number. */
static void sgd(const optimizer *o, const update *u, const param *a, float *data, float *grad)
{
    const float momentum = o->opt.momentum;
    const bool relative = is_scale(a);
    for (size_t i = a->first; i < a->first + a->count; i++) {
        const float unit = relative ? data[i] : 1;
        const float g = grad[i] * u->scale * unit + u->decay * data[i];
        float by = g;
        if (momentum > 0) {
            const float m = u->first_step ? g : momentum * o->first[i] + g;
            o->first[i] = m;
            by = o->opt.nesterov ? g + momentum * m : m;
        }
        data[i] -= u->rate * by * unit;
    }
}

/* A step of Adam has the size of the rate, whatever the gradient's: of scales, a share of them. */
static void adamw(const optimizer *o, const update *u, const param *a, float *data, float *grad)
{
    const optimizer_options *opt = &o->opt;
    const bool relative = is_scale(a);
    for (size_t i = a->first; i < a->first + a->count; i++) {
        const float g = grad[i] * u->scale;
        const float m = opt->beta1 * o->first[i] + (1 - opt->beta1) * g;
        const float v = opt->beta2 * o->second[i] + (1 - opt->beta2) * g * g;
        o->first[i] = m;
        o->second[i] = v;
        const float by = (m / u->correct1) / (sqrtf(v / u->correct2) + opt->epsilon);
        data[i] -= u->rate * (u->decay * data[i] + (relative ? by * data[i] : by));
    }
}

static void average(const optimizer *o, const float *data)
{
    /* Early on the average forgets faster: the first values would weigh too much. */
    const double n = (double)o->step;
    const float keep = (float)fmin(o->opt.ema, (1 + n) / (10 + n));
    for (size_t i = 0; i < o->p->total; i++)
        o->average[i] += (1 - keep) * (data[i] - o->average[i]);
}

rung_status optimizer_step(optimizer *o, float *data, float *grad, double *norm, rung_error *err)
{
    const optimizer_options *opt = &o->opt;
    const float rate = optimizer_rate(o);
    double length = 0;
    const rung_status st = measure(o, grad, &length, err);
    if (st != RUNG_OK)
        return st;
    update u = { .scale = 1, .first_step = o->step == 0 };
    if (opt->clip_norm > 0 && length > opt->clip_norm)
        u.scale = (float)(opt->clip_norm / length);
    o->step++;
    u.correct1 = (float)(1 - pow(opt->beta1, (double)o->step));
    u.correct2 = (float)(1 - pow(opt->beta2, (double)o->step));
    for (size_t i = 0; i < o->p->n; i++) {
        const param *a = &o->p->list[i];
        if (a->kind == PARAM_STATE)
            continue;
        u.rate = is_scale(a) ? rate * opt->scale_rate : rate;
        u.decay = a->kind == PARAM_WEIGHT ? opt->weight_decay : 0;
        (opt->kind == OPTIMIZER_ADAMW ? adamw : sgd)(o, &u, a, data, grad);
    }
    if (o->average)
        average(o, data);
    if (norm)
        *norm = length;
    return RUNG_OK;
}

size_t optimizer_state(const optimizer *o, float **parts[3])
{
    optimizer *own = (optimizer *)o;
    size_t n = 0;
    if (o->first)
        parts[n++] = &own->first;
    if (o->second)
        parts[n++] = &own->second;
    if (o->average)
        parts[n++] = &own->average;
    return n;
}
