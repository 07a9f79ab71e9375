/* Why this trial is recommended, in words. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "tune/policy.h"

static void say(tune_record *r, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* Cut where the sentence would not fit. */
static void say(tune_record *r, const char *fmt, ...)
{
    const size_t n = strlen(r->reason);
    va_list args;
    va_start(args, fmt);
    vsnprintf(r->reason + n, sizeof r->reason - n, fmt, args);
    va_end(args);
}

static const char *metric(const tune_record *r)
{
    return r->labelled ? "top-1" : "agreement";
}

/* "static, auto loses 0.12 points of top-1, 0.20 may be lost" */
static void say_loss(tune_record *r, trial_kind k)
{
    say(r, "%s loses %.2f points of %s, %.2f may be lost", trial_name(k), r->trials[k].drop,
        metric(r), r->max_drop);
}

static bool is_within(const tune_record *r, trial_kind k)
{
    const tune_trial *t = &r->trials[k];
    return k != TRIAL_FLOAT && t->state == TRIAL_DONE && t->answer && t->drop <= r->max_drop;
}

static double times_faster(const tune_trial *t)
{
    return t->ratio > 0 ? 1 / t->ratio : 0;
}

static double times_smaller(const tune_record *r, const tune_trial *t)
{
    return t->bytes ? (double)r->trials[TRIAL_FLOAT].bytes / (double)t->bytes : 0;
}

/* The best before training of those that lose too much. TRIAL_FLOAT: none does. */
static trial_kind best_unfit(const tune_record *r)
{
    trial_kind best = TRIAL_FLOAT;
    for (trial_kind k = TRIAL_DYNAMIC; k < TRIAL_QAT; k++) {
        const tune_trial *t = &r->trials[k];
        if (t->state == TRIAL_DONE && t->answer && !is_within(r, k) &&
            (best == TRIAL_FLOAT || t->drop < r->trials[best].drop))
            best = k;
    }
    return best;
}

double policy_recovered(const tune_record *r, trial_kind k)
{
    const trial_kind before = best_unfit(r);
    const double lost = r->trials[before].drop;
    return before != TRIAL_FLOAT && lost > 0 ? 100 * (lost - r->trials[k].drop) / lost : 0;
}

/* What keeps the drop as well, and why it is not the answer. */
static void say_others(tune_record *r)
{
    const tune_trial *best = &r->trials[r->best];
    for (trial_kind k = TRIAL_DYNAMIC; k < TRIAL_KINDS; k++) {
        const tune_trial *t = &r->trials[k];
        if (k == r->best || !is_within(r, k))
            continue;
        say(r, "; %s keeps the drop too, ", trial_name(k));
        if (k == TRIAL_MIXED)
            say(r, "with %zu layers (%.0f %% of the work) in float, ", t->float_layers,
                100 * t->float_share);
        if (r->prefer_size)
            say(r, "but is %.2f times smaller, not %.2f", times_smaller(r, t),
                times_smaller(r, best));
        else
            say(r, "but is %.2f times as fast, not %.2f", times_faster(t), times_faster(best));
    }
}

/* A mixed model that keeps the drop by giving up what was asked for. */
static void say_mixed(tune_record *r)
{
    const tune_trial *t = &r->trials[TRIAL_MIXED];
    if (t->state != TRIAL_DONE || t->answer || t->drop > r->max_drop)
        return;
    say(r, "; %s keeps the drop, but only %.0f %% of the work is in the integers that were asked "
        "for (%zu layers in float, %zu with 16-bit activations), where %.0f %% are wanted of it",
        trial_name(TRIAL_MIXED), 100 * tune_asked_share(r, TRIAL_MIXED), t->float_layers,
        t->wide_layers, 100 * r->min_share * tune_asked_share(r, TRIAL_STATIC));
}

static void explain_training(tune_record *r)
{
    const trial_kind before = best_unfit(r);
    const tune_trial *t = &r->trials[r->best];
    if (before != TRIAL_FLOAT) {
        say(r, "post-training quantization is not enough: ");
        say_loss(r, before);
        say(r, "; ");
    }
    say(r, "%s of %zu epochs through the integer arithmetic loses %.2f", trial_name(r->best),
        t->epochs, t->drop);
    if (before != TRIAL_FLOAT && policy_recovered(r, r->best) > 0)
        say(r, " (%.0f %% of the loss is recovered)", policy_recovered(r, r->best));
}

/* The dearest trial before this one that lost too much. */
static trial_kind failed_before(const tune_record *r)
{
    for (int k = (int)r->best - 1; k >= TRIAL_DYNAMIC; k--)
        if (r->trials[k].state == TRIAL_DONE && r->trials[k].answer &&
            !is_within(r, (trial_kind)k))
            return (trial_kind)k;
    return TRIAL_FLOAT;
}

static void explain_ptq(tune_record *r)
{
    const trial_kind lost = failed_before(r);
    const tune_trial *t = &r->trials[r->best];
    say(r, "post-training quantization is enough: ");
    say_loss(r, r->best);
    if (lost != TRIAL_FLOAT)
        say(r, " (%s loses %.2f)", trial_name(lost), r->trials[lost].drop);
    if (r->best == TRIAL_MIXED)
        say(r, "; %zu layers have 16-bit activations, %zu stay float (%.1f %% of the work)",
            t->wide_layers, t->float_layers, 100 * t->float_share);
    const trial_kind trained = tune_least_drop(r, true);
    if (trained != TRIAL_FLOAT && !is_within(r, trained))
        say(r, "; training (%s) loses %.2f", trial_name(trained), r->trials[trained].drop);
    else if (r->trials[TRIAL_QAT].state == TRIAL_UNTRIED && !r->no_train)
        say(r, "; training is not needed");
}

static void say_why_not(tune_record *r)
{
    const trial_kind before = tune_least_drop(r, false);
    const trial_kind trained = tune_least_drop(r, true);
    const tune_trial *qat = &r->trials[TRIAL_QAT];
    if (trained == TRIAL_FLOAT)
        say(r, "; QAT %s: %s", qat->state == TRIAL_FAILED ? "failed" : "was not tried", qat->note);
    else if (trial_trains(r->best) && before != TRIAL_FLOAT)
        say(r, "; before training %s loses %.2f", trial_name(before), r->trials[before].drop);
    say_mixed(r);
    say(r, ". More samples, more bits, a larger --max-drop or layers left out by --exclude are "
        "what remains");
}

void policy_explain(tune_record *r)
{
    const tune_trial *t = &r->trials[r->best];
    r->reason[0] = '\0';
    if (r->best == TRIAL_FLOAT) {
        say(r, "no trial came out");
        return;
    }
    if (!r->met) {
        say(r, "nothing that was tried keeps the drop: the best, ");
        say_loss(r, r->best);
        say_why_not(r);
        return;
    }
    if (trial_trains(r->best))
        explain_training(r);
    else
        explain_ptq(r);
    say_others(r);
    say_mixed(r);
    say(r, ". %.2f times as fast as float32 and %.2f times smaller, after %.1f s", times_faster(t),
        times_smaller(r, t), r->seconds);
}
