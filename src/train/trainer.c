/* Lanes, chunks, and the step of the parameters. */
#include "train/trainer.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#include "base/mem.h"
#include "measure/measure.h"
#include "quant/qat.h"
#include "train/trainer_parts.h"

static rung_status out_of_memory(size_t n, rung_error *err)
{
    return fail_memory(err, "training", n * sizeof(float));
}

/* --- lanes ------------------------------------------------------------------------------------ */

static void lane_close(lane *l)
{
    tape_free(l->t);
    engine_free(l->teacher);
    mem_free(l->grad);
    mem_free(l->state);
    mem_free(l->out);
    *l = (lane){ 0 };
}

static rung_status open_teacher(const trainer *t, lane *l, int n_threads, rung_error *err)
{
    const graph *g = t->watch.teacher;
    const int64_t **dims = mem_zero((size_t)g->n_inputs + 1, sizeof *dims);
    if (!dims)
        return out_of_memory(1, err);
    for (int i = 0; i < g->n_inputs; i++)
        dims[i] = tape_input(l->t, i)->dims;
    const engine_options opt = { .n_threads = n_threads, .input_dims = dims };
    rung_status st = engine_create(g, &opt, &l->teacher, err);
    if (st != RUNG_OK)
        st = fail_at(err, st, "teacher");
    mem_free(dims);
    return st;
}

static rung_status connect(const trainer *t, lane *l, rung_error *err)
{
    const int n = t->watch.n_outputs + t->watch.n_features;
    if (!(l->out = mem_zero((size_t)n + 1, sizeof *l->out)))
        return out_of_memory((size_t)n, err);
    for (int i = 0; i < n; i++) {
        const watched *w = &t->watch.list[i];
        l->out[i] = (loss_output){ tape_output(l->t, w->tape), NULL,
                                   tape_output_grad(l->t, w->tape) };
        if (l->out[i].y->type != RUNG_F32)
            return fail(err, RUNG_EUNSUPPORTED, "output %d is %s: training needs float32 outputs",
                        i, dtype_name(l->out[i].y->type));
        if (w->teacher < 0)
            continue;
        l->out[i].teacher = engine_output(l->teacher, w->teacher);
        if (tensor_count(l->out[i].teacher) != tensor_count(l->out[i].y) ||
            l->out[i].teacher->type != RUNG_F32)
            return fail(err, RUNG_EARGUMENT, "output or feature %d: the teacher's has another "
                        "shape or type", i);
    }
    return RUNG_OK;
}

static const bool *watched_scales(const trainer *t)
{
    return t->observers && !t->frozen ? observers_watched(t->observers) : NULL;
}

static rung_status lane_open(const trainer *t, lane *l, int n_threads, rung_error *err)
{
    const bool learn = t->opt.scales == RUNG_SCALES_LEARNED;
    const tape_options opt = { .batch = t->opt.chunk, .n_threads = n_threads,
                               .batch_stats = t->opt.batch_stats, .momentum = t->opt.momentum,
                               .extra = t->watch.extra, .n_extra = t->watch.n_extra,
                               .learn_act_scales = learn, .learn_weight_scales = learn,
                               .observe = watched_scales(t) };
    rung_status st = tape_create(t->g, t->p, &opt, &l->t, err);
    l->stale = true;
    if (st == RUNG_OK && !(l->grad = mem_alloc(t->p->total * sizeof *l->grad)))
        st = out_of_memory(t->p->total, err);
    if (st == RUNG_OK && t->opt.batch_stats &&
        !(l->state = mem_alloc(t->p->total * sizeof *l->state)))
        st = out_of_memory(t->p->total, err);
    if (st == RUNG_OK && t->watch.teacher)
        st = open_teacher(t, l, n_threads, err);
    return st == RUNG_OK ? connect(t, l, err) : st;
}

static void close_lanes(trainer *t)
{
    for (int i = 0; i < t->n_lanes; i++)
        lane_close(&t->lanes[i]);
    mem_free(t->lanes);
    t->lanes = NULL;
    t->n_lanes = 0;
}

