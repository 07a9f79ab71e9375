/* Calibration samples kept in memory, runs over them, and what the float model answers. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "quant/method.h"

/* --- keeping ---------------------------------------------------------------------------------- */

static size_t kept_bytes(const kept_batch *b)
{
    size_t all = 0;
    for (int i = 0; i < b->n_inputs; i++)
        all += packed_bytes(&b->inputs[i].data);
    return all;
}

static bool keep_batch(arena *mem, const batch *from, kept_batch *to)
{
    *to = (kept_batch){ from->n, from->n_inputs,
                        arena_zero(mem, (size_t)from->n_inputs + 1, sizeof *to->inputs) };
    for (int i = 0; to->inputs && i < to->n_inputs; i++) {
        const batch_input *in = &from->inputs[i];
        to->inputs[i].name = arena_strdup(mem, in->name);
        if (!to->inputs[i].name || !pack_tensor(mem, &in->t, &to->inputs[i].data))
            return false;
    }
    return to->inputs != NULL;
}

/* In an order drawn by seed: a set may be sorted, and not all of it may fit. */
static rung_status choose(dataset *data, const rung_quant_options *opt, size_t **order, size_t *n,
                          rung_error *err)
{
    const size_t total = dataset_size(data);
    *n = opt->samples && opt->samples < total ? opt->samples : total;
    *order = mem_zero(*n + 1, sizeof **order);
    return *order ? sample_order(total, *n, opt->seed, *order, err)
                  : fail_memory(err, "the order of samples", *n * sizeof **order);
}

/* A quarter of what calibration runs at once, as there are two models here; and at least ten
 * batches, so that some can be kept apart. */
static int batch_size(const graph *g, const rung_quant_options *opt, size_t n)
{
    const int least = measure_batch_size(g, 1), most = measure_batch_size(g, opt->batch);
    const int few = (int)fmin((double)(most + 3) / 4, (double)n / 10);
    return few > least ? few : least;
}

static rung_status keep(loader *l, samples *s, size_t size, rung_error *err)
{
    const batch *b = NULL;
    size_t held = 0, cap = 0;
    rung_status st;
    while ((st = loader_next(l, &b, err)) == RUNG_OK && b) {
        if (s->n && (b->n < size || held >= SAMPLES_BYTES))
            break;
        kept_batch *list = arena_grow(s->mem, s->list, &cap, s->n + 1, sizeof *list);
        if (!list || !keep_batch(s->mem, b, &list[s->n]))
            return fail_memory(err, "calibration samples", SAMPLES_BYTES);
        s->list = list;
        held += kept_bytes(&list[s->n++]);
    }
    return st;
}

