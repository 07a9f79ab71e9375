/* Accuracy and SQNR over a data set. */
#include "measure/measure.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/progress.h"
#include "base/ranks.h"
#include "measure/scores.h"

typedef struct tally {
    size_t samples, labelled, right1, right5, agree;
    bool has_scores;
    double loss;
    double *signal, *noise; /* per output */
} tally;

static double cross_entropy(const float *x, size_t n, size_t label)
{
    const double top = x[arg_max(x, n)];
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += exp(x[i] - top);
    return log(sum) + top - x[label];
}

static rung_status count_labels(const engine *e, const batch *b, tally *t, rung_error *err)
{
    const tensor *y = engine_output(e, 0);
    const size_t classes = (size_t)y->dims[1];
    for (size_t i = 0; i < b->n; i++) {
        const int64_t label = b->labels[i];
        const float *x = (const float *)y->data + i * classes;
        if (label < 0)
            continue;
        if ((size_t)label >= classes)
            return fail(err, RUNG_EARGUMENT,
                        "sample %zu has label %lld, the model gives %zu classes", b->first + i,
                        (long long)label, classes);
        const size_t above = rank_of(x, classes, (size_t)label);
        t->labelled++;
        t->right1 += above == 0;
        t->right5 += above < 5;
        t->loss += cross_entropy(x, classes, (size_t)label);
    }
    return RUNG_OK;
}

static rung_status count_agreement(const engine *e, const engine *ref, size_t n, tally *t,
                                   rung_error *err)
{
    const tensor *y = engine_output(e, 0), *r = engine_output(ref, 0);
    const size_t classes = (size_t)y->dims[1];
    if (!is_scores(r) || r->dims[1] != y->dims[1] || (size_t)r->dims[0] < n)
        return fail(err, RUNG_EARGUMENT,
                    "the model's first output has scores of %zu classes, the "
                    "reference's has not",
                    classes);
    for (size_t i = 0; i < n; i++)
        t->agree += arg_max((const float *)y->data + i * classes, classes) ==
                    arg_max((const float *)r->data + i * classes, classes);
    return RUNG_OK;
}

/* The elements of output o that belong to the first n samples: all of it, but for the padding of a
 * last, smaller batch, where the output's first dimension goes with the number of samples. */
static size_t n_counted(const engine *e, int o, size_t n)
{
    const tensor *y = engine_output(e, o);
    const tensor *x = engine_n_inputs(e) ? engine_input(e, 0) : NULL;
    const size_t all = tensor_count(y);
    const size_t fed = x && x->rank > 0 && x->dims[0] > 0 ? (size_t)x->dims[0] : n;
    return y->rank > 0 && (size_t)y->dims[0] % fed == 0 ? all / fed * n : all;
}

static rung_status count_noise(const engine *e, const engine *ref, const graph *g, size_t n,
                               tally *t, rung_error *err)
{
    for (int o = 0; o < engine_n_outputs(e); o++) {
        const tensor *y = engine_output(e, o), *r = engine_output(ref, o);
        const size_t used = n_counted(e, o, n), others = n_counted(ref, o, n);
        if (used != others)
            return fail(err, RUNG_EARGUMENT,
                        "output '%s' has %zu elements for %zu samples, the "
                        "reference's has %zu",
                        g->values[g->outputs[o]].name, used, n, others);
        for (size_t i = 0; i < used; i++) {
            const double want = tensor_get(r, i), d = want - tensor_get(y, i);
            t->signal[o] += want * want;
            t->noise[o] += d * d;
        }
    }
    return RUNG_OK;
}

static void conclude(const graph *g, const graph *reference, const tally *t,
                     rung_eval_result *result, output_sqnr *sqnr)
{
    const double labelled = (double)t->labelled;
    result->samples = t->samples;
    result->top1 = t->labelled ? 100.0 * (double)t->right1 / labelled : -1;
    result->top5 = t->labelled ? 100.0 * (double)t->right5 / labelled : -1;
    result->loss = t->labelled ? t->loss / labelled : NAN;
    result->agreement = reference && t->has_scores && t->samples
                            ? 100.0 * (double)t->agree / (double)t->samples
                            : -1;
    result->sqnr_db = NAN;
    for (int o = 0; reference && o < g->n_outputs; o++) {
        const double db = decibels(t->signal[o], t->noise[o]);
        if (sqnr)
            sqnr[o] = (output_sqnr){g->values[g->outputs[o]].name, db};
        if (!isnan(db) && !(result->sqnr_db <= db))
            result->sqnr_db = db;
    }
}

/* What one evaluation works with; engines are made at the first batch, whose shapes they take. */
typedef struct evaluation {
    const graph *g, *reference;
    const rung_eval_options *opt;
    engine *e, *ref;
    size_t *order; /* [n]: this process's share; NULL: all */
    size_t n;
    tally t;
} evaluation;

