/* What comes behind the last layers, in float: decoding of boxes, Sigmoid, Softmax. There is next
 * to no work in it, and each pair costs accuracy where nothing corrects it any more. The layers
 * before it keep their pairs, and with them their integer kernels. */
#include <math.h>
#include <string.h>

#include "graph/pass.h"
#include "graph/rewrite.h"
#include "quant/method.h"

#define LEAST_DB 0.5   /* at one output; less does not pay for a float step among integers */
#define MOST_WORK 0.05 /* of the elements that all nodes work on: more would cost time */

/* --- which nodes ------------------------------------------------------------------------------ */

/* A node whose products are sums over weights or over another activation. */
static bool is_layer(const graph *g, const node *n)
{
    return weight_of(g, n) >= 0 || node_is(n, "MatMul") || node_is(n, "Gemm") ||
           node_is(n, "Conv") || node_is(n, "ConvTranspose");
}

/* leads [n_nodes]: a layer comes behind the node. Nodes are in order. */
static void find_leading(const graph *g, const uses *u, bool *leads)
{
    for (size_t i = g->n_nodes; i-- > 0;)
        for (int k = 0; k < g->nodes[i].n_outputs; k++) {
            const int v = g->nodes[i].outputs[k];
            for (int at = v < 0 ? 0 : u->first[v]; v >= 0 && at < u->first[v + 1]; at++)
                leads[i] |= leads[u->list[at]] || is_layer(g, &g->nodes[u->list[at]]);
        }
}

static double elements_of(const recipe *r, int v)
{
    double all = 1;
    for (int d = 0; v >= 0 && d < r->info[v].rank; d++)
        all *= r->info[v].dims[d] > 0 ? (double)r->info[v].dims[d] : 1;
    return v >= 0 ? all : 0;
}

/* What the node reads or makes, whichever is more. */
static double work_of(const recipe *r, const node *n)
{
    double most = n->n_outputs > 0 ? elements_of(r, n->outputs[0]) : 0;
    for (int k = 0; k < n->n_inputs; k++)
        if (n->inputs[k] >= 0 && !r->g->values[n->inputs[k]].constant)
            most = fmax(most, elements_of(r, n->inputs[k]));
    return most;
}

/* It makes less than it reads: its integer sum costs little accuracy, and floats would be many. */
static bool pools(const recipe *r, const node *n)
{
    return n->n_outputs > 0 && elements_of(r, n->outputs[0]) < work_of(r, n);
}

static bool computes(const node *n)
{
    return n->op && (n->op->quant.kind == QUANT_COMPUTE || n->op->quant.kind == QUANT_FIXED_OUTPUT);
}

/* Marks the tail's nodes in `tail` [n_nodes]; how many there are, 0 where they are too much. */
static size_t find_tail(const recipe *r, const uses *u, bool *leads, bool *tail)
{
    double all = 0, work = 0;
    size_t n = 0;
    find_leading(r->g, u, leads);
    for (size_t i = 0; i < r->n_nodes; i++) {
        const node *at = &r->g->nodes[i];
        if (at->dead)
            continue;
        tail[i] = r->quantized[i] && computes(at) && !is_layer(r->g, at) && !leads[i] &&
                  !pools(r, at);
        all += work_of(r, at);
        work += tail[i] ? work_of(r, at) : 0;
        n += tail[i];
    }
    return work <= MOST_WORK * all ? n : 0;
}

/* --- without their pairs ---------------------------------------------------------------------- */

/* Of a recipe what the places of pairs decide. */
typedef struct pairs {
    placement *places;
    qsettings *set;
    qparams   *params, *narrow;
    bool      *quantized, *skip;
} pairs;

static bool keep_pairs(const recipe *r, pairs *to)
{
    to->places = arena_copy(r->mem, r->places, r->n_values * sizeof *to->places);
    to->set = arena_copy(r->mem, r->set, r->n_values * sizeof *to->set);
    to->params = arena_copy(r->mem, r->params, r->n_values * sizeof *to->params);
    to->narrow = arena_copy(r->mem, r->narrow, r->n_values * sizeof *to->narrow);
    to->quantized = arena_copy(r->mem, r->quantized, r->n_nodes * sizeof *to->quantized);
    to->skip = arena_copy(r->mem, r->skip, r->n_nodes * sizeof *to->skip);
    return to->places && to->set && to->params && to->narrow && to->quantized && to->skip;
}

