/* The engine on small graphs: groups, islands, observed values, memory, threads, failures. */
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/engine.h"
#include "engine_graphs.h"

#include <cmocka.h>
#undef fail /* cmocka's macro hides base/status.h's function */

static engine *create(const graph *g, int n_threads)
{
    rung_error err;
    engine *e = NULL;
    const engine_options opt = {.n_threads = n_threads};
    expect_ok(engine_create(g, &opt, &e, &err), &err);
    return e;
}

static void fill_inputs(engine *e, uint64_t seed)
{
    rng r;
    rng_seed(&r, seed);
    for (int i = 0; i < engine_n_inputs(e); i++) {
        const tensor *t = engine_input(e, i);
        for (size_t k = 0; k < tensor_count(t); k++)
            ((float *)t->data)[k] = (float)(4 * rng_uniform(&r) - 2);
    }
}

static void run(engine *e)
{
    rung_error err;
    expect_ok(engine_run(e, &err), &err);
}

/* x -> Q/DQ -> Conv -> Relu -> Q/DQ -> Conv -> Q/DQ -> + first -> Q/DQ -> y */
static graph *residual_graph(bool quantized, int zero)
{
    builder b = build_begin(5);
    int x = build_input(&b, "x", 4, (int64_t[]){2, 3, 9, 7});
    if (quantized)
        x = build_pair(&b, x, ACTIVATION_SCALE, zero);
    int y = build_conv(&b, x, 3, 8, 3, quantized);
    y = build_node(&b, "Relu", (int[]){y, -1}, NULL);
    if (quantized)
        y = build_pair(&b, y, ACTIVATION_SCALE, 0);
    int z = build_conv(&b, y, 8, 8, 1, quantized);
    if (quantized)
        z = build_pair(&b, z, 0.06f, 120);
    z = build_node(&b, "Add", (int[]){z, y, -1}, NULL);
    if (quantized)
        z = build_pair(&b, z, 0.1f, 60);
    build_output(&b, z);
    return build_end(&b);
}

static size_t count_steps(const engine *e, const char *kernel)
{
    size_t n = 0;
    for (size_t i = 0; i < engine_n_steps(e); i++)
        n += strncmp(engine_step(e, i).kernel, kernel, strlen(kernel)) == 0;
    return n;
}

static void integer_groups(void **state)
{
    graph *g = residual_graph(true, 128);
    engine *e = create(g, 1);
    assert_int_equal(engine_n_islands(e), 0);
    assert_int_equal(count_steps(e, "conv_u8s8"), 2);
    assert_int_equal(count_steps(e, "add_u8"), 1);
    assert_int_equal(count_steps(e, "eval"), 0);
    const int64_t macs = 2 * 63 * (8 * 27 + 8 * 8);
    assert_int_equal(engine_macs(e), macs);
    assert_int_equal(engine_int_macs(e), macs);
    fill_inputs(e, 1);
    run(e);
    engine_free(e);
    graph_free(g);
}

/* The same arithmetic node by node: every intermediate is observed, so nothing fuses. */
static void fused_equals_unfused(void **state)
{
    for (int zero = 0; zero < 256; zero += 51) {
        graph *g = residual_graph(true, zero);
        engine *fused = create(g, 1), *apart = NULL;
        bool *all = calloc(g->n_values, sizeof *all);
        for (size_t v = 0; v < g->n_values; v++)
            all[v] = true;
        const engine_options opt = {.n_threads = 1, .observe = all};
        assert_int_equal(engine_create(g, &opt, &apart, NULL), RUNG_OK);
        assert_true(engine_n_islands(apart) > 0);
        assert_int_equal(engine_int_macs(apart), 0);
        fill_inputs(fused, 3);
        fill_inputs(apart, 3);
        run(fused);
        run(apart);
        const float *a = engine_output(fused, 0)->data, *b = engine_output(apart, 0)->data;
        /* Float sums may fall on the other side of a rounding: one code of each layer's output. */
        for (size_t i = 0; i < tensor_count(engine_output(fused, 0)); i++)
            assert_true(fabsf(a[i] - b[i]) <= 0.2001f);
        engine_free(fused);
        engine_free(apart);
        graph_free(g);
        free(all);
    }
}

typedef struct shown {
    int values[64];
    size_t n, counts[64];
    double sums[64];
} shown;

