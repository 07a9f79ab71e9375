/* As few layers as possible in more than 8 bits. The order is that of effect for cost; how many of
 * them it takes is found by doubling and halving; then each is tried in fewer bits again. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "quant/mixed.h"

/* A layer in the order. */
typedef struct rank {
    size_t layer;
    double worth;
} rank;

typedef struct search {
    candidates *c;
    rank       *order; /* layers that are in 8 bits, most worth first */
    size_t      n;
    level       to;    /* what they are raised to, where they can */
    double      most, least; /* points: allowed; of the best try so far, which is `best` */
    level      *tried, *best; /* by node index */
    drop_of     measure;
    void       *ctx;
} search;

static int by_worth(const void *a, const void *b)
{
    const rank *x = a, *y = b;
    if (x->worth != y->worth)
        return x->worth < y->worth ? 1 : -1;
    return x->layer < y->layer ? -1 : 1; /* qsort is not stable */
}

/* Few layers and little work are wanted: each layer costs one of their number and its share of the
 * multiply-accumulates. */
static double cost_of(const candidates *c, const mixed_layer *l)
{
    return 1.0 / (double)c->n + (c->macs > 0 ? (double)l->macs / (double)c->macs : 0);
}

static void rank_layers(search *s)
{
    const candidates *c = s->c;
    for (size_t i = 0; i < c->n; i++) {
        const mixed_layer *l = &c->layers[i];
        if (c->levels[c->nodes[i]] != LEVEL_INT8)
            continue;
        const double effect = isfinite(l->effect) ? l->effect : 0;
        s->order[s->n++] = (rank){ i, effect / cost_of(c, l) };
    }
    qsort(s->order, s->n, sizeof *s->order, by_worth);
}

static level raised(const search *s, size_t i)
{
    const size_t layer = s->order[i].layer;
    return s->to == LEVEL_WIDE && !s->c->can_widen[layer] ? LEVEL_INT8 : s->to;
}

/* The first k of the order raised. */
static rung_status try_first(search *s, size_t k, double *drop, rung_error *err)
{
    const candidates *c = s->c;
    memcpy(s->tried, c->levels, c->r->n_nodes * sizeof *s->tried);
    for (size_t i = 0; i < k; i++)
        s->tried[c->nodes[s->order[i].layer]] = raised(s, i);
    const rung_status st = s->measure(s->ctx, s->tried, drop, err);
    if (st == RUNG_OK && *drop < s->least) {
        s->least = *drop;
        memcpy(s->best, s->tried, c->r->n_nodes * sizeof *s->best);
    }
    return st;
}

/* *k: the fewest that meet the budget (accuracy need not rise evenly: the fewest found), at most
 * `most`, with *drop; 0: none do. */
static rung_status count_needed(search *s, size_t most, size_t *k, double *drop, rung_error *err)
{
    size_t below = 0, above = 1;
    double now = 0;
    rung_status st = RUNG_OK;
    *k = 0;
    while (!*k && below < most) {
        if ((st = try_first(s, above, &now, err)) != RUNG_OK)
            return st;
        if (now <= s->most) {
            *k = above;
            *drop = now;
        } else {
            below = above;
            above = 2 * above < most ? 2 * above : most;
        }
    }
    while (*k && below + 1 < *k) {
        const size_t middle = below + (*k - below) / 2;
        if ((st = try_first(s, middle, &now, err)) != RUNG_OK)
            return st;
        if (now <= s->most) {
            *k = middle;
            *drop = now;
        } else {
            below = middle;
        }
    }
    return st;
}

/* One layer goes down to `to`, where the budget is met with that. */
static rung_status lower(search *s, size_t layer, level to, double *drop, bool *done,
                         rung_error *err)
{
    const candidates *c = s->c;
    level *at = &c->levels[c->nodes[layer]];
    const level before = *at;
    double now = 0;
    *at = to;
    const rung_status st = s->measure(s->ctx, c->levels, &now, err);
    *done = st == RUNG_OK && now <= s->most;
    if (*done)
        *drop = now;
    else
        *at = before;
    return st;
}

/* Each of the k goes down as far as the budget allows, the least worth first. */
static rung_status take_back(search *s, size_t k, double *drop, rung_error *err)
{
    const candidates *c = s->c;
    for (size_t i = 0; i < k; i++)
        c->levels[c->nodes[s->order[i].layer]] = raised(s, i);
    for (size_t i = k; i-- > 0;) {
        const size_t layer = s->order[i].layer;
        const level now = c->levels[c->nodes[layer]];
        bool done = now == LEVEL_INT8;
        rung_status st = RUNG_OK;
        if (!done && k > 1) /* no layer at all was tried before */
            st = lower(s, layer, LEVEL_INT8, drop, &done, err);
        if (st == RUNG_OK && !done && now == LEVEL_FLOAT && c->can_widen[layer])
            st = lower(s, layer, LEVEL_WIDE, drop, &done, err);
        if (st != RUNG_OK)
            return st;
    }
    return RUNG_OK;
}

/* All that can be widened at once says whether 16 bits are enough; a network of them is an integer
 * one still, while of float layers one must be left out. */
static rung_status choose(search *s, double *drop, bool *met, rung_error *err)
{
    size_t k = 0;
    double all = 0;
    s->to = LEVEL_WIDE;
    rung_status st = try_first(s, s->n, &all, err);
    if (st == RUNG_OK && all <= s->most && s->n)
        st = count_needed(s, s->n, &k, drop, err);
    if (st == RUNG_OK && k == 0) {
        s->to = LEVEL_FLOAT;
        st = count_needed(s, s->n ? s->n - 1 : 0, &k, drop, err);
    }
    *met = k > 0;
    if (st != RUNG_OK || *met)
        return st == RUNG_OK ? take_back(s, k, drop, err) : st;
    memcpy(s->c->levels, s->best, s->c->r->n_nodes * sizeof *s->best);
    *drop = s->least;
    return RUNG_OK;
}

rung_status search_levels(candidates *c, double most, drop_of measure, void *ctx, double *drop,
                          bool *met, rung_error *err)
{
    const size_t n_nodes = c->r->n_nodes;
    arena *mem = arena_new();
    search s = { .c = c, .most = most, .least = *drop, .measure = measure, .ctx = ctx };
    rung_status st = RUNG_OK;
    if (mem) {
        s.order = arena_zero(mem, c->n + 1, sizeof *s.order);
        s.tried = arena_copy(mem, c->levels, n_nodes * sizeof *s.tried);
        s.best = arena_copy(mem, c->levels, n_nodes * sizeof *s.best);
    }
    if (!s.order || !s.tried || !s.best) {
        st = fail_memory(err, "a search", n_nodes * sizeof *s.tried);
        goto done;
    }
    rank_layers(&s);
    st = choose(&s, drop, met, err);
done:
    arena_free(mem);
    return st;
}
