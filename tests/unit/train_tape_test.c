/* The float tape: gradients of whole losses against finite differences, running statistics,
 * several outputs, memory, failures. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "ops/ops.h"
#include "train/tape_parts.h"
#include "train_kit.h"

typedef graph *(*net)(rng *r);
static const net nets[] = {net_residual, net_branches, net_attention};

static graph *make(net f, uint64_t seed)
{
    rng r;
    rng_seed(&r, seed);
    return f(&r);
}

static void slopes_are_those_of_the_loss(void **state)
{
    for (size_t i = 0; i < sizeof nets / sizeof *nets; i++) {
        for (uint64_t seed = 0; seed < 3; seed++) {
            graph *g = make(nets[i], seed);
            const tape_options opt = {.batch = 3, .n_threads = seed == 1 ? 2 : 1};
            trial t = trial_begin(g, &opt, seed);
            assert_true(tape_memory_is_sound(t.t));
            trial_check(&t);
            trial_end(&t);
            graph_free(g);
        }
    }
}

static void batch_statistics_have_gradients(void **state)
{
    graph *g = make(net_residual, 5);
    const tape_options opt = {.batch = 4, .n_threads = 1, .batch_stats = true};
    trial t = trial_begin(g, &opt, 1);
    trial_check(&t);
    trial_end(&t);
    graph_free(g);
}

/* Element i of a channel, whatever the layout in which the tape holds the value. */
static double channel_of(const trial *t, int v, size_t i, size_t c)
{
    const bool last = t->t->cell_of[v][1] != NO_CELL;
    const float *x = t->t->cells[t->t->cell_of[v][last]].data;
    const size_t channels = (size_t)t->t->info[v].dims[1], pixels = 64;
    return last ? x[i * channels + c] : x[(i / pixels * channels + c) * pixels + i % pixels];
}

/* new = momentum * old + (1 - momentum) * batch, the node's own momentum or the given one. */
static void running_statistics_move(void **state)
{
    for (int given = 0; given < 2; given++) {
        graph *g = make(net_residual, 2);
        const float momentum = given ? 0.75f : 0.9f;
        const tape_options opt = {.batch = 4, .n_threads = 1, .batch_stats = true,
                                  .momentum = given ? momentum : 0};
        trial t = trial_begin(g, &opt, 1);
        float *moved = arena_copy(t.mem, t.data, t.p->total * sizeof *moved);
        assert_ok(tape_forward(t.t, t.data, true, moved, err));
        const int mean = kit_find(g, "norm1_mean"), conv = kit_find(g, "conv1_out");
        const param *p = &t.p->list[t.p->at[mean]];
        for (size_t c = 0; c < p->count; c++) {
            double batch_mean = 0;
            for (size_t i = 0; i < 4 * 64; i++) /* channels-last: 4 images of 8 x 8 */
                batch_mean += channel_of(&t, conv, i, c) / (4 * 64);
            const double want = momentum * t.data[p->first + c] + (1 - momentum) * batch_mean;
            assert_true(fabs(moved[p->first + c] - want) < 1e-4);
        }
        for (size_t i = 0; i < t.p->n; i++)
            if (t.p->list[i].kind != PARAM_STATE)
                assert_memory_equal(moved + t.p->list[i].first, t.data + t.p->list[i].first,
                                    t.p->list[i].count * sizeof(float));
        trial_end(&t);
        graph_free(g);
    }
}

/* A value within counts as an output: its gradient is added to what comes from behind. */
static void extra_outputs_have_gradients(void **state)
{
    graph *g = make(net_residual, 3);
    const int extra[] = {kit_find(g, "relu1_out"), kit_find(g, "mean_out")};
    const tape_options opt = {.batch = 2, .n_threads = 1, .extra = extra, .n_extra = 2};
    trial t = trial_begin(g, &opt, 4);
    assert_int_equal(tape_n_outputs(t.t), 3);
    assert_int_equal(tape_output(t.t, 1)->dims[1], 8);
    trial_check(&t);
    trial_end(&t);
    graph_free(g);
}

