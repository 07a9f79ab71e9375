/* The page of a comparison, section by section. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "measure/scores.h"
#include "report/html.h"

enum { MAX_MATRIX = 20, N_CHANGES = 20, N_WEIGHT_CHARTS = 12 };

/* --- totals ----------------------------------------------------------------------------------- */

static size_t size_of(const model_record *m)
{
    return m->file_bytes ? m->file_bytes : m->constant_bytes;
}

static void add_facts(text *t, const comparison *c)
{
    const double a = (double)size_of(&c->reference), b = (double)size_of(&c->model);
    text_add(t, "<div class=\"facts\">\n");
    text_add(t, "<div class=\"card fact\"><b>%.2f&times;</b>smaller</div>\n", b > 0 ? a / b : 0);
    text_add(t, "<div class=\"card fact\"><b>%.2f&times;</b>as fast</div>\n", c->speedup);
    if (c->labelled)
        text_add(t, "<div class=\"card fact\"><b>%+.2f</b>points of top-1 accuracy</div>\n",
                 c->model.top1 - c->reference.top1);
    if (c->agreement >= 0)
        text_add(t, "<div class=\"card fact\"><b>%.2f %%</b>of decisions are the same</div>\n",
                 c->agreement);
    text_add(t, "<div class=\"card fact\"><b>");
    text_add_db(t, output_db(c));
    text_add(t, "</b>SQNR at the %soutput</div>\n</div>\n", c->n_outputs > 1 ? "worst " : "");
}

/* Two bars to one scale; most: what fills the track. */
static void add_bar(text *t, const char *who, double v, double most, const char *format)
{
    text_add(t, "<div class=\"bar\"><span>%s</span><span class=\"track\"><i class=\"is-%s\" "
             "style=\"width:%.2f%%\"></i></span><span>", who, who,
             most > 0 ? fmin(100, 100 * v / most) : 0);
    if (format)
        text_add(t, format[0] == 'm' ? "%.4g ms" : "%.2f %%", v);
    else
        text_add_bytes(t, (size_t)v);
    text_add(t, "</span></div>\n");
}

static void add_bars(text *t, const char *title, double a, double b, double most,
                     const char *format, const char *note)
{
    text_add(t, "<div class=\"card\"><h3>%s</h3>\n", title);
    add_bar(t, "float", a, most, format);
    add_bar(t, "int8", b, most, format);
    text_add(t, "<p class=\"soft\" style=\"margin:8px 0 0\">%s</p></div>\n", note);
}

static void add_totals(text *t, const comparison *c)
{
    const model_record *a = &c->reference, *b = &c->model;
    char note[160];
    text_add(t, "<div class=\"grid\">\n");
    add_bars(t, a->file_bytes ? "File size" : "Size of constants", (double)size_of(a),
             (double)size_of(b), fmax((double)size_of(a), (double)size_of(b)), NULL,
             "Shorter is better.");
    snprintf(note, sizeof note, "Median of one sample, %d threads, both models in turns.",
             c->threads);
    add_bars(t, "Latency", a->median_ms, b->median_ms, fmax(a->median_ms, b->median_ms), "ms",
             note);
    if (c->labelled) {
        snprintf(note, sizeof note, "Top-5: float %.2f %%, int8 %.2f %%. %zu labelled samples.",
                 a->top5, b->top5, c->labelled);
        add_bars(t, "Top-1 accuracy", a->top1, b->top1, 100, "%", note);
    }
    text_add(t, "</div>\n");
}

/* --- layers ----------------------------------------------------------------------------------- */

static void add_term(text *t, const char *term, double db)
{
    text_add(t, "<dt>%s</dt><dd>", term);
    text_add_db(t, db);
    text_add(t, "</dd>");
}

