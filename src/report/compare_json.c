/* A comparison as one JSON object. */
#include <math.h>

#include <cjson/cJSON.h>

#include "base/mem.h"
#include "measure/scores.h"
#include "report/compare.h"

enum { N_BINS = 96, N_CHANGES = 50 };

/* What cJSON is given; `failed` where memory ran out. */
typedef struct json {
    const comparison *c;
    bool              failed;
} json;

static cJSON *checked(json *j, cJSON *item)
{
    j->failed = j->failed || !item;
    return item;
}

/* NaN and Inf become null. */
static void add_number(json *j, cJSON *o, const char *key, double v)
{
    checked(j, isfinite(v) ? cJSON_AddNumberToObject(o, key, v) : cJSON_AddNullToObject(o, key));
}

/* Percentages that cannot be said are negative. */
static void add_percent(json *j, cJSON *o, const char *key, double v)
{
    add_number(j, o, key, v < 0 ? NAN : v);
}

static void add_text(json *j, cJSON *o, const char *key, text *t)
{
    char *s = NULL;
    if (text_take(t, &s, NULL) != RUNG_OK) {
        j->failed = true;
        return;
    }
    checked(j, cJSON_AddStringToObject(o, key, s));
    mem_free(s);
}

static void add_name(json *j, cJSON *o, const char *key, const char *name)
{
    text t = { 0 };
    text_add(&t, "%s", name);
    add_text(j, o, key, &t); /* valid UTF-8 now */
}

static cJSON *add_object(json *j, cJSON *list)
{
    cJSON *o = checked(j, cJSON_CreateObject());
    cJSON_AddItemToArray(list, o);
    return o;
}

static void add_numbers(json *j, cJSON *o, const char *key, const double *v, int n)
{
    cJSON *list = checked(j, cJSON_CreateDoubleArray(v, n));
    cJSON_AddItemToObject(o, key, list);
}

static void add_model(json *j, cJSON *root, const char *key, const model_record *m)
{
    cJSON *o = checked(j, cJSON_AddObjectToObject(root, key));
    add_name(j, o, "file", m->title);
    add_number(j, o, "file_bytes", m->file_bytes ? (double)m->file_bytes : NAN);
    add_number(j, o, "constant_bytes", (double)m->constant_bytes);
    add_number(j, o, "median_ms", m->median_ms);
    add_number(j, o, "p10_ms", m->p10_ms);
    add_number(j, o, "p90_ms", m->p90_ms);
    add_percent(j, o, "top1", m->top1);
    add_percent(j, o, "top5", m->top5);
}

static void add_histogram(json *j, cJSON *o, const tensor_record *t)
{
    double counts[N_BINS];
    const bool any = t->lo < t->hi;
    if (any)
        spread_fold(t->values, t->lo, t->hi, N_BINS, counts);
    for (int i = 0; any && i < N_BINS; i++)
        counts[i] = nearbyint(counts[i] * 100) / 100; /* bins are split in proportion */
    add_numbers(j, o, "histogram", counts, any ? N_BINS : 0);
}

static void add_causes(json *j, cJSON *o, const tensor_record *t)
{
    const causes k = tensor_causes(j->c, t);
    cJSON *list = checked(j, cJSON_AddObjectToObject(o, "causes_db"));
    add_number(j, list, "clipping", decibels(1, k.clipping));
    add_number(j, list, "rounding", decibels(1, k.rounding));
    add_number(j, list, "weights", decibels(1, k.weights));
    add_number(j, list, "inputs", decibels(1, k.inputs));
}

/* What the layer alone does to the network's output; null where that was not measured. */
static void add_effect(json *j, cJSON *o, const tensor_record *t)
{
    const bool timed = t->effect.noise != NULL;
    const double all = (double)j->c->macs;
    add_number(j, o, "output_db", effect_db(j->c, t));
    add_percent(j, o, "output_agreement", effect_agreement(j->c, t));
    add_percent(j, o, "output_top1", effect_top1(j->c, t));
    add_number(j, o, "macs_share", timed && all > 0 ? (double)t->macs / all : NAN);
    add_number(j, o, "float_ms", timed ? t->float_ms : NAN);
    add_number(j, o, "int8_ms", timed ? t->int8_ms : NAN);
}

static void add_tensor(json *j, cJSON *list, const tensor_record *t)
{
    cJSON *o = add_object(j, list);
    const bool seen = t->count > 0;
    add_name(j, o, "name", t->name);
    add_name(j, o, "node", t->node);
    add_name(j, o, "op", t->op_type);
    add_number(j, o, "sqnr_db", decibels(t->signal, t->noise));
    add_number(j, o, "own_db", decibels(t->signal, t->own_noise));
    add_number(j, o, "inputs_db", tensor_input_db(j->c, t));
    add_number(j, o, "codes_db", decibels(t->signal, t->round_noise + t->clip_noise));
    add_number(j, o, "clipped", percent_clipped(t));
    add_number(j, o, "rescaled_channels", (double)t->n_rescaled);
    add_number(j, o, "min", seen ? t->lo : NAN);
    add_number(j, o, "max", seen ? t->hi : NAN);
    add_number(j, o, "clip_min", t->clip_lo);
    add_number(j, o, "clip_max", t->clip_hi);
    add_number(j, o, "scale", t->scale);
    add_number(j, o, "zero", t->zero);
    cJSON *inputs = checked(j, cJSON_AddArrayToObject(o, "inputs"));
    for (int i = 0; i < t->n_inputs; i++)
        cJSON_AddItemToArray(inputs, checked(j, cJSON_CreateNumber(t->inputs[i])));
    add_number(j, o, "weights", t->weights < 0 ? NAN : t->weights);
    add_causes(j, o, t);
    add_effect(j, o, t);
    add_histogram(j, o, t);
}

