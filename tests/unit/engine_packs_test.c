/* What the engines of one graph pack of its weights is made once. */
#include <pthread.h>
#include <string.h>

#include "unit.h"

#include "base/mem.h"
#include "engine/plan.h"
#include "engine_graphs.h"
#include "kernels/kernels.h"
#include "ops/lower.h"
#include "ops/packs.h"

enum { N_THREADS = 4 };

static int quantized_layer(builder *b, int x, int out_c, int k)
{
    return build_pair(b, build_conv(b, x, 8, out_c, k, true), ACTIVATION_SCALE, 128);
}

/* x [batch, 8, 9, 7]: three quantized convolutions, the last two of one tap. */
static graph *integer_graph(void)
{
    builder b = build_begin(5);
    const int x = build_input(&b, "x", 4, (int64_t[]){DIM_UNKNOWN, 8, DIM_UNKNOWN, 7});
    int v = build_pair(&b, x, ACTIVATION_SCALE, 128);
    v = quantized_layer(&b, v, 8, 3);
    v = quantized_layer(&b, v, 8, 1);
    build_output(&b, quantized_layer(&b, v, 24, 1));
    return build_end(&b);
}

static rung_status make(const graph *g, pack_store *s, int64_t batch, int64_t height, engine **out,
                        rung_error *err)
{
    const int64_t dims[] = {batch, 8, height, 7};
    const int64_t *all[] = {dims};
    const engine_options opt = {.n_threads = 1, .input_dims = all, .packs = s};
    return engine_create(g, &opt, out, err);
}

static engine *engine_of(const graph *g, pack_store *s, int64_t batch, int64_t height)
{
    rung_error err;
    engine *e = NULL;
    expect_ok(make(g, s, batch, height, &e, &err), &err);
    return e;
}

static pack_store *new_store(void)
{
    rung_error err;
    pack_store *s = NULL;
    expect_ok(pack_store_create(&s, &err), &err);
    assert_int_equal(pack_store_bytes(s), 0);
    return s;
}

static void run(engine *e)
{
    rung_error err;
    const tensor *x = engine_input(e, 0);
    rng r;
    rng_seed(&r, 3);
    for (size_t i = 0; i < tensor_count(x); i++)
        ((float *)x->data)[i] = rng_normal(&r);
    expect_ok(engine_run(e, &err), &err);
}

static void expect_same_results(engine *a, engine *b)
{
    run(a);
    run(b);
    const tensor *x = engine_output(a, 0), *y = engine_output(b, 0);
    assert_int_equal(tensor_count(x), tensor_count(y));
    assert_memory_equal(x->data, y->data, tensor_count(x) * sizeof(float));
}

static void the_second_engine_packs_nothing(void **state)
{
    graph *g = integer_graph();
    pack_store *s = new_store();
    engine *alone = engine_of(g, NULL, 2, 9), *first = engine_of(g, s, 2, 9);
    const size_t packed = pack_store_bytes(s);
    assert_true(packed > 8 * 8 * 9 + 8 * 8 + 8 * 24);
    assert_true(engine_bytes(first) < engine_bytes(alone));
    engine *second = engine_of(g, s, 2, 9);
    assert_int_equal(pack_store_bytes(s), packed);
    expect_same_results(alone, first);
    expect_same_results(alone, second);
    engine_free(first);
    expect_same_results(alone, second);
    assert_int_equal(pack_store_bytes(s), packed);
    engine_free(second);
    assert_int_equal(pack_store_bytes(s), 0);
    engine_free(alone);
    pack_store_free(s);
    graph_free(g);
}

/* Other batches share all; another height at least what has one tap, and computes the same. */
static void shapes_share_what_is_the_same(void **state)
{
    graph *g = integer_graph();
    pack_store *s = new_store();
    engine *small = engine_of(g, s, 1, 9);
    const size_t packed = pack_store_bytes(s);
    engine *large = engine_of(g, s, 16, 9);
    assert_int_equal(pack_store_bytes(s), packed);
    engine *high = engine_of(g, s, 16, 30), *alone = engine_of(g, NULL, 16, 30);
    assert_true(pack_store_bytes(s) < 2 * packed);
    expect_same_results(high, alone);
    engine_free(alone);
    alone = engine_of(g, NULL, 16, 9);
    expect_same_results(large, alone);
    engine_free(alone);
    engine_free(small);
    engine_free(large);
    engine_free(high);
    pack_store_free(s);
    graph_free(g);
}