static rung_status open_lanes(trainer *t, rung_error *err)
{
    const int threads = t->opt.n_threads > 0 ? t->opt.n_threads : omp_get_num_procs();
    const size_t pieces = (t->opt.batch + t->opt.chunk - 1) / t->opt.chunk;
    const int n = (size_t)threads < pieces ? threads : (int)pieces;
    rung_status st = RUNG_OK;
    if (!(t->lanes = mem_zero((size_t)n, sizeof *t->lanes)))
        return out_of_memory(1, err);
    for (; t->n_lanes < n && st == RUNG_OK; t->n_lanes++)
        st = lane_open(t, &t->lanes[t->n_lanes], t->opt.batch_stats && pieces < 2 ? threads : 1,
                       err);
    return st;
}

/* --- making one ------------------------------------------------------------------------------- */

/* Observed scales want a graph of their own. */
static rung_status make_params(trainer *t, rung_error *err)
{
    if (t->opt.scales == RUNG_SCALES_DEFAULT)
        t->opt.scales = qat_scales_of(t->g);
    if (!t->prepared)
        t->opt.scales = RUNG_SCALES_FIXED;
    if (t->opt.scales != RUNG_SCALES_OBSERVED)
        return params_create(t->g, &t->p, err);
    const rung_status st = observers_create(t->g, &t->observers, &t->p, err);
    if (st != RUNG_OK)
        return st;
    t->g = observers_graph(t->observers);
    t->seen = mem_alloc((2 * t->p->n + 1) * sizeof *t->seen);
    return t->seen ? RUNG_OK : out_of_memory(2 * t->p->n, err);
}

static rung_status make(trainer *t, const graph *teacher, rung_error *err)
{
    rung_status st;
    if ((st = make_params(t, err)) != RUNG_OK ||
        (st = optimizer_create(t->p, &t->opt.optimizer, &t->o, err)) != RUNG_OK ||
        (st = watch_outputs(t->g, teacher, &t->opt, t->mem, &t->watch, err)) != RUNG_OK ||
        (st = chunk_size(t->g, &t->opt, &t->opt.chunk, err)) != RUNG_OK)
        return st;
    t->grad = mem_alloc(t->p->total * sizeof *t->grad);
    t->before = mem_alloc(t->p->total * sizeof *t->before);
    t->state = mem_alloc(t->p->total * sizeof *t->state);
    if (!t->grad || !t->before || !t->state)
        return out_of_memory(3 * t->p->total, err);
    st = count_codes(t, err);
    if (st == RUNG_OK && t->prepared && t->opt.freeze_oscillating > 0)
        st = freezer_create(t->g, t->p, t->opt.freeze_oscillating, &t->freezer, err);
    return st == RUNG_OK ? open_lanes(t, err) : st;
}

rung_status trainer_create(const graph *g, const graph *teacher, const trainer_options *opt,
                           trainer **out, rung_error *err)
{
    trainer *t = mem_zero(1, sizeof *t);
    rung_status st = RUNG_OK;
    *out = NULL;
    if (!t || !(t->mem = arena_new())) {
        mem_free(t);
        return out_of_memory(1, err);
    }
    t->g = g;
    t->opt = *opt;
    t->prepared = qat_is_prepared(g);
    if (opt->batch < 1)
        st = fail(err, RUNG_EARGUMENT, "a batch of no samples");
    else if (t->prepared && opt->batch_stats)
        st = fail(err, RUNG_EARGUMENT, "statistics of the batch are for float training: a prepared "
                  "model has its normalizations folded");
    if (st == RUNG_OK)
        st = make(t, teacher, err);
    if (st == RUNG_OK)
        *out = t;
    else
        trainer_free(t);
    return st;
}

void trainer_free(trainer *t)
{
    if (!t)
        return;
    close_lanes(t);
    graph_free(t->watch.teacher);
    optimizer_free(t->o);
    params_free(t->p);
    freezer_free(t->freezer);
    observers_free(t->observers);
    mem_free(t->seen);
    mem_free(t->grad);
    mem_free(t->before);
    mem_free(t->state);
    arena_free(t->mem);
    mem_free(t);
}

