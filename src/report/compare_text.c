/* A comparison for the terminal. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "measure/scores.h"
#include "report/compare.h"

static void add_model(text *t, const char *what, const model_record *m)
{
    text_add(t, "%-11s", what);
    if (m->file_bytes)
        text_add_bytes(t, m->file_bytes);
    else
        text_add_bytes(t, m->constant_bytes);
    text_add(t, ", %.4g ms", m->median_ms);
    if (m->top1 >= 0)
        text_add(t, ", top-1 %.2f %%, top-5 %.2f %%", m->top1, m->top5);
    text_add(t, "\n");
}

static void add_totals(text *t, const comparison *c)
{
    const double a = (double)(c->reference.file_bytes ? c->reference.file_bytes
                                                      : c->reference.constant_bytes);
    const double b = (double)(c->model.file_bytes ? c->model.file_bytes : c->model.constant_bytes);
    add_model(t, "float", &c->reference);
    add_model(t, "int8", &c->model);
    text_add(t, "%-11s%.2f times smaller, %.2f times as fast (%d threads, %d rounds in turns)\n",
             "gain", b > 0 ? a / b : 0, c->speedup, c->threads, c->latency_rounds);
    if (c->agreement >= 0)
        text_add(t, "%-11s%.2f %% of top-1 over %zu samples\n", "agreement", c->agreement,
                 c->samples);
    text_add(t, "%-11s", "SQNR");
    text_add_db(t, output_db(c));
    text_add(t, c->n_outputs == 1 ? " at the output\n" : " at the worst output\n");
    text_add(t, "%-11s%zu quantized tensors compared", "tensors", c->n_tensors);
    if (c->n_unmatched)
        text_add(t, ", %zu have no namesake in the float model", c->n_unmatched);
    if (rescaled_tensors(c))
        text_add(t, ", %zu with rescaled channels", rescaled_tensors(c));
    text_add(t, "\n");
}

static void add_changes(text *t, const comparison *c)
{
    change list[5];
    const size_t n = top_changes(c, list, sizeof list / sizeof *list);
    for (size_t i = 0; i < n; i++)
        text_add(t, "%-11sclass %zu becomes %zu: %zu of its %zu samples\n", i ? "" : "changes",
                 list[i].from, list[i].to, list[i].count, decided(c, list[i].from));
}

static void add_column(text *t, double db)
{
    text one = { 0 };
    text_add_db(&one, db);
    text_add(t, "%10s", one.s ? one.s : "");
    t->failed = t->failed || one.failed;
    char *s = NULL;
    if (text_take(&one, &s, NULL) == RUNG_OK)
        mem_free(s);
}

/* In lines of at most WIDTH columns behind an indent; a longer word has a line of its own. */
static void add_advice(text *t, const comparison *c, const tensor_record *r)
{
    enum { INDENT = 6, WIDTH = 84 };
    text one = { 0 };
    char *words = NULL;
    tensor_advice(&one, c, r);
    if (text_take(&one, &words, NULL) != RUNG_OK) {
        t->failed = true;
        return;
    }
    int column = 0;
    for (const char *at = words; *at;) {
        const int n = (int)strcspn(at, " ");
        const bool begins = column == 0 || column + 1 + n > WIDTH;
        text_add(t, "%s%*s%.*s", begins && column ? "\n" : "", begins ? INDENT : 1, "", n, at);
        column = (begins ? INDENT : column + 1) + n;
        at += n + (at[n] == ' ');
    }
    text_add(t, "\n");
    mem_free(words);
}

static void add_cost(text *t, const comparison *c, const tensor_record *r)
{
    text_add(t, "      %.2f %% of the multiply-accumulates, %.4g ms; %.4g ms in float",
             c->macs ? 100 * (double)r->macs / (double)c->macs : 0, r->int8_ms, r->float_ms);
    if (effect_agreement(c, r) >= 0)
        text_add(t, "; alone it keeps %.2f %% of top-1", effect_agreement(c, r));
    text_add(t, "\n");
}

static void add_worst(text *t, const comparison *c)
{
    size_t worst[N_WORST];
    const size_t n = comparison_worst(c, N_WORST, worst);
    const bool effects = c->effect_samples > 0;
    text_add(t, "\nThe layers that add most error (alone: fed what the float model computes;\n"
             "network: behind all the layers before it");
    text_add(t, effects ? ";\noutput: of the network in float but for this layer, %zu samples)\n\n"
                        : ")\n\n", c->effect_samples);
    text_add(t, "%4s", "");
    if (effects)
        text_add(t, "%10s", "output");
    text_add(t, "%10s%10s%10s  %s\n", "alone", "network", "clipped", "layer");
    for (size_t i = 0; i < n; i++) {
        const tensor_record *r = &c->tensors[worst[i]];
        text_add(t, "%3zu ", i + 1);
        if (effects)
            add_column(t, effect_db(c, r));
        add_column(t, decibels(r->signal, r->own_noise));
        add_column(t, decibels(r->signal, r->noise));
        text_add(t, "%8.2g %%  ", percent_clipped(r));
        text_add(t, "%s\n", r->node);
        if (effects)
            add_cost(t, c, r);
        add_advice(t, c, r);
    }
}

rung_status report_compare_text(const comparison *c, char **out, rung_error *err)
{
    text t = { 0 };
    add_totals(&t, c);
    add_changes(&t, c);
    add_worst(&t, c);
    return text_take(&t, out, err);
}
