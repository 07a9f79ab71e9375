#include "train/observe.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "graph/pass.h"
#include "quant/fake.h"
#include "quant/qat.h"

/* The weight of one batch, as in PyTorch. */
#define SHARE 0.01f

/* A scale and the pairs that it is of. */
typedef struct observed {
    int          value;  /* the scale's id */
    int          scale;  /* in params.list, as the next two */
    int          zero;   /* -1: stays */
    int          weight; /* what alone it is of; -1: what the tape saw */
    int          source, new_zero; /* value ids of those; -1 */
    fake_layout  at;     /* of the weight */
    int          lo, hi; /* ends of the codes */
    dtype        type;
    int          bits;   /* of the codes that the range is for */
    bool         symmetric;
    size_t       channels;
    float       *range;  /* [2 channels]: minimum and maximum */
    float       *least;  /* [channels]: of a weight's scales */
} observed;

struct observers {
    arena        *mem;
    graph        *g;
    const params *p;
    observed     *list;
    size_t        n;
    float        *ranges; /* those of all */
    size_t        n_ranges;
    float        *now;    /* [2 channels] of any weight: its range after a step */
    bool         *watched;
    int          *by_value; /* by value id: of a scale the index in list, -1 */
};

static rung_status out_of_memory(const graph *g, rung_error *err)
{
    return fail_memory(err, "observers", g->n_values * sizeof(observed));
}

/* --- finding them ----------------------------------------------------------------------------- */

static observed describe(const graph *g, const fake_quantizer *f, const fake_nodes *n)
{
    const qat_observer how = qat_observer_of(g, g->values[n->scale].name, f);
    return (observed){ .value = n->scale, .zero = -1, .weight = -1, .source = -1, .new_zero = -1,
                       .lo = f->lo, .hi = f->hi, .type = fake_type(f), .bits = how.bits,
                       .symmetric = how.symmetric, .channels = tensor_count(f->scale) };
}

/* A weight that alone has its scale is ranged here, anything else by the tape. What only moves
 * values that were clipped to fewer codes has no Clip of its own: the fewest count. */
static rung_status join(const observers *o, const params *p, const fake_quantizer *f,
                        const fake_nodes *n, observed *k, bool first, rung_error *err)
{
    const int at = p->at[n->in];
    const bool weight = at >= 0 && p->list[at].kind == PARAM_WEIGHT && fake_about_zero(f);
    const int bits = qat_observer_of(o->g, o->g->values[n->scale].name, f).bits;
    if (k->type != fake_type(f) || (weight && !first && k->source >= 0 && k->source != n->in))
        return fail(err, RUNG_EUNSUPPORTED, "scale '%s' is that of several weights, or of "
                    "codes of several types: it cannot be observed", o->g->values[n->scale].name);
    if (first && weight)
        k->source = n->in;
    else if (k->source != n->in)
        k->source = -1;
    k->bits = bits < k->bits ? bits : k->bits;
    return RUNG_OK;
}

static rung_status take_pair(observers *o, const params *p, const fake_quantizer *f,
                             const fake_nodes *n, rung_error *err)
{
    int *at = &o->by_value[n->scale];
    const bool first = *at < 0;
    if (first) {
        *at = (int)o->n;
        o->list[o->n++] = describe(o->g, f, n);
    }
    return join(o, p, f, n, &o->list[*at], first, err);
}

static rung_status list_scales(observers *o, const params *p, const uses *u, rung_error *err)
{
    rung_status st = RUNG_OK;
    fake_quantizer f;
    fake_nodes n;
    for (size_t i = 0; i < o->g->n_nodes && st == RUNG_OK; i++)
        if (fake_read(o->g, u, (int)i, &f, &n) && p->at[n.scale] >= 0)
            st = take_pair(o, p, &f, &n, err);
    for (size_t i = 0; i < o->n && st == RUNG_OK; i++)
        if (o->list[i].source < 0 && o->list[i].channels != 1)
            st = fail(err, RUNG_EUNSUPPORTED, "scale '%s' has one number for each channel, but is "
                      "of more than one weight: it cannot be observed",
                      o->g->values[o->list[i].value].name);
    return st;
}

/* --- zero points ------------------------------------------------------------------------------ */

static bool moves(const observed *k)
{
    return k->source < 0 && !k->symmetric;
}

static int add_zero(observers *o, const observed *k, int zero)
{
    const char code = (char)zero;
    const tensor t = { .type = k->type, .data = (void *)(uintptr_t)&code };
    const char *name = arena_printf(o->mem, "%s_zero", o->g->values[k->value].name);
    return name ? graph_add_constant(o->g, name, &t) : -1;
}

