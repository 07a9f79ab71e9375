/* Layers of more than 8 bits: small networks in which one layer is to blame, the judge of their
 * accuracy, and the effect of single layers. */
#include "data_files.h"
#include "graph_kit.h"

#include <math.h>

#include "base/mem.h"
#include "data/npy.h"
#include "graph/rewrite.h"
#include "measure/compare.h"
#include "ops/ops.h"
#include "quant/mixed.h"

/* --- networks --------------------------------------------------------------------------------- */

enum { SAMPLES = 120, CLASSES = 6 };

/* A chain of three fully connected layers with Relus, and its data. */
typedef struct net {
    graph             *g;
    dataset           *data, *labelled;
    rung_quant_options opt;
} net;

static int dense(graph *g, rng *r, const char *name, int x, float uneven)
{
    float w[CLASSES * CLASSES];
    for (int i = 0; i < CLASSES * CLASSES; i++) /* each row is larger than the one before */
        w[i] = (rng_normal(r) + (i % (CLASSES + 1) == 0 ? 2 : 0)) *
               powf(uneven, (float)(i / CLASSES) / (CLASSES - 1));
    float b[CLASSES];
    for (int i = 0; i < CLASSES; i++)
        b[i] = 0.1f * rng_normal(r);
    const int w_id = kit_constant(g, name, RUNG_F32, 2, DIMS(CLASSES, CLASSES), w);
    const int b_id = kit_constant(g, "b", RUNG_F32, 1, DIMS(CLASSES), b);
    const int y = kit_node(g, "Gemm", name, 3, IDS(x, w_id, b_id));
    kit_set_int(g, "transB", 1);
    return y;
}

/* What row i was multiplied by is divided out again, so that all classes are decided for. */
static int even_out(graph *g, int x, float uneven)
{
    float m[CLASSES];
    for (int i = 0; i < CLASSES; i++)
        m[i] = powf(uneven, -(float)i / (CLASSES - 1));
    const int id = kit_constant(g, "even", RUNG_F32, 1, DIMS(CLASSES), m);
    return kit_node(g, "Mul", "even", 2, IDS(x, id));
}

static const char *const not_layers[] = { "even" };

static const float *inputs(rng *r)
{
    static float x[SAMPLES * CLASSES];
    for (int i = 0; i < SAMPLES * CLASSES; i++)
        x[i] = rng_normal(r);
    return x;
}

static void open_sets(net *t, rng *r)
{
    const dataset_options o = { .n_workers = 1 };
    const rung_tensor x = { RUNG_F32, 2, { SAMPLES, CLASSES }, (void *)inputs(r) };
    assert_ok(npy_write_file("mixed.npy", &x, err));
    assert_ok(dataset_open("npy:mixed.npy", &o, &t->data, err));
}

/* uneven: the middle layer's rows differ by so much; one scale for all of them is absurd then. */
static net *begin(float uneven)
{
    net *t = calloc(1, sizeof *t);
    rng r;
    rng_seed(&r, 5);
    t->g = kit_graph(op_find);
    t->opt = (rung_quant_options)RUNG_QUANT_OPTIONS;
    t->opt.quiet = true;
    t->opt.n_threads = 1;
    t->opt.methods = RUNG_METHOD_NONE;
    t->opt.per_tensor = true;
    t->opt.exclude = not_layers;
    t->opt.n_exclude = 1;
    const int x = kit_input(t->g, "x", 2, DIMS(-1, CLASSES));
    const int a = kit_node(t->g, "Relu", "ra", 1, IDS(dense(t->g, &r, "first", x, 1)));
    const int b = even_out(t->g, dense(t->g, &r, "middle", a, uneven), uneven);
    kit_output(t->g, dense(t->g, &r, "last", b, 1));
    assert_ok(graph_sort(t->g, err));
    open_sets(t, &r);
    return t;
}

static void end(net *t)
{
    dataset_free(t->data);
    graph_free(t->g);
    free(t);
}

static double agreement(const net *t, const graph *q)
{
    const rung_eval_options o = { .size = sizeof o, .n_threads = 1, .quiet = true };
    rung_eval_result e;
    assert_ok(measure_eval(q, t->g, t->data, &o, &e, NULL, err));
    return e.agreement;
}

static const mixed_layer *layer_named(const mixed_record *m, const char *name)
{
    for (size_t i = 0; i < m->n_layers; i++)
        if (strstr(m->layers[i].label, name))
            return &m->layers[i];
    fail_msg("no layer '%s'", name);
    return NULL;
}

