/* Spreads against all the data kept, the figures of a comparison of small graphs known by hand, the
 * advice that figures give, and each allocation failing. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "unit.h"

#include "base/mem.h"
#include "data/npy.h"
#include "graph_kit.h"
#include "measure/scores.h"
#include "ops/ops.h"
#include "report/compare.h"
#include "report/html.h"

/* --- spread ----------------------------------------------------------------------------------- */

static void spread_counts_what_it_saw(void **state)
{
    (void)state;
    enum { MANY = 20000, PARTS = 32 };
    rng r;
    float *x = malloc(MANY * sizeof *x);
    spread *one = calloc(1, sizeof *one), *many = calloc(1, sizeof *many);
    double counts[PARTS], want[PARTS] = { 0 };
    rng_seed(&r, 1);
    for (int i = 0; i < MANY; i++)
        x[i] = i < 10 ? 0.0f : ldexpf(rng_normal(&r), i % 7 - 3);
    x[3] = NAN;
    x[4] = -INFINITY;
    spread_add(one, x, MANY);
    for (int i = 0; i < MANY; i += 100) /* zeros alone first: they must not coarsen the bins */
        spread_add(many, x + i, 100);
    assert_memory_equal(one, many, sizeof *one);
    assert_int_equal(one->n, MANY - 2);
    spread_fold(one, one->lo, one->hi, PARTS, counts);
    double all = 0, off = 0, most = 0;
    for (int i = 0; i < MANY; i++)
        if (isfinite(x[i])) {
            const int k = (int)((x[i] - one->lo) / ((double)one->hi - one->lo) * PARTS);
            want[k < PARTS ? k : PARTS - 1]++;
        }
    for (int i = 0; i < PARTS; i++) {
        all += counts[i];
        off += counts[i] - want[i];
        most = fmax(most, fabs(off)); /* of the running sums: half a bin, split evenly */
    }
    assert_true(fabs(all - (MANY - 2)) < 1e-6 && most < 0.02 * MANY);
    free(x);
    free(one);
    free(many);
}

static void spread_of_one_value(void **state)
{
    (void)state;
    spread *s = calloc(1, sizeof *s);
    const float x[] = { 3, 3, 3 }, tiny[] = { 0x1p-149f, -0.0f, 3e38f };
    double counts[4];
    spread_add(s, x, 3);
    spread_fold(s, 1, 3, 4, counts);
    assert_true(counts[3] == 3 && counts[0] + counts[1] + counts[2] == 0);
    spread_add(s, tiny, 3);
    spread_fold(s, 0, 3e38f, 4, counts);
    assert_true(s->n == 6 && fabs(counts[0] + counts[3] - 6) < 1e-9);
    free(s);
}

/* --- a comparison ----------------------------------------------------------------------------- */

/* x [N,2] -> Relu -> Neg -> y; with pairs of the given scale on r and y where it is not 0. */
static graph *net(float scale, const char *r_name)
{
    graph *g = kit_graph(op_find);
    const uint8_t zeros[] = { 0, 255 };
    int v = kit_input(g, "x", 2, DIMS(DIM_UNKNOWN, 2));
    const int s = kit_constant(g, "s", RUNG_F32, 0, DIMS(0), &scale);
    for (int i = 0; i < 2; i++) {
        const char *name = i ? "y" : r_name;
        const int made = graph_add_value(g, scale > 0 && i ? "y_float" : name, RUNG_F32, 2,
                                         DIMS(DIM_UNKNOWN, 2));
        assert_true(graph_add_node(g, i ? "Neg" : "Relu", "", i ? "neg" : "relu", &v, 1, &made,
                                   1) >= 0);
        v = made;
        if (scale > 0) {
            const int z = kit_constant(g, "z", RUNG_U8, 0, DIMS(0), &zeros[i]);
            v = kit_node(g, "QuantizeLinear", "", 3, IDS(v, s, z));
            const int y = graph_add_value(g, i ? "y" : "r_dq", RUNG_F32, 2, DIMS(DIM_UNKNOWN, 2));
            assert_true(graph_add_node(g, "DequantizeLinear", "", "", IDS(v, s, z), 3, &y, 1) >= 0);
            v = y;
        }
    }
    kit_output(g, v);
    assert_ok(graph_sort(g, err));
    return g;
}

static const float data[4][2] = { { 1.4f, -3 }, { 0.6f, 2 }, { 300, 1.25f }, { 0, 0.1f } };

static dataset *open_data(void)
{
    const dataset_options o = { .n_workers = 1 };
    tensor t = { .type = RUNG_F32, .rank = 2, .dims = { 4, 2 }, .data = (void *)data };
    dataset *d = NULL;
    assert_ok(npy_write_file("compare.npy", &t, err));
    assert_ok(dataset_open("compare.npy", &o, &d, err));
    return d;
}

