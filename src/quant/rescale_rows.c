/* Rows of what products read, and the errors that changed weights make of them. */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "base/mem.h"
#include "base/threads.h"
#include "graph/rewrite.h"
#include "quant/rescale.h"

typedef struct collector {
    const product_group *p;
    const samples       *s;
    uint64_t             seed;
    group_rows          *out;
    size_t               most, per; /* rows: all, and of one activation in one batch */
    bool                 odd;
    runner               run;
} collector;

/* A copy of g that computes the group's activations and nothing else. */
static rung_status cut_to_group(const graph *g, const product_group *p, graph **out,
                                rung_error *err)
{
    rung_status st = graph_clone(g, out, err);
    if (st != RUNG_OK)
        return st;
    graph *c = *out;
    for (int i = 0; i < c->n_outputs; i++)
        c->values[c->outputs[i]].is_output = false;
    c->n_outputs = 0;
    for (size_t i = 0; i < p->n_xs && st == RUNG_OK; i++)
        st = graph_mark_output(c, p->xs[i], err);
    if (st == RUNG_OK)
        st = graph_sort(c, err);
    return st == RUNG_OK ? rewrite_remove_dead(c, err) : st;
}

/* Every row counts: a range is what one value in a thousand makes it. */
static void widen(const collector *c, int which, const float *x, size_t rows)
{
    const size_t in = c->p->in;
    float *restrict lo = c->out->lo + (size_t)which * in, *restrict hi = c->out->hi +
                                                                         (size_t)which * in;
    for (size_t r = 0; r < rows; r++, x += in)
        for (size_t i = 0; i < in; i++) {
            lo[i] = x[i] < lo[i] ? x[i] : lo[i];
            hi[i] = x[i] > hi[i] ? x[i] : hi[i];
        }
}

static rung_status take_activation(collector *c, int which, rung_error *err)
{
    const tensor *x = engine_output(c->run.e, which);
    const size_t in = c->p->in, count = tensor_count(x), all = count / in;
    group_rows *r = c->out;
    c->odd |= x->type != RUNG_F32 || x->rank < 2 || (size_t)x->dims[x->rank - 1] != in || !all;
    if (c->odd)
        return RUNG_OK;
    const size_t n = c->per < all ? c->per : all;
    size_t *at = mem_zero(n, sizeof *at);
    if (!at)
        return fail_memory(err, "positions", n * sizeof *at);
    widen(c, which, x->data, all);
    draw_positions(c->seed + c->run.at * 7919 + (size_t)which * 104729, n, all, at);
    for (size_t i = 0; i < n && r->n < c->most; i++, r->n++) {
        memcpy(r->x + r->n * in, (const float *)x->data + at[i] * in, in * sizeof *r->x);
        r->owner[r->n] = which;
    }
    mem_free(at);
    return RUNG_OK;
}

static rung_status take_batch(void *ctx, rung_error *err)
{
    collector *c = ctx;
    rung_status st = RUNG_OK;
    if (c->run.at == c->s->n_fit)
        c->out->n_fit = c->out->n;
    for (size_t i = 0; i < c->p->n_xs && st == RUNG_OK; i++)
        st = take_activation(c, (int)i, err);
    return st;
}

rung_status group_collect(const graph *g, const product_group *p, const samples *s, size_t rows,
                          uint64_t seed, arena *mem, group_rows *out, rung_error *err)
{
    const size_t fitting = GROUP_BYTES / (p->in * sizeof(float)), parts = s->n * p->n_xs;
    collector c = { .p = p, .s = s, .seed = seed, .out = out,
                    .most = fitting < rows ? fitting : rows };
    graph *cut = NULL;
    *out = (group_rows){ .in = p->in };
    if (s->n < 2 || c.most < s->n)
        return RUNG_OK;
    c.per = c.most / parts ? c.most / parts : 1;
    c.most = c.per * parts;
    out->x = arena_alloc(mem, c.most * p->in * sizeof *out->x);
    out->owner = arena_zero(mem, c.most, sizeof *out->owner);
    out->lo = arena_zero(mem, p->n_xs * p->in, sizeof *out->lo);
    out->hi = arena_zero(mem, p->n_xs * p->in, sizeof *out->hi);
    if (!out->x || !out->owner || !out->lo || !out->hi)
        return fail_memory(err, "rows of activations", c.most * p->in * sizeof *out->x);
    rung_status st = cut_to_group(g, p, &cut, err);
    c.run = (runner){ .after = take_batch, .ctx = &c };
    if (st == RUNG_OK)
        st = samples_run(s, cut, 0, s->n, &c.run, err);
    if (c.odd || out->n_fit == 0 || out->n_fit == out->n)
        out->n = out->n_fit = 0;
    graph_free(cut);
    return st;
}

float *rows_moments(const group_rows *r, size_t first, size_t end, int n_threads, arena *mem)
{
    float *h = arena_zero(mem, r->in * r->in, sizeof *h);
    const float *x = r->x + first * r->in;
    if (h)
        matrix_products(x, r->in, r->in, x, r->in, r->in, end - first, n_threads, h);
    return h;
}

double moments_error(const float *h, const float *d, size_t in, size_t out, int n_threads)
{
    float *hd = mem_zero(in * out, sizeof *hd);
    double sum = 0;
    if (!hd)
        return NAN;
    matrix_products(h, in, in, d, out, out, in, n_threads, hd); /* h is symmetric */
    for (size_t i = 0; i < in * out; i++)
        sum += (double)hd[i] * d[i];
    mem_free(hd);
    return sum;
}