rung_status trainer_freeze_statistics(trainer *t, rung_error *err)
{
    if (!t->opt.batch_stats)
        return RUNG_OK;
    close_lanes(t);
    t->opt.batch_stats = false;
    t->opt.chunk = 0;
    const rung_status st = chunk_size(t->g, &t->opt, &t->opt.chunk, err);
    return st == RUNG_OK ? open_lanes(t, err) : st;
}

rung_status trainer_freeze_scales(trainer *t, rung_error *err)
{
    if (!t->observers || t->frozen)
        return RUNG_OK;
    t->frozen = true;
    close_lanes(t);
    return open_lanes(t, err);
}

/* --- a chunk ---------------------------------------------------------------------------------- */

/* What one step works on, and what comes of its chunks. */
typedef struct job {
    trainer      *t;
    const batch  *b;
    const int64_t *mixed;
    const float  *share;
    size_t        n; /* samples, of all processes */
    double        loss;
    size_t        correct;
    rung_status   st; /* of the first chunk that failed */
    rung_error    err;
} job;

batch batch_part(const batch *b, size_t first, size_t n, batch_input *inputs)
{
    for (int i = 0; i < b->n_inputs; i++) {
        const tensor *t = &b->inputs[i].t;
        const size_t per = dims_count(t->rank - 1, t->dims + 1);
        inputs[i] = b->inputs[i];
        inputs[i].t.dims[0] = (int64_t)n;
        inputs[i].t.data = (char *)t->data + dtype_bytes(t->type, first * per);
    }
    return (batch){ .n = n, .first = b->first + first, .n_inputs = b->n_inputs, .inputs = inputs,
                    .labels = b->labels ? b->labels + first : NULL };
}

/* The samples behind those of the part are its last, over and over: ranges are then those of the
 * part. Their loss has no gradient. */
static void repeat_last(const batch *part, const tensor *t)
{
    const size_t samples = t->rank > 0 ? (size_t)t->dims[0] : 0;
    const size_t size = samples ? dtype_bytes(t->type, tensor_count(t) / samples) : 0;
    char *data = t->data;
    for (size_t i = part->n; i < samples; i++)
        memcpy(data + i * size, data + (part->n - 1) * size, size);
}

static rung_status forward(const job *j, lane *l, const batch *part, rung_error *err)
{
    trainer *t = j->t;
    rung_status st = RUNG_OK;
    for (int i = 0; i < t->g->n_inputs && st == RUNG_OK; i++) {
        st = batch_feed(part, t->g, i, tape_input(l->t, i), err);
        if (st == RUNG_OK && watched_scales(t))
            repeat_last(part, tape_input(l->t, i));
    }
    if (st == RUNG_OK)
        st = tape_forward(l->t, t->p->data, l->stale, l->state, err);
    l->stale = l->stale && st != RUNG_OK;
    if (st != RUNG_OK || !l->teacher)
        return st;
    st = engine_feed(l->teacher, t->watch.teacher, part, err);
    return st == RUNG_OK ? engine_run(l->teacher, err) : st;
}

static rung_status run_chunk(const job *j, lane *l, size_t first, double *loss, size_t *correct,
                             rung_error *err)
{
    trainer *t = j->t;
    const size_t rest = j->b->n - first, n = rest < t->opt.chunk ? rest : t->opt.chunk;
    batch_input *inputs = mem_alloc((size_t)(j->b->n_inputs + 1) * sizeof *inputs);
    if (!inputs)
        return out_of_memory(1, err);
    const batch part = batch_part(j->b, first, n, inputs);
    const loss_targets targets = { part.labels,
                                   j->mixed ? j->mixed + first : NULL,
                                   j->share ? j->share + first : NULL };
    rung_status st = forward(j, l, &part, err);
    mem_free(inputs);
    if (st != RUNG_OK)
        return st;
    for (int i = 0; i < tape_n_outputs(l->t); i++)
        memset(tape_output_grad(l->t, i), 0, tensor_count(tape_output(l->t, i)) * sizeof(float));
    if ((st = loss_eval(&t->opt.loss, l->out, t->watch.n_outputs, t->watch.n_features, n, j->n,
                        &targets, loss, correct, err)) != RUNG_OK)
        return st;
    memset(l->grad, 0, t->p->total * sizeof *l->grad);
    return tape_backward(l->t, t->p->data, l->grad, err);
}

