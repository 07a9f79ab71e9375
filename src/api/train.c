#include "api/handles.h"

#include <math.h>
#include <string.h>

#include "api/checks.h"
#include "api/options.h"
#include "base/file.h"
#include "base/mem.h"
#include "quant/qat.h"
#include "train/run.h"

struct rung_training {
    training_record *r;
};

struct rung_trainer {
    const graph *g;
    trainer     *t;
};

/* --- both ends -------------------------------------------------------------------------------- */

rung_status rung_convert(const rung_model *prepared, rung_model **out, rung_error *err)
{
    graph *g;
    if (!prepared || !out)
        return fail(err, RUNG_EARGUMENT, "rung_convert: prepared and out must not be NULL");
    const rung_status st = qat_convert(prepared->g, NULL, &g, err);
    return st == RUNG_OK ? model_wrap(g, out, err) : st;
}

bool rung_is_prepared(const rung_model *model)
{
    return model && qat_is_prepared(model->g);
}

/* --- options ---------------------------------------------------------------------------------- */

static float chosen(double v, double otherwise)
{
    return (float)(v < 0 ? 0 : v > 0 ? v : otherwise);
}

static rung_status check_numbers(const rung_train_options *o, rung_error *err)
{
    const double all[] = { o->rate, o->scale_rate, o->momentum, o->weight_decay, o->clip_norm,
                           o->ema, o->warmup, o->step_epochs, o->step_factor, o->cross_entropy,
                           o->distill, o->mse, o->features, o->temperature, o->label_smoothing,
                           o->dampen, o->freeze_oscillating, o->checkpoint_seconds };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (!isfinite(all[i]))
            return fail(err, RUNG_EARGUMENT, "rung_train_options: a number is not finite");
    if (o->optimizer > RUNG_OPTIMIZER_SGD || o->schedule > RUNG_SCHEDULE_CONSTANT ||
        o->scales > RUNG_SCALES_FIXED)
        return fail(err, RUNG_EARGUMENT, "rung_train_options: no such optimizer, schedule or "
                    "scales");
    if (o->rate < 0 || o->momentum >= 1 || o->ema < 0 || o->ema >= 1 || o->label_smoothing < 0 ||
        o->label_smoothing >= 1)
        return fail(err, RUNG_EARGUMENT, "rates must not be negative; momentum, ema and "
                    "label_smoothing are below 1");
    if (o->cross_entropy < 0 || o->distill < 0 || o->mse < 0 || o->features < 0 ||
        o->temperature < 0 || o->clip_norm < 0 || o->dampen < 0 || o->warmup < 0)
        return fail(err, RUNG_EARGUMENT, "weights of losses, the temperature, clip_norm, dampen "
                    "and warmup must not be negative");
    if (o->freeze_oscillating < 0 || o->freeze_oscillating >= 1)
        return fail(err, RUNG_EARGUMENT, "freeze_oscillating is a share of steps, from 0 to below "
                    "1");
    if (o->n_threads < 0 || o->n_features < 0 || (o->n_features && !o->feature_names) ||
        o->batch > 1u << 20 || o->chunk > 1u << 20 || o->epochs > 1u << 20 ||
        o->freeze_scales > 1u << 20)
        return fail(err, RUNG_EARGUMENT, "numbers of threads, samples, epochs and names: one is "
                    "negative or beyond reason, or names are counted but not given");
    if ((o->features > 0) != (o->n_features > 0))
        return fail(err, RUNG_EARGUMENT, "features: a weight and names are wanted together");
    return RUNG_OK;
}

