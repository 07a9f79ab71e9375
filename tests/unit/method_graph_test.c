/* Methods on whole small graphs: equalization keeps the function, what hurts is undone, and the
 * bytes do not depend on threads. */
#include "data_files.h"
#include "graph_kit.h"
#include "samples_kit.h"

#include <math.h>

#include "base/mem.h"
#include "data/npy.h"
#include "graph/rewrite.h"
#include "ops/ops.h"
#include "quant/method.h"

enum { SAMPLES = 40, CHANNELS = 4, SIDE = 6, SAMPLE = CHANNELS * SIDE * SIDE };

static dataset *open_data(void)
{
    static float x[SAMPLES * SAMPLE];
    const rung_tensor all = { RUNG_F32, 4, { SAMPLES, CHANNELS, SIDE, SIDE }, x };
    rng r;
    rng_seed(&r, 5);
    for (size_t i = 0; i < SAMPLES * SAMPLE; i++)
        x[i] = rng_normal(&r);
    return samples_open(&all);
}

/* out channels of very different size: what equalization is for. */
static int conv(graph *g, rng *r, int x, int64_t in, int64_t out, int64_t side, int64_t group)
{
    float w[8 * 8 * 9], b[8];
    const int64_t per = in / group * side * side;
    for (int64_t o = 0; o < out; o++) {
        const float size = powf(2, (float)(o % 5) - 3);
        for (int64_t i = 0; i < per; i++)
            w[o * per + i] = size * rng_normal(r) / sqrtf((float)per);
        b[o] = size * 0.3f * rng_normal(r);
    }
    const int wi = kit_constant(g, "w", RUNG_F32, 4, DIMS(out, in / group, side, side), w);
    const int bi = kit_constant(g, "b", RUNG_F32, 1, DIMS(out), b);
    const int y = kit_node(g, "Conv", "", 3, IDS(x, wi, bi));
    if (side > 1)
        kit_set_ints(g, "pads", 4, DIMS(1, 1, 1, 1));
    if (group > 1)
        kit_set_int(g, "group", group);
    return y;
}

static int relu6(graph *g, int x)
{
    const float lo = 0, hi = 6;
    const int l = kit_constant(g, "lo", RUNG_F32, 0, NULL, &lo);
    const int h = kit_constant(g, "hi", RUNG_F32, 0, NULL, &hi);
    return kit_node(g, "Clip", "", 3, IDS(x, l, h));
}

/* Two inverted residuals, a Concat, a pool and a classifier. */
static graph *network(void)
{
    graph *g = kit_graph(op_find);
    rng r;
    rng_seed(&r, 11);
    const int x = kit_input(g, "x", 4, DIMS(-1, CHANNELS, SIDE, SIDE));
    const int a = kit_node(g, "Relu", "", 1, IDS(conv(g, &r, x, 4, 8, 3, 1)));
    const int d = relu6(g, conv(g, &r, relu6(g, conv(g, &r, a, 8, 8, 1, 1)), 8, 8, 3, 8));
    const int s = kit_node(g, "Add", "", 2, IDS(conv(g, &r, d, 8, 8, 1, 1), a));
    const int cat = kit_node(g, "Concat", "", 2, IDS(s, conv(g, &r, s, 8, 8, 1, 1)));
    kit_set_int(g, "axis", 1);
    const int pool = kit_node(g, "GlobalAveragePool", "", 1, IDS(cat));
    const int flat = kit_node(g, "Flatten", "", 1, IDS(pool));
    const int w = kit_random(g, &r, "wg", 2, DIMS(16, 5)), b = kit_random(g, &r, "bg", 1, DIMS(5));
    kit_output(g, kit_node(g, "Gemm", "", 3, IDS(flat, w, b)));
    assert_ok(graph_sort(g, err));
    return g;
}

static rung_quant_options options(unsigned methods)
{
    rung_quant_options opt = RUNG_QUANT_OPTIONS;
    opt.methods = methods;
    opt.quiet = true;
    opt.n_threads = 1;
    return opt;
}

static void check_equalized(bool per_tensor)
{
    graph *g = network(), *equal = NULL;
    dataset *d = open_data();
    rung_quant_options opt = options(RUNG_METHOD_EQUALIZE);
    samples s;
    size_t changed = 0;
    double db = 0;
    opt.per_tensor = per_tensor;
    assert_ok(rewrite_prepare(g, err));
    assert_ok(split_roles(g, err));
    assert_ok(graph_clone(g, &equal, err));
    assert_ok(samples_load(g, d, &opt, &s, err));
    s.n_threads = 1;
    assert_ok(methods_equalize(equal, &s, &opt, &changed, NULL, err));
    assert_true(changed > 0);
    assert_ok(graph_verify(equal, err));
    assert_ok(samples_sqnr(&s, g, equal, &db, err)); /* of two float graphs: rounding of float32 */
    assert_true(db > 100);
    samples_free(&s);
    dataset_free(d);
    graph_free(equal);
    graph_free(g);
}

