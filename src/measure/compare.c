/* The comparison: both models and, with each layer alone, the int8 model again run side by side
 * over the data; what they compute is held against each other value by value. */
#include "measure/compare.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/progress.h"
#include "graph/rewrite.h"
#include "measure/compare_parts.h"
#include "measure/scores.h"

enum { REFERENCE, MODEL, ALONE, N_RUNS };

typedef struct counts {
    size_t right1[2], right5[2]; /* of the float and the int8 model */
    size_t agree;
} counts;

typedef struct run {
    comparison            *c;
    const compare_options *opt;
    const graph           *reference, *g;
    graph                 *prepared;
    pairing                p;
    graph                 *graphs[N_RUNS];
    engine                *engines[N_RUNS];
    int                   *at[N_RUNS]; /* where pair i stands among the outputs */
    counts                 n;
} run;

/* --- making ----------------------------------------------------------------------------------- */

static size_t constant_bytes(const graph *g)
{
    size_t n = 0;
    for (size_t v = 0; v < g->n_values; v++)
        if (g->values[v].constant)
            n += dtype_bytes(g->values[v].constant->type, tensor_count(g->values[v].constant));
    return n;
}

static const char *copied(arena *mem, const char *s)
{
    return arena_strdup(mem, s ? s : "");
}

static rung_status begin_records(run *r, rung_error *err)
{
    comparison *c = r->c;
    const compare_options *o = r->opt;
    c->mem = arena_new();
    if (c->mem)
        c->outputs = arena_zero(c->mem, (size_t)r->g->n_outputs + 1, sizeof *c->outputs);
    if (!c->outputs)
        return fail_memory(err, "a comparison", sizeof *c);
    c->reference = (model_record){ .title = copied(c->mem, o->reference_title), .top1 = -1,
                                   .file_bytes = o->reference_bytes, .top5 = -1,
                                   .constant_bytes = constant_bytes(r->reference) };
    c->model = (model_record){ .title = copied(c->mem, o->title), .top1 = -1, .top5 = -1,
                               .file_bytes = o->model_bytes,
                               .constant_bytes = constant_bytes(r->g) };
    c->data_title = copied(c->mem, o->data_title);
    c->agreement = -1;
    bool complete = c->reference.title && c->model.title && c->data_title;
    for (int i = 0; i < r->g->n_outputs; i++) {
        c->outputs[i].name = copied(c->mem, r->g->values[r->g->outputs[i]].name);
        complete = complete && c->outputs[i].name;
    }
    c->n_outputs = r->g->n_outputs;
    return complete ? RUNG_OK : fail_memory(err, "a comparison", sizeof *c);
}

static rung_status check_models(const graph *reference, const graph *g, rung_error *err)
{
    if (reference->n_outputs != g->n_outputs)
        return fail(err, RUNG_EARGUMENT, "the float model has %d outputs, the int8 model %d: these "
                    "are not one network", reference->n_outputs, g->n_outputs);
    for (int i = 0; i < g->n_outputs; i++) {
        const char *a = reference->values[reference->outputs[i]].name;
        const char *b = g->values[g->outputs[i]].name;
        if (strcmp(a, b) != 0)
            return fail(err, RUNG_EARGUMENT, "output %d is '%s' in the float model and '%s' in the "
                        "int8 model: these are not one network", i, a, b);
    }
    return RUNG_OK;
}

static rung_status find_records(run *r, rung_error *err)
{
    rung_status st = graph_clone(r->reference, &r->prepared, err);
    if (st != RUNG_OK || (st = rewrite_prepare(r->prepared, err)) != RUNG_OK)
        return st;
    if ((st = compare_find_pairs(r->c, r->prepared, r->g, &r->p, err)) != RUNG_OK)
        return st;
    if (r->c->n_tensors == 0)
        return fail(err, RUNG_EARGUMENT, "the int8 model has no QuantizeLinear whose value is in "
                    "the float model too (%zu have other names): give the float model that it was "
                    "made from", r->c->n_unmatched);
    for (int k = 0; k < N_RUNS; k++) {
        r->at[k] = arena_zero(r->c->mem, r->c->n_tensors, sizeof *r->at[k]);
        if (!r->at[k])
            return fail_memory(err, "a comparison", r->c->n_tensors * sizeof *r->at[k]);
    }
    return compare_weights(r->c, &r->p, err);
}

/* --- engines ---------------------------------------------------------------------------------- */

static const tensor *shown(const run *r, int which, size_t i)
{
    return engine_output(r->engines[which], r->at[which][i]);
}

