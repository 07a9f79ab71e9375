/* Dynamic and weight-only quantization: what comes out, that the engine's fused steps give the
 * bytes of the nodes evaluated one by one, every refusal, nonsense in models, and no memory. */
#include "graph_kit.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "base/cpu.h"
#include "base/mem.h"
#include "engine/engine.h"
#include "graph/pass.h"
#include "graph/rewrite.h"
#include "ops/ops.h"
#include "quant/blocks.h"
#include "quant/quant.h"

typedef rung_status (*quantize_fn)(const graph *g, dataset *data, const rung_quant_options *opt,
                                   graph **out, diagnostics *diag, rung_error *err);

static graph *quantized(const graph *g, quantize_fn run, const rung_quant_options *opt)
{
    graph *q = NULL;
    assert_ok(run(g, NULL, opt, &q, NULL, err));
    assert_ok(graph_verify(q, err));
    return q;
}

/* --- running ---------------------------------------------------------------------------------- */

/* An engine that has run on kit_run's inputs, and how many of its steps name this kernel. */
static engine *run_engine(const graph *g, uint64_t seed, const char *kernel, int *steps)
{
    rng r;
    engine *e;
    const engine_options opt = { .n_threads = 2 };
    assert_ok(engine_create(g, &opt, &e, err));
    rng_seed(&r, seed);
    for (int i = 0; i < engine_n_inputs(e); i++)
        for (size_t k = 0; k < tensor_count(engine_input(e, i)); k++)
            ((float *)engine_input(e, i)->data)[k] = rng_normal(&r);
    assert_ok(engine_run(e, err));
    *steps = 0;
    for (size_t i = 0; i < engine_n_steps(e); i++)
        *steps += strncmp(engine_step(e, i).kernel, kernel, strlen(kernel)) == 0;
    return e;
}

/* bound: of the difference, in units of the largest magnitude; 0: to the byte. */
static void engine_equals_nodes(const graph *g, const char *kernel, int n_steps, double bound)
{
    static const unsigned masks[] = { 0, CPU_AVX2, CPU_AVX2 | CPU_AVX_VNNI, ~0u };
    arena *mem = arena_new();
    const tensor *want = kit_run(g, 5, mem)[0];
    for (size_t m = 0; m < sizeof masks / sizeof *masks; m++) {
        int steps;
        double largest = 0;
        cpu_force(masks[m]);
        engine *e = run_engine(g, 5, kernel, &steps);
        const tensor *got = engine_output(e, 0);
        assert_int_equal(steps, n_steps);
        assert_int_equal(tensor_count(got), tensor_count(want));
        for (size_t i = 0; i < tensor_count(want); i++)
            largest = fmax(largest, fabs(tensor_get(want, i)));
        if (bound == 0)
            assert_memory_equal(got->data, want->data, tensor_count(want) * sizeof(float));
        for (size_t i = 0; i < tensor_count(want); i++)
            assert_true(fabs(tensor_get(got, i) - tensor_get(want, i)) <= bound * largest);
        engine_free(e);
    }
    arena_free(mem);
}

/* --- dynamic ---------------------------------------------------------------------------------- */

/* x [2,5,K] -> MatMul + bias, MatMul, added. */
static graph *two_products(rng *r, int64_t k, int64_t n)
{
    graph *g = kit_graph(op_find);
    const int x = kit_input(g, "x", 3, DIMS(2, 5, k));
    const int a = kit_node(g, "MatMul", "a", 2, IDS(x, kit_random(g, r, "wa", 2, DIMS(k, n))));
    const int b = kit_node(g, "MatMul", "b", 2, IDS(x, kit_random(g, r, "wb", 2, DIMS(k, n))));
    const int biased = kit_node(g, "Add", "bias", 2, IDS(a, kit_random(g, r, "c", 1, DIMS(n))));
    kit_output(g, kit_node(g, "Add", "sum", 2, IDS(biased, b)));
    return g;
}

