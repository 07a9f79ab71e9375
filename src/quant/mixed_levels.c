/* From a recipe with all layers in 8 bits to a graph of several levels. */
#include <string.h>

#include "quant/mixed.h"

static rung_status begin(const recipe *r, const level *levels, recipe *to, rung_error *err)
{
    to->skip = arena_copy(to->mem, r->skip, r->n_nodes * sizeof *r->skip);
    to->quantized = arena_zero(to->mem, r->n_nodes, sizeof *to->quantized);
    to->places = arena_zero(to->mem, r->n_values, sizeof *to->places);
    to->set = arena_zero(to->mem, r->n_values, sizeof *to->set);
    if (!to->skip || !to->quantized || !to->places || !to->set)
        return fail_memory(err, "a mixed model", r->n_values * sizeof *to->places);
    for (size_t i = 0; i < r->n_nodes; i++)
        to->skip[i] = to->skip[i] || levels[i] == LEVEL_FLOAT;
    const rung_status st = place_pairs(r->g, r->info, r->opt, to->skip, to->places, to->quantized,
                                       NULL, err);
    return st == RUNG_OK ? settle(to, NULL, err) : st;
}

/* Fewer nodes are quantized than in r, so what has a pair has one in r, and parameters with it. */
static rung_status check_parameters(const recipe *r, const recipe *to, rung_error *err)
{
    for (size_t v = 0; v < r->n_values; v++) {
        const place_kind k = to->places[v].kind;
        if (k != PLACE_NONE && k != PLACE_BIAS && k != PLACE_WEIGHT && !(r->params[v].scale > 0))
            return fail(err, RUNG_EUNSUPPORTED, "'%s' gets a pair only when a layer beside it is "
                        "left in float: it has no parameters", r->g->values[v].name);
    }
    return RUNG_OK;
}

static rung_status restore_biases(const recipe *r, const recipe *to, rung_error *err)
{
    for (size_t v = 0; v < r->n_values; v++) {
        if (r->places[v].kind != PLACE_BIAS || to->places[v].kind == PLACE_BIAS ||
            r->unfitted[v] == r->g->values[v].constant)
            continue;
        tensor *bias = tensor_copy(to->g->mem, r->unfitted[v]);
        if (!bias)
            return fail_memory(err, "a bias", tensor_count(r->unfitted[v]) * sizeof(float));
        to->g->values[v].constant = bias;
    }
    return RUNG_OK;
}

rung_status mixed_graph(const recipe *r, const level *levels, graph **out, rung_error *err)
{
    recipe to = *r;
    rung_status st;
    to.g = NULL;
    to.diag = NULL;
    to.mem = arena_new();
    if (!to.mem)
        return fail_memory(err, "a mixed model", sizeof to);
    to.g = r->g;
    st = begin(r, levels, &to, err);
    to.g = NULL;
    if (st != RUNG_OK || (st = check_parameters(r, &to, err)) != RUNG_OK ||
        (st = graph_clone(r->g, &to.g, err)) != RUNG_OK ||
        (st = restore_biases(r, &to, err)) != RUNG_OK || (st = insert_pairs(&to, err)) != RUNG_OK)
        goto done;
    *out = to.g;
    to.g = NULL;
done:
    graph_free(to.g);
    arena_free(to.mem);
    return st;
}
