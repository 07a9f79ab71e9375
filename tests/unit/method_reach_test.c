/* How far ranges reach beyond calibration: half as far as samples left out go beyond the others. */
#include "data_files.h"
#include "graph_kit.h"

#include <math.h>

#include "base/mem.h"
#include "data/npy.h"
#include "graph/rewrite.h"
#include "ops/ops.h"
#include "quant/method.h"

enum { SAMPLES = 50, CHANNELS = 4, SIDE = 6, SAMPLE = CHANNELS * SIDE * SIDE };

/* Of the input of a Conv, whose samples hold what fill gives. */
static double reach_of_input(float (*fill)(rng *r, size_t sample))
{
    static float x[SAMPLES * SAMPLE];
    const rung_tensor all = { RUNG_F32, 4, { SAMPLES, CHANNELS, SIDE, SIDE }, x };
    const dataset_options data_opt = { .n_workers = 1 };
    rung_quant_options opt = RUNG_QUANT_OPTIONS;
    graph *g = kit_graph(op_find);
    dataset *d;
    samples s;
    rng r;
    size_t n;
    rng_seed(&r, 3);
    for (size_t i = 0; i < SAMPLES * SAMPLE; i++)
        x[i] = fill(&r, i / SAMPLE);
    const int in = kit_input(g, "x", 4, DIMS(-1, CHANNELS, SIDE, SIDE));
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
    assert_true(reach_of_input(uniform) < 1.02);
    assert_true(reach_of_input(bounded) == 1);
    assert_true(reach_of_input(heavy) > 1.03);
}

/* One sample at twice the range of the others. */
static float twice(rng *r, size_t sample)
{
    return (sample == 17 ? 2.0F : 1.0F) * (rng_uniform(r) < 0.5 ? -1.0F : 1.0F);
}

static void a_range_is_stretched_half_as_far(void **state)
{
    (void)state;
    assert_true(fabs(reach_of_input(twice) - 1.5) < 1e-6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_what_goes_beyond_is_stretched),
        cmocka_unit_test(a_range_is_stretched_half_as_far),
    };
    return cmocka_run_group_tests(tests, enter_folder, leave_folder);
}
