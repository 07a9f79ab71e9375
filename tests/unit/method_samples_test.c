/* Samples in memory: floats that came from bytes are kept as bytes, to the bit; ranges reach as far
 * as samples that are left out do. */
#include "data_files.h"
#include "graph_kit.h"
#include "samples_kit.h"

#include <math.h>
#include <string.h>

#include "graph/rewrite.h"
#include "ops/ops.h"
#include "quant/method.h"

enum { SIDE = 40, PIXELS = 3 * SIDE * SIDE };

/* --- packing ---------------------------------------------------------------------------------- */

static const float mean[] = { 0.485f, 0.456f, 0.406f }, deviation[] = { 0.229f, 0.224f, 0.225f };

/* A picture as networks take it; channels second or last. */
static void picture(rng *r, bool last, float *x)
{
    for (int i = 0; i < PIXELS; i++) {
        const int c = last ? i % 3 : i / (SIDE * SIDE);
        x[i] = ((float)rng_below(r, 256) / 255 - mean[c]) / deviation[c];
    }
}

static void check_packing(const rung_tensor *t, bool packs)
{
    arena *mem = arena_new();
    packed p;
    rung_tensor back;
    assert_true(pack_tensor(mem, t, &p));
    assert_int_equal(p.codes != NULL, packs);
    assert_true(!packs || packed_bytes(&p) < rung_tensor_bytes(t) / 2);
    assert_true(unpack_tensor(&p, mem, 2, &back));
    assert_int_equal(rung_tensor_bytes(&back), rung_tensor_bytes(t));
    assert_memory_equal(back.data, t->data, rung_tensor_bytes(t));
    arena_free(mem);
}

static void pictures_are_kept_as_bytes(void **state)
{
    static float x[PIXELS];
    rng r;
    (void)state;
    rng_seed(&r, 1);
    picture(&r, false, x);
    x[7] = x[8] = NAN; /* one more value each: exact like the others, where there is room */
    x[SIDE * SIDE - 1] = x[7];
    for (int i = 0; i < 60; i++)
        x[i + 10] = -0.0f;
    const rung_tensor first = { RUNG_F32, 4, { 1, 3, SIDE, SIDE }, x };
    for (int i = 0; i < SIDE * SIDE; i++) /* leave room: at most 255 values and these two */
        x[i] = x[i] > 2.0f ? 0 : x[i];
    check_packing(&first, true);
    picture(&r, true, x);
    const rung_tensor last = { RUNG_F32, 4, { 1, SIDE, SIDE, 3 }, x };
    check_packing(&last, true);
}

static void other_tensors_stay(void **state)
{
    static float x[PIXELS];
    rng r;
    (void)state;
    rng_seed(&r, 2);
    for (int i = 0; i < PIXELS; i++)
        x[i] = rng_normal(&r);
    const rung_tensor floats = { RUNG_F32, 4, { 1, 3, SIDE, SIDE }, x };
    const rung_tensor integers = { RUNG_I32, 2, { 60, 80 }, x };
    const rung_tensor few = { RUNG_F32, 2, { 1, 10 }, x };
    check_packing(&floats, false);
    check_packing(&integers, false);
    check_packing(&few, false);
}

/* --- reach ------------------------------------------------------------------------------------ */

enum { SAMPLES = 40, CHANNELS = 3, POINTS = 16 };

/* One sample goes `beyond` times as far as any other. */
static dataset *open_data(float beyond)
{
    static float x[SAMPLES * CHANNELS * POINTS];
    const rung_tensor all = { RUNG_F32, 4, { SAMPLES, CHANNELS, 4, 4 }, x };
    for (int i = 0; i < SAMPLES * CHANNELS * POINTS; i++)
        x[i] = (float)(i % POINTS + 1) / POINTS;
    x[POINTS - 1] = beyond;
    return samples_open(&all);
}

/* x -> Conv by 2 -> Relu -> Conv -> y, each channel by itself. */
static graph *network(int *measured)
{
    static const float twice[CHANNELS] = { 2, 2, 2 }, zeros[CHANNELS] = { 0 };
    graph *g = kit_graph(op_find);
    int x = kit_input(g, "x", 4, DIMS(-1, CHANNELS, 4, 4));
    for (int i = 0; i < 2; i++) {
        const int w = kit_constant(g, "w", RUNG_F32, 4, DIMS(CHANNELS, 1, 1, 1), twice);
        const int b = kit_constant(g, "b", RUNG_F32, 1, DIMS(CHANNELS), zeros);
        x = kit_node(g, "Conv", "", 3, IDS(x, w, b));
        kit_set_int(g, "group", CHANNELS);
        x = i ? x : kit_node(g, "Relu", "", 1, IDS(x));
        *measured = i ? *measured : x;
    }
    kit_output(g, x);
    return g;
}

static void check_reach(float beyond, double wanted)
{
    int relu = -1;
    graph *g = network(&relu);
    dataset *d = open_data(beyond);
    rung_quant_options opt = RUNG_QUANT_OPTIONS;
    double plain[32], equal[32];
    reaches reach = { plain, equal };
    samples s;
    size_t n;
    opt.quiet = true;
    assert_true(g->n_values < 32);
    assert_ok(rewrite_prepare(g, err));
    assert_ok(split_roles(g, err));
    opt.seed = 3;
    assert_ok(samples_load(g, d, &opt, &s, err));
    s.n_threads = 1;
    s.n_fit = s.n; /* wherever the one sample is */
    assert_ok(methods_equalize(g, &s, &opt, &n, &reach, err));
    assert_float_equal(plain[relu], wanted, 1e-6);
    assert_true(equal[relu] >= plain[relu] - 1e-6);
    samples_free(&s);
    dataset_free(d);
    graph_free(g);
}

static void ranges_reach_half_as_far_as_samples_left_out(void **state)
{
    (void)state;
    check_reach(1, 1);
    check_reach(1.5f, 1.25);
    check_reach(3, 2);
}

/* A recipe of one activation, uint8. */
static void stretched_ranges_hold_more(void **state)
{
    placement place = { .kind = PLACE_ACTIVATION };
    qsettings set = { .act_type = RUNG_U8, .act_bits = 8 };
    qparams params = { 0.01f, 100, RUNG_U8, 8 };
    recipe r = { .n_values = 1, .places = &place, .set = &set, .params = &params };
    const double none = 1, half = 1.5;
    (void)state;
    stretch_ranges(&r, &none);
    assert_float_equal(params.scale, 0.01f, 1e-9);
    stretch_ranges(&r, &half);
    assert_float_equal(params.scale, 0.015f, 1e-7);
    assert_int_equal(params.zero, 100);
}

static void shared_clones_read_the_original(void **state)
{
    int relu;
    graph *g = network(&relu), *c = NULL;
    (void)state;
    assert_ok(graph_clone_shared(g, &c, err));
    assert_ok(graph_verify(c, err));
    for (size_t v = 0; v < g->n_values; v++)
        assert_ptr_equal(c->values[v].constant, g->values[v].constant);
    graph_free(c);
    assert_ok(graph_verify(g, err));
    graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pictures_are_kept_as_bytes),
        cmocka_unit_test(other_tensors_stay),
        cmocka_unit_test(ranges_reach_half_as_far_as_samples_left_out),
        cmocka_unit_test(stretched_ranges_hold_more),
        cmocka_unit_test(shared_clones_read_the_original),
    };
    return cmocka_run_group_tests(tests, enter_folder, leave_folder);
}
