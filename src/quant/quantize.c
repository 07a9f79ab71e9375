/* Static quantization, from a float graph to one with Q/DQ pairs. */
#include <string.h>

#include "graph/rewrite.h"
#include "quant/method.h"
#include "quant/mixed.h"
#include "quant/rescale.h"

static rung_status begin(recipe *r, rung_error *err)
{
    graph *g = r->g;
    r->n_values = g->n_values;
    r->n_nodes = g->n_nodes;
    r->info = arena_zero(r->mem, g->n_values, sizeof *r->info);
    r->places = arena_zero(r->mem, g->n_values, sizeof *r->places);
    r->observers = arena_zero(r->mem, g->n_values, sizeof *r->observers);
    r->params = arena_zero(r->mem, g->n_values, sizeof *r->params);
    r->narrow = arena_zero(r->mem, g->n_values, sizeof *r->narrow);
    r->scales = arena_zero(r->mem, g->n_values, sizeof *r->scales);
    r->set = arena_zero(r->mem, g->n_values, sizeof *r->set);
    r->skip = arena_zero(r->mem, g->n_nodes, sizeof *r->skip);
    r->quantized = arena_zero(r->mem, g->n_nodes, sizeof *r->quantized);
    r->codes = arena_zero(r->mem, g->n_values, sizeof *r->codes);
    r->unfitted = arena_zero(r->mem, g->n_values, sizeof *r->unfitted);
    if (!r->codes || !r->unfitted || !r->info || !r->places || !r->observers || !r->params ||
        !r->narrow || !r->scales || !r->set || !r->skip || !r->quantized)
        return fail_memory(err, "quantization", g->n_values * sizeof *r->info);
    for (size_t v = 0; v < g->n_values; v++)
        r->unfitted[v] = g->values[v].constant;
    exclude_by_rules(r);
    return graph_infer(g, NULL, r->mem, r->info, err);
}

static rung_status place(recipe *r, diagnostics *diag, rung_error *err)
{
    const rung_status st = place_pairs(r->g, r->info, r->opt, r->skip, r->places, r->quantized,
                                       diag, err);
    return st == RUNG_OK ? settle(r, diag, err) : st;
}

static rung_status make_observers(recipe *r, rung_error *err)
{
    bool any = false;
    for (size_t v = 0; v < r->n_values; v++) {
        const placement *p = &r->places[v];
        if ((p->kind != PLACE_ACTIVATION && p->kind != PLACE_SHARED) ||
            r->places[p->shares].kind == PLACE_FIXED)
            continue;
        const rung_range how = r->set[v].range;
        const bool histogram = how != RUNG_RANGE_MINMAX && how != RUNG_RANGE_EMA;
        if (!(r->observers[v] = observer_new(histogram)))
            return fail_memory(err, "a histogram", sizeof *r->observers);
        any = true;
    }
    return any ? RUNG_OK
               : fail(err, RUNG_EARGUMENT, "nothing is left to quantize: the model has no operator "
                      "that rung knows how to quantize, or all are excluded");
}

