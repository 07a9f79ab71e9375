#include "tune/tune.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "measure/measure.h"
#include "measure/scores.h"
#include "quant/qconfig.h"
#include "tune/key.h"
#include "tune/make.h"
#include "tune/policy.h"

/* --- facts of the model ----------------------------------------------------------------------- */

static double share_of_matrices(const engine *e)
{
    int64_t all = 0, products = 0;
    for (size_t i = 0; i < engine_n_steps(e); i++) {
        const engine_step_info s = engine_step(e, i);
        all += s.macs;
        if (strcmp(s.op_type, "MatMul") == 0 || strcmp(s.op_type, "Gemm") == 0)
            products += s.macs;
    }
    return all > 0 ? (double)products / (double)all : 0;
}

static rung_status look_at(maker *m, tune_record *r, rung_error *err)
{
    const size_t first = 0;
    engine *e = NULL;
    rung_status st = loader_open(m->eval, &first, 1, 1, &m->l, err);
    if (st == RUNG_OK && (st = loader_next(m->l, &m->sample, err)) == RUNG_OK)
        st = engine_for_batch(m->g, m->sample, m->opt->quant.n_threads, NULL, &e, err);
    if (st != RUNG_OK)
        return st;
    r->threads = engine_threads(e);
    r->matrix_share = share_of_matrices(e);
    if (engine_n_outputs(e) < 1 || !is_scores(engine_output(e, 0)))
        st = fail(err, RUNG_EARGUMENT, "a drop of accuracy is known of models whose first output "
                  "has scores of classes; for others use 'rung quantize' and 'rung compare'");
    engine_free(e);
    return st;
}

/* The fewest bits that a layer with weights is to have, by options and qconfig. */
static rung_status find_bits(const graph *g, const rung_quant_options *o, tune_record *r,
                             rung_error *err)
{
    qconfig *c = NULL;
    const rung_status st = qconfig_load(o->qconfig, &c, err);
    r->weight_bits = r->act_bits = 8;
    for (size_t i = 0; st == RUNG_OK && i < g->n_nodes; i++) {
        const node *n = &g->nodes[i];
        const qsubject subject = { .makers = { n } };
        if (n->dead || !n->op || n->op->quant.kind != QUANT_COMPUTE || !n->op->quant.weight)
            continue;
        const qsettings s = qconfig_resolve(c, o, &subject);
        if (s.exclude)
            continue;
        r->weight_bits = s.weight_bits < r->weight_bits ? s.weight_bits : r->weight_bits;
        r->act_bits = s.act_bits < r->act_bits ? s.act_bits : r->act_bits;
    }
    qconfig_free(c);
    return st;
}

/* --- the run ---------------------------------------------------------------------------------- */

static tune_record *new_record(const maker *m)
{
    const tune_options *o = m->opt;
    tune_record *r = mem_zero(1, sizeof *r);
    if (!r)
        return NULL;
    *r = (tune_record){
        .max_drop = o->max_drop, .time_budget = o->time_budget, .prefer_size = o->prefer_size,
        .no_train = o->no_train, .min_share = o->min_share,
        .samples = dataset_size(m->data), .eval_samples = dataset_size(m->eval),
    };
    snprintf(r->model, sizeof r->model, "%s", o->model ? o->model : "");
    snprintf(r->data, sizeof r->data, "%s", o->data ? o->data : "");
    snprintf(r->eval, sizeof r->eval, "%s", o->eval ? o->eval : "");
    const size_t wanted = o->quant.samples;
    r->calibration = wanted < r->samples ? wanted : r->samples;
    for (trial_kind k = TRIAL_FLOAT; k < TRIAL_KINDS; k++)
        r->trials[k].top1 = r->trials[k].agreement = -1;
    return r;
}

static rung_status run(maker *m, tune_record *r, graph **out, rung_error *err)
{
    rung_status st = store_open(m->opt->work, err);
    m->t = st == RUNG_OK ? mem_zero(1, sizeof *m->t) : NULL;
    if (st == RUNG_OK && !m->t)
        st = fail_memory(err, "run times", sizeof *m->t);
    if (st != RUNG_OK ||
        (st = key_begin(m->g, m->data, m->eval, m->opt, &m->key, &m->float_bytes, err)) !=
            RUNG_OK ||
        (st = find_bits(m->g, &m->opt->quant, r, err)) != RUNG_OK ||
        (st = look_at(m, r, err)) != RUNG_OK ||
        (!m->opt->no_train &&
         (st = train_check(m->g, m->g, m->data, &m->opt->train, err)) != RUNG_OK) ||
        (st = policy_run(r, make_trial, m, err)) != RUNG_OK)
        return st;
    return store_load(m->opt->work, r->best, m->keys[r->best], out, err);
}

rung_status tune_run(const graph *g, dataset *data, dataset *eval, const tune_options *opt,
                     graph **out, tune_record **record, rung_error *err)
{
    tune_options own = *opt;
    maker m = { .g = g, .data = data, .eval = eval, .opt = &own };
    if (!own.quant.samples)
        own.quant.samples = TUNE_CALIBRATION;
    tune_record *r = new_record(&m);
    rung_status st = r ? run(&m, r, out, err) : fail_memory(err, "a record", sizeof *r);
    if (st == RUNG_OK) {
        *record = r;
        r = NULL;
    }
    loader_free(m.l);
    mem_free(m.t);
    mem_free(r);
    return st;
}