static rung_status note_shown(void *ctx, int v, const float *data, size_t count, rung_error *err)
{
    shown *s = ctx;
    s->values[s->n] = v;
    s->counts[s->n] = count;
    for (size_t i = 0; i < count; i++)
        s->sums[s->n] += data[i];
    s->n++;
    return s->n == 64 ? fail(err, RUNG_EINTERRUPTED, "enough") : RUNG_OK;
}

static void observed_values_are_shown(void **state)
{
    graph *g = residual_graph(false, 0);
    bool *observe = calloc(g->n_values, sizeof *observe);
    int expected[64], n = 0;
    observe[g->inputs[0]] = true;
    expected[n++] = g->inputs[0];
    for (size_t i = 0; i < g->n_nodes; i++) {
        observe[g->nodes[i].outputs[0]] = true;
        expected[n++] = g->nodes[i].outputs[0];
    }
    engine *e = NULL;
    shown s = {.n = 0};
    const engine_options opt = {.n_threads = 2, .observe = observe};
    assert_int_equal(engine_create(g, &opt, &e, NULL), RUNG_OK);
    engine_set_tap(e, note_shown, &s);
    fill_inputs(e, 9);
    run(e);
    assert_int_equal(s.n, n);
    for (int i = 0; i < n; i++)
        assert_int_equal(s.values[i], expected[i]);
    assert_int_equal(s.counts[0], 2 * 3 * 63);
    double sum = 0;
    for (size_t i = 0; i < s.counts[0]; i++)
        sum += ((float *)engine_input(e, 0)->data)[i];
    assert_true(fabs(sum - s.sums[0]) < 1e-6);
    engine_free(e);
    graph_free(g);
    free(observe);
}

static void tap_stops_the_run(void **state)
{
    graph *g = residual_graph(false, 0);
    bool *observe = calloc(g->n_values, sizeof *observe);
    observe[g->inputs[0]] = true;
    engine *e = NULL;
    shown s = {.n = 63};
    rung_error err;
    const engine_options opt = {.observe = observe};
    assert_int_equal(engine_create(g, &opt, &e, NULL), RUNG_OK);
    engine_set_tap(e, note_shown, &s);
    assert_int_equal(engine_run(e, &err), RUNG_EINTERRUPTED);
    assert_string_equal(err.message, "enough");
    engine_free(e);
    graph_free(g);
    free(observe);
}

static void observing_keeps_the_result(void **state)
{
    graph *g = residual_graph(false, 0);
    bool *observe = calloc(g->n_values, sizeof *observe);
    for (size_t v = 0; v < g->n_values; v++)
        observe[v] = true;
    engine *a = create(g, 1), *b = NULL;
    const engine_options opt = {.n_threads = 1, .observe = observe};
    assert_int_equal(engine_create(g, &opt, &b, NULL), RUNG_OK);
    fill_inputs(a, 4);
    fill_inputs(b, 4);
    run(a);
    run(b);
    const float *x = engine_output(a, 0)->data, *y = engine_output(b, 0)->data;
    for (size_t i = 0; i < tensor_count(engine_output(a, 0)); i++)
        assert_true(fabsf(x[i] - y[i]) <= 1e-4f * (1 + fabsf(x[i])));
    engine_free(a);
    engine_free(b);
    graph_free(g);
    free(observe);
}

/* A wider graph, so that several threads have something to do. */
static graph *wide_graph(bool int8)
{
    builder b = build_begin(11);
    int x = build_input(&b, "x", 4, (int64_t[]){1, 8, 40, 40});
    x = int8 ? build_pair_int8(&b, x, ACTIVATION_SCALE, -3)
             : build_pair(&b, x, ACTIVATION_SCALE, 125);
    for (int i = 0; i < 3; i++) {
        int y = build_conv(&b, x, 8, 8, 3, true);
        y = build_node(&b, "Relu", (int[]){y, -1}, NULL);
        y = int8 ? build_pair_int8(&b, y, ACTIVATION_SCALE, -128)
                 : build_pair(&b, y, ACTIVATION_SCALE, 0);
        y = build_node(&b, "Add", (int[]){x, y, -1}, NULL);
        x = int8 ? build_pair_int8(&b, y, ACTIVATION_SCALE, -20)
                 : build_pair(&b, y, ACTIVATION_SCALE, 108);
    }
    x = build_node(&b, "GlobalAveragePool", (int[]){x, -1}, NULL);
    x = int8 ? build_pair_int8(&b, x, 0.03f, 0) : build_pair(&b, x, 0.03f, 128);
    build_output(&b, x);
    return build_end(&b);
}

