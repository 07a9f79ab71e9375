/* The search for layers of more than 8 bits, on accuracies and times known by formula. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "graph_kit.h"

#include "quant/mixed.h"

/* --- the search ------------------------------------------------------------------------------- */

enum { LAYERS = 12 };

/* Layers without a network: what each costs and takes away is given. */
typedef struct made {
    mixed_layer layers[LAYERS];
    size_t      nodes[LAYERS];
    level       levels[LAYERS];
    bool        can_widen[LAYERS], helps[LAYERS]; /* 16 bits are possible; take the loss away */
    recipe      r;
    candidates  c;
    double      loss[LAYERS]; /* points, while a layer is in 8 bits, or 16 that do not help */
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
        m->can_widen[i] = true;
    }
    m->c = (candidates){ .r = &m->r, .layers = m->layers, .nodes = m->nodes, .n = n,
                         .macs = 100 * (int64_t)n, .levels = m->levels,
                         .can_widen = m->can_widen };
    return m;
}

static rung_status loss_of(void *ctx, const level *levels, double *drop, rung_error *err)
{
    made *m = ctx;
    (void)err;
    m->asked++;
    *drop = m->base;
    for (size_t i = 0; i < m->c.n; i++)
        *drop += levels[i] == LEVEL_FLOAT || (levels[i] == LEVEL_WIDE && m->helps[i]) ? 0
                                                                                      : m->loss[i];
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

static size_t n_of(const made *m, level l)
{
    size_t n = 0;
    for (size_t i = 0; i < m->c.n; i++)
        n += m->levels[i] == l;
    return n;
}

static size_t n_float(const made *m)
{
    assert_int_equal(n_of(m, LEVEL_WIDE), 0);
    return n_of(m, LEVEL_FLOAT);
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
    /* 16 bits for all; the layer alone in float, which is enough; 16 bits for it. */
    assert_int_equal(m->asked, 3);
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
    /* 16 bits for all, doubling, halving, each of seven taken back, and two in 16 bits. */
    assert_true(m->asked <= 1 + 4 + 2 + 7 + 2);
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

static void sixteen_bits_come_before_float(void **state)
{
    (void)state;
    made *m = make(LAYERS);
    bool met;
    for (size_t i = 0; i < LAYERS; i++) {
        m->layers[i].effect = (double)(LAYERS - i);
        m->helps[i] = true;
    }
    m->loss[2] = m->loss[3] = 4;
    assert_true(search(m, 1, &met) == 0 && met);
    assert_true(n_of(m, LEVEL_WIDE) == 2 && m->levels[2] == LEVEL_WIDE &&
                m->levels[3] == LEVEL_WIDE && n_of(m, LEVEL_FLOAT) == 0);
    free(m);
}

/* All layers in 16 bits are an integer network yet. */
static void all_layers_may_have_sixteen_bits(void **state)
{
    (void)state;
    made *m = make(LAYERS);
    bool met;
    for (size_t i = 0; i < LAYERS; i++) {
        m->loss[i] = m->layers[i].effect = 1;
        m->helps[i] = true;
    }
    assert_true(search(m, 0, &met) == 0 && met && n_of(m, LEVEL_WIDE) == LAYERS);
    free(m);
}

/* One suffers from its weights, two from their activations: one of these cannot have 16 bits. */
static void each_layer_gets_what_it_needs(void **state)
{
    (void)state;
    made *m = make(LAYERS);
    bool met;
    for (size_t i = 1; i < 4; i++)
        m->loss[i] = m->layers[i].effect = 5;
    m->helps[2] = m->helps[3] = true;
    m->can_widen[3] = false;
    assert_true(search(m, 1, &met) == 0 && met);
    assert_true(m->levels[1] == LEVEL_FLOAT && m->levels[2] == LEVEL_WIDE &&
                m->levels[3] == LEVEL_FLOAT && n_of(m, LEVEL_INT8) == LAYERS - 3);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_layer_to_blame_is_freed),
        cmocka_unit_test(wrong_predictions_are_corrected),
        cmocka_unit_test(cheap_layers_come_first),
        cmocka_unit_test(budgets_that_cannot_be_met),
        cmocka_unit_test(layers_in_float_already_stay),
        cmocka_unit_test(sixteen_bits_come_before_float),
        cmocka_unit_test(all_layers_may_have_sixteen_bits),
        cmocka_unit_test(each_layer_gets_what_it_needs),
        cmocka_unit_test(failures_of_the_judge_end_the_search),
        cmocka_unit_test(slow_layers_go_to_float_where_it_pays),
        cmocka_unit_test(fast_networks_are_left_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
