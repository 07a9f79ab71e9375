/* What a tune tries, when it stops and what it recommends, on results that are made up. */
#include "graph_kit.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "report/tune.h"
#include "tune/policy.h"

/* --- trials that are made up ------------------------------------------------------------------ */

typedef struct world {
    double      wide_share; /* of TRIAL_MIXED */
    double      top1[TRIAL_KINDS], ratio[TRIAL_KINDS], share[TRIAL_KINDS], seconds[TRIAL_KINDS];
    size_t      bytes[TRIAL_KINDS];
    rung_status status[TRIAL_KINDS];
    bool        no_time[TRIAL_KINDS]; /* comes back untried */
    bool        unlabelled;
    trial_kind  asked[TRIAL_KINDS];
    size_t      n;
} world;

/* A convolutional network on which nothing but float keeps its 90 points. */
static world made_up(void)
{
    world w = { 0 };
    for (int k = 0; k < TRIAL_KINDS; k++) {
        w.top1[k] = k == TRIAL_FLOAT ? 90 : 60;
        w.ratio[k] = k == TRIAL_FLOAT || k == TRIAL_WEIGHTS ? 1 : k == TRIAL_DYNAMIC ? 2 : 0.2;
        w.share[k] = k < TRIAL_STATIC ? 0 : 1;
        w.bytes[k] = k == TRIAL_FLOAT ? 4000 : 1100;
        w.seconds[k] = 10;
    }
    return w;
}

static tune_record wish(double max_drop)
{
    tune_record r = { .max_drop = max_drop, .min_share = 0.5, .weight_bits = 8, .act_bits = 8,
                      .matrix_share = 0.1, .samples = 100, .calibration = 50, .eval_samples = 80 };
    for (int k = 0; k < TRIAL_KINDS; k++)
        r.trials[k].top1 = r.trials[k].agreement = -1;
    return r;
}

static rung_status make(void *ctx, tune_record *r, trial_kind k, rung_error *err)
{
    world *w = ctx;
    tune_trial *t = &r->trials[k];
    w->asked[w->n++] = k;
    if (w->status[k] != RUNG_OK)
        return fail(err, w->status[k], "%s cannot be made", trial_name(k));
    if (w->no_time[k]) {
        snprintf(t->note, sizeof t->note, "no time for one epoch");
        return RUNG_OK;
    }
    t->state = TRIAL_DONE;
    t->top1 = w->unlabelled ? -1 : w->top1[k];
    t->agreement = k == TRIAL_FLOAT ? 100 : w->top1[k];
    t->ratio = w->ratio[k];
    t->ms = w->ratio[k];
    t->int_share = w->share[k];
    t->bytes = w->bytes[k];
    t->seconds = w->seconds[k];
    t->epochs = trial_trains(k) ? 10 : 0;
    t->float_layers = k == TRIAL_MIXED ? 3 : 0;
    t->float_share = k == TRIAL_MIXED ? 0.25 : 0;
    t->wide_share = k == TRIAL_MIXED ? w->wide_share : 0;
    return RUNG_OK;
}

static void run(tune_record *r, world *w)
{
    assert_ok(policy_run(r, make, w, err));
}

static void assert_asked(const world *w, size_t n, const trial_kind *kinds)
{
    assert_int_equal(w->n, n);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(w->asked[i], kinds[i]);
}
#define ASKED(w, ...)                                                                              \
    assert_asked(w, sizeof((trial_kind[]){ __VA_ARGS__ }) / sizeof(trial_kind),                    \
                 (const trial_kind[]){ __VA_ARGS__ })

static void assert_says(const char *text, const char *words)
{
    if (!strstr(text, words))
        fail_msg("\"%s\" does not say \"%s\"", text, words);
}

/* --- order and stopping ----------------------------------------------------------------------- */

