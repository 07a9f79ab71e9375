/* Methods for matrices: GPTQ in blocks, AWQ and HQQ lower the errors they are about, SmoothQuant
 * and its folding keep the function, products of dequantized operands run as integer steps. */
#include "graph_kit.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "data/npy.h"
#include "engine/engine.h"
#include "graph/pass.h"
#include "graph/rewrite.h"
#include "ops/ops.h"
#include "quant/quant.h"
#include "quant/rounding.h"

/* --- samples made by hand --------------------------------------------------------------------- */

enum { BATCHES = 8, ROWS = 32 };

/* BATCHES samples of [ROWS][k] for the only input, one a batch: channel i is `size(i)` times a
 * normal number, and leans on its neighbour, so that the inputs' errors can make up for one
 * another. They go through a file, as a user's do. */
static samples make_samples(const graph *g, rng *r, int64_t k, float (*size)(int64_t i))
{
    const rung_quant_options opt = { .size = sizeof opt, .batch = 1, .n_threads = 2 };
    const dataset_options plain = { 0 };
    char path[] = "/tmp/rung-weights-XXXXXX.npy", spec[64];
    const int64_t n = BATCHES * ROWS * k;
    float *x = mem_alloc((size_t)n * sizeof *x);
    samples s;
    dataset *data;
    assert_non_null(x);
    for (int64_t i = 0; i < n; i++) {
        const float lean = i % k ? 0.8f * x[i - 1] / size(i % k - 1) : 0;
        x[i] = size(i % k) * (rng_normal(r) + lean);
    }
    const rung_tensor t = { RUNG_F32, 3, { BATCHES, ROWS, k }, x };
    const int file = mkstemps(path, 4);
    assert_true(file >= 0);
    close(file);
    assert_ok(npy_write_file(path, &t, err));
    snprintf(spec, sizeof spec, "npy:%s", path);
    assert_ok(dataset_open(spec, &plain, &data, err));
    assert_ok(samples_load(g, data, &opt, &s, err));
    assert_int_equal(s.n, BATCHES);
    dataset_free(data);
    unlink(path);
    mem_free(x);
    return s;
}

static float even(int64_t i)
{
    return 1;
}

/* A few channels of 30 times the size of the others. */
static float outliers(int64_t i)
{
    return i % 16 == 3 ? 30 : 1;
}

static bool *all_nodes(const graph *g, arena *mem)
{
    bool *wanted = arena_zero(mem, g->n_nodes + 1, sizeof *wanted);
    for (size_t i = 0; i < g->n_nodes; i++)
        wanted[i] = true;
    return wanted;
}

/* x [1,ROWS,k] -> MatMul -> y. */
static graph *one_product(rng *r, int64_t k, int64_t n)
{
    graph *g = kit_graph(op_find);
    const int x = kit_input(g, "x", 3, DIMS(1, ROWS, k));
    kit_output(g, kit_node(g, "MatMul", "m", 2, IDS(x, kit_random(g, r, "w", 2, DIMS(k, n)))));
    assert_ok(graph_sort(g, err));
    return g;
}

static bool said(const diagnostics *d, const char *code, const char *words)
{
    for (size_t i = 0; i < d->n; i++)
        if (!strcmp(d->list[i].code, code) && strstr(d->list[i].message, words))
            return true;
    return false;
}

/* --- rounding --------------------------------------------------------------------------------- */

static double matrix_error(const tensor *w, const matrix_format *m, const block_codes *c,
                           const float *h)
{
    float *d = mem_alloc(m->in * m->out * sizeof *d);
    assert_non_null(d);
    block_codes_change(w->data, m, c, d);
    const double e = moments_error(h, d, m->in, m->out, 1);
    mem_free(d);
    return e;
}