/* Running statistics are the mean of the chunks', which have the same number of samples. */
static void add_statistics(const job *j, const lane *l)
{
    const params *p = j->t->p;
    const float share = (float)j->t->opt.chunk / (float)j->b->n;
    for (size_t i = 0; i < p->n; i++)
        for (size_t k = 0; p->list[i].kind == PARAM_STATE && k < p->list[i].count; k++)
            j->t->state[p->list[i].first + k] += share * l->state[p->list[i].first + k];
}

static void add(const job *j, const lane *l)
{
    float *restrict to = j->t->grad;
    const float *restrict from = l->grad;
    for (size_t i = 0; i < j->t->p->total; i++)
        to[i] += from[i];
    const float *seen = tape_seen(l->t);
    for (size_t i = 0; seen && i < 2 * j->t->p->n; i++)
        j->t->seen[i] = fmaxf(j->t->seen[i], seen[i]);
    if (l->state)
        add_statistics(j, l);
}

static void run_chunks(job *j)
{
    trainer *t = j->t;
    const size_t chunk = t->opt.chunk, n = (j->b->n + chunk - 1) / chunk;
#pragma omp parallel for ordered schedule(dynamic, 1) num_threads(t->n_lanes) if (t->n_lanes > 1)
    for (size_t k = 0; k < n; k++) {
        lane *l = &t->lanes[t->n_lanes > 1 ? omp_get_thread_num() : 0];
        rung_error err = { "" };
        double loss = 0;
        size_t correct = 0;
        const rung_status st = run_chunk(j, l, k * chunk, &loss, &correct, &err);
#pragma omp ordered
        if (st != RUNG_OK && j->st == RUNG_OK) {
            j->st = st;
            j->err = err;
        } else if (st == RUNG_OK) {
            j->loss += loss;
            j->correct += correct;
            add(j, l);
        }
    }
}

/* --- all processes ---------------------------------------------------------------------------- */

/* How many samples the step has: the mean is over them. */
static rung_status count_samples(job *j, rung_error *err)
{
    double n = (double)j->b->n;
    const rung_status st = ranks_sum(j->t->opt.ranks, &n, 1, err);
    j->n = (size_t)n;
    if (st == RUNG_OK && !j->n)
        return fail(err, RUNG_EARGUMENT, "a batch of no samples");
    return st;
}

static rung_status sum_ranks(job *j, rung_error *err)
{
    trainer *t = j->t;
    ranks *r = t->opt.ranks;
    double sums[] = { j->loss, (double)j->correct };
    rung_status st;
    if ((st = ranks_sum(r, sums, 2, err)) != RUNG_OK ||
        (st = ranks_sum_floats(r, t->grad, t->p->total, err)) != RUNG_OK ||
        (t->seen && (st = ranks_max_floats(r, t->seen, 2 * t->p->n, err)) != RUNG_OK) ||
        (t->opt.batch_stats &&
         (st = ranks_sum_floats(r, t->state, t->p->total, err)) != RUNG_OK))
        return st;
    for (size_t i = 0; t->opt.batch_stats && r && i < t->p->total; i++)
        t->state[i] /= (float)ranks_count(r);
    j->loss = sums[0];
    j->correct = (size_t)sums[1];
    return RUNG_OK;
}

/* --- a step ----------------------------------------------------------------------------------- */

static void keep_statistics(const trainer *t)
{
    for (size_t i = 0; i < t->p->n; i++) {
        const param *a = &t->p->list[i];
        if (a->kind == PARAM_STATE)
            memcpy(t->p->data + a->first, t->state + a->first, a->count * sizeof(float));
    }
}