static void all_is_tried_in_its_order_while_nothing_is_enough(void **state)
{
    (void)state;
    world w = made_up();
    tune_record r = wish(1);
    w.top1[TRIAL_AUTO] = 88.5;
    run(&r, &w);
    ASKED(&w, TRIAL_FLOAT, TRIAL_DYNAMIC, TRIAL_WEIGHTS, TRIAL_STATIC, TRIAL_AUTO, TRIAL_ADAROUND,
          TRIAL_MIXED, TRIAL_QAT, TRIAL_QAT_LONG);
    assert_false(r.met);
    assert_int_equal(r.best, TRIAL_AUTO);
    assert_float_equal(r.trials[r.best].drop, 1.5, 1e-9);
    assert_float_equal(r.seconds, 90, 1e-9);
    assert_says(r.reason, "nothing that was tried keeps the drop");
    assert_says(r.reason, "static, auto loses 1.50 points of top-1, 1.00 may be lost");
}

static void the_first_static_one_that_keeps_the_drop_is_the_last(void **state)
{
    (void)state;
    for (trial_kind k = TRIAL_STATIC; k <= TRIAL_ADAROUND; k++) {
        world w = made_up();
        tune_record r = wish(1);
        w.top1[k] = 89;
        run(&r, &w);
        assert_true(r.met);
        assert_int_equal(r.best, k);
        assert_int_equal(w.n, k + 1);
        assert_says(r.trials[TRIAL_QAT].note, "not needed");
        assert_says(r.reason, "post-training quantization is enough");
        assert_says(r.reason, "training is not needed");
    }
}

static void a_drop_of_exactly_what_is_allowed_is_kept(void **state)
{
    (void)state;
    world w = made_up();
    tune_record r = wish(2);
    w.top1[TRIAL_STATIC] = 88;
    run(&r, &w);
    assert_true(r.met);
    w = made_up();
    r = wish(1.9375);
    w.top1[TRIAL_STATIC] = 88;
    run(&r, &w);
    assert_false(r.met);
}

static void few_layers_in_float_are_an_answer(void **state)
{
    (void)state;
    world w = made_up();
    tune_record r = wish(1);
    w.top1[TRIAL_MIXED] = 89.5;
    w.share[TRIAL_MIXED] = 0.5;
    run(&r, &w);
    assert_int_equal(r.best, TRIAL_MIXED);
    assert_int_equal(w.n, TRIAL_MIXED + 1);
    assert_says(r.reason, "3 stay float (25.0 % of the work)");
}

static void many_layers_in_float_are_not_and_training_follows(void **state)
{
    (void)state;
    world w = made_up();
    tune_record r = wish(1);
    r.min_share = 0;
    w.top1[TRIAL_MIXED] = 89.5;
    w.share[TRIAL_MIXED] = 0.49;
    w.ratio[TRIAL_MIXED] = 0.7;
    w.top1[TRIAL_AUTO] = 80;
    w.top1[TRIAL_QAT] = 89.25;
    run(&r, &w);
    assert_true(r.met);
    assert_int_equal(r.best, TRIAL_QAT);
    assert_int_equal(w.n, TRIAL_QAT + 1);
    assert_says(r.reason, "not enough: static, auto loses 10.00 points");
    assert_says(r.reason, "QAT of 10 epochs through the integer arithmetic loses 0.75");
    assert_says(r.reason, "92 % of the loss is recovered");
    assert_says(r.reason, "static, mixed keeps the drop too, with 3 layers (25 % of the work) in "
                "float, but is 1.43 times as fast, not 5.00");
    assert_says(r.trials[TRIAL_QAT_LONG].note, "not needed");
}

static void a_longer_training_follows_one_that_is_too_short(void **state)
{
    (void)state;
    world w = made_up();
    tune_record r = wish(1);
    w.top1[TRIAL_QAT] = 88;
    w.top1[TRIAL_QAT_LONG] = 89.5;
    run(&r, &w);
    assert_int_equal(r.best, TRIAL_QAT_LONG);
    assert_int_equal(w.n, TRIAL_KINDS);
}

/* Most of the work in float, or in 16 bits, is not what was asked for: training is tried, and is
 * the answer whether or not it keeps the drop. The reason names the other, with its share. */
