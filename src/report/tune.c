/* A tune as text and as JSON. */
#include "report/tune.h"

#include <math.h>

#include <cjson/cJSON.h>

#include "base/mem.h"
#include "report/text.h"
#include "report/tune_parts.h"

/* --- words ------------------------------------------------------------------------------------ */

static const struct words {
    const char *name, *key;
} words[TRIAL_KINDS] = {
    [TRIAL_FLOAT] = { "float32", "float" },
    [TRIAL_DYNAMIC] = { "dynamic", "dynamic" },
    [TRIAL_WEIGHTS] = { "weight-only", "weights" },
    [TRIAL_STATIC] = { "static", "static" },
    [TRIAL_AUTO] = { "static, auto", "static-auto" },
    [TRIAL_ADAROUND] = { "static, adaround", "static-adaround" },
    [TRIAL_MIXED] = { "static, mixed", "static-mixed" },
    [TRIAL_QAT] = { "QAT", "qat" },
    [TRIAL_QAT_LONG] = { "QAT, long", "qat-long" },
};

const char *trial_name(trial_kind k)
{
    return words[k].name;
}

const char *trial_key(trial_kind k)
{
    return words[k].key;
}

bool trial_trains(trial_kind k)
{
    return k == TRIAL_QAT || k == TRIAL_QAT_LONG;
}

trial_kind tune_least_drop(const tune_record *r, bool trains)
{
    trial_kind best = TRIAL_FLOAT;
    for (trial_kind k = TRIAL_DYNAMIC; k < TRIAL_KINDS; k++) {
        const tune_trial *t = &r->trials[k];
        if (t->state == TRIAL_DONE && t->answer && trial_trains(k) == trains &&
            (best == TRIAL_FLOAT || t->drop < r->trials[best].drop))
            best = k;
    }
    return best;
}

double tune_asked_share(const tune_record *r, trial_kind k)
{
    const tune_trial *t = &r->trials[k];
    if (k == TRIAL_DYNAMIC && (r->weight_bits != 8 || r->act_bits != 8))
        return 0;
    return t->int_share > t->wide_share ? t->int_share - t->wide_share : 0;
}

const char *tune_metric(const tune_record *r)
{
    return r->labelled ? "top-1" : "agreement with float";
}

/* --- the two families ------------------------------------------------------------------------- */

tune_family tune_family_of(const tune_record *r, bool trains)
{
    tune_family f = { .best = tune_least_drop(r, trains) };
    for (trial_kind k = TRIAL_DYNAMIC; k < TRIAL_KINDS; k++)
        if (trial_trains(k) == trains && r->trials[k].state == TRIAL_DONE) {
            f.seconds += r->trials[k].seconds;
            f.epochs += r->trials[k].epochs;
            f.n++;
        }
    return f;
}

/* --- for a person ----------------------------------------------------------------------------- */

static void add_percent(text *t, double v)
{
    if (v >= 0)
        text_add(t, "  %7.2f", v);
    else
        text_add(t, "  %7s", "-");
}

static void add_row(text *t, const tune_record *r, trial_kind k)
{
    const tune_trial *a = &r->trials[k];
    text_add(t, "%-18s", trial_name(k));
    if (a->state != TRIAL_DONE) {
        text_add(t, "  %s: %s\n", a->state == TRIAL_FAILED ? "failed" : "not tried", a->note);
        return;
    }
    add_percent(t, a->top1);
    add_percent(t, a->agreement);
    text_add(t, "  %7.2f  %7.1f  %11zu  %9.4g  %7.2f  %8.1f", a->drop,
             100 * tune_asked_share(r, k), a->bytes, a->ms, a->ratio > 0 ? 1 / a->ratio : 0,
             a->seconds);
    text_add(t, "%s%s%s%s%s\n", k == r->best && k != TRIAL_FLOAT ? "  <- recommended" : "",
             k != TRIAL_FLOAT && !a->answer ? "  to compare with" : "",
             a->kept ? "  kept" : "", a->note[0] ? "  " : "", a->note);
}

static void add_family(text *t, const tune_record *r, bool trains)
{
    const tune_family f = tune_family_of(r, trains);
    text_add(t, "%-6s%s\n", trains ? "QAT" : "PTQ",
             trains ? "fine-tunes weights and scales through the integer arithmetic"
                    : "chooses numbers after training, from samples without labels");
    if (!f.n) {
        text_add(t, "      not tried\n");
        return;
    }
    text_add(t, "      %d trials, %.1f s", f.n, f.seconds);
    if (trains)
        text_add(t, ", %zu epochs of %zu samples", f.epochs, r->samples);
    else
        text_add(t, ", %zu samples", r->calibration);
    if (f.best != TRIAL_FLOAT)
        text_add(t, "; the best (%s) loses %.2f points", trial_name(f.best),
                 r->trials[f.best].drop);
    text_add(t, "\n");
}

rung_status report_tune_text(const tune_record *r, char **out, rung_error *err)
{
    text t = { 0 };
    text_add(&t, "%d-bit weights, %d-bit activations; at most %.2f points of %s may be lost on %zu "
             "samples; prefers %s\n\n", r->weight_bits, r->act_bits, r->max_drop, tune_metric(r),
             r->eval_samples, r->prefer_size ? "size" : "latency");
    text_add(&t, "%-18s  %7s  %7s  %7s  %7s  %11s  %9s  %7s  %8s\n", "trial", "top-1", "agree",
             "drop", "asked %", "bytes", "ms", "x float", "seconds");
    for (trial_kind k = TRIAL_FLOAT; k < TRIAL_KINDS; k++)
        add_row(&t, r, k);
    text_add(&t, "\n");
    text_add(&t, "asked %%: of the multiply-accumulates, in the integers that were asked for\n\n");
    add_family(&t, r, false);
    add_family(&t, r, true);
    text_add(&t, "\n%s: %s\n", r->met ? "recommended" : "not met", r->reason);
    return text_take(&t, out, err);
}

