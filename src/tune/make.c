#include "tune/make.h"

#include <stdio.h>

#include "base/progress.h"
#include "graph/diagnostic.h"
#include "measure/measure.h"
#include "quant/quant.h"
#include "tune/key.h"

#define LATENCY_SECONDS 0.5 /* of a trial beside the float model, in turns */

/* --- plans ------------------------------------------------------------------------------------ */

static unsigned methods_of(trial_kind k)
{
    switch (k) {
    case TRIAL_STATIC: return RUNG_METHOD_NONE;
    case TRIAL_ADAROUND:
        return RUNG_METHOD_EQUALIZE | RUNG_METHOD_BIAS | RUNG_METHOD_CLIP | RUNG_METHOD_ADAROUND;
    default: return RUNG_METHOD_AUTO;
    }
}

/* Of the static trials up to `last`, the one that loses least: its methods. */
static unsigned best_methods(const tune_record *r, trial_kind last)
{
    trial_kind best = TRIAL_STATIC;
    for (trial_kind k = TRIAL_STATIC; k <= last; k++)
        if (r->trials[k].state == TRIAL_DONE && (r->trials[best].state != TRIAL_DONE ||
                                                 r->trials[k].drop < r->trials[best].drop))
            best = k;
    return methods_of(best);
}

/* Training begins from the better of the cheap ones: learned rounding is learned anew there. */
static plan plan_of(const maker *m, const tune_record *r, trial_kind k)
{
    plan p = { .quant = m->opt->quant, .train = m->opt->train };
    p.quant.methods = k == TRIAL_MIXED     ? best_methods(r, TRIAL_ADAROUND)
                      : trial_trains(k)    ? best_methods(r, TRIAL_AUTO)
                                           : methods_of(k);
    p.quant.quiet = p.train.quiet = m->opt->quiet;
    if (k == TRIAL_DYNAMIC)
        p.quant.weight_bits = 0;
    if (k == TRIAL_WEIGHTS)
        p.quant.per_tensor = false;
    if (k == TRIAL_QAT_LONG) {
        p.train.epochs *= LONG_TRAINING;
        p.train.step_epochs *= LONG_TRAINING;
    }
    return p;
}

static uint64_t key_of(const maker *m, trial_kind k, const plan *p)
{
    const uint64_t key = key_quant(key_number(m->key, (double)k), &p->quant);
    if (trial_trains(k))
        return key_train(key, &p->train);
    return k == TRIAL_MIXED ? key_number(key, m->opt->max_drop) : key;
}

/* --- models ----------------------------------------------------------------------------------- */

static rung_status make_mixed(const maker *m, const plan *p, tune_trial *t, graph **out,
                              diagnostics *diag, rung_error *err)
{
    const mixed_wish wish = { .eval = m->eval, .max_drop = m->opt->max_drop };
    mixed_record *record = NULL;
    const rung_status st = quantize_mixed(m->g, m->data, &p->quant, &wish, out, &record, diag, err);
    if (st == RUNG_OK)
        t->float_layers = mixed_count(record, LEVEL_FLOAT, &t->float_share);
    if (st == RUNG_OK)
        t->wide_layers = mixed_count(record, LEVEL_WIDE, &t->wide_share);
    mixed_record_free(record);
    return st;
}

static rung_status make_quantized(const maker *m, trial_kind k, const plan *p, tune_trial *t,
                                  graph **out, rung_error *err)
{
    diagnostics *diag = diagnostics_new();
    rung_status st;
    if (!diag)
        return fail_memory(err, "a trial", sizeof *p);
    switch (k) {
    case TRIAL_DYNAMIC: st = quantize_dynamic(m->g, m->data, &p->quant, out, diag, err); break;
    case TRIAL_WEIGHTS: st = quantize_weights(m->g, m->data, &p->quant, out, diag, err); break;
    case TRIAL_MIXED: st = make_mixed(m, p, t, out, diag, err); break;
    default: st = quantize_static(m->g, m->data, &p->quant, out, diag, err);
    }
    diagnostics_free(diag);
    return st;
}

/* --- figures ---------------------------------------------------------------------------------- */

static rung_status measure_accuracy(const maker *m, const graph *q, tune_trial *t, rung_error *err)
{
    const rung_eval_options opt = { .size = sizeof opt, .n_threads = m->opt->quant.n_threads,
                                    .quiet = true };
    rung_eval_result result;
    const rung_status st = measure_eval(q, q == m->g ? NULL : m->g, m->eval, &opt, &result, NULL,
                                        err);
    if (st != RUNG_OK)
        return st;
    t->top1 = result.top1;
    t->agreement = q == m->g ? 100 : result.agreement;
    t->loss = result.loss;
    t->sqnr_db = result.sqnr_db;
    return RUNG_OK;
}

