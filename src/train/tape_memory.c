/* One buffer for all cells, each placed by its life. */
#include "base/mem.h"
#include "base/place.h"
#include "train/tape_parts.h"

static int root_of(const tape *t, int c)
{
    while (t->cells[c].root != c)
        c = t->cells[c].root;
    return c;
}

static bool in_buffer(const tape *t, int c)
{
    return c != NO_CELL && t->cells[c].home == CELL_BUFFER;
}

static void extend(tape *t, int c, int at)
{
    cell *r = &t->cells[c];
    if (r->born < 0 || at < r->born)
        r->born = at;
    if (at > r->last)
        r->last = at;
}

/* What the caller reads or writes is there as long as anything is. */
static void pin(tape *t, int c)
{
    if (!in_buffer(t, c))
        return;
    t->cells[c].pinned = true;
    extend(t, c, 0);
    extend(t, c, (int)t->n_steps);
}

static void find_lives(tape *t)
{
    for (size_t i = 0; i < t->n_steps; i++)
        for (int k = 0; k < t->steps[i].n_cells; k++)
            if (in_buffer(t, t->steps[i].cells[k]))
                extend(t, t->steps[i].cells[k], (int)i);
    for (int i = 0; i < t->n_inputs; i++)
        pin(t, t->input_cells[i]);
    for (int i = 0; i < t->n_outputs; i++) {
        pin(t, t->output_cells[i]);
        pin(t, t->output_grads[i]);
    }
    for (size_t i = 0; i < t->n_moments; i++)
        pin(t, t->moments[i].batch);
}

static bool reads_otherwise(const tape *t, const tape_step *s, int root)
{
    for (int k = 1; k < s->n_cells; k++)
        if (k != s->over && in_buffer(t, s->cells[k]) && root_of(t, s->cells[k]) == root)
            return true;
    return false;
}

/* A step that may write over its first cell does so where nobody needs that any more. */
static void share_in_place(tape *t)
{
    for (size_t i = 0; i < t->n_steps; i++) {
        const tape_step *s = &t->steps[i];
        if (!s->s.in_place || s->over < 0 || !in_buffer(t, s->cells[0]) ||
            !in_buffer(t, s->cells[s->over]))
            continue;
        const int from = root_of(t, s->cells[0]), to = s->cells[s->over];
        cell *a = &t->cells[from], *b = &t->cells[to];
        if (a->pinned || a->last != (int)i || a->bytes != b->bytes || b->born != (int)i ||
            reads_otherwise(t, s, from))
            continue;
        b->root = from;
        a->last = b->last;
        a->pinned = b->pinned;
    }
}

/* A root's piece stands at its own place of the list, with the lives of all that share it. */
static rung_status place_roots(tape *t, rung_error *err)
{
    size_t n = 0;
    place_piece *pieces = mem_zero(t->n_cells + 1, sizeof *pieces);
    if (!pieces)
        return tape_out_of_memory(err);
    for (size_t c = 0; c < t->n_cells; c++)
        if (in_buffer(t, (int)c) && t->cells[c].root == (int)c && t->cells[c].born >= 0)
            pieces[n++] = (place_piece){t->cells[c].bytes, t->cells[c].born, t->cells[c].last, 0};
    const rung_status st = place_pieces(pieces, n, &t->buffer_bytes, err);
    n = 0;
    for (size_t c = 0; c < t->n_cells && st == RUNG_OK; c++)
        if (in_buffer(t, (int)c) && t->cells[c].root == (int)c && t->cells[c].born >= 0)
            t->cells[c].offset = pieces[n++].offset;
    mem_free(pieces);
    return st;
}

static rung_status allocate(tape *t, rung_error *err)
{
    size_t all;
    for (size_t i = 0; i < t->n_steps; i++)
        if (t->steps[i].s.scratch_bytes > t->scratch_bytes)
            t->scratch_bytes = t->steps[i].s.scratch_bytes;
    t->scratch_bytes = (t->scratch_bytes + 63) / 64 * 64;
    t->buffer = mem_zero(t->buffer_bytes + 1, 1);
    if (!t->buffer)
        return fail_memory(err, "a tape's buffer", t->buffer_bytes);
    if (!mul_fits(t->scratch_bytes, (size_t)team_size(t->threads), &all) ||
        !(t->scratch = mem_zero(all + 1, 1)))
        return fail_memory(err, "a tape's scratch memory", t->scratch_bytes);
    for (size_t c = 0; c < t->n_cells; c++)
        if (in_buffer(t, (int)c))
            t->cells[c].data = t->buffer + t->cells[root_of(t, (int)c)].offset;
    return RUNG_OK;
}

rung_status tape_place(tape *t, rung_error *err)
{
    find_lives(t);
    share_in_place(t);
    const rung_status st = place_roots(t, err);
    return st == RUNG_OK ? allocate(t, err) : st;
}

/* Engines keep their codes where they like. */
static void *codes_of(const tape *t, int v)
{
    engine_kept k;
    return engine_codes(t->e, v, &k) ? (void *)(uintptr_t)k.data : NULL;
}

/* Parameters are read only; a step's buffers are not const. */
void tape_bind(tape *t, const float *data, float *grad)
{
    for (size_t c = 0; c < t->n_cells; c++) {
        cell *x = &t->cells[c];
        if (x->home == CELL_PARAM)
            x->data = (void *)(uintptr_t)(data + x->first);
        else if (x->home == CELL_GRAD)
            x->data = grad ? grad + x->first : NULL;
        else if (x->home == CELL_CODES)
            x->data = codes_of(t, x->value);
    }
    for (size_t i = 0; i < t->n_steps; i++)
        for (int k = 0; k < t->steps[i].n_cells; k++)
            t->steps[i].bufs[k] =
                t->steps[i].cells[k] == NO_CELL ? NULL : t->cells[t->steps[i].cells[k]].data;
}

bool tape_memory_is_sound(const tape *t)
{
    for (size_t a = 0; a < t->n_cells; a++) {
        const cell *x = &t->cells[a];
        if (!in_buffer(t, (int)a) || x->root != (int)a || x->born < 0)
            continue;
        if (x->offset % 64 || x->offset + x->bytes > t->buffer_bytes)
            return false;
        for (size_t b = 0; b < a; b++) {
            const cell *y = &t->cells[b];
            if (in_buffer(t, (int)b) && y->root == (int)b && y->born >= 0 && x->born <= y->last &&
                y->born <= x->last && x->offset < y->offset + y->bytes &&
                y->offset < x->offset + x->bytes)
                return false;
        }
    }
    return true;
}