/* Options stand out, and are not cut at the end of a line. */
static void add_advice(text *t, const char *words)
{
    for (const char *at = words; *at;) {
        const size_t n = strncmp(at, "--", 2) == 0 ? strcspn(at, " .;,)") : 0;
        char one[2] = { *at, '\0' };
        if (n > 2)
            text_add(t, "<code>%.*s</code>", (int)n, at);
        else
            html_name(t, one);
        at += n > 2 ? n : 1;
    }
}

/* What the layer costs, where that was measured. */
static void add_effect(text *t, const comparison *c, const tensor_record *r)
{
    if (!r->effect.noise)
        return;
    if (effect_agreement(c, r) >= 0)
        text_add(t, "With this layer alone in integers %.2f %% of the decisions stay. ",
                 effect_agreement(c, r));
    text_add(t, "It makes %.2f %% of the multiply-accumulates, in %.4g ms; in float %.4g ms. ",
             c->macs ? 100 * (double)r->macs / (double)c->macs : 0, r->int8_ms, r->float_ms);
}

static void add_worst_card(text *t, const comparison *c, size_t i)
{
    const tensor_record *r = &c->tensors[i];
    text advice = { 0 };
    char *words = NULL;
    text_add(t, "<article class=\"card\"><h3>");
    html_name(t, r->node);
    text_add(t, "</h3>\n<div class=\"soft\">");
    html_name(t, r->name);
    text_add(t, "</div>\n<dl>");
    if (r->effect.noise)
        add_term(t, "Output, but for it float", effect_db(c, r));
    add_term(t, "Layer alone", decibels(r->signal, r->own_noise));
    add_term(t, "In the network", decibels(r->signal, r->noise));
    add_term(t, "Its inputs", tensor_input_db(c, r));
    text_add(t, "</dl>\n<p>");
    add_effect(t, c, r);
    tensor_advice(&advice, c, r);
    if (text_take(&advice, &words, NULL) == RUNG_OK)
        add_advice(t, words);
    else
        t->failed = true;
    mem_free(words);
    text_add(t, "</p>\n<figure>");
    chart_values(t, r);
    text_add(t, "<figcaption>Values %.4g to %.4g; the codes reach %.4g to %.4g (dashed); %.3g %% "
             "clipped.</figcaption></figure></article>\n", r->lo, r->hi, r->clip_lo, r->clip_hi,
             percent_clipped(r));
}

static void add_worst(text *t, const comparison *c)
{
    size_t worst[N_WORST];
    const size_t n = comparison_worst(c, N_WORST, worst);
    text_add(t, "<h2>The layers that add most error</h2>\n<p class=\"soft\">Ordered by the error "
             "of the layer alone: computed in integers from what the float model computes before "
             "it");
    if (c->effect_samples)
        text_add(t, "; of the network's output where the layers behind it compute in float too "
                 "(%zu samples)", c->effect_samples);
    text_add(t, ".</p>\n<div class=\"grid\">\n");
    for (size_t i = 0; i < n; i++)
        add_worst_card(t, c, worst[i]);
    text_add(t, "</div>\n");
}

static void add_db_cell(text *t, double db)
{
    text_add(t, "<td>");
    text_add_db(t, db);
    text_add(t, "</td>");
}

