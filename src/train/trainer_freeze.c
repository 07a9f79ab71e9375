/* Iterative weight freezing: M. Nagel et al., Overcoming oscillations in quantization-aware
 * training, ICML 2022, section 3.2 and algorithm 1. */
#include <math.h>

#include "base/mem.h"
#include "quant/fake.h"
#include "train/trainer_parts.h"

/* The weight of the present step in both averages, as in the paper. */
#define SHARE 0.01f

struct freezer {
    arena  *mem;
    swing  *swings; /* [p->total]: only those of weights mean something */
    size_t  total;
    float   threshold;
    int     n;
    struct frozen_weight {
        const param    *w;
        int             scale; /* in params.list; -1: constant */
        fake_quantizer  f;
        fake_layout     at;
    } *list;
};

/* --- one weight ------------------------------------------------------------------------------- */

bool swing_see(swing *s, float code, float threshold)
{
    const float moved = code - s->code;
    if (s->frozen)
        return true;
    const bool turned = moved * s->direction < 0;
    s->often += SHARE * ((turned ? 1 : 0) - s->often);
    s->mean += SHARE * (code - s->mean);
    s->code = code;
    if (moved != 0)
        s->direction = moved < 0 ? -1 : 1;
    if (s->often <= threshold)
        return false;
    s->frozen = 1;
    s->code = nearbyintf(s->mean);
    return true;
}

static float code_of(const fake_quantizer *f, float x, float scale)
{
    return fminf(fmaxf(nearbyintf(x / scale), (float)f->lo), (float)f->hi);
}

/* --- all -------------------------------------------------------------------------------------- */

typedef struct frozen_weight frozen_weight;

static const float *scales_of(const params *p, const frozen_weight *k, const float *data)
{
    return k->scale < 0 ? k->f.scale->data : data + p->list[k->scale].first;
}

static void begin_weight(const params *p, const frozen_weight *k, swing *swings)
{
    const float *scales = scales_of(p, k, p->data);
    for (size_t i = 0; i < k->w->count; i++) {
        const float scale = scales[i / k->at.inner % k->at.channels];
        const float code = code_of(&k->f, p->data[k->w->first + i], scale);
        swings[k->w->first + i] = (swing){ .code = code, .mean = code };
    }
}

static bool is_listed(const freezer *z, const param *w)
{
    for (int i = 0; i < z->n; i++)
        if (z->list[i].w == w)
            return true;
    return false;
}

static rung_status list_weights(freezer *z, const graph *g, const params *p, rung_error *err)
{
    uses u;
    fake_nodes n;
    const rung_status st = graph_uses(g, z->mem, &u, err);
    for (size_t i = 0; st == RUNG_OK && i < g->n_nodes; i++) {
        frozen_weight k;
        if (!fake_read(g, &u, (int)i, &k.f, &n) || p->at[n.in] < 0 || !fake_about_zero(&k.f))
            continue;
        k.w = &p->list[p->at[n.in]];
        k.scale = p->at[n.scale];
        if (k.w->kind == PARAM_WEIGHT && !is_listed(z, k.w) &&
            fake_layout_of(&k.f, g->values[n.in].constant, &k.at))
            z->list[z->n++] = k;
    }
    return st;
}

rung_status freezer_create(const graph *g, const params *p, float threshold, freezer **out,
                           rung_error *err)
{
    arena *mem = arena_new();
    freezer *z = mem ? arena_zero(mem, 1, sizeof *z) : NULL;
    *out = NULL;
    if (z) {
        *z = (freezer){ .mem = mem, .total = p->total, .threshold = threshold };
        z->swings = arena_zero(mem, p->total + 1, sizeof *z->swings);
        z->list = arena_zero(mem, p->n + 1, sizeof *z->list);
    }
    if (!z || !z->swings || !z->list) {
        arena_free(mem);
        return fail_memory(err, "freezing", p->total * sizeof(swing));
    }
    const rung_status st = list_weights(z, g, p, err);
    for (int i = 0; i < z->n && st == RUNG_OK; i++)
        begin_weight(p, &z->list[i], z->swings);
    if (st == RUNG_OK)
        *out = z;
    else
        arena_free(mem);
    return st;
}

void freezer_free(freezer *z)
{
    if (z)
        arena_free(z->mem);
}

void freezer_state(freezer *z, void **data, size_t *size)
{
    *data = z->swings;
    *size = z->total * sizeof *z->swings;
}

static void move_weight(freezer *z, const params *p, const frozen_weight *k, float *average)
{
    const float *scales = scales_of(p, k, p->data);
    const float *average_scales = average ? scales_of(p, k, average) : NULL;
    for (size_t i = 0; i < k->w->count; i++) {
        const size_t at = k->w->first + i, c = i / k->at.inner % k->at.channels;
        swing *s = &z->swings[at];
        if (!swing_see(s, code_of(&k->f, p->data[at], scales[c]), z->threshold))
            continue;
        p->data[at] = s->code * scales[c];
        if (average)
            average[at] = s->code * average_scales[c];
    }
}

void freezer_step(freezer *z, const params *p, float *average)
{
    for (int i = 0; i < z->n; i++)
        move_weight(z, p, &z->list[i], average);
}
