/* Float steps, and the pairs that stand alone. */
#include "engine/draft.h"

#include <string.h>

#include "nn/nn.h"
#include "ops/lower_wide.h"

/* Constants behind a DQ (weight-only models) are made now, so that they can be packed. */
static rung_status float_inputs(plan *p, draft *d, form f, rung_error *err)
{
    const node *n = d->l.n;
    for (int i = 0; i < n->n_inputs; i++) {
        const int v = n->inputs[i];
        int made;
        if (v >= 0 && !value_is_variable(p, v) && !p->constant[v]) {
            const rung_status st = slot_need(p, v, FORM_RAW, &made, err);
            if (st != RUNG_OK)
                return st;
        }
        d->in_values[i] = v;
        d->in_forms[i] = v >= 0 && p->constant[v] ? FORM_RAW : f;
        d->l.in[i] = v < 0 ? (operand){.type = RUNG_UNDEFINED} : operand_of(p, v, d->in_forms[i]);
        if (v >= 0 && !p->constant[v] && !operand_has_elements(&d->l.in[i]))
            return fail(err, RUNG_EUNSUPPORTED, "an input is empty");
    }
    return RUNG_OK;
}

/* The other operand of the absorbed Add becomes the last input. */
static void add_residual(const plan *p, const plan_unit *u, draft *d, form f)
{
    if (!u->add)
        return;
    const int other = u->add->inputs[u->add->inputs[0] == u->n->outputs[0]];
    const int i = d->l.n_in++;
    d->in_values[i] = other;
    d->in_forms[i] = f;
    d->l.in[i] = operand_of(p, other, f);
    d->l.epi.add = i;
}

static bool has_variable_parameters(const plan *p, const node *n)
{
    for (int i = 1; i < n->n_inputs; i++)
        if (value_is_variable(p, n->inputs[i]))
            return true;
    return false;
}

/* One float step for n and what u absorbs: nn's row, or a plain movement. */
rung_status emit_fast(plan *p, const plan_unit *u, rung_error *err)
{
    const node *n = u->n;
    draft d;
    form in_form, out_form;
    rung_status st = emit_packed(p, u, err);
    if (st != RUNG_EUNSUPPORTED)
        return st;
    if (n->op->layout == LAYOUT_CHANNELS && has_variable_parameters(p, n))
        return fail(err, RUNG_EUNSUPPORTED, "its weights are computed");
    st = draft_new(p, n, &d, err);
    draft_forms(p, n, false, &in_form, &out_form);
    if (st == RUNG_OK)
        st = float_inputs(p, &d, in_form, err);
    for (int i = 0; i < n->n_outputs && st == RUNG_OK; i++) {
        d.out_values[i] = -1;
        if (n->outputs[i] >= 0)
            st = draft_output(p, &d, i, n->outputs[i], out_form, err);
    }
    if (st != RUNG_OK)
        return st;
    add_residual(p, u, &d, out_form);
    const node *last = u->clamp ? u->clamp : u->add;
    if (last)
        st = draft_output(p, &d, 0, last->outputs[0], out_form, err);
    if (u->clamp)
        d.l.epi.clamp = clamp_bounds(p, u->clamp, &d.l.epi.lo, &d.l.epi.hi);
    step s = {0};
    if (st == RUNG_OK)
        st = lower_moves(n->op) ? n->op->lower(&d.l, &s, err) : nn_lower(&d.l, &s, err);
    return st == RUNG_OK ? draft_add(p, &d, &s, false, err) : st;
}

static bool wants_channels_last(const plan *p, int id)
{
    const int *u = p->use.list + p->use.first[id], *end = p->use.list + p->use.first[id + 1];
    bool all = u < end && !p->g->values[id].is_output;
    for (; all && u < end; u++)
        all = p->g->nodes[*u].op && p->g->nodes[*u].op->layout == LAYOUT_CHANNELS;
    return all;
}

/* Whether a few planes are only read channels-last, behind the DequantizeLinears that follow: then
 * they are quantized to that form at once. */
