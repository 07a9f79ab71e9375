/* Accuracy, loss and SQNR of data whose figures are known by hand: the model is Identity, so that
 * the data are the scores. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "unit.h"

#include "base/mem.h"
#include "data/npy.h"
#include "data_files.h"
#include "graph_kit.h"
#include "measure/measure.h"
#include "ops/ops.h"

enum { CLASSES = 6 };

/* y = op(x), x float32 [batch, CLASSES, further ...]. */
static graph *net(const char *op, int rank, const int64_t *dims)
{
    graph *g = kit_graph(op_find);
    kit_output(g, kit_node(g, op, "only", 1, IDS(kit_input(g, "x", rank, dims))));
    return g;
}

/* y = x + by. */
static graph *net_adding(float by)
{
    graph *g = kit_graph(op_find);
    const int x = kit_input(g, "x", 2, DIMS(DIM_UNKNOWN, CLASSES));
    kit_output(g, kit_node(g, "Add", "add", 2,
                           IDS(x, kit_constant(g, "by", RUNG_F32, 0, DIMS(0), &by))));
    return g;
}

static dataset *open_array(const float *x, int rank, const int64_t *dims, const char *name)
{
    const dataset_options o = { .n_workers = 1 };
    tensor t = { .type = RUNG_F32, .rank = rank, .data = (void *)x };
    dataset *d = NULL;
    memcpy(t.dims, dims, (size_t)rank * sizeof *dims);
    assert_ok(npy_write_file(name, &t, err));
    assert_ok(dataset_open(name, &o, &d, err));
    return d;
}

/* CIFAR-10's records are the smallest format with labels: 3,072 bytes and a label before them. */
static dataset *open_labelled(int n, const uint8_t *labels, const uint8_t (*pixels)[CLASSES])
{
    const dataset_options o = { .n_workers = 1 };
    static uint8_t records[16][1 + 3072];
    dataset *d = NULL;
    memset(records, 0, sizeof records);
    for (int i = 0; i < n; i++) {
        records[i][0] = labels[i];
        memcpy(records[i] + 1, pixels[i], CLASSES);
    }
    put_file("labelled.bin", records, (size_t)n * sizeof *records);
    assert_ok(dataset_open("cifar10:labelled.bin", &o, &d, err));
    return d;
}

/* The first CLASSES values of a sample of 3 x 32 x 32. */
static graph *net_of_pixels(void)
{
    graph *g = kit_graph(op_find);
    const int x = kit_input(g, "x", 4, DIMS(DIM_UNKNOWN, 3, 32, 32));
    const int flat = kit_node(g, "Flatten", "flat", 1, IDS(x));
    const int from = kit_ints(g, "from", 1, DIMS(0)), to = kit_ints(g, "to", 1, DIMS(CLASSES));
    const int axis = kit_ints(g, "axis", 1, DIMS(1));
    kit_output(g, kit_node(g, "Slice", "slice", 4, IDS(flat, from, to, axis)));
    return g;
}

static rung_eval_result evaluate(const graph *g, const graph *ref, dataset *d, int at_once,
                                 output_sqnr *sqnr)
{
    const rung_eval_options o = { .n_threads = 1, .batch = at_once, .quiet = true };
    rung_eval_result r;
    assert_ok(measure_eval(g, ref, d, &o, &r, sqnr, err));
    return r;
}

static const uint8_t pixels[7][CLASSES] = {
    { 9, 1, 1, 1, 1, 1 }, /* label 0: first */
    { 1, 9, 9, 1, 1, 1 }, /* label 1: ties with 2, the lower class wins */
    { 1, 9, 9, 1, 1, 1 }, /* label 2: loses the tie: second */
    { 5, 5, 5, 5, 5, 5 }, /* label 4: fifth of a tie of six: in the top 5 */
    { 5, 5, 5, 5, 5, 5 }, /* label 5: sixth */
    { 6, 5, 4, 3, 2, 1 }, /* label 4: fifth */
    { 6, 5, 4, 3, 2, 1 }, /* label 5: sixth */
};
static const uint8_t labels[7] = { 0, 1, 2, 4, 5, 4, 5 };

static double entropy_by_hand(void)
{
    double sum = 0;
    for (int i = 0; i < 7; i++) {
        double all = 0;
        for (int c = 0; c < CLASSES; c++)
            all += exp((double)pixels[i][c] - pixels[i][labels[i]]);
        sum += log(all);
    }
    return sum / 7;
}

/* Batches of 1, of 3 with a remainder of 1, of all: the same figures. */
static void test_ranks_ties_and_loss(void **state)
{
    dataset *d = open_labelled(7, labels, pixels);
    graph *g = net_of_pixels();
    for (int at_once = 1; at_once <= 9; at_once += 2) {
        const rung_eval_result r = evaluate(g, NULL, d, at_once, NULL);
        assert_int_equal(r.samples, 7);
        assert_true(fabs(r.top1 - 100.0 * 2 / 7) < 1e-9);
        assert_true(fabs(r.top5 - 100.0 * 5 / 7) < 1e-9);
        assert_true(fabs(r.loss - entropy_by_hand()) < 1e-12);
        assert_true(r.agreement == -1 && isnan(r.sqnr_db) && r.seconds > 0);
    }
    graph_free(g);
    dataset_free(d);
}