/* Inputs of the graph with each layer alone: the int8 model's own, then the pairs'. */
static rung_status alone_engine(run *r, const tensor **exact, const int64_t **dims, rung_error *err)
{
    const int n_own = r->g->n_inputs;
    for (size_t i = 0; i < r->c->n_tensors; i++)
        exact[i] = shown(r, REFERENCE, i);
    rung_status st = compare_alone(r->c, &r->p, exact, &r->graphs[ALONE], r->at[ALONE], err);
    for (int i = 0; i < n_own; i++)
        dims[i] = engine_input(r->engines[MODEL], i)->dims;
    for (size_t i = 0; i < r->c->n_tensors; i++)
        dims[(size_t)n_own + i] = exact[i]->dims;
    const engine_options opt = { .n_threads = r->opt->n_threads, .input_dims = dims };
    return st == RUNG_OK ? engine_create(r->graphs[ALONE], &opt, &r->engines[ALONE], err) : st;
}

static rung_status same_shapes(const run *r, rung_error *err)
{
    for (size_t i = 0; i < r->c->n_tensors; i++) {
        const tensor *a = shown(r, REFERENCE, i), *b = shown(r, MODEL, i);
        if (a->type != RUNG_F32 || b->type != RUNG_F32 || tensor_count(a) != tensor_count(b))
            return fail(err, RUNG_EARGUMENT, "'%s' has %zu elements in the float model and %zu in "
                        "the int8 model: these are not one network", r->c->tensors[i].name,
                        tensor_count(a), tensor_count(b));
    }
    for (int i = 0; i < r->g->n_outputs; i++) {
        const size_t a = tensor_count(engine_output(r->engines[REFERENCE], i));
        const size_t b = tensor_count(engine_output(r->engines[MODEL], i));
        if (a != b)
            return fail(err, RUNG_EARGUMENT, "output '%s' has %zu elements in the float model and "
                        "%zu in the int8 model", r->c->outputs[i].name, a, b);
    }
    return RUNG_OK;
}

static rung_status make_engines(run *r, const batch *b, rung_error *err)
{
    const int n_threads = r->opt->n_threads;
    const size_t n = r->c->n_tensors + (size_t)r->g->n_inputs;
    const tensor **exact = mem_zero(n + 1, sizeof *exact);
    const int64_t **dims = mem_zero(n + 1, sizeof *dims);
    rung_status st = exact && dims ? RUNG_OK : fail_memory(err, "input shapes", n * sizeof *dims);
    if (st != RUNG_OK ||
        (st = compare_shown_reference(r->c, &r->p, &r->graphs[REFERENCE], r->at[REFERENCE], err)) ||
        (st = engine_for_batch(r->graphs[REFERENCE], b, n_threads, NULL, &r->engines[REFERENCE],
                               err)) != RUNG_OK ||
        (st = compare_shown_model(r->c, &r->p, &r->graphs[MODEL], r->at[MODEL], err)) != RUNG_OK ||
        (st = engine_for_batch(r->graphs[MODEL], b, n_threads, NULL, &r->engines[MODEL], err)) !=
            RUNG_OK ||
        (st = same_shapes(r, err)) != RUNG_OK ||
        (st = alone_engine(r, exact, dims, err)) != RUNG_OK)
        goto done;
    st = compare_factors(r->c, &r->p, exact, err);
done:
    mem_free(exact);
    mem_free(dims);
    return st;
}

/* --- one batch -------------------------------------------------------------------------------- */

static size_t elements_of(const run *r, const tensor *t, size_t n)
{
    return compare_elements(t, r->g->n_inputs ? engine_input(r->engines[MODEL], 0) : NULL, n);
}

/* What pair i's value would be without error, where the graph with each layer alone reads it. */
static const tensor *exact_value(const run *r, size_t i)
{
    return engine_input(r->engines[ALONE], r->g->n_inputs + (int)i);
}

static rung_status run_engines(run *r, const batch *b, rung_error *err)
{
    const graph *own[N_RUNS] = { r->reference, r->g, r->g };
    for (int k = 0; k < N_RUNS; k++) {
        rung_status st = engine_feed(r->engines[k], own[k], b, err);
        for (size_t i = 0; i < r->c->n_tensors && k == ALONE; i++)
            compare_rescale(&r->c->tensors[i], shown(r, REFERENCE, i),
                            shown(r, REFERENCE, i)->data, exact_value(r, i)->data);
        if (st != RUNG_OK || (st = engine_run(r->engines[k], err)) != RUNG_OK)
            return st;
    }
    return RUNG_OK;
}

