/* Layers of a quantized network with more bits: what is asked for, step by step, and a record. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "graph/pass.h"
#include "measure/compare.h"
#include "quant/mixed.h"

/* Of the seconds that latency is measured for: for one choice between two networks. */
#define CHOICE 0.3

typedef struct mixing {
    recipe           *r;
    const graph      *reference;
    dataset          *data; /* to calibrate on: orders the layers, and gives the sample to time */
    const mixed_wish *wish;
    mixed_record     *m;
    candidates        c;
    judge             j;
    loader           *l;
    const batch      *sample;
    graph            *all; /* every layer in 8 bits */
    turns            *t;
} mixing;

/* --- layers ----------------------------------------------------------------------------------- */

static bool is_layer(const recipe *r, size_t i)
{
    const node *n = &r->g->nodes[i];
    return r->quantized[i] && n->op && n->n_outputs > 0 && n->outputs[0] >= 0 &&
           (n->op->quant.kind == QUANT_COMPUTE || n->op->quant.kind == QUANT_FIXED_OUTPUT);
}

static rung_status list_layers(mixing *x, rung_error *err)
{
    const recipe *r = x->r;
    candidates *c = &x->c;
    char label[NODE_LABEL_SIZE];
    x->m = mem_zero(1, sizeof *x->m);
    if (!x->m || !(x->m->mem = arena_new()))
        return fail_memory(err, "layers", sizeof *x->m);
    *c = (candidates){ .r = r,
                       .layers = arena_zero(x->m->mem, r->n_nodes + 1, sizeof *c->layers),
                       .nodes = arena_zero(x->m->mem, r->n_nodes + 1, sizeof *c->nodes),
                       .can_widen = arena_zero(x->m->mem, r->n_nodes + 1, sizeof(bool)),
                       .levels = arena_zero(x->m->mem, r->n_nodes + 1, sizeof *c->levels) };
    if (!c->layers || !c->nodes || !c->can_widen || !c->levels)
        return fail_memory(err, "layers", r->n_nodes * sizeof *c->layers);
    for (size_t i = 0; i < r->n_nodes; i++) {
        if (!is_layer(r, i))
            continue;
        mixed_layer *l = &c->layers[c->n];
        l->label = arena_strdup(x->m->mem, node_label(r->g, &r->g->nodes[i], label, sizeof label));
        if (!l->label)
            return fail_memory(err, "layers", sizeof label);
        l->effect = NAN;
        l->top1 = l->agreement = -1;
        c->can_widen[c->n] = can_be_wide(r, i);
        c->nodes[c->n++] = i;
    }
    x->m->layers = c->layers;
    x->m->n_layers = c->n;
    return RUNG_OK;
}

/* --- latency ---------------------------------------------------------------------------------- */

static double seconds_of(const mixing *x)
{
    return x->wish->seconds > 0 ? x->wish->seconds : 1;
}

static rung_status open_sample(mixing *x, rung_error *err)
{
    const size_t first = 0;
    rung_status st = loader_open(x->data, &first, 1, 1, &x->l, err);
    if (st == RUNG_OK)
        st = loader_next(x->l, &x->sample, err);
    return st == RUNG_OK && !x->sample ? fail(err, RUNG_EARGUMENT, "there is no sample to time")
                                       : st;
}

static rung_status time_layers(mixing *x, rung_error *err)
{
    const int n_threads = x->r->opt->n_threads;
    layer_times real = { 0 }, integer = { 0 };
    rung_status st = layer_times_measure(x->reference, x->sample, n_threads, &real, err);
    if (st == RUNG_OK)
        st = layer_times_measure(x->all, x->sample, n_threads, &integer, err);
    for (size_t i = 0; i < x->c.n && st == RUNG_OK; i++) {
        mixed_layer *l = &x->c.layers[i];
        const layer_time now = layer_times_of(&integer, l->label);
        l->macs = now.macs;
        l->int8_ms = now.ms;
        l->float_ms = layer_times_of(&real, l->label).ms;
    }
    x->c.macs = x->m->macs = integer.macs;
    layer_times_free(&real);
    layer_times_free(&integer);
    return st;
}

/* Faster in three of four rounds: what the machine does beside moves the half of them. */
static rung_status is_faster(void *ctx, const level *a, const level *b, bool *yes, rung_error *err)
{
    mixing *x = ctx;
    graph *graphs[2] = { NULL, NULL };
    rung_status st = mixed_graph(x->r, a, &graphs[0], err);
    if (st == RUNG_OK)
        st = mixed_graph(x->r, b, &graphs[1], err);
    if (st == RUNG_OK)
        st = turns_measure((const graph *const *)graphs, 2, x->sample, CHOICE * seconds_of(x),
                           x->r->opt->n_threads, x->t, err);
    *yes = st == RUNG_OK && turns_ratio(x->t, 0, 1, 0.25) > 1;
    graph_free(graphs[0]);
    graph_free(graphs[1]);
    return st;
}

static rung_status time_models(mixing *x, const graph *mixed, rung_error *err)
{
    const graph *const models[] = { x->reference, x->all, mixed };
    const rung_status st = turns_measure(models, 3, x->sample, seconds_of(x),
                                         x->r->opt->n_threads, x->t, err);
    if (st != RUNG_OK)
        return st;
    x->m->float_ms = turns_ms(x->t, 0, 0.5);
    x->m->int8_ms = turns_ms(x->t, 1, 0.5);
    x->m->ms = turns_ms(x->t, 2, 0.5);
    x->m->slowdown = turns_ratio(x->t, 2, 1, 0.5);
    x->m->threads = x->t->threads;
    return RUNG_OK;
}