static void dynamic_products(void **state)
{
    static const int64_t sizes[][2] = { { 1, 1 }, { 7, 3 }, { 64, 64 }, { 33, 130 } };
    const rung_quant_options opt = RUNG_QUANT_OPTIONS;
    rng r;
    rng_seed(&r, 1);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        graph *g = two_products(&r, sizes[i][0], sizes[i][1]);
        graph *q = quantized(g, quantize_dynamic, &opt);
        assert_int_equal(kit_count(q, "DynamicQuantizeLinear"), 1); /* shared */
        assert_int_equal(kit_count(q, "MatMulInteger"), 2);
        assert_int_equal(kit_count(q, "MatMul"), 0);
        engine_equals_nodes(q, "product_u8s8", 2, 0);
        graph_free(g);
        graph_free(q);
    }
}

static void dynamic_gemm(void **state)
{
    const rung_quant_options opt = { .size = sizeof opt, .per_tensor = true };
    rng r;
    rng_seed(&r, 2);
    graph *g = kit_graph(op_find);
    const int x = kit_input(g, "x", 2, DIMS(6, 20));
    kit_output(g, kit_node(g, "Gemm", "fc", 3, IDS(x, kit_random(g, &r, "w", 2, DIMS(9, 20)),
                                                   kit_random(g, &r, "b", 1, DIMS(9)))));
    kit_set_int(g, "transB", 1);
    assert_ok(graph_set_float(g, kit_last(g), "alpha", 0.5f, err));
    assert_ok(graph_set_float(g, kit_last(g), "beta", 3, err));
    graph *q = quantized(g, quantize_dynamic, &opt);
    assert_int_equal(kit_count(q, "MatMulInteger"), 1);
    engine_equals_nodes(q, "product_u8s8", 1, 0);
    /* 8 bits keep a product of 20 normal numbers to a few percent of its largest values. */
    kit_same_function(g, q, 9, 0.15);
    graph_free(g);
    graph_free(q);
}

static void dynamic_conv(void **state)
{
    const char *const ops[] = { "Conv" };
    const rung_quant_options opt = { .size = sizeof opt, .ops = ops, .n_ops = 1 };
    rng r;
    rng_seed(&r, 3);
    for (int64_t groups = 1; groups <= 4; groups *= 2) {
        graph *g = kit_graph(op_find);
        const int x = kit_input(g, "x", 4, DIMS(2, 4, 7, 5));
        const int w = kit_random(g, &r, "w", 4, DIMS(8, 4 / groups, 3, 3));
        kit_output(g, kit_node(g, "Conv", "c", 3, IDS(x, w, kit_random(g, &r, "b", 1, DIMS(8)))));
        kit_set_ints(g, "pads", 4, DIMS(1, 0, 2, 1));
        kit_set_ints(g, "strides", 2, DIMS(2, 1));
        kit_set_int(g, "group", groups);
        graph *q = quantized(g, quantize_dynamic, &opt);
        assert_int_equal(kit_count(q, "ConvInteger"), 1);
        engine_equals_nodes(q, "product_u8s8", 1, 0);
        graph_free(g);
        graph_free(q);
    }
}

