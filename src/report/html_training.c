/* The page of a training run: its curves, and the epochs as a table. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "report/html.h"
#include "report/training.h"

/* --- figures ---------------------------------------------------------------------------------- */

static double known(double percent)
{
    return percent >= 0 ? percent : NAN;
}

static double gain(const training_record *r, const training_epoch *best)
{
    const training_epoch *first = &r->epochs[0];
    return best->top1 >= 0 ? best->top1 - first->top1 : best->agreement - first->agreement;
}

static void add_facts(text *t, const training_record *r)
{
    const training_epoch *best = &r->epochs[r->best];
    const bool labelled = best->top1 >= 0;
    text_add(t, "<div class=\"facts\">\n");
    if (r->evaluated && (labelled || best->agreement >= 0)) {
        text_add(t, "<div class=\"card fact\"><b>%.2f %%</b>%s of the model that was kept</div>\n",
                 labelled ? best->top1 : best->agreement, labelled ? "top-1" : "agreement");
        text_add(t, "<div class=\"card fact\"><b>%+.2f</b>points by training</div>\n",
                 gain(r, best));
    }
    text_add(t, "<div class=\"card fact\"><b>%zu</b>parameters, %zu of them scales</div>\n",
             r->parameters, r->scales);
    text_add(t, "<div class=\"card fact\"><b>%.0f</b>samples a second, %.1f s in all</div>\n"
             "</div>\n",
             r->samples_per_s, r->seconds);
}

/* --- curves ----------------------------------------------------------------------------------- */

typedef double (*figure)(const training_epoch *e);

static double loss_of(const training_epoch *e)
{
    return e->loss;
}

static double eval_loss_of(const training_epoch *e)
{
    return e->eval_loss;
}

static double accuracy_of(const training_epoch *e)
{
    return known(e->accuracy);
}

static double top1_of(const training_epoch *e)
{
    return known(e->top1);
}

static double agreement_of(const training_epoch *e)
{
    return known(e->agreement);
}

static bool take(const training_record *r, figure f, double *to)
{
    bool any = false;
    for (size_t i = 0; i < r->n; i++) {
        to[i] = f(&r->epochs[i]);
        any |= isfinite(to[i]);
    }
    return any;
}

static void add_chart(text *t, const training_record *r, double *scratch, const char *words,
                      figure a, const char *a_name, figure b, const char *b_name)
{
    const bool has_a = take(r, a, scratch), has_b = take(r, b, scratch + r->n);
    if (has_a || has_b)
        chart_series(t, words, "epoch; 0: before training", scratch, a_name,
                     has_b ? scratch + r->n : NULL, b_name, r->n);
}

static void add_curves(text *t, const training_record *r, double *scratch)
{
    text_add(t, "<h2>Learning curves</h2>\n<p class=\"soft\"><span class=\"key is-int8\"></span>"
             "the deployed model on the evaluation samples &nbsp; <span class=\"key ring\"></span>"
             "training batches, while their parameters moved</p>\n");
    add_chart(t, r, scratch, "top-1 in percent, higher is better", top1_of, "top-1", accuracy_of,
              "training");
    add_chart(t, r, scratch, "loss, lower is better; training: with the terms that follow the "
              "teacher", eval_loss_of, "evaluation", loss_of, "training");
    if (take(r, agreement_of, scratch))
        chart_series(t, "decisions that are the float model&#39;s, in percent",
                     "epoch; 0: before training", scratch, "agreement", NULL, NULL, r->n);
}

/* --- table ------------------------------------------------------------------------------------ */

static void add_cell(text *t, double v, const char *format)
{
    if (!isfinite(v))
        text_add(t, "<td>-</td>");
    else if (format[0] == 'p')
        text_add(t, "<td>%.2f</td>", v);
    else
        text_add(t, "<td>%.5g</td>", v);
}

static void add_table(text *t, const training_record *r)
{
    text_add(t, "<h2>Epochs</h2>\n<div class=\"scroll tall\" tabindex=\"0\"><table><thead><tr>"
             "<th>epoch</th><th>loss</th><th>accuracy</th><th>rate</th><th>top-1</th>"
             "<th>eval loss</th><th>agreement</th><th>SQNR dB</th><th>seconds</th><th></th></tr>"
             "</thead><tbody>\n");
    for (size_t i = 0; i < r->n; i++) {
        const training_epoch *e = &r->epochs[i];
        text_add(t, "<tr><td>%zu</td>", e->epoch);
        add_cell(t, e->loss, "g");
        add_cell(t, known(e->accuracy), "p");
        add_cell(t, e->rate, "g");
        add_cell(t, known(e->top1), "p");
        add_cell(t, e->eval_loss, "g");
        add_cell(t, known(e->agreement), "p");
        add_cell(t, e->sqnr_db, "p");
        add_cell(t, e->seconds, "p");
        text_add(t, "<td>%s</td></tr>\n", r->evaluated && i == r->best ? "kept" : "");
    }
    text_add(t, "</tbody></table></div>\n");
}

rung_status report_training_html(const training_record *r, const char *title, char **out,
                                 rung_error *err)
{
    text t = { 0 };
    double *scratch = mem_zero(2 * r->n + 1, sizeof *scratch);
    if (!scratch)
        return fail_memory(err, "a page", r->n * sizeof *scratch);
    html_begin(&t, title);
    text_add(&t, "<h1>");
    html_name(&t, title);
    text_add(&t, "</h1>\n<p class=\"soft\">%s on %zu samples, %zu steps of %zu%s</p>\n",
             r->is_float ? "float training" : "quantization-aware training", r->samples, r->steps,
             r->batch, r->evaluated ? "" : ", not evaluated");
    add_facts(&t, r);
    add_curves(&t, r, scratch);
    add_table(&t, r);
    html_end(&t);
    mem_free(scratch);
    return text_take(&t, out, err);
}