static void add_weights(json *j, cJSON *list, const weight_record *w)
{
    cJSON *o = add_object(j, list);
    add_name(j, o, "name", w->name);
    add_name(j, o, "node", w->node);
    add_name(j, o, "op", w->op_type);
    checked(j, cJSON_AddBoolToObject(o, "per_channel", w->per_channel));
    add_number(j, o, "channels", (double)w->channels);
    add_number(j, o, "coarse_channels", (double)w->n_coarse);
    add_number(j, o, "sqnr_db", w->known ? decibels(w->signal, w->noise) : NAN);
    cJSON *max = checked(j, cJSON_AddArrayToObject(o, "max"));
    cJSON *codes = checked(j, cJSON_AddArrayToObject(o, "max_code"));
    for (size_t i = 0; i < w->channels; i++) {
        cJSON_AddItemToArray(max, checked(j, cJSON_CreateNumber(w->max[i])));
        cJSON_AddItemToArray(codes, checked(j, cJSON_CreateNumber(w->max_code[i])));
    }
}

static void add_worst(json *j, cJSON *root)
{
    size_t worst[N_WORST];
    const size_t n = comparison_worst(j->c, N_WORST, worst);
    cJSON *list = checked(j, cJSON_AddArrayToObject(root, "worst"));
    for (size_t i = 0; i < n; i++) {
        text advice = { 0 };
        cJSON *o = add_object(j, list);
        add_number(j, o, "tensor", (double)worst[i]);
        tensor_advice(&advice, j->c, &j->c->tensors[worst[i]]);
        add_text(j, o, "advice", &advice);
    }
}

static void add_decisions(json *j, cJSON *root)
{
    change changes[N_CHANGES];
    const size_t n = top_changes(j->c, changes, N_CHANGES);
    cJSON *list = checked(j, cJSON_AddArrayToObject(root, "changes"));
    for (size_t i = 0; i < n; i++) {
        cJSON *o = add_object(j, list);
        add_number(j, o, "float", (double)changes[i].from);
        add_number(j, o, "int8", (double)changes[i].to);
        add_number(j, o, "samples", (double)changes[i].count);
        add_number(j, o, "of", (double)decided(j->c, changes[i].from));
    }
}

static void add_totals(json *j, cJSON *root)
{
    const comparison *c = j->c;
    add_model(j, root, "float", &c->reference);
    add_model(j, root, "int8", &c->model);
    add_name(j, root, "data", c->data_title);
    add_number(j, root, "samples", (double)c->samples);
    add_number(j, root, "sensitivity_samples", (double)c->effect_samples);
    add_number(j, root, "speedup", c->speedup);
    add_number(j, root, "threads", c->threads);
    add_percent(j, root, "agreement", c->agreement);
    add_number(j, root, "sqnr_db", output_db(c));
    cJSON *outputs = checked(j, cJSON_AddArrayToObject(root, "outputs"));
    for (int i = 0; i < c->n_outputs; i++) {
        cJSON *o = add_object(j, outputs);
        add_name(j, o, "name", c->outputs[i].name);
        add_number(j, o, "sqnr_db", decibels(c->outputs[i].signal, c->outputs[i].noise));
    }
}

rung_status report_compare_json(const comparison *c, char **out, rung_error *err)
{
    json j = { .c = c };
    text t = { 0 };
    cJSON *root = checked(&j, cJSON_CreateObject());
    add_totals(&j, root);
    add_worst(&j, root);
    cJSON *tensors = checked(&j, cJSON_AddArrayToObject(root, "tensors"));
    for (size_t i = 0; i < c->n_tensors; i++)
        add_tensor(&j, tensors, &c->tensors[i]);
    add_number(&j, root, "unmatched", (double)c->n_unmatched);
    cJSON *weights = checked(&j, cJSON_AddArrayToObject(root, "weights"));
    for (size_t i = 0; i < c->n_weights; i++)
        add_weights(&j, weights, &c->weights[i]);
    add_decisions(&j, root);
    char *printed = j.failed ? NULL : cJSON_PrintUnformatted(root);
    text_add(&t, "%s\n", printed ? printed : "");
    t.failed = t.failed || !printed;
    cJSON_free(printed);
    cJSON_Delete(root);
    return text_take(&t, out, err);
}
