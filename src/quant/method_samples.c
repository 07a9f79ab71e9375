/* Calibration samples kept in memory, and runs over them. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "quant/method.h"

static size_t batch_bytes(const batch *b)
{
    size_t all = 0;
    for (int i = 0; i < b->n_inputs; i++)
        all += rung_tensor_bytes(&b->inputs[i].t);
    return all;
}

static bool copy_batch(arena *mem, const batch *from, batch *to)
{
    *to = *from;
    to->labels = NULL;
    to->inputs = arena_copy(mem, from->inputs, (size_t)from->n_inputs * sizeof *from->inputs);
    for (int i = 0; to->inputs && i < to->n_inputs; i++) {
        batch_input *in = &to->inputs[i];
        in->name = arena_strdup(mem, in->name);
        in->t.data = arena_copy(mem, in->t.data, rung_tensor_bytes(&in->t));
        if (!in->name || !in->t.data)
            return false;
    }
    return to->inputs != NULL;
}

/* Samples of all of the set, spread evenly where not all of them fit: a set may be sorted. */
static rung_status choose(dataset *data, const rung_quant_options *opt, size_t **order, size_t *n,
                          rung_error *err)
{
    const size_t total = dataset_size(data);
    *n = opt->samples && opt->samples < total ? opt->samples : total;
    *order = mem_zero(*n + 1, sizeof **order);
    return *order ? sample_order(total, *n, opt->seed, *order, err)
                  : fail_memory(err, "the order of samples", *n * sizeof **order);
}

static rung_status keep(loader *l, samples *s, size_t batch_size, rung_error *err)
{
    const batch *b = NULL;
    size_t held = 0, cap = 0;
    rung_status st;
    while ((st = loader_next(l, &b, err)) == RUNG_OK && b) {
        if (s->n && (b->n < batch_size || held + batch_bytes(b) > SAMPLES_BYTES))
            break;
        batch *list = arena_grow(s->mem, s->list, &cap, s->n + 1, sizeof *list);
        if (!list || !copy_batch(s->mem, b, &list[s->n]))
            return fail_memory(err, "calibration samples", batch_bytes(b));
        s->list = list;
        s->n++;
        held += batch_bytes(b);
    }
    return st;
}

rung_status samples_load(const graph *g, dataset *data, const rung_quant_options *opt, samples *out,
                         rung_error *err)
{
    size_t *order = NULL, n = 0;
    loader *l = NULL;
    rung_status st;
    *out = (samples){ .mem = arena_new(), .n_threads = opt->n_threads };
    const int size = measure_batch_size(g, opt->batch);
    if (!out->mem)
        return fail_memory(err, "calibration samples", sizeof *out);
    if (size < 1)
        return fail(err, RUNG_EMODEL, "the model's batch dimension is %d", size);
    if ((st = choose(data, opt, &order, &n, err)) != RUNG_OK ||
        (st = loader_open(data, order, n, (size_t)size, &l, err)) != RUNG_OK ||
        (st = keep(l, out, (size_t)size, err)) != RUNG_OK)
        goto done;
    out->n_fit = out->n > 1 ? out->n - (out->n + 3) / 5 : 1;
    if (out->n > 1 && out->n_fit == out->n)
        out->n_fit--;
    if (!out->n)
        st = fail(err, RUNG_EARGUMENT, "there are no samples to calibrate on");
done:
    loader_free(l);
    mem_free(order);
    return st;
}

void samples_free(samples *s)
{
    arena_free(s->mem);
    *s = (samples){ 0 };
}

