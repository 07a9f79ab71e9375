/* Dynamic quantization: activations are ranged and quantized in two steps, an integer product and
 * all that stands behind it is a third. */
#include <string.h>

#include "engine/draft.h"
#include "ops/lower_dynamic.h"

const void *plan_packed(const plan *p, const tensor *from, const char *kind)
{
    for (size_t i = 0; i < p->n_packs; i++)
        if (p->packs[i].from == from && strcmp(p->packs[i].kind, kind) == 0)
            return p->packs[i].packed;
    return NULL;
}

rung_status plan_note_packed(plan *p, const tensor *from, const char *kind, const void *packed,
                             rung_error *err)
{
    plan_pack *grown = arena_grow(p->mem, p->packs, &p->cap_packs, p->n_packs + 1, sizeof *grown);
    if (!grown)
        return fail_memory(err, "the plan", sizeof *grown);
    p->packs = grown;
    grown[p->n_packs++] = (plan_pack){from, kind, packed};
    return RUNG_OK;
}

rung_status emit_dynamic_quantize(plan *p, const node *n, rung_error *err)
{
    draft d;
    step range, quantize;
    const int x = n->inputs[0];
    if (p->constant[x] || p->info[x].type != RUNG_F32 || n->n_outputs != 3 || n->outputs[0] < 0 ||
        dims_count(p->info[x].rank, p->info[x].dims) == 0)
        return eval_step(p, n, err);
    rung_status st = draft_new(p, n, &d, err);
    if (st != RUNG_OK)
        return st;
    const form f = slot_prefers(p, x);
    d.l.n_in = 1;
    d.in_values[0] = x;
    d.in_forms[0] = f;
    d.l.in[0] = operand_of(p, x, f);
    for (int i = 0; i < 3 && st == RUNG_OK; i++) {
        d.out_values[i] = -1;
        if (n->outputs[i] >= 0)
            st = draft_output(p, &d, i, n->outputs[i], i == 0 ? f : FORM_PLAIN, err);
    }
    int from = NO_SLOT;
    if (st != RUNG_OK || (st = lower_dynamic_quantize(&d.l, &range, &quantize, err)) != RUNG_OK ||
        (st = slot_need(p, x, f, &from, err)) != RUNG_OK ||
        (st = step_add(p, &range, n, &from, 1, 0, false, NULL, err)) != RUNG_OK)
        return st;
    return draft_add(p, &d, &quantize, false, err);
}

static void take_input(const plan *p, draft *d, int i, int id, form f)
{
    d->in_values[i] = id;
    d->in_forms[i] = f;
    d->l.in[i] = id < 0 ? (operand){.type = RUNG_UNDEFINED} : operand_of(p, id, f);
}

rung_status emit_dynamic(plan *p, const plan_unit *u, rung_error *err)
{
    const dynamic_tail *t = u->tail;
    const char *kind = t->transposed ? "product_u8s8 transposed" : "product_u8s8";
    const node *n = u->n, *last = t->add ? t->add : t->mul ? t->mul : n;
    const bool conv = is_op(n, "ConvInteger");
    const form f = conv ? FORM_LAST : FORM_PLAIN;
    product_weights w = {t->w, t->w_scale, t->bias, t->transposed, t->w_source, NULL};
    draft d;
    step s = {0};
    rung_status st = draft_new(p, n, &d, err);
    if (st != RUNG_OK || (st = draft_output(p, &d, 0, last->outputs[0], f, err)) != RUNG_OK)
        return st;
    take_input(p, &d, 0, t->x_dq ? t->x_dq->inputs[0] : n->inputs[0], f);
    d.l.n_in = t->x_dq ? 1 : 3; /* a draft has room for one more than the node's two */
    if (t->x_dq) {
        d.l.in[0].quantized = true;
        quant_params(p, t->x_dq, &d.l.in[0].scale, &d.l.in[0].zero);
    } else {
        take_input(p, &d, 1, t->x_scale, FORM_PLAIN);
        take_input(p, &d, 2, n->n_inputs > 2 ? n->inputs[2] : -1, FORM_PLAIN);
    }
    if (!operand_has_elements(&d.l.in[0]))
        return fail(err, RUNG_EUNSUPPORTED, "its input is empty");
    if (!conv)
        w.packed = plan_packed(p, w.w, kind);
    const bool shared = w.packed != NULL;
    if ((st = lower_product(&d.l, &w, &s, err)) != RUNG_OK ||
        (!conv && !shared && (st = plan_note_packed(p, w.w, kind, w.packed, err)) != RUNG_OK))
        return st;
    return draft_add(p, &d, &s, true, err);
}
