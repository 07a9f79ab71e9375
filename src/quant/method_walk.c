/* Layer by layer in the order of execution: what the quantized model feeds a layer, what the float
 * model wants of it, and the best numbers for that. Memory: the rows of one layer, and the float
 * outputs of a few; it does not grow with the data. */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/progress.h"
#include "graph/rewrite.h"
#include "quant/method.h"

enum {
    MOST_ROWS = 8192,
    X_BYTES = 24 << 20, /* of one layer's inputs */
    Y_BYTES = 24 << 20, /* of the outputs of layers that share a float run */
};

/* A layer on its way. */
typedef struct stop {
    layer  l;
    size_t positions, per; /* of a sample: all, and drawn; 0: not known yet */
    size_t rows;
    float *y; /* [rows][outputs]; mem_alloc'ed */
    bool   odd; /* its shapes are not what was expected: it is left as it is */
} stop;

typedef struct walk {
    recipe        *r;
    const samples *s;
    unsigned       methods;
    stop          *stops;
    size_t         n, n_samples;
    size_t         first, end; /* stops of this float run */
    stop          *now;        /* whose inputs are collected */
    float         *x;
    runner         run;
    rung_error    *err;
    bool           search; /* ranges, too */
    prefix         prefix;
} walk;

static uint64_t seed_of(const walk *w, const stop *p)
{
    return w->r->opt->seed * 1000003 + p->l.node * 7919 + w->run.at;
}

static size_t rows_wanted(const layer *l)
{
    const size_t most = X_BYTES / (sizeof(float) * l->groups * l->in);
    return most < MOST_ROWS ? most : MOST_ROWS;
}

/* --- what the float model computes ------------------------------------------------------------ */

static rung_status begin_rows(const walk *w, stop *p, size_t count, rung_error *err)
{
    const size_t channels = p->l.groups * p->l.out;
    const tensor *in = engine_input(w->run.e, 0);
    const size_t batch_size = in->rank > 0 ? (size_t)in->dims[0] : 1;
    p->odd = batch_size < w->s->list[w->run.at].n || count % (batch_size * channels) != 0;
    if (p->odd)
        return RUNG_OK;
    p->positions = count / (batch_size * channels);
    const size_t wanted = rows_wanted(&p->l) / w->n_samples;
    p->per = wanted < 1 ? 1 : wanted < p->positions ? wanted : p->positions;
    p->rows = p->per * w->n_samples;
    p->y = mem_zero(p->rows * channels, sizeof *p->y);
    return p->y ? RUNG_OK : fail_memory(err, "a layer's outputs", p->rows * channels * 4);
}

static rung_status take_outputs(walk *w, stop *p, const float *data, size_t count, rung_error *err)
{
    if (!p->positions && !p->odd) {
        const rung_status st = begin_rows(w, p, count, err);
        if (st != RUNG_OK)
            return st;
    }
    size_t *at = p->odd ? NULL : mem_zero(p->per, sizeof *at);
    if (p->odd || !at)
        return p->odd ? RUNG_OK : fail_memory(err, "positions", p->per * sizeof *at);
    draw_positions(seed_of(w, p), p->per, p->positions, at);
    layer_outputs(&p->l, data, engine_shows_channels_last(w->run.e, p->l.y), p->positions,
                  w->s->list[w->run.at].n, at, p->per,
                  p->y + samples_before(w->s, w->run.at) * p->per * p->l.groups * p->l.out);
    mem_free(at);
    return RUNG_OK;
}

static rung_status show_output(void *ctx, int id, const float *data, size_t count, rung_error *err)
{
    walk *w = ctx;
    rung_status st = RUNG_OK;
    for (size_t i = w->first; i < w->end && st == RUNG_OK; i++)
        if (w->stops[i].l.y == id)
            st = take_outputs(w, &w->stops[i], data, count, err);
    return st;
}

/* The next stops whose outputs fit together. */
static void choose_group(walk *w)
{
    size_t all = 0;
    for (w->end = w->first; w->end < w->n; w->end++) {
        const layer *l = &w->stops[w->end].l;
        all += rows_wanted(l) * l->groups * l->out * sizeof(float);
        if (w->end > w->first && all > Y_BYTES)
            break;
    }
}