static void equalized_graphs_compute_the_same(void **state)
{
    (void)state;
    check_equalized(false);
    check_equalized(true);
}

/* --- whole quantizations ---------------------------------------------------------------------- */

static graph *quantized(const rung_quant_options *opt, double *db, diagnostics *diag)
{
    graph *g = network(), *q = NULL;
    dataset *d = open_data();
    samples s;
    assert_ok(quantize_static(g, d, opt, &q, diag, err));
    assert_ok(samples_load(g, d, opt, &s, err));
    s.n_threads = 1;
    assert_ok(samples_sqnr(&s, g, q, db, err));
    samples_free(&s);
    dataset_free(d);
    graph_free(g);
    return q;
}

static void same_constants(const graph *a, const graph *b)
{
    assert_int_equal(a->n_values, b->n_values);
    for (size_t v = 0; v < a->n_values; v++) {
        const tensor *s = a->values[v].constant, *t = b->values[v].constant;
        assert_true(!s == !t);
        if (s)
            assert_memory_equal(s->data, t->data, rung_tensor_bytes(s));
    }
}

static void auto_is_better_than_none(void **state)
{
    const rung_quant_options none = options(RUNG_METHOD_NONE), best = options(RUNG_METHOD_AUTO);
    double before, after;
    (void)state;
    graph_free(quantized(&none, &before, NULL));
    graph_free(quantized(&best, &after, NULL));
    assert_true(after > before + 1);
}

static void bytes_do_not_depend_on_threads(void **state)
{
    rung_quant_options opt = options(RUNG_METHOD_EQUALIZE | RUNG_METHOD_BIAS | RUNG_METHOD_CLIP |
                                     RUNG_METHOD_GPTQ | RUNG_METHOD_ADAROUND);
    double db;
    (void)state;
    graph *one = quantized(&opt, &db, NULL);
    opt.n_threads = 2;
    graph *two = quantized(&opt, &db, NULL);
    same_constants(one, two);
    graph_free(one);
    graph_free(two);
}

static void few_bits_are_kept(void **state)
{
    rung_quant_options opt = options(RUNG_METHOD_AUTO);
    double db;
    size_t n = 0;
    (void)state;
    opt.weight_bits = 4;
    graph *q = quantized(&opt, &db, NULL);
    for (size_t v = 0; v < q->n_values; v++) {
        const tensor *t = q->values[v].constant;
        if (!t || t->type != RUNG_I8 || t->rank < 2)
            continue;
        n++;
        for (size_t i = 0; i < tensor_count(t); i++)
            assert_in_range(((const int8_t *)t->data)[i] + 7, 0, 14);
    }
    assert_int_equal(n, 6);
    graph_free(q);
}

/* Weights and activations that int8 holds exactly: every method can only do harm, and says so. */
static void harm_is_undone(void **state)
{
    graph *g = kit_graph(op_find), *plain = NULL, *tried = NULL;
    static float x[SAMPLES * SAMPLE];
    const rung_tensor all = { RUNG_F32, 4, { SAMPLES, CHANNELS, SIDE, SIDE }, x };
    const dataset_options data_opt = { .n_workers = 1 };
    rung_quant_options opt = options(RUNG_METHOD_NONE);
    diagnostics *diag = diagnostics_new();
    dataset *d;
    float w[CHANNELS * CHANNELS] = { 0 };
    (void)state;
    opt.range = RUNG_RANGE_MINMAX;
    for (int i = 0; i < CHANNELS; i++)
        w[i * CHANNELS + i] = 127;
    for (size_t i = 0; i < SAMPLES * SAMPLE; i++)
        x[i] = (float)(i * 37 % 256);
    const int in = kit_input(g, "x", 4, DIMS(-1, CHANNELS, SIDE, SIDE));
    const int wi = kit_constant(g, "w", RUNG_F32, 4, DIMS(CHANNELS, CHANNELS, 1, 1), w);
    kit_output(g, kit_node(g, "Conv", "c", 2, IDS(in, wi)));
    assert_ok(npy_write_file("exact.npy", &all, err));
    assert_ok(dataset_open("npy:exact.npy", &data_opt, &d, err));
    assert_ok(quantize_static(g, d, &opt, &plain, NULL, err));
    opt.methods = RUNG_METHOD_CLIP;
    assert_ok(quantize_static(g, d, &opt, &tried, diag, err));
    assert_int_equal(plain->n_nodes + 1, tried->n_nodes); /* a bias of zeros, to be corrected */
    assert_memory_equal(plain->values[kit_find(plain, "w_q")].constant->data,
                        tried->values[kit_find(tried, "w_q")].constant->data, sizeof w / 4);
    assert_true(diag->n > 0);
    assert_string_equal(diag->list[0].code, "method-undone");
    dataset_free(d);
    diagnostics_free(diag);
    graph_free(plain);
    graph_free(tried);
    graph_free(g);
}