static void put_back(recipe *r, const pairs *from)
{
    memcpy(r->places, from->places, r->n_values * sizeof *from->places);
    memcpy(r->set, from->set, r->n_values * sizeof *from->set);
    memcpy(r->params, from->params, r->n_values * sizeof *from->params);
    memcpy(r->narrow, from->narrow, r->n_values * sizeof *from->narrow);
    memcpy(r->quantized, from->quantized, r->n_nodes * sizeof *from->quantized);
    memcpy(r->skip, from->skip, r->n_nodes * sizeof *from->skip);
}

/* Tensors that shared the parameters of a Concat in the tail have their own. */
static void part_params(recipe *r, const placement *before)
{
    for (size_t v = 0; v < r->n_values; v++)
        if (r->places[v].kind == PLACE_ACTIVATION && before[v].shares != (int)v)
            r->params[v] = params_as(r, (int)v, &r->set[v]);
    for (size_t v = 0; v < r->n_values; v++)
        if (r->places[v].kind == PLACE_SHARED)
            r->params[v] = r->params[r->places[v].shares];
    choose_narrow(r);
}

static rung_status free_tail(recipe *r, const bool *tail, const placement *before, rung_error *err)
{
    for (size_t i = 0; i < r->n_nodes; i++)
        r->skip[i] |= tail[i];
    rung_status st = place_pairs(r->g, r->info, r->opt, r->skip, r->places, r->quantized, NULL,
                                 err);
    if (st == RUNG_OK)
        st = settle(r, NULL, err);
    if (st == RUNG_OK)
        part_params(r, before);
    return st;
}

/* --- what it gains ---------------------------------------------------------------------------- */

/* Squared errors of each output on the samples kept apart, in r->mem. */
static rung_status measure(const recipe *r, const samples *s, double **noise, rung_error *err)
{
    arena *mem = arena_new();
    graph *q = NULL;
    *noise = arena_zero(r->mem, (size_t)s->n_outputs + 1, sizeof **noise);
    rung_status st = mem && *noise ? recipe_graph(r, mem, &q, NULL, err)
                                   : fail_memory(err, "a model to judge", sizeof *q);
    if (st == RUNG_OK)
        st = samples_noise(s, q, s->n > 1 ? s->n_fit : 0, s->n, *noise, err);
    graph_free(q);
    arena_free(mem);
    return st;
}

/* In dB, of the outputs that gain most and least by going from noise a to noise b. */
static void find_gains(const samples *s, const double *a, const double *b, double *most,
                       double *least)
{
    *most = -INFINITY;
    *least = INFINITY;
    for (int o = 0; o < s->n_outputs; o++) {
        const double gain = a[o] == b[o] ? 0 : 10 * (log10(a[o]) - log10(b[o]));
        *most = fmax(*most, gain);
        *least = fmin(*least, gain);
    }
}

static rung_status compare(recipe *r, const samples *s, const bool *tail, size_t n,
                           rung_error *err)
{
    pairs before;
    double *integer, *real, most, least;
    rung_status st;
    if (!keep_pairs(r, &before))
        return fail_memory(err, "a float tail", r->n_values * sizeof *before.params);
    if ((st = measure(r, s, &integer, err)) != RUNG_OK ||
        (st = free_tail(r, tail, before.places, err)) != RUNG_OK ||
        (st = measure(r, s, &real, err)) != RUNG_OK)
        return st;
    find_gains(s, integer, real, &most, &least);
    const bool better = most >= LEAST_DB && most > -least;
    if (!better)
        put_back(r, &before);
    diagnose(r->diag, better ? "method" : "method-undone", "tail",
             "%zu nodes behind the last layers %s: in float the output that gains most gains "
             "%.2f dB, the one that gains least %.2f dB, on samples kept apart", n,
             better ? "stay float" : "are quantized", most, least);
    return RUNG_OK;
}

rung_status methods_tail(recipe *r, const samples *s, rung_error *err)
{
    arena *mem = arena_new();
    uses u;
    rung_status st = mem ? graph_uses(r->g, mem, &u, err)
                         : fail_memory(err, "a float tail", sizeof u);
    if (st == RUNG_OK) {
        bool *leads = arena_zero(mem, r->n_nodes + 1, sizeof *leads);
        bool *tail = arena_zero(mem, r->n_nodes + 1, sizeof *tail);
        if (!leads || !tail)
            st = fail_memory(err, "a float tail", 2 * r->n_nodes);
        const size_t n = st == RUNG_OK ? find_tail(r, &u, leads, tail) : 0;
        if (n)
            st = compare(r, s, tail, n, err);
    }
    arena_free(mem);
    return st;
}
