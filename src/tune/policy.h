/* What is tried next, when that is enough, and what is recommended: decided from the figures of
 * trials alone, so that it is tested on made-up ones. */
#ifndef RUNG_TUNE_POLICY_H
#define RUNG_TUNE_POLICY_H

#include "report/tune.h"

/* Makes and measures a trial: r->trials[k] is filled, its answer and drop excepted. RUNG_EMEMORY,
 * RUNG_EIO and RUNG_EINTERRUPTED end the tune; after other failures it goes on without this trial.
 * It may leave the trial TRIAL_UNTRIED, with a note. */
typedef rung_status (*trial_maker)(void *ctx, tune_record *r, trial_kind k, rung_error *err);

/* r: what was asked for, and the facts of the model. Fills the trials, best, met and reason.
 * RUNG_EARGUMENT: no trial came out, the last sentence says why. */
rung_status policy_run(tune_record *r, trial_maker make, void *ctx, rung_error *err);

/* The parts. NULL: k is to be tried now; otherwise why not. */
const char *policy_refusal(const tune_record *r, trial_kind k);
/* Whether the trial is what was asked for, or a row to compare with. A mixed model is while at
 * least r->min_share of the work that the static one has in the integers that were asked for is so
 * in it, too: with most layers in float it does not show what these integers can do. */
bool policy_answers(const tune_record *r, trial_kind k);
/* Fills best, met and reason. */
void policy_decide(tune_record *r);

/* The sentence for the decision (reason.c). */
void policy_explain(tune_record *r);
/* Points that a trial recovers of those that the best before training loses, in percent. */
double policy_recovered(const tune_record *r, trial_kind k);

#endif