rung_status samples_load(const graph *g, dataset *data, const rung_quant_options *opt, samples *out,
                         rung_error *err)
{
    size_t *order = NULL, n = 0;
    loader *l = NULL;
    rung_status st;
    *out = (samples){ .mem = arena_new(), .n_threads = opt->n_threads, .seed = opt->seed };
    if (!out->mem)
        return fail_memory(err, "calibration samples", sizeof *out);
    if ((st = choose(data, opt, &order, &n, err)) != RUNG_OK)
        goto done;
    const int size = batch_size(g, opt, n);
    if (size < 1) {
        st = fail(err, RUNG_EMODEL, "the model's batch dimension is %d", size);
        goto done;
    }
    if ((st = loader_open(data, order, n, (size_t)size, &l, err)) != RUNG_OK ||
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

/* --- running ---------------------------------------------------------------------------------- */

/* A kept batch as floats; in *mem, which is made anew. */
static rung_status unpack_batch(const kept_batch *from, int n_threads, arena **mem, batch *to,
                                rung_error *err)
{
    arena_free(*mem);
    *mem = arena_new();
    *to = (batch){ .n = from->n, .n_inputs = from->n_inputs };
    if (*mem)
        to->inputs = arena_zero(*mem, (size_t)from->n_inputs + 1, sizeof *to->inputs);
    for (int i = 0; to->inputs && i < from->n_inputs; i++) {
        batch_input *in = &to->inputs[i];
        in->name = from->inputs[i].name;
        if (!unpack_tensor(&from->inputs[i].data, *mem, n_threads, &in->t))
            to->inputs = NULL;
    }
    return to->inputs ? RUNG_OK : fail_memory(err, "a batch of samples", kept_bytes(from) * 4);
}

rung_status samples_run(const samples *s, const graph *g, size_t first, size_t end, runner *run,
                        rung_error *err)
{
    rung_status st = RUNG_OK;
    arena *mem = NULL;
    run->e = NULL;
    for (size_t i = first; i < end && st == RUNG_OK; i++) {
        batch b;
        run->at = i;
        if ((st = unpack_batch(&s->list[i], s->n_threads, &mem, &b, err)) != RUNG_OK)
            break;
        if (!run->e || s->list[i].n != s->list[i - 1].n) {
            engine_free(run->e);
            run->e = NULL;
            st = engine_for_batch(g, &b, s->n_threads, run->observe, &run->e, err);
            if (st != RUNG_OK)
                break;
            engine_set_tap(run->e, run->tap, run->ctx);
        }
        if ((st = engine_feed(run->e, g, &b, err)) == RUNG_OK &&
            (st = engine_run(run->e, err)) == RUNG_OK && run->after)
            st = run->after(run->ctx, err);
    }
    engine_free(run->e);
    run->e = NULL;
    arena_free(mem);
    return st;
}

size_t samples_before(const samples *s, size_t batch_index)
{
    size_t n = 0;
    for (size_t i = 0; i < batch_index; i++)
        n += s->list[i].n;
    return n;
}

/* --- answers of the float model --------------------------------------------------------------- */

typedef struct asking {
    samples    *s;
    const graph *g;
    runner      run;
    double     *noise; /* NULL: answers are stored */
} asking;

/* Of one output for one sample; all of it, where the first dimension is no batch. */
static size_t output_elements(const tensor *y, size_t in_batch)
{
    const size_t all = tensor_count(y);
    return y->rank > 0 && (size_t)y->dims[0] >= in_batch && in_batch > 0 ? all / (size_t)y->dims[0]
                                                                        : all;
}

/* Which elements of an output are looked at: all, or as many as ANSWER_BYTES have room for. */
static rung_status begin_answer(asking *a, answer *to, const tensor *y, rung_error *err)
{
    samples *s = a->s;
    const size_t in_batch = s->list[a->run.at].n, n_samples = samples_before(s, s->n);
    const size_t fits = ANSWER_BYTES / sizeof(float) / (n_samples * (size_t)a->g->n_outputs);
    to->of = output_elements(y, in_batch);
    to->n = to->of < fits ? to->of : fits ? fits : 1;
    to->batched = to->of * in_batch <= tensor_count(y) && y->rank > 0;
    to->at = arena_zero(s->mem, to->n + 1, sizeof *to->at);
    to->y = arena_zero(s->mem, to->n * n_samples + 1, sizeof *to->y);
    if (!to->at || !to->y)
        return fail_memory(err, "answers of the float model", to->n * n_samples * sizeof *to->y);
    if (to->n == to->of)
        for (size_t i = 0; i < to->n; i++)
            to->at[i] = i;
    else
        draw_positions(s->seed, to->n, to->of, to->at);
    return RUNG_OK;
}

static rung_status take_answers(void *ctx, rung_error *err)
{
    asking *a = ctx;
    samples *s = a->s;
    const size_t first = samples_before(s, a->run.at);
    for (int o = 0; o < a->g->n_outputs; o++) {
        const tensor *y = engine_output(a->run.e, o);
        answer *to = &s->answers[o];
        const rung_status st = to->at ? RUNG_OK : begin_answer(a, to, y, err);
        if (st != RUNG_OK)
            return st;
        for (size_t i = 0; i < (to->batched ? s->list[a->run.at].n : 1); i++)
            for (size_t k = 0; k < to->n; k++)
                to->y[(first + i) * to->n + k] = (float)tensor_get(y, i * to->of + to->at[k]);
    }
    return RUNG_OK;
}

static rung_status ask(samples *s, const graph *g, size_t first, size_t end, rung_error *err)
{
    asking a = { .s = s, .g = g };
    s->n_outputs = g->n_outputs;
    s->answers = arena_zero(s->mem, (size_t)g->n_outputs + 1, sizeof *s->answers);
    if (!s->answers)
        return fail_memory(err, "answers of the float model", sizeof *s->answers);
    a.run = (runner){ .after = take_answers, .ctx = &a };
    return samples_run(s, g, first, end, &a.run, err);
}

rung_status samples_answer(samples *s, const graph *g, rung_error *err)
{
    return ask(s, g, 0, s->n, err);
}

static rung_status add_noise(void *ctx, rung_error *err)
{
    const asking *a = ctx;
    const samples *s = a->s;
    const size_t first = samples_before(s, a->run.at);
    for (int o = 0; o < s->n_outputs; o++) {
        const tensor *y = engine_output(a->run.e, o);
        const answer *want = &s->answers[o];
        const size_t n = want->batched ? s->list[a->run.at].n : 1;
        if (tensor_count(y) < n * want->of)
            return fail(err, RUNG_EMODEL, "output %d changed its shape", o);
        for (size_t i = 0; i < n; i++)
            for (size_t k = 0; k < want->n; k++) {
                const double d = tensor_get(y, i * want->of + want->at[k]) -
                                 want->y[(first + i) * want->n + k];
                a->noise[o] += d * d;
            }
    }
    return RUNG_OK;
}

rung_status samples_noise(const samples *s, const graph *q, size_t first, size_t end, double *noise,
                          rung_error *err)
{
    asking a = { .s = (samples *)s, .g = q, .noise = noise };
    a.run = (runner){ .after = add_noise, .ctx = &a };
    return samples_run(s, q, first, end, &a.run, err);
}

double samples_db(const samples *s, size_t first, size_t end, const double *noise)
{
    const size_t from = samples_before(s, first), to = samples_before(s, end);
    double worst = INFINITY;
    for (int o = 0; o < s->n_outputs; o++) {
        const answer *want = &s->answers[o];
        double signal = 0;
        for (size_t i = from * want->n; i < to * want->n; i++)
            signal += (double)want->y[i] * want->y[i];
        if (noise[o] > 0)
            worst = fmin(worst, 10 * log10(signal / noise[o]));
    }
    return worst;
}

static size_t first_check(const samples *s)
{
    return s->n > 1 ? s->n_fit : 0;
}

rung_status samples_check(const samples *s, const graph *q, double *db, rung_error *err)
{
    const size_t first = first_check(s);
    double *noise = mem_zero((size_t)s->n_outputs + 1, sizeof *noise);
    const rung_status st = noise ? samples_noise(s, q, first, s->n, noise, err)
                                 : fail_memory(err, "sums of an evaluation", sizeof *noise);
    if (st == RUNG_OK)
        *db = samples_db(s, first, s->n, noise);
    mem_free(noise);
    return st;
}

rung_status samples_sqnr(const samples *s, const graph *g, const graph *q, double *db,
                         rung_error *err)
{
    samples own = *s;
    own.mem = arena_new();
    rung_status st = own.mem ? ask(&own, g, first_check(s), s->n, err)
                             : fail_memory(err, "answers of the float model", sizeof own);
    if (st == RUNG_OK)
        st = samples_check(&own, q, db, err);
    arena_free(own.mem);
    return st;
}

rung_status recipe_graph(const recipe *r, arena *mem, graph **out, const int **map, rung_error *err)
{
    recipe trial = *r;
    trial.mem = mem;
    trial.g = NULL;
    trial.diag = NULL;
    rung_status st = graph_clone_shared(r->g, &trial.g, err);
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