static void test_a_label_out_of_range(void **state)
{
    const uint8_t wrong[2] = { 1, 7 };
    const rung_eval_options o = { .n_threads = 1, .quiet = true };
    rung_eval_result r;
    dataset *d = open_labelled(2, wrong, pixels);
    graph *g = net_of_pixels();
    assert_fails(measure_eval(g, NULL, d, &o, &r, NULL, err), RUNG_EARGUMENT,
                 "sample 1 has label 7, the model gives 6 classes");
    graph_free(g);
    dataset_free(d);
}

/* Each difference is 0.5, so that the ratio is the mean square over 0.25; agreement of top-1 is
 * full against x + 0.5 and none against -x, in which the greatest is the least. */
static void test_sqnr_and_agreement(void **state)
{
    const float x[4 * CLASSES] = { 1, 2, 3, 4, 5, 6, 6, 5, 4, 3, 2, 1,
                                   1, 3, 5, 2, 4, 6, 2, 1, 6, 5, 4, 3 };
    const int64_t dims[2] = { 4, CLASSES };
    double squares = 0;
    for (int i = 0; i < 4 * CLASSES; i++)
        squares += (double)x[i] * x[i];
    const double want = 10 * log10(squares / (4 * CLASSES * 0.25));
    dataset *d = open_array(x, 2, dims, "x.npy");
    graph *same = net("Identity", 2, DIMS(DIM_UNKNOWN, CLASSES)), *near = net_adding(0.5f);
    graph *opposite = net("Neg", 2, DIMS(DIM_UNKNOWN, CLASSES));
    for (int at_once = 1; at_once <= 5; at_once++) {
        output_sqnr each = { NULL, 0 };
        rung_eval_result r = evaluate(near, same, d, at_once, &each);
        assert_true(fabs(r.sqnr_db - want) < 1e-9 && each.db == r.sqnr_db);
        assert_string_equal(each.name, near->values[near->outputs[0]].name);
        assert_true(r.agreement == 100 && r.top1 == -1 && r.top5 == -1 && isnan(r.loss));
        r = evaluate(opposite, same, d, at_once, NULL);
        assert_true(fabs(r.sqnr_db + 10 * log10(4)) < 1e-9); /* (x - -x)^2 = 4 x^2 */
        assert_true(r.agreement == 0);
        r = evaluate(same, same, d, at_once, NULL);
        assert_true(isinf(r.sqnr_db) && r.sqnr_db > 0 && r.agreement == 100);
    }
    graph_free(same);
    graph_free(near);
    graph_free(opposite);
    dataset_free(d);
}

/* All zero: no signal, no noise, nothing to say. */
static void test_sqnr_of_nothing(void **state)
{
    const float x[2 * CLASSES] = { 0 };
    dataset *d = open_array(x, 2, DIMS(2, CLASSES), "x.npy");
    graph *g = net("Identity", 2, DIMS(DIM_UNKNOWN, CLASSES));
    assert_true(isnan(evaluate(g, g, d, 1, NULL).sqnr_db));
    graph_free(g);
    dataset_free(d);
}

/* A model that is made for batches of 4, and 6 samples: the padding of the last is not counted. */
static void test_a_fixed_batch(void **state)
{
    float x[6 * CLASSES];
    for (int i = 0; i < 6 * CLASSES; i++)
        x[i] = (float)(i % 7) + 1;
    graph *fixed = net("Identity", 2, DIMS(4, CLASSES)), *half = net_adding(0.5f);
    for (int n = 2; n <= 6; n++) { /* fewer than one batch, one, more */
        dataset *d = open_array(x, 2, DIMS(n, CLASSES), "x.npy");
        double squares = 0;
        for (int i = 0; i < n * CLASSES; i++)
            squares += (double)x[i] * x[i];
        assert_int_equal(measure_batch_size(fixed, 32), 4);
        const rung_eval_result r = evaluate(fixed, fixed, d, 32, NULL);
        assert_int_equal(r.samples, n);
        assert_true(isinf(r.sqnr_db) && r.agreement == 100);
        const rung_eval_result s = evaluate(half, fixed, d, 4, NULL);
        assert_true(fabs(s.sqnr_db - 10 * log10(squares / (n * CLASSES * 0.25))) < 1e-9);
        dataset_free(d);
    }
    graph_free(fixed);
    graph_free(half);
}