static const compare_options quick = { .n_threads = 1, .seconds = 1e-6, .quiet = true,
                                       .reference_title = "a/f.onnx", .title = "<q>",
                                       .data_title = "d\xff" };

static comparison *compare(const graph *f, const graph *q)
{
    dataset *d = open_data();
    comparison *c = NULL;
    assert_ok(measure_compare(f, q, d, &quick, &c, err));
    dataset_free(d);
    remove("compare.npy");
    return c;
}

static void figures_are_those_known_by_hand(void **state)
{
    (void)state;
    graph *f = net(0, "r"), *q = net(1, "r");
    comparison *c = compare(f, q);
    assert_true(c->n_tensors == 2 && c->n_unmatched == 0 && c->samples == 4 && c->n_outputs == 1);
    const tensor_record *r = &c->tensors[0], *y = &c->tensors[1];
    assert_string_equal(r->name, "r");
    assert_string_equal(y->name, "y");
    assert_string_equal(y->node, "Neg 'neg'");
    assert_true(r->n_inputs == 0 && y->n_inputs == 1 && y->inputs[0] == 0);
    /* 1.4 -> 1, 0.6 -> 1, 2, 300 -> 255, 1.25 -> 1, 0.1 -> 0, and two zeros */
    const double rounding = 0.4f * 0.4f + 0.4f * 0.4f + 0.25 * 0.25 + 0.1f * 0.1f;
    assert_true(r->count == 8 && r->n_clipped == 1 && r->lo == 0 && r->hi == 300);
    assert_true(fabs(r->clip_noise - 45 * 45) < 1e-6 && fabs(r->round_noise - rounding) < 1e-6);
    assert_true(fabs(r->noise - 45 * 45 - rounding) < 1e-6 && r->noise == r->own_noise);
    assert_true(r->clip_lo == 0 && r->clip_hi == 255 && y->clip_lo == -255 && y->clip_hi == 0);
    assert_true(fabs(y->noise - r->noise) < 1e-6 && y->hi == 0 && y->lo == -300);
    assert_true(c->outputs[0].noise == y->noise && c->outputs[0].signal == y->signal);
    /* Decisions: 0, 0, 1, 1 in float; the second sample's is a tie of 0 and -2 in both. */
    assert_true(c->classes == 2 && c->agreement == 100);
    comparison_free(c);
    graph_free(f);
    graph_free(q);
}

static void what_cannot_be_compared_is_said(void **state)
{
    (void)state;
    graph *f = net(0, "r"), *q = net(1, "r"), *other = net(1, "elsewhere");
    comparison *c = compare(f, other);
    assert_true(c->n_tensors == 1 && c->n_unmatched == 1);
    comparison_free(c);
    dataset *d = open_data();
    c = NULL;
    assert_fails(measure_compare(f, f, d, &quick, &c, err), RUNG_EARGUMENT, "no QuantizeLinear");
    q->values[q->outputs[0]].name = "z";
    assert_fails(measure_compare(f, q, d, &quick, &c, err), RUNG_EARGUMENT, "not one network");
    q->n_outputs = 0;
    assert_fails(measure_compare(f, q, d, &quick, &c, err), RUNG_EARGUMENT, "outputs");
    assert_null(c);
    dataset_free(d);
    graph_free(f);
    graph_free(q);
    graph_free(other);
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    graph *f = net(0, "r"), *q = net(1, "r");
    dataset *d = open_data();
    rung_status st = RUNG_EMEMORY;
    for (long n = 0; st != RUNG_OK; n++) {
        comparison *c = NULL;
        rung_error err;
        assert_true(n < 20000);
        mem_fail_after(n);
        st = measure_compare(f, q, d, &quick, &c, &err);
        mem_fail_after(-1);
        assert_true(st == RUNG_OK || (st == RUNG_EMEMORY && !c));
        comparison_free(c);
    }
    dataset_free(d);
    graph_free(f);
    graph_free(q);
}

/* --- reports ---------------------------------------------------------------------------------- */

static void reports_are_made_or_fail(void **state)
{
    (void)state;
    static rung_status (*const make[])(const comparison *, char **, rung_error *) = {
        report_compare_text, report_compare_json, report_compare_html };
    static const char *const says[] = { "SQNR", "\"own_db\"", "&lt;q&gt;" };
    graph *f = net(0, "r"), *q = net(1, "r");
    comparison *c = compare(f, q);
    for (int i = 0; i < 3; i++) {
        char *s = NULL;
        assert_ok(make[i](c, &s, err));
        assert_non_null(strstr(s, says[i]));
        assert_null(strstr(s, "\xff"));
        if (i == 1) {
            cJSON *o = cJSON_Parse(s);
            assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(o, "tensors")), 2);
            cJSON_Delete(o);
        }
        mem_free(s);
        mem_fail_after(0);
        assert_int_equal(make[i](c, &s, NULL), RUNG_EMEMORY);
        mem_fail_after(-1);
    }
    comparison_free(c);
    graph_free(f);
    graph_free(q);
}

