/* One static buffer for all values: each root slot lives from the step that writes it to the last
 * that reads it (or a view of it). */
#include "engine/plan.h"

#include "base/mem.h"
#include "base/place.h"

#define ALIGN 64

static size_t aligned(size_t n)
{
    return (n + ALIGN - 1) / ALIGN * ALIGN;
}

static void extend(plan *p, int s, int at)
{
    if (s == NO_SLOT)
        return;
    slot *r = &p->slots[root_of(p, s)];
    if (r->first < 0 || at < r->first)
        r->first = at;
    if (at > r->last)
        r->last = at;
}

static void find_lives(plan *p)
{
    const int end = (int)p->n_steps;
    for (size_t i = 0; i < p->n_steps; i++)
        for (int k = 0; k < p->steps[i].n_in + p->steps[i].n_out; k++)
            extend(p, p->steps[i].slots[k], (int)i);
    for (size_t i = 0; i < p->n_taps; i++)
        extend(p, p->taps[i].slot, p->taps[i].after ? (int)p->taps[i].after - 1 : 0);
    for (int i = 0; i < p->g->n_outputs; i++)
        extend(p, p->output_slots[i], end);
    for (int i = 0; i < p->g->n_inputs; i++) { /* read again by the next run */
        extend(p, p->input_slots[i], 0);
        extend(p, p->input_slots[i], end);
    }
}

/* Kept codes live to the end, and nothing is written over them. */
static void keep_codes(plan *p)
{
    for (size_t v = 0; v < p->g->n_values; v++) {
        const int s = p->keep[v] ? slot_of_codes(p, (int)v) : NO_SLOT;
        if (s == NO_SLOT)
            continue;
        extend(p, s, (int)p->n_steps);
        p->slots[root_of(p, s)].pinned = true;
    }
}

static bool reads_otherwise(const plan *p, const plan_step *s, int root)
{
    for (int i = 1; i < s->n_in; i++)
        if (s->slots[i] != NO_SLOT && root_of(p, s->slots[i]) == root)
            return true;
    return false;
}

/* A step that may write over its first input does so where nobody needs that any more. */
static void share_in_place(plan *p)
{
    for (size_t i = 0; i < p->n_steps; i++) {
        const plan_step *s = &p->steps[i];
        if (!s->s.in_place || s->n_in < 1 || s->n_out != 1 || s->slots[0] == NO_SLOT)
            continue;
        const int from = root_of(p, s->slots[0]), to = s->slots[s->n_in];
        slot *a = &p->slots[from], *b = &p->slots[to];
        if (a->pinned || a->data || a->last != (int)i || a->bytes != b->bytes || b->root != to ||
            reads_otherwise(p, s, from))
            continue;
        b->root = from;
        a->last = b->last;
        a->pinned = b->pinned;
    }
}

static bool is_placed(const plan *p, size_t i)
{
    const slot *s = &p->slots[i];
    return s->root == (int)i && !s->data && s->first >= 0;
}

static rung_status place_slots(plan *p, size_t *total, rung_error *err)
{
    size_t n = 0;
    place_piece *pieces = arena_zero(p->mem, p->n_slots + 1, sizeof *pieces);
    if (!pieces)
        return fail_memory(err, "the plan", p->n_slots * sizeof *pieces);
    for (size_t i = 0; i < p->n_slots; i++)
        if (is_placed(p, i))
            pieces[n++] = (place_piece){p->slots[i].bytes, p->slots[i].first, p->slots[i].last, 0};
    const rung_status st = place_pieces(pieces, n, total, err);
    n = 0;
    for (size_t i = 0; i < p->n_slots && st == RUNG_OK; i++)
        if (is_placed(p, i))
            p->slots[i].offset = pieces[n++].offset;
    return st;
}

static rung_status allocate(plan *p, size_t total, rung_error *err)
{
    size_t scratch = 0;
    for (size_t i = 0; i < p->n_steps; i++)
        if (p->steps[i].s.scratch_bytes > scratch)
            scratch = p->steps[i].s.scratch_bytes;
    p->scratch_bytes = aligned(scratch);
    p->buffer_bytes = total;
    p->buffer = mem_zero(total + 1, 1);
    if (!p->buffer)
        return fail_memory(err, "the model's buffers", total);
    size_t all;
    if (!mul_fits(p->scratch_bytes, (size_t)p->n_threads, &all) ||
        !(p->scratch = mem_alloc(all + 1)))
        return fail_memory(err, "the threads' scratch", p->scratch_bytes);
    return RUNG_OK;
}

static void bind_buffers(plan *p)
{
    for (size_t i = 0; i < p->n_slots; i++) {
        slot *s = &p->slots[i];
        const slot *root = &p->slots[root_of(p, (int)i)];
        if (!s->data)
            s->data = root->data ? root->data : p->buffer + root->offset;
    }
    for (size_t i = 0; i < p->n_steps; i++) {
        plan_step *s = &p->steps[i];
        for (int k = 0; k < s->n_in + s->n_out; k++)
            s->bufs[k] =
                s->slots[k] == NO_SLOT ? NULL : (void *)(uintptr_t)p->slots[s->slots[k]].data;
    }
}

rung_status plan_memory(plan *p, rung_error *err)
{
    find_lives(p);
    keep_codes(p);
    share_in_place(p);
    size_t total = 0;
    rung_status st = place_slots(p, &total, err);
    if (st == RUNG_OK)
        st = allocate(p, total, err);
    if (st == RUNG_OK)
        bind_buffers(p);
    return st;
}

static bool in_buffer(const plan *p, const slot *s)
{
    const unsigned char *d = s->data;
    return d && d >= p->buffer && d < p->buffer + p->buffer_bytes + 1;
}

static bool live_together(const slot *a, const slot *b)
{
    return a->first <= b->last && b->first <= a->last;
}

bool plan_memory_is_sound(const plan *p)
{
    for (size_t i = 0; i < p->n_slots; i++) {
        const slot *a = &p->slots[i];
        if (a->root != (int)i || !in_buffer(p, a) || a->first < 0)
            continue;
        if (a->offset % ALIGN || a->offset + a->bytes > p->buffer_bytes)
            return false;
        for (size_t k = 0; k < i; k++) {
            const slot *b = &p->slots[k];
            if (b->root == (int)k && in_buffer(p, b) && b->first >= 0 && live_together(a, b) &&
                a->offset < b->offset + b->bytes && b->offset < a->offset + a->bytes)
                return false;
        }
    }
    return true;
}
