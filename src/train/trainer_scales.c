/* What is particular to FakeQuantize in a step: bounds of scales, and the dampening of weights that
 * swing between two codes: they are pulled to the middle of the one they are in. M. Nagel et al.,
 * Overcoming oscillations in quantization-aware training, ICML 2022, section 3.1. */
#include <math.h>

#include "quant/fake.h"
#include "train/trainer_parts.h"

/* --- scales ----------------------------------------------------------------------------------- */

rung_status count_codes(trainer *t, rung_error *err)
{
    uses u;
    fake_quantizer f;
    fake_nodes n;
    t->codes = arena_zero(t->mem, t->p->n + 1, sizeof *t->codes);
    if (!t->codes)
        return fail_memory(err, "training", t->p->n * sizeof *t->codes);
    const rung_status st = graph_uses(t->g, t->mem, &u, err);
    for (size_t i = 0; st == RUNG_OK && i < t->g->n_nodes; i++) {
        if (!fake_read(t->g, &u, (int)i, &f, &n) || t->p->at[n.scale] < 0)
            continue;
        int *codes = &t->codes[t->p->at[n.scale]];
        *codes = f.hi - f.lo > *codes ? f.hi - f.lo : *codes;
    }
    return st;
}

/* What was cut off does not stay in the momentum. */
static void bound(const trainer *t, size_t k, float share)
{
    const float now = t->p->data[k], was = t->before[k];
    const float kept = fminf(fmaxf(now, was * (1 - share)), was * (1 + share));
    if (kept == now)
        return;
    t->p->data[k] = kept;
    if (t->o->first)
        t->o->first[k] = 0;
}

void keep_scales(const trainer *t)
{
    for (size_t i = 0; i < t->p->n; i++) {
        const param *a = &t->p->list[i];
        for (size_t k = a->first; t->codes[i] && k < a->first + a->count; k++)
            bound(t, k, 1 / (float)(t->codes[i] + 1));
    }
}

/* --- dampening -------------------------------------------------------------------------------- */

/* Towards the middles of the rounding cells; beyond the ends of the codes nothing pulls. */
static void dampen_weight(const trainer *t, const fake_quantizer *f, const fake_nodes *n,
                          float factor, float *grad)
{
    const params *p = t->p;
    const param *w = &p->list[p->at[n->in]];
    fake_layout at;
    if (!fake_layout_of(f, t->g->values[n->in].constant, &at))
        return;
    const float *scales = p->at[n->scale] < 0 ? f->scale->data
                                              : p->data + p->list[p->at[n->scale]].first;
    for (size_t i = 0; i < w->count; i++) {
        const float s = scales[i / at.inner % at.channels], x = p->data[w->first + i];
        const float kept = fminf(fmaxf(x, s * (float)f->lo), s * (float)f->hi);
        grad[w->first + i] += factor * (kept - s * nearbyintf(kept / s));
    }
}

rung_status dampen(const trainer *t, float *grad, rung_error *err)
{
    const size_t total = t->opt.optimizer.total;
    const double share = total && t->o->step < total ? (double)t->o->step / (double)total : 1;
    const double weight = t->opt.dampen * 0.5 * (1 - cos(3.14159265358979323846 * share));
    arena *mem = arena_new();
    uses u;
    fake_quantizer f;
    fake_nodes n;
    const rung_status st = mem ? graph_uses(t->g, mem, &u, err)
                               : fail_memory(err, "dampening", t->g->n_values * sizeof(int));
    for (size_t i = 0; st == RUNG_OK && i < t->g->n_nodes; i++)
        if (fake_read(t->g, &u, (int)i, &f, &n) && t->p->at[n.in] >= 0 &&
            t->p->list[t->p->at[n.in]].kind == PARAM_WEIGHT)
            dampen_weight(t, &f, &n, (float)(2 * weight), grad);
    arena_free(mem);
    return st;
}