rung_status samples_run(const samples *s, const graph *g, size_t first, size_t end, runner *run,
                        rung_error *err)
{
    rung_status st = RUNG_OK;
    run->e = NULL;
    for (size_t i = first; i < end && st == RUNG_OK; i++) {
        run->at = i;
        if (!run->e || s->list[i].n != s->list[i - 1].n) {
            engine_free(run->e);
            run->e = NULL;
            st = engine_for_batch(g, &s->list[i], s->n_threads, run->observe, &run->e, err);
            if (st != RUNG_OK)
                break;
            engine_set_tap(run->e, run->tap, run->ctx);
        }
        if ((st = engine_feed(run->e, g, &s->list[i], err)) == RUNG_OK &&
            (st = engine_run(run->e, err)) == RUNG_OK && run->after)
            st = run->after(run->ctx, err);
    }
    engine_free(run->e);
    run->e = NULL;
    return st;
}

/* --- SQNR ------------------------------------------------------------------------------------- */

/* Outputs of the float model, batch by batch, to compare with. */
typedef struct comparing {
    const samples *s;
    runner         reference, quantized;
    const graph   *g, *q;
    double        *signal, *noise; /* per output */
} comparing;

static void add_noise(comparing *c, int o)
{
    const tensor *r = engine_output(c->reference.e, o), *y = engine_output(c->quantized.e, o);
    const size_t all = tensor_count(r), n = c->s->list[c->reference.at].n;
    const size_t per = r->rank > 0 && r->dims[0] > 0 ? all / (size_t)r->dims[0] : all;
    const size_t used = r->rank > 0 && (size_t)r->dims[0] >= n ? per * n : all;
    for (size_t i = 0; i < used && i < tensor_count(y); i++) {
        const double want = tensor_get(r, i), d = want - tensor_get(y, i);
        c->signal[o] += want * want;
        c->noise[o] += d * d;
    }
}

static rung_status compare_batch(void *ctx, rung_error *err)
{
    comparing *c = ctx;
    const size_t at = c->reference.at;
    const batch *b = &c->s->list[at];
    rung_status st = RUNG_OK;
    if (!c->quantized.e)
        st = engine_for_batch(c->q, b, c->s->n_threads, NULL, &c->quantized.e, err);
    if (st != RUNG_OK || (st = engine_feed(c->quantized.e, c->q, b, err)) != RUNG_OK ||
        (st = engine_run(c->quantized.e, err)) != RUNG_OK)
        return st;
    for (int o = 0; o < c->g->n_outputs; o++)
        add_noise(c, o);
    return RUNG_OK;
}

rung_status samples_sqnr(const samples *s, const graph *g, const graph *q, double *db,
                         rung_error *err)
{
    const size_t n_outputs = (size_t)g->n_outputs;
    comparing c = { .s = s, .g = g, .q = q, .signal = mem_zero(n_outputs + 1, sizeof(double)),
                    .noise = mem_zero(n_outputs + 1, sizeof(double)) };
    rung_status st = RUNG_OK;
    c.reference = (runner){ .after = compare_batch, .ctx = &c };
    if (!c.signal || !c.noise)
        st = fail_memory(err, "the sums of an evaluation", n_outputs * sizeof(double));
    if (st == RUNG_OK)
        st = samples_run(s, g, s->n > 1 ? s->n_fit : 0, s->n, &c.reference, err);
    *db = INFINITY;
    for (size_t o = 0; o < n_outputs && st == RUNG_OK; o++)
        if (c.noise[o] > 0)
            *db = fmin(*db, 10 * log10(c.signal[o] / c.noise[o]));
    engine_free(c.quantized.e);
    mem_free(c.signal);
    mem_free(c.noise);
    return st;
}

rung_status recipe_graph(const recipe *r, arena *mem, graph **out, const int **map, rung_error *err)
{
    recipe trial = *r;
    trial.mem = mem;
    trial.g = NULL;
    trial.diag = NULL;
    rung_status st = graph_clone(r->g, &trial.g, err);
    if (st == RUNG_OK)
        st = insert_pairs(&trial, err);
    if (st != RUNG_OK) {
        graph_free(trial.g);
        return st;
    }
    *out = trial.g;
    if (map)
        *map = trial.dequantized;
    return RUNG_OK;
}