static void gptq_lowers_the_error(void **state)
{
    static const dtype types[] = { RUNG_I4, RUNG_U4, RUNG_I8, RUNG_U8 };
    rng r;
    rng_seed(&r, 1);
    for (size_t t = 0; t < sizeof types / sizeof *types; t++)
        for (size_t block = 16; block <= 256; block *= 4) { /* the last: over the end */
            arena *mem = arena_new();
            graph *g = one_product(&r, 72, 20);
            samples s = make_samples(g, &r, 72, even);
            value_info *info = arena_zero(mem, g->n_values, sizeof *info);
            assert_ok(graph_infer(g, NULL, mem, info, err));
            product_group *p;
            size_t n;
            group_rows rows;
            assert_ok(groups_find(g, info, all_nodes(g, mem), mem, &p, &n, err));
            assert_int_equal(n, 1);
            assert_ok(group_collect(g, p, &s, 4096, 7, mem, &rows, err));
            assert_int_equal(rows.n, BATCHES * ROWS);
            assert_int_equal(rows.n_fit, (BATCHES - 2) * ROWS);
            const float *h = rows_moments(&rows, 0, rows.n_fit, 1, mem);
            const float *check = rows_moments(&rows, rows.n_fit, rows.n, 1, mem);
            const tensor *w = group_weight(g, p, p->ws[0], mem);
            const matrix_format m = { 72, 20, block, block_format_of(types[t], true) };
            block_codes nearest, c;
            double before, after;
            assert_true(block_codes_new(mem, &m, &nearest) && block_codes_new(mem, &m, &c));
            assert_true(block_codes_nearest(w, &m, &nearest));
            assert_ok(gptq_matrix(w, &m, h, check, 2, &c, &before, &after, err));
            assert_true(after < before);
            /* What is said is what the codes do, to the roundings of sums in float. */
            assert_true(fabs(matrix_error(w, &m, &nearest, check) - before) <= 1e-3 * before);
            assert_true(fabs(matrix_error(w, &m, &c, check) - after) <= 1e-3 * after);
            samples_free(&s);
            graph_free(g);
            arena_free(mem);
        }
}

/* Blocks with a few weights far from the others, as HQQ is made for. */
static void hqq_lowers_the_error(void **state)
{
    static const dtype types[] = { RUNG_I4, RUNG_U4 };
    rng r;
    rng_seed(&r, 2);
    for (size_t t = 0; t < 2; t++) {
        double by_range = 0, alone = 0, search = 0, both = 0;
        for (int trial = 0; trial < 200; trial++) {
            float x[32], scale;
            int zero;
            int8_t q[32];
            block_format f = block_format_of(types[t], false);
            for (int i = 0; i < 32; i++)
                x[i] = rng_normal(&r) * (i % 16 == 5 ? 3 : 1) + 0.2f;
            const double plain = block_quantize(x, 32, 1, &f, &scale, &zero, q);
            f.half_quadratic = true;
            const double hqq = block_quantize(x, 32, 1, &f, &scale, &zero, q);
            f = block_format_of(types[t], true);
            const double searched = block_quantize(x, 32, 1, &f, &scale, &zero, q);
            f.half_quadratic = true;
            const double better = block_quantize(x, 32, 1, &f, &scale, &zero, q);
            assert_true(hqq <= plain && better <= searched);
            by_range += plain;
            alone += hqq;
            search += searched;
            both += better;
        }
        print_message("squared error of 6400 weights of %s: by range %.1f, HQQ %.1f, search %.1f, "
                      "both %.1f\n", dtype_name(types[t]), by_range, alone, search, both);
        assert_true(alone < by_range && search < alone && both < search);
    }
}

static void awq_lowers_the_error(void **state)
{
    const rung_quant_options opt = { .size = sizeof opt, .quiet = true };
    arena *mem = arena_new();
    diagnostics *diag = diagnostics_new();
    rng r;
    rng_seed(&r, 3);
    graph *g = one_product(&r, 64, 48), *before = NULL, *q[2];
    samples s = make_samples(g, &r, 64, outliers);
    size_t n;
    assert_ok(graph_clone(g, &before, err));
    assert_ok(methods_awq(g, &s, &opt, all_nodes(g, mem), RUNG_I4, 16, diag, &n, err));
    assert_int_equal(n, 1);
    assert_true(said(diag, "method", "awq"));
    kit_same_function(before, g, 4, 1e-5);
    const rung_quant_options four = { .size = sizeof four, .weight_bits = 4, .block = 16 };
    double db[2];
    assert_ok(quantize_weights(before, NULL, &four, &q[0], NULL, err));
    assert_ok(quantize_weights(g, NULL, &four, &q[1], NULL, err));
    for (int i = 0; i < 2; i++)
        assert_ok(samples_sqnr(&s, before, q[i], &db[i], err));
    print_message("int4 on a layer with outliers: %.2f dB, with AWQ %.2f dB\n", db[0], db[1]);
    assert_true(db[1] > db[0]);
    for (int i = 0; i < 2; i++)
        graph_free(q[i]);
    samples_free(&s);
    graph_free(before);
    graph_free(g);
    diagnostics_free(diag);
    arena_free(mem);
}

