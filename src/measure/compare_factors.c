/* Channels that the int8 model carries on another scale than the float model. Equalization (Nagel
 * 2019) and its kin multiply the channels of an activation by factors and divide them out of the
 * next layer again: the values keep their names, and must be held against the float values times
 * the factor. The factors are read off the weights: W'[o][i] = W[o][i] * fy[o] / fx[i]. */
#include <math.h>
#include <string.h>

#include "measure/compare_parts.h"

/* What rounding and clipping do to the size of a row is within this. */
#define LEAST_FACTOR 1.1
enum { FEW_CODES = 7 }; /* a row of so few codes says nothing */

/* [outer][channels][inner] */
static size_t channels_of(const tensor *t, size_t *inner)
{
    *inner = 1;
    for (int d = 2; d < t->rank; d++)
        *inner *= (size_t)t->dims[d];
    return t->rank < 2 ? 0 : (size_t)t->dims[1];
}

/* Where one row is beyond what rounding does, all have their own factor. */
static bool from_weights(const weight_record *w, const weight_source *s, const tensor_record *in,
                         float *factors)
{
    bool any = false;
    compare_weight_factors(w, s, in ? in->factors : NULL, in ? in->channels : 0, factors);
    for (size_t i = 0; i < w->channels; i++) {
        if (w->max_code[i] <= FEW_CODES || !isfinite(factors[i]) || factors[i] <= 0)
            factors[i] = 1;
        any = any || factors[i] > LEAST_FACTOR || factors[i] < 1 / LEAST_FACTOR;
    }
    return any;
}

/* Operators without weights pass the factors of what they read on: one behind the other in a
 * Concat, each for several elements in a row where an image is made flat. */
static bool passed_on(const comparison *c, const tensor_record *t, float *factors)
{
    const bool joins = strcmp(t->op_type, "Concat") == 0;
    bool any = false;
    size_t at = 0;
    for (int k = 0; k < t->n_inputs; k++) {
        const tensor_record *in = &c->tensors[t->inputs[k]];
        const size_t share = joins ? in->channels : t->channels;
        if (in->channels == 0 || at + share > t->channels || share % in->channels != 0)
            return false;
        for (size_t i = 0; i < share && in->factors; i++)
            factors[at + i] = in->factors[i / (share / in->channels)];
        any = any || in->factors;
        if (joins)
            at += share;
        else if (any)
            break;
    }
    return any;
}

rung_status compare_factors(comparison *c, const pairing *p, const tensor *const *like,
                            rung_error *err)
{
    for (size_t i = 0; i < c->n_tensors; i++) {
        tensor_record *t = &c->tensors[i];
        size_t inner;
        t->channels = channels_of(like[i], &inner);
        float *factors = arena_zero(c->mem, t->channels + 1, sizeof *factors);
        if (!factors)
            return fail_memory(err, "factors of channels", t->channels * sizeof *factors);
        for (size_t k = 0; k < t->channels; k++)
            factors[k] = 1;
        const weight_record *w = t->weights >= 0 ? &c->weights[t->weights] : NULL;
        const tensor_record *in = t->n_inputs == 1 ? &c->tensors[t->inputs[0]] : NULL;
        if (w && p->sources[t->weights].real && w->channels == t->channels)
            t->factors = from_weights(w, &p->sources[t->weights], in, factors) ? factors : NULL;
        else if (!w)
            t->factors = passed_on(c, t, factors) ? factors : NULL;
        for (size_t k = 0; k < t->channels && t->factors; k++)
            t->n_rescaled += factors[k] != 1;
        if (w)
            compare_weight_errors(&c->weights[t->weights], &p->sources[t->weights],
                                  in ? in->factors : NULL, in ? in->channels : 0, t->factors);
    }
    return RUNG_OK;
}

void compare_rescale(const tensor_record *t, const tensor *like, const float *x, float *out)
{
    size_t inner;
    const size_t channels = channels_of(like, &inner), n = tensor_count(like);
    if (!t->factors)
        memcpy(out, x, n * sizeof *out);
    for (size_t i = 0; i < n && t->factors; i++)
        out[i] = x[i] * t->factors[i / inner % channels];
}