/* --- accuracy --------------------------------------------------------------------------------- */

/* The name of what a layer gives, behind the Relu or Clip that it absorbs. */
static const char *output_name(const recipe *r, size_t at)
{
    int v = r->g->nodes[at].outputs[0];
    for (size_t i = at + 1; r->places[v].kind == PLACE_NONE && i < r->n_nodes; i++)
        if (r->g->nodes[i].n_inputs > 0 && r->g->nodes[i].inputs[0] == v)
            v = r->g->nodes[i].outputs[0];
    return r->g->values[v].name;
}

static void take_effect(const comparison *c, const tensor_record *t, mixed_layer *l)
{
    l->effect = comparison_effect(c, t);
    if (!c->classes)
        return;
    l->agreement = 100 - 100 * (double)t->effect.changed / (double)c->effect_samples;
    if (c->effect_labelled)
        l->top1 = 100 * (double)t->effect.right / (double)c->effect_labelled;
}

static rung_status measure_effects(mixing *x, const graph *now, rung_error *err)
{
    const rung_quant_options *o = x->r->opt;
    const size_t n = o->samples && o->samples < SENSITIVITY_SAMPLES ? o->samples
                                                                    : SENSITIVITY_SAMPLES;
    const compare_options opt = { .samples = n, .seed = o->seed, .n_threads = o->n_threads,
                                  .seconds = CHOICE * seconds_of(x), .quiet = o->quiet,
                                  .sensitivity = n };
    comparison *c = NULL;
    const rung_status st = measure_compare(x->reference, now, x->data, &opt, &c, err);
    for (size_t i = 0; i < x->c.n && st == RUNG_OK; i++) {
        const char *name = output_name(x->r, x->c.nodes[i]);
        for (size_t k = 0; k < c->n_tensors; k++)
            if (c->tensors[k].effect.noise && strcmp(c->tensors[k].name, name) == 0)
                take_effect(c, &c->tensors[k], &x->c.layers[i]);
    }
    comparison_free(c);
    return st;
}

static rung_status drop_at(void *ctx, const level *levels, double *drop, rung_error *err)
{
    mixing *x = ctx;
    graph *q = NULL;
    rung_status st = mixed_graph(x->r, levels, &q, err);
    if (st == RUNG_OK)
        st = judge_drop(&x->j, q, drop, err);
    graph_free(q);
    return st;
}

static rung_status keep_budget(mixing *x, rung_error *err)
{
    mixed_record *m = x->m;
    graph *now = NULL;
    rung_status st;
    if ((st = judge_begin(&x->j, x->reference, x->wish->eval, x->r->opt, JUDGE_BYTES,
                          err)) != RUNG_OK ||
        (st = mixed_graph(x->r, x->c.levels, &now, err)) != RUNG_OK ||
        (st = judge_drop(&x->j, now, &m->int8_drop, err)) != RUNG_OK)
        goto done;
    m->drop = m->int8_drop;
    m->met = m->drop <= m->max_drop;
    if (!m->met && (st = measure_effects(x, now, err)) == RUNG_OK)
        st = search_levels(&x->c, m->max_drop, drop_at, x, &m->drop, &m->met, err);
    m->labelled = x->j.labelled > 0;
    m->float_top1 = m->labelled ? 100 * (double)x->j.float_right / (double)x->j.labelled : -1;
    m->samples = x->j.n;
    m->evaluations = x->j.evaluations;
done:
    graph_free(now);
    return st;
}

/* --- all -------------------------------------------------------------------------------------- */

static rung_status choose(mixing *x, rung_error *err)
{
    rung_status st;
    x->t = mem_zero(1, sizeof *x->t);
    if (!x->t)
        return fail_memory(err, "run times", sizeof *x->t);
    if ((st = list_layers(x, err)) != RUNG_OK || (st = open_sample(x, err)) != RUNG_OK ||
        (st = mixed_graph(x->r, x->c.levels, &x->all, err)) != RUNG_OK ||
        (st = time_layers(x, err)) != RUNG_OK)
        return st;
    x->m->budgeted = x->wish->eval != NULL;
    x->m->max_drop = x->wish->max_drop;
    if (x->wish->fastest && (st = free_slow_layers(&x->c, is_faster, x, err)) != RUNG_OK)
        return st;
    return x->m->budgeted ? keep_budget(x, err) : RUNG_OK;
}

rung_status mixed_finish(recipe *r, const graph *reference, dataset *data, const mixed_wish *wish,
                         mixed_record **record, rung_error *err)
{
    mixing x = { .r = r, .reference = reference, .data = data, .wish = wish };
    graph *mixed = NULL;
    rung_status st;
    if ((st = choose(&x, err)) != RUNG_OK ||
        (st = mixed_graph(r, x.c.levels, &mixed, err)) != RUNG_OK ||
        (st = time_models(&x, mixed, err)) != RUNG_OK)
        goto done;
    for (size_t i = 0; i < x.c.n; i++)
        x.c.layers[i].level = x.c.levels[x.c.nodes[i]];
    *record = x.m;
    x.m = NULL;
    graph_free(r->g);
    r->g = mixed;
    mixed = NULL;
done:
    judge_end(&x.j);
    loader_free(x.l);
    graph_free(x.all);
    graph_free(mixed);
    mixed_record_free(x.m);
    mem_free(x.t);
    return st;
}
