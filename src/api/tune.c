#include "tune/tune.h"

#include <math.h>
#include <string.h>

#include "api/checks.h"
#include "api/handles.h"
#include "api/options.h"
#include "base/file.h"
#include "base/mem.h"

struct rung_tuning {
    tune_record *r;
};

static rung_status check(const rung_tune_options *o, rung_error *err)
{
    if (!o->work || !*o->work)
        return fail(err, RUNG_EARGUMENT, "rung_tune: options.work is wanted, a folder for trials");
    if (!(o->max_drop >= 0 && o->max_drop <= 100))
        return fail(err, RUNG_EARGUMENT, "a drop of %g points: 0 to 100 are possible", o->max_drop);
    if (!(o->time_budget >= 0 && isfinite(o->time_budget)))
        return fail(err, RUNG_EARGUMENT, "a time of %g seconds: it must not be negative",
                    o->time_budget);
    if (!(o->min_share <= 100))
        return fail(err, RUNG_EARGUMENT, "a share of %g percent: at most 100 is possible",
                    o->min_share);
    if (o->prefer > RUNG_PREFER_SIZE)
        return fail(err, RUNG_EARGUMENT, "prefer %d is not a rung_prefer", (int)o->prefer);
    return RUNG_OK;
}

/* Training learns from the float model, and from labels where there are some. */
static rung_status take_train(const rung_tune_options *o, bool labels, train_options *t,
                              rung_error *err)
{
    rung_train_options own;
    rung_status st = options_copy(&own, sizeof own, o->train, "rung_train_options", err);
    if (st != RUNG_OK)
        return st;
    own.checkpoint = own.metrics = NULL; /* the tune's own, and none */
    own.resume = false;
    return train_options_take(&own, true, labels, true, t, err);
}

static rung_status take(const rung_tune_options *o, bool labels, tune_options *t, rung_error *err)
{
    rung_status st = check(o, err);
    *t = (tune_options){
        .max_drop = o->max_drop, .time_budget = o->time_budget, .no_train = o->no_train,
        .prefer_size = o->prefer == RUNG_PREFER_SIZE, .work = o->work, .model = o->model_title,
        .data = o->data_title, .eval = o->eval_title, .quiet = o->quiet,
        .min_share = o->min_share < 0 ? 0 : (o->min_share > 0 ? o->min_share : 50) / 100,
    };
    if (st == RUNG_OK)
        st = options_copy(&t->quant, sizeof t->quant, o->quant, "rung_quant_options", err);
    if (st == RUNG_OK)
        st = quant_options_check(&t->quant, err);
    if (st == RUNG_OK)
        st = take_train(o, labels, &t->train, err);
    if (st == RUNG_OK && (t->quant.ranks || t->train.trainer.ranks))
        return fail(err, RUNG_EARGUMENT, "rung_tune works in one process: its options have ranks");
    return st;
}

static rung_status run(const rung_model *model, dataset *data, dataset *eval,
                       const tune_options *opt, rung_model **out, tune_record **record,
                       rung_error *err)
{
    graph *made = NULL;
    rung_status st = tune_run(model->g, data, eval, opt, &made, record, err);
    if (st == RUNG_OK && (st = model_wrap(made, out, err)) != RUNG_OK)
        mem_free(*record);
    return st;
}

rung_status rung_tune(const rung_model *model, rung_dataset *data, rung_dataset *eval,
                      const rung_tune_options *options, rung_model **out, rung_tuning **tuning,
                      rung_error *err)
{
    rung_tune_options o;
    tune_options opt;
    rung_status st;
    if (!model || !data || !eval || !out || !tuning)
        return fail(err, RUNG_EARGUMENT,
                    "rung_tune: model, data, eval, out and tuning must not be NULL");
    if ((st = options_copy(&o, sizeof o, options, "rung_tune_options", err)) != RUNG_OK ||
        (st = take(&o, dataset_has_labels(data->d), &opt, err)) != RUNG_OK)
        return st;
    rung_tuning *made = mem_zero(1, sizeof *made);
    if (!made)
        return fail_memory(err, "a record", sizeof *made);
    st = run(model, data->d, eval->d, &opt, out, &made->r, err);
    if (st == RUNG_OK)
        *tuning = made;
    else
        mem_free(made);
    return st;
}

bool rung_tuning_met(const rung_tuning *tuning)
{
    return tuning && tuning->r->met;
}

rung_status rung_tuning_text(const rung_tuning *tuning, bool json, char **text, rung_error *err)
{
    if (!tuning || !text)
        return fail(err, RUNG_EARGUMENT, "rung_tuning_text: tuning and text must not be NULL");
    return (json ? report_tune_json : report_tune_text)(tuning->r, text, err);
}

rung_status rung_tuning_save_html(const rung_tuning *tuning, const char *path, rung_error *err)
{
    char *page = NULL;
    rung_status st;
    if (!tuning || !path)
        return fail(err, RUNG_EARGUMENT, "rung_tuning_save_html: tuning and path must not be NULL");
    st = report_tune_html(tuning->r, &page, err);
    if (st == RUNG_OK)
        st = file_write_whole(path, page, strlen(page), err);
    mem_free(page);
    return st;
}

void rung_tuning_free(rung_tuning *tuning)
{
    if (!tuning)
        return;
    mem_free(tuning->r);
    mem_free(tuning);
}