static void tally_outputs(run *r, size_t n)
{
    for (int o = 0; o < r->c->n_outputs; o++) {
        const tensor *x = engine_output(r->engines[REFERENCE], o);
        const tensor *y = engine_output(r->engines[MODEL], o);
        const size_t used = elements_of(r, x, n);
        for (size_t i = 0; i < used && x->type != RUNG_STRING; i++) {
            const double want = tensor_get(x, i), d = want - tensor_get(y, i);
            r->c->outputs[o].signal += want * want;
            r->c->outputs[o].noise += d * d;
        }
    }
}

static rung_status count_label(run *r, const float *const scores[2], int64_t label, size_t sample,
                               rung_error *err)
{
    if (label < 0)
        return RUNG_OK;
    if ((size_t)label >= r->c->classes)
        return fail(err, RUNG_EARGUMENT, "sample %zu has label %lld, the models give %zu classes",
                    sample, (long long)label, r->c->classes);
    r->c->labelled++;
    for (int k = 0; k < 2; k++) {
        const size_t above = rank_of(scores[k], r->c->classes, (size_t)label);
        r->n.right1[k] += above == 0;
        r->n.right5[k] += above < 5;
    }
    return RUNG_OK;
}

/* Whether the first outputs are class scores of n samples or more. */
static bool has_scores(const run *r, size_t n)
{
    const tensor *x = engine_output(r->engines[REFERENCE], 0);
    const tensor *y = engine_output(r->engines[MODEL], 0);
    return is_scores(x) && is_scores(y) && x->dims[1] == y->dims[1] && (size_t)x->dims[0] >= n &&
           (size_t)y->dims[0] >= n;
}

static rung_status tally_decisions(run *r, const batch *b, rung_error *err)
{
    comparison *c = r->c;
    if (c->n_outputs == 0 || !has_scores(r, b->n))
        return RUNG_OK;
    const tensor *x = engine_output(r->engines[REFERENCE], 0);
    c->classes = (size_t)x->dims[1];
    if (!c->confusion && c->classes <= MAX_CONFUSION) {
        c->confusion = arena_zero(c->mem, c->classes * c->classes, sizeof *c->confusion);
        if (!c->confusion)
            return fail_memory(err, "a table of decisions", c->classes * c->classes * 4);
    }
    for (size_t i = 0; i < b->n; i++) {
        const float *const scores[2] = {
            (const float *)x->data + i * c->classes,
            (const float *)engine_output(r->engines[MODEL], 0)->data + i * c->classes,
        };
        const size_t a = arg_max(scores[0], c->classes), z = arg_max(scores[1], c->classes);
        r->n.agree += a == z;
        if (c->confusion)
            c->confusion[a * c->classes + z]++;
        const rung_status st =
            b->labels ? count_label(r, scores, b->labels[i], b->first + i, err) : RUNG_OK;
        if (st != RUNG_OK)
            return st;
    }
    return RUNG_OK;
}

/* Of the first samples, as many as are asked for. */
static rung_status take_effects(run *r, const batch *b, rung_error *err)
{
    const size_t done = r->c->effect_samples, left = r->opt->sensitivity - done;
    const effects_run e = { .reference = r->engines[REFERENCE], .alone = r->engines[ALONE],
                            .shown = r->at[REFERENCE], .alone_shown = r->at[ALONE], .b = b,
                            .n = b->n < left ? b->n : left, .n_threads = r->opt->n_threads };
    return e.n ? compare_effects(r->c, &r->p, &e, err) : RUNG_OK;
}

static rung_status take_batch(run *r, const batch *b, rung_error *err)
{
    rung_status st = RUNG_OK;
    if (!r->engines[REFERENCE]) {
        const double seconds = r->opt->seconds > 0 ? r->opt->seconds : 1;
        st = compare_latency(r->c, r->reference, r->g, b, seconds, r->opt->n_threads, err);
        if (st == RUNG_OK && r->opt->sensitivity)
            st = compare_layer_times(r->c, r->reference, r->g, b, r->opt->n_threads, err);
        if (st == RUNG_OK)
            st = make_engines(r, b, err);
    }
    if (st != RUNG_OK || (st = run_engines(r, b, err)) != RUNG_OK)
        return st;
    for (size_t i = 0; i < r->c->n_tensors; i++) {
        const tensor *x = exact_value(r, i);
        compare_tally(&r->c->tensors[i], x->data, shown(r, MODEL, i)->data,
                      shown(r, ALONE, i)->data, elements_of(r, x, b->n));
    }
    tally_outputs(r, b->n);
    r->c->samples += b->n;
    st = tally_decisions(r, b, err);
    return st == RUNG_OK ? take_effects(r, b, err) : st;
}