static rung_status set_loss(const rung_train_options *o, bool labels, bool teacher,
                            loss_options *l, rung_error *err)
{
    const bool none = !(o->cross_entropy > 0 || o->distill > 0 || o->mse > 0 || o->features > 0);
    *l = (loss_options){ .cross_entropy = (float)o->cross_entropy,
                         .label_smoothing = (float)o->label_smoothing, .mse = (float)o->mse,
                         .distill = (float)o->distill, .features = (float)o->features,
                         .temperature = chosen(o->temperature, 4) };
    if (none) {
        l->cross_entropy = labels;
        l->distill = l->mse = teacher;
    }
    if (!(l->cross_entropy > 0 || l->distill > 0 || l->mse > 0 || l->features > 0))
        return fail(err, RUNG_EARGUMENT, "there is nothing to learn from: the data has no labels "
                    "and there is no teacher");
    if (l->cross_entropy > 0 && !labels)
        return fail(err, RUNG_EARGUMENT, "cross-entropy wants labels, the data has none");
    if ((l->distill > 0 || l->mse > 0 || l->features > 0) && !teacher)
        return fail(err, RUNG_EARGUMENT, "losses that follow a teacher want one");
    return RUNG_OK;
}

/* Fine-tuning through coarse codes wants a lower rate: chosen on CIFAR-10's ResNet-20 at 4 bits, on
 * training images kept apart (docs/training.md). */
static void set_optimizer(const rung_train_options *o, bool prepared, optimizer_options *p)
{
    const bool adam = o->optimizer == RUNG_OPTIMIZER_ADAMW;
    const double rate = prepared ? adam ? 0.0005 : 0.001 : adam ? 0.001 : 0.01;
    *p = (optimizer_options){
        .kind = adam ? OPTIMIZER_ADAMW : OPTIMIZER_SGD,
        .rate = chosen(o->rate, rate), .scale_rate = chosen(o->scale_rate, 1),
        .momentum = chosen(o->momentum, 0.9), .nesterov = !o->plain_momentum, .beta1 = 0.9f,
        .beta2 = 0.999f, .epsilon = 1e-8f, .weight_decay = chosen(o->weight_decay,
                                                                   adam ? 0.01 : 0.0001),
        .clip_norm = (float)o->clip_norm, .ema = (float)o->ema,
        .schedule = (schedule_kind)o->schedule, .step_factor = chosen(o->step_factor, 0.1),
    };
}

static void set_trainer(const rung_train_options *o, bool prepared, trainer_options *t)
{
    set_optimizer(o, prepared, &t->optimizer);
    t->batch = o->batch ? o->batch : 64;
    t->chunk = o->chunk;
    t->n_threads = o->n_threads;
    t->scales = o->scales;
    t->batch_stats = !prepared && o->batch_epochs >= 0;
    t->dampen = (float)o->dampen;
    t->freeze_oscillating = (float)o->freeze_oscillating;
    t->features = o->feature_names;
    t->n_features = o->n_features;
}

rung_status train_options_take(const rung_train_options *o, bool prepared, bool labels,
                               bool teacher, train_options *r, rung_error *err)
{
    rung_status st;
    preprocess parsed;
    *r = (train_options){
        .epochs = o->epochs ? o->epochs : 10, .warmup = o->warmup, .seed = o->seed,
        .checkpoint = o->checkpoint, .resume = o->resume,
        .checkpoint_seconds = o->checkpoint_seconds, .metrics = o->metrics,
        .eval_batch = o->eval_batch, .quiet = o->quiet,
    };
    if ((st = check_numbers(o, err)) != RUNG_OK ||
        (st = preprocess_parse(o->preprocess, &parsed, err)) != RUNG_OK ||
        (st = augment_parse(o->augment, &r->augment, err)) != RUNG_OK ||
        (st = set_loss(o, labels, teacher, &r->trainer.loss, err)) != RUNG_OK)
        return st;
    set_trainer(o, prepared, &r->trainer);
    r->trainer.ranks = o->ranks;
    r->step_epochs = o->step_epochs > 0 ? o->step_epochs : (double)r->epochs / 3;
    r->freeze_scales = o->freeze_scales;
    r->freeze_statistics = o->batch_epochs > 0 ? (size_t)o->batch_epochs + 1
                                               : r->epochs - r->epochs / 4 + 1;
    return RUNG_OK;
}