static void a_mixed_model_with_little_as_asked_is_no_answer(void **state)
{
    (void)state;
    for (int wide = 0; wide < 2; wide++)
        for (int kept = 0; kept < 2; kept++) {
            world w = made_up();
            tune_record r = wish(1);
            w.top1[TRIAL_MIXED] = 89.5;
            w.share[TRIAL_MIXED] = wide ? 0.9 : 0.4;
            w.wide_share = wide ? 0.5 : 0;
            w.top1[TRIAL_ADAROUND] = 75;
            w.top1[TRIAL_QAT] = kept ? 89.25 : 85;
            w.top1[TRIAL_QAT_LONG] = 84;
            run(&r, &w);
            assert_false(r.trials[TRIAL_MIXED].answer);
            assert_int_equal(r.best, TRIAL_QAT);
            assert_true(r.met == (bool)kept);
            assert_says(r.reason, kept ? "QAT of 10 epochs through the integer arithmetic loses "
                                         "0.75"
                                       : "QAT loses 5.00 points of top-1, 1.00 may be lost; before "
                                         "training static, adaround loses 15.00");
            assert_says(r.reason, "static, mixed keeps the drop, but only 40 % of the work is in "
                        "the integers that were asked for (3 layers in float");
            assert_says(r.reason, "where 50 % are wanted of it");
        }
}

/* The share is of what the static model has: where half of the work has no integers, a mixed model
 * needs half of that half. */
static void the_share_is_of_what_can_be_quantized(void **state)
{
    (void)state;
    for (int enough = 0; enough < 2; enough++) {
        world w = made_up();
        tune_record r = wish(1);
        for (trial_kind k = TRIAL_STATIC; k < TRIAL_KINDS; k++)
            w.share[k] = 0.5;
        w.top1[TRIAL_MIXED] = 89.5;
        w.share[TRIAL_MIXED] = enough ? 0.25 : 0.24;
        run(&r, &w);
        assert_true(r.trials[TRIAL_MIXED].answer == (bool)enough);
        assert_true(r.met == (bool)enough);
    }
}

/* A mixed model that was not enough is the answer where training keeps the drop even less. */
static void training_that_did_not_help_is_named(void **state)
{
    (void)state;
    world w = made_up();
    tune_record r = wish(1);
    r.min_share = 0;
    w.top1[TRIAL_MIXED] = 89.5;
    w.share[TRIAL_MIXED] = 0.2;
    w.top1[TRIAL_QAT_LONG] = 85;
    run(&r, &w);
    assert_int_equal(w.n, TRIAL_KINDS);
    assert_int_equal(r.best, TRIAL_MIXED);
    assert_says(r.reason, "training (QAT, long) loses 5.00");
}

/* --- what is preferred ------------------------------------------------------------------------ */

static void size_and_latency_choose_differently(void **state)
{
    (void)state;
    for (int size = 0; size < 2; size++) {
        world w = made_up();
        tune_record r = wish(1);
        r.prefer_size = size;
        w.top1[TRIAL_WEIGHTS] = w.top1[TRIAL_STATIC] = 90;
        w.bytes[TRIAL_WEIGHTS] = 1000;
        run(&r, &w);
        assert_int_equal(r.best, size ? TRIAL_WEIGHTS : TRIAL_STATIC);
        assert_int_equal(w.n, TRIAL_STATIC + 1);
    }
}

/* Where weights alone are no faster, static quantization goes on; dynamic quantization of a network
 * of matrices saves most of the time. */
static void a_light_one_is_enough_where_it_has_the_gain(void **state)
{
    (void)state;
    world w = made_up();
    tune_record r = wish(1);
    w.top1[TRIAL_WEIGHTS] = 90;
    run(&r, &w);
    assert_int_equal(w.n, TRIAL_KINDS);
    assert_int_equal(r.best, TRIAL_WEIGHTS);
    w = made_up();
    r = wish(1);
    w.top1[TRIAL_DYNAMIC] = 90;
    w.ratio[TRIAL_DYNAMIC] = 0.4;
    w.share[TRIAL_DYNAMIC] = 0.9;
    run(&r, &w);
    ASKED(&w, TRIAL_FLOAT, TRIAL_DYNAMIC, TRIAL_WEIGHTS, TRIAL_STATIC);
    assert_int_equal(r.best, TRIAL_DYNAMIC);
    assert_says(r.trials[TRIAL_AUTO].note, "without calibration");
}

