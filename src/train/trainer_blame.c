/* Where a number that is not finite comes from. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "measure/measure.h"
#include "train/trainer_parts.h"

typedef struct search {
    const graph *g;
    bool         found;
    rung_error  *err;
    char         before[sizeof((rung_error *)0)->message];
} search;

static rung_status look(void *ctx, int v, const float *data, size_t count, rung_error *err)
{
    search *s = ctx;
    char label[NODE_LABEL_SIZE];
    size_t bad = 0;
    for (size_t i = 0; i < count; i++)
        bad += !isfinite(data[i]);
    if (!bad || s->found)
        return RUNG_OK;
    s->found = true;
    fail(s->err, RUNG_EMODEL, "%s; %s is the first node whose output holds such numbers", s->before,
         node_label(s->g, &s->g->nodes[s->g->values[v].producer], label, sizeof label));
    return RUNG_OK;
}

static bool blame_parameter(const trainer *t, rung_error *err)
{
    char before[sizeof err->message];
    snprintf(before, sizeof before, "%s", err->message);
    for (size_t i = 0; i < t->p->n; i++) {
        const param *a = &t->p->list[i];
        for (size_t k = a->first; k < a->first + a->count; k++)
            if (!isfinite(t->p->data[k])) {
                fail(err, RUNG_EMODEL, "%s; '%s' holds such numbers itself", before, a->name);
                return true;
            }
    }
    return false;
}

/* Whether a node was found. */
static bool find_layer(const trainer *t, const batch *b, rung_error *err)
{
    rung_error other;
    graph *g = NULL;
    engine *e = NULL;
    bool *observe = NULL;
    search s = { .err = err };
    if (b->n < 1 || trainer_graph(t, t->p->data, t->prepared, &g, &other) != RUNG_OK)
        return false;
    snprintf(s.before, sizeof s.before, "%s", err->message);
    s.g = g;
    observe = mem_zero(g->n_values, sizeof *observe);
    for (size_t i = 0; observe && i < g->n_nodes; i++) {
        const node *n = &g->nodes[i];
        if (n->n_outputs && n->outputs[0] >= 0 && strcmp(n->op_type, "QuantizeLinear"))
            observe[n->outputs[0]] = true;
    }
    if (observe && engine_for_batch(g, b, 1, observe, &e, &other) == RUNG_OK) {
        engine_set_tap(e, look, &s);
        if (engine_feed(e, g, b, &other) == RUNG_OK)
            engine_run(e, &other);
    }
    engine_free(e);
    mem_free(observe);
    graph_free(g);
    return s.found;
}

void blame_layer(const trainer *t, const batch *b, rung_error *err)
{
    int from;
    rung_error own = { "" }, other;
    if (!err)
        err = &own;
    if (blame_parameter(t, err)) /* the same in all processes */
        return;
    const bool found = find_layer(t, b, err);
    if (ranks_first(t->opt.ranks, found, &from, &other) == RUNG_OK &&
        from < ranks_count(t->opt.ranks))
        ranks_share(t->opt.ranks, from, err, sizeof *err, &other);
}