static void test_data_that_does_not_fit(void **state)
{
    const float x[4 * CLASSES] = { 0 };
    const rung_eval_options o = { .n_threads = 1, .quiet = true };
    rung_eval_result r;
    graph *g = net("Identity", 2, DIMS(DIM_UNKNOWN, CLASSES));
    graph *wide = net("Identity", 2, DIMS(DIM_UNKNOWN, 2 * CLASSES));
    dataset *d = open_array(x, 2, DIMS(4, CLASSES), "x.npy");
    dataset *deep = open_array(x, 3, DIMS(2, 2, CLASSES), "deep.npy");
    assert_fails(measure_eval(wide, NULL, d, &o, &r, NULL, err), RUNG_EARGUMENT,
                 "input 'x' is ?x12, the data is 4x6");
    assert_fails(measure_eval(g, NULL, deep, &o, &r, NULL, err), RUNG_EARGUMENT,
                 "the data is 2x2x6");
    graph_free(g);
    graph_free(wide);
    dataset_free(d);
    dataset_free(deep);
}

/* A reference of other outputs is refused, before memory is read that is not there. */
static void test_references_that_do_not_fit(void **state)
{
    const float x[2 * CLASSES] = { 1, 2, 3 };
    const rung_eval_options o = { .n_threads = 1, .quiet = true };
    rung_eval_result r;
    dataset *d = open_array(x, 2, DIMS(2, CLASSES), "x.npy");
    graph *g = net("Identity", 2, DIMS(DIM_UNKNOWN, CLASSES));
    graph *flat = kit_graph(op_find), *two = net("Identity", 2, DIMS(DIM_UNKNOWN, CLASSES));
    const int all = kit_ints(flat, "all", 1, DIMS(-1));
    const int in = kit_input(flat, "x", 2, DIMS(DIM_UNKNOWN, CLASSES));
    kit_output(flat, kit_node(flat, "Reshape", "view", 2, IDS(in, all)));
    assert_fails(measure_eval(g, flat, d, &o, &r, NULL, err), RUNG_EARGUMENT, "6 classes");
    kit_output(two, kit_node(two, "Neg", "second", 1, IDS(two->inputs[0])));
    assert_fails(measure_eval(g, two, d, &o, &r, NULL, err), RUNG_EARGUMENT,
                 "the model has 1 outputs, the reference 2");
    graph_free(g);
    graph_free(flat);
    graph_free(two);
    dataset_free(d);
}

static void test_batch_sizes(void **state)
{
    graph *small = net("Identity", 2, DIMS(DIM_UNKNOWN, CLASSES));
    graph *large = net("Identity", 4, DIMS(DIM_UNKNOWN, 3, 2048, 2048));
    graph *middle = net("Identity", 4, DIMS(DIM_UNKNOWN, 3, 224, 224));
    assert_int_equal(measure_batch_size(small, 0), 32);
    assert_int_equal(measure_batch_size(small, 5), 5);
    assert_int_equal(measure_batch_size(large, 0), 1);
    assert_int_equal(measure_batch_size(middle, 0), 11); /* 64 MB / 4 / 10 / 150,528 */
    graph_free(small);
    graph_free(large);
    graph_free(middle);
}

static void count_steps(void *ctx, const engine *e)
{
    *(size_t *)ctx += engine_n_steps(e);
}

static void test_bench(void **state)
{
    rung_bench_options o = { .n_threads = 1, .batch = 3, .seconds = 0.01 };
    rung_bench_result r;
    size_t n_steps = 0;
    graph *g = net("Neg", 2, DIMS(DIM_UNKNOWN, CLASSES)), *fixed = net("Neg", 2, DIMS(4, CLASSES));
    assert_ok(measure_bench(g, &o, &r, count_steps, &n_steps, err));
    assert_true(n_steps > 0 && r.runs >= 5 && r.batch == 3 && r.threads == 1);
    assert_true(r.p10_ms <= r.median_ms && r.median_ms <= r.p90_ms && r.load_ms > 0);
    assert_fails(measure_bench(fixed, &o, &r, NULL, NULL, err), RUNG_EARGUMENT, "fixed");
    const tensor in = { .rank = 2, .dims = { 3, CLASSES + 1 } };
    o.inputs = &in;
    assert_fails(measure_bench(g, &o, &r, NULL, NULL, err), RUNG_EARGUMENT, "the data is 3x7");
    graph_free(g);
    graph_free(fixed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ranks_ties_and_loss),
        cmocka_unit_test(test_a_label_out_of_range),
        cmocka_unit_test(test_sqnr_and_agreement),
        cmocka_unit_test(test_sqnr_of_nothing),
        cmocka_unit_test(test_a_fixed_batch),
        cmocka_unit_test(test_data_that_does_not_fit),
        cmocka_unit_test(test_references_that_do_not_fit),
        cmocka_unit_test(test_batch_sizes),
        cmocka_unit_test(test_bench),
    };
    return cmocka_run_group_tests(tests, enter_folder, leave_folder);
}
