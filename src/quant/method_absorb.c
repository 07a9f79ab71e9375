/* High-bias absorption: Nagel et al., Data-free quantization through weight equalization and bias
 * correction, ICCV 2019. Where a channel behind a Relu never comes near 0, what it always holds
 * moves on: the bias before is that much smaller, the bias behind takes what the weights make of
 * it, and the tensor between has a narrower range. The paper takes three deviations below the mean
 * for the least value; here it is the least that the samples show, so that on them the function
 * stays what it was.
 *
 * A convolution that pads reads zeros where the tensor ends, and they would have to be shifted too:
 * a layer that pads takes nothing over. */
#include <math.h>
#include <string.h>

#include "graph/pass.h"
#include "quant/method.h"

/* Two layers with a Relu or Clip between them that makes `value`, which only the second reads. */
typedef struct passage {
    layer  from, to;
    int    value;
    size_t channels;
    float *shift; /* by channel: the least value; then what is subtracted */
    float *most;
} passage;

typedef struct absorber {
    graph      *g;
    arena      *mem;
    uses        u;
    value_info *info;
    passage    *list;
    size_t      n;
    int        *at; /* by value id: its place in list; -1: none */
    runner      run;
} absorber;

/* --- where it may be -------------------------------------------------------------------------- */

static bool is_private(const absorber *a, int v)
{
    return a->u.first[v + 1] - a->u.first[v] == 1 && !a->g->values[v].is_output;
}

static bool may_shift(const absorber *a, const layer *l)
{
    const tensor *b = l->bias < 0 ? NULL : a->g->values[l->bias].constant;
    const node *n = &a->g->nodes[l->node];
    return b && b->type == RUNG_F32 && tensor_count(b) == l->groups * l->out &&
           is_private(a, l->bias) && node_float(n, "alpha", 1) == 1 &&
           node_float(n, "beta", 1) == 1;
}

static bool pads(const layer *l)
{
    const bool one = l->kernel[0] == 1 && l->kernel[1] == 1;
    return l->conv && (l->pad[0] || l->pad[1] || l->pad_end[0] || l->pad_end[1] ||
                       (l->same && !one));
}

/* What a position is must be known, to tell channels apart. */
static bool has_shape(const absorber *a, int v, bool conv)
{
    const value_info *i = &a->info[v];
    return conv ? i->rank == 4 && i->dims[2] > 0 && i->dims[3] > 0 : i->rank == 2;
}

static bool passage_of(const absorber *a, size_t node_index, passage *p)
{
    const graph *g = a->g;
    if (!layer_of(g, a->info, &a->u, node_index, &p->from) || p->from.lo != 0 ||
        !may_shift(a, &p->from))
        return false;
    p->value = g->nodes[a->u.list[a->u.first[p->from.y]]].outputs[0];
    if (p->value < 0 || !is_private(a, p->value) ||
        !layer_of(g, a->info, &a->u, (size_t)a->u.list[a->u.first[p->value]], &p->to))
        return false;
    p->channels = p->from.groups * p->from.out;
    const size_t taps = p->to.conv ? (size_t)(p->to.kernel[0] * p->to.kernel[1]) : 1;
    return p->to.x == p->value && p->to.groups * (p->to.in / taps) == p->channels &&
           g->values[p->to.weight].constant->type == RUNG_F32 && may_shift(a, &p->to) &&
           !pads(&p->to) && has_shape(a, p->value, p->to.conv);
}

static bool add_passage(absorber *a, const passage *p)
{
    passage *to = &a->list[a->n];
    *to = *p;
    to->shift = arena_zero(a->mem, p->channels + 1, sizeof *to->shift);
    to->most = arena_zero(a->mem, p->channels + 1, sizeof *to->most);
    for (size_t c = 0; to->shift && c < p->channels; c++)
        to->shift[c] = INFINITY;
    a->at[p->value] = (int)a->n++;
    return to->shift && to->most;
}

