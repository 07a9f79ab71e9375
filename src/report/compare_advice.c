/* What the figures of a layer say, and which options of `rung quantize` act on it. */
#include <math.h>

#include "measure/scores.h"
#include "report/compare.h"

/* An error this small is no reason to do anything. */
#define HARMLESS_DB 40.0
/* A normal distribution spans about 8 to 10 of its root mean squares in so many samples. */
#define OUTLYING 24.0

/* Noise in relation to signal. */
static double share_of(double noise, double signal)
{
    return signal > 0 ? noise / signal : 0;
}

causes tensor_causes(const comparison *c, const tensor_record *t)
{
    double noise = 0, signal = 0;
    for (int i = 0; i < t->n_inputs; i++) {
        const tensor_record *in = &c->tensors[t->inputs[i]];
        noise += in->round_noise + in->clip_noise;
        signal += in->signal;
    }
    const weight_record *w = t->weights >= 0 ? &c->weights[t->weights] : NULL;
    return (causes){ share_of(t->clip_noise, t->signal), share_of(t->round_noise, t->signal),
                     w && w->known ? share_of(w->noise, w->signal) : 0, share_of(noise, signal) };
}

static void add_exclude(text *t, const tensor_record *of)
{
    if (of->node_name[0]) {
        text_add(t, "--exclude '%s' keeps this layer in float.", of->node_name);
    } else if (of->op_type[0]) {
        text_add(t, "--exclude %s keeps every %s in float (this one has no name).", of->op_type,
                 of->op_type);
    } else {
        text_add(t, "--exclude keeps the layers that read it in float.");
    }
}

static void advise_clipping(text *t, const tensor_record *of)
{
    text_add(t, "Clipping: %.3g %% of the values lie outside the %.4g to %.4g that the codes "
             "reach, and make most of the error. Try --range minmax, or --range percentile with a "
             "higher --percentile.", percent_clipped(of), of->clip_lo, of->clip_hi);
}

static void advise_rounding(text *t, const tensor_record *of)
{
    const double rms = sqrt(of->signal / (double)of->count), used = of->hi - of->lo;
    const double reach = of->clip_hi - of->clip_lo;
    if (used < 0.5 * reach) {
        text_add(t, "Wide codes: the values seen span %.0f %% of what the codes reach (a shared or "
                 "a fixed range, or calibration data of another kind). Calibrate on "
                 "data like this; or ", 100 * used / reach);
        add_exclude(t, of);
    } else if (reach > OUTLYING * rms) {
        text_add(t, "Outliers: for the sake of few values the codes reach over %.0f times the root "
                 "mean square, in steps of %.3g. Try another --range (percentile cuts them off). ",
                 reach / rms, of->scale);
        add_exclude(t, of);
    } else {
        text_add(t, "Activations: a step of %.3g against a root mean square of %.3g is all that 8 "
                 "bits give over this range. ", of->scale, rms);
        add_exclude(t, of);
    }
}

static void advise_weights(text *t, const comparison *c, const tensor_record *of)
{
    const weight_record *w = &c->weights[of->weights];
    double least, most;
    weight_span(w, &least, &most);
    if (!w->per_channel) {
        text_add(t, "Weights: one scale for channels whose largest weights differ by a factor of "
                 "%.0f (%zu of %zu use less than 4 bits). Try --weight-scheme per-channel.",
                 most / least, w->n_coarse, w->channels);
        return;
    }
    text_add(t, "Weights: a few large ones in each channel leave few codes for the others "
             "(%.1f dB). ", decibels(w->signal, w->noise));
    add_exclude(t, of);
}

static void advise_inputs(text *t, const comparison *c, const tensor_record *of)
{
    const tensor_record *worst = NULL;
    for (int i = 0; i < of->n_inputs; i++) {
        const tensor_record *in = &c->tensors[of->inputs[i]];
        if (!worst || share_of(in->round_noise + in->clip_noise, in->signal) >
                          share_of(worst->round_noise + worst->clip_noise, worst->signal))
            worst = in;
    }
    text_add(t, "Inputs: most of the error comes from the codes of '%s', ", worst->name);
    if (worst->clip_noise > worst->round_noise)
        text_add(t, "which are clipped. Try --range minmax, or a higher --percentile. ");
    else
        text_add(t, "whose step is coarse for this layer. Another --range may suit it; or ");
    add_exclude(t, of);
}

void tensor_advice(text *t, const comparison *c, const tensor_record *of)
{
    const causes k = tensor_causes(c, of);
    const double most = fmax(fmax(k.clipping, k.rounding), fmax(k.weights, k.inputs));
    if (decibels(of->signal, of->own_noise) >= HARMLESS_DB || of->own_noise == 0)
        text_add(t, "Its own error is small; nothing to do here.");
    else if (most == k.clipping)
        advise_clipping(t, of);
    else if (most == k.weights)
        advise_weights(t, c, of);
    else if (most == k.inputs && of->n_inputs > 0)
        advise_inputs(t, c, of);
    else
        advise_rounding(t, of);
}
