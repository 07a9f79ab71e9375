/* What is checked, repaired and reported before numbers become integers (docs/diagnostics.md). */
#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "quant/parts.h"

/* --- activations ------------------------------------------------------------------------------ */

static void skip_nodes_at(recipe *r, int v)
{
    for (size_t i = 0; i < r->n_nodes; i++) {
        const node *n = &r->g->nodes[i];
        bool touches = r->g->values[v].producer == (int)i;
        for (int k = 0; k < n->n_inputs; k++)
            touches |= n->inputs[k] == v;
        r->skip[i] |= touches;
    }
}

bool skip_unobserved(recipe *r)
{
    bool any = false;
    for (size_t v = 0; v < r->n_values; v++) {
        const placement *p = &r->places[v];
        if ((p->kind != PLACE_ACTIVATION && p->kind != PLACE_SHARED) ||
            r->places[p->shares].kind == PLACE_FIXED ||
            (r->observers[v] && observer_seen(r->observers[v])))
            continue;
        skip_nodes_at(r, (int)v);
        any = true;
    }
    return any;
}

size_t count_not_finite(const tensor *t)
{
    size_t n = 0;
    for (size_t i = 0; i < tensor_count(t); i++)
        n += !isfinite(((const float *)t->data)[i]);
    return n;
}

static bool never_finite(const recipe *r, int v)
{
    const observer *o = v >= 0 ? r->observers[v] : NULL;
    return o && observer_not_finite(o) && !observer_seen(o);
}

/* The weight, bias or constant of n that holds the most that is not finite; -1: they have none. */
static int broken_constant(const recipe *r, const node *n, size_t *count)
{
    int found = -1;
    *count = 0;
    for (int i = 0; i < n->n_inputs; i++) {
        const int v = n->inputs[i];
        const tensor *t = v >= 0 ? r->g->values[v].constant : NULL;
        const size_t bad = t && t->type == RUNG_F32 ? count_not_finite(t) : 0;
        if (bad > *count) {
            found = v;
            *count = bad;
        }
    }
    return found;
}

/* The input of n that made its output not finite: one that never was, or, where n's constants are
 * sound, one that was computed and not observed. -1: n itself did. */
static int broken_input(const recipe *r, const node *n)
{
    size_t bad;
    for (int i = 0; i < n->n_inputs; i++)
        if (never_finite(r, n->inputs[i]))
            return n->inputs[i];
    if (broken_constant(r, n, &bad) >= 0)
        return -1;
    for (int i = 0; i < n->n_inputs; i++) {
        const int v = n->inputs[i];
        if (v >= 0 && r->g->values[v].producer >= 0 && !r->observers[v])
            return v;
    }
    return -1;
}

/* `seen` was never finite: the sentence is about where that begins. */
static rung_status fail_not_finite(const recipe *r, int seen, rung_error *err)
{
    const node *n = NULL;
    for (int v = seen; v >= 0; v = n ? broken_input(r, n) : -1) {
        const int producer = r->g->values[v].producer;
        seen = never_finite(r, v) ? v : seen;
        n = producer >= 0 ? &r->g->nodes[producer] : NULL;
    }
    size_t bad;
    const int w = n ? broken_constant(r, n, &bad) : -1;
    const char *name = r->g->values[seen].name;
    if (w >= 0)
        return fail(err, RUNG_EMODEL,
                    "%s '%s': %zu of its %zu values are NaN or infinite, and so is all that "
                    "calibration saw of '%s'",
                    r->places[w].kind == PLACE_WEIGHT ? "weight" : "constant",
                    r->g->values[w].name, bad, tensor_count(r->g->values[w].constant), name);
    return fail(err, RUNG_EMODEL, "tensor '%s': not one of the %zu values seen in calibration is "
                "finite; look at %s", name, observer_not_finite(r->observers[seen]),
                n ? "the nodes before it" : "the data and its preprocessing");
}

rung_status check_observations(const recipe *r, rung_error *err)
{
    for (size_t v = 0; v < r->n_values; v++) {
        const observer *o = r->observers[v];
        const char *name = r->g->values[v].name;
        const size_t bad = o ? observer_not_finite(o) : 0, seen = o ? observer_seen(o) : 0;
        if (never_finite(r, (int)v))
            return fail_not_finite(r, (int)v, err);
        if (bad)
            diagnose(r->diag, "not-finite-activations", name,
                     "%zu of %zu values seen in calibration are NaN or infinite: its range is that "
                     "of the others", bad, bad + seen);
        else if (o && !seen)
            diagnose(r->diag, "unseen-tensor", name, "no value of it was seen in calibration: the "
                     "nodes that make or use it stay in float32");
    }
    return RUNG_OK;
}

/* --- one output channel ----------------------------------------------------------------------- */

/* What bounds the scale of a channel's weights from below. */
typedef struct channel {
    const tensor *w;
    int           axis; /* of the output channels */
    size_t        c;
    const qparams *x; /* of the input */
    float         bias;
} channel;

typedef enum trouble { FITS = 0, TINY, BIAS, SUM, HUGE_SCALE } trouble;

bool products_fit(const qparams *x, double weights, double bias)
{
    const bool wide = x->type == RUNG_U16 || x->type == RUNG_I16;
    return 255 * weights + (wide ? bias / 256 + INT32_MAX / 256 + 2 : bias) <= INT32_MAX;
}

static trouble channel_trouble(const channel *k, float scale)
{
    const float product = k->x->scale * scale;
    if (!isfinite(product))
        return HUGE_SCALE;
    if (product < FLT_MIN)
        return TINY;
    const double bias = isfinite(k->bias) ? nearbyint(fabs((double)k->bias / product)) : 0;
    if (bias > INT32_MAX)
        return BIAS;
    return products_fit(k->x, weight_code_sum(k->w, k->axis, k->c, scale), bias) ? FITS : SUM;
}

