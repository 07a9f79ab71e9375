/* Layers that this machine computes faster in float: small ones, whose integer step saves less than
 * its conversions cost, and those that have no integer kernel here. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "quant/mixed.h"

typedef struct slow {
    size_t layer;
    double saving; /* milliseconds, of the step alone */
} slow;

static int by_saving(const void *a, const void *b)
{
    const slow *x = a, *y = b;
    if (x->saving != y->saving)
        return x->saving < y->saving ? 1 : -1;
    return x->layer < y->layer ? -1 : 1;
}

static size_t list_slow(const candidates *c, slow *list)
{
    size_t n = 0;
    for (size_t i = 0; i < c->n; i++) {
        const mixed_layer *l = &c->layers[i];
        if (l->int8_ms > l->float_ms && l->float_ms > 0)
            list[n++] = (slow){ i, l->int8_ms - l->float_ms };
    }
    qsort(list, n, sizeof *list, by_saving);
    return n;
}

/* Each that is in 8 bits yet, once. */
static rung_status try_each(candidates *c, const slow *list, size_t n, level *trial,
                            faster_than is_faster, void *ctx, bool *any, rung_error *err)
{
    *any = false;
    for (size_t i = 0; i < n; i++) {
        const size_t at = c->nodes[list[i].layer];
        bool yes = false;
        if (c->levels[at] != LEVEL_INT8)
            continue;
        memcpy(trial, c->levels, c->r->n_nodes * sizeof *trial);
        trial[at] = LEVEL_FLOAT;
        const rung_status st = is_faster(ctx, c->levels, trial, &yes, err);
        if (st != RUNG_OK)
            return st;
        if (yes) {
            c->levels[at] = LEVEL_FLOAT;
            c->layers[list[i].layer].slow = true;
            *any = true;
        }
    }
    return RUNG_OK;
}

rung_status free_slow_layers(candidates *c, faster_than is_faster, void *ctx, rung_error *err)
{
    arena *mem = arena_new();
    slow *list = mem ? arena_zero(mem, c->n + 1, sizeof *list) : NULL;
    level *trial = mem ? arena_zero(mem, c->r->n_nodes + 1, sizeof *trial) : NULL;
    rung_status st = list && trial ? RUNG_OK : fail_memory(err, "layers", c->n * sizeof *list);
    const size_t n = st == RUNG_OK ? list_slow(c, list) : 0;
    /* A layer between two that went to float needs no conversions any more: again, till none do. */
    for (bool any = n > 0; any && st == RUNG_OK;)
        st = try_each(c, list, n, trial, is_faster, ctx, &any, err);
    arena_free(mem);
    return st;
}