static rung_status move(trainer *t, const batch *b, const job *j, step_result *out,
                        rung_error *err)
{
    rung_status st = t->opt.dampen > 0 ? dampen(t, t->grad, err) : RUNG_OK;
    memcpy(t->before, t->p->data, t->p->total * sizeof(float));
    if (st != RUNG_OK)
        return st;
    out->rate = optimizer_rate(t->o);
    if (!isfinite(j->loss))
        st = fail(err, RUNG_EMODEL, "step %zu: the loss is not finite", t->o->step + 1);
    else
        st = optimizer_step(t->o, t->p->data, t->grad, &out->norm, err);
    if (st == RUNG_EMODEL)
        blame_layer(t, b, err);
    if (st != RUNG_OK)
        return st;
    keep_scales(t);
    if (watched_scales(t))
        observers_step(t->observers, t->seen, t->p->data, t->o->average);
    if (t->freezer)
        freezer_step(t->freezer, t->p, t->o->average);
    if (t->opt.batch_stats)
        keep_statistics(t);
    for (int i = 0; i < t->n_lanes; i++)
        t->lanes[i].stale = true;
    return RUNG_OK;
}

rung_status trainer_step(trainer *t, const batch *b, const int64_t *mixed, const float *share,
                         step_result *out, rung_error *err)
{
    job j = { .t = t, .b = b, .mixed = mixed, .share = share };
    rung_status st;
    if ((b->n < 1 && !t->opt.ranks) || b->n > t->opt.batch)
        return fail(err, RUNG_EARGUMENT, "a batch of %zu samples: the trainer was made for 1 to "
                    "%zu", b->n, t->opt.batch);
    if (t->opt.batch_stats && (b->n < 1 || b->n % t->opt.chunk))
        return fail(err, RUNG_EARGUMENT, "a batch of %zu samples: with its statistics a multiple "
                    "of %zu is wanted", b->n, t->opt.chunk);
    if ((st = count_samples(&j, err)) != RUNG_OK)
        return st;
    memset(t->grad, 0, t->p->total * sizeof *t->grad);
    memset(t->state, 0, t->p->total * sizeof *t->state);
    for (size_t i = 0; t->seen && i < 2 * t->p->n; i++)
        t->seen[i] = -INFINITY;
    run_chunks(&j);
    if (j.st != RUNG_OK)
        return fail(err, j.st, "step %zu: %s", t->o->step + 1, j.err.message);
    if ((st = sum_ranks(&j, err)) != RUNG_OK)
        return st;
    *out = (step_result){ .loss = j.loss, .n = j.n, .correct = j.correct };
    return move(t, b, &j, out, err);
}

/* --- what came of it -------------------------------------------------------------------------- */

params *trainer_params(trainer *t)
{
    return t->p;
}

optimizer *trainer_optimizer(trainer *t)
{
    return t->o;
}

rung_scales trainer_scales(const trainer *t)
{
    return t->opt.scales;
}

void trainer_state(const trainer *t, int part, void **data, size_t *size)
{
    *data = NULL;
    *size = 0;
    if (part == 0 && t->observers)
        observers_state(t->observers, data, size);
    if (part == 1 && t->freezer)
        freezer_state(t->freezer, data, size);
}

const float *trainer_weights(const trainer *t)
{
    return t->o->average ? t->o->average : t->p->data;
}

size_t trainer_chunk(const trainer *t)
{
    return t->opt.chunk;
}

int trainer_lanes(const trainer *t)
{
    return t->n_lanes;
}

rung_status trainer_graph(const trainer *t, const float *data, bool convert, graph **out,
                          rung_error *err)
{
    const float *const *by_value;
    arena *mem;
    if (!convert || !t->prepared)
        return params_apply(t->p, data, t->g, out, err);
    if (!(mem = arena_new()))
        return out_of_memory(1, err);
    rung_status st = params_by_value(t->p, data, mem, &by_value, err);
    if (st == RUNG_OK)
        st = qat_convert(t->g, by_value, out, err);
    arena_free(mem);
    return st;
}
