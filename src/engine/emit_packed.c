/* Weight-only models: what reads a constant behind a DequantizeLinear reads its codes. */
#include "engine/draft.h"
#include "nn/packed.h"

/* Operand i of n as a packed weight; false: it is another thing. */
static bool take_weight(const plan *p, const node *n, int i, packed_weight *w)
{
    const int v = i < n->n_inputs ? n->inputs[i] : -1;
    const int producer = v < 0 || p->constant[v] ? -1 : p->g->values[v].producer;
    const node *dq = producer < 0 ? NULL : &p->g->nodes[producer];
    if (!dq || !is_dequantize(dq) || p->info[v].type != RUNG_F32)
        return false;
    *w = (packed_weight){.dq = dq, .codes = constant_input(p, dq, 0),
                         .scale = constant_input(p, dq, 1), .zero = constant_input(p, dq, 2)};
    const bool has_zero = dq->n_inputs > 2 && dq->inputs[2] >= 0;
    for (int k = 0; k < (has_zero ? 3 : 2); k++)
        w->sources[k] = constant_source(p, dq->inputs[k]);
    return w->codes && w->scale && (!has_zero || w->zero);
}

/* Where the product's operands and attributes are those of the packed kernels. */
static bool takes_product(const plan *p, const node *n)
{
    const int x = n->inputs[0];
    if (x < 0 || !value_is_variable(p, x) || p->info[x].type != RUNG_F32 ||
        dims_count(p->info[x].rank, p->info[x].dims) == 0)
        return false;
    if (is_op(n, "MatMul"))
        return p->info[x].rank >= 2;
    const bool has_c = n->n_inputs > 2 && n->inputs[2] >= 0;
    return is_op(n, "Gemm") && !node_int(n, "transA", 0) && node_float(n, "alpha", 1) == 1 &&
           (!has_c || constant_input(p, n, 2));
}

static rung_status emit_product(plan *p, const plan_unit *u, packed_weight *w, rung_error *err)
{
    const node *n = u->n, *last = u->clamp ? u->clamp : u->add ? u->add : n;
    w->transposed = is_op(n, "Gemm") && node_int(n, "transB", 0) != 0;
    const char *kind = w->transposed ? "packed transposed" : "packed";
    draft d;
    step s = {0};
    rung_status st = draft_new(p, n, &d, err);
    if (st != RUNG_OK ||
        (st = draft_output(p, &d, 0, last->outputs[0], FORM_PLAIN, err)) != RUNG_OK)
        return st;
    const int other = u->add ? u->add->inputs[u->add->inputs[0] == n->outputs[0]] : -1;
    const int values[2] = {n->inputs[0], other};
    d.l.n_in = u->add ? 2 : 1;
    for (int i = 0; i < d.l.n_in; i++) {
        d.in_values[i] = values[i];
        d.in_forms[i] = FORM_PLAIN;
        d.l.in[i] = operand_of(p, values[i], FORM_PLAIN);
    }
    d.l.epi.add = u->add ? 1 : -1;
    if (u->clamp)
        d.l.epi.clamp = clamp_bounds(p, u->clamp, &d.l.epi.lo, &d.l.epi.hi);
    w->packed = plan_packed(p, w->codes, kind);
    const bool shared = w->packed != NULL;
    const tensor *bias = is_op(n, "Gemm") ? constant_input(p, n, 2) : NULL;
    if ((st = packed_product(&d.l, w, bias, node_float(n, "beta", 1), &s, err)) != RUNG_OK ||
        (!shared && (st = plan_note_packed(p, w->codes, kind, w->packed, err)) != RUNG_OK))
        return st;
    return draft_add(p, &d, &s, false, err);
}

static rung_status emit_gather(plan *p, const node *n, const packed_weight *w, rung_error *err)
{
    draft d;
    step s = {0};
    const int index = n->inputs[1];
    if (node_int(n, "axis", 0) != 0 || index < 0)
        return fail(err, RUNG_EUNSUPPORTED, "it does not gather rows");
    step_failure *failure = arena_zero(p->mem, 1, sizeof *failure);
    rung_status st = failure ? draft_new(p, n, &d, err) : fail_memory(err, "the plan", 1);
    if (st != RUNG_OK || (st = draft_output(p, &d, 0, n->outputs[0], FORM_PLAIN, err)) != RUNG_OK)
        return st;
    int slots[2];
    const packed_failure f = {&failure->status, &failure->error};
    d.l.n_in = 1;
    d.l.in[0] = operand_of(p, index, FORM_PLAIN);
    if ((st = packed_gather(&d.l, w, f, &s, err)) != RUNG_OK ||
        (st = slot_need(p, index, FORM_PLAIN, &slots[0], err)) != RUNG_OK ||
        (st = slot_new(p, n->outputs[0], FORM_PLAIN, &slots[1], err)) != RUNG_OK)
        return st;
    return step_add(p, &s, n, slots, 1, 1, false, failure, err);
}

rung_status emit_packed(plan *p, const plan_unit *u, rung_error *err)
{
    packed_weight w;
    if (is_op(u->n, "Gather") && take_weight(p, u->n, 0, &w))
        return emit_gather(p, u->n, &w, err);
    if ((is_op(u->n, "MatMul") || is_op(u->n, "Gemm")) && take_weight(p, u->n, 1, &w) &&
        takes_product(p, u->n))
        return emit_product(p, u, &w, err);
    return fail(err, RUNG_EUNSUPPORTED, "it has no packed weight");
}
