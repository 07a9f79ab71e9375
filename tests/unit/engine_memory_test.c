/* The static memory plan: on random graphs no two values that live together overlap, and the
 * results are those of the nodes evaluated one by one. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/plan.h"
#include "engine_graphs.h"

#include <cmocka.h>
#undef fail /* cmocka's macro hides base/status.h's function */

/* 20 nodes, each reading values made before: long and short lives, views, in-place steps. */
static graph *random_graph(uint64_t seed, bool pairs)
{
    builder b = build_begin(seed);
    int values[32], n = 0;
    values[n++] = build_input(&b, "x", 4, (int64_t[]){1, 4, 6, 6});
    for (int i = 0; i < 20; i++) {
        const int a = values[rng_below(&b.r, (uint64_t)n)];
        const int c = values[rng_below(&b.r, (uint64_t)n)];
        switch (rng_below(&b.r, pairs ? 6 : 5)) {
        case 0:
            values[n++] = build_conv(&b, a, 4, 4, 3, false);
            break;
        case 1:
            values[n++] = build_node(&b, "Add", (int[]){a, c, -1}, NULL);
            break;
        case 2:
            values[n++] = build_node(&b, "Relu", (int[]){a, -1}, NULL);
            break;
        case 3:
            values[n++] = build_node(&b, "Sigmoid", (int[]){a, -1}, NULL);
            break;
        case 4:
            values[n++] = build_node(&b, "Mul", (int[]){a, c, -1}, NULL);
            break;
        default:
            values[n++] = build_pair(&b, a, ACTIVATION_SCALE, 128);
            break;
        }
    }
    build_output(&b, values[n - 1]);
    if (values[n / 2] != values[0])
        build_output(&b, values[n / 2]);
    return build_end(&b);
}

static plan *make(const graph *g)
{
    rung_error err;
    plan *p = NULL;
    const engine_options opt = {0};
    expect_ok(plan_build(g, &opt, 2, &p, &err), &err);
    return p;
}

static void lives_do_not_overlap(void **state)
{
    for (uint64_t seed = 0; seed < 200; seed++) {
        graph *g = random_graph(seed, true);
        plan *p = make(g);
        assert_true(plan_memory_is_sound(p));
        plan_free(p);
        graph_free(g);
    }
}

/* The check itself finds an overlap. */
static void overlap_is_seen(void **state)
{
    graph *g = random_graph(3, true);
    plan *p = make(g);
    slot *x = &p->slots[p->input_slots[0]];
    for (size_t i = 0; i < p->n_slots; i++) {
        slot *s = &p->slots[i];
        if (s != x && s->root == (int)i && s->first >= 0 && s->bytes && s->offset)
            s->offset = x->offset;
    }
    assert_false(plan_memory_is_sound(p));
    plan_free(p);
    graph_free(g);
}

/* Buffers are used again: a long chain takes a few of them, not one per node. */
static void chain_is_small(void **state)
{
    builder b = build_begin(1);
    int x = build_input(&b, "x", 4, (int64_t[]){1, 4, 32, 32});
    for (int i = 0; i < 30; i++)
        x = build_conv(&b, x, 4, 4, 3, false);
    build_output(&b, x);
    graph *g = build_end(&b);
    plan *p = make(g);
    assert_true(p->buffer_bytes <= 4 * (4 * 32 * 32 * sizeof(float)));
    plan_free(p);
    graph_free(g);
}

/* The values of a graph by op->eval, node by node; x: the only input. */
static void evaluate(const graph *g, const float *x, tensor *values, arena *mem)
{
    rung_error err;
    value_info *info = arena_zero(mem, g->n_values, sizeof *info);
    expect_ok(graph_infer(g, NULL, mem, info, &err), &err);
    for (size_t v = 0; v < g->n_values; v++) {
        values[v] = g->values[v].constant
                        ? *g->values[v].constant
                        : *tensor_new(mem, info[v].type, info[v].rank, info[v].dims);
        if (g->values[v].is_input)
            memcpy(values[v].data, x, tensor_count(&values[v]) * sizeof *x);
    }
    for (size_t i = 0; i < g->n_nodes; i++) {
        const node *n = &g->nodes[i];
        tensor in[3] = {{0}};
        for (int k = 0; k < n->n_inputs; k++)
            in[k] = values[n->inputs[k]];
        const eval_args a = {.n = n,
                             .opset = 13,
                             .in = in,
                             .n_in = n->n_inputs,
                             .out = &values[n->outputs[0]],
                             .n_out = 1,
                             .mem = mem};
        expect_ok(n->op->eval(&a, &err), &err);
    }
}

static void expect_close(const tensor *got, const tensor *want)
{
    float largest = 0;
    const float *a = got->data, *b = want->data;
    for (size_t i = 0; i < tensor_count(want); i++)
        largest = fmaxf(largest, fabsf(b[i]));
    for (size_t i = 0; isfinite(largest) && i < tensor_count(want); i++)
        assert_true(fabsf(a[i] - b[i]) <= 1e-3f * largest);
}

/* Fusion, layouts, in-place steps and shared memory change nothing. */
static void results_are_those_of_the_nodes(void **state)
{
    for (uint64_t seed = 0; seed < 100; seed++) {
        graph *g = random_graph(seed, false);
        rung_error err;
        engine *e = NULL;
        expect_ok(engine_create(g, &(engine_options){.n_threads = 2}, &e, &err), &err);
        arena *mem = arena_new();
        tensor *values = arena_zero(mem, g->n_values, sizeof *values);
        float *x = engine_input(e, 0)->data;
        rng r;
        rng_seed(&r, seed);
        for (size_t i = 0; i < tensor_count(engine_input(e, 0)); i++)
            x[i] = (float)(2 * rng_uniform(&r) - 1);
        evaluate(g, x, values, mem);
        for (int repeat = 0; repeat < 2; repeat++) {
            expect_ok(engine_run(e, &err), &err);
            for (int i = 0; i < g->n_outputs; i++)
                expect_close(engine_output(e, i), &values[g->outputs[i]]);
        }
        engine_free(e);
        arena_free(mem);
        graph_free(g);
    }
}

/* Only operators without a kernel allocate while they run, and their failure is reported. */
static void run_allocates_nothing(void **state)
{
    graph *g = random_graph(7, true);
    rung_error err;
    engine *e = NULL;
    expect_ok(engine_create(g, NULL, &e, &err), &err);
    mem_fail_after(0);
    const rung_status st = engine_run(e, &err);
    mem_fail_after(-1);
    expect_ok(st, &err);
    engine_free(e);
    graph_free(g);
}

static void failure_of_a_step_is_reported(void **state)
{
    builder b = build_begin(1);
    const int x = build_input(&b, "x", 1, (int64_t[]){4});
    build_output(&b, build_node(&b, "Log", (int[]){x, -1}, NULL));
    graph *g = build_end(&b);
    rung_error err;
    engine *e = NULL;
    expect_ok(engine_create(g, NULL, &e, &err), &err);
    mem_fail_after(0);
    const rung_status st = engine_run(e, &err);
    mem_fail_after(-1);
    assert_int_equal(st, RUNG_EMEMORY);
    assert_non_null(strstr(err.message, "Log"));
    expect_ok(engine_run(e, &err), &err);
    engine_free(e);
    graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lives_do_not_overlap),  cmocka_unit_test(overlap_is_seen),
        cmocka_unit_test(chain_is_small),        cmocka_unit_test(results_are_those_of_the_nodes),
        cmocka_unit_test(run_allocates_nothing), cmocka_unit_test(failure_of_a_step_is_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
