/* One JSON object a line: of steps (a hundred an epoch at most) and of epochs. */
#include <errno.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "train/run_parts.h"

enum { LINES_PER_EPOCH = 100 };

static rung_status failed(const run *r, rung_error *err)
{
    return fail(err, RUNG_EIO, "%s: %s", r->opt->metrics, strerror(errno));
}

/* Lines behind the last checkpoint will be written again. */
rung_status metrics_open(run *r, rung_error *err)
{
    if (!r->opt->metrics || ranks_index(r->ranks) > 0)
        return RUNG_OK;
    const bool goes_on = r->at.metrics_bytes > 0;
    if (goes_on && truncate(r->opt->metrics, (off_t)r->at.metrics_bytes) != 0)
        return failed(r, err);
    r->metrics = fopen(r->opt->metrics, goes_on ? "a" : "w");
    return r->metrics ? RUNG_OK : failed(r, err);
}

static rung_status check(const run *r, rung_error *err)
{
    return ferror(r->metrics) ? failed(r, err) : RUNG_OK;
}

rung_status metrics_step(run *r, const step_result *s, rung_error *err)
{
    const size_t every = (r->per_epoch + LINES_PER_EPOCH - 1) / LINES_PER_EPOCH;
    if (!r->metrics || r->at.done % every)
        return RUNG_OK;
    fprintf(r->metrics, "{\"kind\":\"step\",\"step\":%llu,\"epoch\":%llu,\"loss\":%.9g,"
            "\"rate\":%.9g,\"norm\":%.9g", (unsigned long long)r->at.step,
            (unsigned long long)r->at.epoch + 1, s->loss, (double)s->rate, s->norm);
    if (dataset_has_labels(r->data))
        fprintf(r->metrics, ",\"accuracy\":%.4f", 100.0 * (double)s->correct / (double)s->n);
    fprintf(r->metrics, ",\"seconds\":%.3f}\n", r->at.seconds + clock_seconds() - r->started);
    return check(r, err);
}

static void put(FILE *f, const char *key, double v, bool known)
{
    if (known)
        fprintf(f, ",\"%s\":%.9g", key, v);
    else
        fprintf(f, ",\"%s\":null", key);
}

rung_status metrics_epoch(run *r, const training_epoch *e, rung_error *err)
{
    FILE *f = r->metrics;
    if (!f)
        return RUNG_OK;
    fprintf(f, "{\"kind\":\"epoch\",\"epoch\":%zu,\"step\":%llu", e->epoch,
            (unsigned long long)r->at.step);
    put(f, "loss", e->loss, isfinite(e->loss));
    put(f, "accuracy", e->accuracy, e->accuracy >= 0);
    put(f, "top1", e->top1, e->top1 >= 0);
    put(f, "eval_loss", e->eval_loss, isfinite(e->eval_loss));
    put(f, "agreement", e->agreement, e->agreement >= 0);
    put(f, "sqnr_db", e->sqnr_db, isfinite(e->sqnr_db));
    put(f, "seconds", e->seconds, true);
    fprintf(f, "}\n");
    return metrics_flush(r, err);
}

rung_status metrics_flush(run *r, rung_error *err)
{
    if (!r->metrics)
        return RUNG_OK;
    if (fflush(r->metrics) != 0)
        return failed(r, err);
    const long at = ftell(r->metrics);
    r->at.metrics_bytes = at > 0 ? (uint64_t)at : 0;
    return check(r, err);
}

void metrics_close(run *r)
{
    if (r->metrics)
        fclose(r->metrics);
    r->metrics = NULL;
}