static rung_status collect_outputs(walk *w, const graph *reference, rung_error *err)
{
    bool *observe = mem_zero(reference->n_values, sizeof *observe);
    if (!observe)
        return fail_memory(err, "collecting outputs", reference->n_values);
    for (size_t i = w->first; i < w->end; i++)
        observe[w->stops[i].l.y] = true;
    w->run = (runner){ .observe = observe, .tap = show_output, .ctx = w };
    const rung_status st = samples_run(w->s, reference, 0, w->s->n, &w->run, err);
    mem_free(observe);
    return st;
}

/* --- what the quantized model feeds ----------------------------------------------------------- */

static rung_status take_inputs(void *ctx, rung_error *err)
{
    walk *w = ctx;
    stop *p = w->now;
    const tensor *x = engine_output(w->run.e, 0);
    const layer *l = &p->l;
    const size_t per_row = l->groups * l->in;
    p->odd |= x->type != RUNG_F32 || (l->conv ? x->rank != 4 : x->rank < 2) ||
              layer_positions(l, x) != p->positions ||
              (l->conv ? (size_t)(x->dims[1] * l->kernel[0] * l->kernel[1])
                       : (size_t)x->dims[x->rank - 1]) != per_row;
    size_t *at = p->odd ? NULL : mem_zero(p->per, sizeof *at);
    if (!p->odd && !at)
        return fail_memory(err, "positions", p->per * sizeof *at);
    if (p->odd)
        return prefix_keep(&w->prefix, w->run.e, w->run.at, err);
    draw_positions(seed_of(w, p), p->per, p->positions, at);
    layer_inputs(l, x, w->s->list[w->run.at].n, at, p->per,
                 w->x + samples_before(w->s, w->run.at) * p->per * per_row);
    mem_free(at);
    return prefix_keep(&w->prefix, w->run.e, w->run.at, err);
}

static rung_status collect_inputs(walk *w, stop *p, rung_error *err)
{
    const size_t settled = w->now ? w->now->l.node : 0;
    graph *q = NULL;
    arena *mem = arena_new();
    rung_status st = mem ? prefix_graph(&w->prefix, w->r, p->l.x, settled, mem, &q, err)
                         : fail_memory(err, "a model to run", sizeof *q);
    w->now = p;
    w->run = (runner){ .after = take_inputs, .ctx = w };
    if (st == RUNG_OK)
        st = samples_run(prefix_source(&w->prefix), q, 0, w->s->n, &w->run, err);
    if (st == RUNG_OK)
        prefix_moved(&w->prefix, w->r);
    graph_free(q);
    arena_free(mem);
    return st;
}

/* --- one stop --------------------------------------------------------------------------------- */

/* The mean of the first n of all rows, which is subtracted from all. */
static void centre(float *x, size_t rows, size_t n, size_t columns, double *mean)
{
    for (size_t r = 0; r < n; r++)
        for (size_t i = 0; i < columns; i++)
            mean[i] += x[r * columns + i];
    for (size_t i = 0; i < columns; i++)
        mean[i] /= (double)n;
    for (size_t r = 0; r < rows; r++)
        for (size_t i = 0; i < columns; i++)
            x[r * columns + i] = (float)(x[r * columns + i] - mean[i]);
}

static bool make_rounding(arena *mem, size_t rows, size_t in, rounding *r)
{
    *r = (rounding){ arena_zero(mem, rows, in), arena_zero(mem, rows, sizeof(float)),
                     arena_zero(mem, rows, sizeof(float)) };
    return r->codes && r->scales && r->bias;
}

/* The layer's numbers as they are. */
static void current_rounding(const recipe *r, const layer *l, const float *w, rounding *now)
{
    const size_t rows = l->groups * l->out;
    const float *scales = r->scales[l->weight];
    const int8_t *codes = r->codes[l->weight];
    const int top = weight_top_of(r, l->weight);
    for (size_t o = 0; o < rows; o++) {
        now->scales[o] = scales[r->places[l->weight].axis < 0 ? 0 : o];
        now->bias[o] = l->bias >= 0 ? ((const float *)r->g->values[l->bias].constant->data)[o] : 0;
        for (size_t i = 0; i < l->in; i++)
            now->codes[o * l->in + i] =
                codes ? codes[l->transposed ? i * rows + o : o * l->in + i]
                      : (int8_t)fmaxf(fminf(rintf(w[o * l->in + i] / now->scales[o]), (float)top),
                                      (float)-top);
    }
}

