#include "tune/policy.h"

#include <stdio.h>

/* --- facts of a trial ------------------------------------------------------------------------- */

static bool is_static(trial_kind k)
{
    return k == TRIAL_STATIC || k == TRIAL_AUTO || k == TRIAL_ADAROUND;
}

static bool meets(const tune_record *r, trial_kind k)
{
    const tune_trial *t = &r->trials[k];
    return t->state == TRIAL_DONE && t->answer && t->drop <= r->max_drop;
}

/* What quantization is for: the share of the work that is in integers, or of the bytes that is
 * saved. Neither depends on what else the machine does. */
static double gain(const tune_record *r, trial_kind k)
{
    const tune_trial *t = &r->trials[k];
    const double bytes = (double)r->trials[TRIAL_FLOAT].bytes;
    return r->prefer_size ? 1 - (double)t->bytes / (bytes > 0 ? bytes : 1) : t->int_share;
}

/* A trial ends the search where it meets the drop and has most of the gain: at least half of what
 * static quantization of all layers has. Static and trained models have its form, and all of it. */
static bool is_enough(const tune_record *r, trial_kind k)
{
    if (k == TRIAL_FLOAT || !meets(r, k))
        return false;
    if (is_static(k) || trial_trains(k) || r->trials[TRIAL_STATIC].state != TRIAL_DONE)
        return true;
    const double whole = gain(r, TRIAL_STATIC);
    return gain(r, k) >= 0.5 * (whole > 0 ? whole : 0);
}

bool policy_answers(const tune_record *r, trial_kind k)
{
    switch (k) {
    case TRIAL_FLOAT: return false;
    case TRIAL_DYNAMIC: return r->weight_bits == 8 && r->act_bits == 8;
    case TRIAL_WEIGHTS: return r->act_bits == 8; /* refused where it has other weights */
    case TRIAL_MIXED:
        return tune_asked_share(r, k) >= r->min_share * tune_asked_share(r, TRIAL_STATIC);
    default: return true;
    }
}

/* --- what is tried ---------------------------------------------------------------------------- */

static double spent(const tune_record *r)
{
    double all = 0;
    for (trial_kind k = TRIAL_FLOAT; k < TRIAL_KINDS; k++)
        all += r->trials[k].seconds;
    return all;
}

static const char *refuse_light(const tune_record *r, trial_kind k)
{
    if (k == TRIAL_DYNAMIC && !(r->matrix_share > 0))
        return "it is for matrix products, of which the model has none";
    if (k == TRIAL_WEIGHTS && r->weight_bits != 4 && r->weight_bits != 8)
        return "weights alone have 4 or 8 bits";
    return NULL;
}

static const char *refuse_training(const tune_record *r, trial_kind k)
{
    if (r->no_train)
        return "training was not wanted";
    if (k == TRIAL_QAT_LONG && r->trials[TRIAL_QAT].state != TRIAL_DONE)
        return "there is no shorter training to go beyond";
    return NULL;
}

const char *policy_refusal(const tune_record *r, trial_kind k)
{
    if (k == TRIAL_FLOAT || k == TRIAL_STATIC)
        return NULL;
    for (trial_kind before = TRIAL_STATIC; before < k; before++)
        if (is_enough(r, before))
            return "not needed: the drop is kept without it";
    if (k > TRIAL_STATIC && (is_enough(r, TRIAL_DYNAMIC) || is_enough(r, TRIAL_WEIGHTS)))
        return "not needed: the drop is kept without calibration";
    if (r->time_budget > 0 && spent(r) >= r->time_budget)
        return "the time is used up";
    if (k == TRIAL_MIXED && r->trials[TRIAL_STATIC].state != TRIAL_DONE)
        return "there is no static model to begin from";
    return trial_trains(k) ? refuse_training(r, k) : refuse_light(r, k);
}

/* --- what is recommended ---------------------------------------------------------------------- */

/* Whether a is better than b as the caller prefers. Times that differ by less than a tenth are
 * equal: they do so from one run to the next. */
static bool is_preferred(const tune_record *r, const tune_trial *a, const tune_trial *b)
{
    if (r->prefer_size && a->bytes != b->bytes)
        return a->bytes < b->bytes;
    if (a->ratio < 0.9 * b->ratio || b->ratio < 0.9 * a->ratio)
        return a->ratio < b->ratio;
    if (a->bytes != b->bytes)
        return a->bytes < b->bytes;
    return a->drop < b->drop;
}

/* Preference among those that meet the drop, the least drop otherwise. */
static bool is_better(const tune_record *r, trial_kind a, trial_kind b)
{
    const tune_trial *x = &r->trials[a], *y = &r->trials[b];
    if (meets(r, a) != meets(r, b))
        return meets(r, a);
    if (!meets(r, a) && (x->drop < y->drop || x->drop > y->drop))
        return x->drop < y->drop;
    return is_preferred(r, x, y);
}

void policy_decide(tune_record *r)
{
    r->best = TRIAL_FLOAT;
    for (trial_kind k = TRIAL_DYNAMIC; k < TRIAL_KINDS; k++) {
        const tune_trial *t = &r->trials[k];
        if (t->state == TRIAL_DONE && t->answer &&
            (r->best == TRIAL_FLOAT || is_better(r, k, r->best)))
            r->best = k;
    }
    r->met = r->best != TRIAL_FLOAT && meets(r, r->best);
    r->seconds = spent(r);
    policy_explain(r);
}

/* --- the run ---------------------------------------------------------------------------------- */

static double drop_of(const tune_record *r, const tune_trial *t)
{
    if (r->labelled)
        return r->trials[TRIAL_FLOAT].top1 - t->top1;
    return 100 - t->agreement;
}

static bool ends_all(trial_kind k, rung_status st)
{
    return k == TRIAL_FLOAT || st == RUNG_EMEMORY || st == RUNG_EIO || st == RUNG_EINTERRUPTED;
}

static rung_status try_one(tune_record *r, trial_kind k, trial_maker make, void *ctx,
                           rung_error *err)
{
    tune_trial *t = &r->trials[k];
    rung_error own = { "" };
    const char *why_not = policy_refusal(r, k);
    if (why_not) {
        snprintf(t->note, sizeof t->note, "%s", why_not);
        return RUNG_OK;
    }
    const rung_status st = make(ctx, r, k, &own);
    if (st != RUNG_OK && ends_all(k, st))
        return fail(err, st, "%s", own.message);
    if (st != RUNG_OK) {
        t->state = TRIAL_FAILED;
        snprintf(t->note, sizeof t->note, "%.*s", (int)sizeof t->note - 1, own.message);
    } else if (t->state == TRIAL_DONE) {
        t->drop = drop_of(r, t);
        t->answer = policy_answers(r, k);
    }
    return RUNG_OK;
}

rung_status policy_run(tune_record *r, trial_maker make, void *ctx, rung_error *err)
{
    const char *last = "";
    for (trial_kind k = TRIAL_FLOAT; k < TRIAL_KINDS; k++) {
        const rung_status st = try_one(r, k, make, ctx, err);
        if (st != RUNG_OK)
            return st;
        if (k == TRIAL_FLOAT)
            r->labelled = r->trials[k].top1 >= 0;
        if (r->trials[k].state == TRIAL_FAILED)
            last = r->trials[k].note;
    }
    policy_decide(r);
    if (r->best == TRIAL_FLOAT)
        return fail(err, RUNG_EARGUMENT, "no trial came out: %s", last);
    return RUNG_OK;
}
