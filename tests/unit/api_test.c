/* The public interface as a C program sees it: what it refuses, how its structs grow, what it does
 * when memory runs out, and sessions in several threads. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "unit.h"

#include "base/mem.h"
#include "graph_kit.h"
#include "onnx/onnx.h"
#include "ops/ops.h"
#include "rung.h"

enum { N = 3, C = 4, SIDE = 6, CLASSES = 5, VALUES = N * C * SIDE * SIDE };

/* x [N?, 4, 6, 6] -> Conv 3x3, Relu, GlobalAveragePool, Flatten, Gemm -> scores [N?, 5]. */
static graph *small_net(void)
{
    rng r;
    rng_seed(&r, 1);
    graph *g = kit_graph(op_find);
    const int x = kit_input(g, "x", 4, DIMS(DIM_UNKNOWN, C, SIDE, SIDE));
    const int w = kit_random(g, &r, "w", 4, DIMS(8, C, 3, 3));
    const int b = kit_random(g, &r, "b", 1, DIMS(8));
    const int conv = kit_node(g, "Conv", "conv", 3, IDS(x, w, b));
    const int relu = kit_node(g, "Relu", "relu", 1, IDS(conv));
    const int pool = kit_node(g, "GlobalAveragePool", "pool", 1, IDS(relu));
    const int flat = kit_node(g, "Flatten", "flat", 1, IDS(pool));
    const int m = kit_random(g, &r, "m", 2, DIMS(8, CLASSES));
    kit_output(g, kit_node(g, "Gemm", "fc", 2, IDS(flat, m)));
    return g;
}

static rung_model *load(const char *path)
{
    rung_model *model = NULL;
    assert_ok(rung_model_load(path, &model, err));
    return model;
}

static void fill(const rung_tensor *t, uint64_t seed)
{
    rng r;
    rng_seed(&r, seed);
    for (int i = 0; i < VALUES; i++)
        ((float *)t->data)[i] = rng_normal(&r);
}

static rung_session *session_of(const rung_model *model, int n_threads)
{
    const rung_session_options o = { .size = sizeof o, .n_threads = n_threads, .batch = N };
    rung_session *s = NULL;
    assert_ok(rung_session_create(model, &o, &s, err));
    return s;
}

/* A folder with net.onnx and data.npy, which all tests use. */
static int enter(void **state)
{
    static char name[] = "/tmp/rung-api-XXXXXX";
    *state = mkdtemp(name);
    if (!*state || chdir(name) != 0)
        return -1;
    graph *g = small_net();
    assert_ok(onnx_write_file(g, "net.onnx", false, err));
    graph_free(g);
    float values[VALUES];
    rung_tensor t = { RUNG_F32, 4, { N, C, SIDE, SIDE }, values };
    fill(&t, 5);
    assert_ok(rung_npy_save("data.npy", &t, err));
    return 0;
}

static int leave(void **state)
{
    char command[64];
    snprintf(command, sizeof command, "rm -rf %s", (const char *)*state);
    return chdir("/") == 0 && system(command) == 0 ? 0 : -1;
}

/* --- refusals -------------------------------------------------------------------------------- */

