/* The loop over epochs. */
#include "train/run.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "quant/qat.h"
#include "train/run_parts.h"

static rung_status out_of_memory(rung_error *err)
{
    return fail_memory(err, "a training run", sizeof(run));
}

/* --- evaluation ------------------------------------------------------------------------------- */

static rung_status evaluate(const run *r, training_epoch *e, rung_error *err)
{
    const rung_eval_options opt = { .size = sizeof opt, .n_threads = r->opt->trainer.n_threads,
                                    .batch = r->opt->eval_batch, .quiet = true,
                                    .ranks = r->ranks };
    rung_eval_result result;
    graph *g = NULL;
    e->top1 = e->agreement = -1;
    e->eval_loss = e->sqnr_db = NAN;
    if (!r->eval)
        return RUNG_OK;
    rung_status st = trainer_graph(r->t, trainer_weights(r->t), true, &g, err);
    if (st == RUNG_OK)
        st = measure_eval(g, r->teacher, r->eval, &opt, &result, NULL, err);
    graph_free(g);
    if (st != RUNG_OK)
        return st;
    e->top1 = result.top1;
    e->eval_loss = result.loss;
    e->agreement = result.agreement;
    e->sqnr_db = result.sqnr_db;
    return RUNG_OK;
}

/* Negative: a is worse; two numbers that are not known are equal. */
static int compare(double a, double b)
{
    if (!isfinite(a) || !isfinite(b))
        return isfinite(a) - isfinite(b);
    return (a > b) - (a < b);
}

static bool is_better(const training_epoch *a, const training_epoch *b)
{
    const double keys[][2] = { { a->top1, b->top1 }, { -a->eval_loss, -b->eval_loss },
                               { a->agreement, b->agreement }, { a->sqnr_db, b->sqnr_db } };
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const int c = compare(keys[i][0], keys[i][1]);
        if (c)
            return c > 0;
    }
    return false;
}

/* Adds a record of the model as it is; without evaluation the last is the best. */
static rung_status judge(run *r, training_epoch *e, rung_error *err)
{
    training_record *rec = r->record;
    const rung_status st = evaluate(r, e, err);
    if (st != RUNG_OK)
        return st;
    e->seconds = r->at.seconds + clock_seconds() - r->started;
    rec->epochs[rec->n] = *e;
    if (rec->n == 0 || !r->eval || is_better(e, &rec->epochs[rec->best])) {
        rec->best = rec->n;
        memcpy(r->best, trainer_weights(r->t), trainer_params(r->t)->total * sizeof *r->best);
    }
    r->at.n_records = ++rec->n;
    r->at.best = rec->best;
    return metrics_epoch(r, e, err);
}

/* --- an epoch --------------------------------------------------------------------------------- */

static void show(run *r, size_t n)
{
    const double seen = r->at.samples ? (double)r->at.samples : 1;
    int at = snprintf(r->title, sizeof r->title, "%sepoch %llu/%zu  loss %.4f",
                      training_diverged(r->record) ? "worse than at the start: " : "",
                      (unsigned long long)r->at.epoch + 1, r->opt->epochs, r->at.loss / seen);
    if (dataset_has_labels(r->data) && at > 0 && (size_t)at < sizeof r->title)
        snprintf(r->title + at, sizeof r->title - (size_t)at, "  accuracy %.2f%%",
                 100 * (double)r->at.correct / seen);
    r->bar.what = r->title;
    progress_step(&r->bar, n);
}

static rung_status step(run *r, feeder *f, rung_error *err)
{
    const batch *b;
    const int64_t *mixed;
    const float *share;
    step_result s;
    rung_status st = feeder_next(f, &b, &mixed, &share, err);
    if (st == RUNG_OK)
        st = trainer_step(r->t, b, mixed, share, &s, err);
    if (st != RUNG_OK)
        return st;
    r->at.loss += s.loss * (double)s.n;
    r->at.samples += s.n;
    r->at.all_samples += s.n;
    r->at.correct += s.correct;
    r->at.rate = s.rate;
    r->at.step++;
    if ((st = metrics_step(r, &s, err)) != RUNG_OK)
        return st;
    r->at.done++;
    show(r, s.n);
    const double wait = r->opt->checkpoint_seconds > 0 ? r->opt->checkpoint_seconds : 60;
    return clock_seconds() - r->saved >= wait ? run_save(r, err) : RUNG_OK;
}

