/* Accuracy of many models on the same samples, beside one float model. */
#include <string.h>

#include "base/mem.h"
#include "base/progress.h"
#include "measure/scores.h"
#include "quant/mixed.h"

/* --- samples ---------------------------------------------------------------------------------- */

static size_t batch_bytes(const batch *b)
{
    size_t all = b->n * sizeof *b->labels;
    for (int i = 0; i < b->n_inputs; i++)
        all += rung_tensor_bytes(&b->inputs[i].t);
    return all;
}

static bool copy_batch(arena *mem, const batch *from, batch *to)
{
    *to = *from;
    to->inputs = arena_copy(mem, from->inputs, (size_t)from->n_inputs * sizeof *from->inputs);
    if (from->labels)
        to->labels = arena_copy(mem, from->labels, from->n * sizeof *from->labels);
    for (int i = 0; to->inputs && i < to->n_inputs; i++) {
        batch_input *in = &to->inputs[i];
        in->name = arena_strdup(mem, in->name);
        in->t.data = arena_copy(mem, in->t.data, rung_tensor_bytes(&in->t));
        if (!in->name || !in->t.data)
            return false;
    }
    return to->inputs && (to->labels || !from->labels);
}

/* The first batches, while they fit. */
static rung_status keep(judge *j, const batch *b, size_t *cap, rung_error *err)
{
    if (b->first != j->kept_samples || arena_bytes(j->mem) + batch_bytes(b) > j->keep_bytes)
        return RUNG_OK;
    batch *list = arena_grow(j->mem, j->kept, cap, j->n_kept + 1, sizeof *list);
    if (!list || !copy_batch(j->mem, b, &list[j->n_kept]))
        return fail_memory(err, "samples to evaluate on", batch_bytes(b));
    j->kept = list;
    j->n_kept++;
    j->kept_samples += b->n;
    return RUNG_OK;
}

/* A run over all samples; use: called with the outputs of each batch. */
typedef struct visit {
    judge       *j;
    const graph *g;
    engine      *e;
    progress     bar;
    rung_status (*use)(struct visit *v, const batch *b, size_t first, rung_error *err);
    size_t       right, changed;
    size_t       cap;
} visit;

static rung_status visit_batch(visit *v, const batch *b, size_t first, rung_error *err)
{
    rung_status st = v->e ? RUNG_OK
                          : engine_for_batch(v->g, b, v->j->n_threads, NULL, &v->e, err);
    if (st == RUNG_OK && (st = engine_feed(v->e, v->g, b, err)) == RUNG_OK &&
        (st = engine_run(v->e, err)) == RUNG_OK)
        st = v->use(v, b, first, err);
    if (st == RUNG_OK)
        progress_step(&v->bar, b->n);
    return st;
}

/* Samples [from, n) as the set gives them. */
static rung_status visit_unkept(visit *v, size_t from, rung_error *err)
{
    judge *j = v->j;
    const size_t n = j->n - from;
    size_t *order = mem_zero(n + 1, sizeof *order);
    loader *l = NULL;
    const batch *b = NULL;
    rung_status st = order ? RUNG_OK : fail_memory(err, "the order of samples", n * sizeof *order);
    for (size_t i = 0; i < n && order; i++)
        order[i] = from + i;
    if (st == RUNG_OK && n)
        st = loader_open(j->data, order, n, (size_t)j->size, &l, err);
    while (st == RUNG_OK && l && (st = loader_next(l, &b, err)) == RUNG_OK && b)
        st = visit_batch(v, b, from + b->first, err);
    loader_free(l);
    mem_free(order);
    return st;
}

static rung_status visit_all(visit *v, rung_error *err)
{
    const size_t kept = v->j->kept_samples; /* the first visit makes them more */
    rung_status st = RUNG_OK;
    progress_begin(&v->bar, "evaluating", "samples", v->j->n, v->j->quiet);
    for (size_t i = 0; i < v->j->n_kept && st == RUNG_OK; i++)
        st = visit_batch(v, &v->j->kept[i], v->j->kept[i].first, err);
    if (st == RUNG_OK)
        st = visit_unkept(v, kept, err);
    progress_end(&v->bar);
    engine_free(v->e);
    v->e = NULL;
    return st;
}

