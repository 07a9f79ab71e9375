/* Where the walk finds a value: a constant or a parameter as it is, the codes that the engine kept
 * as float, anything else made by its node's step, once, in the layout that suits its operator. */
#include "train/tape_parts.h"

static bool is_made(const tape *t, int v)
{
    return t->cell_of[v][0] != NO_CELL || t->cell_of[v][1] != NO_CELL;
}

static rung_status begin_constant(tape *t, int v, rung_error *err)
{
    const tensor *c = t->constant[v];
    const size_t size = dtype_bytes(c->type, tensor_count(c));
    return cell_at(t, CELL_FIXED, v, 0, size, c->data, &t->cell_of[v][0], err);
}

static rung_status begin_param(tape *t, int v, rung_error *err)
{
    const param *p = &t->p->list[t->p->at[v]];
    return cell_at(t, CELL_PARAM, v, p->first, p->count * sizeof(float), NULL, &t->cell_of[v][0],
                   err);
}

/* The next value that must be there before v can be made; -1: none. */
static int missing(const tape *t, int v)
{
    if (t->constant[v] || tape_is_param(t, v) || t->g->values[v].producer < 0)
        return -1;
    const pair *q = tape_pair_behind(t, v);
    if (q)
        return q->kept || is_made(t, q->x) ? -1 : q->x;
    const node *n = &t->g->nodes[t->g->values[v].producer];
    for (int i = 0; i < n->n_inputs; i++)
        if (n->inputs[i] >= 0 && !is_made(t, n->inputs[i]))
            return n->inputs[i];
    return -1;
}

static rung_status make(tape *t, int v, rung_error *err)
{
    if (t->constant[v])
        return begin_constant(t, v, err);
    if (tape_is_param(t, v))
        return begin_param(t, v, err);
    const pair *q = tape_pair_behind(t, v);
    if (q)
        return tape_dequantize(t, q, err);
    if (t->g->values[v].producer < 0)
        return fail(err, RUNG_EMODEL, "'%s' is used but nothing makes it", t->g->values[v].name);
    return tape_node(t, &t->g->nodes[t->g->values[v].producer], err);
}

/* Not by recursion: a model may be a chain of many thousand nodes. */
static rung_status begin(tape *t, int v, rung_error *err)
{
    const size_t bottom = t->depth; /* making a value asks for others: a scale */
    rung_status st = RUNG_OK;
    t->stack[t->depth++] = v;
    while (t->depth > bottom && st == RUNG_OK) {
        const int top = t->stack[t->depth - 1], before = missing(t, top);
        if (before >= 0) {
            t->stack[t->depth++] = before;
            continue;
        }
        if (!is_made(t, top))
            st = make(t, top, err);
        t->depth--;
    }
    t->depth = bottom;
    return st;
}

rung_status tape_need(tape *t, int v, bool last, int *out, rung_error *err)
{
    rung_status st = RUNG_OK;
    last = last && tape_may_be_last(t, v);
    if (!is_made(t, v))
        st = begin(t, v, err);
    if (st == RUNG_OK && !is_made(t, v))
        st = fail(err, RUNG_EMODEL, "'%s' is no output of the node that should make it",
                  t->g->values[v].name);
    if (st == RUNG_OK && t->cell_of[v][last] == NO_CELL)
        st = tape_convert(t, v, t->cell_of[v][!last], !last, &t->cell_of[v][last], err);
    *out = st == RUNG_OK ? t->cell_of[v][last] : NO_CELL;
    return st;
}