static rung_status find(absorber *a, rung_error *err)
{
    graph *g = a->g;
    rung_status st;
    passage p;
    a->info = arena_zero(a->mem, g->n_values + 1, sizeof *a->info);
    a->list = arena_zero(a->mem, g->n_nodes + 1, sizeof *a->list);
    a->at = arena_zero(a->mem, g->n_values + 1, sizeof *a->at);
    if (!a->info || !a->list || !a->at)
        return fail_memory(err, "absorption", g->n_values * sizeof *a->info);
    for (size_t v = 0; v < g->n_values; v++)
        a->at[v] = -1;
    if ((st = graph_infer(g, NULL, a->mem, a->info, err)) != RUNG_OK ||
        (st = graph_uses(g, a->mem, &a->u, err)) != RUNG_OK)
        return st;
    for (size_t i = 0; i < g->n_nodes; i++)
        if (passage_of(a, i, &p) && !add_passage(a, &p))
            return fail_memory(err, "absorption", p.channels * sizeof *p.shift);
    return RUNG_OK;
}

/* --- how much --------------------------------------------------------------------------------- */

static rung_status show(void *ctx, int id, const float *data, size_t count, rung_error *err)
{
    const absorber *a = ctx;
    const passage *p = &a->list[a->at[id]];
    const int64_t *dims = a->info[id].dims;
    const bool last = !p->to.conv || engine_shows_channels_last(a->run.e, id);
    const size_t run = last ? 1 : (size_t)(dims[2] * dims[3]); /* elements of one channel */
    (void)err;
    for (size_t i = 0; i < count; i += run) {
        const size_t c = i / run % p->channels;
        for (size_t k = i; k < i + run; k++) {
            p->shift[c] = fminf(p->shift[c], data[k]);
            p->most[c] = fmaxf(p->most[c], data[k]);
        }
    }
    return RUNG_OK;
}

static rung_status observe(absorber *a, const samples *s, rung_error *err)
{
    bool *seen = arena_zero(a->mem, a->g->n_values + 1, sizeof *seen);
    if (!seen)
        return fail_memory(err, "absorption", a->g->n_values);
    for (size_t i = 0; i < a->n; i++)
        seen[a->list[i].value] = true;
    a->run = (runner){ .observe = seen, .tap = show, .ctx = a };
    return samples_run(s, a->g, 0, s->n_fit, &a->run, err);
}

/* A channel that reaches the bound of a Clip stays: the bound would have to move with it. False:
 * the tensor's range is no narrower. */
static bool choose_shift(passage *p)
{
    float before = 0, after = 0;
    for (size_t c = 0; c < p->channels; c++) {
        const bool shifts = p->shift[c] > 0 && isfinite(p->shift[c]) && p->most[c] < p->from.hi;
        p->shift[c] = shifts ? p->shift[c] : 0;
        before = fmaxf(before, p->most[c]);
        after = fmaxf(after, p->most[c] - p->shift[c]);
    }
    return after < before;
}

/* --- moving it -------------------------------------------------------------------------------- */

static float *own_bias(graph *g, const layer *l)
{
    tensor *b = tensor_copy(g->mem, g->values[l->bias].constant);
    if (!b)
        return NULL;
    g->values[l->bias].constant = b;
    return b->data;
}

static rung_status move_shift(graph *g, const passage *p, rung_error *err)
{
    const layer *l = &p->to;
    const size_t rows = l->groups * l->out, in = p->channels / l->groups, taps = l->in / in;
    const float *w = g->values[l->weight].constant->data;
    float *before = own_bias(g, &p->from), *behind = own_bias(g, l);
    if (!before || !behind)
        return fail_memory(err, "a bias", (p->channels + rows) * sizeof *before);
    for (size_t c = 0; c < p->channels; c++)
        before[c] -= p->shift[c];
    for (size_t o = 0; o < rows; o++) {
        double sum = behind[o];
        for (size_t i = 0; i < l->in; i++)
            sum += (double)w[l->transposed ? i * rows + o : o * l->in + i] *
                   p->shift[o / l->out * in + i / taps];
        behind[o] = (float)sum;
    }
    return RUNG_OK;
}