/* The smallest scales with which the bias, or four times what it is, fits int32. */
static void smallest_scales(const recipe *r, const layer *l, const rounding *now, float *least)
{
    const float x_scale = read_params(r, &r->g->nodes[l->node], l->x)->scale;
    for (size_t o = 0; o < l->groups * l->out; o++)
        least[o] = fmaxf(2 * FLT_MIN / x_scale,
                         4 * fabsf(now->bias[o]) / ((float)INT32_MAX * x_scale));
}

/* Sums of products and the bias fit int32, as guards.c promises. */
static bool fits_int32(const recipe *r, const layer *l, const rounding *best)
{
    const qparams *x = read_params(r, &r->g->nodes[l->node], l->x);
    for (size_t o = 0; o < l->groups * l->out; o++) {
        const float product = x->scale * best->scales[o];
        double sum = 0;
        for (size_t i = 0; i < l->in; i++)
            sum += abs(best->codes[o * l->in + i]);
        if (!(product >= FLT_MIN) || !isfinite(product) || !isfinite(best->bias[o]) ||
            !products_fit(x, sum, fabs((double)best->bias[o] / product) + 1))
            return false;
    }
    return true;
}

/* New arrays: what was there stays for whoever wants it back. */
static rung_status keep_rounding(recipe *r, const layer *l, const rounding *best, rung_error *err)
{
    const size_t rows = l->groups * l->out;
    const size_t n_scales = r->places[l->weight].axis < 0 ? 1 : rows;
    int8_t *codes = arena_alloc(r->mem, rows * l->in);
    float *scales = arena_copy(r->mem, best->scales, n_scales * sizeof *scales);
    if (!codes || !scales)
        return fail_memory(err, "a layer's codes", rows * l->in);
    layer_codes(l, best->codes, codes);
    r->codes[l->weight] = codes;
    r->scales[l->weight] = scales;
    if (l->bias < 0)
        return RUNG_OK;
    tensor *bias = tensor_copy(r->g->mem, r->g->values[l->bias].constant);
    if (!bias)
        return fail_memory(err, "a bias", rows * sizeof(float));
    memcpy(bias->data, best->bias, rows * sizeof(float));
    r->g->values[l->bias].constant = bias;
    return RUNG_OK;
}

static rung_status solve(walk *w, const stop *p, arena *mem, rung_error *err)
{
    const layer *l = &p->l;
    const int root = w->r->places[l->x].shares;
    const size_t rows = l->groups * l->out, n_fit = samples_before(w->s, w->s->n_fit) * p->per;
    evidence e = { .rows = p->rows, .fit_rows = n_fit, .x = w->x, .y = p->y,
                   .x_mean = arena_zero(mem, l->groups * l->in, sizeof(double)),
                   .y_mean = arena_zero(mem, rows, sizeof(double)) };
    float *weight = arena_zero(mem, rows * l->in, sizeof *weight);
    float *least = arena_zero(mem, rows, sizeof *least);
    rounding now, best;
    const char *name = NULL;
    double before, after;
    if (!e.x_mean || !e.y_mean || !weight || !least || !make_rounding(mem, rows, l->in, &now) ||
        !make_rounding(mem, rows, l->in, &best))
        return fail_memory(err, "fitting a layer", rows * l->in);
    layer_weight(l, w->r->g->values[l->weight].constant->data, weight);
    current_rounding(w->r, l, weight, &now);
    const fit f = { .l = l, .e = &e, .w = weight, .now = &now, .least = least,
                    .top = weight_top_of(w->r, l->weight), .mem = mem,
                    .per_tensor = w->r->places[l->weight].axis < 0, .has_bias = l->bias >= 0,
                    .methods = w->methods, .seed = w->r->opt->seed + l->node,
                    .n_threads = w->s->n_threads };
    rung_status st = choose_range(w->r, &f, root, w->search && w->prefix.open[root], err);
    if (st != RUNG_OK)
        return st;
    w->prefix.open[root] = false;
    smallest_scales(w->r, l, &now, least);
    centre(e.x, e.rows, n_fit, l->groups * l->in, e.x_mean);
    centre(e.y, e.rows, n_fit, rows, e.y_mean);
    st = fit_layer(&f, &best, &name, &before, &after, err);
    if (st != RUNG_OK)
        return st;
    char label[NODE_LABEL_SIZE];
    if (!name || !fits_int32(w->r, l, &best)) {
        diagnose(w->r->diag, "method-undone", node_label(w->r->g, &w->r->g->nodes[l->node], label,
                 sizeof label), "rounding to the nearest is best here: no method lowers the "
                 "error of its output");
        return RUNG_OK;
    }
    return keep_rounding(w->r, l, &best, err);
}