static rung_status move_zero(observers *o, observed *k, const fake_quantizer *f,
                             const fake_nodes *n, rung_error *err)
{
    graph *g = o->g;
    if (k->new_zero < 0)
        k->new_zero = add_zero(o, k, f->zero ? (int)tensor_get_int(f->zero, 0) : 0);
    if (k->new_zero < 0)
        return out_of_memory(g, err);
    const rung_status st = node_set_input(g, &g->nodes[n->q], 2, k->new_zero, err);
    return st == RUNG_OK ? node_set_input(g, &g->nodes[n->dq], 2, k->new_zero, err) : st;
}

/* Equal zero points are one constant in the model; here they part. */
static rung_status part_zeros(observers *o, const uses *u, rung_error *err)
{
    rung_status st = RUNG_OK;
    fake_quantizer f;
    fake_nodes n;
    for (size_t i = 0; i < o->g->n_nodes && st == RUNG_OK; i++) {
        if (!fake_read(o->g, u, (int)i, &f, &n) || o->by_value[n.scale] < 0)
            continue;
        observed *k = &o->list[o->by_value[n.scale]];
        if (moves(k))
            st = move_zero(o, k, &f, &n, err);
    }
    return st;
}

static rung_status make_params(observers *o, params **p, rung_error *err)
{
    int *zeros = arena_alloc(o->mem, (o->n + 1) * sizeof *zeros);
    size_t n = 0;
    for (size_t i = 0; zeros && i < o->n; i++)
        if (o->list[i].new_zero >= 0)
            zeros[n++] = o->list[i].new_zero;
    return zeros ? params_create_with(o->g, zeros, n, p, err) : out_of_memory(o->g, err);
}

/* --- where the averages begin ----------------------------------------------------------------- */

static qparams params_of(const observed *k, float scale, int zero)
{
    return (qparams){ scale, zero, k->type, k->bits };
}

/* The range that the parameters are for. */
static void begin_activation(const observers *o, observed *k)
{
    const float scale = o->p->data[o->p->list[k->scale].first];
    const qparams p = params_of(k, scale, 0);
    const float lowest = (float)qparams_lowest(&p), highest = (float)qparams_highest(&p);
    if (k->symmetric) {
        k->range[1] = scale * (k->type == RUNG_I8 ? highest : highest / 2);
        k->range[0] = -k->range[1];
        return;
    }
    const float zero = o->p->data[o->p->list[k->zero].first];
    k->range[0] = scale * (lowest - zero);
    k->range[1] = scale * (highest - zero);
}

/* ends: [2 channels]. */
static void range_weight(const observers *o, const observed *k, const float *data, float *ends)
{
    const param *w = &o->p->list[k->weight];
    for (size_t c = 0; c < k->channels; c++) {
        ends[2 * c] = INFINITY;
        ends[2 * c + 1] = -INFINITY;
    }
    for (size_t i = 0, c = 0; i < w->count; c = c + 1 < k->channels ? c + 1 : 0) {
        for (const size_t end = i + k->at.inner; i < end; i++) {
            const float x = data[w->first + i];
            ends[2 * c] = fminf(ends[2 * c], x);
            ends[2 * c + 1] = fmaxf(ends[2 * c + 1], x);
        }
    }
}

/* The scale of a range about 0; 0: of nothing but zeros. */
static float weight_scale(const observed *k, const float ends[2])
{
    return fmaxf(fmaxf(-ends[0], ends[1]), 0) / ((float)(k->hi - k->lo) / 2);
}

/* Static quantization raises scales where a bias would not fit int32 otherwise: they fall no
 * lower. Rounding, and an average that lags behind, are no raise. */
static void begin_weight(const observers *o, observed *k)
{
    const float *scale = o->p->data + o->p->list[k->scale].first;
    range_weight(o, k, o->p->data, k->range);
    for (size_t c = 0; c < k->channels; c++)
        k->least[c] = scale[c] > 1.01f * weight_scale(k, k->range + 2 * c) ? scale[c] : 0;
}

static rung_status make_state(observers *o, rung_error *err)
{
    size_t at = 0, most = 0;
    for (size_t i = 0; i < o->n; i++) {
        o->n_ranges += 2 * o->list[i].channels;
        most = o->list[i].channels > most ? o->list[i].channels : most;
    }
    o->ranges = arena_zero(o->mem, o->n_ranges + 1, sizeof *o->ranges);
    o->now = arena_zero(o->mem, 2 * most + 1, sizeof *o->now);
    o->watched = arena_zero(o->mem, o->p->n + 1, sizeof *o->watched);
    if (!o->ranges || !o->now || !o->watched)
        return out_of_memory(o->g, err);
    for (size_t i = 0; i < o->n; i++) {
        observed *k = &o->list[i];
        k->scale = o->p->at[k->value];
        k->weight = k->source < 0 ? -1 : o->p->at[k->source];
        k->zero = k->new_zero < 0 ? -1 : o->p->at[k->new_zero];
        k->range = o->ranges + at;
        at += 2 * k->channels;
        if (!(k->least = arena_zero(o->mem, k->channels, sizeof *k->least)))
            return out_of_memory(o->g, err);
        o->watched[k->scale] = k->weight < 0;
        if (k->weight >= 0)
            begin_weight(o, k);
        else
            begin_activation(o, k);
    }
    return RUNG_OK;
}