static void test_null_arguments(void **state)
{
    rung_model *model = load("net.onnx"), *out = NULL;
    rung_dataset *data = NULL;
    rung_session *s = NULL;
    rung_tensor t = { RUNG_F32, 0, { 0 }, NULL };
    rung_eval_result eval;
    rung_bench_result bench;
    char *text = NULL;
    assert_ok(rung_dataset_open("npy:data.npy", NULL, NULL, 0, &data, err));
    assert_fails(rung_model_load(NULL, &out, err), RUNG_EARGUMENT, "path");
    assert_fails(rung_model_load("net.onnx", NULL, err), RUNG_EARGUMENT, "out");
    assert_fails(rung_model_load_memory(NULL, 4, &out, err), RUNG_EARGUMENT, "data");
    assert_fails(rung_model_load_memory("", 0, NULL, err), RUNG_EARGUMENT, "out");
    assert_fails(rung_model_save(NULL, "x", err), RUNG_EARGUMENT, "model");
    assert_fails(rung_model_save(model, NULL, err), RUNG_EARGUMENT, "path");
    assert_fails(rung_model_inspect(NULL, true, &text, err), RUNG_EARGUMENT, "model");
    assert_fails(rung_model_inspect(model, true, NULL, err), RUNG_EARGUMENT, "text");
    assert_fails(rung_dataset_open(NULL, NULL, model, 0, &data, err), RUNG_EARGUMENT, "spec");
    assert_fails(rung_dataset_open("random", NULL, model, 0, NULL, err), RUNG_EARGUMENT, "out");
    assert_fails(rung_dataset_open("random", NULL, model, -1, &data, err), RUNG_EARGUMENT, "-1");
    assert_fails(rung_quantize_static(NULL, data, NULL, &out, NULL, err), RUNG_EARGUMENT, "model");
    assert_fails(rung_quantize_static(model, NULL, NULL, &out, NULL, err), RUNG_EARGUMENT, "data");
    assert_fails(rung_quantize_static(model, data, NULL, NULL, NULL, err), RUNG_EARGUMENT, "out");
    assert_fails(rung_session_create(NULL, NULL, &s, err), RUNG_EARGUMENT, "model");
    assert_fails(rung_session_create(model, NULL, NULL, err), RUNG_EARGUMENT, "out");
    assert_fails(rung_session_run(NULL, err), RUNG_EARGUMENT, "session");
    assert_fails(rung_npy_load(NULL, &t, err), RUNG_EARGUMENT, "path");
    assert_fails(rung_npy_load("data.npy", NULL, err), RUNG_EARGUMENT, "t must");
    assert_fails(rung_npy_save("x.npy", NULL, err), RUNG_EARGUMENT, "t must");
    assert_fails(rung_eval(model, NULL, NULL, NULL, &eval, NULL, err), RUNG_EARGUMENT, "data");
    assert_fails(rung_eval(model, NULL, data, NULL, NULL, NULL, err), RUNG_EARGUMENT, "result");
    assert_fails(rung_bench(NULL, NULL, &bench, NULL, err), RUNG_EARGUMENT, "model");
    assert_int_equal(rung_model_load("absent.onnx", &out, NULL), RUNG_EIO); /* err may be NULL */
    rung_dataset_free(data);
    rung_model_free(model);
}

static void test_handles_that_are_null_or_out_of_range(void **state)
{
    rung_model *model = load("net.onnx");
    rung_session *s = session_of(model, 1);
    rung_model_free(NULL);
    rung_dataset_free(NULL);
    rung_session_free(NULL);
    rung_diagnostics_free(NULL);
    rung_text_free(NULL);
    rung_npy_free(NULL);
    assert_int_equal(rung_model_n_inputs(NULL), 0);
    assert_int_equal(rung_session_n_inputs(NULL), 0);
    assert_int_equal(rung_session_n_outputs(NULL), 0);
    assert_int_equal(rung_dataset_size(NULL), 0);
    assert_false(rung_dataset_is_random(NULL));
    assert_int_equal(rung_diagnostics_count(NULL), 0);
    assert_string_equal(rung_diagnostics_get(NULL, 0).code, "");
    assert_string_equal(rung_model_input_name(model, 0), "x");
    assert_null(rung_model_input_name(model, 1));
    assert_null(rung_model_input_name(model, -1));
    assert_string_equal(rung_session_input_name(s, 0), "x");
    assert_null(rung_session_input_name(s, 1));
    assert_null(rung_session_output_name(s, -1));
    assert_null(rung_session_input(s, 1));
    assert_null(rung_session_output(s, 1));
    assert_string_equal(rung_version(), RUNG_VERSION);
    rung_session_free(s);
    rung_model_free(model);
}