/* --- factors ---------------------------------------------------------------------------------- */

/* A layer normalization in its nodes; returns the output. */
static int decomposed_norm(graph *g, rng *r, int x, int64_t k)
{
    const float two = 2, eps = 1e-5f;
    const int mean = kit_node(g, "ReduceMean", "mean", 1, IDS(x));
    kit_set_ints(g, "axes", 1, DIMS(-1));
    const int d = kit_node(g, "Sub", "d", 2, IDS(x, mean));
    const int p = kit_constant(g, "two", RUNG_F32, 0, NULL, &two);
    const int e = kit_constant(g, "eps", RUNG_F32, 0, NULL, &eps);
    const int square = kit_node(g, "Pow", "square", 2, IDS(d, p));
    const int variance = kit_node(g, "ReduceMean", "variance", 1, IDS(square));
    kit_set_ints(g, "axes", 1, DIMS(-1));
    const int sum = kit_node(g, "Add", "sum", 2, IDS(variance, e));
    const int root = kit_node(g, "Sqrt", "root", 1, IDS(sum));
    const int unit = kit_node(g, "Div", "unit", 2, IDS(d, root));
    const int scaled = kit_node(g, "Mul", "scaled", 2, IDS(unit, kit_positive(g, r, "gain", k)));
    return kit_node(g, "Add", "norm", 2, IDS(scaled, kit_random(g, r, "shift", 1, DIMS(k))));
}

enum { NORM, GELU_HALF, PRODUCT, RELU, RESIDUAL, N_FORMS_OF_X };

/* What makes x of the product; RESIDUAL: somebody else reads it too. */
static int make_x(graph *g, rng *r, int form, int in, int64_t k, int *other)
{
    const float half = 0.5f;
    const int w = kit_random(g, r, "w0", 2, DIMS(k, k)), b = kit_random(g, r, "b0", 1, DIMS(k));
    *other = -1;
    if (form == NORM)
        return decomposed_norm(g, r, in, k);
    if (form == GELU_HALF)
        return kit_node(g, "Mul", "half", 2,
                        IDS(in, kit_constant(g, "0.5", RUNG_F32, 0, NULL, &half)));
    const int y = kit_node(g, "Add", "biased", 2,
                           IDS(kit_node(g, "MatMul", "before", 2, IDS(in, w)), b));
    if (form == RELU)
        return kit_node(g, "Relu", "relu", 1, IDS(y));
    if (form == RESIDUAL)
        *other = kit_node(g, "Sigmoid", "other", 1, IDS(y));
    return y;
}

