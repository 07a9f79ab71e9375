/* Layers that stay float: the search on accuracies known by formula, the choice by times known by
 * formula, the judge beside an evaluation, and small networks in which one layer is to blame. */
#include "data_files.h"
#include "graph_kit.h"

#include <math.h>

#include "base/mem.h"
#include "data/npy.h"
#include "graph/rewrite.h"
#include "measure/compare.h"
#include "ops/ops.h"
#include "quant/mixed.h"

/* --- the search ------------------------------------------------------------------------------- */

enum { LAYERS = 12 };

/* Layers without a network: what each costs and takes away is given. */
typedef struct made {
    mixed_layer layers[LAYERS];
    size_t      nodes[LAYERS];
    level       levels[LAYERS];
    recipe      r;
    candidates  c;
    double      loss[LAYERS]; /* points, while a layer is in 8 bits */
    double      base;         /* points that no layer is to blame for */
    double      conversion;   /* milliseconds, between neighbours of different levels */
    int         asked;
} made;

static made *make(size_t n)
{
    made *m = calloc(1, sizeof *m);
    m->r.n_nodes = n;
    for (size_t i = 0; i < n; i++) {
        m->nodes[i] = i;
        m->layers[i].macs = 100;
    }
    m->c = (candidates){ .r = &m->r, .layers = m->layers, .nodes = m->nodes, .n = n,
                         .macs = 100 * (int64_t)n, .levels = m->levels };
    return m;
}

static rung_status loss_of(void *ctx, const level *levels, double *drop, rung_error *err)
{
    made *m = ctx;
    (void)err;
    m->asked++;
    *drop = m->base;
    for (size_t i = 0; i < m->c.n; i++)
        *drop += levels[i] == LEVEL_INT8 ? m->loss[i] : 0;
    return RUNG_OK;
}

static double search(made *m, double most, bool *met)
{
    double drop;
    assert_ok(loss_of(m, m->levels, &drop, err));
    m->asked = 0;
    assert_ok(search_levels(&m->c, most, loss_of, m, &drop, met, err));
    return drop;
}

static size_t n_float(const made *m)
{
    size_t n = 0;
    for (size_t i = 0; i < m->c.n; i++)
        n += m->levels[i] == LEVEL_FLOAT;
    return n;
}

static void one_layer_to_blame_is_freed(void **state)
{
    (void)state;
    made *m = make(LAYERS);
    bool met;
    for (size_t i = 0; i < LAYERS; i++)
        m->loss[i] = m->layers[i].effect = i == 7 ? 30 : 0.1;
    assert_true(fabs(search(m, 2, &met) - 1.1) < 1e-9 && met);
    assert_true(n_float(m) == 1 && m->levels[7] == LEVEL_FLOAT);
    assert_int_equal(m->asked, 1); /* the first try was the right one */
    free(m);
}

/* The prediction is wrong on purpose: what is not needed goes back to 8 bits. */
static void wrong_predictions_are_corrected(void **state)
{
    (void)state;
    made *m = make(LAYERS);
    bool met;
    for (size_t i = 0; i < LAYERS; i++) {
        m->layers[i].effect = (double)(LAYERS - i);
        m->loss[i] = i == 4 || i == 6 ? 10 : 0;
    }
    assert_true(search(m, 1, &met) == 0 && met);
    assert_true(n_float(m) == 2 && m->levels[4] == LEVEL_FLOAT && m->levels[6] == LEVEL_FLOAT);
    assert_true(m->asked <= 4 + 2 + 7); /* doubling, halving, and each of seven taken back */
    free(m);
}

/* Of two layers with the same effect the one with less work is freed. */
static void cheap_layers_come_first(void **state)
{
    (void)state;
    made *m = make(LAYERS);
    bool met;
    m->loss[2] = m->loss[9] = m->layers[2].effect = m->layers[9].effect = 5;
    m->layers[2].macs = 900;
    m->layers[9].macs = 10;
    assert_true(search(m, 5, &met) == 5 && met);
    assert_true(n_float(m) == 1 && m->levels[9] == LEVEL_FLOAT);
    free(m);
}