/* --- for programs ----------------------------------------------------------------------------- */

/* NaN and Inf become null. */
static bool add_number(cJSON *o, const char *key, double v)
{
    return isfinite(v) ? cJSON_AddNumberToObject(o, key, v) : cJSON_AddNullToObject(o, key);
}

static bool add_known(cJSON *o, const char *key, double percent)
{
    return add_number(o, key, percent < 0 ? NAN : percent);
}

/* What is no UTF-8 in a message or a name would make the object unreadable. */
static bool add_words(cJSON *o, const char *key, const char *s)
{
    text t = { 0 };
    char *clean = NULL;
    text_add(&t, "%s", s ? s : "");
    if (text_take(&t, &clean, NULL) != RUNG_OK)
        return false;
    const bool good = cJSON_AddStringToObject(o, key, clean);
    mem_free(clean);
    return good;
}

static bool add_figures(cJSON *o, const tune_record *r, trial_kind k)
{
    const tune_trial *a = &r->trials[k];
    return add_known(o, "top1", a->top1) && add_known(o, "agreement", a->agreement) &&
           add_number(o, "loss", a->loss) && add_number(o, "sqnr_db", a->sqnr_db) &&
           add_number(o, "drop", a->drop) && add_number(o, "bytes", (double)a->bytes) &&
           add_number(o, "best_ms", a->ms) && add_number(o, "latency_ratio", a->ratio) &&
           add_number(o, "int_macs_share", a->int_share) &&
           add_number(o, "asked_macs_share", tune_asked_share(r, k)) &&
           add_number(o, "seconds", a->seconds) &&
           add_number(o, "wide_layers", (double)a->wide_layers) &&
           add_number(o, "float_layers", (double)a->float_layers) &&
           add_number(o, "wide_share", a->wide_share) &&
           add_number(o, "float_share", a->float_share) &&
           add_number(o, "epochs", (double)a->epochs);
}

static bool add_trial(cJSON *list, const tune_record *r, trial_kind k)
{
    static const char *const states[] = { "untried", "done", "failed" };
    const tune_trial *a = &r->trials[k];
    cJSON *o = cJSON_CreateObject();
    if (!o || !cJSON_AddItemToArray(list, o))
        return false;
    return cJSON_AddStringToObject(o, "trial", trial_key(k)) &&
           cJSON_AddStringToObject(o, "state", states[a->state]) &&
           cJSON_AddBoolToObject(o, "answer", a->answer) &&
           cJSON_AddBoolToObject(o, "kept", a->kept) && add_words(o, "note", a->note) &&
           (a->state != TRIAL_DONE || add_figures(o, r, k));
}

static bool add_family_object(cJSON *root, const tune_record *r, bool trains)
{
    const tune_family f = tune_family_of(r, trains);
    cJSON *o = cJSON_AddObjectToObject(root, trains ? "qat" : "ptq");
    const tune_trial *best = &r->trials[f.best];
    return o && add_number(o, "trials", f.n) && add_number(o, "seconds", f.seconds) &&
           add_number(o, "epochs", (double)f.epochs) &&
           (f.best == TRIAL_FLOAT ? cJSON_AddNullToObject(o, "best")
                                  : cJSON_AddStringToObject(o, "best", trial_key(f.best))) &&
           add_number(o, "drop", f.best == TRIAL_FLOAT ? NAN : best->drop);
}

static bool add_all(cJSON *root, const tune_record *r)
{
    if (!root || !cJSON_AddBoolToObject(root, "met", r->met) ||
        !(r->best == TRIAL_FLOAT ? cJSON_AddNullToObject(root, "best")
                                 : cJSON_AddStringToObject(root, "best", trial_key(r->best))) ||
        !add_words(root, "reason", r->reason) ||
        !cJSON_AddStringToObject(root, "metric", r->labelled ? "top1" : "agreement") ||
        !add_number(root, "max_drop", r->max_drop) ||
        !add_number(root, "time_budget", r->time_budget > 0 ? r->time_budget : NAN) ||
        !cJSON_AddStringToObject(root, "prefer", r->prefer_size ? "size" : "latency") ||
        !add_number(root, "min_share", r->min_share) ||
        !add_number(root, "weight_bits", r->weight_bits) ||
        !add_number(root, "act_bits", r->act_bits) ||
        !add_number(root, "matrix_share", r->matrix_share) ||
        !add_number(root, "samples", (double)r->samples) ||
        !add_number(root, "calibration", (double)r->calibration) ||
        !add_number(root, "eval_samples", (double)r->eval_samples) ||
        !add_number(root, "threads", r->threads) || !add_number(root, "seconds", r->seconds) ||
        !add_family_object(root, r, false) || !add_family_object(root, r, true))
        return false;
    cJSON *list = cJSON_AddArrayToObject(root, "trials");
    bool good = list;
    for (trial_kind k = TRIAL_FLOAT; k < TRIAL_KINDS && good; k++)
        good = add_trial(list, r, k);
    return good;
}

rung_status report_tune_json(const tune_record *r, char **out, rung_error *err)
{
    text t = { 0 };
    cJSON *root = cJSON_CreateObject();
    char *printed = add_all(root, r) ? cJSON_PrintUnformatted(root) : NULL;
    text_add(&t, "%s\n", printed ? printed : "");
    t.failed = t.failed || !printed;
    cJSON_free(printed);
    cJSON_Delete(root);
    return text_take(&t, out, err);
}
