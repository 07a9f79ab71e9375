/* As few layers as possible in float. The order is that of effect for cost; how many of them it
 * takes is found by doubling and halving; then each is tried in 8 bits again. */
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

/* The first k of the order in float. */
static rung_status try_first(search *s, size_t k, double *drop, rung_error *err)
{
    const candidates *c = s->c;
    memcpy(s->tried, c->levels, c->r->n_nodes * sizeof *s->tried);
    for (size_t i = 0; i < k; i++)
        s->tried[c->nodes[s->order[i].layer]] = LEVEL_FLOAT;
    const rung_status st = s->measure(s->ctx, s->tried, drop, err);
    if (st == RUNG_OK && *drop < s->least) {
        s->least = *drop;
        memcpy(s->best, s->tried, c->r->n_nodes * sizeof *s->best);
    }
    return st;
}

/* *k: the fewest that meet the budget (accuracy need not rise evenly: the fewest found), with
 * *drop; 0: none do. */
static rung_status count_needed(search *s, size_t *k, double *drop, rung_error *err)
{
    size_t below = 0, above = 1;
    double now = 0;
    rung_status st = RUNG_OK;
    *k = 0;
    while (!*k && below + 1 < s->n) {
        if ((st = try_first(s, above, &now, err)) != RUNG_OK)
            return st;
        if (now <= s->most) {
            *k = above;
            *drop = now;
        } else {
            below = above;
            above = 2 * above < s->n ? 2 * above : s->n - 1;
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

/* Each of the k goes back to 8 bits, the least worth first, where the budget is met without it. */
static rung_status take_back(search *s, size_t k, double *drop, rung_error *err)
{
    const candidates *c = s->c;
    for (size_t i = 0; i < k; i++)
        c->levels[c->nodes[s->order[i].layer]] = LEVEL_FLOAT;
    for (size_t i = k; i-- > 0 && k > 1;) {
        const size_t at = c->nodes[s->order[i].layer];
        double now = 0;
        c->levels[at] = LEVEL_INT8;
        const rung_status st = s->measure(s->ctx, c->levels, &now, err);
        if (st != RUNG_OK)
            return st;
        if (now <= s->most)
            *drop = now;
        else
            c->levels[at] = LEVEL_FLOAT;
    }
    return RUNG_OK;
}

rung_status search_levels(candidates *c, double most, drop_of measure, void *ctx, double *drop,
                          bool *met, rung_error *err)
{
    const size_t n_nodes = c->r->n_nodes;
    arena *mem = arena_new();
    search s = { .c = c, .most = most, .least = *drop, .measure = measure, .ctx = ctx };
    size_t k = 0;
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
    if ((st = count_needed(&s, &k, drop, err)) != RUNG_OK)
        goto done;
    *met = k > 0;
    if (*met) {
        st = take_back(&s, k, drop, err);
    } else {
        memcpy(c->levels, s.best, n_nodes * sizeof *s.best);
        *drop = s.least;
    }
done:
    arena_free(mem);
    return st;
}