static rung_status train_epoch(run *r, rung_error *err)
{
    const size_t all = dataset_size(r->data);
    const double began = clock_seconds();
    feeder f = { 0 };
    rung_status st = sample_order(all, all, r->opt->seed * 1000003 + r->at.epoch, r->order, err);
    if (st == RUNG_OK)
        st = feeder_open(r, &f, err);
    while (st == RUNG_OK && r->at.done < r->per_epoch)
        st = step(r, &f, err);
    feeder_close(&f);
    r->at.train_seconds += clock_seconds() - began;
    return st;
}

static rung_status end_epoch(run *r, rung_error *err)
{
    const double seen = r->at.samples ? (double)r->at.samples : 1;
    training_epoch e = { .epoch = r->at.epoch + 1, .loss = r->at.loss / seen, .rate = r->at.rate,
                         .accuracy = -1 };
    if (dataset_has_labels(r->data))
        e.accuracy = 100 * (double)r->at.correct / seen;
    const rung_status st = judge(r, &e, err);
    if (st != RUNG_OK)
        return st;
    r->at.epoch++;
    r->at.done = r->at.samples = r->at.correct = 0;
    r->at.loss = 0;
    return run_save(r, err);
}

static rung_status freeze_when_due(run *r, rung_error *err)
{
    const size_t from = r->opt->freeze_statistics, until = r->opt->freeze_scales;
    const rung_status st = until && r->at.epoch >= until ? trainer_freeze_scales(r->t, err)
                                                         : RUNG_OK;
    if (st != RUNG_OK)
        return st;
    return from && r->at.epoch + 1 >= from ? trainer_freeze_statistics(r->t, err) : RUNG_OK;
}

static rung_status train(run *r, rung_error *err)
{
    const size_t all = dataset_size(r->data), used = r->per_epoch * r->batch;
    const size_t per_epoch = used < all ? used : all;
    rung_status st = RUNG_OK;
    progress_begin(&r->bar, "training", "samples", per_epoch * r->opt->epochs,
                   r->opt->quiet || ranks_index(r->ranks) > 0);
    r->bar.done = per_epoch * r->at.epoch + r->at.samples;
    while (st == RUNG_OK && r->at.epoch < r->opt->epochs) {
        st = freeze_when_due(r, err);
        if (st == RUNG_OK)
            st = train_epoch(r, err);
        if (st == RUNG_OK)
            st = end_epoch(r, err);
    }
    progress_end(&r->bar);
    return st;
}

/* --- the run ---------------------------------------------------------------------------------- */

static void set_schedule(const run *r, optimizer_options *o)
{
    o->total = r->per_epoch * r->opt->epochs;
    o->warmup = (size_t)(r->opt->warmup * (double)r->per_epoch);
    o->step_every = (size_t)fmax(r->opt->step_epochs * (double)r->per_epoch, 0);
}

/* Statistics of a batch want whole batches, in equal parts. */
static rung_status set_batch(run *r, rung_error *err)
{
    const trainer_options *opt = &r->opt->trainer;
    const size_t all = dataset_size(r->data), n = (size_t)ranks_count(r->ranks);
    if (opt->batch_stats && all < n)
        return fail(err, RUNG_EARGUMENT, "%zu samples for %zu processes: with statistics of the "
                    "batch each wants one at least", all, n);
    const size_t most = (all + n - 1) / n, equal = all / n;
    if (opt->batch_stats)
        r->own_batch = opt->batch < equal ? opt->batch : equal;
    else
        r->own_batch = opt->batch < most ? opt->batch : most;
    r->batch = r->own_batch * n < all ? r->own_batch * n : all;
    r->per_epoch = opt->batch_stats ? all / r->batch : (all + r->batch - 1) / r->batch;
    return RUNG_OK;
}

