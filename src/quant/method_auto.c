/* Which methods are applied, and whether they helped: each step is judged by the SQNR of the
 * model's outputs on calibration samples that are kept apart, in real integer runs. */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "graph/pass.h"
#include "graph/rewrite.h"
#include "quant/method.h"

enum {
    CHEAP = RUNG_METHOD_EQUALIZE | RUNG_METHOD_ABSORB | RUNG_METHOD_BIAS | RUNG_METHOD_CLIP |
            RUNG_METHOD_GPTQ | RUNG_METHOD_TAIL
};
#define BY_LAYER (RUNG_METHOD_BIAS | RUNG_METHOD_CLIP | RUNG_METHOD_GPTQ | RUNG_METHOD_ADAROUND)

/* Nobody has said which ranges he wants. */
static bool ranges_too(const recipe *r)
{
    return r->opt->methods == RUNG_METHOD_AUTO && r->opt->range == RUNG_RANGE_DEFAULT;
}

rung_status recipe_judge(const recipe *r, const samples *s, double *db, rung_error *err)
{
    arena *mem = arena_new();
    graph *q = NULL;
    rung_status st = mem ? recipe_graph(r, mem, &q, NULL, err)
                         : fail_memory(err, "a model to judge", sizeof *q);
    if (st == RUNG_OK)
        st = samples_check(s, q, db, err);
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

/* --- layers ----------------------------------------------------------------------------------- */

/* What a walk over the layers changes; the arrays it points to it leaves alone. */
typedef struct snapshot {
    const tensor **constants;
    int8_t       **codes;
    float        **scales;
    qparams       *params;
} snapshot;

static bool remember(const recipe *r, snapshot *s)
{
    const size_t n = r->n_values;
    s->constants = arena_zero(r->mem, n, sizeof *s->constants);
    s->codes = arena_copy(r->mem, r->codes, n * sizeof *s->codes);
    s->scales = arena_copy(r->mem, r->scales, n * sizeof *s->scales);
    s->params = arena_copy(r->mem, r->params, n * sizeof *s->params);
    for (size_t v = 0; s->constants && v < n; v++)
        s->constants[v] = r->g->values[v].constant;
    return s->constants && s->codes && s->scales && s->params;
}

static void restore(const recipe *r, const snapshot *s)
{
    memcpy(r->codes, s->codes, r->n_values * sizeof *s->codes);
    memcpy(r->scales, s->scales, r->n_values * sizeof *s->scales);
    memcpy(r->params, s->params, r->n_values * sizeof *s->params);
    for (size_t v = 0; v < r->n_values; v++)
        r->g->values[v].constant = s->constants[v];
}

static rung_status fit_layers(recipe *r, const samples *s, unsigned methods,
                              double *db, rung_error *err)
{
    double with = 0;
    snapshot before;
    rung_status st;
    if (!remember(r, &before))
        return fail_memory(err, "layers", r->n_values * sizeof *before.params);
    if ((st = methods_walk(r, s, methods, err)) != RUNG_OK ||
        (st = recipe_judge(r, s, &with, err)) != RUNG_OK)
        return st;
    if (with > *db) {
        diagnose(r->diag, "method", "layers",
                 "fitted one by one: %.2f dB instead of %.2f dB on samples kept apart", with, *db);
        *db = with;
        return RUNG_OK;
    }
    diagnose(r->diag, "method-undone", "layers",
             "fitted one by one they give %.2f dB instead of %.2f dB on samples kept apart", with,
             *db);
    restore(r, &before);
    return RUNG_OK;
}

/* --- attempts --------------------------------------------------------------------------------- */

/* A way through all methods: with equalization and without it. */
typedef struct attempt {
    recipe        r;
    diagnostics  *said;  /* about it: kept when it is taken */
    const double *reach; /* by value id; NULL: ranges are not stretched */
    double        db;
} attempt;

static rung_status attempt_fit(attempt *a, dataset *data, const samples *s, unsigned methods,
                               rung_error *err)
{
    diagnostics *diag = a->r.diag;
    rung_status st = RUNG_OK;
    a->r.diag = a->said = diagnostics_new();
    if (methods & RUNG_METHOD_ABSORB)
        st = methods_absorb(&a->r, data, s, a->reach, &a->db, err);
    if (st == RUNG_OK && methods & BY_LAYER)
        st = fit_layers(&a->r, s, methods, &a->db, err);
    a->r.diag = diag;
    return st;
}

/* What equalization makes of the model, and how far ranges are to reach in both. *n = 0: nothing
 * can be equalized, and that attempt goes no further. */
static rung_status attempt_equalize(attempt *plain, attempt *equal, const graph *reference,
                                    dataset *data, const samples *s, size_t *n, rung_error *err)
{
    recipe *r = &equal->r;
    arena *mem = plain->r.g->mem;
    reaches reach = { arena_zero(mem, plain->r.n_values, sizeof(double)),
                      arena_zero(mem, plain->r.n_values, sizeof(double)) };
    rung_status st;
    if (!reach.plain || !reach.equal)
        return fail_memory(err, "ranges", plain->r.n_values * sizeof(double));
    if ((st = graph_clone_shared(reference, &r->g, err)) != RUNG_OK ||
        (st = methods_equalize(r->g, s, r->opt, n, &reach, err)) != RUNG_OK)
        return st;
    plain->reach = ranges_too(&plain->r) ? reach.plain : NULL;
    equal->reach = ranges_too(r) ? reach.equal : NULL;
    if (plain->reach)
        stretch_ranges(&plain->r, plain->reach);
    if (!*n || (st = recipe_begin(r, data, err)) != RUNG_OK)
        return st;
    if (equal->reach)
        stretch_ranges(r, equal->reach);
    return recipe_judge(r, s, &equal->db, err);
}

/* Both are fitted, unless equalization is ahead already: then it will be in the end. */
static rung_status attempt_both(attempt *plain, attempt *equal, size_t n, dataset *data,
                                const samples *s, unsigned methods, rung_error *err)
{
    rung_status st = RUNG_OK;
    if (!n || equal->db <= plain->db)
        st = attempt_fit(plain, data, s, methods, err);
    if (st == RUNG_OK && n)
        st = attempt_fit(equal, data, s, methods, err);
    return st;
}

static void release(void *g)
{
    graph_free(g);
}

/* The attempt's graph reads constants of r's, which therefore lives as long. */
static rung_status take_over(recipe *r, attempt *a, rung_error *err)
{
    diagnostics *diag = r->diag;
    const recipe swap = *r;
    if (arena_defer(a->r.g->mem, release, r->g))
        return fail_memory(err, "an equalized model", sizeof *r->g);
    *r = a->r;
    a->r = swap;
    a->r.g = NULL;
    r->diag = diag;
    return RUNG_OK;
}

static rung_status attempt_all(recipe *r, const graph *reference, dataset *data, const samples *s,
                               unsigned methods, rung_error *err)
{
    attempt plain = { .r = *r }, equal = { .r = { .opt = r->opt, .rules = r->rules } };
    size_t n = 0;
    rung_status st = RUNG_OK;
    if (methods & RUNG_METHOD_EQUALIZE)
        st = attempt_equalize(&plain, &equal, reference, data, s, &n, err);
    if (st == RUNG_OK)
        st = recipe_judge(&plain.r, s, &plain.db, err);
    if (st == RUNG_OK)
        st = attempt_both(&plain, &equal, n, data, s, methods, err);
    *r = plain.r;
    const bool better = n && equal.db > plain.db;
    if (st == RUNG_OK && n)
        diagnose(r->diag, better ? "method" : "method-undone", "equalize",
                 "%zu groups of tensors equalized: %.2f dB, %.2f dB without, on samples kept apart",
                 n, equal.db, plain.db);
    if (st == RUNG_OK && better)
        st = take_over(r, &equal, err);
    const diagnostics *said = better ? equal.said : plain.said;
    for (size_t i = 0; said && i < said->n; i++)
        diagnose(r->diag, said->list[i].code, said->list[i].where, "%s", said->list[i].message);
    diagnostics_free(plain.said);
    diagnostics_free(equal.said);
    recipe_free(&equal.r);
    graph_free(equal.r.g);
    return st;
}

rung_status methods_apply(recipe *r, dataset *data, rung_error *err)
{
    const unsigned methods = r->opt->methods ? r->opt->methods : CHEAP;
    samples s = { 0 };
    graph *reference = NULL;
    rung_status st;
    if (methods & RUNG_METHOD_NONE)
        return recipe_begin(r, data, err);
    if ((st = add_biases(r->g, err)) != RUNG_OK ||
        (st = graph_clone_shared(r->g, &reference, err)) != RUNG_OK ||
        (st = recipe_begin(r, data, err)) != RUNG_OK ||
        (st = samples_load(r->g, data, r->opt, &s, err)) != RUNG_OK)
        goto done;
    s.n_threads = s.n_threads > 0 ? s.n_threads : omp_get_num_procs();
    if ((st = samples_answer(&s, reference, err)) == RUNG_OK)
        st = attempt_all(r, reference, data, &s, methods, err);
    if (st == RUNG_OK && methods & RUNG_METHOD_TAIL)
        st = methods_tail(r, &s, err);
done:
    samples_free(&s);
    graph_free(reference);
    return st;
}
