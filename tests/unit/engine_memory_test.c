/* The static memory plan: on random graphs no two values that live together overlap. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include "engine/plan.h"
#include "engine_graphs.h"

#include <cmocka.h>
#undef fail /* cmocka's macro hides base/status.h's function */

/* 20 nodes, each reading values made before: long and short lives, views, in-place steps. */
static graph *random_graph(uint64_t seed)
{
    builder b = build_begin(seed);
    int values[32], n = 0;
    values[n++] = build_input(&b, "x", 4, (int64_t[]){1, 4, 6, 6});
    for (int i = 0; i < 20; i++) {
        const int a = values[rng_below(&b.r, (uint64_t)n)];
        const int c = values[rng_below(&b.r, (uint64_t)n)];
        switch (rng_below(&b.r, 6)) {
        case 0:
            values[n++] = build_conv(&b, a, 4, 4, 3, false);
            break;
        case 1:
            values[n++] = build_node(&b, "Add", (int[]){a, c, -1}, NULL);
            break;
        case 2:
            values[n++] = build_node(&b, "Relu", (int[]){a, -1}, NULL);
            break;
        case 3:
            values[n++] = build_pair(&b, a, ACTIVATION_SCALE, 128);
            break;
        case 4:
            values[n++] = build_node(&b, "Mul", (int[]){a, c, -1}, NULL);
            break;
        default:
            values[n++] = build_node(&b, "Sigmoid", (int[]){a, -1}, NULL);
            break;
        }
    }
    build_output(&b, values[n - 1]);
    if (values[n / 2] != values[0])
        build_output(&b, values[n / 2]);
    return build_end(&b);
}

static plan *make(const graph *g)
{
    rung_error err;
    plan *p = NULL;
    const engine_options opt = {0};
    expect_ok(plan_build(g, &opt, 2, &p, &err), &err);
    return p;
}

static void lives_do_not_overlap(void **state)
{
    for (uint64_t seed = 0; seed < 200; seed++) {
        graph *g = random_graph(seed);
        plan *p = make(g);
        assert_true(plan_memory_is_sound(p));
        plan_free(p);
        graph_free(g);
    }
}

/* The check itself finds an overlap. */
static void overlap_is_seen(void **state)
{
    graph *g = random_graph(3);
    plan *p = make(g);
    slot *x = &p->slots[p->input_slots[0]];
    for (size_t i = 0; i < p->n_slots; i++) {
        slot *s = &p->slots[i];
        if (s != x && s->root == (int)i && s->first >= 0 && s->bytes && s->offset)
            s->offset = x->offset;
    }
    assert_false(plan_memory_is_sound(p));
    plan_free(p);
    graph_free(g);
}

/* Buffers are used again: a long chain takes a few of them, not one per node. */
static void chain_is_small(void **state)
{
    builder b = build_begin(1);
    int x = build_input(&b, "x", 4, (int64_t[]){1, 4, 32, 32});
    for (int i = 0; i < 30; i++)
        x = build_conv(&b, x, 4, 4, 3, false);
    build_output(&b, x);
    graph *g = build_end(&b);
    plan *p = make(g);
    assert_true(p->buffer_bytes <= 4 * (4 * 32 * 32 * sizeof(float)));
    plan_free(p);
    graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lives_do_not_overlap),
        cmocka_unit_test(overlap_is_seen),
        cmocka_unit_test(chain_is_small),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
