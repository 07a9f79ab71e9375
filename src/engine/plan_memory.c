/* One static buffer for all values: each root slot lives from the step that writes it to the last
 * that reads it (or a view of it); slots are placed largest first, each in the smallest gap left by
 * those that live at the same time. */
#include "engine/plan.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"

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

static int larger_first(const void *a, const void *b)
{
    const slot *x = *(slot *const *)a, *y = *(slot *const *)b;
    if (x->bytes != y->bytes)
        return x->bytes < y->bytes ? 1 : -1;
    return x < y ? -1 : 1;
}

static int lower_first(const void *a, const void *b)
{
    const slot *x = *(slot *const *)a, *y = *(slot *const *)b;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    return x < y ? -1 : 1;
}

static bool live_together(const slot *a, const slot *b)
{
    return a->first <= b->last && b->first <= a->last;
}

/* The smallest gap between `near` (sorted by offset) that holds s; behind all of them otherwise. */
static size_t best_gap(slot *const *near, size_t n, const slot *s)
{
    size_t best = SIZE_MAX, best_size = SIZE_MAX, end = 0;
    for (size_t i = 0; i < n; i++) {
        if (near[i]->offset > end) {
            const size_t gap = near[i]->offset - end;
            if (gap >= aligned(s->bytes) && gap < best_size) {
                best = end;
                best_size = gap;
            }
        }
        const size_t next = near[i]->offset + aligned(near[i]->bytes);
        end = next > end ? next : end;
    }
    return best == SIZE_MAX ? end : best;
}

static size_t collect_roots(plan *p, slot **roots)
{
    size_t n = 0;
    for (size_t i = 0; i < p->n_slots; i++) {
        slot *s = &p->slots[i];
        if (s->root == (int)i && !s->data && s->first >= 0)
            roots[n++] = s;
    }
    return n;
}

static void place(slot **roots, size_t n, slot **near, size_t *total)
{
    qsort(roots, n, sizeof *roots, larger_first);
    *total = 0;
    for (size_t i = 0; i < n; i++) {
        size_t n_near = 0;
        for (size_t k = 0; k < i; k++)
            if (live_together(roots[i], roots[k]))
                near[n_near++] = roots[k];
        qsort(near, n_near, sizeof *near, lower_first);
        roots[i]->offset = best_gap(near, n_near, roots[i]);
        const size_t end = roots[i]->offset + aligned(roots[i]->bytes);
        *total = end > *total ? end : *total;
    }
}

/* Sums that cannot overflow size_t: no slot is larger than what the machine holds. */
static rung_status check_size(slot *const *roots, size_t n, rung_error *err)
{
    const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    const size_t memory = pages > 0 && page > 0 ? (size_t)pages * (size_t)page : SIZE_MAX / 4;
    size_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        if (roots[i]->bytes > memory)
            return fail(err, RUNG_EMEMORY,
                        "a tensor of the model takes %zu MiB, the machine has %zu",
                        roots[i]->bytes >> 20, memory >> 20);
        sum = sum > SIZE_MAX - aligned(roots[i]->bytes) ? SIZE_MAX : sum + aligned(roots[i]->bytes);
    }
    return sum == SIZE_MAX ? fail(err, RUNG_EMEMORY, "the model's tensors are too large") : RUNG_OK;
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
    share_in_place(p);
    slot **roots = arena_zero(p->mem, p->n_slots + 1, sizeof *roots);
    slot **near = arena_zero(p->mem, p->n_slots + 1, sizeof *near);
    if (!roots || !near)
        return fail_memory(err, "the plan", p->n_slots * sizeof *roots);
    const size_t n = collect_roots(p, roots);
    size_t total = 0;
    rung_status st = check_size(roots, n, err);
    if (st != RUNG_OK)
        return st;
    place(roots, n, near, &total);
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