/* --- decisions -------------------------------------------------------------------------------- */

static rung_status check_scores(const tensor *y, const batch *b, rung_error *err)
{
    if (!is_scores(y) || (size_t)y->dims[0] < b->n)
        return fail(err, RUNG_EARGUMENT, "a drop of accuracy is known of models whose first output "
                    "has scores of classes; of this one compare the SQNR ('rung compare') and "
                    "leave layers in float by --exclude");
    for (size_t s = 0; s < b->n && b->labels; s++)
        if (b->labels[s] >= y->dims[1])
            return fail(err, RUNG_EARGUMENT, "sample %zu has label %lld, the model gives %lld "
                        "classes", b->first + s, (long long)b->labels[s], (long long)y->dims[1]);
    return RUNG_OK;
}

static size_t decision(const tensor *y, size_t s)
{
    const size_t classes = (size_t)y->dims[1];
    return arg_max((const float *)y->data + s * classes, classes);
}

static rung_status take_float(visit *v, const batch *b, size_t first, rung_error *err)
{
    judge *j = v->j;
    const tensor *y = engine_output(v->e, 0);
    const rung_status st = check_scores(y, b, err);
    for (size_t s = 0; s < b->n && st == RUNG_OK; s++) {
        j->decisions[first + s] = decision(y, s);
        j->labelled += b->labels && b->labels[s] >= 0;
        j->float_right += b->labels && b->labels[s] == (int64_t)j->decisions[first + s];
    }
    return st == RUNG_OK ? keep(j, b, &v->cap, err) : st;
}

static rung_status take_quantized(visit *v, const batch *b, size_t first, rung_error *err)
{
    const tensor *y = engine_output(v->e, 0);
    const rung_status st = check_scores(y, b, err);
    for (size_t s = 0; s < b->n && st == RUNG_OK; s++) {
        const size_t now = decision(y, s);
        v->changed += now != v->j->decisions[first + s];
        v->right += b->labels && b->labels[s] == (int64_t)now;
    }
    return st;
}

/* --- the judge -------------------------------------------------------------------------------- */

rung_status judge_begin(judge *j, const graph *reference, dataset *data,
                        const rung_quant_options *opt, size_t keep_bytes, rung_error *err)
{
    *j = (judge){ .mem = arena_new(), .data = data, .reference = reference,
                  .n_threads = opt->n_threads, .size = measure_batch_size(reference, opt->batch),
                  .quiet = opt->quiet, .keep_bytes = keep_bytes, .n = dataset_size(data) };
    if (j->mem)
        j->decisions = arena_zero(j->mem, j->n + 1, sizeof *j->decisions);
    if (!j->decisions)
        return fail_memory(err, "decisions", j->n * sizeof *j->decisions);
    if (j->n == 0 || j->size < 1)
        return fail(err, RUNG_EARGUMENT, j->n ? "the model's batch dimension is %d"
                    : "there are no samples to evaluate on (batches of %d)", j->size);
    if (reference->n_outputs < 1)
        return fail(err, RUNG_EMODEL, "the model has no output to evaluate");
    visit v = { .j = j, .g = reference, .use = take_float };
    return visit_all(&v, err);
}

rung_status judge_drop(judge *j, const graph *q, double *drop, rung_error *err)
{
    visit v = { .j = j, .g = q, .use = take_quantized };
    const rung_status st = visit_all(&v, err);
    j->evaluations++;
    *drop = j->labelled ? 100.0 * ((double)j->float_right - (double)v.right) / (double)j->labelled
                        : 100.0 * (double)v.changed / (double)j->n;
    return st;
}

void judge_end(judge *j)
{
    arena_free(j->mem);
    *j = (judge){ 0 };
}
