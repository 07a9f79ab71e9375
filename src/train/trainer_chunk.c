/* How many samples go through the network at once. */
#include <stdint.h>

#include "graph/pass.h"
#include "quant/qat.h"
#include "train/trainer_parts.h"

enum {
    CHUNK_BYTES = 1 << 20, /* of activations: near a second-level cache */
    LIVE = 4,              /* float32 tensors that a backward step has at hand */
    MOST = 64,             /* samples: beyond that a step's overhead is nothing */
    PIECES = 4,            /* of a batch at least: work for several lanes */
};

/* Activations of one sample that are kept until the backward walk, and the largest. */
static rung_status measure(const graph *g, arena *mem, size_t *kept, size_t *most, rung_error *err)
{
    const bool prepared = qat_is_prepared(g);
    value_info *info = arena_zero(mem, g->n_values + 1, sizeof *info);
    const int64_t **dims = arena_zero(mem, (size_t)g->n_inputs + 1, sizeof *dims);
    int64_t(*one)[RUNG_MAX_RANK] = arena_zero(mem, (size_t)g->n_inputs + 1, sizeof *one);
    if (!info || !dims || !one)
        return fail_memory(err, "shapes", g->n_values * sizeof *info);
    for (int i = 0; i < g->n_inputs; i++) {
        const value *v = &g->values[g->inputs[i]];
        for (int d = 0; d < v->rank; d++)
            one[i][d] = d == 0 && v->dims[0] == DIM_UNKNOWN ? 1 : v->dims[d];
        dims[i] = v->rank > 0 ? one[i] : NULL;
    }
    const rung_status st = graph_infer(g, dims, mem, info, err);
    for (size_t i = 0; st == RUNG_OK && i < g->n_nodes; i++) {
        const node *n = &g->nodes[i];
        const int v = n->n_outputs ? n->outputs[0] : -1;
        const size_t count = v < 0 || info[v].rank < 0 ? 0 : dims_count(info[v].rank, info[v].dims);
        if (n->dead || node_constant(g, n, 0) || count > SIZE_MAX / 64)
            continue;
        *most = count > *most ? count : *most;
        if (!prepared)
            *kept += count * sizeof(float);
        else if (node_is(n, "QuantizeLinear"))
            *kept += count;
    }
    return st;
}

static size_t fixed_batch(const graph *g)
{
    const value *v = g->n_inputs ? &g->values[g->inputs[0]] : NULL;
    return v && v->rank > 0 && v->dims[0] > 0 ? (size_t)v->dims[0] : 0;
}

/* Equal parts of the batch, as every sample of a chunk counts in its statistics. */
static size_t chunk_of_statistics(size_t all, size_t wanted)
{
    size_t pieces = wanted ? all / wanted : 1;
    while (pieces > 1 && all % pieces)
        pieces--;
    return pieces > 1 ? all / pieces : all;
}

rung_status chunk_size(const graph *g, const trainer_options *opt, size_t *out, rung_error *err)
{
    const size_t fixed = fixed_batch(g);
    size_t kept = 0, most = 0, n = 1;
    if (fixed || opt->batch_stats || opt->chunk) {
        *out = fixed              ? fixed
               : opt->batch_stats ? chunk_of_statistics(opt->batch, opt->chunk)
                                  : opt->chunk;
        return RUNG_OK;
    }
    arena *mem = arena_new();
    const rung_status st = mem ? measure(g, mem, &kept, &most, err)
                               : fail_memory(err, "shapes", sizeof *g);
    arena_free(mem);
    const size_t each = kept + most * LIVE * sizeof(float) + 1;
    while (n < MOST && n * 2 * each <= CHUNK_BYTES && n * 2 * PIECES <= opt->batch)
        n *= 2;
    *out = n;
    return st;
}
