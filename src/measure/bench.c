/* Latency on random or given input. */
#include "measure/measure.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/mem.h"
#include "base/progress.h"
#include "base/rng.h"

enum { WARM_UP_RUNS = 3, MIN_RUNS = 5, MAX_RUNS = 100000 };

static void fill_random(const tensor *t, rng *r)
{
    const size_t n = tensor_count(t);
    if (t->type != RUNG_F32) {
        memset(t->data, 0, dtype_bytes(t->type, n)); /* token ids, masks: always in range */
        return;
    }
    for (size_t i = 0; i < n; i++)
        ((float *)t->data)[i] = rng_normal(r);
}

static rung_status fill_inputs(engine *e, const graph *g, const rung_tensor *given,
                               rung_error *err)
{
    rng r;
    rng_seed(&r, 1);
    for (int i = 0; i < engine_n_inputs(e); i++) {
        const tensor *t = engine_input(e, i);
        if (!given)
            fill_random(t, &r);
        else if (given[i].type == t->type)
            memcpy(t->data, given[i].data, dtype_bytes(t->type, tensor_count(t)));
        else
            return fail(err, RUNG_EARGUMENT, "input '%s' is %s, the array is %s",
                        g->values[g->inputs[i]].name, dtype_name(t->type),
                        dtype_name(given[i].type));
    }
    return RUNG_OK;
}

static int given_batch(const rung_bench_options *opt)
{
    if (opt->inputs && opt->inputs[0].rank > 0)
        return (int)opt->inputs[0].dims[0];
    return opt->batch > 0 ? opt->batch : 1;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The dims of each graph input: the caller's, or the declared with unknown first dims = batch. */
static rung_status input_dims(const graph *g, const rung_bench_options *opt, const int64_t **dims,
                              int64_t (*store)[RUNG_MAX_RANK], rung_error *err)
{
    const int n_samples = opt->batch > 0 ? opt->batch : 1;
    for (int i = 0; i < g->n_inputs; i++) {
        const value *v = &g->values[g->inputs[i]];
        if (opt->inputs) {
            const rung_status st = input_fits(v, &opt->inputs[i], 0, err);
            if (st != RUNG_OK)
                return st;
            dims[i] = opt->inputs[i].dims;
            continue;
        }
        if (v->rank < 0)
            continue; /* engine_create names it */
        memcpy(store[i], v->dims, sizeof store[i]);
        if (v->rank > 0 && store[i][0] == DIM_UNKNOWN)
            store[i][0] = n_samples;
        else if (v->rank > 0 && opt->batch > 0 && store[i][0] != n_samples)
            return fail(err, RUNG_EARGUMENT,
                        "input '%s' has a fixed first dimension of %lld; --batch "
                        "%d does not fit it",
                        v->name, (long long)store[i][0], n_samples);
        dims[i] = store[i];
    }
    return RUNG_OK;
}

static rung_status time_runs(engine *e, double seconds, double **times, int *n, rung_error *err)
{
    double *t = mem_zero(MAX_RUNS, sizeof *t);
    rung_status st = t ? RUNG_OK : fail_memory(err, "run times", MAX_RUNS * sizeof *t);
    for (int i = 0; i < WARM_UP_RUNS && st == RUNG_OK; i++)
        st = engine_run(e, err);
    const double begin = clock_seconds();
    double now = begin;
    *n = 0;
    while (st == RUNG_OK && *n < MAX_RUNS && (*n < MIN_RUNS || now - begin < seconds)) {
        st = engine_run(e, err);
        const double end = clock_seconds();
        t[(*n)++] = (end - now) * 1e3;
        now = end;
    }
    *times = t;
    return st;
}

static double peak_rss_mb(void)
{
    struct rusage u;
    return getrusage(RUSAGE_SELF, &u) == 0 ? (double)u.ru_maxrss / 1024.0 : NAN;
}

static void conclude(const engine *e, const double *times, int n, rung_bench_result *r)
{
    r->runs = n;
    r->median_ms = times[n / 2];
    r->p10_ms = times[n / 10];
    r->p90_ms = times[n - 1 - n / 10];
    r->macs = engine_macs(e);
    r->gmacs_per_s = (double)r->macs / (r->median_ms * 1e6);
    r->int_macs_share = r->macs ? (double)engine_int_macs(e) / (double)r->macs : 0;
    r->peak_rss_mb = peak_rss_mb();
}

rung_status measure_bench(const graph *g, const rung_bench_options *opt, rung_bench_result *result,
                          void (*steps)(void *ctx, const engine *e), void *ctx, rung_error *err)
{
    const size_t n_in = (size_t)g->n_inputs + 1;
    const int64_t **dims = mem_zero(n_in, sizeof *dims);
    int64_t(*store)[RUNG_MAX_RANK] = mem_zero(n_in, sizeof *store);
    engine *e = NULL;
    double *times = NULL;
    int n = 0;
    rung_status st = dims && store ? input_dims(g, opt, dims, store, err)
                                   : fail_memory(err, "input shapes", n_in * sizeof *store);
    if (st != RUNG_OK)
        goto done;
    const engine_options eo = {.n_threads = opt->n_threads, .input_dims = dims};
    const double begin = clock_seconds();
    if ((st = engine_create(g, &eo, &e, err)) != RUNG_OK)
        goto done;
    result->load_ms = (clock_seconds() - begin) * 1e3;
    result->threads = engine_threads(e);
    result->batch = given_batch(opt);
    if ((st = fill_inputs(e, g, opt->inputs, err)) != RUNG_OK ||
        (st = time_runs(e, opt->seconds > 0 ? opt->seconds : 2, &times, &n, err)) != RUNG_OK)
        goto done;
    qsort(times, (size_t)n, sizeof *times, by_value);
    conclude(e, times, n, result);
    if (steps) { /* timing every step costs a little: not while the whole is timed */
        engine_profile(e, true);
        if ((st = engine_run(e, err)) == RUNG_OK)
            steps(ctx, e);
    }
done:
    engine_free(e);
    mem_free(times);
    mem_free(store);
    mem_free(dims);
    return st;
}
