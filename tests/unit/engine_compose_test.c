/* Functions of functions run as one table, with the bytes of the steps one by one. */
#include "unit.h"

#include <stdlib.h>
#include <string.h>

#include "engine/plan.h"
#include "engine_graphs.h"
#include "kernels/arith.h"
#include "kernels/kernels.h"

enum { N = 4 * 6 * 6, ZERO = 90 };
static const float SCALE = 0.03f;

static engine *make(const graph *g, const bool *keep)
{
    rung_error err;
    engine *e = NULL;
    const engine_options opt = {.n_threads = 1, .keep = keep};
    expect_ok(engine_create(g, &opt, &e, &err), &err);
    float *x = engine_input(e, 0)->data;
    for (int i = 0; i < N; i++)
        x[i] = (float)(i * 256 / N - ZERO) * SCALE;
    expect_ok(engine_run(e, &err), &err);
    return e;
}

static size_t tables_of(const engine *e)
{
    size_t n = 0;
    for (size_t i = 0; i < engine_n_steps(e); i++)
        n += strncmp(engine_step(e, i).kernel, "table_u8", 8) == 0;
    return n;
}

static int input_of(builder *b)
{
    const int x = build_input(b, "x", 4, (int64_t[]){1, 4, 6, 6});
    return build_pair(b, x, SCALE, ZERO);
}

static double sigmoid(double x, const void *ctx)
{
    return 1 / (1 + exp(-x));
}

/* x * Sigmoid(x): the code of the product is that of Mul, from the code of the function. */
static void swish_is_one_table(void **state)
{
    builder b = build_begin(1);
    const int x = input_of(&b);
    const int s = build_pair(&b, build_node(&b, "Sigmoid", (int[]){x, -1}, NULL), 1.0f / 256, 0);
    const int y = build_pair(&b, build_node(&b, "Mul", (int[]){x, s, -1}, NULL), 0.02f, 14);
    build_output(&b, y);
    graph *g = build_end(&b);
    engine *e = make(g, NULL);
    assert_int_equal(tables_of(e), 1);
    assert_int_equal(engine_n_steps(e), 3); /* the quantization, the table, the dequantization */
    uint8_t table[256];
    table_make(sigmoid, NULL, SCALE, ZERO, 1.0f / 256, 0, 0, 255, table);
    const float *got = engine_output(e, 0)->data;
    for (int i = 0; i < N; i++) {
        const uint8_t q = quantize_one(((float *)engine_input(e, 0)->data)[i], SCALE, ZERO, 0, 255);
        const int want =
            mul_one(q - ZERO, table[q], mul_ratio(SCALE, 1.0f / 256, 0.02f), 14, 0, 255);
        assert_true(got[i] == dequantize_one(want, 0.02f, 14));
    }
    engine_free(e);
    graph_free(g);
}

/* Two functions of one tensor and their sum, which another tensor then joins: that Add stays. */
static void other_operands_stay_apart(void **state)
{
    builder b = build_begin(2);
    const int x = input_of(&b);
    const int s = build_pair(&b, build_node(&b, "Sigmoid", (int[]){x, -1}, NULL), 0.01f, 128);
    const int t = build_pair(&b, build_node(&b, "Tanh", (int[]){x, -1}, NULL), 0.01f, 128);
    const int sum = build_pair(&b, build_node(&b, "Add", (int[]){s, t, -1}, NULL), 0.02f, 128);
    const int c = build_pair(&b, build_conv(&b, x, 4, 4, 1, true), 0.05f, 128);
    build_output(&b, build_pair(&b, build_node(&b, "Add", (int[]){sum, c, -1}, NULL), 0.05f, 99));
    graph *g = build_end(&b);
    engine *e = make(g, NULL);
    assert_int_equal(tables_of(e), 1); /* Sigmoid + Tanh */
    size_t additions = 0;
    for (size_t i = 0; i < engine_n_steps(e); i++)
        additions += strncmp(engine_step(e, i).kernel, "add_u8", 6) == 0;
    assert_int_equal(additions, 1);
    engine_free(e);
    graph_free(g);
}

/* Codes between that are kept are made, and nothing else changes. */
static void kept_codes_between_are_made(void **state)
{
    builder b = build_begin(3);
    const int x = input_of(&b);
    const int s = build_pair(&b, build_node(&b, "Sigmoid", (int[]){x, -1}, NULL), 1.0f / 256, 0);
    const int m = build_pair(&b, build_node(&b, "Mul", (int[]){x, s, -1}, NULL), 0.02f, 14);
    build_output(&b, build_pair(&b, build_node(&b, "Tanh", (int[]){m, -1}, NULL), 0.01f, 128));
    graph *g = build_end(&b);
    bool *keep = calloc(g->n_values, sizeof *keep);
    const int code = g->nodes[g->values[s].producer].inputs[0];
    keep[code] = true;
    engine *all = make(g, keep), *few = make(g, NULL);
    engine_kept k;
    assert_int_equal(tables_of(few), 1);
    assert_int_equal(tables_of(all), 2);
    assert_true(engine_codes(all, code, &k));
    assert_false(engine_codes(few, code, &k));
    assert_memory_equal(engine_output(all, 0)->data, engine_output(few, 0)->data, N * 4);
    engine_free(all);
    engine_free(few);
    free(keep);
    graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(swish_is_one_table),
        cmocka_unit_test(other_operands_stay_apart),
        cmocka_unit_test(kept_codes_between_are_made),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
