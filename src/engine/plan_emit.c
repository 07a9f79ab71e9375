/* From units to steps. A unit is tried as one step (integer, or float with an epilogue); where there
 * is no such step it falls apart into its nodes. */
#include "engine/plan.h"

#include <math.h>
#include <string.h>

#include "kernels/kernels.h"
#include "nn/nn.h"
#include "ops/lower.h"

/* What a step is made from, while it is made. */
typedef struct draft {
    lowering l;
    int     *in_values, *out_values; /* where each operand lies: id and form */
    form    *in_forms, *out_forms;
} draft;

static rung_status draft_new(plan *p, const node *n, draft *d, rung_error *err)
{
    const size_t n_in = (size_t)n->n_inputs + 1, n_out = (size_t)n->n_outputs + 1;
    *d = (draft){0};
    d->in_values = arena_zero(p->mem, n_in, sizeof *d->in_values);
    d->out_values = arena_zero(p->mem, n_out, sizeof *d->out_values);
    d->in_forms = arena_zero(p->mem, n_in, sizeof *d->in_forms);
    d->out_forms = arena_zero(p->mem, n_out, sizeof *d->out_forms);
    operand *in = arena_zero(p->mem, n_in, sizeof *in);
    operand *out = arena_zero(p->mem, n_out, sizeof *out);
    if (!d->in_values || !d->out_values || !d->in_forms || !d->out_forms || !in || !out)
        return fail_memory(err, "the plan", n_in * sizeof *in);
    d->l = (lowering){.n = n, .opset = graph_opset(p->g, n->domain), .in = in,
                      .n_in = n->n_inputs, .out = out, .n_out = n->n_outputs, .q_hi = 255,
                      .epi = {.add = -1, .lo = -INFINITY, .hi = INFINITY},
                      .n_threads = p->n_threads, .mem = p->mem};
    return RUNG_OK;
}

/* The value that an input is read from: behind a DequantizeLinear where that is allowed. */
static int source_of(const plan *p, int id, bool integer)
{
    if (id < 0 || !integer || !value_is_quantized_source(p, id))
        return id;
    return p->g->nodes[p->g->values[id].producer].inputs[0];
}

static bool is_variable(const plan *p, int id)
{
    if (id < 0 || p->constant[id])
        return false;
    const int producer = p->g->values[id].producer;
    return producer < 0 || !is_dequantize(&p->g->nodes[producer]) ||
           !p->constant[p->g->nodes[producer].inputs[0]];
}

static bool is_transpose(const node *n)
{
    return strcmp(n->op_type, "Transpose") == 0;
}

/* Whether a Transpose moves the last axis to place 1: its plain input is its output, channels-last. */
static bool brings_channels_first(const node *n, int rank)
{
    const int64_t *perm = NULL;
    if (node_ints(n, "perm", &perm) != (size_t)rank || rank < 3 || perm[0] != 0 ||
        perm[1] != rank - 1)
        return false;
    for (int i = 2; i < rank; i++)
        if (perm[i] != i - 1)
            return false;
    return true;
}

/* Elementwise operators and the like follow the largest operand that is not broadcast in rank. */
static form follow(const plan *p, const node *n, bool integer)
{
    const int rank = p->info[n->outputs[0]].rank;
    size_t largest = 0;
    form   f = FORM_PLAIN;
    for (int i = 0; i < n->n_inputs; i++) {
        const int v = n->inputs[i];
        if (!is_variable(p, v))
            continue;
        if (p->info[v].rank != rank)
            return FORM_PLAIN;
        const size_t count = dims_count(rank, p->info[v].dims);
        const form wish = slot_prefers(p, source_of(p, v, integer));
        if (count > largest || (count == largest && wish == FORM_LAST)) {
            largest = count;
            f = wish;
        }
    }
    return f == FORM_LAST ? FORM_LAST : FORM_PLAIN;
}

/* A ReduceMean that is a global pool. */
static bool averages_image(const plan *p, const node *n)
{
    const int axes = n->n_inputs > 1 ? n->inputs[1] : -1;
    return strcmp(n->op_type, "ReduceMean") == 0 && (axes < 0 || p->constant[axes]) &&
           reduces_image(n, axes < 0 ? NULL : p->constant[axes], p->info[n->inputs[0]].rank);
}

static void choose_forms(const plan *p, const node *n, bool integer, form *in, form *out)
{
    *in = *out = FORM_PLAIN;
    if (is_transpose(n)) {
        *in = slot_prefers(p, source_of(p, n->inputs[0], integer));
        if (*in == FORM_RAW)
            *in = FORM_PLAIN;
        if (*in == FORM_PLAIN && brings_channels_first(n, p->info[n->inputs[0]].rank))
            *out = FORM_LAST;
    } else if (n->op->layout == LAYOUT_CHANNELS || averages_image(p, n)) {
        *in = *out = FORM_LAST;
    } else if (n->op->layout == LAYOUT_FOLLOWS) {
        *in = *out = follow(p, n, integer);
    }
}

