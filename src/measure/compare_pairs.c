/* Which activations of an int8 model can be held against the float model, who makes each, and from
 * which others. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "graph/pass.h"
#include "measure/compare_parts.h"

static rung_status out_of_memory(rung_error *err)
{
    return fail_memory(err, "the records of a comparison", sizeof(tensor_record));
}

static bool is_variable(const graph *g, int v)
{
    const value *at = v >= 0 ? &g->values[v] : NULL;
    return at && !at->constant && (at->is_input || at->producer >= 0);
}

/* One float32 scale > 0, and a zero point of an 8 or 16-bit type: what codes it can represent. */
static bool take_parameters(const graph *g, const node *q, tensor_record *t)
{
    const tensor *s = node_constant(g, q, 1), *z = node_constant(g, q, 2);
    if (!s || s->type != RUNG_F32 || tensor_count(s) != 1 || (z && tensor_count(z) != 1) ||
        (!z && node_input(q, 2) >= 0))
        return false;
    double lo = 0, hi = 255;
    switch (z ? z->type : RUNG_U8) {
    case RUNG_U8: break;
    case RUNG_I8: lo = -128; hi = 127; break;
    case RUNG_U16: hi = 65535; break;
    case RUNG_I16: lo = -32768; hi = 32767; break;
    default: return false;
    }
    t->scale = tensor_get(s, 0);
    t->zero = z ? (int)tensor_get_int(z, 0) : 0;
    t->clip_lo = (lo - t->zero) * t->scale;
    t->clip_hi = (hi - t->zero) * t->scale;
    return t->scale > 0;
}

/* The Clip that makes v; NULL: another makes it. */
static const node *clip_of(const graph *g, int v)
{
    const int at = g->values[v].producer;
    return at >= 0 && node_is(&g->nodes[at], "Clip") ? &g->nodes[at] : NULL;
}

/* The float model's value of the name that v has in the int8 model. -1: none. */
static int in_reference(const pairing *p, int v)
{
    return v >= 0 ? strmap_get(p->reference->by_name, p->g->values[v].name, -1) : -1;
}

/* The float model's value that the pair stands for: the one that Q reads, or that the Clip to codes
 * of fewer bits before Q reads or, where a graph's output took that name behind the pair, the one
 * that DQ makes. -1: none. */
static int namesake(const pairing *p, const node *q, int y)
{
    const node *clip = clip_of(p->g, q->inputs[0]);
    int v = in_reference(p, q->inputs[0]);
    v = v < 0 && clip ? in_reference(p, clip->inputs[0]) : v;
    v = v < 0 ? in_reference(p, y) : v;
    const dtype type = v >= 0 ? p->reference->values[v].type : RUNG_UNDEFINED;
    return is_variable(p->reference, v) && (type == RUNG_F32 || type == RUNG_UNDEFINED) ? v : -1;
}

/* Input i of a Clip, one number; false: it is left out or not constant. */
static bool clip_bound(const graph *g, const node *clip, int i, double *bound)
{
    const tensor *t = clip ? node_constant(g, clip, i) : NULL;
    if (!t || t->type != RUNG_F32 || tensor_count(t) != 1)
        return false;
    *bound = tensor_get(t, 0);
    return !isnan(*bound);
}

/* Codes of fewer than 8 bits reach as far as the Clip before Q; one of the float model's own bounds
 * the values, not the codes. */
static void narrow_reach(const pairing *p, const node *q, int match, tensor_record *t)
{
    const node *clip = clip_of(p->g, q->inputs[0]), *own = clip_of(p->reference, match);
    double bound, same;
    if (clip_bound(p->g, clip, 1, &bound) &&
        !(clip_bound(p->reference, own, 1, &same) && same == bound))
        t->clip_lo = fmin(fmax(t->clip_lo, bound), t->clip_hi);
    if (clip_bound(p->g, clip, 2, &bound) &&
        !(clip_bound(p->reference, own, 2, &same) && same == bound))
        t->clip_hi = fmax(fmin(t->clip_hi, bound), t->clip_lo);
}

static int dequantized(const graph *g, const uses *u, int codes)
{
    for (int k = u->first[codes]; k < u->first[codes + 1]; k++)
        if (node_is(&g->nodes[u->list[k]], "DequantizeLinear"))
            return g->nodes[u->list[k]].outputs[0];
    return -1;
}

/* --- who makes a tensor ----------------------------------------------------------------------- */

/* The node that makes v, behind a Relu or Clip that the layer absorbs; NULL: the caller feeds v. */
static const node *maker(const graph *g, int v)
{
    const int at = g->values[v].producer;
    if (at < 0)
        return NULL;
    const node *n = &g->nodes[at];
    const int before = n->n_inputs ? n->inputs[0] : -1;
    const int maker_at = before >= 0 ? g->values[before].producer : -1;
    const bool clamps = node_is(n, "Relu") || node_is(n, "Clip");
    if (!clamps || maker_at < 0 || node_is(&g->nodes[maker_at], "DequantizeLinear"))
        return n;
    return &g->nodes[maker_at];
}

/* Back from v to the pairs that it is computed from. */
typedef struct walk {
    const pairing *p;
    bool          *seen;  /* by node index */
    int           *stack; /* values to visit; [n values] */
    size_t         n_stack;
    int           *found, n_found; /* [n pairs] */
} walk;