/* Inputs that are all zero, or hold what is no number: codes are those of the nodes. */
static void dynamic_odd_inputs(void **state)
{
    static const float odd[][3] = { { 0, 0, 0 }, { -1, -2, -0.0f }, { NAN, 1, -3 },
                                    { 1e-44f, 0, 1e-45f }, { INFINITY, 1, 2 },
                                    { FLT_MAX, -FLT_MAX, 1 } };
    const rung_quant_options opt = RUNG_QUANT_OPTIONS;
    rng r;
    rng_seed(&r, 4);
    graph *g = kit_graph(op_find);
    const int x = kit_input(g, "x", 2, DIMS(1, 3));
    kit_output(g, kit_node(g, "MatMul", "m", 2, IDS(x, kit_random(g, &r, "w", 2, DIMS(3, 4)))));
    graph *q = quantized(g, quantize_dynamic, &opt);
    const node *dql = kit_only(q, "DynamicQuantizeLinear");
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        int steps;
        uint8_t codes[3], zero;
        float scale;
        const tensor in = { RUNG_F32, 2, { 1, 3 }, (void *)odd[i] };
        tensor out[3] = { { RUNG_U8, 2, { 1, 3 }, codes }, { .type = RUNG_F32, .data = &scale },
                          { .type = RUNG_U8, .data = &zero } };
        const eval_args a = { dql, 13, &in, 1, out, 3, NULL };
        assert_ok(dql->op->eval(&a, err));
        engine *e = run_engine(q, 1, "product_u8s8", &steps);
        memcpy(engine_input(e, 0)->data, odd[i], sizeof odd[i]);
        assert_ok(engine_run(e, err));
        const tensor *w = node_constant(q, kit_only(q, "MatMulInteger"), 1);
        const node *scales = NULL;
        for (size_t k = 0; k < q->n_nodes; k++)
            if (node_is(&q->nodes[k], "Mul") && node_constant(q, &q->nodes[k], 1))
                scales = &q->nodes[k];
        for (int c = 0; c < 4; c++) {
            int32_t sum = 0;
            for (int k = 0; k < 3; k++)
                sum += (codes[k] - zero) * (int)tensor_get_int(w, (size_t)(k * 4 + c));
            const float m = scale * (float)tensor_get(node_constant(q, scales, 1), (size_t)c);
            const float want = (float)sum * m, got = ((float *)engine_output(e, 0)->data)[c];
            assert_true(want == got || (isnan(want) && isnan(got)));
        }
        engine_free(e);
    }
    graph_free(g);
    graph_free(q);
}

static void names_choose(void **state)
{
    const char *const ops[] = { "Linear" }, *const no[] = { "b*" }, *const all[] = { "MatMul" };
    rung_quant_options opt = { .size = sizeof opt, .ops = ops, .n_ops = 1, .exclude = no,
                               .n_exclude = 1 };
    rng r;
    rng_seed(&r, 5);
    graph *g = two_products(&r, 8, 8), *none;
    graph *q = quantized(g, quantize_dynamic, &opt);
    assert_int_equal(kit_count(q, "MatMulInteger"), 1);
    assert_int_equal(kit_count(q, "MatMul"), 1);
    assert_fails(quantize_dynamic(q, NULL, &opt, &none, NULL, err),
                 RUNG_EARGUMENT, "quantized already");
    assert_null(none);
    opt.exclude = all;
    assert_fails(quantize_dynamic(g, NULL, &opt, &none, NULL, err),
                 RUNG_EARGUMENT, "nothing is left");
    assert_fails(quantize_weights(g, NULL, &opt, &none, NULL, err),
                 RUNG_EARGUMENT, "nothing is left");
    graph_free(g);
    graph_free(q);
}

/* Layers that share a weight share its codes, though exporters put Identity between. */
static void shared_weights_stay_shared(void **state)
{
    static const quantize_fn modes[] = { quantize_dynamic, quantize_weights };
    static const char *const kernels[] = { "product_u8s8", "packed_int8" };
    const rung_quant_options opt = RUNG_QUANT_OPTIONS;
    rng r;
    rng_seed(&r, 11);
    graph *g = kit_graph(op_find);
    const int x = kit_input(g, "x", 2, DIMS(3, 20));
    const int w = kit_random(g, &r, "w", 2, DIMS(20, 20));
    const int again = kit_node(g, "Identity", "i", 1, IDS(w));
    const int y = kit_node(g, "MatMul", "a", 2, IDS(x, w));
    const int z = kit_node(g, "Sigmoid", "s", 1, IDS(y));
    kit_output(g, kit_node(g, "MatMul", "b", 2, IDS(z, again)));
    for (int m = 0; m < 2; m++) {
        graph *q = quantized(g, modes[m], &opt);
        int n_codes = 0;
        for (size_t v = 0; v < q->n_values; v++)
            n_codes += q->values[v].constant && q->values[v].constant->type == RUNG_I8;
        assert_int_equal(n_codes, 1);
        /* Behind the Sigmoid of two implementations a code may differ by one. */
        engine_equals_nodes(q, kernels[m], 2, 0.02);
        graph_free(q);
    }
    graph_free(g);
}

/* --- weights ---------------------------------------------------------------------------------- */

