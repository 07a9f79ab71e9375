/* Learned rounding: Nagel et al., Up or Down? Adaptive Rounding for Post-Training Quantization,
 * ICML 2020. Each weight is rounded down or up; h = clip(1.2 sigmoid(v) - 0.1, 0, 1) stands
 * between, the layer's error is minimised over v by Adam, and a regulariser drives h to 0 or 1
 * in the end. As there, the target is the float output behind the Relu, the input that of the
 * quantized model. Memory: the weights four times, whatever the data. Each output's arithmetic
 * has one order: the result does not depend on the number of threads. */
#include <math.h>
#include <string.h>

#include "base/rng.h"
#include "base/threads.h"
#include "quant/method.h"

enum { STEPS = 1200, ROWS = 48, WARM = STEPS / 5 /* without regulariser */ };
#define RATE       0.02f /* of Adam; the paper's 0.001 is for ten times as many steps */
#define REGULARISE 0.01f
#define STRETCH    1.2f /* zeta - gamma, gamma = -0.1 */
#define BETA_FROM  20.0f
#define BETA_TO    2.0f

typedef struct learner {
    const fit      *f;
    const float    *w;
    const rounding *r;
    size_t          in, out, groups, rows; /* rows: groups * out */
    float *v, *m, *s;  /* [rows][in]: parameter and Adam's moments */
    float *base;       /* [rows][in]: the code below */
    float *power;      /* [rows]: 1 / mean square of the output: all count alike */
    float *offset;     /* [rows]: bias, and what centring took */
    size_t pick[STEPS][ROWS];
} learner;

/* One thread's scratch. */
typedef struct pass_memory {
    float *h, *slope, *q; /* [in]: of one output's weights */
    float  error[ROWS];
} pass_memory;

static float gate(float v, float *slope)
{
    const float e = 1 / (1 + expf(-v)), h = STRETCH * e - 0.1f;
    *slope = h > 0 && h < 1 ? STRETCH * e * (1 - e) : 0;
    return fminf(fmaxf(h, 0), 1);
}

/* Weights of output o as they stand. */
static void weights_now(const learner *a, size_t o, pass_memory *p)
{
    const float scale = a->r->scales[o], top = (float)a->f->top;
    for (size_t i = 0; i < a->in; i++) {
        p->h[i] = gate(a->v[o * a->in + i], &p->slope[i]);
        const float q = a->base[o * a->in + i] + p->h[i];
        if (q < -top || q > top)
            p->slope[i] = 0;
        p->q[i] = fminf(fmaxf(q, -top), top) * scale;
    }
}

/* Errors of output o on the picked rows, as the Relu behind it shows them. */
static void errors_now(const learner *a, size_t o, const size_t *pick, pass_memory *p)
{
    const layer *l = a->f->l;
    const evidence *e = a->f->e;
    const size_t g = o / a->out, ld = a->groups * a->in;
    for (size_t k = 0; k < ROWS; k++) {
        const float *x = e->x + pick[k] * ld + g * a->in;
        float part[8] = { 0 };
        size_t i = 0;
        for (; i + 8 <= a->in; i += 8) /* eight sums: the compiler may keep them in one register */
            for (size_t j = 0; j < 8; j++)
                part[j] += x[i + j] * p->q[i + j];
        for (; i < a->in; i++)
            part[0] += x[i] * p->q[i];
        const float y = ((part[0] + part[1]) + (part[2] + part[3])) +
                        ((part[4] + part[5]) + (part[6] + part[7])) + a->offset[o];
        const float want = e->y[pick[k] * a->rows + o] + (float)e->y_mean[o];
        /* Beyond the Relu's bounds its slope is 0. */
        p->error[k] = y > l->lo && y < l->hi ? y - fminf(fmaxf(want, l->lo), l->hi) : 0;
    }
}

/* One step of Adam for output o. */
static void step_output(learner *a, size_t o, int t, pass_memory *p)
{
    const size_t in = a->in, ld = a->groups * in, g = o / a->out;
    const float scale = a->r->scales[o];
    const float done = t < WARM ? 0 : (float)(t - WARM) / (STEPS - WARM);
    const float beta = BETA_TO + (BETA_FROM - BETA_TO) * (1 - done);
    const float weight = t < WARM ? 0 : REGULARISE;
    const float correct1 = 1 - powf(0.9f, (float)(t + 1));
    const float correct2 = 1 - powf(0.999f, (float)(t + 1));
    weights_now(a, o, p);
    errors_now(a, o, a->pick[t], p);
    memset(p->q, 0, in * sizeof *p->q); /* from here on the gradient */
    for (size_t k = 0; k < ROWS; k++) {
        const float *x = a->f->e->x + a->pick[t][k] * ld + g * in;
        const float d = p->error[k] * scale * a->power[o] * (2.0f / ROWS);
        for (size_t i = 0; i < in && d != 0; i++)
            p->q[i] += d * x[i];
    }
    for (size_t i = 0; i < in; i++) {
        const size_t at = o * in + i;
        const float u = 2 * p->h[i] - 1;
        const float steep = weight * beta * powf(fabsf(u), beta - 1);
        const float pull = -2 * copysignf(steep, u);
        const float grad = (p->q[i] * (float)in + pull) * p->slope[i];
        a->m[at] = 0.9f * a->m[at] + 0.1f * grad;
        a->s[at] = 0.999f * a->s[at] + 0.001f * grad * grad;
        a->v[at] -= RATE * (a->m[at] / correct1) / (sqrtf(a->s[at] / correct2) + 1e-8f);
    }
}

