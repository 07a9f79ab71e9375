/* Cross-layer equalization: Nagel et al., Data-free quantization through weight equalization and
 * bias correction, ICCV 2019, over all operators that pass channels on unmixed, with factors that
 * also count what calibration saw of the activations. */
#include <math.h>
#include <string.h>

#include "graph/pass.h"
#include "quant/equalize.h"

/* --- statistics ------------------------------------------------------------------------------- */

typedef struct measuring {
    equalizer *q;
    runner     run;
    size_t     n; /* batches */
} measuring;

static void see(channel_stats *s, float x, size_t fold)
{
    if (!isfinite(x))
        return;
    s->lows[fold] = fminf(s->lows[fold], x);
    s->highs[fold] = fmaxf(s->highs[fold], x);
    s->lo = s->count > 0 ? fminf(s->lo, x) : x;
    s->hi = s->count > 0 ? fmaxf(s->hi, x) : x;
    s->sum += x;
    s->squares += (double)x * x;
    s->count++;
}

static rung_status show(void *ctx, int id, const float *data, size_t count, rung_error *err)
{
    measuring *m = ctx;
    const size_t channels = channels_of_value(m->q, id);
    channel_stats *s = m->q->stats + m->q->base[id];
    const bool last = engine_shows_channels_last(m->run.e, id) || m->q->info[id].rank == 2;
    const tensor *in = engine_input(m->run.e, 0);
    const size_t n = in->rank > 0 ? (size_t)in->dims[0] : 1, positions = count / (n * channels);
    const size_t fold = m->run.at * FOLDS / m->n; /* few batches: some folds are empty */
    (void)err;
#pragma omp parallel for num_threads(engine_threads(m->run.e))
    for (size_t c = 0; c < channels; c++)
        for (size_t i = 0; i < n; i++)
            for (size_t p = 0; p < positions; p++)
                see(&s[c], data[last ? (i * positions + p) * channels + c
                                     : (i * channels + c) * positions + p],
                    fold);
    return RUNG_OK;
}

/* Statistics of all activations that get a pair. */
static rung_status equalizer_measure(equalizer *q, const samples *s, rung_error *err)
{
    measuring m = { .q = q, .n = s->n_fit };
    bool *observe = arena_zero(q->mem, q->g->n_values, sizeof *observe);
    q->stats = arena_zero(q->mem, q->n_elements + 1, sizeof *q->stats);
    if (!observe || !q->stats)
        return fail_memory(err, "statistics of channels", q->n_elements * sizeof *q->stats);
    for (size_t v = 0; v < q->g->n_values; v++)
        observe[v] =
            q->base[v] >= 0 && q->places[v].kind != PLACE_NONE && !q->g->values[v].constant;
    m.run = (runner){ .observe = observe, .tap = show, .ctx = &m };
    return samples_run(s, q->g, 0, s->n_fit, &m.run, err);
}

/* --- making ----------------------------------------------------------------------------------- */

static bool alone(const equalizer *q, int v)
{
    return v < 0 || (q->uses.first[v + 1] - q->uses.first[v] == 1 && !q->g->values[v].is_output);
}

/* A node whose weight and bias may be scaled. */
static bool may_scale(const equalizer *q, const layer *l)
{
    const node *n = &q->g->nodes[l->node];
    const tensor *b = l->bias < 0 ? NULL : q->g->values[l->bias].constant;
    return !node_is(n, "MatMul") && alone(q, l->weight) && alone(q, l->bias) &&
           (node_input(n, 2) < 0 ||
            (b && b->type == RUNG_F32 && tensor_count(b) == l->groups * l->out)) &&
           (l->conv || q->info[l->x].rank == 2);
}

/* The value behind y that has a pair and thus statistics; y itself, or what a Relu makes of it. */
static int measured_value(const equalizer *q, int y)
{
    if (q->places[y].kind != PLACE_NONE || q->uses.first[y + 1] == q->uses.first[y])
        return y;
    return q->g->nodes[q->uses.list[q->uses.first[y]]].outputs[0];
}

static rung_status add_linear(equalizer *q, const layer *l, rung_error *err)
{
    linear *at = &q->linears[q->n_linears];
    const float *w = q->g->values[l->weight].constant->data;
    const size_t rows = l->groups * l->out;
    at->l = *l;
    at->measured = measured_value(q, l->y);
    at->taps = l->conv ? (size_t)(l->kernel[0] * l->kernel[1]) : 1;
    const size_t in = l->in / at->taps;
    if (!(at->largest = arena_zero(q->mem, rows * in, sizeof(float))))
        return fail_memory(err, "equalization", rows * in * sizeof(float));
    for (size_t o = 0; o < rows; o++)
        for (size_t i = 0; i < l->in; i++) {
            float *most = &at->largest[o * in + i / at->taps];
            *most = fmaxf(*most, fabsf(w[l->transposed ? i * rows + o : o * l->in + i]));
        }
    q->n_linears++;
    return RUNG_OK;
}

static rung_status find_linears(equalizer *q, rung_error *err)
{
    rung_status st = RUNG_OK;
    layer l;
    for (size_t i = 0; i < q->g->n_nodes && st == RUNG_OK; i++)
        if (layer_of(q->g, q->info, &q->uses, i, &l) && may_scale(q, &l))
            st = add_linear(q, &l, err);
    return st;
}