static void the_absurd_layer_is_named_and_freed(void **state)
{
    (void)state;
    net *t = begin(3000);
    const mixed_wish wish = { .eval = t->data, .max_drop = 10 };
    graph *q = NULL, *all = NULL;
    mixed_record *m = NULL;
    double share;
    assert_ok(quantize_static(t->g, t->data, &t->opt, &all, NULL, err));
    assert_ok(quantize_mixed(t->g, t->data, &t->opt, &wish, &q, &m, NULL, err));
    assert_true(m->budgeted && m->met && !m->labelled && m->samples == SAMPLES);
    assert_true(m->int8_drop > 20 && fabs(100 - agreement(t, all) - m->int8_drop) < 1e-9);
    assert_true(m->drop <= 10 && fabs(100 - agreement(t, q) - m->drop) < 1e-9);
    assert_int_equal(mixed_count(m, LEVEL_FLOAT, &share), 1);
    assert_true(fabs(share - 1.0 / 3) < 1e-9);
    const mixed_layer *middle = layer_named(m, "'middle'"), *first = layer_named(m, "'first'");
    assert_true(middle->level == LEVEL_FLOAT && first->level == LEVEL_INT8 && !middle->slow);
    assert_true(middle->effect > 10 * first->effect && middle->agreement < first->agreement);
    assert_true(m->ms > 0 && m->int8_ms > 0 && m->float_ms > 0 && m->slowdown > 0);
    /* In the file: its weight is float, those of the others are not. */
    assert_int_equal(q->values[kit_find(q, "middle")].constant->type, RUNG_F32);
    assert_null(q->values[kit_find(q, "first")].constant);
    mixed_record_free(m);
    graph_free(q);
    graph_free(all);
    end(t);
}

/* The same network with a scale for each row: now it is one tensor that 8 bits do not hold. */
static void outliers_get_sixteen_bits(void **state)
{
    (void)state;
    net *t = begin(300);
    const mixed_wish wish = { .eval = t->data, .max_drop = 10 };
    graph *q = NULL;
    mixed_record *m = NULL;
    double share;
    t->opt.per_tensor = false;
    assert_ok(quantize_mixed(t->g, t->data, &t->opt, &wish, &q, &m, NULL, err));
    assert_true(m->met && m->int8_drop > 20 && fabs(100 - agreement(t, q) - m->drop) < 1e-9);
    assert_true(mixed_count(m, LEVEL_FLOAT, &share) == 0 && share == 0);
    assert_true(mixed_count(m, LEVEL_WIDE, &share) == 1 && fabs(share - 1.0 / 3) < 1e-9);
    assert_int_equal(layer_named(m, "'middle'")->level, LEVEL_WIDE);
    assert_int_equal(graph_opset(q, ""), 21);
    mixed_record_free(m);
    graph_free(q);
    end(t);
}

static void good_networks_stay_whole(void **state)
{
    (void)state;
    net *t = begin(1);
    const mixed_wish wish = { .eval = t->data, .max_drop = 20 };
    graph *q = NULL, *all = NULL;
    mixed_record *m = NULL;
    double share;
    assert_ok(quantize_static(t->g, t->data, &t->opt, &all, NULL, err));
    assert_ok(quantize_mixed(t->g, t->data, &t->opt, &wish, &q, &m, NULL, err));
    assert_true(m->met && mixed_count(m, LEVEL_FLOAT, &share) == 0 && share == 0);
    assert_true(mixed_count(m, LEVEL_WIDE, &share) == 0 && m->evaluations == 1);
    assert_true(m->drop == m->int8_drop && isnan(m->layers[0].effect));
    kit_same_function(all, q, 3, 0);
    assert_int_equal(all->n_nodes, q->n_nodes);
    mixed_record_free(m);
    graph_free(q);
    graph_free(all);
    end(t);
}

/* 2-bit weights, and every layer needed: less than nothing in integers does not do. */
static void the_best_found_comes_with_a_no(void **state)
{
    (void)state;
    net *t = begin(3000);
    const mixed_wish wish = { .eval = t->data, .max_drop = 0 };
    graph *q = NULL;
    mixed_record *m = NULL;
    t->opt.weight_bits = 2;
    assert_ok(quantize_mixed(t->g, t->data, &t->opt, &wish, &q, &m, NULL, err));
    assert_true(!m->met && m->drop > 0 && m->drop < m->int8_drop);
    assert_true(fabs(100 - agreement(t, q) - m->drop) < 1e-9);
    mixed_record_free(m);
    graph_free(q);
    end(t);
}

static void models_without_scores_are_refused(void **state)
{
    (void)state;
    net *t = begin(1);
    const mixed_wish wish = { .eval = t->data, .max_drop = 1 };
    graph *g = kit_graph(op_find), *q = NULL;
    mixed_record *m = NULL;
    rng r;
    rng_seed(&r, 1);
    const int x = kit_input(g, "x", 2, DIMS(-1, CLASSES));
    const int w = kit_random(g, &r, "w", 2, DIMS(CLASSES, 1));
    kit_output(g, kit_node(g, "MatMul", "m", 2, IDS(x, w)));
    assert_fails(quantize_mixed(g, t->data, &t->opt, &wish, &q, &m, NULL, err), RUNG_EARGUMENT,
                 "scores of classes");
    assert_true(!m && !q);
    graph_free(g);
    end(t);
}