static void begin_output(learner *a, size_t o)
{
    const evidence *e = a->f->e;
    double squares = 0;
    for (size_t r = 0; r < e->fit_rows; r++)
        squares += (double)e->y[r * a->rows + o] * e->y[r * a->rows + o];
    a->power[o] = squares > 0 ? (float)((double)e->fit_rows / squares) : 0;
    for (size_t i = 0; i < a->in; i++) {
        const float u = a->w[o * a->in + i] / a->r->scales[o], below = floorf(u);
        const float h = fminf(fmaxf(u - below, 0.01f), 0.99f);
        a->base[o * a->in + i] = below;
        a->v[o * a->in + i] = -logf(STRETCH / (h + 0.1f) - 1);
    }
    a->offset[o] = (float)e->y_mean[o]; /* of centred inputs: the bias is corrected afterwards */
}

static void end_output(const learner *a, size_t o)
{
    for (size_t i = 0; i < a->in; i++) {
        const float q = a->base[o * a->in + i] + (a->v[o * a->in + i] >= 0 ? 1 : 0);
        a->r->codes[o * a->in + i] =
            (int8_t)fminf(fmaxf(q, (float)-a->f->top), (float)a->f->top);
    }
}

static void learn_part(learner *a, size_t first, size_t last, pass_memory *p)
{
    for (size_t o = first; o < last; o++) {
        begin_output(a, o);
        for (int t = 0; t < STEPS; t++)
            step_output(a, o, t, p);
        end_output(a, o);
    }
}

static bool pass_make(arena *mem, size_t in, pass_memory *p)
{
    p->h = arena_zero(mem, in, sizeof *p->h);
    p->slope = arena_zero(mem, in, sizeof *p->slope);
    p->q = arena_zero(mem, in, sizeof *p->q);
    return p->h && p->slope && p->q;
}

static learner *learner_make(arena *mem, const fit *f, const float *w, const rounding *r)
{
    const size_t rows = f->l->groups * f->l->out, all = rows * f->l->in;
    learner *a = arena_zero(mem, 1, sizeof *a);
    if (!a)
        return NULL;
    a->f = f;
    a->w = w;
    a->r = r;
    a->in = f->l->in;
    a->out = f->l->out;
    a->groups = f->l->groups;
    a->rows = rows;
    a->v = arena_zero(mem, all, sizeof(float));
    a->m = arena_zero(mem, all, sizeof(float));
    a->s = arena_zero(mem, all, sizeof(float));
    a->base = arena_zero(mem, all, sizeof(float));
    a->power = arena_zero(mem, rows, sizeof(float));
    a->offset = arena_zero(mem, rows, sizeof(float));
    return a->v && a->m && a->s && a->base && a->power && a->offset ? a : NULL;
}

rung_status adaround(const fit *f, const float *w, const rounding *r, rung_error *err)
{
    const int n = f->n_threads;
    arena *mem = arena_new();
    learner *a = mem ? learner_make(mem, f, w, r) : NULL;
    pass_memory *p = a ? arena_zero(mem, (size_t)n, sizeof *p) : NULL;
    bool good = p != NULL;
    rng random;
    for (int t = 0; t < n && good; t++)
        good = pass_make(mem, f->l->in, &p[t]);
    if (good) {
        rng_seed(&random, f->seed);
        for (int t = 0; t < STEPS; t++)
            for (int k = 0; k < ROWS; k++)
                a->pick[t][k] = rng_below(&random, f->e->fit_rows);
#pragma omp parallel for num_threads(n) if (n > 1)
        for (int t = 0; t < n; t++) {
            size_t first, last;
            share(a->rows, 1, t, n, &first, &last);
            learn_part(a, first, last, &p[t]);
        }
    }
    arena_free(mem);
    return good ? RUNG_OK : fail_memory(err, "AdaRound", f->l->in * f->l->out * 16);
}
