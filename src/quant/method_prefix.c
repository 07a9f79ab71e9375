/* A walk over n layers would run the network n times from its beginning. What the walk has settled
 * gives the same codes each time: they are kept where it passes a narrow place of the network, and
 * runs begin there. Exact: the codes are those that the next node would have read. */
#include <string.h>

#include "base/mem.h"
#include "graph/pass.h"
#include "graph/rewrite.h"
#include "quant/method.h"

/* --- where a network can be cut --------------------------------------------------------------- */

static bool is_read_from(const graph *g, size_t first, int v)
{
    for (size_t i = first; i < g->n_nodes; i++)
        for (int k = 0; !g->nodes[i].dead && k < g->nodes[i].n_inputs; k++)
            if (g->nodes[i].inputs[k] == v)
                return true;
    return false;
}

static bool has_captures(const graph *g)
{
    for (size_t i = 0; i < g->n_nodes; i++)
        if (g->nodes[i].n_captures)
            return true;
    return false;
}

static bool is_before(const value *v, size_t cut)
{
    return !v->constant && (v->is_input || (v->producer >= 0 && (size_t)v->producer < cut));
}

/* Its pair has 8 bits and will not change. */
static bool is_settled(const recipe *r, const bool *open, size_t v)
{
    const place_kind k = r->places[v].kind;
    return (k == PLACE_ACTIVATION || k == PLACE_SHARED || k == PLACE_FIXED) &&
           !qsettings_wide(&r->set[v]) && !(r->narrow[v].scale > 0) && !open[r->places[v].shares];
}

/* What passes from the nodes before `cut` to the others; 0: not all of it is settled. */
static size_t find_passing(const recipe *r, const bool *open, size_t cut, int *list)
{
    size_t n = 0;
    for (size_t v = 0; v < r->n_values; v++) {
        if (!is_before(&r->g->values[v], cut) || !is_read_from(r->g, cut, (int)v))
            continue;
        if (!is_settled(r, open, v))
            return 0;
        list[n++] = (int)v;
    }
    return has_captures(r->g) ? 0 : n;
}

/* Parameters before the cut are those that the codes were made with. */
static bool still_valid(const prefix *p, const recipe *r)
{
    for (size_t v = 0; v < r->n_values; v++)
        if (is_before(&r->g->values[v], p->node) &&
            (p->params[v].scale != r->params[v].scale || p->params[v].zero != r->params[v].zero))
            return false;
    return true;
}

/* --- what is kept ----------------------------------------------------------------------------- */

rung_status prefix_begin(prefix *p, const recipe *r, const samples *s, rung_error *err)
{
    *p = (prefix){ .mem = arena_new(), .s = s, };
    if (!p->mem)
        return fail_memory(err, "a walk", sizeof *p);
    p->codes = (samples){ .n = s->n, .n_fit = s->n_fit, .n_threads = s->n_threads };
    p->codes.list = arena_zero(p->mem, s->n + 1, sizeof *p->codes.list);
    p->stores = arena_zero(p->mem, s->n + 1, sizeof *p->stores);
    p->params = arena_zero(p->mem, r->n_values + 1, sizeof *p->params);
    p->open = arena_zero(p->mem, r->n_values + 1, sizeof *p->open);
    p->values = arena_zero(p->mem, r->n_values + 1, sizeof *p->values);
    p->next = arena_zero(p->mem, r->n_values + 1, sizeof *p->next);
    return p->codes.list && p->stores && p->params && p->open && p->values && p->next
               ? RUNG_OK : fail_memory(err, "a walk", r->n_values * sizeof *p->params);
}

static void drop(prefix *p)
{
    for (size_t i = 0; i < p->codes.n; i++) {
        arena_free(p->stores[i]);
        p->stores[i] = NULL;
    }
    p->n = p->node = 0;
}

void prefix_end(prefix *p)
{
    if (p->stores)
        drop(p);
    arena_free(p->mem);
    *p = (prefix){ 0 };
}

const samples *prefix_source(const prefix *p)
{
    return p->n ? &p->codes : p->s;
}

/* --- graphs ----------------------------------------------------------------------------------- */

/* x -> QuantizeLinear -> DequantizeLinear -> v: the codes, -1 where there is no pair. */
static int codes_of(const graph *q, int v)
{
    const int dq = v < 0 ? -1 : q->values[v].producer;
    const int codes = dq < 0 || !node_is(&q->nodes[dq], "DequantizeLinear")
                          ? -1 : q->nodes[dq].inputs[0];
    const int maker = codes < 0 ? -1 : q->values[codes].producer;
    return maker >= 0 && node_is(&q->nodes[maker], "QuantizeLinear") ? codes : -1;
}

static int kept_at(const prefix *p, int v)
{
    for (size_t i = 0; i < p->n; i++)
        if (p->values[i] == v)
            return (int)i;
    return -1;
}