static void budgets_that_cannot_be_met(void **state)
{
    (void)state;
    for (size_t n = 1; n <= LAYERS; n += 11) {
        made *m = make(n);
        bool met = true;
        for (size_t i = 0; i < n; i++)
            m->loss[i] = m->layers[i].effect = 1 + (double)i;
        m->base = 3;
        /* All but one are in float: the model is to stay a quantized one. */
        assert_true(search(m, 2, &met) == m->base + 1);
        assert_true(!met && n_float(m) == n - 1);
        free(m);
    }
}

static void layers_in_float_already_stay(void **state)
{
    (void)state;
    made *m = make(LAYERS);
    bool met;
    m->levels[3] = LEVEL_FLOAT;
    m->loss[5] = 8;
    m->layers[5].effect = 1;
    m->layers[3].effect = 100;
    m->layers[0].effect = NAN; /* not measured: the last */
    assert_true(search(m, 0, &met) == 0 && met);
    assert_true(n_float(m) == 2 && m->levels[3] == LEVEL_FLOAT && m->levels[5] == LEVEL_FLOAT);
    free(m);
}

static rung_status fails(void *ctx, const level *levels, double *drop, rung_error *err)
{
    (void)ctx, (void)levels, (void)drop;
    return fail(err, RUNG_EIO, "no samples");
}

static void failures_of_the_judge_end_the_search(void **state)
{
    (void)state;
    made *m = make(LAYERS);
    double drop = 9;
    bool met;
    assert_fails(search_levels(&m->c, 1, fails, NULL, &drop, &met, err), RUNG_EIO, "no samples");
    free(m);
}

/* --- times ------------------------------------------------------------------------------------ */

static double time_of(const made *m, const level *levels)
{
    double ms = 0;
    for (size_t i = 0; i < m->c.n; i++) {
        ms += levels[i] == LEVEL_INT8 ? m->layers[i].int8_ms : m->layers[i].float_ms;
        ms += i && levels[i] != levels[i - 1] ? m->conversion : 0;
    }
    return ms;
}

static rung_status faster(void *ctx, const level *a, const level *b, bool *yes, rung_error *err)
{
    made *m = ctx;
    (void)err;
    m->asked++;
    *yes = time_of(m, b) < time_of(m, a);
    return RUNG_OK;
}

static void slow_layers_go_to_float_where_it_pays(void **state)
{
    (void)state;
    made *m = make(LAYERS);
    for (size_t i = 0; i < LAYERS; i++) {
        m->layers[i].float_ms = 4;
        m->layers[i].int8_ms = 1;
    }
    m->conversion = 0.5;
    m->layers[2].int8_ms = 4.9; /* saves less than its two conversions */
    m->layers[5].int8_ms = 5.5; /* pays */
    m->layers[6].int8_ms = 4.2; /* pays once 5 is in float: no conversions more */
    m->layers[9].float_ms = 0;  /* not there in the float network: nothing is known */
    assert_ok(free_slow_layers(&m->c, faster, m, err));
    for (size_t i = 0; i < LAYERS; i++) {
        const bool wanted = i == 5 || i == 6;
        assert_int_equal(m->levels[i], wanted ? LEVEL_FLOAT : LEVEL_INT8);
        assert_int_equal(m->layers[i].slow, wanted);
    }
    /* 5, 6 and 2 in the first round, 2 in the second. */
    assert_int_equal(m->asked, 4);
    free(m);
}

static void fast_networks_are_left_alone(void **state)
{
    (void)state;
    made *m = make(LAYERS);
    for (size_t i = 0; i < LAYERS; i++)
        m->layers[i].float_ms = m->layers[i].int8_ms = 1;
    assert_ok(free_slow_layers(&m->c, faster, m, err));
    assert_true(n_float(m) == 0 && m->asked == 0);
    free(m);
}

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
    assert_int_equal(mixed_count(m, &share), 1);
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
    assert_true(m->met && mixed_count(m, &share) == 0 && share == 0 && m->evaluations == 1);
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
        cmocka_unit_test(one_layer_to_blame_is_freed),
        cmocka_unit_test(wrong_predictions_are_corrected),
        cmocka_unit_test(cheap_layers_come_first),
        cmocka_unit_test(budgets_that_cannot_be_met),
        cmocka_unit_test(layers_in_float_already_stay),
        cmocka_unit_test(failures_of_the_judge_end_the_search),
        cmocka_unit_test(slow_layers_go_to_float_where_it_pays),
        cmocka_unit_test(fast_networks_are_left_alone),
        cmocka_unit_test(the_absurd_layer_is_named_and_freed),
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
