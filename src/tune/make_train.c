/* The trials that train: as many epochs as time allows, and on from where a run was killed. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/progress.h"
#include "graph/diagnostic.h"
#include "quant/qat.h"
#include "tune/make.h"

enum { TIMED_STEPS = 3 }; /* behind one that warms up */

/* --- time ------------------------------------------------------------------------------------- */

/* Seconds of a sample. The first step warms up, and counts where it is the only one. */
static rung_status time_steps(trainer *t, loader *l, double *seconds, rung_error *err)
{
    const batch *b = NULL;
    step_result s;
    double began = clock_seconds();
    size_t samples = 0;
    rung_status st;
    for (int n = 0; n <= TIMED_STEPS; n++) {
        if ((st = loader_next(l, &b, err)) != RUNG_OK || !b ||
            (st = trainer_step(t, b, NULL, NULL, &s, err)) != RUNG_OK)
            return st;
        samples += b->n;
        *seconds = (clock_seconds() - began) / (double)samples;
        if (n == 0) {
            began = clock_seconds();
            samples = 0;
        }
    }
    return RUNG_OK;
}

static rung_status sample_seconds(const maker *m, const graph *prepared, const train_options *opt,
                                  double *seconds, rung_error *err)
{
    trainer_options o = opt->trainer;
    const size_t all = dataset_size(m->data);
    trainer *t = NULL;
    loader *l = NULL;
    o.batch = o.batch < all ? o.batch : all;
    o.optimizer.total = TIMED_STEPS + 1;
    rung_status st = trainer_create(prepared, m->g, &o, &t, err);
    if (st == RUNG_OK)
        st = loader_open(m->data, NULL, 0, o.batch, &l, err);
    if (st == RUNG_OK)
        st = time_steps(t, l, seconds, err);
    loader_free(l);
    trainer_free(t);
    return st;
}

/* As many epochs as the time that is left has room for, at most those that are wanted. */
static rung_status fit_epochs(const maker *m, const tune_record *r, const graph *prepared,
                              double began, train_options *opt, rung_error *err)
{
    double left = m->opt->time_budget, sample = 0;
    if (!(left > 0))
        return RUNG_OK;
    const rung_status st = sample_seconds(m, prepared, opt, &sample, err);
    for (trial_kind k = TRIAL_FLOAT; k < TRIAL_KINDS; k++)
        left -= r->trials[k].seconds;
    left -= clock_seconds() - began;
    /* The model and the float one are evaluated before the first epoch and after each. */
    const double evaluation = 2 * r->trials[TRIAL_FLOAT].seconds;
    const double epoch = sample * (double)dataset_size(m->data) + evaluation;
    const double fit = epoch > 0 ? floor((left - evaluation) / epoch) : (double)opt->epochs;
    if (fit < (double)opt->epochs)
        opt->epochs = fit >= 1 ? (size_t)fit : 0;
    return st;
}

/* --- the folder of checkpoints ---------------------------------------------------------------- */

static void remove_run(const char *folder)
{
    char path[STORE_PATH + 32];
    snprintf(path, sizeof path, "%s/checkpoint.bin", folder);
    unlink(path);
    rmdir(folder);
}

static rung_status note_beginning(const maker *m, trial_kind k, size_t epochs, rung_error *err)
{
    stored s = { .state = STORE_BEGUN, .time_budget = m->opt->time_budget };
    s.trial.epochs = epochs;
    return store_write(m->opt->work, k, m->keys[k], &s, err);
}

/* A checkpoint that is damaged or of another run is begun anew. */
static rung_status run_training(const maker *m, const graph *prepared, train_options *opt,
                                const char *folder, graph **out, training_record **record,
                                rung_error *err)
{
    rung_status st = train_run(prepared, m->g, m->data, m->eval, opt, out, NULL, record, err);
    if (opt->resume && (st == RUNG_EFORMAT || st == RUNG_EARGUMENT)) {
        remove_run(folder);
        opt->resume = false;
        st = train_run(prepared, m->g, m->data, m->eval, opt, out, NULL, record, err);
    }
    return st;
}

/* --- training --------------------------------------------------------------------------------- */

/* The seconds of the record are those of all runs, the caller's clock adds this one's. */
static rung_status train(const maker *m, trial_kind k, const graph *prepared, train_options *opt,
                         tune_trial *t, graph **out, rung_error *err)
{
    char folder[STORE_PATH];
    training_record *record = NULL;
    rung_status st = store_path(m->opt->work, k, m->keys[k], "run", folder, err);
    if (st == RUNG_OK)
        st = note_beginning(m, k, opt->epochs, err);
    if (st != RUNG_OK)
        return st;
    const double began = clock_seconds();
    opt->checkpoint = folder;
    st = run_training(m, prepared, opt, folder, out, &record, err);
    if (st != RUNG_OK)
        return st;
    t->epochs = opt->epochs;
    t->seconds = fmax(record->seconds - (clock_seconds() - began), 0);
    training_record_free(record);
    remove_run(folder);
    return RUNG_OK;
}

rung_status make_trained(const maker *m, const tune_record *r, trial_kind k, const plan *p,
                         const stored *begun, tune_trial *t, graph **out, rung_error *err)
{
    const double began = clock_seconds();
    train_options opt = p->train;
    graph *prepared = NULL;
    diagnostics *diag = diagnostics_new();
    rung_status st = diag ? qat_prepare(m->g, m->data, &p->quant, &prepared, diag, err)
                          : fail_memory(err, "a trial", sizeof opt);
    opt.resume = begun->state == STORE_BEGUN && begun->trial.epochs > 0 &&
                 begun->trial.epochs <= opt.epochs;
    if (opt.resume)
        opt.epochs = begun->trial.epochs;
    else if (st == RUNG_OK)
        st = fit_epochs(m, r, prepared, began, &opt, err);
    if (st == RUNG_OK && opt.epochs == 0)
        snprintf(t->note, sizeof t->note, "the time that is left is not enough for one epoch");
    else if (st == RUNG_OK)
        st = train(m, k, prepared, &opt, t, out, err);
    if (st == RUNG_OK && t->epochs && t->epochs < p->train.epochs)
        snprintf(t->note, sizeof t->note, "%zu of %zu epochs: as many as there was time for",
                 t->epochs, p->train.epochs);
    graph_free(prepared);
    diagnostics_free(diag);
    return st;
}