/* --- whole runs ------------------------------------------------------------------------------- */

/* The trained graph with what is to be stored in it becomes a model; g is taken over. */
static rung_status hand_out(graph *g, const char *preprocessing, rung_model **out,
                            rung_error *err)
{
    const rung_status st = preprocessing
                               ? graph_set_metadata(g, "rung.preprocess", preprocessing, err)
                               : RUNG_OK;
    if (st == RUNG_OK)
        return model_wrap(g, out, err);
    graph_free(g);
    return st;
}

static rung_status run(const rung_model *model, const rung_model *teacher, dataset *data,
                       dataset *eval, const train_options *opt, const char *preprocessing,
                       rung_model **out, rung_model **trained, training_record **record,
                       rung_error *err)
{
    graph *g = NULL, *before = NULL;
    rung_status st = train_run(model->g, teacher ? teacher->g : NULL, data, eval, opt, &g,
                               trained ? &before : NULL, record, err);
    if (st == RUNG_OK)
        st = hand_out(g, preprocessing, out, err);
    if (st == RUNG_OK && trained &&
        (st = hand_out(before, preprocessing, trained, err)) != RUNG_OK) {
        rung_model_free(*out);
        *out = NULL;
    } else if (st != RUNG_OK) {
        graph_free(before);
    }
    return st;
}

rung_status rung_train_check(const rung_model *model, const rung_model *teacher,
                             const rung_dataset *data, const rung_train_options *options,
                             rung_error *err)
{
    rung_train_options o;
    train_options opt;
    rung_status st;
    if (!model || !data)
        return fail(err, RUNG_EARGUMENT, "rung_train_check: model and data must not be NULL");
    if ((st = options_copy(&o, sizeof o, options, "rung_train_options", err)) != RUNG_OK ||
        (st = train_options_take(&o, rung_is_prepared(model), dataset_has_labels(data->d),
                                 teacher != NULL, &opt, err)) != RUNG_OK)
        return st;
    return train_check(model->g, teacher ? teacher->g : NULL, data->d, &opt, err);
}

rung_status rung_train(const rung_model *model, const rung_model *teacher, rung_dataset *data,
                       rung_dataset *eval, const rung_train_options *options, rung_model **out,
                       rung_model **trained, rung_training **record, rung_error *err)
{
    rung_train_options o;
    train_options opt;
    rung_status st;
    if (!model || !data || !out)
        return fail(err, RUNG_EARGUMENT, "rung_train: model, data and out must not be NULL");
    if ((st = options_copy(&o, sizeof o, options, "rung_train_options", err)) != RUNG_OK ||
        (st = train_options_take(&o, rung_is_prepared(model), dataset_has_labels(data->d),
                                 teacher != NULL, &opt, err)) != RUNG_OK)
        return st;
    rung_training *made = mem_zero(1, sizeof *made);
    if (!made)
        return fail_memory(err, "a record", sizeof *made);
    st = run(model, teacher, data->d, eval ? eval->d : NULL, &opt, o.preprocess, out, trained,
             &made->r, err);
    if (st == RUNG_OK && record) {
        *record = made;
        made = NULL;
    }
    rung_training_free(made);
    return st;
}

rung_status rung_training_text(const rung_training *record, bool json, char **text,
                               rung_error *err)
{
    if (!record || !text)
        return fail(err, RUNG_EARGUMENT, "rung_training_text: record and text must not be NULL");
    return (json ? report_training_json : report_training_text)(record->r, text, err);
}

rung_status rung_training_save_html(const rung_training *record, const char *title,
                                    const char *path, rung_error *err)
{
    char *text = NULL;
    if (!record || !path)
        return fail(err, RUNG_EARGUMENT,
                    "rung_training_save_html: record and path must not be NULL");
    rung_status st = report_training_html(record->r, title ? title : "training", &text, err);
    if (st == RUNG_OK)
        st = file_write_whole(path, text, strlen(text), err);
    mem_free(text);
    return st;
}