/* Sums in float32 of k products in any order: k * eps of the sum of magnitudes, which is below
 * k * the largest one; measured in units of the largest result. */
static double sum_bound(int64_t k)
{
    return 4 * (double)k * FLT_EPSILON;
}

static void weight_products(void **state)
{
    static const struct {
        int bits, block;
        bool asymmetric;
        const char *kernel;
    } forms[] = { { 8, 0, false, "packed_int8" },    { 8, 16, false, "packed_int8" },
                  { 8, 0, true, "packed_uint8" },    { 4, 0, false, "packed_int4" },
                  { 4, 16, true, "packed_uint4" },   { 4, 256, false, "packed_int4" } };
    static const int64_t sizes[][2] = { { 1, 1 }, { 7, 3 }, { 64, 64 }, { 301, 67 } };
    rng r;
    rng_seed(&r, 6);
    for (size_t f = 0; f < sizeof forms / sizeof *forms; f++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            const rung_quant_options opt = { .size = sizeof opt, .weight_bits = forms[f].bits,
                                             .block = forms[f].block,
                                             .weight_asymmetric = forms[f].asymmetric };
            graph *g = two_products(&r, sizes[i][0], sizes[i][1]);
            graph *q = quantized(g, quantize_weights, &opt);
            const bool blocked = forms[f].block || forms[f].bits == 4;
            assert_int_equal(graph_opset(q, ""), blocked ? 21 : 13);
            assert_int_equal(kit_count(q, "DequantizeLinear"), 2);
            engine_equals_nodes(q, forms[f].kernel, 2, sum_bound(sizes[i][0]));
            graph_free(g);
            graph_free(q);
        }
}

/* A Gemm's weight is written untransposed; one that somebody else wrote transposed runs too. */
static void weight_gemm(void **state)
{
    const rung_quant_options opt = { .size = sizeof opt, .weight_bits = 4, .block = 16 };
    rng r;
    rng_seed(&r, 7);
    graph *g = kit_graph(op_find);
    const int x = kit_input(g, "x", 2, DIMS(6, 40));
    const int y = kit_node(g, "Gemm", "fc", 3, IDS(x, kit_random(g, &r, "w", 2, DIMS(9, 40)),
                                                   kit_random(g, &r, "b", 1, DIMS(9))));
    kit_set_int(g, "transB", 1);
    kit_output(g, kit_node(g, "Relu", "r", 1, IDS(y)));
    graph *q = quantized(g, quantize_weights, &opt);
    assert_null(node_attr(kit_only(q, "Gemm"), "transB"));
    engine_equals_nodes(q, "packed_int4", 1, sum_bound(40));
    graph_free(q);
    graph_free(g);

    static const float scales[9] = { .1f, .2f, .3f, .4f, .5f, .6f, .7f, .8f, .9f };
    int8_t codes[9 * 40];
    for (int i = 0; i < 9 * 40; i++)
        codes[i] = (int8_t)(i * 37 % 255 - 127);
    g = kit_graph(op_find);
    const int in = kit_input(g, "x", 2, DIMS(6, 40));
    const int w = kit_constant(g, "w", RUNG_I8, 2, DIMS(9, 40), codes);
    const int dq = kit_node(g, "DequantizeLinear", "dq", 2,
                            IDS(w, kit_constant(g, "s", RUNG_F32, 1, DIMS(9), scales)));
    kit_set_int(g, "axis", 0);
    kit_output(g, kit_node(g, "Gemm", "fc", 2, IDS(in, dq)));
    kit_set_int(g, "transB", 1);
    engine_equals_nodes(g, "packed_int8", 1, sum_bound(40));
    graph_free(g);
}