static void threads_and_int8_give_the_same_bytes(void **state)
{
    float first[8];
    for (int k = 0; k < 6; k++) {
        graph *g = wide_graph(k & 1);
        engine *e = create(g, 1 + k / 2);
        assert_int_equal(engine_n_islands(e), 0);
        for (int repeat = 0; repeat < 3; repeat++) {
            fill_inputs(e, 21);
            run(e);
            const tensor *y = engine_output(e, 0);
            assert_int_equal(tensor_count(y), 8);
            if (k == 0 && repeat == 0)
                memcpy(first, y->data, sizeof first);
            assert_memory_equal(first, y->data, sizeof first);
        }
        engine_free(e);
        graph_free(g);
    }
}

static void *run_many(void *ctx)
{
    for (int i = 0; i < 50; i++)
        if (engine_run(ctx, NULL) != RUNG_OK)
            return ctx;
    return NULL;
}

static void engines_do_not_disturb_each_other(void **state)
{
    graph *g = wide_graph(false);
    engine *e[2] = {create(g, 2), create(g, 1)};
    float alone[8];
    pthread_t t[2];
    for (int i = 0; i < 2; i++)
        fill_inputs(e[i], 33);
    run(e[0]);
    memcpy(alone, engine_output(e[0], 0)->data, sizeof alone);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&t[i], NULL, run_many, e[i]), 0);
    for (int i = 0; i < 2; i++) {
        void *bad = NULL;
        assert_int_equal(pthread_join(t[i], &bad), 0);
        assert_null(bad);
        assert_memory_equal(alone, engine_output(e[i], 0)->data, sizeof alone);
        engine_free(e[i]);
    }
    graph_free(g);
}

static void unknown_dimension_is_named(void **state)
{
    builder b = build_begin(1);
    const int x = build_input(&b, "pixels", 4, (int64_t[]){DIM_UNKNOWN, 3, 8, 8});
    build_output(&b, build_node(&b, "Relu", (int[]){x, -1}, NULL));
    graph *g = build_end(&b);
    engine *e = NULL;
    rung_error err;
    assert_int_equal(engine_create(g, NULL, &e, &err), RUNG_EARGUMENT);
    assert_non_null(strstr(err.message, "'pixels'"));
    assert_non_null(strstr(err.message, "dimension 0"));
    assert_null(e);
    const int64_t dims[4] = {2, 3, 8, 8};
    const int64_t *given[1] = {dims};
    const engine_options opt = {.input_dims = given};
    assert_int_equal(engine_create(g, &opt, &e, &err), RUNG_OK);
    assert_int_equal(engine_output(e, 0)->dims[0], 2);
    engine_free(e);
    graph_free(g);
}

static void unknown_operator_is_named(void **state)
{
    builder b = build_begin(1);
    const int x = build_input(&b, "x", 1, (int64_t[]){4});
    build_output(&b, build_node(&b, "Frobnicate", (int[]){x, -1}, NULL));
    graph *g = build_end(&b);
    engine *e = NULL;
    rung_error err;
    assert_int_not_equal(engine_create(g, NULL, &e, &err), RUNG_OK);
    assert_non_null(strstr(err.message, "Frobnicate"));
    graph_free(g);
}

static void overflow_names_the_weight(void **state)
{
    builder b = build_begin(1);
    const int64_t k = 70000, dims[2] = {1, k};
    int x = build_pair(&b, build_input(&b, "x", 2, dims), 1, 0);
    int8_t *w = malloc((size_t)k);
    memset(w, 127, (size_t)k);
    const tensor t = {.type = RUNG_I8, .rank = 2, .dims = {k, 1}, .data = w};
    const int q = graph_add_constant(b.g, "heavy", &t);
    free(w);
    const int s = build_scalar(&b, 0.01f);
    const int dq = build_node(&b, "DequantizeLinear", (int[]){q, s, -1}, NULL);
    build_output(&b, build_pair(&b, build_node(&b, "MatMul", (int[]){x, dq, -1}, NULL), 1, 0));
    graph *g = build_end(&b);
    engine *e = NULL;
    rung_error err;
    assert_int_equal(engine_create(g, NULL, &e, &err), RUNG_EMODEL);
    assert_non_null(strstr(err.message, "'heavy'"));
    graph_free(g);
}