static void visit(walk *w, int v)
{
    const graph *g = w->p->g;
    const int at = g->values[v].producer;
    if (w->p->pair_of[v] >= 0) {
        for (int k = 0; k < w->n_found; k++)
            if (w->found[k] == w->p->pair_of[v])
                return;
        w->found[w->n_found++] = w->p->pair_of[v];
    } else if (at >= 0 && !w->seen[at]) {
        const node *n = &g->nodes[at];
        w->seen[at] = true;
        for (int i = n->n_inputs - 1; i >= 0; i--) /* the first is visited first */
            if (n->inputs[i] >= 0 && w->n_stack < g->n_values)
                w->stack[w->n_stack++] = n->inputs[i];
    }
}

static rung_status find_inputs(comparison *c, walk *w, tensor_record *t, int x, rung_error *err)
{
    memset(w->seen, 0, w->p->g->n_nodes * sizeof *w->seen);
    w->n_found = 0;
    w->stack[0] = x;
    w->n_stack = 1;
    while (w->n_stack)
        visit(w, w->stack[--w->n_stack]);
    t->n_inputs = w->n_found;
    t->inputs = arena_copy(c->mem, w->found, (size_t)w->n_found * sizeof *w->found);
    if (!t->inputs)
        return out_of_memory(err);
    const tensor_record *from = t->moves && t->n_inputs ? &c->tensors[t->inputs[0]] : NULL;
    if (from && from->scale == t->scale && from->zero == t->zero) { /* no other codes arrive */
        t->clip_lo = from->clip_lo;
        t->clip_hi = from->clip_hi;
    }
    return RUNG_OK;
}

static rung_status name_tensor(comparison *c, const pairing *p, size_t i, rung_error *err)
{
    char label[NODE_LABEL_SIZE];
    tensor_record *t = &c->tensors[i];
    const pair *of = &p->pairs[i];
    const node *n = maker(p->g, of->x);
    t->name = arena_strdup(c->mem, p->reference->values[of->match].name);
    t->node = arena_strdup(c->mem, n ? node_label(p->g, n, label, sizeof label)
                                     : "input of the model");
    t->node_name = arena_strdup(c->mem, n ? n->name : "");
    t->op_type = arena_strdup(c->mem, n ? n->op_type : "");
    t->moves = n && n->op && n->op->quant.kind == QUANT_SHARES_INPUT;
    t->weights = -1;
    t->lo = 1;
    t->values = arena_zero(c->mem, 1, sizeof *t->values);
    return t->name && t->node && t->node_name && t->op_type && t->values ? RUNG_OK
                                                                        : out_of_memory(err);
}

static rung_status describe(comparison *c, pairing *p, rung_error *err)
{
    const graph *g = p->g;
    walk w = { .p = p, .seen = mem_zero(g->n_nodes + 1, sizeof *w.seen),
               .stack = mem_zero(g->n_values + 1, sizeof *w.stack),
               .found = mem_zero(c->n_tensors + 1, sizeof *w.found) };
    rung_status st = w.seen && w.stack && w.found ? RUNG_OK : out_of_memory(err);
    for (size_t i = 0; i < c->n_tensors && st == RUNG_OK; i++)
        if ((st = name_tensor(c, p, i, err)) == RUNG_OK)
            st = find_inputs(c, &w, &c->tensors[i], p->pairs[i].x, err);
    mem_free(w.seen);
    mem_free(w.stack);
    mem_free(w.found);
    return st;
}

/* --- pairs ------------------------------------------------------------------------------------ */

static void take_pair(comparison *c, pairing *p, const uses *u, const node *q)
{
    const graph *g = p->g;
    const int codes = q->outputs[0], y = dequantized(g, u, codes);
    tensor_record *t = &c->tensors[c->n_tensors];
    if (y < 0 || !is_variable(g, q->inputs[0]))
        return;
    const int match = namesake(p, q, y);
    if (match < 0 || !take_parameters(g, q, t)) {
        c->n_unmatched++;
        return;
    }
    narrow_reach(p, q, match, t);
    p->pairs[c->n_tensors] = (pair){ q->inputs[0], y, q->inputs[1], node_input(q, 2), match };
    for (int k = u->first[codes]; k < u->first[codes + 1]; k++)
        if (node_is(&g->nodes[u->list[k]], "DequantizeLinear"))
            p->pair_of[g->nodes[u->list[k]].outputs[0]] = (int)c->n_tensors;
    c->n_tensors++;
}

rung_status compare_find_pairs(comparison *c, const graph *reference, const graph *g, pairing *p,
                               rung_error *err)
{
    uses u;
    size_t n = 0;
    for (size_t i = 0; i < g->n_nodes; i++)
        n += node_is(&g->nodes[i], "QuantizeLinear");
    *p = (pairing){ .reference = reference, .g = g };
    p->pairs = arena_zero(c->mem, n + 1, sizeof *p->pairs);
    p->pair_of = arena_zero(c->mem, g->n_values + 1, sizeof *p->pair_of);
    c->tensors = arena_zero(c->mem, n + 1, sizeof *c->tensors);
    if (!p->pairs || !p->pair_of || !c->tensors)
        return out_of_memory(err);
    memset(p->pair_of, -1, (g->n_values + 1) * sizeof *p->pair_of);
    const rung_status st = graph_uses(g, c->mem, &u, err);
    if (st != RUNG_OK)
        return st;
    for (size_t i = 0; i < g->n_nodes; i++)
        if (node_is(&g->nodes[i], "QuantizeLinear"))
            take_pair(c, p, &u, &g->nodes[i]);
    return describe(c, p, err);
}