static rung_status visit(walk *w, stop *p, rung_error *err)
{
    rung_status st = RUNG_OK;
    arena *mem = NULL;
    if (p->odd || !p->positions)
        goto done;
    w->x = mem_zero(p->rows * p->l.groups * p->l.in, sizeof *w->x);
    mem = arena_new();
    if (!w->x || !mem)
        st = fail_memory(err, "a layer's inputs", p->rows * p->l.groups * p->l.in * 4);
    if (st == RUNG_OK && (st = collect_inputs(w, p, err)) == RUNG_OK && !p->odd)
        st = solve(w, p, mem, err);
done:
    arena_free(mem);
    mem_free(w->x);
    w->x = NULL;
    mem_free(p->y);
    p->y = NULL;
    return st;
}

/* --- all -------------------------------------------------------------------------------------- */

static rung_status find_stops(walk *w, arena *mem, rung_error *err)
{
    const recipe *r = w->r;
    uses u;
    const rung_status st = graph_uses(r->g, mem, &u, err);
    w->stops = arena_zero(mem, r->n_nodes, sizeof *w->stops);
    if (st != RUNG_OK || !w->stops)
        return st == RUNG_OK ? fail_memory(err, "layers", r->n_nodes * sizeof *w->stops) : st;
    for (size_t i = 0; i < r->n_nodes; i++) {
        stop *p = &w->stops[w->n];
        if (!r->quantized[i] || !layer_of(r->g, r->info, &u, i, &p->l) ||
            u.first[p->l.weight + 1] - u.first[p->l.weight] != 1 ||
            r->places[p->l.weight].kind != PLACE_WEIGHT || !(r->params[p->l.x].scale > 0) ||
            rows_wanted(&p->l) < 16)
            continue;
        w->prefix.open[r->places[p->l.x].shares] = true;
        w->n++;
    }
    return RUNG_OK;
}

rung_status methods_walk(recipe *r, const samples *s, unsigned methods, rung_error *err)
{
    walk w = { .r = r, .s = s, .methods = methods };
    arena *mem = arena_new();
    w.search = r->opt->methods == RUNG_METHOD_AUTO && r->opt->range == RUNG_RANGE_DEFAULT;
    graph *reference = NULL; /* r->g changes its biases on the way */
    progress bar;
    rung_status st = mem ? prefix_begin(&w.prefix, r, s, err)
                         : fail_memory(err, "layers", sizeof w);
    if (st == RUNG_OK)
        st = find_stops(&w, mem, err);
    if (st == RUNG_OK)
        st = graph_clone_shared(r->g, &reference, err);
    w.n_samples = samples_before(s, s->n);
    progress_begin(&bar, "fitting", "layers", w.n, r->opt->quiet);
    for (; w.first < w.n && st == RUNG_OK; w.first = w.end) {
        choose_group(&w);
        st = collect_outputs(&w, reference, err);
        for (size_t i = w.first; i < w.end && st == RUNG_OK; i++) {
            st = visit(&w, &w.stops[i], err);
            progress_step(&bar, 1);
        }
    }
    progress_end(&bar);
    for (size_t i = 0; i < w.n; i++)
        mem_free(w.stops[i].y);
    prefix_end(&w.prefix);
    graph_free(reference);
    arena_free(mem);
    return st;
}