static void missing_pair_is_an_island_with_reason(void **state)
{
    builder b = build_begin(2);
    int x = build_pair(&b, build_input(&b, "x", 4, (int64_t[]){1, 3, 8, 8}), ACTIVATION_SCALE, 128);
    build_output(&b, build_conv(&b, x, 3, 4, 3, true));
    graph *g = build_end(&b);
    engine *e = create(g, 1);
    assert_int_equal(engine_n_islands(e), 1);
    assert_string_equal(engine_islands(e)[0].op_type, "Conv");
    assert_non_null(strstr(engine_islands(e)[0].reason, "not quantized"));
    assert_int_equal(engine_int_macs(e), 0);
    fill_inputs(e, 1);
    run(e);
    engine_free(e);
    graph_free(g);
}

/* Outputs that are an input, the same value twice, or a value in another layout. */
static void outputs_have_their_own_memory(void **state)
{
    builder b = build_begin(2);
    const int x = build_input(&b, "x", 4, (int64_t[]){1, 3, 4, 4});
    const int y = build_conv(&b, x, 3, 5, 1, false);
    build_output(&b, build_node(&b, "Identity", (int[]){x, -1}, NULL));
    build_output(&b, y);
    build_output(&b, build_node(&b, "Identity", (int[]){y, -1}, NULL));
    graph *g = build_end(&b);
    engine *e = create(g, 2);
    fill_inputs(e, 8);
    run(e);
    run(e);
    const void *in = engine_input(e, 0)->data;
    assert_ptr_not_equal(engine_output(e, 0)->data, in);
    assert_memory_equal(engine_output(e, 0)->data, in, 48 * sizeof(float));
    assert_ptr_not_equal(engine_output(e, 1)->data, engine_output(e, 2)->data);
    assert_memory_equal(engine_output(e, 1)->data, engine_output(e, 2)->data, 80 * sizeof(float));
    engine_free(e);
    graph_free(g);
}

static void every_allocation_may_fail(void **state)
{
    for (int quantized = 0; quantized < 2; quantized++) {
        graph *g = residual_graph(quantized, 128);
        rung_status st = RUNG_EMEMORY;
        for (long n = 0; st != RUNG_OK; n++) {
            engine *e = NULL;
            rung_error err = {""};
            const engine_options opt = {.n_threads = 1};
            mem_fail_after(n);
            st = engine_create(g, &opt, &e, &err);
            mem_fail_after(-1);
            if (st != RUNG_OK) {
                assert_int_equal(st, RUNG_EMEMORY);
                assert_null(e);
                assert_true(err.message[0] != '\0');
                assert_true(n < 100000);
            }
            engine_free(e);
        }
        graph_free(g);
    }
}

static void profile_times_every_step(void **state)
{
    graph *g = wide_graph(false);
    engine *e = create(g, 2);
    fill_inputs(e, 1);
    engine_profile(e, true);
    run(e);
    double sum = 0;
    for (size_t i = 0; i < engine_n_steps(e); i++) {
        assert_true(engine_step(e, i).seconds >= 0);
        assert_non_null(engine_step(e, i).node);
        sum += engine_step(e, i).seconds;
    }
    assert_true(sum > 0);
    assert_true(engine_bytes(e) > 0);
    engine_free(e);
    graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integer_groups),
        cmocka_unit_test(fused_equals_unfused),
        cmocka_unit_test(observed_values_are_shown),
        cmocka_unit_test(tap_stops_the_run),
        cmocka_unit_test(observing_keeps_the_result),
        cmocka_unit_test(threads_and_int8_give_the_same_bytes),
        cmocka_unit_test(engines_do_not_disturb_each_other),
        cmocka_unit_test(unknown_dimension_is_named),
        cmocka_unit_test(unknown_operator_is_named),
        cmocka_unit_test(overflow_names_the_weight),
        cmocka_unit_test(missing_pair_is_an_island_with_reason),
        cmocka_unit_test(outputs_have_their_own_memory),
        cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(profile_times_every_step),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
