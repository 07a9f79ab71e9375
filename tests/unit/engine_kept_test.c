/* Codes that stay readable after a run, and the products that make them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/plan.h"
#include "engine_graphs.h"
#include "kernels/arith.h"
#include "ops/lower.h"

#include <cmocka.h>
#undef fail /* cmocka's macro hides base/status.h's function */

enum { ZERO = 128 };

static int random_node(builder *b, int a, int c)
{
    switch (rng_below(&b->r, 5)) {
    case 0: return build_node(b, "Add", (int[]){a, c, -1}, NULL);
    case 1: return build_node(b, "Relu", (int[]){build_conv(b, a, 4, 4, 3, true), -1}, NULL);
    case 2: return build_node(b, "Sigmoid", (int[]){a, -1}, NULL);
    case 3: return build_node(b, "Log", (int[]){a, -1}, NULL); /* has no integer kernel */
    default: return build_conv(b, a, 4, 4, 1, true);
    }
}

/* Chains and branches of integer layers, pools and additions, with float ones between. */
static graph *random_graph(uint64_t seed)
{
    builder b = build_begin(seed);
    int values[32], n = 0;
    const int x = build_input(&b, "x", 4, (int64_t[]){2, 4, 6, 6});
    values[n++] = build_pair(&b, x, ACTIVATION_SCALE, ZERO);
    for (int i = 0; i < 12; i++) {
        const int a = values[rng_below(&b.r, (uint64_t)n)];
        const int c = values[rng_below(&b.r, (uint64_t)n)];
        values[n++] = build_pair(&b, random_node(&b, a, c), ACTIVATION_SCALE, ZERO);
    }
    build_output(&b, values[n - 1]);
    return build_end(&b);
}

static engine *make(const graph *g, const bool *keep, uint64_t seed)
{
    rung_error err;
    engine *e = NULL;
    const engine_options opt = {.n_threads = 2, .keep = keep};
    expect_ok(engine_create(g, &opt, &e, &err), &err);
    rng r;
    rng_seed(&r, seed);
    float *x = engine_input(e, 0)->data;
    for (size_t i = 0; i < tensor_count(engine_input(e, 0)); i++)
        x[i] = rng_normal(&r);
    for (int repeat = 0; repeat < 2; repeat++)
        expect_ok(engine_run(e, &err), &err);
    return e;
}

/* The real values behind a DequantizeLinear, from an engine of which they are an output. */
static void expect_values(const graph *g, int dequantized, const engine_kept *k, uint64_t seed)
{
    graph *shown;
    rung_error err;
    expect_ok(graph_clone(g, &shown, &err), &err);
    expect_ok(graph_mark_output(shown, dequantized, &err), &err);
    engine *e = make(shown, NULL, seed);
    const tensor *y = engine_output(e, engine_n_outputs(e) - 1);
    const float *want = y->data;
    const size_t pixels = (size_t)(y->dims[2] * y->dims[3]), channels = (size_t)y->dims[1];
    assert_int_equal(k->count, tensor_count(y));
    for (size_t i = 0; i < k->count; i++) {
        const size_t image = i / (pixels * channels), in = i % (pixels * channels);
        const size_t at = k->channels_last
                              ? image * pixels * channels + in % channels * pixels + in / channels
                              : i;
        assert_true(((float)k->data[i] - ZERO) * ACTIVATION_SCALE == want[at]);
    }
    engine_free(e);
    graph_free(shown);
}

/* Which codes are outputs of QuantizeLinear; all of them are kept. */
static bool *keep_all(const graph *g)
{
    bool *keep = mem_zero(g->n_values, sizeof *keep);
    for (size_t i = 0; i < g->n_nodes; i++)
        if (strcmp(g->nodes[i].op_type, "QuantizeLinear") == 0)
            keep[g->nodes[i].outputs[0]] = true;
    return keep;
}

static void kept_codes_are_those_of_the_run(void **state)
{
    for (uint64_t seed = 0; seed < 20; seed++) {
        graph *g = random_graph(seed);
        bool *keep = keep_all(g);
        engine *e = make(g, keep, seed);
        for (size_t i = 0; i < g->n_nodes; i++) {
            const node *n = &g->nodes[i];
            engine_kept k;
            if (strcmp(n->op_type, "DequantizeLinear") != 0 || !keep[n->inputs[0]])
                continue;
            if (g->values[n->outputs[0]].is_output || !engine_codes(e, n->inputs[0], &k))
                continue;
            expect_values(g, n->outputs[0], &k, seed);
        }
        engine_free(e);
        mem_free(keep);
        graph_free(g);
    }
}

/* Exact sums from the kept codes, requantized, are the codes that were kept. */
static void expect_product(const engine *e, int codes, const engine_product *p)
{
    const conv_step *c = p->step;
    engine_kept k;
    assert_true(engine_codes(e, codes, &k));
    int32_t *sums = mem_alloc(k.count * sizeof *sums);
    void *scratch = mem_alloc(c->kernel->scratch_size(&c->shape) + 1);
    c->kernel->run_sums(&c->shape, c->packed, p->x, c->x_zero, sums, scratch, 0, 1);
    for (size_t i = 0; i < k.count; i++)
        assert_int_equal(requant_u8(sums[i], c->q.mult[i % (size_t)c->shape.out_c], c->q.zero,
                                    c->q.lo, c->q.hi),
                         k.data[i]);
    mem_free(sums);
    mem_free(scratch);
}

static void products_make_the_codes(void **state)
{
    size_t found = 0;
    for (uint64_t seed = 0; seed < 20; seed++) {
        graph *g = random_graph(seed);
        bool *keep = keep_all(g);
        engine *e = make(g, keep, seed);
        for (size_t v = 0; v < g->n_values; v++) {
            engine_product p;
            if (!engine_product_of(e, (int)v, &p))
                continue;
            found++;
            expect_product(e, (int)v, &p);
        }
        engine_free(e);
        mem_free(keep);
        graph_free(g);
    }
    assert_true(found > 20);
}

static void nothing_is_kept_unasked(void **state)
{
    graph *g = random_graph(1);
    engine *e = make(g, NULL, 1);
    for (int v = -1; v <= (int)g->n_values + 3; v++) {
        engine_kept k;
        engine_product p;
        assert_false(engine_codes(e, v, &k));
        assert_false(engine_product_of(e, v, &p));
    }
    engine_free(e);
    graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kept_codes_are_those_of_the_run),
        cmocka_unit_test(products_make_the_codes),
        cmocka_unit_test(nothing_is_kept_unasked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
