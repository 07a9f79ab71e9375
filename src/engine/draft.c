/* Steps while they are made: what every kind of step needs. */
#include "engine/draft.h"

#include <math.h>
#include <string.h>

#include "ops/lower.h"

rung_status draft_new(plan *p, const node *n, draft *d, rung_error *err)
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
    d->l = (lowering){.n = n,
                      .opset = graph_opset(p->g, n->domain),
                      .in = in,
                      .n_in = n->n_inputs,
                      .out = out,
                      .n_out = n->n_outputs,
                      .q_hi = 255,
                      .epi = {.add = -1, .lo = -INFINITY, .hi = INFINITY},
                      .n_threads = p->n_threads,
                      .packs = p->store,
                      .mem = p->mem};
    return RUNG_OK;
}

/* The value that an input is read from: behind a DequantizeLinear in integer steps. */
static int draft_source(const plan *p, int id, bool integer)
{
    if (id < 0 || !integer || !value_is_quantized_source(p, id))
        return id;
    return p->g->nodes[p->g->values[id].producer].inputs[0];
}

bool value_is_variable(const plan *p, int id)
{
    if (id < 0 || p->constant[id])
        return false;
    const int producer = p->g->values[id].producer;
    return producer < 0 || !is_dequantize(&p->g->nodes[producer]) ||
           !p->constant[p->g->nodes[producer].inputs[0]];
}

/* Whether a Transpose moves the last axis to place 1: then its plain input has the bytes of its
 * output, channels-last. */
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
    form f = FORM_PLAIN;
    for (int i = 0; i < n->n_inputs; i++) {
        const int v = n->inputs[i];
        if (!value_is_variable(p, v))
            continue;
        if (p->info[v].rank != rank)
            return FORM_PLAIN;
        const size_t count = dims_count(rank, p->info[v].dims);
        const form wish = slot_prefers(p, draft_source(p, v, integer));
        if (count > largest || (count == largest && wish == FORM_LAST)) {
            largest = count;
            f = wish;
        }
    }
    return f == FORM_LAST ? FORM_LAST : FORM_PLAIN;
}

/* A ReduceMean that is a global pool: its integer kernel wants channels-last, in float it takes
 * what is there. */
static bool averages_image(const plan *p, const node *n, bool integer)
{
    if (strcmp(n->op_type, "ReduceMean") != 0 ||
        (!integer && slot_prefers(p, n->inputs[0]) != FORM_LAST))
        return false;
    const int axes = n->n_inputs > 1 ? n->inputs[1] : -1;
    return (axes < 0 || p->constant[axes]) &&
           reduces_image(n, axes < 0 ? NULL : p->constant[axes], p->info[n->inputs[0]].rank);
}

void draft_forms(const plan *p, const node *n, bool integer, form *in, form *out)
{
    *in = *out = FORM_PLAIN;
    if (strcmp(n->op_type, "Transpose") == 0) {
        *in = slot_prefers(p, draft_source(p, n->inputs[0], integer));
        if (*in == FORM_RAW)
            *in = FORM_PLAIN;
        if (*in == FORM_PLAIN && brings_channels_first(n, p->info[n->inputs[0]].rank))
            *out = FORM_LAST;
    } else if (n->op->layout == LAYOUT_CHANNELS || averages_image(p, n, integer)) {
        *in = *out = FORM_LAST;
    } else if (n->op->layout == LAYOUT_FOLLOWS) {
        *in = *out = follow(p, n, integer);
    }
}

bool operand_has_elements(const operand *o)
{
    return o->rank < 0 || dims_count(o->rank, o->dims) > 0;
}

rung_status draft_output(plan *p, draft *d, int i, int id, form f, rung_error *err)
{
    d->out_values[i] = id;
    d->out_forms[i] = form_of(p, id, f);
    operand *o = &d->l.out[i];
    *o = operand_of(p, id, f);
    for (int k = 0; k < o->rank; k++)
        if (o->dims[k] < 0)
            return fail(err, RUNG_EUNSUPPORTED, "its output's shape is known only when it runs");
    return operand_has_elements(o) ? RUNG_OK : fail(err, RUNG_EUNSUPPORTED, "its output is empty");
}

/* Adds the step of a draft: the forms of its inputs are made, its outputs begin. */
rung_status draft_add(plan *p, draft *d, const step *s, bool integer, rung_error *err)
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