static rung_status open_trainer(run *r, rung_error *err)
{
    trainer_options opt = r->opt->trainer;
    rung_status st = set_batch(r, err);
    if (st != RUNG_OK)
        return st;
    opt.batch = r->own_batch;
    set_schedule(r, &opt.optimizer);
    st = trainer_create(r->g, r->teacher, &opt, &r->t, err);
    if (st == RUNG_OK && r->opt->freeze_scales && trainer_scales(r->t) != RUNG_SCALES_OBSERVED)
        return fail(err, RUNG_EARGUMENT, "scales that are not observed do not freeze: leave "
                    "freeze_scales out, or let them be observed");
    return st == RUNG_OK ? augmenter_create(&r->opt->augment, r->opt->seed, &r->a, err) : st;
}

static rung_status make(run *r, rung_error *err)
{
    training_record *rec = r->record = mem_zero(1, sizeof *rec);
    const rung_status st = rec ? open_trainer(r, err) : out_of_memory(err);
    if (st != RUNG_OK)
        return st;
    const params *p = trainer_params(r->t);
    rec->epochs = mem_zero(r->opt->epochs + 1, sizeof *rec->epochs);
    r->best = mem_alloc(p->total * sizeof *r->best);
    r->order = mem_alloc(dataset_size(r->data) * sizeof *r->order);
    if (!rec->epochs || !r->best || !r->order)
        return out_of_memory(err);
    rec->is_float = !qat_is_prepared(r->g);
    rec->evaluated = r->eval != NULL;
    rec->samples = dataset_size(r->data);
    rec->eval_samples = r->eval ? dataset_size(r->eval) : 0;
    rec->batch = r->batch;
    rec->ranks = ranks_count(r->ranks);
    rec->chunk = trainer_chunk(r->t);
    rec->lanes = trainer_lanes(r->t);
    for (size_t i = 0; i < p->n; i++) {
        const bool scale = p->list[i].kind == PARAM_WEIGHT_SCALE ||
                           p->list[i].kind == PARAM_ACT_SCALE;
        rec->parameters += p->list[i].kind == PARAM_STATE ? 0 : p->list[i].count;
        rec->scales += scale ? p->list[i].count : 0;
    }
    return RUNG_OK;
}

static rung_status begin(run *r, rung_error *err)
{
    training_epoch before = { .loss = NAN, .accuracy = -1 };
    bool found;
    rung_status st = run_resume(r, &found, err);
    r->started = r->saved = clock_seconds();
    r->record->n = r->at.n_records;
    r->record->best = r->at.best;
    if (st == RUNG_OK)
        st = metrics_open(r, err);
    return st == RUNG_OK && !found ? judge(r, &before, err) : st;
}

static rung_status finish(run *r, graph **model, graph **trained, rung_error *err)
{
    training_record *rec = r->record;
    const double seconds = r->at.train_seconds;
    rec->steps = r->at.step;
    rec->seconds = r->at.seconds + clock_seconds() - r->started;
    rec->samples_per_s = seconds > 0 ? (double)r->at.all_samples / seconds : 0;
    rung_status st = trainer_graph(r->t, r->best, true, model, err);
    if (st == RUNG_OK && trained)
        st = trainer_graph(r->t, r->best, false, trained, err);
    return st;
}

rung_status train_run(const graph *g, const graph *teacher, dataset *data, dataset *eval,
                      const train_options *opt, graph **model, graph **trained,
                      training_record **record, rung_error *err)
{
    run r = { .g = g, .teacher = teacher, .data = data, .eval = eval, .opt = opt,
              .ranks = opt->trainer.ranks };
    rung_status st;
    *model = NULL;
    if (trained)
        *trained = NULL;
    if ((st = train_check(g, teacher, data, opt, err)) == RUNG_OK &&
        (st = make(&r, err)) == RUNG_OK && (st = begin(&r, err)) == RUNG_OK &&
        (st = train(&r, err)) == RUNG_OK)
        st = finish(&r, model, trained, err);
    metrics_close(&r);
    if (st == RUNG_OK) {
        *record = r.record;
        r.record = NULL;
    } else {
        graph_free(*model);
        *model = NULL;
    }
    training_record_free(r.record);
    trainer_free(r.t);
    augmenter_free(r.a);
    mem_free(r.best);
    mem_free(r.order);
    return st;
}