static void advises(const comparison *c, const tensor_record *t, const char *words)
{
    text one = { 0 };
    char *s = NULL;
    tensor_advice(&one, c, t);
    assert_ok(text_take(&one, &s, err));
    if (!strstr(s, words))
        fail_msg("\"%s\" does not say \"%s\"", s, words);
    mem_free(s);
}

/* The largest cause gives the advice. */
static void advice_follows_the_figures(void **state)
{
    (void)state;
    float max[] = { 8, 1e-9f, 2, 1 };
    weight_record w = { .channels = 4, .max = max, .n_coarse = 3, .signal = 1, .noise = 0.1,
                        .known = true };
    int input = 0;
    tensor_record t[2] = {
        { .name = "in", .weights = -1, .signal = 100, .round_noise = 0.2, .node_name = "",
          .op_type = "" },
        { .name = "t", .node_name = "n<1>", .op_type = "Conv", .inputs = &input, .n_inputs = 1,
          .weights = -1, .scale = 0.1, .clip_lo = -12.8, .clip_hi = 12.7, .lo = -13, .hi = 13,
          .count = 100, .n_clipped = 2, .signal = 100, .own_noise = 10, .clip_noise = 9,
          .round_noise = 1 },
    };
    const comparison c = { .tensors = t, .n_tensors = 2, .weights = &w, .n_weights = 1 };
    advises(&c, &t[1], "--range minmax");
    t[1].clip_noise = 0;
    advises(&c, &t[1], "Outliers");
    t[1].signal = 1000;
    t[1].round_noise = 20;
    advises(&c, &t[1], "--exclude 'n<1>'");
    t[1].hi = -5;
    advises(&c, &t[1], "Wide codes");
    t[0].round_noise = 50;
    advises(&c, &t[1], "the codes of 'in'");
    t[1].weights = 0;
    t[0].round_noise = 1;
    advises(&c, &t[1], "a factor of 8 (3 of 4");
    w.per_channel = true;
    advises(&c, &t[1], "a few large ones");
    t[1].own_noise = 0.01;
    advises(&c, &t[1], "nothing to do");
    t[0].own_noise = 50;
    advises(&c, &t[0], "layers that read it");
}

static void worst_are_those_that_add_most(void **state)
{
    (void)state;
    tensor_record t[6];
    size_t worst[3];
    for (int i = 0; i < 6; i++)
        t[i] = (tensor_record){ .count = 1, .signal = i + 1, .own_noise = 1 };
    t[0].moves = true;
    t[1].count = 0;
    t[5].own_noise = 100;
    const comparison c = { .tensors = t, .n_tensors = 6 };
    assert_int_equal(comparison_worst(&c, 3, worst), 3);
    assert_true(worst[0] == 5 && worst[1] == 2 && worst[2] == 3);
    assert_int_equal(comparison_worst(&c, 0, worst), 0);
}

static void changes_come_by_number(void **state)
{
    (void)state;
    uint32_t confusion[9] = { 5, 1, 3, 0, 7, 0, 2, 0, 0 };
    const comparison c = { .classes = 3, .confusion = confusion };
    change list[2];
    assert_int_equal(top_changes(&c, list, 2), 2);
    assert_true(list[0].from == 0 && list[0].to == 2 && list[0].count == 3);
    assert_true(list[1].from == 2 && list[1].to == 0 && decided(&c, 0) == 9);
}

static void names_are_escaped(void **state)
{
    (void)state;
    text t = { 0 };
    char *s = NULL;
    html_name(&t, "<b a=\"'&\xff\n");
    assert_ok(text_take(&t, &s, err));
    assert_string_equal(s, "&lt;b a=&quot;&#39;&amp;?\n");
    mem_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(spread_counts_what_it_saw),
        cmocka_unit_test(spread_of_one_value),
        cmocka_unit_test(figures_are_those_known_by_hand),
        cmocka_unit_test(what_cannot_be_compared_is_said),
        cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(reports_are_made_or_fail),
        cmocka_unit_test(advice_follows_the_figures),
        cmocka_unit_test(worst_are_those_that_add_most),
        cmocka_unit_test(changes_come_by_number),
        cmocka_unit_test(names_are_escaped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
