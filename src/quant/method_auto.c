/* Which methods are applied, and whether they helped: each step is judged by the SQNR of the model's
 * outputs on calibration samples that are kept apart, in real integer runs. */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "graph/pass.h"
#include "graph/rewrite.h"
#include "quant/method.h"

enum { CHEAP = RUNG_METHOD_EQUALIZE | RUNG_METHOD_BIAS | RUNG_METHOD_CLIP | RUNG_METHOD_GPTQ };
#define BY_LAYER (RUNG_METHOD_BIAS | RUNG_METHOD_CLIP | RUNG_METHOD_GPTQ | RUNG_METHOD_ADAROUND)

static rung_status judge(const recipe *r, const graph *reference, const samples *s, double *db,
                         rung_error *err)
{
    arena *mem = arena_new();
    graph *q = NULL;
    rung_status st = mem ? recipe_graph(r, mem, &q, NULL, err)
                         : fail_memory(err, "a model to judge", sizeof *q);
    if (st == RUNG_OK)
        st = samples_sqnr(s, reference, q, db, err);
    graph_free(q);
    arena_free(mem);
    return st;
}

/* Layers without a bias get one of zeros, to be corrected. */
static rung_status add_biases(graph *g, rung_error *err)
{
    rung_status st = RUNG_OK;
    for (size_t i = 0; i < g->n_nodes && st == RUNG_OK; i++) {
        node *n = &g->nodes[i];
        const int w = n->dead ? -1 : weight_of(g, n);
        if (w < 0 || !(node_is(n, "Conv") || node_is(n, "Gemm")) || node_input(n, 2) >= 0)
            continue;
        const tensor *t = g->values[w].constant;
        const int64_t channels = t->dims[weight_axis_of(g, n, 1)];
        tensor *zeros = tensor_new(g->mem, RUNG_F32, 1, &channels);
        if (!zeros)
            return fail_memory(err, "a bias", (size_t)channels * sizeof(float));
        memset(zeros->data, 0, (size_t)channels * sizeof(float));
        const int b = pass_add_tensor(g, g->values[w].name, "_bias", zeros);
        st = b < 0 ? fail_memory(err, "a bias", sizeof *zeros)
                   : node_set_input(g, &g->nodes[i], 2, b, err);
    }
    return st;
}

/* --- equalization ----------------------------------------------------------------------------- */

static rung_status try_equalized(recipe *r, recipe *other, const graph *reference, dataset *data,
                                 const samples *s, double *db, rung_error *err)
{
    size_t n = 0;
    double with = 0;
    const qsettings set = qconfig_resolve(r->rules, r->opt, NULL);
    rung_quant_options opt = *r->opt; /* as the qconfig has it for the whole model */
    opt.per_tensor = set.per_tensor;
    opt.weight_bits = set.weight_bits;
    rung_status st = graph_clone(r->g, &other->g, err);
    if (st != RUNG_OK || (st = methods_equalize(other->g, s, &opt, &n, err)) != RUNG_OK ||
        !n || (st = recipe_begin(other, data, err)) != RUNG_OK ||
        (st = judge(other, reference, s, &with, err)) != RUNG_OK)
        return st;
    if (with <= *db) {
        diagnose(r->diag, "method-undone", "equalize", "equalizing %zu groups of tensors gives %.2f "
                 "dB instead of %.2f dB: undone", n, with, *db);
        return RUNG_OK;
    }
    diagnose(r->diag, "method", "equalize", "%zu groups of tensors equalized: %.2f dB instead of "
             "%.2f dB on samples kept apart", n, with, *db);
    diagnostics *diag = r->diag;
    const recipe swap = *r;
    *r = *other;
    *other = swap;
    r->diag = diag;
    *db = with;
    return RUNG_OK;
}

static rung_status equalize(recipe *r, const graph *reference, dataset *data, const samples *s,
                            double *db, rung_error *err)
{
    recipe other = { .opt = r->opt, .rules = r->rules };
    const rung_status st = try_equalized(r, &other, reference, data, s, db, err);
    recipe_free(&other);
    graph_free(other.g);
    return st;
}

/* --- layers ----------------------------------------------------------------------------------- */

static rung_status fit_layers(recipe *r, const graph *reference, const samples *s, unsigned methods,
                              double *db, rung_error *err)
{
    double with = 0;
    const recipe before = *r;
    rung_status st;
    const tensor **constants = arena_zero(r->mem, r->n_values, sizeof *constants);
    int8_t **codes = arena_copy(r->mem, r->codes, r->n_values * sizeof *codes);
    float **scales = arena_copy(r->mem, r->scales, r->n_values * sizeof *scales);
    if (!constants || !codes || !scales)
        return fail_memory(err, "layers", r->n_values * sizeof *constants);
    for (size_t v = 0; v < r->n_values; v++)
        constants[v] = r->g->values[v].constant;
    if ((st = methods_walk(r, s, methods, err)) != RUNG_OK ||
        (st = judge(r, reference, s, &with, err)) != RUNG_OK)
        return st;
    if (with > *db) {
        diagnose(r->diag, "method", "layers", "fitted: %.2f dB instead of %.2f dB on samples kept "
                 "apart", with, *db);
        *db = with;
        return RUNG_OK;
    }
    diagnose(r->diag, "method-undone", "layers", "fitted, they give %.2f dB instead of %.2f dB: "
             "undone", with, *db);
    memcpy(before.codes, codes, r->n_values * sizeof *codes);
    memcpy(before.scales, scales, r->n_values * sizeof *scales);
    for (size_t v = 0; v < r->n_values; v++)
        r->g->values[v].constant = constants[v];
    return RUNG_OK;
}

rung_status methods_apply(recipe *r, dataset *data, rung_error *err)
{
    const unsigned methods = r->opt->methods ? r->opt->methods : CHEAP;
    samples s = { 0 };
    graph *reference = NULL;
    double db = 0;
    rung_status st;
    if (methods & RUNG_METHOD_NONE)
        return recipe_begin(r, data, err);
    if ((st = add_biases(r->g, err)) != RUNG_OK ||
        (st = graph_clone(r->g, &reference, err)) != RUNG_OK ||
        (st = recipe_begin(r, data, err)) != RUNG_OK ||
        (st = samples_load(r->g, data, r->opt, &s, err)) != RUNG_OK)
        goto done;
    s.n_threads = s.n_threads > 0 ? s.n_threads : omp_get_num_procs();
    if ((st = judge(r, reference, &s, &db, err)) != RUNG_OK)
        goto done;
    if (methods & RUNG_METHOD_EQUALIZE)
        st = equalize(r, reference, data, &s, &db, err);
    if (st == RUNG_OK && methods & BY_LAYER)
        st = fit_layers(r, reference, &s, methods, &db, err);
done:
    samples_free(&s);
    graph_free(reference);
    return st;
}
