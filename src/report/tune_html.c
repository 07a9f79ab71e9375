/* The page of a tune: the recommendation, both families side by side, every trial. */
#include <math.h>

#include "report/html.h"
#include "report/tune.h"
#include "report/tune_parts.h"

static const tune_trial *best_of(const tune_record *r)
{
    return &r->trials[r->best];
}

static double times(double a, double b)
{
    return b > 0 ? a / b : 0;
}

static void add_facts(text *t, const tune_record *r)
{
    const tune_trial *b = best_of(r);
    text_add(t, "<div class=\"facts\">\n<div class=\"card fact\"><b>%s</b>%s</div>\n",
             trial_name(r->best), r->met ? "recommended" : "best found; the drop is not kept");
    text_add(t, "<div class=\"card fact\"><b>%.2f</b>points of %s lost, %.2f may be</div>\n",
             b->drop, tune_metric(r), r->max_drop);
    text_add(t, "<div class=\"card fact\"><b>%.2f&times;</b>as fast as float32</div>\n",
             times(1, b->ratio));
    text_add(t, "<div class=\"card fact\"><b>%.2f&times;</b>smaller</div>\n",
             times((double)r->trials[TRIAL_FLOAT].bytes, (double)b->bytes));
    text_add(t, "<div class=\"card fact\"><b>%.1f s</b>for all trials</div>\n</div>\n",
             r->seconds);
}

/* --- side by side ----------------------------------------------------------------------------- */

static void add_entry(text *t, const char *what, const char *words)
{
    text_add(t, "<dt>%s</dt><dd>%s</dd>", what, words);
}

static void add_accuracy(text *t, const tune_record *r, const tune_family *f)
{
    const tune_trial *b = &r->trials[f->best];
    text_add(t, "<dt>accuracy</dt><dd>");
    if (f->best == TRIAL_FLOAT)
        text_add(t, "%s", f->n ? "nothing of what was asked for" : "not tried");
    else if (b->top1 >= 0)
        text_add(t, "top-1 %.2f %% (&minus;%.2f), by %s", b->top1, b->drop, trial_name(f->best));
    else
        text_add(t, "agreement %.2f %%, by %s", b->agreement, trial_name(f->best));
    text_add(t, "</dd>");
}

static void add_family(text *t, const tune_record *r, bool trains)
{
    const tune_family f = tune_family_of(r, trains);
    text_add(t, "<div class=\"card\"><h3>%s</h3><dl>",
             trains ? "Quantization-aware training (QAT)" : "Post-training quantization (PTQ)");
    add_entry(t, "when", trains ? "a fine-tuning behind training" : "once the model is trained");
    text_add(t, "<dt>data</dt><dd>%zu samples%s</dd>", trains ? r->samples : r->calibration,
             trains ? ", again each epoch" : "");
    add_accuracy(t, r, &f);
    text_add(t, "<dt>time</dt><dd>%.1f s, %d trial%s", f.seconds, f.n, f.n == 1 ? "" : "s");
    if (trains)
        text_add(t, ", %zu epochs", f.epochs);
    text_add(t, "</dd>");
    add_entry(t, "complexity", trains ? "gradients, epochs, a learning rate"
                                      : "ranges and rounding, no gradients through the network");
    text_add(t, "</dl></div>\n");
}

/* --- trials ----------------------------------------------------------------------------------- */

static void add_chart(text *t, const tune_record *r)
{
    double before[TRIAL_KINDS], trained[TRIAL_KINDS];
    size_t n = 0;
    bool trains = false;
    for (trial_kind k = TRIAL_FLOAT; k < TRIAL_KINDS; k++) {
        const tune_trial *a = &r->trials[k];
        if (a->state != TRIAL_DONE)
            continue;
        before[n] = trial_trains(k) ? NAN : a->drop;
        trained[n++] = trial_trains(k) ? a->drop : NAN;
        trains |= trial_trains(k);
    }
    text_add(t, "<h2>Points lost, trial by trial</h2>\n<p class=\"soft\">"
             "<span class=\"key is-int8\"></span>post-training &nbsp; "
             "<span class=\"key ring\"></span>trained; 0 is float32, "
             "the others in the order of the table</p>\n");
    chart_series(t, "points lost, lower is better", "trial", before, "post-training",
                 trains ? trained : NULL, "trained", n);
}