/* --- all -------------------------------------------------------------------------------------- */

/* Three engines whose values all stay: less at a time than an evaluation takes. */
static int batch_size(const graph *g)
{
    const value *first = g->n_inputs ? &g->values[g->inputs[0]] : NULL;
    const int n = measure_batch_size(g, 0);
    const bool fixed = first && first->rank > 0 && first->dims[0] != DIM_UNKNOWN;
    return fixed || n < 8 ? (fixed ? n : 1) : n / 4;
}

static rung_status take_samples(run *r, dataset *data, rung_error *err)
{
    const size_t all = dataset_size(data);
    const size_t n = r->opt->samples && r->opt->samples < all ? r->opt->samples : all;
    size_t *order = NULL;
    loader *l = NULL;
    const batch *b = NULL;
    progress p;
    rung_status st = RUNG_OK;
    progress_begin(&p, "comparing", "samples", n, r->opt->quiet);
    if (n < all) {
        order = mem_zero(n + 1, sizeof *order);
        st = order ? sample_order(all, n, r->opt->seed, order, err)
                   : fail_memory(err, "the order of samples", n * sizeof *order);
    }
    if (st == RUNG_OK)
        st = loader_open(data, order, n < all ? n : 0, (size_t)batch_size(r->g), &l, err);
    while (st == RUNG_OK && (st = loader_next(l, &b, err)) == RUNG_OK && b) {
        if ((st = take_batch(r, b, err)) == RUNG_OK)
            progress_step(&p, b->n);
    }
    if (st == RUNG_OK && r->c->samples == 0)
        st = fail(err, RUNG_EARGUMENT, "the data has no samples");
    progress_end(&p);
    loader_free(l);
    mem_free(order);
    return st;
}

static void conclude(run *r)
{
    comparison *c = r->c;
    model_record *models[2] = { &c->reference, &c->model };
    for (int k = 0; k < 2 && c->labelled; k++) {
        models[k]->top1 = 100.0 * (double)r->n.right1[k] / (double)c->labelled;
        models[k]->top5 = 100.0 * (double)r->n.right5[k] / (double)c->labelled;
    }
    if (c->classes)
        c->agreement = 100.0 * (double)r->n.agree / (double)c->samples;
}

rung_status measure_compare(const graph *reference, const graph *g, dataset *data,
                            const compare_options *opt, comparison **out, rung_error *err)
{
    run r = { .opt = opt, .reference = reference, .g = g };
    rung_status st = check_models(reference, g, err);
    if (st != RUNG_OK)
        return st;
    r.c = mem_zero(1, sizeof *r.c);
    st = r.c ? begin_records(&r, err) : fail_memory(err, "a comparison", sizeof *r.c);
    if (st == RUNG_OK)
        st = find_records(&r, err);
    if (st == RUNG_OK)
        st = take_samples(&r, data, err);
    if (st == RUNG_OK) {
        conclude(&r);
        r.c->random_data = dataset_is_random(data);
        *out = r.c;
        r.c = NULL;
    }
    for (int k = 0; k < N_RUNS; k++) {
        engine_free(r.engines[k]);
        graph_free(r.graphs[k]);
    }
    graph_free(r.prepared);
    comparison_free(r.c);
    return st;
}

void comparison_free(comparison *c)
{
    if (!c)
        return;
    arena_free(c->mem);
    mem_free(c);
}

double comparison_effect(const comparison *c, const tensor_record *t)
{
    double most = 0;
    for (int o = 0; o < c->n_outputs && t->effect.noise; o++)
        if (c->effect_signal[o] > 0)
            most = fmax(most, t->effect.noise[o] / c->effect_signal[o]);
    return most;
}

/* Noise that the layer adds, in relation to the signal. */
static double added(const comparison *c, const tensor_record *t)
{
    if (c->effect_samples)
        return comparison_effect(c, t);
    return t->signal > 0 ? t->own_noise / t->signal : 0;
}

size_t comparison_worst(const comparison *c, size_t n, size_t *index)
{
    size_t found = 0;
    for (size_t i = 0; i < c->n_tensors; i++) {
        const tensor_record *t = &c->tensors[i];
        if (t->moves || t->count == 0)
            continue;
        size_t at = found < n ? found++ : n;
        while (at > 0 && added(c, t) > added(c, &c->tensors[index[at - 1]])) {
            if (at < n)
                index[at] = index[at - 1];
            at--;
        }
        if (at < n)
            index[at] = i;
    }
    return found;
}
