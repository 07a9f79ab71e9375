/* Functions of functions: a step whose operands all depend on one tensor of 8-bit codes, element by
 * element, is a table of 256 entries over that tensor. x * Sigmoid(x), or what Add, Clip, Mul and
 * Div make of HardSwish, run as one table then. The entries are the steps' own bytes. */
#include "engine/plan.h"

#include <string.h>

#include "ops/lower.h"

typedef struct function {
    int source; /* root slot */
    const uint8_t *table;
} function;

typedef struct composer {
    plan *p;
    function *of; /* by root slot; table = NULL: no function of another slot */
    int *readers; /* by root slot: steps, taps, outputs, kept codes */
    uint8_t identity[256];
} composer;

/* The operand in the slot as a function; a slot of which nothing is known is its own source. */
static function function_of(const composer *c, int s)
{
    const int root = root_of(c->p, s);
    return c->of[root].table ? c->of[root] : (function){root, c->identity};
}

/* Whether the step depends on one source; then the table of its output over it. */
static bool compose(const composer *c, const plan_step *s, int *source, uint8_t table[256])
{
    const uint8_t *operands[2] = {NULL, NULL};
    int places[2];
    const int n = step_pointwise(&s->s, places);
    if (n == 0 || s->n_out != 1)
        return false;
    for (int i = 0; i < n; i++) {
        const int from = s->slots[places[i]];
        if (from == NO_SLOT || slot_is_constant(c->p, from))
            return false;
        const function f = function_of(c, from);
        if (i > 0 && f.source != *source)
            return false;
        *source = f.source;
        operands[i] = f.table;
    }
    if (c->p->slots[*source].bytes != c->p->slots[s->slots[s->n_in]].bytes)
        return false;
    step_tabulate(&s->s, operands, table);
    return true;
}

/* Makes the step a table over the source, where it is more than one already. */
static rung_status replace(composer *c, plan_step *s, int source, const uint8_t *table,
                           rung_error *err)
{
    plan *p = c->p;
    const int to = s->slots[s->n_in];
    int *slots = arena_zero(p->mem, 2, sizeof *slots);
    if (!slots)
        return fail_memory(err, "the plan", 2 * sizeof *slots);
    const rung_status st = lower_table_of(p->mem, table, p->slots[to].bytes, &s->s, err);
    slots[0] = source;
    slots[1] = to;
    s->slots = slots;
    s->n_in = 1;
    return st;
}

static rung_status compose_steps(composer *c, rung_error *err)
{
    plan *p = c->p;
    for (size_t i = 0; i < p->n_steps; i++) {
        plan_step *s = &p->steps[i];
        uint8_t table[256];
        int source = NO_SLOT;
        if (!compose(c, s, &source, table))
            continue;
        function *f = &c->of[root_of(p, s->slots[s->n_in])];
        f->source = source;
        f->table = arena_copy(p->mem, table, sizeof table);
        if (!f->table)
            return fail_memory(err, "the plan", sizeof table);
        const bool is_table =
            step_table(&s->s) && root_of(p, s->slots[step_table(&s->s)->in]) == source;
        const rung_status st = is_table ? RUNG_OK : replace(c, s, source, table, err);
        if (st != RUNG_OK)
            return st;
    }
    return RUNG_OK;
}

static void count_readers(composer *c)
{
    const plan *p = c->p;
    for (size_t i = 0; i < p->n_steps; i++)
        for (int k = 0; k < p->steps[i].n_in; k++)
            if (p->steps[i].slots[k] != NO_SLOT)
                c->readers[root_of(p, p->steps[i].slots[k])]++;
    for (size_t i = 0; i < p->n_taps; i++)
        c->readers[root_of(p, p->taps[i].slot)]++;
    for (int i = 0; i < p->g->n_outputs; i++)
        c->readers[root_of(p, p->output_slots[i])]++;
    for (size_t i = 0; i < p->n_slots; i++)
        if (p->slots[i].pinned || p->keep[p->slots[i].value])
            c->readers[root_of(p, (int)i)]++;
}

/* Takes out step i, whose output nobody reads. */
static void drop_step(composer *c, size_t i)
{
    plan *p = c->p;
    const plan_step *s = &p->steps[i];
    for (int k = 0; k < s->n_in; k++)
        if (s->slots[k] != NO_SLOT)
            c->readers[root_of(p, s->slots[k])]--;
    memmove(p->steps + i, p->steps + i + 1, (p->n_steps - i - 1) * sizeof *p->steps);
    p->n_steps--;
    for (size_t t = 0; t < p->n_taps; t++)
        p->taps[t].after -= p->taps[t].after > i;
}

rung_status plan_compose(plan *p, rung_error *err)
{
    composer c = {.p = p};
    c.of = arena_zero(p->mem, p->n_slots + 1, sizeof *c.of);
    c.readers = arena_zero(p->mem, p->n_slots + 1, sizeof *c.readers);
    if (!c.of || !c.readers)
        return fail_memory(err, "the plan", p->n_slots * sizeof *c.of);
    for (int i = 0; i < 256; i++)
        c.identity[i] = (uint8_t)i;
    const rung_status st = compose_steps(&c, err);
    if (st != RUNG_OK)
        return st;
    count_readers(&c);
    for (size_t i = p->n_steps; i-- > 0;) {
        const plan_step *s = &p->steps[i];
        int places[2];
        if (step_pointwise(&s->s, places) && c.readers[root_of(p, s->slots[s->n_in])] == 0)
            drop_step(&c, i);
    }
    return RUNG_OK;
}