static void add_percent(text *t, double v)
{
    if (v >= 0)
        text_add(t, "<td>%.2f</td>", v);
    else
        text_add(t, "<td>-</td>");
}

static void add_row(text *t, const tune_record *r, trial_kind k)
{
    const tune_trial *a = &r->trials[k];
    text_add(t, "<tr><td class=\"left\">%s</td>", trial_name(k));
    if (a->state == TRIAL_DONE) {
        add_percent(t, a->top1);
        add_percent(t, a->agreement);
        text_add(t, "<td>%.2f</td><td>%.1f</td><td>%zu</td><td>%.4g</td><td>%.2f</td>"
                 "<td>%.1f</td>", a->drop, 100 * tune_asked_share(r, k), a->bytes, a->ms,
                 times(1, a->ratio), a->seconds);
    } else {
        text_add(t, "<td colspan=\"8\">%s</td>",
                 a->state == TRIAL_FAILED ? "failed" : "not tried");
    }
    text_add(t, "<td class=\"left\">%s%s", k == r->best && k != TRIAL_FLOAT ? "recommended " : "",
             k != TRIAL_FLOAT && a->state == TRIAL_DONE && !a->answer ? "to compare with " : "");
    if (a->wide_layers)
        text_add(t, "%zu layers with 16-bit activations ", a->wide_layers);
    if (a->float_layers)
        text_add(t, "%zu layers in float, %.1f %% of the work ", a->float_layers,
                 100 * a->float_share);
    html_name(t, a->note);
    text_add(t, "</td></tr>\n");
}

static void add_table(text *t, const tune_record *r)
{
    text_add(t, "<h2>Trials</h2>\n<div class=\"scroll\" tabindex=\"0\"><table><thead><tr>"
             "<th class=\"left\">trial</th><th>top-1</th><th>agreement</th><th>points lost</th>"
             "<th>asked %%</th><th>bytes</th><th>ms</th><th>&times; float</th><th>seconds</th>"
             "<th></th></tr></thead><tbody>\n");
    for (trial_kind k = TRIAL_FLOAT; k < TRIAL_KINDS; k++)
        add_row(t, r, k);
    text_add(t, "</tbody></table></div>\n<p class=\"soft\">Latency of one sample, %d threads, "
             "least of many rounds; each trial in turns with the float model. Bytes of the written "
             "file. Asked: of the multiply-accumulates, in the integers that were asked "
             "for.</p>\n",
             r->threads);
}

rung_status report_tune_html(const tune_record *r, char **out, rung_error *err)
{
    text t = { 0 };
    html_begin(&t, r->model);
    text_add(&t, "<h1>");
    html_name(&t, r->model);
    text_add(&t, "</h1>\n<p class=\"soft\">%d-bit weights, %d-bit activations, at most %.2f points "
             "of %s lost on %zu samples of ", r->weight_bits, r->act_bits, r->max_drop,
             tune_metric(r), r->eval_samples);
    html_name(&t, r->eval);
    text_add(&t, "; prefers %s</p>\n", r->prefer_size ? "size" : "latency");
    add_facts(&t, r);
    text_add(&t, "<p>");
    html_name(&t, r->reason);
    text_add(&t, "</p>\n<h2>PTQ and QAT side by side</h2>\n<div class=\"grid\">\n");
    add_family(&t, r, false);
    add_family(&t, r, true);
    text_add(&t, "</div>\n");
    add_chart(&t, r);
    add_table(&t, r);
    html_end(&t);
    return text_take(&t, out, err);
}