static bool has_elements(const operand *o)
{
    return o->rank < 0 || dims_count(o->rank, o->dims) > 0;
}

static rung_status set_output(plan *p, draft *d, int i, int id, form f, rung_error *err)
{
    d->out_values[i] = id;
    d->out_forms[i] = form_of(p, id, f);
    operand *o = &d->l.out[i];
    *o = operand_of(p, id, f);
    for (int k = 0; k < o->rank; k++)
        if (o->dims[k] < 0)
            return fail(err, RUNG_EUNSUPPORTED, "its output's shape is known only when it runs");
    return has_elements(o) ? RUNG_OK : fail(err, RUNG_EUNSUPPORTED, "its output is empty");
}

/* Adds the step of a draft: the forms of its inputs are made, its outputs begin. */
static rung_status add_draft(plan *p, draft *d, const step *s, bool integer, rung_error *err)
{
    const int n_in = d->l.n_in, n_out = d->l.n_out;
    int *slots = arena_zero(p->mem, (size_t)(n_in + n_out) + 1, sizeof *slots);
    if (!slots)
        return fail_memory(err, "the plan", sizeof *slots);
    rung_status st = RUNG_OK;
    for (int i = 0; i < n_in && st == RUNG_OK; i++) {
        slots[i] = NO_SLOT;
        if (d->in_values[i] >= 0)
            st = slot_need(p, d->in_values[i], d->in_forms[i], &slots[i], err);
    }
    for (int i = 0; i < n_out && st == RUNG_OK; i++) {
        slots[n_in + i] = NO_SLOT;
        if (d->out_values[i] >= 0)
            st = slot_new(p, d->out_values[i], d->out_forms[i], &slots[n_in + i], err);
    }
    return st == RUNG_OK ? step_add(p, s, d->l.n, slots, n_in, n_out, integer, NULL, err) : st;
}

/* --- integer --------------------------------------------------------------------------------- */

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
        return fail(err, RUNG_EUNSUPPORTED, "the scale of '%s' is not float32 per channel or tensor",
                    o->name);
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
    operand  *o = &d->l.in[i];
    const int v = d->l.n->inputs[i];
    d->in_values[i] = v;
    d->in_forms[i] = FORM_RAW;
    if (v < 0) {
        *o = (operand){.type = RUNG_UNDEFINED};
        return RUNG_OK;
    }
    const int producer = p->g->values[v].producer;
    const node *dq = producer >= 0 && is_dequantize(&p->g->nodes[producer])
                         ? &p->g->nodes[producer] : NULL;
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
    return has_elements(o) ? RUNG_OK : fail(err, RUNG_EUNSUPPORTED, "its input is empty");
}

/* The absorbed clamp in codes: as quantizing is monotone, clamping codes gives the same bytes. */
static void absorb_clamp(const plan *p, const plan_unit *u, lowering *l)
{
    float lo, hi;
    if (!u->clamp || !clamp_bounds(p, u->clamp, &lo, &hi))
        return;
    const operand *o = &l->out[0];
    uint8_t q[2];
    const float bounds[2] = {lo, hi};
    quantize_u8[0].run(bounds, 2, o->scale, o->zero, 0, 255, q);
    l->q_lo = q[0];
    l->q_hi = q[1];
}

static rung_status emit_integer(plan *p, const plan_unit *u, rung_error *err)
{
    draft d;
    form in_form, out_form;
    rung_status st = draft_new(p, u->n, &d, err);
    choose_forms(p, u->n, true, &in_form, &out_form);
    for (int i = 0; i < u->n->n_inputs && st == RUNG_OK; i++)
        st = integer_input(p, &d, i, in_form, err);
    for (int i = 0; i < u->n->n_outputs && st == RUNG_OK; i++) {
        d.out_values[i] = -1;
        if (!u->quantizers[i])
            continue;
        st = set_output(p, &d, i, u->quantizers[i]->outputs[0], out_form, err);
        d.l.out[i].quantized = true;
        quant_params(p, u->quantizers[i], &d.l.out[i].scale, &d.l.out[i].zero);
    }
    if (st != RUNG_OK)
        return st;
    absorb_clamp(p, u, &d.l);
    step s = {0};
    st = u->n->op->lower(&d.l, &s, err);
    return st == RUNG_OK ? add_draft(p, &d, &s, true, err) : st;
}

/* --- float ----------------------------------------------------------------------------------- */