/* --- where runs of a walk begin --------------------------------------------------------------- */

/* What a run shows of its first output, and the number of nodes that made it. */
typedef struct seen {
    prefix *p;
    runner  run;
    float   y[SAMPLES * 16 * SIDE * SIDE];
    size_t  n;
} seen;

static rung_status see(void *ctx, rung_error *error)
{
    seen *s = ctx;
    const tensor *y = engine_output(s->run.e, 0);
    const size_t n = tensor_count(y);
    assert_int_equal(y->type, RUNG_F32);
    assert_true(s->n + n <= sizeof s->y / sizeof *s->y);
    memcpy(s->y + s->n, y->data, n * sizeof *s->y);
    s->n += n;
    return prefix_keep(s->p, s->run.e, s->run.at, error);
}

/* The number of nodes that run to show v. */
static size_t run_to(prefix *p, const recipe *r, const samples *s, int v, size_t settled, seen *to)
{
    arena *mem = arena_new();
    graph *q;
    to->p = p;
    to->n = 0;
    to->run = (runner){ .after = see, .ctx = to };
    assert_ok(prefix_graph(p, r, v, settled, mem, &q, err));
    assert_ok(graph_verify(q, err));
    const size_t n = q->n_nodes;
    assert_ok(samples_run(prefix_source(p), q, 0, s->n, &to->run, err));
    prefix_moved(p, r);
    graph_free(q);
    arena_free(mem);
    return n;
}

static int conv_at(const graph *g, int n)
{
    for (size_t i = 0; i < g->n_nodes; i++)
        if (strcmp(g->nodes[i].op_type, "Conv") == 0 && n-- == 0)
            return (int)i;
    fail_msg("there is no such Conv");
    return -1;
}

/* Each Conv's input from where the last one was, and from the beginning. */
static void runs_begin_where_a_walk_stands(void **state)
{
    static seen from_start, from_cut;
    const rung_quant_options opt = options(RUNG_METHOD_NONE);
    recipe r = { .g = network(), .opt = &opt };
    dataset *d = open_data();
    samples s;
    prefix p, none;
    (void)state;
    assert_ok(rewrite_prepare(r.g, err));
    assert_ok(split_roles(r.g, err));
    assert_ok(recipe_begin(&r, d, err));
    assert_ok(samples_load(r.g, d, &opt, &s, err));
    assert_ok(prefix_begin(&p, &r, &s, err));
    assert_ok(prefix_begin(&none, &r, &s, err));
    for (int i = 1; i < 5; i++) {
        const int v = r.g->nodes[conv_at(r.g, i)].inputs[0];
        const size_t settled = (size_t)conv_at(r.g, i - 1);
        const size_t all = run_to(&none, &r, &s, v, 0, &from_start);
        const size_t some = run_to(&p, &r, &s, v, settled, &from_cut);
        assert_true(i < 3 ? some <= all + 2 : some < all);
        assert_int_equal(from_start.n, from_cut.n);
        assert_memory_equal(from_start.y, from_cut.y, from_cut.n * sizeof(float));
        assert_int_equal(p.node, settled);
        assert_int_equal(none.n, 0);
    }
    r.params[r.g->nodes[conv_at(r.g, 0)].inputs[0]].scale *= 2; /* made with what is no more so */
    run_to(&p, &r, &s, r.g->nodes[conv_at(r.g, 1)].inputs[0], 0, &from_cut);
    assert_int_equal(p.n, 0);
    p.open[r.places[r.g->nodes[conv_at(r.g, 1)].inputs[0]].shares] = true; /* not settled */
    run_to(&p, &r, &s, r.g->nodes[conv_at(r.g, 2)].inputs[0], (size_t)conv_at(r.g, 1), &from_cut);
    assert_int_equal(p.n, 0);
    prefix_end(&none);
    prefix_end(&p);
    samples_free(&s);
    dataset_free(d);
    graph_free(r.g);
    recipe_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equalized_graphs_compute_the_same),
        cmocka_unit_test(auto_is_better_than_none),
        cmocka_unit_test(bytes_do_not_depend_on_threads),
        cmocka_unit_test(few_bits_are_kept),
        cmocka_unit_test(harm_is_undone),
        cmocka_unit_test(runs_begin_where_a_walk_stands),
    };
    return cmocka_run_group_tests(tests, enter_folder, leave_folder);
}
