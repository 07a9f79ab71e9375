/* Figures and words that the text, the JSON and the page share. */
#include <math.h>
#include <string.h>

#include "measure/scores.h"
#include "report/compare.h"

double tensor_input_db(const comparison *c, const tensor_record *t)
{
    double least = NAN;
    for (int i = 0; i < t->n_inputs; i++) {
        const tensor_record *in = &c->tensors[t->inputs[i]];
        const double db = decibels(in->signal, in->noise);
        least = isnan(least) || db < least ? db : least;
    }
    return least;
}

double percent_clipped(const tensor_record *t)
{
    return t->count ? 100.0 * (double)t->n_clipped / (double)t->count : 0;
}

double effect_db(const comparison *c, const tensor_record *t)
{
    return t->effect.noise ? decibels(1, comparison_effect(c, t)) : NAN;
}

double effect_agreement(const comparison *c, const tensor_record *t)
{
    if (!t->effect.noise || !c->classes)
        return -1;
    return 100 - 100 * (double)t->effect.changed / (double)c->effect_samples;
}

double effect_top1(const comparison *c, const tensor_record *t)
{
    if (!t->effect.noise || !c->classes || !c->effect_labelled)
        return -1;
    return 100 * (double)t->effect.right / (double)c->effect_labelled;
}

size_t rescaled_tensors(const comparison *c)
{
    size_t n = 0;
    for (size_t i = 0; i < c->n_tensors; i++)
        n += c->tensors[i].n_rescaled > 0;
    return n;
}

double output_db(const comparison *c)
{
    double least = NAN;
    for (int i = 0; i < c->n_outputs; i++) {
        const double db = decibels(c->outputs[i].signal, c->outputs[i].noise);
        least = isnan(least) || db < least ? db : least;
    }
    return least;
}

void weight_span(const weight_record *w, double *least, double *most)
{
    *most = 0;
    for (size_t i = 0; i < w->channels; i++)
        *most = fmax(*most, w->max[i]);
    *least = *most;
    for (size_t i = 0; i < w->channels; i++)
        if (w->max[i] > 1e-6 * *most)
            *least = fmin(*least, w->max[i]);
    if (!(*most > 0))
        *least = *most = 1;
}

void text_add_db(text *t, double db)
{
    if (isnan(db))
        text_add(t, "-");
    else if (isinf(db))
        text_add(t, "exact");
    else
        text_add(t, "%.1f dB", db);
}

void text_add_bytes(text *t, size_t n)
{
    if (n < 1000000)
        text_add(t, "%.1f kB", (double)n / 1e3);
    else
        text_add(t, "%.2f MB", (double)n / 1e6);
}

size_t decided(const comparison *c, size_t from)
{
    size_t n = 0;
    for (size_t to = 0; to < c->classes && c->confusion; to++)
        n += c->confusion[from * c->classes + to];
    return n;
}

size_t top_changes(const comparison *c, change *list, size_t n)
{
    size_t found = 0;
    const size_t cells = c->confusion ? c->classes * c->classes : 0;
    for (size_t i = 0; i < cells; i++) {
        const change one = { i / c->classes, i % c->classes, c->confusion[i] };
        if (one.from == one.to || one.count == 0)
            continue;
        size_t at = found < n ? found++ : n;
        for (; at > 0 && one.count > list[at - 1].count; at--)
            if (at < n)
                list[at] = list[at - 1];
        if (at < n)
            list[at] = one;
    }
    return found;
}
