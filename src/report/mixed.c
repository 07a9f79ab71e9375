#include "report/mixed.h"

#include <math.h>

#include <cjson/cJSON.h>

#include "base/mem.h"
#include "measure/scores.h"
#include "report/compare.h"

static const char *metric(const mixed_record *m)
{
    return m->labelled ? "top-1" : "agreement with float";
}

static double share_of(const mixed_record *m, const mixed_layer *l)
{
    return m->macs > 0 ? (double)l->macs / (double)m->macs : 0;
}

static double alone_db(const mixed_layer *l)
{
    return isfinite(l->effect) ? decibels(1, l->effect) : NAN;
}

static const char *level_name(level l)
{
    return l == LEVEL_FLOAT ? "float" : l == LEVEL_WIDE ? "16-bit" : "int8";
}

/* --- for a person ----------------------------------------------------------------------------- */

static void add_totals(text *t, const mixed_record *m)
{
    double share, wide_share;
    const size_t n = mixed_count(m, LEVEL_FLOAT, &share);
    const size_t n_wide = mixed_count(m, LEVEL_WIDE, &wide_share);
    text_add(t, "%-11s%zu of %zu layers stay float: %.2f %% of the multiply-accumulates\n", "mixed",
             n, m->n_layers, 100 * share);
    if (n_wide)
        text_add(t, "%-11s%zu have activations of 16 bits: %.2f %%\n", "", n_wide,
                 100 * wide_share);
    if (m->budgeted) {
        text_add(t, "%-11s%.2f points of %s, at most %.2f asked for; %.2f before the search",
                 "drop", m->drop, metric(m), m->max_drop, m->int8_drop);
        if (m->labelled)
            text_add(t, "; float has %.2f %%", m->float_top1);
        text_add(t, "\n%-11s%zu models on %zu samples\n", "evaluated", m->evaluations, m->samples);
    }
    text_add(t, "%-11s%.4g ms, %.3f times that of all layers in int8 (%.4g ms); float %.4g ms "
             "(%d threads, in turns)\n", "latency", m->ms, m->slowdown, m->int8_ms, m->float_ms,
             m->threads);
}

static void add_layer(text *t, const mixed_record *m, const mixed_layer *l)
{
    text_add(t, "  %-9s%s: %.2f %% of the multiply-accumulates", level_name(l->level), l->label,
             100 * share_of(m, l));
    if (isfinite(l->effect)) {
        text_add(t, ", alone in int8 ");
        text_add_db(t, alone_db(l));
    }
    text_add(t, ", %.4g ms in int8 and %.4g ms in float%s\n", l->int8_ms, l->float_ms,
             l->slow ? " (--fastest)" : "");
}

rung_status report_mixed_text(const mixed_record *m, char **out, rung_error *err)
{
    text t = { 0 };
    add_totals(&t, m);
    for (size_t i = 0; i < m->n_layers; i++)
        if (m->layers[i].level != LEVEL_INT8)
            add_layer(&t, m, &m->layers[i]);
    return text_take(&t, out, err);
}

/* --- for programs ----------------------------------------------------------------------------- */

/* NaN and Inf become null. */
static bool add_number(cJSON *o, const char *key, double v)
{
    return isfinite(v) ? cJSON_AddNumberToObject(o, key, v) : cJSON_AddNullToObject(o, key);
}

/* Percentages that cannot be said are negative. */
static bool add_percent(cJSON *o, const char *key, double v)
{
    return add_number(o, key, v < 0 ? NAN : v);
}

static bool add_name(cJSON *o, const char *key, const char *name)
{
    text t = { 0 };
    char *s = NULL;
    text_add(&t, "%s", name);
    if (text_take(&t, &s, NULL) != RUNG_OK) /* valid UTF-8 now */
        return false;
    const bool good = cJSON_AddStringToObject(o, key, s);
    mem_free(s);
    return good;
}

static bool add_layer_object(cJSON *list, const mixed_record *m, const mixed_layer *l)
{
    cJSON *o = cJSON_CreateObject();
    if (!o || !cJSON_AddItemToArray(list, o))
        return false;
    return add_name(o, "node", l->label) &&
           cJSON_AddStringToObject(o, "level", level_name(l->level)) &&
           cJSON_AddBoolToObject(o, "slow", l->slow) &&
           add_number(o, "macs_share", share_of(m, l)) && add_number(o, "alone_db", alone_db(l)) &&
           add_percent(o, "alone_top1", l->top1) &&
           add_percent(o, "alone_agreement", l->agreement) &&
           add_number(o, "int8_ms", l->int8_ms) && add_number(o, "float_ms", l->float_ms);
}

static bool add_budget(cJSON *root, const mixed_record *m)
{
    return cJSON_AddBoolToObject(root, "met", m->met) &&
           cJSON_AddStringToObject(root, "metric", m->labelled ? "top1" : "agreement") &&
           add_number(root, "max_drop", m->max_drop) && add_number(root, "drop", m->drop) &&
           add_number(root, "int8_drop", m->int8_drop) &&
           add_percent(root, "float_top1", m->float_top1) &&
           add_number(root, "samples", (double)m->samples) &&
           add_number(root, "evaluations", (double)m->evaluations);
}

static bool add_all(cJSON *root, const mixed_record *m)
{
    double share, wide_share;
    const size_t n = mixed_count(m, LEVEL_FLOAT, &share);
    const size_t n_wide = mixed_count(m, LEVEL_WIDE, &wide_share);
    if (!root || (m->budgeted && !add_budget(root, m)) ||
        !add_number(root, "float_layers", (double)n) || !add_number(root, "macs_share", share) ||
        !add_number(root, "wide_layers", (double)n_wide) ||
        !add_number(root, "wide_macs_share", wide_share) ||
        !add_number(root, "median_ms", m->ms) || !add_number(root, "int8_ms", m->int8_ms) ||
        !add_number(root, "float_ms", m->float_ms) || !add_number(root, "slowdown", m->slowdown) ||
        !add_number(root, "threads", m->threads))
        return false;
    cJSON *list = cJSON_AddArrayToObject(root, "layers");
    bool good = list;
    for (size_t i = 0; i < m->n_layers && good; i++)
        good = add_layer_object(list, m, &m->layers[i]);
    return good;
}

rung_status report_mixed_json(const mixed_record *m, char **out, rung_error *err)
{
    text t = { 0 };
    cJSON *root = cJSON_CreateObject();
    char *printed = add_all(root, m) ? cJSON_PrintUnformatted(root) : NULL;
    text_add(&t, "%s", printed ? printed : "");
    t.failed = t.failed || !printed;
    cJSON_free(printed);
    cJSON_Delete(root);
    return text_take(&t, out, err);
}