/* Several tapes in a parallel region give what one gives alone. */
static void lanes_do_not_disturb_each_other(void **state)
{
    enum { LANES = 4 };
    graph *g = make(net_residual, 4);
    const tape_options opt = {.batch = 3, .n_threads = 1};
    trial t[LANES], alone = trial_begin(g, &opt, 9);
    trial_gradient(&alone);
    for (int i = 0; i < LANES; i++)
        t[i] = trial_begin(g, &opt, 9);
#pragma omp parallel for num_threads(LANES)
    for (int i = 0; i < LANES; i++)
        for (int repeat = 0; repeat < 20; repeat++)
            trial_gradient(&t[i]);
    for (int i = 0; i < LANES; i++) {
        assert_memory_equal(t[i].grad, alone.grad, alone.p->total * sizeof(float));
        trial_end(&t[i]);
    }
    trial_end(&alone);
    graph_free(g);
}

static rung_status create(const graph *g, const tape_options *opt, rung_error *err)
{
    params *p;
    tape *t = NULL;
    rung_status st = params_create(g, &p, err);
    if (st == RUNG_OK)
        st = tape_create(g, p, opt, &t, err);
    tape_free(t);
    params_free(p);
    return st;
}

static void what_cannot_be_trained_is_named(void **state)
{
    rng r;
    rng_seed(&r, 1);
    graph *g = kit_graph(op_find);
    const int x = kit_input(g, "x", 2, DIMS(DIM_UNKNOWN, 4));
    const int w = kit_random(g, &r, "w", 2, DIMS(4, 4));
    const int y = kit_node(g, "MatMul", "product", 2, IDS(x, w));
    kit_output(g, kit_node(g, "Hardmax", "step", 1, IDS(y)));
    assert_ok(graph_sort(g, err));
    assert_fails(create(g, &(tape_options){.batch = 2}, err), RUNG_EUNSUPPORTED, "step");
    assert_fails(create(g, &(tape_options){.batch = 0}, err), RUNG_EARGUMENT, "0 samples");
    assert_fails(create(g, &(tape_options){.batch = 1, .extra = IDS(999), .n_extra = 1}, err),
                 RUNG_EARGUMENT, "extra");
    graph_free(g);
}

static void fixed_first_dimension_is_checked(void **state)
{
    rng r;
    rng_seed(&r, 1);
    graph *g = kit_graph(op_find);
    const int x = kit_input(g, "x", 2, DIMS(4, DIM_UNKNOWN));
    const int w = kit_random(g, &r, "w", 2, DIMS(3, 2));
    kit_output(g, kit_node(g, "MatMul", "product", 2, IDS(x, w)));
    assert_ok(graph_sort(g, err));
    const int64_t *dims[] = {DIMS(4, 3)};
    assert_fails(create(g, &(tape_options){.batch = 4}, err), RUNG_EARGUMENT, "dimension 1");
    assert_fails(create(g, &(tape_options){.batch = 2, .input_dims = dims}, err), RUNG_EARGUMENT,
                 "4 samples");
    assert_ok(create(g, &(tape_options){.batch = 4, .input_dims = dims}, err));
    graph_free(g);
}

/* Every allocation fails in turn: an error each time, nothing leaks. */
static void memory_that_runs_out_is_an_error(void **state)
{
    graph *g = make(net_branches, 1);
    const tape_options opt = {.batch = 2, .n_threads = 1};
    long n = 0;
    for (rung_status st = RUNG_EMEMORY; st != RUNG_OK; n++) {
        rung_error why = {""};
        mem_fail_after(n);
        st = create(g, &opt, &why);
        mem_fail_after(-1);
        assert_true(st == RUNG_OK || st == RUNG_EMEMORY);
        assert_true(n < 100000);
    }
    assert_true(n > 10);
    graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slopes_are_those_of_the_loss),
        cmocka_unit_test(batch_statistics_have_gradients),
        cmocka_unit_test(running_statistics_move),
        cmocka_unit_test(extra_outputs_have_gradients),
        cmocka_unit_test(lanes_do_not_disturb_each_other),
        cmocka_unit_test(what_cannot_be_trained_is_named),
        cmocka_unit_test(fixed_first_dimension_is_checked),
        cmocka_unit_test(memory_that_runs_out_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