static void add_tensors(text *t, const comparison *c)
{
    text_add(t, "<h2>All quantized tensors</h2>\n<p class=\"soft\">%zu pairs in order of execution",
             c->n_tensors);
    if (c->n_unmatched)
        text_add(t, "; %zu more have no namesake in the float model", c->n_unmatched);
    if (rescaled_tensors(c))
        text_add(t, "; the channels of %zu were rescaled (equalized), and are held against float "
                 "values rescaled alike", rescaled_tensors(c));
    text_add(t, ".</p>\n<div class=\"scroll tall\" tabindex=\"0\"><table><thead><tr><th>#</th>"
             "<th class=\"left\">Made by</th>%s<th>In the network</th><th>Layer alone</th>"
             "<th>Codes alone</th><th>Clipped</th><th>Values</th><th>Codes reach</th>"
             "<th class=\"left\">Tensor</th></tr></thead><tbody>\n",
             c->effect_samples ? "<th>Output</th>" : "");
    for (size_t i = 0; i < c->n_tensors; i++) {
        const tensor_record *r = &c->tensors[i];
        text_add(t, "<tr><td>%zu</td><td class=\"left\">", i + 1);
        html_name(t, r->node);
        text_add(t, "</td>");
        if (c->effect_samples)
            add_db_cell(t, effect_db(c, r));
        add_db_cell(t, decibels(r->signal, r->noise));
        add_db_cell(t, decibels(r->signal, r->own_noise));
        add_db_cell(t, decibels(r->signal, r->round_noise + r->clip_noise));
        text_add(t, "<td>%.3g %%</td><td>", percent_clipped(r));
        if (r->count)
            text_add(t, "%.4g to %.4g", r->lo, r->hi);
        text_add(t, "</td><td>%.4g to %.4g</td><td class=\"left\">", r->clip_lo, r->clip_hi);
        html_name(t, r->name);
        text_add(t, "</td></tr>\n");
    }
    text_add(t, "</tbody></table></div>\n");
}

/* --- weights ---------------------------------------------------------------------------------- */

static double weight_db(const weight_record *w)
{
    return w->known ? decibels(w->signal, w->noise) : INFINITY;
}

static int noisier(const void *a, const void *b)
{
    const double x = weight_db(*(const weight_record *const *)a);
    const double y = weight_db(*(const weight_record *const *)b);
    return (x > y) - (x < y);
}

static void add_weight_card(text *t, const weight_record *w)
{
    text_add(t, "<div class=\"card\"><h3>");
    html_name(t, w->node);
    text_add(t, "</h3>\n<figure>");
    chart_weights(t, w);
    text_add(t, "<figcaption>");
    if (w->known) {
        text_add_db(t, decibels(w->signal, w->noise));
        text_add(t, "; ");
    }
    if (!w->per_channel)
        text_add(t, "one scale of %.3g for all (dashed); ", w->steps[0]);
    text_add(t, "%zu of %zu channels use less than 4 bits.</figcaption></figure></div>\n",
             w->n_coarse, w->channels);
}

static void add_weights(text *t, const comparison *c)
{
    const weight_record **order = mem_zero(c->n_weights + 1, sizeof *order);
    if (!order || c->n_weights == 0) {
        t->failed = t->failed || !order;
        mem_free(order);
        return;
    }
    for (size_t i = 0; i < c->n_weights; i++)
        order[i] = &c->weights[i];
    qsort(order, c->n_weights, sizeof *order, noisier);
    const size_t n = c->n_weights < N_WEIGHT_CHARTS ? c->n_weights : N_WEIGHT_CHARTS;
    text_add(t, "<h2>Weights by channel</h2>\n<p class=\"soft\">Largest magnitude in each output "
             "channel, on a logarithmic axis: %s, the noisiest first. Channels far below the "
             "others lose bits where all share one scale.</p>\n<div class=\"grid\">\n",
             n < c->n_weights ? "twelve of the weighted layers" : "all weighted layers");
    for (size_t i = 0; i < n; i++)
        add_weight_card(t, order[i]);
    text_add(t, "</div>\n");
    mem_free(order);
}

/* --- decisions -------------------------------------------------------------------------------- */

static void add_matrix(text *t, const comparison *c)
{
    text_add(t, "<div class=\"scroll\" tabindex=\"0\"><table class=\"matrix\"><thead><tr>"
             "<th class=\"left\">float \\ int8</th>");
    for (size_t i = 0; i < c->classes; i++)
        text_add(t, "<th>%zu</th>", i);
    text_add(t, "</tr></thead><tbody>\n");
    for (size_t from = 0; from < c->classes; from++) {
        const size_t all = decided(c, from);
        text_add(t, "<tr><th class=\"left\">%zu</th>", from);
        for (size_t to = 0; to < c->classes; to++) {
            const size_t n = c->confusion[from * c->classes + to];
            if (n == 0)
                text_add(t, "<td class=\"soft\">&middot;</td>");
            else
                text_add(t, "<td%s style=\"background:rgba(var(--cell),%.2f)\">%zu</td>",
                         from == to ? "" : " class=\"off\"",
                         from == to ? 0.35 * (double)n / (double)all : 0, n);
        }
        text_add(t, "</tr>\n");
    }
    text_add(t, "</tbody></table></div>\n");
}