/* --- making them ------------------------------------------------------------------------------ */

/* The layout of each weight; false: one that its scales do not fit. */
static rung_status lay_out(observers *o, const uses *u, rung_error *err)
{
    fake_quantizer f;
    fake_nodes n;
    for (size_t i = 0; i < o->g->n_nodes; i++) {
        if (!fake_read(o->g, u, (int)i, &f, &n) || o->by_value[n.scale] < 0)
            continue;
        observed *k = &o->list[o->by_value[n.scale]];
        if (k->source == n.in && !fake_layout_of(&f, o->g->values[n.in].constant, &k->at))
            return fail(err, RUNG_EMODEL, "weight '%s': its scales are not one for each channel",
                        o->g->values[n.in].name);
    }
    return RUNG_OK;
}

static rung_status make(observers *o, params **p, rung_error *err)
{
    params *plain = NULL;
    uses u;
    rung_status st = params_create(o->g, &plain, err);
    if (st == RUNG_OK)
        st = graph_uses(o->g, o->mem, &u, err);
    if (st != RUNG_OK || (st = list_scales(o, plain, &u, err)) != RUNG_OK ||
        (st = lay_out(o, &u, err)) != RUNG_OK || (st = part_zeros(o, &u, err)) != RUNG_OK ||
        (st = make_params(o, p, err)) != RUNG_OK)
        goto done;
    o->p = *p;
    st = make_state(o, err);
done:
    params_free(plain);
    return st;
}

rung_status observers_create(const graph *g, observers **out, params **p, rung_error *err)
{
    arena *mem = arena_new();
    observers *o = mem ? arena_zero(mem, 1, sizeof *o) : NULL;
    rung_status st = RUNG_OK;
    *out = NULL;
    *p = NULL;
    if (o) {
        o->mem = mem;
        o->list = arena_zero(mem, g->n_values + 1, sizeof *o->list);
        o->by_value = arena_alloc(mem, (g->n_values + 1) * sizeof *o->by_value);
    }
    if (!o || !o->list || !o->by_value) {
        arena_free(mem);
        return out_of_memory(g, err);
    }
    for (size_t v = 0; v < g->n_values; v++)
        o->by_value[v] = -1;
    if ((st = graph_clone(g, &o->g, err)) == RUNG_OK)
        st = make(o, p, err);
    if (st == RUNG_OK) {
        *out = o;
        return RUNG_OK;
    }
    params_free(*p);
    *p = NULL;
    observers_free(o);
    return st;
}

void observers_free(observers *o)
{
    if (!o)
        return;
    graph_free(o->g);
    arena_free(o->mem);
}

const graph *observers_graph(const observers *o)
{
    return o->g;
}

const bool *observers_watched(const observers *o)
{
    return o->watched;
}

void observers_state(const observers *o, void **data, size_t *size)
{
    *data = o->ranges;
    *size = o->n_ranges * sizeof *o->ranges;
}

/* --- a step ----------------------------------------------------------------------------------- */

/* What is not finite, or was not seen, counts nothing. */
static void average_range(float ends[2], float lo, float hi)
{
    if (!isfinite(lo) || !isfinite(hi))
        return;
    ends[0] += SHARE * (lo - ends[0]);
    ends[1] += SHARE * (hi - ends[1]);
}

static void put(const observers *o, int which, size_t channel, float x, float *data,
                float *average)
{
    const size_t at = o->p->list[which].first + channel;
    data[at] = x;
    if (average)
        average[at] = x;
}

static void step_activation(const observers *o, const observed *k, const float *seen, float *data,
                            float *average)
{
    bool repaired;
    average_range(k->range, -seen[2 * k->scale], seen[2 * k->scale + 1]);
    const qparams p = qparams_from_range(k->range[0], k->range[1], k->type, k->bits, k->symmetric,
                                         &repaired);
    put(o, k->scale, 0, p.scale, data, average);
    if (k->zero >= 0)
        put(o, k->zero, 0, (float)p.zero, data, average);
}

static void step_weight(const observers *o, const observed *k, float *data, float *average)
{
    range_weight(o, k, data, o->now);
    for (size_t c = 0; c < k->channels; c++) {
        average_range(k->range + 2 * c, o->now[2 * c], o->now[2 * c + 1]);
        const float scale = fmaxf(weight_scale(k, k->range + 2 * c), k->least[c]);
        if (scale > 0)
            put(o, k->scale, c, scale, data, average);
    }
}

void observers_step(observers *o, const float *seen, float *data, float *average)
{
    for (size_t i = 0; i < o->n; i++) {
        if (o->list[i].weight >= 0)
            step_weight(o, &o->list[i], data, average);
        else
            step_activation(o, &o->list[i], seen, data, average);
    }
}
