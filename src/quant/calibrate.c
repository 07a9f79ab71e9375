/* Runs the float model over the data and shows its values to observers. */
#include <string.h>

#include "base/mem.h"
#include "base/progress.h"
#include "base/ranks.h"
#include "measure/measure.h"
#include "quant/quant.h"

typedef struct calibration {
    const graph              *g;
    const rung_quant_options *opt;
    observer *const          *observers;
    bool                     *observe; /* by value id */
    engine                   *e;
    size_t                    made_for; /* samples a batch of e's has */
} calibration;

static rung_status show(void *ctx, int id, const float *data, size_t count, rung_error *err)
{
    const calibration *c = ctx;
    (void)err;
    observer_see(c->observers[id], data, count, engine_threads(c->e));
    return RUNG_OK;
}

/* The engine's batch must be full: what it pads would be observed too. */
static rung_status run_batch(calibration *c, const batch *b, rung_error *err)
{
    rung_status st = RUNG_OK;
    if (!c->e || c->made_for != b->n) {
        engine_free(c->e);
        c->e = NULL;
        c->made_for = b->n;
        st = engine_for_batch(c->g, b, c->opt->n_threads, c->observe, &c->e, err);
    }
    if (st == RUNG_OK && (st = engine_feed(c->e, c->g, b, err)) == RUNG_OK) {
        engine_set_tap(c->e, show, c);
        st = engine_run(c->e, err);
    }
    return st;
}

static bool has_fixed_batch(const graph *g)
{
    for (int i = 0; i < g->n_inputs; i++) {
        const value *v = &g->values[g->inputs[i]];
        if (v->rank > 0 && v->dims[0] != DIM_UNKNOWN)
            return true;
    }
    return false;
}

/* The samples that are used, in their order. A model of fixed batch gets the first ones again
 * until its last batch is full. */
static rung_status choose_samples(const calibration *c, dataset *data, size_t batch_size,
                                  size_t **order, size_t *n, rung_error *err)
{
    const size_t total = dataset_size(data);
    const size_t wanted = c->opt->samples && c->opt->samples < total ? c->opt->samples : total;
    const size_t rest = has_fixed_batch(c->g) ? wanted % batch_size : 0;
    if (!total)
        return fail(err, RUNG_EARGUMENT, "there are no samples to calibrate on");
    *n = rest ? wanted + batch_size - rest : wanted;
    *order = mem_zero(*n, sizeof **order);
    if (!*order)
        return fail_memory(err, "the order of samples", *n * sizeof **order);
    if (wanted == total) {
        for (size_t i = 0; i < wanted; i++)
            (*order)[i] = i;
    } else {
        const rung_status st = sample_order(total, wanted, c->opt->seed, *order, err);
        if (st != RUNG_OK)
            return st;
    }
    for (size_t i = wanted; i < *n; i++)
        (*order)[i] = (*order)[i - wanted];
    return RUNG_OK;
}

/* This process's share of the batches that a process alone would run. */
static void take_share(const calibration *c, size_t size, size_t n, size_t *first, size_t *end)
{
    ranks_part(c->opt->ranks, (n + size - 1) / size, first, end);
    *first = *first * size < n ? *first * size : n;
    *end = *end * size < n ? *end * size : n;
}

/* For observations that are to be joined. */
static rung_status keep_trails(const calibration *c, size_t n, size_t size, rung_error *err)
{
    rung_status st = RUNG_OK;
    for (size_t v = 0; c->opt->ranks && v < c->g->n_values && st == RUNG_OK; v++)
        if (c->observers[v])
            st = observer_keep_trail(c->observers[v], (n + size - 1) / size, err);
    return st;
}

static rung_status see_all(calibration *c, loader *l, size_t n, rung_error *err)
{
    const batch *b = NULL;
    progress p;
    rung_status st;
    progress_begin(&p, "calibrating", "samples", n, c->opt->quiet);
    while ((st = loader_next(l, &b, err)) == RUNG_OK && b) {
        if ((st = run_batch(c, b, err)) != RUNG_OK)
            break;
        progress_step(&p, b->n);
    }
    progress_end(&p);
    return st;
}

/* Where memory bounds a batch, half of that: observed values stay, and samples are kept beside. */
static int batch_size(const graph *g, const rung_quant_options *opt)
{
    const int least = measure_batch_size(g, 1), most = measure_batch_size(g, opt->batch);
    return !opt->batch && least == 1 && most < MOST_AT_ONCE ? (most + 1) / 2 : most;
}

rung_status calibrate(const graph *g, dataset *data, const rung_quant_options *opt,
                      observer *const *observers, rung_error *err)
{
    calibration c = { .g = g, .opt = opt, .observers = observers };
    size_t *order = NULL, n = 0, first, end;
    loader *l = NULL;
    rung_status st;
    const int size = batch_size(g, opt);
    if (size < 1)
        return fail(err, RUNG_EMODEL, "the model's batch dimension is %d", size);
    c.observe = mem_zero(g->n_values, sizeof *c.observe);
    if (!c.observe)
        return fail_memory(err, "calibration", g->n_values);
    for (size_t v = 0; v < g->n_values; v++)
        c.observe[v] = observers[v] != NULL;
    if ((st = choose_samples(&c, data, (size_t)size, &order, &n, err)) != RUNG_OK)
        goto done;
    take_share(&c, (size_t)size, n, &first, &end);
    if ((st = keep_trails(&c, end - first, (size_t)size, err)) != RUNG_OK ||
        (st = loader_open(data, order + first, end - first, (size_t)size, &l, err)) != RUNG_OK ||
        (st = see_all(&c, l, end - first, err)) != RUNG_OK)
        goto done;
    st = observers_join(opt->ranks, observers, g->n_values, err);
done:
    loader_free(l);
    engine_free(c.e);
    mem_free(order);
    mem_free(c.observe);
    return st;
}