static void test_options_that_are_refused(void **state)
{
    rung_model *model = load("net.onnx"), *out = NULL;
    rung_dataset *data = NULL;
    assert_ok(rung_dataset_open("npy:data.npy", NULL, model, 1, &data, err));
    static const struct {
        rung_quant_options o;
        const char        *says;
    } cases[] = {
        { { .range = (rung_range)99 }, "99" },
        { { .percentile = 101 }, "101" },
        { { .act_type = RUNG_I32 }, "int32" },
        { { .act_type = RUNG_I16, .act_bits = 6 }, "6 bits" },
        { { .n_threads = -1 }, "negative" },
        { { .batch = -1 }, "negative" },
        { { .n_exclude = 1 }, "names" },
        { { .n_ops = 2 }, "names" },
        { { .preprocess = "zoom=2" }, "zoom" },
        { { .act_bits = 9 }, "2 to 8" },
        { { .act_bits = -1 }, "2 to 8" },
        { { .act_affine = true, .act_symmetric = true }, "exclude each other" },
        { { .per_channel = true, .per_tensor = true }, "exclude each other" },
        { { .full_range = true, .reduce_range = true }, "exclude each other" },
        { { .qconfig = "fbgem" }, "fbgem" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        rung_quant_options o = cases[i].o;
        o.size = sizeof o;
        assert_fails(rung_quantize_static(model, data, &o, &out, NULL, err), RUNG_EARGUMENT,
                     cases[i].says);
    }
    rung_dataset_free(data);
    rung_model_free(model);
}

/* --- structs that grow ------------------------------------------------------------------------ */

typedef struct newer_options {
    rung_session_options now;
    long                 later;
} newer_options;

static void test_option_structs_grow(void **state)
{
    rung_model *model = load("net.onnx");
    rung_session *s = NULL;
    rung_session_options none = { 0 };
    assert_fails(rung_session_create(model, &none, &s, err), RUNG_EARGUMENT, "size is not set");
    none.size = sizeof(size_t) - 1;
    assert_fails(rung_session_create(model, &none, &s, err), RUNG_EARGUMENT, "size is not set");

    newer_options newer = { .now = { .size = sizeof newer, .batch = 2 } };
    /* A field that is left zero asks for nothing. */
    assert_ok(rung_session_create(model, &newer.now, &s, err));
    assert_int_equal(rung_session_input(s, 0)->dims[0], 2);
    rung_session_free(s);
    newer.later = 1;
    assert_fails(rung_session_create(model, &newer.now, &s, err), RUNG_EARGUMENT, "newer");

    /* Of an older version: what it has no field for is the default. */
    rung_session_options older = { .size = offsetof(rung_session_options, batch), .batch = 7 };
    assert_ok(rung_session_create(model, &older, &s, err));
    assert_int_equal(rung_session_input(s, 0)->dims[0], 1);
    rung_session_free(s);
    rung_model_free(model);
}

/* --- tensors ---------------------------------------------------------------------------------- */

static void test_tensor_bytes(void **state)
{
    static const struct {
        rung_tensor t;
        size_t      want;
    } cases[] = {
        { { RUNG_F32, 2, { 3, 5 }, NULL }, 60 },
        { { RUNG_F64, 0, { 0 }, NULL }, 8 },
        { { RUNG_U8, 1, { 0 }, NULL }, 0 },
        { { RUNG_I4, 1, { 5 }, NULL }, 3 },
        { { RUNG_BF16, 3, { 2, 2, 2 }, NULL }, 16 },
        { { RUNG_STRING, 1, { 2 }, NULL }, SIZE_MAX },
        { { (rung_dtype)77, 1, { 2 }, NULL }, SIZE_MAX },
        { { RUNG_U8, 1, { -1 }, NULL }, SIZE_MAX },
        { { RUNG_U8, 9, { 1 }, NULL }, SIZE_MAX },
        { { RUNG_U8, -1, { 1 }, NULL }, SIZE_MAX },
        { { RUNG_F32, 2, { INT64_MAX, 2 }, NULL }, SIZE_MAX },
        { { RUNG_F32, 1, { INT64_MAX }, NULL }, SIZE_MAX },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(rung_tensor_bytes(&cases[i].t), cases[i].want);
    assert_int_equal(rung_tensor_bytes(NULL), SIZE_MAX);
}

static void test_npy_round_trip(void **state)
{
    int16_t values[6] = { 1, -2, 3, -4, 5, INT16_MIN };
    const rung_tensor t = { RUNG_I16, 3, { 1, 2, 3 }, values };
    rung_tensor back;
    assert_ok(rung_npy_save("t.npy", &t, err));
    assert_ok(rung_npy_load("t.npy", &back, err));
    assert_int_equal(back.type, RUNG_I16);
    assert_int_equal(back.rank, 3);
    assert_memory_equal(back.dims, t.dims, 3 * sizeof *t.dims);
    assert_memory_equal(back.data, values, sizeof values);
    rung_npy_free(&back);
    assert_null(back.data);
    rung_npy_free(&back); /* twice is harmless */
}

/* --- sessions --------------------------------------------------------------------------------- */

static void test_input_dims(void **state)
{
    rung_model *model = load("net.onnx");
    rung_session *s = NULL;
    rung_tensor in = { .rank = 4, .dims = { 2, C, SIDE, SIDE } };
    const rung_session_options o = { .size = sizeof o, .inputs = &in };
    assert_ok(rung_session_create(model, &o, &s, err));
    assert_int_equal(rung_session_output(s, 0)->dims[0], 2);
    rung_session_free(s);
    in.dims[2] = SIDE - 1;
    assert_fails(rung_session_create(model, &o, &s, err), RUNG_EARGUMENT, "'x' is ?x4x6x6");
    in.dims[2] = SIDE;
    in.rank = 3;
    assert_fails(rung_session_create(model, &o, &s, err), RUNG_EARGUMENT, "the data is 2x4x6");
    in.rank = 4;
    in.dims[0] = -3;
    assert_fails(rung_session_create(model, &o, &s, err), RUNG_EARGUMENT, "'x'");
    rung_model_free(model);
}

typedef struct job {
    rung_session *s;
    uint64_t      seed;
    float         scores[N * CLASSES];
} job;

static void *work(void *arg)
{
    job *j = arg;
    for (int i = 0; i < 20; i++) {
        fill(rung_session_input(j->s, 0), j->seed);
        if (rung_session_run(j->s, NULL) != RUNG_OK)
            return j;
    }
    memcpy(j->scores, rung_session_output(j->s, 0)->data, sizeof j->scores);
    return NULL;
}

/* A session outlives its model; two of one model, in two threads at once, give what one gives. */
static void test_two_sessions_in_two_threads(void **state)
{
    for (int n_threads = 1; n_threads <= 2; n_threads++) {
        rung_model *model = load("net.onnx");
        job jobs[2] = { { session_of(model, n_threads), 8, { 0 } },
                        { session_of(model, n_threads), 9, { 0 } } };
        job alone[2] = { { session_of(model, 1), 8, { 0 } }, { session_of(model, 1), 9, { 0 } } };
        pthread_t threads[2];
        void *bad;
        rung_model_free(model);
        for (int i = 0; i < 2; i++) {
            assert_null(work(&alone[i]));
            assert_int_equal(pthread_create(&threads[i], NULL, work, &jobs[i]), 0);
        }
        for (int i = 0; i < 2; i++) {
            assert_int_equal(pthread_join(threads[i], &bad), 0);
            assert_null(bad);
            assert_memory_equal(jobs[i].scores, alone[i].scores, sizeof alone[i].scores);
            rung_session_free(jobs[i].s);
            rung_session_free(alone[i].s);
        }
        assert_memory_not_equal(alone[0].scores, alone[1].scores, sizeof alone[0].scores);
    }
}

/* --- memory ----------------------------------------------------------------------------------- */

static rung_status quantize_and_run(rung_error *err)
{
    const rung_quant_options q = { .size = sizeof q, .n_threads = 1, .quiet = true };
    const rung_session_options o = { .size = sizeof o, .n_threads = 1, .batch = N };
    rung_model *model = NULL, *int8 = NULL;
    rung_dataset *data = NULL;
    rung_diagnostics *remarks = NULL;
    rung_session *s = NULL;
    char *text = NULL;
    rung_status st = rung_model_load("net.onnx", &model, err);
    if (st == RUNG_OK)
        st = rung_dataset_open("npy:data.npy", NULL, model, 1, &data, err);
    if (st == RUNG_OK)
        st = rung_quantize_static(model, data, &q, &int8, &remarks, err);
    if (st == RUNG_OK)
        st = rung_model_inspect(int8, true, &text, err);
    if (st == RUNG_OK)
        st = rung_session_create(int8, &o, &s, err);
    if (st == RUNG_OK) {
        fill(rung_session_input(s, 0), 3);
        st = rung_session_run(s, err);
    }
    if (st == RUNG_OK)
        st = rung_model_save(int8, "int8.onnx", err);
    rung_session_free(s);
    rung_text_free(text);
    rung_diagnostics_free(remarks);
    rung_dataset_free(data);
    rung_model_free(int8);
    rung_model_free(model);
    return st;
}

/* Each allocation in turn is the first that fails: a status, a sentence, no file, no leak (the
 * sanitizers look). Observers do without a histogram, so that a failure there may be no failure. */
static void test_every_allocation_may_fail(void **state)
{
    rung_status st = RUNG_EMEMORY;
    long n = 0, step = 1;
    for (; st != RUNG_OK; n += step) {
        rung_error err = { "" };
        remove("int8.onnx");
        mem_fail_after(n);
        st = quantize_and_run(&err);
        mem_fail_after(-1);
        if (st != RUNG_OK) {
            assert_int_equal(st, RUNG_EMEMORY);
            assert_string_not_equal(err.message, "");
            assert_int_not_equal(access("int8.onnx", F_OK), 0);
        }
        step = n < 600 ? 1 : 7; /* the loops over weights repeat what was seen */
        assert_true(n < 100000);
    }
    assert_true(n > 50);
    assert_int_equal(access("int8.onnx", F_OK), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_null_arguments),
        cmocka_unit_test(test_handles_that_are_null_or_out_of_range),
        cmocka_unit_test(test_options_that_are_refused),
        cmocka_unit_test(test_option_structs_grow),
        cmocka_unit_test(test_tensor_bytes),
        cmocka_unit_test(test_npy_round_trip),
        cmocka_unit_test(test_input_dims),
        cmocka_unit_test(test_two_sessions_in_two_threads),
        cmocka_unit_test(test_every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, enter, leave);
}
