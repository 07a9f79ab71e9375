/* Two models' latencies, measured in turns, so that both meet the same machine. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/progress.h"
#include "measure/compare_parts.h"

enum { MIN_ROUNDS = 7, MAX_ROUNDS = 1000 };
#define ROUND_SECONDS 0.01 /* of one model: longer than what a timer or a cold cache costs */

typedef struct rounds {
    double a[MAX_ROUNDS], b[MAX_ROUNDS], ratio[MAX_ROUNDS]; /* milliseconds of one run; a / b */
    int    n;
} rounds;

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static rung_status time_round(engine *e, double *ms, rung_error *err)
{
    rung_status st = engine_run(e, err); /* warms the caches up again */
    const double begin = clock_seconds();
    double now = begin;
    int n = 0;
    while (st == RUNG_OK && (n == 0 || now - begin < ROUND_SECONDS)) {
        st = engine_run(e, err);
        now = clock_seconds();
        n++;
    }
    *ms = (now - begin) * 1e3 / (n ? n : 1);
    return st;
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

static void take_times(model_record *m, double *ms, int n)
{
    qsort(ms, (size_t)n, sizeof *ms, by_value);
    m->median_ms = ms[n / 2];
    m->p10_ms = ms[n / 10];
    m->p90_ms = ms[n - 1 - n / 10];
}

static rung_status time_both(engine *a, engine *b, double seconds, rounds *r, rung_error *err)
{
    rung_status st = RUNG_OK;
    const double begin = clock_seconds();
    while (st == RUNG_OK && r->n < MAX_ROUNDS &&
           (r->n < MIN_ROUNDS || clock_seconds() - begin < seconds)) {
        if ((st = time_round(a, &r->a[r->n], err)) != RUNG_OK ||
            (st = time_round(b, &r->b[r->n], err)) != RUNG_OK)
            break;
        r->ratio[r->n] = r->b[r->n] > 0 ? r->a[r->n] / r->b[r->n] : 0;
        r->n++;
    }
    return st;
}

rung_status compare_latency(comparison *c, const graph *reference, const graph *g, const batch *b,
                            double seconds, int n_threads, rung_error *err)
{
    engine *first = NULL, *second = NULL;
    batch_input *in = NULL;
    batch one;
    rounds *r = mem_zero(1, sizeof *r);
    rung_status st = r ? one_sample(b, &one, &in, err) : fail_memory(err, "run times", sizeof *r);
    if (st != RUNG_OK)
        goto done;
    if ((st = engine_for_batch(reference, &one, n_threads, NULL, &first, err)) != RUNG_OK ||
        (st = engine_for_batch(g, &one, n_threads, NULL, &second, err)) != RUNG_OK ||
        (st = engine_feed(first, reference, &one, err)) != RUNG_OK ||
        (st = engine_feed(second, g, &one, err)) != RUNG_OK ||
        (st = time_both(first, second, seconds, r, err)) != RUNG_OK)
        goto done;
    take_times(&c->reference, r->a, r->n);
    take_times(&c->model, r->b, r->n);
    qsort(r->ratio, (size_t)r->n, sizeof *r->ratio, by_value);
    c->speedup = r->ratio[r->n / 2];
    c->latency_rounds = r->n;
    c->threads = engine_threads(first);
done:
    engine_free(first);
    engine_free(second);
    mem_free(in);
    mem_free(r);
    return st;
}
