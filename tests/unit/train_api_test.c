/* Training from C: prepare, steps, save, convert; a whole run; mistakes. */
#include "data_files.h"
#include "graph_kit.h"

#include "onnx/onnx.h"
#include "ops/ops.h"
#include "rung.h"

enum { N = 32, IN = 12, CLASSES = 3 };

typedef struct setting {
    rung_model   *model, *prepared;
    rung_dataset *data;
    float         x[N * IN];
    int64_t       labels[N];
} setting;

static void make_model(rng *r)
{
    graph *g = kit_graph(op_find);
    const int x = kit_input(g, "x", 2, DIMS(-1, IN));
    const int w = kit_random(g, r, "w", 2, DIMS(IN, 8)), b = kit_random(g, r, "b", 1, DIMS(8));
    const int h = kit_node(g, "Relu", "r", 1, IDS(kit_node(g, "Gemm", "g", 3, IDS(x, w, b))));
    const int v = kit_random(g, r, "v", 2, DIMS(8, CLASSES));
    kit_output(g, kit_node(g, "Gemm", "o", 2, IDS(h, v)));
    assert_ok(onnx_write_file(g, "m.onnx", false, err));
    graph_free(g);
}

static setting *begin(void)
{
    setting *s = calloc(1, sizeof *s);
    rng r;
    assert_non_null(s);
    rng_seed(&r, 5);
    make_model(&r);
    for (int i = 0; i < N; i++) {
        s->labels[i] = i % CLASSES;
        for (int k = 0; k < IN; k++)
            s->x[i * IN + k] = rng_normal(&r) + (k == i % CLASSES ? 3 : 0);
    }
    const rung_tensor x = { RUNG_F32, 2, { N, IN }, s->x };
    rung_quant_options q = RUNG_QUANT_OPTIONS;
    q.quiet = true;
    q.methods = RUNG_METHOD_NONE;
    assert_ok(rung_npy_save("x.npy", &x, err));
    assert_ok(rung_model_load("m.onnx", &s->model, err));
    assert_ok(rung_dataset_open("npy:x.npy", NULL, s->model, 1, &s->data, err));
    assert_ok(rung_prepare_qat(s->model, s->data, &q, &s->prepared, NULL, err));
    return s;
}

static void end(setting *s)
{
    rung_dataset_free(s->data);
    rung_model_free(s->model);
    rung_model_free(s->prepared);
    free(s);
}

static void step_by_step(void **state)
{
    (void)state;
    setting *s = begin();
    rung_train_options o = RUNG_TRAIN_OPTIONS;
    rung_trainer *t;
    rung_step_result first, last;
    rung_model *trained, *int8;
    const rung_tensor x = { RUNG_F32, 2, { N, IN }, s->x };
    o.rate = 0.02;
    o.steps = 40;
    o.cross_entropy = 1;
    assert_true(rung_is_prepared(s->prepared) && !rung_is_prepared(s->model));
    assert_ok(rung_trainer_create(s->prepared, NULL, &o, &t, err));
    assert_ok(rung_trainer_step(t, &x, s->labels, &first, err));
    for (int i = 1; i < 40; i++)
        assert_ok(rung_trainer_step(t, &x, s->labels, &last, err));
    assert_true(last.loss < first.loss / 2 && last.rate < first.rate && last.norm > 0);
    assert_true(last.correct > N / 2);
    assert_ok(rung_trainer_save(t, &trained, err));
    assert_ok(rung_convert(trained, &int8, err));
    assert_true(rung_is_prepared(trained) && !rung_is_prepared(int8));
    assert_fails(rung_convert(int8, &trained, err), RUNG_EARGUMENT, "not prepared");
    const rung_tensor odd = { RUNG_F32, 2, { N, IN - 1 }, s->x };
    assert_fails(rung_trainer_step(t, &odd, s->labels, &last, err), RUNG_EARGUMENT, "16x11");
    const rung_tensor none = { RUNG_F32, 2, { 0, IN }, s->x };
    assert_fails(rung_trainer_step(t, &none, s->labels, &last, err), RUNG_EARGUMENT, "'x'");
    rung_model_free(int8);
    rung_model_free(trained);
    rung_trainer_free(t);
    end(s);
}

static void a_whole_run(void **state)
{
    (void)state;
    setting *s = begin();
    rung_train_options o = RUNG_TRAIN_OPTIONS;
    rung_model *out, *trained;
    rung_training *record;
    char *text;
    o.epochs = 3;
    o.batch = 8;
    o.quiet = true;
    o.n_threads = 1;
    assert_ok(rung_train(s->prepared, s->model, s->data, s->data, &o, &out, &trained, &record,
                         err));
    assert_true(rung_is_prepared(trained) && !rung_is_prepared(out));
    assert_ok(rung_training_text(record, false, &text, err));
    assert_non_null(strstr(text, "12 steps of 8"));
    assert_non_null(strstr(text, "kept"));
    rung_text_free(text);
    assert_ok(rung_training_text(record, true, &text, err));
    assert_non_null(strstr(text, "\"epoch\":3"));
    rung_text_free(text);
    assert_ok(rung_training_save_html(record, "a <b> & c", "page.html", err));
    size_t n;
    const char *page = (const char *)get_file("page.html", &n);
    assert_non_null(memmem(page, n, "a &lt;b&gt; &amp; c", 19));
    rung_training_free(record);
    rung_model_free(out);
    rung_model_free(trained);
    end(s);
}

static void mistakes(void **state)
{
    (void)state;
    setting *s = begin();
    rung_model *out;
    rung_trainer *t;
    const struct {
        rung_train_options o;
        const char        *words;
    } wrong[] = {
        { { .size = sizeof(rung_train_options), .momentum = 1 }, "momentum" },
        { { .size = sizeof(rung_train_options), .cross_entropy = 1 }, "labels" },
        { { .size = sizeof(rung_train_options), .features = 1 }, "names" },
        { { .size = sizeof(rung_train_options), .augment = "turn" }, "turn" },
        { { .size = sizeof(rung_train_options), .optimizer = 7 }, "optimizer" },
        { { .size = sizeof(rung_train_options), .rate = 0.0 / 0.0 }, "finite" },
        { { .size = sizeof(rung_train_options), .resume = true }, "checkpoint" },
        { { .size = sizeof(rung_train_options), .distill = -1 }, "negative" },
        { { .size = 0 }, "size" },
    };
    for (int i = 0; i < COUNT(wrong); i++)
        assert_fails(rung_train(s->prepared, s->model, s->data, NULL, &wrong[i].o, &out, NULL, NULL,
                                err), RUNG_EARGUMENT, wrong[i].words);
    assert_fails(rung_train(s->prepared, NULL, s->data, NULL, NULL, &out, NULL, NULL, err),
                 RUNG_EARGUMENT, "nothing to learn from");
    assert_fails(rung_train(NULL, NULL, s->data, NULL, NULL, &out, NULL, NULL, err),
                 RUNG_EARGUMENT, "NULL");
    assert_fails(rung_trainer_create(NULL, NULL, NULL, &t, err), RUNG_EARGUMENT, "NULL");
    assert_fails(rung_convert(s->model, &out, err), RUNG_EARGUMENT, "not prepared");
    rung_trainer_free(NULL);
    rung_training_free(NULL);
    end(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(step_by_step),
        cmocka_unit_test(a_whole_run),
        cmocka_unit_test(mistakes),
    };
    return cmocka_run_group_tests(tests, enter_folder, leave_folder);
}