/* The float model beside itself has the ratio 1. */
static rung_status measure_latency(const maker *m, const graph *q, tune_trial *t, rung_error *err)
{
    const graph *const both[] = { q, m->g };
    const bool alone = q == m->g;
    const rung_status st = turns_measure(both, alone ? 1 : 2, m->sample, LATENCY_SECONDS,
                                         m->opt->quant.n_threads, m->t, err);
    if (st != RUNG_OK)
        return st;
    t->ms = turns_ms(m->t, 0, 0);
    const double beside = alone ? t->ms : turns_ms(m->t, 1, 0);
    t->ratio = beside > 0 ? t->ms / beside : 1;
    return RUNG_OK;
}

static rung_status measure_share(const maker *m, const graph *q, tune_trial *t, rung_error *err)
{
    engine *e = NULL;
    const rung_status st = engine_for_batch(q, m->sample, m->opt->quant.n_threads, NULL, &e, err);
    if (st == RUNG_OK && engine_macs(e) > 0)
        t->int_share = (double)engine_int_macs(e) / (double)engine_macs(e);
    engine_free(e);
    return st;
}

static rung_status measure(const maker *m, const graph *q, tune_trial *t, rung_error *err)
{
    rung_status st = measure_accuracy(m, q, t, err);
    if (st == RUNG_OK)
        st = measure_share(m, q, t, err);
    return st == RUNG_OK ? measure_latency(m, q, t, err) : st;
}

/* --- a trial ---------------------------------------------------------------------------------- */

/* A training that was cut short for want of time does not stand for one with more of it. */
static bool is_kept(const maker *m, const plan *p, trial_kind k, const stored *s)
{
    const double now = m->opt->time_budget;
    if (s->state != STORE_DONE)
        return false;
    return !trial_trains(k) || s->trial.epochs == p->train.epochs ||
           (now > 0 && s->time_budget > 0 && now <= s->time_budget);
}

static rung_status make_model(const maker *m, const tune_record *r, trial_kind k, const plan *p,
                              const stored *begun, tune_trial *t, graph **q, rung_error *err)
{
    const char *pre = m->opt->quant.preprocess;
    const rung_status st = trial_trains(k) ? make_trained(m, r, k, p, begun, t, q, err)
                                           : make_quantized(m, k, p, t, q, err);
    return st == RUNG_OK && *q && pre ? graph_set_metadata(*q, "rung.preprocess", pre, err) : st;
}

static rung_status make_new(maker *m, const tune_record *r, trial_kind k, const plan *p,
                            const stored *begun, tune_trial *t, rung_error *err)
{
    const double began = clock_seconds();
    graph *q = NULL;
    stored now = { .state = STORE_DONE, .time_budget = m->opt->time_budget };
    rung_status st = make_model(m, r, k, p, begun, t, &q, err);
    t->seconds += clock_seconds() - began;
    if (st != RUNG_OK || !q)
        goto done;
    const double made = clock_seconds();
    if ((st = store_model(m->opt->work, k, m->keys[k], q, &t->bytes, err)) != RUNG_OK ||
        (st = measure(m, q, t, err)) != RUNG_OK)
        goto done;
    t->state = TRIAL_DONE;
    t->seconds += clock_seconds() - made;
    now.trial = *t;
    st = store_write(m->opt->work, k, m->keys[k], &now, err);
done:
    graph_free(q);
    return st;
}

static rung_status make_float(maker *m, tune_trial *t, rung_error *err)
{
    const double began = clock_seconds();
    const rung_status st = measure(m, m->g, t, err);
    t->bytes = m->float_bytes;
    t->state = TRIAL_DONE;
    t->seconds = clock_seconds() - began;
    return st;
}

rung_status make_trial(void *ctx, tune_record *r, trial_kind k, rung_error *err)
{
    maker *m = ctx;
    tune_trial *t = &r->trials[k];
    stored s;
    if (!m->opt->quiet)
        fprintf(stderr, "trial: %s\n", trial_name(k));
    if (k == TRIAL_FLOAT)
        return make_float(m, t, err);
    const plan p = plan_of(m, r, k);
    m->keys[k] = key_of(m, k, &p);
    store_read(m->opt->work, k, m->keys[k], &s);
    if (!is_kept(m, &p, k, &s))
        return make_new(m, r, k, &p, &s, t, err);
    *t = s.trial;
    t->kept = true;
    return RUNG_OK;
}