static void factors_keep_the_function(void **state)
{
    rng r;
    rng_seed(&r, 5);
    for (int form = 0; form < N_FORMS_OF_X; form++) {
        arena *mem = arena_new();
        graph *g = kit_graph(op_find), *before = NULL;
        int other;
        size_t n_muls = 0, n_groups;
        float f[24];
        const int in = kit_input(g, "x", 3, DIMS(1, ROWS, 24));
        const int x = make_x(g, &r, form, in, 24, &other);
        const int w = kit_random(g, &r, "w", 2, DIMS(24, 10));
        const int wide = kit_random(g, &r, "v", 2, DIMS(24, 7));
        kit_output(g, kit_node(g, "MatMul", "m", 2, IDS(x, w)));
        kit_output(g, kit_node(g, "MatMul", "m2", 2, IDS(x, wide)));
        if (other >= 0)
            kit_output(g, other);
        assert_ok(graph_sort(g, err));
        assert_ok(graph_clone(g, &before, err));
        value_info *info = arena_zero(mem, g->n_values, sizeof *info);
        assert_ok(graph_infer(g, NULL, mem, info, err));
        product_group *p, *last = NULL;
        assert_ok(groups_find(g, info, all_nodes(g, mem), mem, &p, &n_groups, err));
        for (size_t i = 0; i < n_groups; i++)
            last = p[i].n_nodes == 2 ? &p[i] : last;
        assert_non_null(last); /* m and m2 read one x: one group */
        assert_int_equal(last->n_xs, 1);
        uses u;
        assert_ok(graph_uses(g, mem, &u, err));
        for (int i = 0; i < 24; i++)
            f[i] = expf(rng_normal(&r));
        assert_int_equal(rescale_folds(g, &u, last), form != RESIDUAL);
        assert_ok(rescale_apply(g, &u, last, f, &n_muls, err));
        assert_int_equal(n_muls, form == RESIDUAL);
        assert_ok(graph_sort(g, err));
        assert_ok(graph_verify(g, err));
        assert_memory_not_equal(g->values[w].constant->data, before->values[w].constant->data,
                                sizeof f);
        kit_same_function(before, g, 6, 1e-5);
        graph_free(before);
        graph_free(g);
        arena_free(mem);
    }
}

/* x -> Mul by 1 -> MatMul on inputs with outliers: a factor folds, and 8 bits lose less. */
static void smooth_helps(void **state)
{
    const rung_quant_options opt = { .size = sizeof opt, .quiet = true, .n_threads = 1 };
    arena *mem = arena_new();
    diagnostics *diag = diagnostics_new();
    rng r;
    rng_seed(&r, 7);
    const float one = 1;
    graph *g = kit_graph(op_find), *before = NULL, *q[2];
    const int in = kit_input(g, "x", 3, DIMS(1, ROWS, 64));
    const int x = kit_node(g, "Mul", "one", 2, IDS(in, kit_constant(g, "1", RUNG_F32, 0, NULL,
                                                                     &one)));
    kit_output(g, kit_node(g, "MatMul", "m", 2, IDS(x, kit_random(g, &r, "w", 2, DIMS(64, 40)))));
    assert_ok(graph_sort(g, err));
    assert_ok(graph_clone(g, &before, err));
    samples s = make_samples(g, &r, 64, outliers);
    size_t n;
    assert_ok(methods_smooth(&g, &s, &opt, all_nodes(g, mem), false, diag, &n, err));
    assert_int_equal(n, 1);
    assert_int_equal(kit_count(g, "Mul"), 1);
    assert_true(said(diag, "method", "smooth"));
    kit_same_function(before, g, 8, 1e-5);
    double db[2];
    assert_ok(quantize_dynamic(before, NULL, &opt, &q[0], NULL, err));
    assert_ok(quantize_dynamic(g, NULL, &opt, &q[1], NULL, err));
    for (int i = 0; i < 2; i++)
        assert_ok(samples_sqnr(&s, before, q[i], &db[i], err));
    print_message("dynamic on a layer with outliers: %.2f dB, smoothed %.2f dB\n", db[0], db[1]);
    assert_true(db[1] > db[0]);
    for (int i = 0; i < 2; i++)
        graph_free(q[i]);
    samples_free(&s);
    graph_free(before);
    graph_free(g);
    diagnostics_free(diag);
    arena_free(mem);
}

/* A weight that somebody else reads as well is in no group. */
static void tied_weights_stay(void **state)
{
    arena *mem = arena_new();
    rng r;
    rng_seed(&r, 9);
    graph *g = one_product(&r, 8, 8);
    const int w = kit_find(g, "w");
    kit_output(g, kit_node(g, "Sigmoid", "other", 1, IDS(w)));
    assert_ok(graph_sort(g, err));
    value_info *info = arena_zero(mem, g->n_values, sizeof *info);
    product_group *p;
    size_t n;
    assert_ok(graph_infer(g, NULL, mem, info, err));
    assert_ok(groups_find(g, info, all_nodes(g, mem), mem, &p, &n, err));
    assert_int_equal(n, 0);
    graph_free(g);
    arena_free(mem);
}