static rung_status observe(recipe *r, dataset *data, rung_error *err)
{
    rung_status st;
    if ((st = make_observers(r, err)) != RUNG_OK ||
        (st = calibrate(r->g, data, r->opt, r->observers, err)) != RUNG_OK)
        return st;
    if ((st = check_observations(r, err)) != RUNG_OK)
        return st;
    while (st == RUNG_OK && skip_unobserved(r))
        st = place(r, NULL, err);
    return st;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static rung_status describe(recipe *r, rung_error *err)
{
    static const char *const methods[] = { "mse", "minmax", "ema", "percentile", "entropy", "mse" };
    const qsettings s = qconfig_resolve(r->rules, r->opt, NULL);
    const char *text = arena_printf(
        r->mem, "rung " RUNG_VERSION " static %s%s range=%s weights=int8 %s%s%s",
        dtype_name(s.act_type), s.act_symmetric ? " symmetric" : "",
        methods[s.range], s.per_tensor ? "per-tensor" : "per-channel",
        r->opt->qconfig ? " qconfig=" : "", r->opt->qconfig ? base_name(r->opt->qconfig) : "");
    if (!text)
        return fail_memory(err, "metadata", 64);
    const rung_status st = graph_set_metadata(r->g, r->prepare ? "rung.prepared" : "rung.quantized",
                                              text, err);
    const rung_scales scales = qconfig_scales(r->rules);
    if (st != RUNG_OK || !r->prepare || scales == RUNG_SCALES_LEARNED)
        return st;
    return graph_set_metadata(r->g, META_SCALES,
                              scales == RUNG_SCALES_OBSERVED ? "observed" : "fixed", err);
}

static bool has_pairs(const graph *g)
{
    for (size_t i = 0; i < g->n_nodes; i++)
        if (!strcmp(g->nodes[i].op_type, "QuantizeLinear") ||
            !strcmp(g->nodes[i].op_type, "DequantizeLinear"))
            return true;
    return false;
}

int weight_top(const rung_quant_options *opt)
{
    return opt->weight_bits ? (1 << (opt->weight_bits - 1)) - 1 : 127;
}

rung_status recipe_begin(recipe *r, dataset *data, rung_error *err)
{
    rung_status st;
    if (!(r->mem = arena_new()))
        return fail_memory(err, "quantization", sizeof *r);
    if ((st = begin(r, err)) != RUNG_OK || (st = place(r, r->diag, err)) != RUNG_OK ||
        (st = observe(r, data, err)) != RUNG_OK || (st = choose_params(r, err)) != RUNG_OK)
        return st;
    return choose_scales(r, err);
}

void recipe_free(recipe *r)
{
    for (size_t v = 0; r->observers && v < r->n_values; v++)
        observer_free(r->observers[v]);
    arena_free(r->mem);
    r->observers = NULL;
    r->mem = NULL;
}

/* What becomes of a recipe, beside pairs everywhere. */
typedef struct purpose {
    bool              prepare; /* as in recipe */
    const mixed_wish *wish;    /* NULL: none */
    mixed_record    **record;  /* of the wish */
} purpose;

/* Training keeps one byte of an activation. */
static rung_status check_prepared(const recipe *r, rung_error *err)
{
    for (size_t v = 0; v < r->n_values; v++)
        if (r->places[v].kind == PLACE_ACTIVATION && dtype_bytes(r->set[v].act_type, 1) > 1)
            return fail(err, RUNG_EUNSUPPORTED, "tensor '%s': training has activations of 2 to 8 "
                        "bits, not %s", r->g->values[v].name, dtype_name(r->set[v].act_type));
    return RUNG_OK;
}

static rung_status finish(recipe *r, const graph *g, dataset *data, const purpose *p,
                          rung_error *err)
{
    if (p->prepare) {
        const rung_status wide = check_prepared(r, err);
        if (wide != RUNG_OK)
            return wide;
    }
    r->prepare = p->prepare;
    const rung_status st = p->wish ? mixed_finish(r, g, data, p->wish, p->record, err)
                                   : insert_pairs(r, err);
    return st == RUNG_OK ? describe(r, err) : st;
}

static rung_status quantize(const graph *g, dataset *data, const rung_quant_options *opt,
                            const purpose *p, graph **out, diagnostics *diag, rung_error *err)
{
    rung_quant_options own = *opt;
    recipe r = { .opt = &own, .diag = diag };
    qconfig *rules = NULL;
    rung_status st;
    *out = NULL;
    if (has_pairs(g))
        return fail(err, RUNG_EARGUMENT, "the model is quantized already; give the float32 model");
    if ((st = qconfig_load(opt->qconfig, &rules, err)) != RUNG_OK)
        return st;
    r.rules = rules;
    own.quiet = own.quiet || ranks_index(own.ranks) > 0;
    if (p->prepare)
        qconfig_for_training(rules);
    if (own.methods == RUNG_METHOD_AUTO && qconfig_is_preset(rules))
        own.methods = RUNG_METHOD_NONE;
    if ((st = graph_clone(g, &r.g, err)) != RUNG_OK ||
        (st = rewrite_prepare(r.g, err)) != RUNG_OK || (st = split_roles(r.g, err)) != RUNG_OK)
        goto done;
    qconfig_report_unused(rules, r.g, diag);
    settle_pairs(r.g, qconfig_is_preset(rules), &own);
    if ((st = smooth_static(&r.g, data, &own, diag, err)) != RUNG_OK ||
        (st = methods_apply(&r, data, err)) != RUNG_OK ||
        (st = finish(&r, g, data, p, err)) != RUNG_OK)
        goto done;
    *out = r.g;
    r.g = NULL;
done:
    recipe_free(&r);
    qconfig_free(rules);
    graph_free(r.g);
    return st;
}

rung_status quantize_static(const graph *g, dataset *data, const rung_quant_options *opt,
                            graph **out, diagnostics *diag, rung_error *err)
{
    const purpose plain = { 0 };
    return quantize(g, data, opt, &plain, out, diag, err);
}

rung_status quantize_with_pairs(const graph *g, dataset *data, const rung_quant_options *opt,
                                bool prepare, graph **out, diagnostics *diag, rung_error *err)
{
    const purpose p = { .prepare = prepare };
    return quantize(g, data, opt, &p, out, diag, err);
}

rung_status quantize_mixed(const graph *g, dataset *data, const rung_quant_options *opt,
                           const mixed_wish *wish, graph **out, mixed_record **record,
                           diagnostics *diag, rung_error *err)
{
    const purpose p = { .wish = wish, .record = record };
    *record = NULL;
    return quantize(g, data, opt, &p, out, diag, err);
}