bool rung_training_diverged(const rung_training *record)
{
    return record && training_diverged(record->r);
}

void rung_training_free(rung_training *record)
{
    if (!record)
        return;
    training_record_free(record->r);
    mem_free(record);
}

/* --- step by step ----------------------------------------------------------------------------- */

/* Whether the steps have labels is not known yet: they decide. */
rung_status rung_trainer_create(const rung_model *model, const rung_model *teacher,
                                const rung_train_options *options, rung_trainer **out,
                                rung_error *err)
{
    rung_train_options o;
    train_options opt;
    rung_status st;
    if (!model || !out)
        return fail(err, RUNG_EARGUMENT, "rung_trainer_create: model and out must not be NULL");
    if ((st = options_copy(&o, sizeof o, options, "rung_train_options", err)) != RUNG_OK ||
        (st = train_options_take(&o, rung_is_prepared(model), true, teacher != NULL, &opt,
                                 err)) != RUNG_OK)
        return st;
    opt.trainer.optimizer.total = o.steps;
    if (!o.steps)
        opt.trainer.optimizer.schedule = SCHEDULE_CONSTANT;
    rung_trainer *made = mem_zero(1, sizeof *made);
    if (!made)
        return fail_memory(err, "a trainer", sizeof *made);
    made->g = model->g;
    st = trainer_create(model->g, teacher ? teacher->g : NULL, &opt.trainer, &made->t, err);
    if (st == RUNG_OK)
        *out = made;
    else
        mem_free(made);
    return st;
}

rung_status rung_trainer_step(rung_trainer *tr, const rung_tensor *inputs,
                              const int64_t *labels, rung_step_result *result, rung_error *err)
{
    step_result s;
    if (!tr || !inputs || !result)
        return fail(err, RUNG_EARGUMENT,
                    "rung_trainer_step: trainer, inputs and result must not be NULL");
    const graph *g = tr->g;
    batch_input *list = mem_zero((size_t)g->n_inputs + 1, sizeof *list);
    if (!list)
        return fail_memory(err, "a step", sizeof *list);
    batch b = { .n_inputs = g->n_inputs, .inputs = list, .labels = labels };
    rung_status st = RUNG_OK;
    for (int i = 0; i < g->n_inputs && st == RUNG_OK; i++) {
        list[i] = (batch_input){ g->values[g->inputs[i]].name, inputs[i] };
        const int64_t n = inputs[i].rank > 0 ? inputs[i].dims[0] : -1;
        b.n = i == 0 && n > 0 ? (size_t)n : b.n;
        if (n < 1 || (size_t)n != b.n || !inputs[i].data)
            st = fail(err, RUNG_EARGUMENT, "input '%s': data of as many samples as the first is "
                      "wanted", list[i].name);
    }
    if (st == RUNG_OK)
        st = trainer_step(tr->t, &b, NULL, NULL, &s, err);
    mem_free(list);
    if (st == RUNG_OK)
        *result = (rung_step_result){ s.loss, s.correct, s.norm, (double)s.rate };
    return st;
}

rung_status rung_trainer_freeze_scales(rung_trainer *tr, rung_error *err)
{
    if (!tr)
        return fail(err, RUNG_EARGUMENT,
                    "rung_trainer_freeze_scales: trainer must not be NULL");
    return trainer_freeze_scales(tr->t, err);
}

rung_status rung_trainer_save(const rung_trainer *tr, rung_model **out, rung_error *err)
{
    graph *g;
    if (!tr || !out)
        return fail(err, RUNG_EARGUMENT, "rung_trainer_save: trainer and out must not be NULL");
    const rung_status st = trainer_graph(tr->t, trainer_weights(tr->t), false, &g, err);
    return st == RUNG_OK ? model_wrap(g, out, err) : st;
}

void rung_trainer_free(rung_trainer *tr)
{
    if (!tr)
        return;
    trainer_free(tr->t);
    mem_free(tr);
}