/* The smallest scale from `scale` on with which the channel fits (to float32 rounding). False:
 * there is none. */
static bool raise_scale(const channel *k, float *scale)
{
    float low = *scale, high = low;
    trouble t;
    while ((t = channel_trouble(k, high)) != FITS) {
        if (t == HUGE_SCALE)
            return false;
        low = high;
        high *= 2;
    }
    for (int i = 0; i < 30 && nextafterf(low, high) < high; i++) {
        const float middle = low + (high - low) / 2;
        if (channel_trouble(k, middle) == FITS)
            high = middle;
        else
            low = middle;
    }
    *scale = high;
    return true;
}

/* --- one node --------------------------------------------------------------------------------- */

typedef struct repairs {
    size_t count[SUM + 1]; /* by trouble */
    float  most;           /* largest factor */
} repairs;

static void report(const recipe *r, const node *n, size_t channels, const repairs *done)
{
    static const char *const codes[] = { NULL, "tiny-scale", "bias-overflow",
                                         "accumulator-overflow" };
    static const char *const what[] = { NULL, "the product of input and weight scale is under the "
                                        "smallest normal float32",
                                        "the bias does not fit int32 at input scale x weight scale",
                                        "sums of products could overflow int32" };
    char label[NODE_LABEL_SIZE];
    for (int t = TINY; t <= SUM; t++)
        if (done->count[t])
            diagnose(r->diag, codes[t], node_label(r->g, n, label, sizeof label),
                     "%zu of %zu output channels: %s; their weight scales were raised, at most by "
                     "a factor of %.3g", done->count[t], channels, what[t], (double)done->most);
}

static rung_status guard_node(recipe *r, const node *n, rung_error *err)
{
    char label[NODE_LABEL_SIZE];
    const int w = weight_of(r->g, n), b = bias_of(r->g, n), x = n->inputs[0];
    const placement *at = &r->places[w];
    const tensor *weight = r->g->values[w].constant;
    const tensor *bias = b >= 0 ? r->g->values[b].constant : NULL;
    const size_t channels = (size_t)weight->dims[at->channel_axis];
    const size_t n_bias = bias ? tensor_count(bias) : 0;
    repairs done = { { 0 }, 1 };
    /* A grouped ConvTranspose has more biases than its weight has channels on that axis. */
    for (size_t c = 0; c < (n_bias > channels ? n_bias : channels); c++) {
        const channel k = { weight, at->channel_axis, c % channels, read_params(r, n, x),
                            bias ? ((const float *)bias->data)[c] : 0 };
        float *scale = &r->scales[w][at->axis < 0 ? 0 : c % channels];
        const float before = *scale;
        const trouble t = channel_trouble(&k, before);
        if (t == FITS)
            continue;
        if (!raise_scale(&k, scale))
            return fail(err, RUNG_EMODEL,
                        "%s: no scale of its weight '%s' holds channel %zu in int32 sums; exclude "
                        "this node", node_label(r->g, n, label, sizeof label),
                        r->g->values[w].name, c);
        done.count[t]++;
        done.most = fmaxf(done.most, *scale / before);
    }
    report(r, n, channels, &done);
    return RUNG_OK;
}

/* --- weights ---------------------------------------------------------------------------------- */

static rung_status scale_weight(recipe *r, int v, rung_error *err)
{
    const tensor *w = r->g->values[v].constant;
    const char *name = r->g->values[v].name;
    const size_t n = weight_channels(w, r->places[v].axis), count = tensor_count(w);
    if (!(r->scales[v] = arena_zero(r->mem, n, sizeof(float))))
        return fail_memory(err, "weight scales", n * sizeof(float));
    const size_t bad = weight_scales(w, r->places[v].axis, r->scales[v]);
    for (size_t c = 0; c < n; c++)
        r->scales[v][c] *= 254 / (float)(weight_top_of(r, v) - weight_lowest_of(r, v));
    if (bad == count)
        return fail(err, RUNG_EMODEL, "weight '%s': not one of its %zu values is finite", name,
                    bad);
    if (bad)
        diagnose(r->diag, "not-finite-weights", name,
                 "%zu of %zu values are NaN or infinite: they are taken as 0", bad, count);
    return RUNG_OK;
}

static rung_status check_bias(recipe *r, int v, rung_error *err)
{
    const tensor *b = r->g->values[v].constant;
    const size_t count = tensor_count(b), bad = count_not_finite(b);
    if (count && bad == count)
        return fail(err, RUNG_EMODEL, "bias '%s': not one of its %zu values is finite",
                    r->g->values[v].name, bad);
    if (bad)
        diagnose(r->diag, "not-finite-weights", r->g->values[v].name,
                 "%zu of %zu values are NaN or infinite: they are taken as 0", bad, count);
    return RUNG_OK;
}

rung_status choose_scales(recipe *r, rung_error *err)
{
    rung_status st = RUNG_OK;
    for (size_t v = 0; v < r->n_values && st == RUNG_OK; v++) {
        if (r->places[v].kind == PLACE_WEIGHT)
            st = scale_weight(r, (int)v, err);
        else if (r->places[v].kind == PLACE_BIAS)
            st = check_bias(r, (int)v, err);
    }
    for (size_t i = 0; i < r->n_nodes && st == RUNG_OK; i++)
        if (r->quantized[i] && weight_of(r->g, &r->g->nodes[i]) >= 0)
            st = guard_node(r, &r->g->nodes[i], err);
    return st;
}