static bool has_channels(const equalizer *q, size_t v)
{
    const value_info *i = &q->info[v];
    return !q->g->values[v].constant && i->type == RUNG_F32 && i->rank >= 2 && i->dims[1] > 0;
}

static bool allocate(equalizer *q)
{
    const size_t values = q->g->n_values, nodes = q->g->n_nodes;
    q->info = arena_zero(q->mem, values, sizeof *q->info);
    q->places = arena_zero(q->mem, values, sizeof *q->places);
    q->base = arena_zero(q->mem, values, sizeof *q->base);
    q->family = arena_zero(q->mem, values, sizeof *q->family);
    q->quantized = arena_zero(q->mem, nodes, sizeof *q->quantized);
    q->linears = arena_zero(q->mem, nodes, sizeof *q->linears);
    q->width = arena_zero(q->mem, values, sizeof *q->width);
    q->choice = arena_zero(q->mem, values, sizeof *q->choice);
    return q->info && q->places && q->base && q->family && q->quantized && q->linears &&
           q->width && q->choice;
}

static bool allocate_elements(equalizer *q)
{
    for (size_t v = 0; v < q->g->n_values; v++) {
        q->base[v] = has_channels(q, v) ? (int64_t)q->n_elements : -1;
        q->n_elements += q->base[v] < 0 ? 0 : (size_t)q->info[v].dims[1];
        if (q->n_elements > INT32_MAX)
            return false;
    }
    const size_t n = q->n_elements + 1;
    q->parent = arena_zero(q->mem, n, sizeof *q->parent);
    q->fixed = arena_zero(q->mem, n, sizeof *q->fixed);
    q->cap = arena_zero(q->mem, n, sizeof *q->cap);
    q->gain = arena_zero(q->mem, n, sizeof *q->gain);
    q->factor = arena_zero(q->mem, n, sizeof *q->factor);
    q->use = arena_zero(q->mem, n, sizeof *q->use);
    q->column = arena_zero(q->mem, n, sizeof *q->column);
    q->row = arena_zero(q->mem, n, sizeof *q->row);
    return q->parent && q->fixed && q->cap && q->gain && q->factor && q->use && q->column && q->row;
}

static rung_status begin(equalizer *q, rung_error *err)
{
    rung_status st;
    if (!allocate(q))
        return fail_memory(err, "equalization", q->g->n_values * sizeof *q->info);
    if ((st = graph_infer(q->g, NULL, q->mem, q->info, err)) != RUNG_OK ||
        (st = graph_uses(q->g, q->mem, &q->uses, err)) != RUNG_OK ||
        (st = place_pairs(q->g, q->info, q->opt, NULL, q->places, q->quantized, NULL, err)) !=
            RUNG_OK)
        return st;
    if (!allocate_elements(q))
        return fail_memory(err, "equalization", q->n_elements * sizeof *q->factor);
    return find_linears(q, err);
}

/* --- scaling ---------------------------------------------------------------------------------- */

static rung_status scale_linear(const equalizer *q, const linear *n, rung_error *err)
{
    const layer *l = &n->l;
    const size_t rows = l->groups * l->out, in = l->in / n->taps;
    tensor *w = tensor_copy(q->g->mem, q->g->values[l->weight].constant);
    tensor *b = l->bias < 0 ? NULL : tensor_copy(q->g->mem, q->g->values[l->bias].constant);
    if (!w || (l->bias >= 0 && !b))
        return fail_memory(err, "a scaled weight", rows * l->in * sizeof(float));
    for (size_t o = 0; o < rows; o++) {
        const double fy = factor_of(q, l->y, o);
        if (b)
            ((float *)b->data)[o] = (float)(((float *)b->data)[o] * fy);
        for (size_t i = 0; i < l->in; i++) {
            float *x = (float *)w->data + (l->transposed ? i * rows + o : o * l->in + i);
            *x = (float)(*x * fy / factor_of(q, l->x, o / l->out * in + i / n->taps));
        }
    }
    q->g->values[l->weight].constant = w;
    if (b)
        q->g->values[l->bias].constant = b;
    return RUNG_OK;
}

rung_status methods_equalize(graph *g, const samples *s, const rung_quant_options *opt,
                             size_t *n_changed, reaches *reach, rung_error *err)
{
    equalizer q = { .g = g, .opt = opt, .mem = arena_new() };
    rung_status st = RUNG_OK;
    *n_changed = 0;
    if (!q.mem)
        return fail_memory(err, "equalization", sizeof q);
    if ((st = begin(&q, err)) == RUNG_OK && (st = equalizer_measure(&q, s, err)) == RUNG_OK &&
        (st = equalizer_link(&q, err)) == RUNG_OK)
        *n_changed = equalizer_search(&q);
    if (st == RUNG_OK && reach)
        st = equalizer_reach(&q, reach->plain, reach->equal, err);
    for (size_t i = 0; i < q.n_linears && st == RUNG_OK && *n_changed; i++)
        st = scale_linear(&q, &q.linears[i], err);
    arena_free(q.mem);
    return st;
}