static void weight_conv_and_table(void **state)
{
    rng r;
    rng_seed(&r, 8);
    for (int bits = 4; bits <= 8; bits += 4) {
        const rung_quant_options opt = { .size = sizeof opt, .weight_bits = bits };
        graph *g = kit_graph(op_find);
        const int x = kit_input(g, "x", 4, DIMS(1, 3, 4, 5));
        const int conv = kit_node(g, "Conv", "c", 2,
                                  IDS(x, kit_random(g, &r, "w", 4, DIMS(4, 3, 1, 1))));
        /* Normal numbers cut to integers: rows of both signs. */
        const int at = kit_node(g, "Cast", "at", 1, IDS(kit_input(g, "i", 1, DIMS(4))));
        kit_set_int(g, "to", RUNG_I64);
        const int table = kit_random(g, &r, "t", 2, DIMS(7, 5));
        const int rows = kit_node(g, "Gather", "g", 2, IDS(table, at));
        const int y = kit_node(g, "Add", "y", 2, IDS(conv, rows)); /* [1,4,4,5] + [4,5] */
        kit_output(g, y);
        graph *q = quantized(g, quantize_weights, &opt);
        assert_int_equal(kit_count(q, "DequantizeLinear"), bits == 8 ? 2 : 1);
        engine_equals_nodes(q, "packed_gather", 1, sum_bound(3));
        graph_free(g);
        graph_free(q);
    }
}

/* A block is never worse than its plain rounding, and a range of zeros, or of what is no number,
 * gives numbers. */
static void blocks_are_fitted(void **state)
{
    static const dtype types[] = { RUNG_I4, RUNG_U4, RUNG_I8, RUNG_U8 };
    rng r;
    rng_seed(&r, 9);
    for (size_t t = 0; t < sizeof types / sizeof *types; t++)
        for (int i = 0; i < 200; i++) {
            float x[64], scale;
            int8_t q[64];
            int zero;
            const size_t n = 1 + rng_below(&r, 64);
            for (size_t k = 0; k < n; k++)
                x[k] = i % 5 == 0 ? 0 : (float)(rng_normal(&r) * (k % 7 == 0 ? 4 : 1));
            x[0] = i % 11 == 0 ? NAN : i % 13 == 0 ? INFINITY : i % 17 == 0 ? FLT_MAX : x[0];
            const block_format plain = block_format_of(types[t], false);
            const block_format fitted = block_format_of(types[t], true);
            const double a = block_quantize(x, n, 1, &plain, &scale, &zero, q);
            const double b = block_quantize(x, n, 1, &fitted, &scale, &zero, q);
            assert_true(b <= a);
            assert_true(isfinite(scale) && scale > 0);
            assert_in_range(zero + 1000, 1000 + plain.lo, 1000 + plain.hi);
        }
}

/* --- hostile models --------------------------------------------------------------------------- */

/* DequantizeLinear(int4 [k, n], scales of these dims) -> MatMul. */
static rung_status run_blocked(int64_t k, int64_t n, int s_rank, const int64_t *s_dims,
                               int64_t axis, int64_t block)
{
    static const uint8_t zeros[4096];
    const engine_options opt = { .n_threads = 1 };
    engine *e = NULL;
    rung_error why;
    graph *g = kit_graph(op_find);
    assert_ok(graph_set_opset(g, "", 21, err));
    const int x = kit_input(g, "x", 2, DIMS(3, k));
    const int w = kit_constant(g, "w", RUNG_I4, 2, DIMS(k, n), zeros);
    const int s = kit_constant(g, "s", RUNG_F32, s_rank, s_dims, zeros);
    const int dq = kit_node(g, "DequantizeLinear", "dq", 2, IDS(w, s));
    kit_set_int(g, "axis", axis);
    if (block)
        kit_set_int(g, "block_size", block);
    kit_output(g, kit_node(g, "MatMul", "m", 2, IDS(x, dq)));
    rung_status st = engine_create(g, &opt, &e, &why);
    if (st == RUNG_OK)
        st = engine_run(e, &why);
    engine_free(e);
    graph_free(g);
    return st;
}

