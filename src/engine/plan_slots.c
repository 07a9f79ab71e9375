/* The forms of a value: which exist, and the conversions that make the missing ones. */
#include "engine/plan.h"

#include <string.h>

#include "ops/lower.h"

form form_of(const plan *p, int id, form f)
{
    const value_info *info = &p->info[id];
    if (f == FORM_LAST && info->rank < 3)
        return FORM_PLAIN;
    if (f == FORM_RAW && info->type != RUNG_I8 && info->type != RUNG_I16)
        return FORM_PLAIN;
    return f;
}

int slot_of_codes(const plan *p, int id)
{
    if (p->info[id].type != RUNG_U8 && p->info[id].type != RUNG_I8)
        return NO_SLOT;
    const int last = p->slot_of[id][FORM_LAST];
    return last != NO_SLOT ? last : p->slot_of[id][FORM_PLAIN];
}

int root_of(const plan *p, int s)
{
    while (p->slots[s].root != s)
        s = p->slots[s].root;
    return s;
}

bool slot_is_constant(const plan *p, int s)
{
    return p->slots[root_of(p, s)].data != NULL;
}

static rung_status size_of_value(const plan *p, int id, size_t *size, rung_error *err)
{
    const value_info *info = &p->info[id];
    const char *name = p->g->values[id].name;
    if (info->rank < 0)
        return fail(err, RUNG_EUNSUPPORTED, "the shape of '%s' is known only when the model runs",
                    name);
    for (int i = 0; i < info->rank; i++)
        if (info->dims[i] < 0)
            return fail(err, RUNG_EUNSUPPORTED,
                        "dimension %d of '%s' is known only when the model runs", i, name);
    const size_t count = dims_count(info->rank, info->dims);
    if (count > SIZE_MAX / 16)
        return fail(err, RUNG_EMEMORY, "'%s' is too large", name);
    if (info->type == RUNG_UNDEFINED)
        return fail(err, RUNG_EMODEL, "the type of '%s' is not known", name);
    *size = dtype_bytes(info->type, count);
    if (*size == 0 && count > 0)
        return fail(err, RUNG_EUNSUPPORTED, "rung does not compute with %s ('%s')",
                    dtype_name(info->type), name);
    return RUNG_OK;
}

rung_status slot_new(plan *p, int id, form f, int *out, rung_error *err)
{
    f = form_of(p, id, f);
    size_t size = 0;
    const rung_status st = size_of_value(p, id, &size, err);
    if (st != RUNG_OK)
        return st;
    slot *grown = arena_grow(p->mem, p->slots, &p->cap_slots, p->n_slots + 1, sizeof *grown);
    if (!grown)
        return fail_memory(err, "the plan", sizeof *grown);
    p->slots = grown;
    const int s = (int)p->n_slots++;
    grown[s] = (slot){.value = id, .f = f, .bytes = size, .root = s, .first = -1, .last = -1};
    p->slot_of[id][f] = s;
    *out = s;
    return RUNG_OK;
}

/* Any slot of the value, NO_SLOT when there is none. */
static int slot_any(const plan *p, int id)
{
    for (int f = 0; f < N_FORMS; f++)
        if (p->slot_of[id][f] != NO_SLOT)
            return p->slot_of[id][f];
    return NO_SLOT;
}

form slot_prefers(const plan *p, int id)
{
    if (p->slot_of[id][FORM_LAST] != NO_SLOT)
        return FORM_LAST;
    const int producer = p->g->values[id].producer;
    if (slot_any(p, id) == NO_SLOT && producer >= 0 && is_dequantize(&p->g->nodes[producer]))
        return form_of(p, id, slot_prefers(p, p->g->nodes[producer].inputs[0]));
    return FORM_PLAIN;
}

static rung_status convert(plan *p, int id, int from, form f, int *out, rung_error *err)
{
    const int producer = p->g->values[id].producer;
    const node *n = producer >= 0 ? &p->g->nodes[producer] : NULL;
    operand in = operand_of(p, id, p->slots[from].f), to = operand_of(p, id, f);
    in.constant = to.constant = NULL;
    if (p->slots[from].f == FORM_RAW)
        in.type = p->info[id].type;
    const lowering l = {.n = n,
                        .in = &in,
                        .n_in = 1,
                        .out = &to,
                        .n_out = 1,
                        .n_threads = p->n_threads,
                        .mem = p->mem};
    step s = {0};
    rung_status st = lower_convert(&l, &s, err);
    if (st == RUNG_OK)
        st = slot_new(p, id, f, out, err);
    if (st != RUNG_OK)
        return st;
    const int slots[2] = {from, *out};
    return step_add(p, &s, n, slots, 1, 1, false, NULL, err);
}

/* The first slot of a value: a constant, or what a DequantizeLinear that nobody needed until now
 * makes. */
static rung_status slot_begin(plan *p, int id, form f, rung_error *err)
{
    if (p->constant[id]) {
        int s = NO_SLOT;
        const rung_status st = slot_new(p, id, FORM_RAW, &s, err);
        if (st == RUNG_OK)
            p->slots[s].data = p->slots[s].bytes ? p->constant[id]->data : "";
        return st;
    }
    const int producer = p->g->values[id].producer;
    if (producer < 0 || !is_dequantize(&p->g->nodes[producer]))
        return fail(err, RUNG_EMODEL, "'%s' is used before it is made", p->g->values[id].name);
    return emit_dequantize(p, &p->g->nodes[producer], f, err);
}

rung_status slot_need(plan *p, int id, form f, int *out, rung_error *err)
{
    rung_status st = RUNG_OK;
    f = form_of(p, id, f);
    if (slot_any(p, id) == NO_SLOT)
        st = slot_begin(p, id, f, err);
    const int *have = p->slot_of[id];
    if (st == RUNG_OK && have[f] == NO_SLOT && have[FORM_PLAIN] == NO_SLOT) {
        /* Every conversion begins or ends at the plain form. */
        int plain;
        st = convert(p, id, slot_any(p, id), FORM_PLAIN, &plain, err);
    }
    if (st == RUNG_OK && have[f] == NO_SLOT) {
        int made;
        st = convert(p, id, have[FORM_PLAIN], f, &made, err);
    }
    if (st == RUNG_OK)
        *out = have[f];
    return st;
}