static void other_bits_are_rows_to_compare_with(void **state)
{
    (void)state;
    world w = made_up();
    tune_record r = wish(1);
    r.weight_bits = r.act_bits = 3;
    w.top1[TRIAL_DYNAMIC] = 90;
    w.ratio[TRIAL_DYNAMIC] = 0.1;
    run(&r, &w);
    assert_false(r.met);
    assert_false(r.trials[TRIAL_DYNAMIC].answer);
    assert_int_not_equal(r.best, TRIAL_DYNAMIC);
    assert_int_equal(r.trials[TRIAL_WEIGHTS].state, TRIAL_UNTRIED);
    assert_says(r.trials[TRIAL_WEIGHTS].note, "4 or 8 bits");
    w = made_up();
    r = wish(1);
    r.matrix_share = 0;
    run(&r, &w);
    assert_says(r.trials[TRIAL_DYNAMIC].note, "the model has none");
}

/* Without labels the drop is that of agreement. */
static void without_labels_agreement_decides(void **state)
{
    (void)state;
    world w = made_up();
    tune_record r = wish(1);
    w.unlabelled = true;
    w.top1[TRIAL_AUTO] = 99.25;
    run(&r, &w);
    assert_false(r.labelled);
    assert_int_equal(r.best, TRIAL_AUTO);
    assert_float_equal(r.trials[TRIAL_STATIC].drop, 40, 1e-9);
    assert_says(r.reason, "static, auto loses 0.75 points of agreement");
}

/* Latencies within a tenth are equal, then the smaller file is better. */
static void times_that_hardly_differ_do_not_decide(void **state)
{
    (void)state;
    for (int clear = 0; clear < 2; clear++) {
        world w = made_up();
        tune_record r = wish(1);
        r.min_share = 0;
        w.top1[TRIAL_MIXED] = w.top1[TRIAL_QAT] = 89.5;
        w.share[TRIAL_MIXED] = 0.2;
        w.bytes[TRIAL_MIXED] = 3000;
        w.ratio[TRIAL_MIXED] = clear ? 0.17 : 0.185; /* QAT: 0.2 */
        run(&r, &w);
        assert_int_equal(r.best, clear ? TRIAL_MIXED : TRIAL_QAT);
    }
}

/* --- time and failures ------------------------------------------------------------------------ */

static void time_ends_it_but_one_trial_is_always_made(void **state)
{
    (void)state;
    world w = made_up();
    tune_record r = wish(1);
    r.time_budget = 10; /* the float model's */
    run(&r, &w);
    ASKED(&w, TRIAL_FLOAT, TRIAL_STATIC);
    assert_int_equal(r.best, TRIAL_STATIC);
    assert_false(r.met);
    assert_says(r.trials[TRIAL_QAT].note, "the time is used up");
    assert_says(r.reason, "QAT was not tried: the time is used up");
    w = made_up();
    r = wish(1);
    r.time_budget = 45;
    run(&r, &w);
    ASKED(&w, TRIAL_FLOAT, TRIAL_DYNAMIC, TRIAL_WEIGHTS, TRIAL_STATIC, TRIAL_AUTO);
}

static void training_may_have_no_time_or_not_be_wanted(void **state)
{
    (void)state;
    world w = made_up();
    tune_record r = wish(1);
    w.no_time[TRIAL_QAT] = true;
    run(&r, &w);
    assert_int_equal(w.asked[w.n - 1], TRIAL_QAT);
    assert_int_equal(r.trials[TRIAL_QAT_LONG].state, TRIAL_UNTRIED);
    assert_says(r.reason, "no time for one epoch");
    w = made_up();
    r = wish(1);
    r.no_train = true;
    run(&r, &w);
    assert_int_equal(w.asked[w.n - 1], TRIAL_MIXED);
    assert_says(r.reason, "training was not wanted");
}

static void a_trial_that_fails_is_left_out(void **state)
{
    (void)state;
    world w = made_up();
    tune_record r = wish(1);
    w.status[TRIAL_STATIC] = RUNG_EMODEL;
    w.top1[TRIAL_AUTO] = 89.5;
    run(&r, &w);
    assert_true(r.met);
    assert_int_equal(r.best, TRIAL_AUTO);
    assert_int_equal(r.trials[TRIAL_STATIC].state, TRIAL_FAILED);
    assert_string_equal(r.trials[TRIAL_STATIC].note, "static cannot be made");
}