static void nonsense_is_refused(void **state)
{
    assert_int_equal(run_blocked(5, 7, 2, DIMS(3, 7), 0, 2), RUNG_OK); /* odd counts */
    assert_int_equal(run_blocked(5, 7, 2, DIMS(5, 4), 1, 2), RUNG_OK); /* along n: unpacked */
    assert_int_equal(run_blocked(5, 7, 1, DIMS(5), 0, 0), RUNG_OK);    /* per row of k */
    assert_int_equal(run_blocked(5, 7, 2, DIMS(2, 7), 0, 2), RUNG_EMODEL);
    assert_int_equal(run_blocked(5, 7, 2, DIMS(3, 6), 0, 2), RUNG_EMODEL);
    assert_int_equal(run_blocked(5, 7, 1, DIMS(3), 0, 2), RUNG_EMODEL);
    assert_int_equal(run_blocked(5, 7, 2, DIMS(3, 7), 2, 2), RUNG_EMODEL);
    assert_int_equal(run_blocked(5, 7, 2, DIMS(3, 7), 0, -2), RUNG_EMODEL);
    assert_int_equal(run_blocked(5, 7, 2, DIMS(1, 7), 0, INT64_MAX), RUNG_OK);
    assert_int_equal(run_blocked(5, 7, 2, DIMS(1, 7), 0, INT64_MIN), RUNG_EMODEL);
}

/* The index of a gather is data: out of range it stops the run with a sentence. */
static void an_index_out_of_range(void **state)
{
    static const int8_t codes[12];
    const float one = 1;
    const engine_options opt = { .n_threads = 1 };
    engine *e;
    graph *g = kit_graph(op_find);
    const int at = graph_add_value(g, "at", RUNG_I64, 1, DIMS(2));
    assert_ok(graph_mark_input(g, at, err));
    const int w = kit_constant(g, "w", RUNG_I8, 2, DIMS(4, 3), codes);
    const int dq = kit_node(g, "DequantizeLinear", "dq", 2,
                            IDS(w, kit_constant(g, "s", RUNG_F32, 0, NULL, &one)));
    kit_output(g, kit_node(g, "Gather", "g", 2, IDS(dq, at)));
    assert_ok(engine_create(g, &opt, &e, err));
    int64_t *index = engine_input(e, 0)->data;
    index[0] = 3, index[1] = -4;
    assert_ok(engine_run(e, err));
    index[1] = 4;
    assert_fails(engine_run(e, err), RUNG_EMODEL, "index 4");
    index[1] = INT64_MIN;
    assert_fails(engine_run(e, err), RUNG_EMODEL, "index");
    engine_free(e);
    graph_free(g);
}

/* --- memory ----------------------------------------------------------------------------------- */

static void memory_may_be_out(void **state)
{
    const rung_quant_options four = { .size = sizeof four, .weight_bits = 4,
                                      .weight_asymmetric = true };
    const rung_quant_options plain = RUNG_QUANT_OPTIONS;
    const engine_options opt = { .n_threads = 1 };
    rng r;
    rng_seed(&r, 10);
    graph *g = two_products(&r, 6, 5);
    for (int mode = 0; mode < 2; mode++) {
        bool done = false;
        for (long n = 0; !done && n < 4000; n++) {
            graph *q = NULL;
            engine *e = NULL;
            rung_error err = { "" };
            mem_fail_after(n);
            rung_status st = mode ? quantize_weights(g, NULL, &four, &q, NULL, &err)
                                  : quantize_dynamic(g, NULL, &plain, &q, NULL, &err);
            assert_true((st == RUNG_OK) == (q != NULL));
            if (st == RUNG_OK)
                st = engine_create(q, &opt, &e, &err);
            mem_fail_after(-1);
            done = st == RUNG_OK;
            if (!done && (st != RUNG_EMEMORY || !err.message[0]))
                fail_msg("allocation %ld: status %d, '%s'", n, (int)st, err.message);
            engine_free(e);
            graph_free(q);
        }
        assert_true(done);
    }
    graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dynamic_products),
        cmocka_unit_test(dynamic_gemm),
        cmocka_unit_test(dynamic_conv),
        cmocka_unit_test(dynamic_odd_inputs),
        cmocka_unit_test(names_choose),
        cmocka_unit_test(shared_weights_stay_shared),
        cmocka_unit_test(weight_products),
        cmocka_unit_test(weight_gemm),
        cmocka_unit_test(weight_conv_and_table),
        cmocka_unit_test(blocks_are_fitted),
        cmocka_unit_test(nonsense_is_refused),
        cmocka_unit_test(an_index_out_of_range),
        cmocka_unit_test(memory_may_be_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