static void add_changes(text *t, const comparison *c)
{
    change list[N_CHANGES];
    const size_t n = top_changes(c, list, N_CHANGES);
    if (n == 0) {
        text_add(t, "<p>No decision changed.</p>\n");
        return;
    }
    text_add(t, "<div class=\"scroll\" tabindex=\"0\"><table><thead><tr><th>Float decides</th>"
             "<th>int8 decides</th><th>Samples</th><th>Of the float model's</th></tr></thead>"
             "<tbody>\n");
    for (size_t i = 0; i < n; i++) {
        const size_t all = decided(c, list[i].from);
        text_add(t, "<tr><td>class %zu</td><td>class %zu</td><td>%zu</td>"
                 "<td>%.1f %% of %zu</td></tr>\n", list[i].from, list[i].to, list[i].count,
                 100.0 * (double)list[i].count / (double)all, all);
    }
    text_add(t, "</tbody></table></div>\n");
}

static void add_decisions(text *t, const comparison *c)
{
    if (!c->confusion)
        return;
    text_add(t, "<h2>Decisions</h2>\n<p class=\"soft\">Classes that the two models decide for, "
             "over %zu samples.</p>\n", c->samples);
    if (c->classes <= MAX_MATRIX)
        add_matrix(t, c);
    add_changes(t, c);
}

static void add_terms(text *t)
{
    text_add(t, "<details><summary>What the figures mean</summary>\n"
             "<p><b>SQNR</b>: 10 log10 of the sum of squares of the float values over that of the "
             "errors, over all samples. 20 dB is an error of a tenth, 40 dB of a hundredth.</p>\n"
             "<p><b>In the network</b>: the int8 model as it runs, with the errors of all layers "
             "before. <b>Layer alone</b>: the same integer layer, fed what the float model "
             "computes. <b>Codes alone</b>: the float values written in this tensor's codes and "
             "nothing else, rounding and clipping. <b>Output</b>, where it was asked for: of the "
             "network's worst output, the layer in integers and all others in float.</p>\n"
             "<p><b>Clipped</b>: values beyond what the codes reach.</p></details>\n");
}

/* The file's name without its folders. */
static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

rung_status report_compare_html(const comparison *c, char **out, rung_error *err)
{
    text t = { 0 };
    html_begin(&t, "rung compare");
    text_add(&t, "<h1>");
    html_name(&t, base_name(c->reference.title));
    text_add(&t, " against ");
    html_name(&t, base_name(c->model.title));
    text_add(&t, "</h1>\n<p class=\"soft\">%zu samples of ", c->samples);
    html_name(&t, c->data_title);
    text_add(&t, ", measured by rung " RUNG_VERSION ".%s</p>\n",
             c->random_data ? " Random data: sizes and speed are right, the rest is not." : "");
    add_facts(&t, c);
    add_totals(&t, c);
    text_add(&t, "<h2>Error along the network</h2>\n<p class=\"soft\"><span class=\"key "
             "is-int8\"></span>in the network &emsp;<span class=\"key ring\"></span>layer alone. "
             "Point at a tensor for its name.</p>\n");
    chart_sqnr(&t, c);
    add_worst(&t, c);
    add_weights(&t, c);
    add_decisions(&t, c);
    add_tensors(&t, c);
    add_terms(&t);
    html_end(&t);
    return text_take(&t, out, err);
}