static rung_status take_share(evaluation *v, dataset *data, rung_error *err)
{
    size_t first, end;
    ranks_part(v->opt->ranks, dataset_size(data), &first, &end);
    v->n = end - first;
    if (!v->opt->ranks)
        return RUNG_OK;
    if (!(v->order = mem_alloc((v->n + 1) * sizeof *v->order)))
        return fail_memory(err, "the order of samples", v->n * sizeof *v->order);
    for (size_t i = 0; i < v->n; i++)
        v->order[i] = first + i;
    return RUNG_OK;
}

/* What all processes counted. */
static rung_status add_up(const evaluation *v, tally *t, rung_error *err)
{
    ranks *r = v->opt->ranks;
    const size_t outputs = (size_t)v->g->n_outputs;
    double n[] = { (double)t->samples, (double)t->labelled, (double)t->right1, (double)t->right5,
                   (double)t->agree, t->has_scores, t->loss };
    rung_status st;
    if ((st = ranks_sum(r, n, sizeof n / sizeof *n, err)) != RUNG_OK ||
        (st = ranks_sum(r, t->signal, outputs, err)) != RUNG_OK ||
        (st = ranks_sum(r, t->noise, outputs, err)) != RUNG_OK)
        return st;
    t->samples = (size_t)n[0];
    t->labelled = (size_t)n[1];
    t->right1 = (size_t)n[2];
    t->right5 = (size_t)n[3];
    t->agree = (size_t)n[4];
    t->has_scores = n[5] > 0;
    t->loss = n[6];
    return RUNG_OK;
}

static rung_status run_one(const graph *g, engine **e, const batch *b, int n_threads,
                           rung_error *err)
{
    rung_status st = *e ? RUNG_OK : engine_for_batch(g, b, n_threads, NULL, e, err);
    if (st == RUNG_OK)
        st = engine_feed(*e, g, b, err);
    return st == RUNG_OK ? engine_run(*e, err) : st;
}

static rung_status eval_batch(evaluation *v, const batch *b, rung_error *err)
{
    rung_status st = run_one(v->g, &v->e, b, v->opt->n_threads, err);
    if (st == RUNG_OK && v->reference)
        st = run_one(v->reference, &v->ref, b, v->opt->n_threads, err);
    if (st != RUNG_OK)
        return st;
    const tensor *y = engine_output(v->e, 0);
    v->t.samples += b->n;
    v->t.has_scores = is_scores(y) && (size_t)y->dims[0] >= b->n;
    if (v->t.has_scores && b->labels)
        st = count_labels(v->e, b, &v->t, err);
    if (st == RUNG_OK && v->reference)
        st = count_noise(v->e, v->ref, v->g, b->n, &v->t, err);
    if (st == RUNG_OK && v->reference && v->t.has_scores)
        st = count_agreement(v->e, v->ref, b->n, &v->t, err);
    return st;
}

rung_status measure_eval(const graph *g, const graph *reference, dataset *data,
                         const rung_eval_options *opt, rung_eval_result *result, output_sqnr *sqnr,
                         rung_error *err)
{
    evaluation v = {.g = g, .reference = reference, .opt = opt};
    loader *l = NULL;
    const batch *b = NULL;
    progress p;
    const double started = clock_seconds();
    rung_status st = RUNG_OK;
    if (reference && reference->n_outputs != g->n_outputs)
        return fail(err, RUNG_EARGUMENT, "the model has %d outputs, the reference %d", g->n_outputs,
                    reference->n_outputs);
    if ((st = take_share(&v, data, err)) != RUNG_OK)
        return st;
    progress_begin(&p, "evaluating", "samples", v.n, opt->quiet || ranks_index(opt->ranks) > 0);
    v.t.signal = mem_zero((size_t)g->n_outputs + 1, sizeof *v.t.signal);
    v.t.noise = mem_zero((size_t)g->n_outputs + 1, sizeof *v.t.noise);
    if (!v.t.signal || !v.t.noise) {
        st = fail_memory(err, "the sums of an evaluation", (size_t)g->n_outputs * 16);
        goto done;
    }
    const int size = measure_batch_size(g, opt->batch);
    if ((st = loader_open(data, v.order, v.n, (size_t)size, &l, err)) != RUNG_OK)
        goto done;
    while ((st = loader_next(l, &b, err)) == RUNG_OK && b) {
        if ((st = eval_batch(&v, b, err)) != RUNG_OK)
            break;
        progress_step(&p, b->n);
    }
    if (st == RUNG_OK)
        st = add_up(&v, &v.t, err);
    if (st == RUNG_OK)
        conclude(g, reference, &v.t, result, sqnr);
    result->seconds = clock_seconds() - started;
done:
    progress_end(&p);
    loader_free(l);
    engine_free(v.e);
    engine_free(v.ref);
    mem_free(v.order);
    mem_free(v.t.signal);
    mem_free(v.t.noise);
    return st;
}