static void some_failures_end_it(void **state)
{
    (void)state;
    static const rung_status ends[] = { RUNG_EMEMORY, RUNG_EIO, RUNG_EINTERRUPTED };
    for (int i = 0; i < 3; i++) {
        world w = made_up();
        tune_record r = wish(1);
        w.status[TRIAL_AUTO] = ends[i];
        assert_fails(policy_run(&r, make, &w, err), ends[i], "static, auto cannot be made");
        assert_int_equal(w.n, TRIAL_AUTO + 1);
    }
    world w = made_up();
    tune_record r = wish(1);
    w.status[TRIAL_FLOAT] = RUNG_EUNSUPPORTED;
    assert_fails(policy_run(&r, make, &w, err), RUNG_EUNSUPPORTED, "float32 cannot be made");
    w = made_up();
    r = wish(1);
    for (int k = TRIAL_DYNAMIC; k < TRIAL_KINDS; k++)
        w.status[k] = RUNG_EMODEL;
    assert_fails(policy_run(&r, make, &w, err), RUNG_EARGUMENT, "QAT cannot be made");
}

/* --- reports ---------------------------------------------------------------------------------- */

static void reports_hold_every_trial(void **state)
{
    (void)state;
    world w = made_up();
    tune_record r = wish(1);
    char *text, *object, *page;
    snprintf(r.model, sizeof r.model, "<a>&.onnx");
    w.status[TRIAL_AUTO] = RUNG_EMODEL;
    w.top1[TRIAL_QAT] = 89.5;
    run(&r, &w);
    assert_ok(report_tune_text(&r, &text, err));
    assert_ok(report_tune_json(&r, &object, err));
    assert_ok(report_tune_html(&r, &page, err));
    for (trial_kind k = TRIAL_FLOAT; k < TRIAL_KINDS; k++) {
        char key[64];
        snprintf(key, sizeof key, "\"trial\":\"%s\"", trial_key(k));
        assert_says(object, key);
        assert_says(text, trial_name(k));
        assert_says(page, trial_name(k));
    }
    assert_says(text, "recommended");
    assert_says(text, "failed: static, auto cannot be made");
    assert_says(object, "\"best\":\"qat\"");
    assert_says(object, "\"min_share\":0.5");
    assert_says(object, "\"asked_macs_share\":1");
    assert_says(text, "asked %");
    assert_says(page, "asked %");
    assert_says(page, "&lt;a&gt;&amp;.onnx");
    assert_says(page, "<svg");
    assert_null(strstr(page, "<a>"));
    assert_null(strstr(page, "http"));
    mem_free(text);
    mem_free(object);
    mem_free(page);
    for (long n = 0; n < 40; n++) { /* every failure of memory is a status, nothing leaks */
        page = NULL;
        mem_fail_after(n);
        const rung_status st = report_tune_html(&r, &page, NULL);
        mem_fail_after(-1);
        assert_true(st == RUNG_OK || st == RUNG_EMEMORY);
        mem_free(page);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_is_tried_in_its_order_while_nothing_is_enough),
        cmocka_unit_test(the_first_static_one_that_keeps_the_drop_is_the_last),
        cmocka_unit_test(a_drop_of_exactly_what_is_allowed_is_kept),
        cmocka_unit_test(few_layers_in_float_are_an_answer),
        cmocka_unit_test(many_layers_in_float_are_not_and_training_follows),
        cmocka_unit_test(a_mixed_model_with_little_as_asked_is_no_answer),
        cmocka_unit_test(the_share_is_of_what_can_be_quantized),
        cmocka_unit_test(a_longer_training_follows_one_that_is_too_short),
        cmocka_unit_test(training_that_did_not_help_is_named),
        cmocka_unit_test(size_and_latency_choose_differently),
        cmocka_unit_test(a_light_one_is_enough_where_it_has_the_gain),
        cmocka_unit_test(other_bits_are_rows_to_compare_with),
        cmocka_unit_test(without_labels_agreement_decides),
        cmocka_unit_test(times_that_hardly_differ_do_not_decide),
        cmocka_unit_test(time_ends_it_but_one_trial_is_always_made),
        cmocka_unit_test(training_may_have_no_time_or_not_be_wanted),
        cmocka_unit_test(a_trial_that_fails_is_left_out),
        cmocka_unit_test(some_failures_end_it),
        cmocka_unit_test(reports_hold_every_trial),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
