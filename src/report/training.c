/* A training run as text and as JSON. */
#include "report/training.h"

#include <math.h>

#include "base/mem.h"
#include "report/text.h"

void training_record_free(training_record *r)
{
    if (!r)
        return;
    mem_free(r->epochs);
    mem_free(r);
}

bool training_diverged(const training_record *r)
{
    if (!r->evaluated || r->n < 2)
        return false;
    const training_epoch *first = &r->epochs[0], *last = &r->epochs[r->n - 1];
    if (isfinite(first->eval_loss) && isfinite(last->eval_loss))
        return last->eval_loss > first->eval_loss && last->top1 <= first->top1;
    return last->sqnr_db < first->sqnr_db && last->agreement <= first->agreement;
}

static void add_percent(text *t, double v)
{
    if (v >= 0)
        text_add(t, "  %7.2f", v);
    else
        text_add(t, "  %7s", "-");
}

static void add_number(text *t, double v)
{
    if (isfinite(v))
        text_add(t, "  %8.4f", v);
    else
        text_add(t, "  %8s", "-");
}

rung_status report_training_text(const training_record *r, char **out, rung_error *err)
{
    text t = { 0 };
    text_add(&t, "%zu parameters, %zu of them scales; %zu samples, %zu steps of %zu, %.1f s, "
             "%.0f samples/s\n\n", r->parameters, r->scales, r->samples, r->steps, r->batch,
             r->seconds, r->samples_per_s);
    text_add(&t, "epoch      loss  accuracy     top-1  eval loss  agreement  SQNR dB\n");
    for (size_t i = 0; i < r->n; i++) {
        const training_epoch *e = &r->epochs[i];
        text_add(&t, "%5zu", e->epoch);
        add_number(&t, e->loss);
        add_percent(&t, e->accuracy);
        text_add(&t, " ");
        add_percent(&t, e->top1);
        text_add(&t, " ");
        add_number(&t, e->eval_loss);
        text_add(&t, "  ");
        add_percent(&t, e->agreement);
        add_number(&t, e->sqnr_db);
        text_add(&t, "%s\n", i == r->best && r->evaluated ? "  kept" : "");
    }
    return text_take(&t, out, err);
}

static void add_key(text *t, const char *key, double v, bool known)
{
    if (known)
        text_add(t, ",\"%s\":%.9g", key, v);
    else
        text_add(t, ",\"%s\":null", key);
}

rung_status report_training_json(const training_record *r, char **out, rung_error *err)
{
    text t = { 0 };
    text_add(&t, "{\"parameters\":%zu,\"scales\":%zu,\"samples\":%zu,\"eval_samples\":%zu,"
             "\"batch\":%zu,\"ranks\":%d,\"chunk\":%zu,\"steps\":%zu,\"seconds\":%.3f,"
             "\"samples_per_s\":%.1f,\"best\":%zu,\"diverged\":%s,\"epochs\":[",
             r->parameters, r->scales, r->samples, r->eval_samples, r->batch, r->ranks, r->chunk,
             r->steps, r->seconds, r->samples_per_s, r->n ? r->epochs[r->best].epoch : 0,
             training_diverged(r) ? "true" : "false");
    for (size_t i = 0; i < r->n; i++) {
        const training_epoch *e = &r->epochs[i];
        text_add(&t, "%s{\"epoch\":%zu", i ? "," : "", e->epoch);
        add_key(&t, "loss", e->loss, isfinite(e->loss));
        add_key(&t, "accuracy", e->accuracy, e->accuracy >= 0);
        add_key(&t, "rate", e->rate, true);
        add_key(&t, "top1", e->top1, e->top1 >= 0);
        add_key(&t, "eval_loss", e->eval_loss, isfinite(e->eval_loss));
        add_key(&t, "agreement", e->agreement, e->agreement >= 0);
        add_key(&t, "sqnr_db", e->sqnr_db, isfinite(e->sqnr_db));
        add_key(&t, "seconds", e->seconds, true);
        text_add(&t, "}");
    }
    text_add(&t, "]}\n");
    return text_take(&t, out, err);
}
