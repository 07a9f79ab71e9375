/* How far ranges reach beyond calibration: where samples left out go beyond the others, and as far
 * as coarser steps for all values are worth it. */
#include "data_files.h"
#include "graph_kit.h"

#include <math.h>

#include "base/mem.h"
#include "data/npy.h"
#include "graph/rewrite.h"
#include "ops/ops.h"
#include "quant/method.h"

enum { SAMPLES = 50, CHANNELS = 4, SIDE = 6, INNER = SIDE * SIDE, MOST_SIDE = 48 };

/* One 1x1 Conv on images whose upper left SIDE x SIDE holds what fill gives; the rest is 0. */
static double reach_of_input(int side, float (*fill)(rng *r, size_t sample))
{
    const size_t area = (size_t)side * (size_t)side, per = CHANNELS * area;
    float *x = mem_zero(SAMPLES * per, sizeof *x);
    const rung_tensor all = { RUNG_F32, 4, { SAMPLES, CHANNELS, side, side }, x };
    const dataset_options data_opt = { .n_workers = 1 };
    rung_quant_options opt = RUNG_QUANT_OPTIONS;
    graph *g = kit_graph(op_find);
    dataset *d;
    samples s;
    rng r;
    size_t n;
    rng_seed(&r, 3);
    for (size_t k = 0; k < SAMPLES; k++)
        for (size_t i = 0; i < CHANNELS * INNER; i++)
            x[k * per + i / INNER * area + i % INNER / SIDE * (size_t)side + i % SIDE] =
                fill(&r, k);
    const int in = kit_input(g, "x", 4, DIMS(-1, CHANNELS, side, side));
    const int w = kit_random(g, &r, "w", 4, DIMS(CHANNELS, CHANNELS, 1, 1));
    kit_output(g, kit_node(g, "Conv", "c", 2, IDS(in, w)));
    assert_ok(graph_sort(g, err));
    assert_ok(npy_write_file("reach.npy", &all, err));
    assert_ok(dataset_open("npy:reach.npy", &data_opt, &d, err));
    opt.n_threads = 1;
    assert_ok(samples_load(g, d, &opt, &s, err));
    reaches to = { mem_zero(g->n_values, sizeof(double)), mem_zero(g->n_values, sizeof(double)) };
    assert_ok(methods_equalize(g, &s, &opt, &n, &to, err));
    const double reach = to.plain[in];
    assert_true(to.equal[in] == reach); /* nothing before it: no factors */
    mem_free(to.plain);
    mem_free(to.equal);
    samples_free(&s);
    dataset_free(d);
    graph_free(g);
    mem_free(x);
    return reach;
}

static float uniform(rng *r, size_t sample)
{
    (void)sample;
    return (float)rng_uniform(r);
}

/* Samples of very different size. */
static float heavy(rng *r, size_t sample)
{
    return expf((float)(sample * 7 % SAMPLES) / 8) * (float)rng_uniform(r);
}

/* The largest there is comes in every sample. */
static float bounded(rng *r, size_t sample)
{
    (void)sample;
    return fminf(fmaxf(rng_normal(r), 0), 1);
}

static void only_what_goes_beyond_is_stretched(void **state)
{
    (void)state;
    assert_true(reach_of_input(SIDE, uniform) < 1.02);
    assert_true(reach_of_input(SIDE, bounded) == 1);
    assert_true(reach_of_input(SIDE, heavy) > 1.1);
}

/* The same values among 64 times as many: what is clipped is the same, what is coarser is more. */
static void steps_of_many_values_count(void **state)
{
    (void)state;
    assert_true(reach_of_input(MOST_SIDE, heavy) < reach_of_input(SIDE, heavy));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_what_goes_beyond_is_stretched),
        cmocka_unit_test(steps_of_many_values_count),
    };
    return cmocka_run_group_tests(tests, enter_folder, leave_folder);
}
