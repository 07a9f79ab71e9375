#include "measure/turns.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/progress.h"
#include "measure/measure.h"

enum { MIN_TURNS = 7 };
#define TURN_SECONDS 0.01 /* of one model: longer than what a timer or a cold cache costs */
#define PROFILE_SECONDS 0.2

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* One sample of b, where the model leaves the number open. The caller frees *in. */
static rung_status one_sample(const batch *b, batch *one, batch_input **in, rung_error *err)
{
    *in = mem_zero((size_t)b->n_inputs + 1, sizeof **in);
    if (!*in)
        return fail_memory(err, "a sample", (size_t)b->n_inputs * sizeof **in);
    memcpy(*in, b->inputs, (size_t)b->n_inputs * sizeof **in);
    for (int i = 0; i < b->n_inputs; i++)
        if ((*in)[i].t.rank > 0)
            (*in)[i].t.dims[0] = 1;
    *one = *b;
    one->n = 1;
    one->inputs = *in;
    return RUNG_OK;
}

static rung_status make_engine(const graph *g, const batch *one, int n_threads, engine **out,
                               rung_error *err)
{
    const rung_status st = engine_for_batch(g, one, n_threads, NULL, out, err);
    return st == RUNG_OK ? engine_feed(*out, g, one, err) : st;
}

/* --- whole models ----------------------------------------------------------------------------- */

static rung_status time_turn(engine *e, double *ms, rung_error *err)
{
    rung_status st = engine_run(e, err); /* warms the caches up again */
    const double begin = clock_seconds();
    double now = begin;
    int n = 0;
    while (st == RUNG_OK && (n == 0 || now - begin < TURN_SECONDS)) {
        st = engine_run(e, err);
        now = clock_seconds();
        n++;
    }
    *ms = (now - begin) * 1e3 / (n ? n : 1);
    return st;
}

static rung_status time_all(engine *const *engines, double seconds, turns *t, rung_error *err)
{
    const double begin = clock_seconds();
    while (t->n < MAX_TURNS && (t->n < MIN_TURNS || clock_seconds() - begin < seconds)) {
        for (int k = 0; k < t->n_models; k++) {
            const rung_status st = time_turn(engines[k], &t->ms[k][t->n], err);
            if (st != RUNG_OK)
                return st;
        }
        t->n++;
    }
    return RUNG_OK;
}

rung_status turns_measure(const graph *const *models, int n_models, const batch *b, double seconds,
                          int n_threads, turns *out, rung_error *err)
{
    engine *engines[MOST_MODELS] = { NULL };
    batch_input *in = NULL;
    batch one;
    rung_status st = one_sample(b, &one, &in, err);
    out->n_models = n_models;
    out->n = 0;
    for (int k = 0; k < n_models && st == RUNG_OK; k++)
        st = make_engine(models[k], &one, n_threads, &engines[k], err);
    if (st == RUNG_OK) {
        out->threads = engine_threads(engines[0]);
        st = time_all(engines, seconds, out, err);
    }
    for (int k = 0; k < n_models; k++)
        engine_free(engines[k]);
    mem_free(in);
    return st;
}

/* sorted: [n] */
static double quantile(double *values, int n, double part)
{
    qsort(values, (size_t)n, sizeof *values, by_value);
    const int at = (int)(part * n);
    return values[at < n ? at : n - 1];
}

double turns_ms(const turns *t, int model, double part)
{
    double values[MAX_TURNS];
    memcpy(values, t->ms[model], (size_t)t->n * sizeof *values);
    return quantile(values, t->n, part);
}

double turns_ratio(const turns *t, int a, int b, double part)
{
    double values[MAX_TURNS];
    for (int i = 0; i < t->n; i++)
        values[i] = t->ms[b][i] > 0 ? t->ms[a][i] / t->ms[b][i] : 0;
    return quantile(values, t->n, part);
}

/* --- layers ----------------------------------------------------------------------------------- */

static rung_status list_steps(const engine *e, layer_times *t, rung_error *err)
{
    t->n = engine_n_steps(e);
    t->macs = engine_macs(e);
    t->list = arena_zero(t->mem, t->n + 1, sizeof *t->list);
    for (size_t i = 0; i < t->n && t->list; i++) {
        const engine_step_info s = engine_step(e, i);
        t->list[i] = (layer_time){ arena_strdup(t->mem, s.node ? s.node : ""), INFINITY, s.macs };
        if (!t->list[i].node)
            return fail_memory(err, "times of layers", t->n * sizeof *t->list);
    }
    return t->list ? RUNG_OK : fail_memory(err, "times of layers", t->n * sizeof *t->list);
}

static rung_status profile(engine *e, layer_times *t, rung_error *err)
{
    rung_status st = engine_run(e, err);
    const double end = clock_seconds() + PROFILE_SECONDS;
    engine_profile(e, true);
    for (int round = 0; st == RUNG_OK && (round < MIN_TURNS || clock_seconds() < end); round++) {
        st = engine_run(e, err);
        for (size_t i = 0; i < t->n; i++)
            t->list[i].ms = fmin(t->list[i].ms, engine_step(e, i).seconds * 1e3);
    }
    return st;
}

rung_status layer_times_measure(const graph *g, const batch *b, int n_threads, layer_times *out,
                                rung_error *err)
{
    engine *e = NULL;
    batch_input *in = NULL;
    batch one;
    *out = (layer_times){ .mem = arena_new() };
    rung_status st = out->mem ? one_sample(b, &one, &in, err)
                              : fail_memory(err, "times of layers", sizeof *out);
    if (st == RUNG_OK && (st = make_engine(g, &one, n_threads, &e, err)) == RUNG_OK &&
        (st = list_steps(e, out, err)) == RUNG_OK)
        st = profile(e, out, err);
    engine_free(e);
    mem_free(in);
    return st;
}

void layer_times_free(layer_times *t)
{
    arena_free(t->mem);
    *t = (layer_times){ 0 };
}

layer_time layer_times_of(const layer_times *t, const char *label)
{
    layer_time all = { label, 0, 0 };
    for (size_t i = 0; i < t->n; i++)
        if (strcmp(t->list[i].node, label) == 0) {
            all.ms += t->list[i].ms;
            all.macs += t->list[i].macs;
        }
    return all;
}
