/* From units to steps. A unit is tried as one step (integer, or float with an epilogue); where
 * there is no such step it falls apart into its nodes. */
#include "engine/draft.h"
#include "ops/lower.h"

static rung_status emit_node(plan *p, const node *n, rung_error *err)
{
    if (is_quantize(n))
        return emit_quantize(p, n, err);
    if (is_dequantize(n))
        return RUNG_OK; /* made when it is needed: slot_need */
    const plan_unit alone = {.n = n};
    rung_status st = RUNG_EUNSUPPORTED;
    if (is_op(n, "DynamicQuantizeLinear"))
        return emit_dynamic_quantize(p, n, err);
    if (n->op && n->n_captures == 0)
        st = emit_fast(p, &alone, err);
    return st == RUNG_EUNSUPPORTED ? eval_step(p, n, err) : st;
}

static rung_status emit_apart(plan *p, const plan_unit *u, rung_error *err)
{
    rung_status st = emit_node(p, u->n, err);
    const node *behind[4] = {NULL};
    if (u->tail)
        dynamic_nodes(u->tail, behind);
    for (int i = 0; i < 4 && st == RUNG_OK; i++)
        if (behind[i])
            st = emit_node(p, behind[i], err);
    if (u->add && st == RUNG_OK)
        st = emit_node(p, u->add, err);
    if (u->clamp && st == RUNG_OK)
        st = emit_node(p, u->clamp, err);
    for (int i = 0; u->integer && i < u->n->n_outputs && st == RUNG_OK; i++)
        if (u->quantizers[i])
            st = emit_quantize(p, u->quantizers[i], err);
    return st;
}

static rung_status note_island(plan *p, const plan_unit *u, const char *why, rung_error *err)
{
    char label[NODE_LABEL_SIZE];
    float_island *grown =
        arena_grow(p->mem, p->islands, &p->cap_islands, p->n_islands + 1, sizeof *grown);
    if (!grown)
        return fail_memory(err, "the plan", sizeof *grown);
    p->islands = grown;
    float_island *f = &grown[p->n_islands];
    f->node = arena_strdup(p->mem, node_label(p->g, u->n, label, sizeof label));
    f->op_type = u->n->op_type;
    f->reason = arena_strdup(p->mem, why);
    if (!f->node || !f->reason)
        return fail_memory(err, "the plan", sizeof *f);
    p->n_islands++;
    return RUNG_OK;
}

static rung_status emit_unit(plan *p, const plan_unit *u, rung_error *err)
{
    rung_error why = {""};
    rung_status st = RUNG_EUNSUPPORTED;
    if (u->integer)
        st = emit_integer(p, u, &why);
    else if (u->tail)
        st = emit_dynamic(p, u, &why);
    if (st == RUNG_OK)
        return RUNG_OK;
    if (st != RUNG_EUNSUPPORTED)
        return fail(err, st, "%s", why.message);
    if (u->integer || u->why) {
        st = note_island(p, u, u->integer ? why.message : u->why, err);
        if (st != RUNG_OK)
            return st;
    }
    if (u->integer || (!u->add && !u->clamp))
        return emit_apart(p, u, err);
    st = emit_fast(p, u, &why);
    if (st == RUNG_EUNSUPPORTED)
        return emit_apart(p, u, err);
    return st == RUNG_OK ? RUNG_OK : fail(err, st, "%s", why.message);
}

static rung_status tap_value(plan *p, int id, rung_error *err)
{
    int s;
    const rung_status st = slot_need(p, id, slot_prefers(p, id), &s, err);
    if (st != RUNG_OK)
        return st;
    tap_point *grown = arena_grow(p->mem, p->taps, &p->cap_taps, p->n_taps + 1, sizeof *grown);
    if (!grown)
        return fail_memory(err, "the plan", sizeof *grown);
    p->taps = grown;
    grown[p->n_taps++] = (tap_point){.value = id, .slot = s, .after = p->n_steps};
    return RUNG_OK;
}

static bool is_observed(const plan *p, int id)
{
    return id >= 0 && p->observe && p->observe[id] && !p->constant[id] &&
           p->info[id].type == RUNG_F32;
}

static bool all_outputs_constant(const plan *p, const node *n)
{
    for (int i = 0; i < n->n_outputs; i++)
        if (n->outputs[i] >= 0 && !p->constant[n->outputs[i]])
            return false;
    return true;
}

static rung_status emit_at(plan *p, size_t i, rung_error *err)
{
    const node *n = &p->g->nodes[i];
    const plan_unit *u = p->unit_at[i];
    rung_status st = RUNG_OK;
    if (u && !all_outputs_constant(p, u->n))
        st = emit_unit(p, u, err);
    for (int k = 0; k < n->n_outputs && st == RUNG_OK && u; k++)
        if (is_observed(p, n->outputs[k]))
            st = tap_value(p, n->outputs[k], err);
    char label[NODE_LABEL_SIZE];
    return st == RUNG_OK
               ? RUNG_OK
               : fail_at(err, st, "%s", node_label(p->g, u ? u->n : n, label, sizeof label));
}

static rung_status emit_inputs(plan *p, rung_error *err)
{
    rung_status st = RUNG_OK;
    for (int i = 0; i < p->g->n_inputs && st == RUNG_OK; i++) {
        const int v = p->g->inputs[i];
        st = slot_new(p, v, FORM_RAW, &p->input_slots[i], err);
        if (st == RUNG_OK)
            p->slots[p->input_slots[i]].pinned = true;
        if (st == RUNG_OK && is_observed(p, v))
            st = tap_value(p, v, err);
    }
    return st;
}

/* A copy of a slot in memory of its own: an output that would be an input's or a constant's bytes,
 * or two outputs in one. */
static rung_status copy_slot(plan *p, int *s, rung_error *err)
{
    const int id = p->slots[*s].value;
    operand o = operand_of(p, id, p->slots[*s].f);
    o.constant = NULL;
    o.channels_last = false;
    const lowering l = {
        .in = &o, .n_in = 1, .out = &o, .n_out = 1, .n_threads = p->n_threads, .mem = p->mem};
    step copy = {0};
    rung_status st = lower_convert(&l, &copy, err);
    int slots[2] = {*s, NO_SLOT};
    if (st == RUNG_OK)
        st = slot_new(p, id, FORM_RAW, &slots[1], err);
    if (st != RUNG_OK)
        return st;
    copy.view = false;
    p->slots[slots[1]].pinned = true;
    *s = slots[1];
    return step_add(p, &copy, NULL, slots, 1, 1, false, NULL, err);
}

static rung_status emit_outputs(plan *p, rung_error *err)
{
    rung_status st = RUNG_OK;
    for (int i = 0; i < p->g->n_outputs && st == RUNG_OK; i++) {
        int *s = &p->output_slots[i];
        st = slot_need(p, p->g->outputs[i], FORM_RAW, s, err);
        if (st != RUNG_OK)
            break;
        const slot *root = &p->slots[root_of(p, *s)];
        if (!root->data && root->pinned)
            st = copy_slot(p, s, err);
        else if (!root->data)
            p->slots[root_of(p, *s)].pinned = true;
    }
    return st;
}

rung_status plan_emit(plan *p, rung_error *err)
{
    rung_status st = emit_inputs(p, err);
    for (size_t i = 0; i < p->g->n_nodes && st == RUNG_OK; i++)
        if (!p->g->nodes[i].dead)
            st = emit_at(p, i, err);
    return st == RUNG_OK ? emit_outputs(p, err) : st;
}