/* Nothing is asked for but the times: a real run, whatever they are. */
static void fastest_runs_on_this_machine(void **state)
{
    (void)state;
    net *t = begin(1);
    const mixed_wish wish = { .fastest = true };
    graph *q = NULL;
    mixed_record *m = NULL;
    assert_ok(quantize_mixed(t->g, t->data, &t->opt, &wish, &q, &m, NULL, err));
    assert_true(!m->budgeted && m->ms > 0);
    for (size_t i = 0; i < m->n_layers; i++)
        assert_true((m->layers[i].level == LEVEL_FLOAT) == m->layers[i].slow);
    mixed_record_free(m);
    graph_free(q);
    end(t);
}

/* --- the judge -------------------------------------------------------------------------------- */

/* The same with all samples in memory, with some, and with none. */
static void samples_in_memory_or_not(void **state)
{
    (void)state;
    net *t = begin(3000);
    graph *q = NULL;
    double first = 0;
    assert_ok(quantize_static(t->g, t->data, &t->opt, &q, NULL, err));
    for (int i = 0; i < 3; i++) {
        judge j;
        double drop[2];
        const size_t kept = i == 0 ? JUDGE_BYTES : i == 1 ? 3000 : 0;
        t->opt.batch = 32;
        assert_ok(judge_begin(&j, t->g, t->data, &t->opt, kept, err));
        assert_true(i == 0 ? j.kept_samples == SAMPLES : j.kept_samples < SAMPLES);
        assert_true((i == 2) == (j.kept_samples == 0));
        for (int k = 0; k < 2; k++)
            assert_ok(judge_drop(&j, q, &drop[k], err));
        assert_true(drop[0] == drop[1] && j.evaluations == 2 && (i == 0 || drop[0] == first));
        first = drop[0];
        judge_end(&j);
    }
    graph_free(q);
    end(t);
}

/* --- effects ---------------------------------------------------------------------------------- */

/* In a chain a layer's effect is the error of the network with all layers in float but this one. */
static void effects_are_those_of_the_layer_alone(void **state)
{
    (void)state;
    net *t = begin(40);
    const compare_options o = { .n_threads = 1, .seconds = 1e-6, .quiet = true, .sensitivity = 77 };
    graph *q = NULL, *alone = NULL;
    comparison *c = NULL;
    const char *names[] = { "middle", "last" };
    assert_ok(quantize_static(t->g, t->data, &t->opt, &q, NULL, err));
    assert_ok(measure_compare(t->g, q, t->data, &o, &c, err));
    assert_true(c->effect_samples == 77 && c->samples == SAMPLES);
    for (int i = 0; i < 2; i++) {
        const char *others[] = { i ? "middle" : "last", "first", "even" };
        const rung_eval_options eo = { .size = sizeof eo, .n_threads = 1, .quiet = true };
        rung_eval_result e;
        dataset *first = NULL;
        t->opt.exclude = others;
        t->opt.n_exclude = 3;
        assert_ok(quantize_static(t->g, t->data, &t->opt, &alone, NULL, err));
        const dataset_options d = { .n_workers = 1 };
        assert_ok(dataset_open("npy:mixed.npy@0:77", &d, &first, err));
        assert_ok(measure_eval(alone, t->g, first, &eo, &e, NULL, err));
        for (size_t k = 0; k < c->n_tensors; k++)
            if (strcmp(c->tensors[k].node_name, names[i]) == 0)
                assert_true(fabs(-10 * log10(comparison_effect(c, &c->tensors[k])) - e.sqnr_db) <
                            0.02);
        graph_free(alone);
        dataset_free(first);
    }
    comparison_free(c);
    graph_free(q);
    end(t);
}

/* --- memory ----------------------------------------------------------------------------------- */

static void every_allocation_may_fail(void **state)
{
    (void)state;
    net *t = begin(3000);
    const mixed_wish wish = { .eval = t->data, .max_drop = 10, .seconds = 1e-6 };
    rung_error err = { "" };
    for (long n = 0;; n += 1 + n / 15) {
        graph *q = NULL;
        mixed_record *m = NULL;
        mem_fail_after(n);
        const rung_status st = quantize_mixed(t->g, t->data, &t->opt, &wish, &q, &m, NULL, &err);
        mem_fail_after(-1);
        mixed_record_free(m);
        graph_free(q);
        if (st == RUNG_OK)
            break;
        assert_int_equal(st, RUNG_EMEMORY);
    }
    end(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_absurd_layer_is_named_and_freed),
        cmocka_unit_test(outliers_get_sixteen_bits),
        cmocka_unit_test(good_networks_stay_whole),
        cmocka_unit_test(the_best_found_comes_with_a_no),
        cmocka_unit_test(models_without_scores_are_refused),
        cmocka_unit_test(fastest_runs_on_this_machine),
        cmocka_unit_test(samples_in_memory_or_not),
        cmocka_unit_test(effects_are_those_of_the_layer_alone),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, enter_folder, leave_folder);
}