/* v as the model makes it; of a tensor that is kept only what is behind its pair is there. */
static int shown(const prefix *p, const graph *q, const int *map, int v)
{
    const int codes = codes_of(q, map[v]);
    if (codes < 0 || kept_at(p, v) >= 0)
        return map[v] >= 0 ? map[v] : v;
    return q->nodes[q->values[codes].producer].inputs[0];
}

static rung_status only_output(graph *q, int v, rung_error *err)
{
    for (int i = 0; i < q->n_outputs; i++)
        q->values[q->outputs[i]].is_output = false;
    q->n_outputs = 0;
    return graph_mark_output(q, v, err);
}

/* Kept codes are inputs now, and the only ones. */
static rung_status begin_at(const prefix *p, graph *q, const int *map, rung_error *err)
{
    rung_status st = RUNG_OK;
    for (int i = 0; i < q->n_inputs; i++)
        q->values[q->inputs[i]].is_input = false;
    q->n_inputs = 0;
    for (size_t i = 0; i < p->n && st == RUNG_OK; i++) {
        const int codes = codes_of(q, map[p->values[i]]);
        value *x = &q->values[codes];
        const rung_tensor *like = &p->codes.list[0].inputs[i].data.t;
        q->nodes[x->producer].dead = true;
        x->type = like->type;
        x->rank = like->rank;
        for (int d = 0; d < x->rank; d++) /* batches differ */
            x->dims[d] = DIM_UNKNOWN;
        for (size_t k = 0; k < p->codes.n; k++)
            p->codes.list[k].inputs[i].name = x->name;
        st = graph_mark_input(q, codes, err);
    }
    return st;
}

rung_status prefix_graph(prefix *p, const recipe *r, int v, size_t settled, arena *mem,
                         graph **out, rung_error *err)
{
    const int *map = NULL;
    if (p->n && !still_valid(p, r))
        drop(p);
    rung_status st = recipe_graph(r, mem, out, &map, err);
    if (st != RUNG_OK || (st = only_output(*out, shown(p, *out, map, v), err)) != RUNG_OK)
        return st;
    graph *q = *out;
    p->n_next = settled > p->node ? find_passing(r, p->open, settled, p->next) : 0;
    p->next_node = settled;
    for (size_t i = 0; i < p->n_next && st == RUNG_OK; i++) {
        const int codes = codes_of(q, map[p->next[i]]);
        if (codes < 0)
            p->n_next = 0;
        else if (kept_at(p, p->next[i]) < 0)
            st = graph_mark_output(q, codes, err);
    }
    if (st == RUNG_OK && p->n)
        st = begin_at(p, q, map, err);
    return st == RUNG_OK ? rewrite_remove_dead(q, err) : st;
}

/* --- while it runs ---------------------------------------------------------------------------- */

/* What comes next of batch `at`, by its place in p->next. */
static rung_tensor passing(const prefix *p, const engine *e, size_t at, size_t i, int *output)
{
    const int kept = kept_at(p, p->next[i]);
    if (kept >= 0)
        return p->codes.list[at].inputs[kept].data.t;
    return *engine_output(e, ++*output);
}

static bool has_room(const prefix *p, const engine *e)
{
    size_t all = 0;
    int output = 0;
    for (size_t i = 0; i < p->n_next; i++) {
        const rung_tensor t = passing(p, e, 0, i, &output);
        all += rung_tensor_bytes(&t) * p->codes.n;
    }
    return all <= PREFIX_BYTES;
}

rung_status prefix_keep(prefix *p, const engine *e, size_t at, rung_error *err)
{
    int output = 0;
    if (at == 0 && !has_room(p, e))
        p->n_next = 0;
    if (!p->n_next)
        return RUNG_OK;
    arena *mem = arena_new();
    kept_batch b = { p->s->list[at].n, (int)p->n_next,
                     mem ? arena_zero(mem, p->n_next, sizeof *b.inputs) : NULL };
    bool good = b.inputs != NULL;
    for (size_t i = 0; good && i < p->n_next; i++) {
        b.inputs[i].data.t = passing(p, e, at, i, &output);
        const void *from = b.inputs[i].data.t.data;
        b.inputs[i].data.t.data = arena_copy(mem, from, rung_tensor_bytes(&b.inputs[i].data.t));
        good = b.inputs[i].data.t.data != NULL;
    }
    if (!good) {
        arena_free(mem);
        return fail_memory(err, "codes of a walk", PREFIX_BYTES);
    }
    arena_free(p->stores[at]);
    p->stores[at] = mem;
    p->codes.list[at] = b;
    return RUNG_OK;
}

void prefix_moved(prefix *p, const recipe *r)
{
    if (!p->n_next)
        return;
    memcpy(p->values, p->next, p->n_next * sizeof *p->values);
    memcpy(p->params, r->params, r->n_values * sizeof *p->params);
    p->n = p->n_next;
    p->node = p->next_node;
}