/* --- products of dequantized operands --------------------------------------------------------- */

static int scalar(graph *g, const char *name, dtype type, const void *v)
{
    return kit_constant(g, name, type, 0, NULL, v);
}

static int pair(graph *g, int x, dtype type, int zero)
{
    const float scale = 0.03f;
    const uint8_t z = (uint8_t)zero;
    const int s = scalar(g, "x_scale", RUNG_F32, &scale), at = scalar(g, "x_zero", type, &z);
    const int q = kit_node(g, "QuantizeLinear", "q", 3, IDS(x, s, at));
    return kit_node(g, "DequantizeLinear", "dq", 3, IDS(q, s, at));
}

/* int8 [rows][columns] behind a DequantizeLinear along axis. */
static int weight(graph *g, rng *r, int64_t rows, int64_t columns, int axis)
{
    int8_t codes[40 * 40];
    float scales[40];
    for (int64_t i = 0; i < rows * columns; i++)
        codes[i] = (int8_t)((int)rng_below(r, 255) - 127);
    for (int i = 0; i < 40; i++)
        scales[i] = 0.001f + 0.01f * (float)rng_uniform(r);
    const int q = kit_constant(g, "w", RUNG_I8, 2, DIMS(rows, columns), codes);
    const int64_t n = axis ? columns : rows;
    const int s = kit_constant(g, "w_scale", RUNG_F32, 1, DIMS(n), scales);
    const int dq = kit_node(g, "DequantizeLinear", "wdq", 2, IDS(q, s));
    kit_set_int(g, "axis", axis);
    return dq;
}

/* The integer sum is exact: what differs is the rounding of k products and sums in float. */
static void runs_as_integers(graph *g, int k, int products)
{
    arena *mem = arena_new();
    const engine_options opt = { .n_threads = 2 };
    engine *e;
    rng r;
    const tensor *want = kit_run(g, 5, mem)[0];
    int integer = 0;
    double largest = 0;
    assert_ok(engine_create(g, &opt, &e, err));
    rng_seed(&r, 5);
    for (size_t i = 0; i < tensor_count(engine_input(e, 0)); i++)
        ((float *)engine_input(e, 0)->data)[i] = rng_normal(&r);
    assert_ok(engine_run(e, err));
    for (size_t i = 0; i < engine_n_steps(e); i++)
        integer += !strncmp(engine_step(e, i).kernel, "product_u8s8", 12);
    assert_int_equal(integer, products);
    for (size_t i = 0; i < tensor_count(want); i++)
        largest = fmax(largest, fabs(tensor_get(want, i)));
    for (size_t i = 0; i < tensor_count(want); i++)
        assert_true(fabs(tensor_get(engine_output(e, 0), i) - tensor_get(want, i)) <=
                    4 * k * FLT_EPSILON * (1 + largest));
    engine_free(e);
    graph_free(g);
    arena_free(mem);
}

static void dequantized_matmul(void **state)
{
    static const dtype types[] = { RUNG_U8, RUNG_I8 };
    rng r;
    rng_seed(&r, 10);
    for (int t = 0; t < 2; t++)
        for (int bias = 0; bias < 2; bias++) {
            graph *g = kit_graph(op_find);
            const int x = pair(g, kit_input(g, "x", 3, DIMS(2, 5, 33)), types[t], t ? -7 : 120);
            int y = kit_node(g, "MatMul", "m", 2, IDS(x, weight(g, &r, 33, 17, 1)));
            if (bias)
                y = kit_node(g, "Add", "b", 2, IDS(kit_random(g, &r, "c", 1, DIMS(17)), y));
            kit_output(g, kit_node(g, "Erf", "float", 1, IDS(y)));
            assert_ok(graph_sort(g, err));
            runs_as_integers(g, 33, 1);
        }
}