static bool quantizes_planes(const plan *p, const node *n)
{
    const int x = n->inputs[0], y = n->outputs[0];
    const int *u = p->use.list + p->use.first[y], *end = p->use.list + p->use.first[y + 1];
    bool all = u < end && !p->g->values[y].is_output && !p->constant[x] && p->info[y].rank >= 3 &&
               p->info[y].dims[1] <= QUANTIZE_PLANES_MAX;
    for (; all && u < end; u++)
        all = is_dequantize(&p->g->nodes[*u]) && wants_channels_last(p, p->g->nodes[*u].outputs[0]);
    return all;
}

/* Whether x is made by a DequantizeLinear of codes, whose parameters then are those of `codes`. */
static bool is_dequantized(const plan *p, int x, operand *codes)
{
    if (!value_is_quantized_source(p, x))
        return false;
    const node *dq = &p->g->nodes[p->g->values[x].producer];
    codes->quantized = true;
    return quant_params(p, dq, &codes->scale, &codes->zero);
}

/* Codes behind codes, in other parameters or of another width, need no float32 between them. */
rung_status emit_quantize(plan *p, const node *n, rung_error *err)
{
    draft d;
    int x = n->inputs[0];
    const int y = n->outputs[0];
    operand codes = {0};
    float scale;
    int zero;
    if (!quant_params(p, n, &scale, &zero) || p->info[x].type != RUNG_F32 ||
        dims_count(p->info[x].rank, p->info[x].dims) == 0)
        return eval_step(p, n, err);
    rung_status st = draft_new(p, n, &d, err);
    if (st != RUNG_OK)
        return st;
    const bool rescales = is_dequantized(p, x, &codes);
    if (rescales)
        x = p->g->nodes[p->g->values[x].producer].inputs[0];
    const form f = p->constant[x] ? FORM_PLAIN : slot_prefers(p, x);
    const bool planes = !rescales && f == FORM_PLAIN && quantizes_planes(p, n);
    d.l.n_in = 1;
    d.in_values[0] = x;
    d.in_forms[0] = f;
    d.l.in[0] = operand_of(p, x, f);
    d.l.in[0].quantized = rescales;
    d.l.in[0].scale = codes.scale;
    d.l.in[0].zero = codes.zero;
    st = draft_output(p, &d, 0, y, planes ? FORM_LAST : f, err);
    d.l.out[0].quantized = true;
    d.l.out[0].scale = scale;
    d.l.out[0].zero = zero;
    d.l.q_hi = stored_top(&d.l.out[0]);
    step s = {0};
    if (st == RUNG_OK)
        st = rescales ? lower_rescale(&d.l, &s, err) : lower_quantize(&d.l, &s, err);
    return st == RUNG_OK ? draft_add(p, &d, &s, rescales, err) : st;
}

rung_status emit_dequantize(plan *p, const node *n, form f, rung_error *err)
{
    draft d;
    const int x = n->inputs[0], y = n->outputs[0];
    float scale;
    int zero;
    if (p->constant[x] || !quant_params(p, n, &scale, &zero) || p->info[y].type != RUNG_F32 ||
        dims_count(p->info[x].rank, p->info[x].dims) == 0)
        return eval_step(p, n, err);
    rung_status st = draft_new(p, n, &d, err);
    if (st != RUNG_OK)
        return st;
    f = f == FORM_RAW ? FORM_PLAIN : f;
    d.l.n_in = 1;
    d.in_values[0] = x;
    d.in_forms[0] = form_of(p, x, f);
    d.l.in[0] = operand_of(p, x, f);
    d.l.in[0].quantized = true;
    d.l.in[0].scale = scale;
    d.l.in[0].zero = zero;
    st = draft_output(p, &d, 0, y, f, err);
    step s = {0};
    if (st == RUNG_OK)
        st = lower_dequantize(&d.l, &s, err);
    return st == RUNG_OK ? draft_add(p, &d, &s, false, err) : st;
}