/* The store and the graph may go first. */
static void engines_outlive_the_store(void **state)
{
    graph *g = integer_graph();
    pack_store *s = new_store();
    engine *alone = engine_of(g, NULL, 1, 9), *first = engine_of(g, s, 1, 9);
    engine *second = engine_of(g, s, 1, 9);
    pack_store_free(s);
    graph_free(g);
    engine_free(first);
    expect_same_results(alone, second);
    engine_free(alone);
    engine_free(second);
    pack_store_free(NULL);
}

typedef struct racer {
    const graph *g;
    pack_store *s;
    int64_t batch;
    rung_status status;
} racer;

static void *race(void *ctx)
{
    racer *r = ctx;
    for (int i = 0; i < 20 && r->status == RUNG_OK; i++) {
        engine *e = NULL;
        r->status = make(r->g, r->s, r->batch, 9, &e, NULL);
        engine_free(e);
    }
    return NULL;
}

static void threads_may_create_at_once(void **state)
{
    graph *g = integer_graph();
    pack_store *s = new_store();
    racer racers[N_THREADS];
    pthread_t threads[N_THREADS];
    for (int i = 0; i < N_THREADS; i++) {
        racers[i] = (racer){g, s, i % 2 + 1, RUNG_OK};
        assert_int_equal(pthread_create(&threads[i], NULL, race, &racers[i]), 0);
    }
    for (int i = 0; i < N_THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(racers[i].status, RUNG_OK);
    }
    assert_int_equal(pack_store_bytes(s), 0);
    pack_store_free(s);
    graph_free(g);
}

/* Each allocation in turn, in the first engine of a store and in one that finds all made. */
static void failures_leave_nothing(void **state)
{
    graph *g = integer_graph();
    pack_store *s = NULL;
    mem_fail_after(0);
    assert_int_equal(pack_store_create(&s, NULL), RUNG_EMEMORY);
    mem_fail_after(-1);
    assert_null(s);
    s = new_store();
    for (int user = 0; user < 2; user++) {
        engine *other = user ? engine_of(g, s, 1, 9) : NULL, *e = NULL;
        const size_t packed = pack_store_bytes(s);
        rung_status st = RUNG_EMEMORY;
        for (long n = 0; st != RUNG_OK; n++) {
            mem_fail_after(n);
            st = make(g, s, 1, 9, &e, NULL);
            mem_fail_after(-1);
            if (st == RUNG_OK)
                break;
            assert_int_equal(st, RUNG_EMEMORY);
            assert_null(e);
            assert_int_equal(pack_store_bytes(s), packed);
        }
        engine_free(e);
        engine_free(other);
        assert_int_equal(pack_store_bytes(s), 0);
    }
    pack_store_free(s);
    graph_free(g);
}

/* Of every row that runs here: a kernel of one tap packs the same whatever the image's extent, all
 * kernels whatever the batch. */
static void packing_knows_no_more_than_its_key(void **state)
{
    int8_t w[72 * 72];
    for (size_t i = 0; i < sizeof w; i++)
        w[i] = (int8_t)(i * 37 % 255 - 127);
    for (const conv_kernel *k = conv_u8s8; k->name; k++)
        for (int groups = 1; groups <= 72; groups += 71) {
            const conv_shape small = {1, 1, 1, 72, 1, 1, 72, 1, 1, 1, 1, 1, 1, 0, 0, groups};
            const conv_shape large = {9, 90, 70000, 72, 90, 70000, 72, 1, 1, 1, 1, 1, 1, 0, 0,
                                      groups};
            if (!k->fits(&small) || !k->fits(&large))
                continue;
            const size_t size = k->packed_size(&small);
            assert_int_equal(k->packed_size(&large), size);
            void *a = mem_zero(size, 1), *b = mem_zero(size, 1);
            k->pack(&small, w, NULL, 7, a);
            k->pack(&large, w, NULL, 7, b);
            assert_memory_equal(a, b, size);
            mem_free(a);
            mem_free(b);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_second_engine_packs_nothing),
        cmocka_unit_test(shapes_share_what_is_the_same),
        cmocka_unit_test(engines_outlive_the_store),
        cmocka_unit_test(threads_may_create_at_once),
        cmocka_unit_test(failures_leave_nothing),
        cmocka_unit_test(packing_knows_no_more_than_its_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
