/* Integer steps: Q/DQ pairs vanish in the parameters of the operands. */
#include "engine/draft.h"

#include <math.h>

#include "kernels/arith.h"
#include "ops/lower_wide.h"

/* One zero point for the whole constant: what weights of integer kernels have. */
static rung_status constant_zero(const plan *p, const node *dq, operand *o, rung_error *err)
{
    o->zero = 0;
    if (dq->n_inputs < 3 || dq->inputs[2] < 0)
        return RUNG_OK;
    const tensor *z = p->constant[dq->inputs[2]];
    if (!z)
        return fail(err, RUNG_EUNSUPPORTED, "the zero point of '%s' is not constant", o->name);
    for (size_t i = 0; i < tensor_count(z); i++)
        if (tensor_get_int(z, i) != tensor_get_int(z, 0))
            return fail(err, RUNG_EUNSUPPORTED, "the zero points of '%s' differ", o->name);
    o->zero = tensor_count(z) ? (int)tensor_get_int(z, 0) : 0;
    return RUNG_OK;
}

static rung_status constant_scales(const plan *p, const node *dq, operand *o, rung_error *err)
{
    const tensor *s = p->constant[dq->inputs[1]];
    if (!s || s->type != RUNG_F32 || node_int(dq, "block_size", 0) != 0)
        return fail(err, RUNG_EUNSUPPORTED,
                    "the scale of '%s' is not float32 per channel or tensor", o->name);
    const size_t count = tensor_count(s);
    const int64_t axis = node_int(dq, "axis", 1);
    o->axis = (int)(axis < 0 ? axis + o->rank : axis);
    if (count != 1 && (o->axis < 0 || o->axis >= o->rank || (int64_t)count != o->dims[o->axis]))
        return fail(err, RUNG_EMODEL, "the scale of '%s' has %zu elements", o->name, count);
    o->scales = s->data;
    o->n_scales = (int)count;
    for (size_t i = 0; i < count; i++)
        if (!(isfinite(o->scales[i]) && o->scales[i] > 0))
            return fail(err, RUNG_EUNSUPPORTED, "scale %zu of '%s' is not positive", i, o->name);
    o->scale = o->scales[0];
    return RUNG_OK;
}

/* Operand i of an integer unit: a constant, a constant behind a DQ, or a quantized activation. */
static rung_status integer_input(plan *p, draft *d, int i, form f, rung_error *err)
{
    operand *o = &d->l.in[i];
    const int v = d->l.n->inputs[i];
    d->in_values[i] = v;
    d->in_forms[i] = FORM_RAW;
    if (v < 0) {
        *o = (operand){.type = RUNG_UNDEFINED};
        return RUNG_OK;
    }
    const int producer = p->g->values[v].producer;
    const node *dq =
        producer >= 0 && is_dequantize(&p->g->nodes[producer]) ? &p->g->nodes[producer] : NULL;
    if (!dq) {
        *o = operand_of(p, v, FORM_RAW);
        return RUNG_OK;
    }
    const int source = dq->inputs[0];
    d->in_values[i] = source;
    if (p->constant[source]) {
        *o = operand_of(p, source, FORM_RAW);
        o->quantized = true;
        const rung_status st = constant_scales(p, dq, o, err);
        return st == RUNG_OK ? constant_zero(p, dq, o, err) : st;
    }
    d->in_forms[i] = form_of(p, source, f);
    *o = operand_of(p, source, f);
    o->quantized = true;
    quant_params(p, dq, &o->scale, &o->zero);
    return operand_has_elements(o) ? RUNG_OK : fail(err, RUNG_EUNSUPPORTED, "its input is empty");
}

/* The absorbed clamp in codes: as quantizing is monotone, clamping codes gives the same bytes. */
static void absorb_clamp(const plan *p, const plan_unit *u, lowering *l)
{
    float lo, hi;
    if (!u->clamp || !clamp_bounds(p, u->clamp, &lo, &hi))
        return;
    const operand *o = &l->out[0];
    l->q_lo = quantize_code(lo, o->scale, o->zero, 0, stored_top(o));
    l->q_hi = quantize_code(hi, o->scale, o->zero, 0, stored_top(o));
}

rung_status emit_integer(plan *p, const plan_unit *u, rung_error *err)
{
    draft d;
    form in_form, out_form;
    rung_status st = draft_new(p, u->n, &d, err);
    draft_forms(p, u->n, true, &in_form, &out_form);
    for (int i = 0; i < u->n->n_inputs && st == RUNG_OK; i++)
        st = integer_input(p, &d, i, in_form, err);
    for (int i = 0; i < u->n->n_outputs && st == RUNG_OK; i++) {
        d.out_values[i] = -1;
        if (!u->quantizers[i])
            continue;
        st = draft_output(p, &d, i, u->quantizers[i]->outputs[0], out_form, err);
        d.l.out[i].quantized = true;
        quant_params(p, u->quantizers[i], &d.l.out[i].scale, &d.l.out[i].zero);
    }
    if (st != RUNG_OK)
        return st;
    d.l.q_hi = stored_top(&d.l.out[0]);
    absorb_clamp(p, u, &d.l);
    step s = {0};
    if ((st = lower_checks_wide(&d.l, u->n->op, err)) == RUNG_OK)
        st = u->n->op->lower(&d.l, &s, err);
    return st == RUNG_OK ? draft_add(p, &d, &s, true, err) : st;
}