static void dequantized_gemm(void **state)
{
    rng r;
    rng_seed(&r, 11);
    for (int64_t transposed = 0; transposed < 2; transposed++)
        for (int bias = 0; bias < 3; bias++) { /* none, int32 codes, float */
            int32_t codes[12];
            const float scale = 0.002f;
            for (int i = 0; i < 12; i++)
                codes[i] = (int32_t)rng_below(&r, 2000) - 1000;
            graph *g = kit_graph(op_find);
            const int x = pair(g, kit_input(g, "x", 2, DIMS(6, 20)), RUNG_U8, 128);
            const int w = transposed ? weight(g, &r, 12, 20, 0) : weight(g, &r, 20, 12, 1);
            const int b = kit_constant(g, "b", RUNG_I32, 1, DIMS(12), codes);
            int c = kit_random(g, &r, "c", 1, DIMS(12));
            if (bias == 1)
                c = kit_node(g, "DequantizeLinear", "bdq", 2,
                             IDS(b, scalar(g, "b_scale", RUNG_F32, &scale)));
            kit_output(g, kit_node(g, "Gemm", "fc", bias ? 3 : 2, IDS(x, w, c)));
            kit_set_int(g, "transB", transposed);
            assert_ok(graph_sort(g, err));
            runs_as_integers(g, 20, 1);
        }
}

/* Scales along the summed axis are no integer product: it runs in float. */
static void other_axis_stays_float(void **state)
{
    rng r;
    rng_seed(&r, 12);
    graph *g = kit_graph(op_find);
    const int x = pair(g, kit_input(g, "x", 2, DIMS(6, 20)), RUNG_U8, 128);
    kit_output(g, kit_node(g, "MatMul", "m", 2, IDS(x, weight(g, &r, 20, 12, 0))));
    assert_ok(graph_sort(g, err));
    runs_as_integers(g, 20, 0);
}

/* --- memory ----------------------------------------------------------------------------------- */

enum { SMOOTH, AWQ, GPTQ, N_METHODS };

static rung_status run_method(int which, graph **g, const samples *s, arena *mem, rung_error *err)
{
    const rung_quant_options opt = { .size = sizeof opt, .quiet = true };
    static const bool wanted[2] = { true, true };
    block_codes rounded[8] = { { NULL, NULL, NULL } };
    size_t n;
    if (which == SMOOTH)
        return methods_smooth(g, s, &opt, wanted, true, NULL, &n, err);
    if (which == AWQ)
        return methods_awq(*g, s, &opt, wanted, RUNG_I4, 16, NULL, &n, err);
    return methods_gptq_blocks(*g, s, &opt, wanted, RUNG_I4, 16, mem, rounded, NULL, err);
}

static void memory_may_be_out(void **state)
{
    rng r;
    rng_seed(&r, 13);
    graph *g = one_product(&r, 16, 4);
    samples s = make_samples(g, &r, 16, outliers);
    s.n_threads = 1;
    assert_true(g->n_nodes <= 2 && g->n_values <= 8);
    for (int which = 0; which < N_METHODS; which++) {
        bool done = false;
        for (long n = 0; !done && n < 6000; n++) {
            arena *mem = arena_new();
            graph *copy = NULL;
            rung_error why = { "" };
            assert_ok(graph_clone(g, &copy, err));
            mem_fail_after(n);
            const rung_status st = run_method(which, &copy, &s, mem, &why);
            mem_fail_after(-1);
            done = st == RUNG_OK;
            if (!done && (st != RUNG_EMEMORY || !why.message[0]))
                fail_msg("method %d, allocation %ld: status %d, '%s'", which, n, (int)st,
                         why.message);
            graph_free(copy);
            arena_free(mem);
        }
        assert_true(done);
    }
    samples_free(&s);
    graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gptq_lowers_the_error),
        cmocka_unit_test(hqq_lowers_the_error),
        cmocka_unit_test(awq_lowers_the_error),
        cmocka_unit_test(factors_keep_the_function),
        cmocka_unit_test(smooth_helps),
        cmocka_unit_test(tied_weights_stay),
        cmocka_unit_test(dequantized_matmul),
        cmocka_unit_test(dequantized_gemm),
        cmocka_unit_test(other_axis_stays_float),
        cmocka_unit_test(memory_may_be_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