rung_status absorb_biases(graph *g, const samples *s, size_t *n, rung_error *err)
{
    absorber a = { .g = g, .mem = arena_new() };
    *n = 0;
    rung_status st = a.mem ? find(&a, err) : fail_memory(err, "absorption", sizeof a);
    if (st == RUNG_OK && a.n)
        st = observe(&a, s, err);
    for (size_t i = 0; i < a.n && st == RUNG_OK; i++)
        if (choose_shift(&a.list[i])) {
            st = move_shift(g, &a.list[i], err);
            ++*n;
        }
    arena_free(a.mem);
    return st;
}

/* --- what it gains ---------------------------------------------------------------------------- */

static double width_as_observed(const recipe *r, int v)
{
    const qparams p = params_as(r, v, &r->set[v]);
    const range all = range_of_params(&p);
    return (double)all.hi - all.lo;
}

/* New samples go as far beyond a range as before, which is more of a narrower one. */
static rung_status stretch(recipe *to, const recipe *from, const double *reach, rung_error *err)
{
    double *farther = arena_copy(to->mem, reach, to->n_values * sizeof *farther);
    if (!farther)
        return fail_memory(err, "ranges", to->n_values * sizeof *farther);
    for (size_t v = 0; v < to->n_values; v++)
        if (to->places[v].kind == PLACE_ACTIVATION && from->places[v].kind == PLACE_ACTIVATION)
            farther[v] = 1 + (reach[v] - 1) * width_as_observed(from, (int)v) /
                                 width_as_observed(to, (int)v);
    stretch_ranges(to, farther);
    return RUNG_OK;
}

static rung_status try(recipe *next, const recipe *r, dataset *data, const samples *s,
                       const double *reach, double *db, rung_error *err)
{
    rung_status st = recipe_begin(next, data, err);
    if (st == RUNG_OK && reach)
        st = stretch(next, r, reach, err);
    return st == RUNG_OK ? recipe_judge(next, s, db, err) : st;
}

static void keep_better(recipe *r, recipe *next, bool better, const tensor **constants)
{
    const recipe old = *r;
    if (better) {
        *r = *next;
        r->diag = old.diag;
        *next = old;
        return;
    }
    for (size_t v = 0; v < r->n_values; v++)
        r->g->values[v].constant = constants[v];
}

rung_status methods_absorb(recipe *r, dataset *data, const samples *s, const double *reach,
                           double *db, rung_error *err)
{
    recipe next = { .g = r->g, .opt = r->opt, .rules = r->rules, .wide = r->wide };
    const tensor **constants = arena_zero(r->mem, r->n_values + 1, sizeof *constants);
    double with = 0;
    size_t n = 0;
    if (!constants)
        return fail_memory(err, "absorption", r->n_values * sizeof *constants);
    for (size_t v = 0; v < r->n_values; v++)
        constants[v] = r->g->values[v].constant;
    rung_status st = absorb_biases(r->g, s, &n, err);
    if (st == RUNG_OK && !n && r->opt->methods)
        diagnose(r->diag, "method", "absorb", "nothing to absorb: no tensor that a Relu or Clip "
                 "makes and only a layer without padding reads would be narrower for it");
    if (st != RUNG_OK || !n)
        return st;
    if ((st = try(&next, r, data, s, reach, &with, err)) == RUNG_OK) {
        const bool better = with > *db;
        diagnose(r->diag, better ? "method" : "method-undone", "absorb",
                 "biases absorbed at %zu tensors: %.2f dB, %.2f dB without, on samples kept apart",
                 n, with, *db);
        keep_better(r, &next, better, constants);
        *db = better ? with : *db;
    }
    recipe_free(&next);
    return st;
}