/* Constants behind a DQ (weight-only models) are made now, so that they can be packed. */
static rung_status float_inputs(plan *p, draft *d, form f, rung_error *err)
{
    const node *n = d->l.n;
    for (int i = 0; i < n->n_inputs; i++) {
        const int v = n->inputs[i];
        int made;
        if (v >= 0 && !is_variable(p, v) && !p->constant[v]) {
            const rung_status st = slot_need(p, v, FORM_RAW, &made, err);
            if (st != RUNG_OK)
                return st;
        }
        d->in_values[i] = v;
        d->in_forms[i] = v >= 0 && p->constant[v] ? FORM_RAW : f;
        d->l.in[i] = v < 0 ? (operand){.type = RUNG_UNDEFINED}
                           : operand_of(p, v, d->in_forms[i]);
        if (v >= 0 && !p->constant[v] && !has_elements(&d->l.in[i]))
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
        if (is_variable(p, n->inputs[i]))
            return true;
    return false;
}

/* One float step for n and what u absorbs: nn's row, or a plain movement. */
static rung_status emit_fast(plan *p, const plan_unit *u, rung_error *err)
{
    const node *n = u->n;
    draft d;
    form in_form, out_form;
    if (n->op->layout == LAYOUT_CHANNELS && has_variable_parameters(p, n))
        return fail(err, RUNG_EUNSUPPORTED, "its weights are computed");
    rung_status st = draft_new(p, n, &d, err);
    choose_forms(p, n, false, &in_form, &out_form);
    if (st == RUNG_OK)
        st = float_inputs(p, &d, in_form, err);
    for (int i = 0; i < n->n_outputs && st == RUNG_OK; i++) {
        d.out_values[i] = -1;
        if (n->outputs[i] >= 0)
            st = set_output(p, &d, i, n->outputs[i], out_form, err);
    }
    if (st != RUNG_OK)
        return st;
    add_residual(p, u, &d, out_form);
    const node *last = u->clamp ? u->clamp : u->add;
    if (last)
        st = set_output(p, &d, 0, last->outputs[0], out_form, err);
    if (u->clamp)
        d.l.epi.clamp = clamp_bounds(p, u->clamp, &d.l.epi.lo, &d.l.epi.hi);
    step s = {0};
    if (st == RUNG_OK)
        st = lower_moves(n->op) ? n->op->lower(&d.l, &s, err) : nn_lower(&d.l, &s, err);
    return st == RUNG_OK ? add_draft(p, &d, &s, false, err) : st;
}

rung_status emit_quantize(plan *p, const node *n, rung_error *err)
{
    draft d;
    const int x = n->inputs[0], y = n->outputs[0];
    float scale;
    int   zero;
    if (!quant_params(p, n, &scale, &zero) || p->info[x].type != RUNG_F32 ||
        dims_count(p->info[x].rank, p->info[x].dims) == 0)
        return eval_step(p, n, err);
    rung_status st = draft_new(p, n, &d, err);
    if (st != RUNG_OK)
        return st;
    const form f = p->constant[x] ? FORM_PLAIN : slot_prefers(p, x);
    d.l.n_in = 1;
    d.in_values[0] = x;
    d.in_forms[0] = f;
    d.l.in[0] = operand_of(p, x, f);
    st = set_output(p, &d, 0, y, f, err);
    d.l.out[0].type = RUNG_U8;
    d.l.out[0].quantized = true;
    d.l.out[0].scale = scale;
    d.l.out[0].zero = zero;
    step s = {0};
    if (st == RUNG_OK)
        st = lower_quantize(&d.l, &s, err);
    return st == RUNG_OK ? add_draft(p, &d, &s, false, err) : st;
}

rung_status emit_dequantize(plan *p, const node *n, form f, rung_error *err)
{
    draft d;
    const int x = n->inputs[0], y = n->outputs[0];
    float scale;
    int   zero;
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
    st = set_output(p, &d, 0, y, f, err);
    step s = {0};
    if (st == RUNG_OK)
        st = lower_dequantize(&d.l, &s, err);
    return st == RUNG_OK ? add_draft(p, &d, &s, false, err) : st;
}

/* --- units ----------------------------------------------------------------------------------- */

static rung_status emit_node(plan *p, const node *n, rung_error *err)
{
    if (is_quantize(n))
        return emit_quantize(p, n, err);
    if (is_dequantize(n))
        return RUNG_OK; /* made when it is needed: slot_need */
    const plan_unit alone = {.n = n};
    rung_status st = RUNG_EUNSUPPORTED;
    if (n->op && n->n_captures == 0)
        st = emit_fast(p, &alone, err);
    return st == RUNG_EUNSUPPORTED ? eval_step(p, n, err) : st;
}

static rung_status emit_apart(plan *p, const plan_unit *u, rung_error *err)
{
    rung_status st = emit_node(p, u->n, err);
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
    float_island *grown = arena_grow(p->mem, p->islands, &p->cap_islands, p->n_islands + 1,
                                     sizeof *grown);
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
    const lowering l = {.in = &o, .n_in = 1, .out = &o, .n_out = 1, .n_threads = p->n_threads,
                        .mem = p->mem};
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
