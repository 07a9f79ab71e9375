/* Records of trials on disk: their round trip, and files that are damaged or hostile. */
#include "graph_kit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ops/ops.h"
#include "tune/store.h"

enum { KEY = 0x1234 };

typedef struct folder {
    char path[64], json[STORE_PATH], onnx[STORE_PATH];
} folder;

static folder folder_make(void)
{
    folder f = { "/tmp/rung_tune_XXXXXX", "", "" };
    assert_non_null(mkdtemp(f.path));
    assert_ok(store_open(f.path, err));
    assert_ok(store_path(f.path, TRIAL_AUTO, KEY, "json", f.json, err));
    assert_ok(store_path(f.path, TRIAL_AUTO, KEY, "onnx", f.onnx, err));
    return f;
}

static void folder_remove(const folder *f)
{
    unlink(f->json);
    unlink(f->onnx);
    assert_int_equal(rmdir(f->path), 0);
}

static graph *small_model(void)
{
    graph *g = kit_graph(op_find);
    const int x = kit_input(g, "x", 2, DIMS(2, 3));
    kit_output(g, kit_node(g, "Relu", "relu", 1, IDS(x)));
    return g;
}

static stored one_trial(void)
{
    stored s = { .state = STORE_DONE, .time_budget = 60 };
    s.trial = (tune_trial){ .state = TRIAL_DONE, .top1 = 91.25, .agreement = 97.5, .loss = NAN,
                            .sqnr_db = 20.5, .bytes = 0, .ms = 0.125, .ratio = 0.25,
                            .int_share = 0.75, .seconds = 1.5, .wide_layers = 2, .float_layers = 1,
                            .wide_share = 0.125, .float_share = 0.5,
                            .epochs = 7, .note = "a \"note\"\n" };
    return s;
}

static void write_trial(const folder *f, stored *s)
{
    graph *g = small_model();
    assert_ok(store_model(f->path, TRIAL_AUTO, KEY, g, &s->trial.bytes, err));
    assert_true(s->trial.bytes > 0);
    assert_ok(store_write(f->path, TRIAL_AUTO, KEY, s, err));
    graph_free(g);
}

static void a_record_comes_back_as_it_was(void **state)
{
    (void)state;
    const folder f = folder_make();
    stored s = one_trial(), back;
    graph *g = NULL;
    assert_int_equal(store_read(f.path, TRIAL_AUTO, KEY, &back), STORE_NONE);
    write_trial(&f, &s);
    assert_int_equal(store_read(f.path, TRIAL_AUTO, KEY, &back), STORE_DONE);
    const tune_trial *a = &s.trial, *b = &back.trial;
    assert_true(b->state == TRIAL_DONE && b->top1 == a->top1 && b->agreement == a->agreement);
    assert_true(isnan(b->loss) && b->sqnr_db == a->sqnr_db && b->bytes == a->bytes);
    assert_true(b->ms == a->ms && b->ratio == a->ratio && b->int_share == 0.75);
    assert_true(b->seconds == a->seconds);
    assert_true(b->wide_layers == 2 && b->float_layers == 1 && b->float_share == 0.5);
    assert_true(b->wide_share == 0.125);
    assert_true(b->epochs == 7 && back.time_budget == 60);
    assert_string_equal(b->note, a->note);
    assert_ok(store_load(f.path, TRIAL_AUTO, KEY, &g, err));
    assert_int_equal(g->n_nodes, 1);
    graph_free(g);
    assert_int_equal(store_read(f.path, TRIAL_STATIC, KEY, &back), STORE_NONE);
    assert_int_equal(store_read(f.path, TRIAL_AUTO, KEY + 1, &back), STORE_NONE);
    folder_remove(&f);
}

static void a_beginning_is_known(void **state)
{
    (void)state;
    const folder f = folder_make();
    stored s = { .state = STORE_BEGUN }, back;
    s.trial.epochs = 12;
    assert_ok(store_write(f.path, TRIAL_AUTO, KEY, &s, err));
    assert_int_equal(store_read(f.path, TRIAL_AUTO, KEY, &back), STORE_BEGUN);
    assert_int_equal(back.trial.epochs, 12);
    folder_remove(&f);
}

/* The record is of another model then, or of none. */
static void a_model_that_was_changed_is_not_believed(void **state)
{
    (void)state;
    const folder f = folder_make();
    stored s = one_trial(), back;
    write_trial(&f, &s);
    FILE *file = fopen(f.onnx, "r+b");
    assert_non_null(file);
    fseek(file, 2, SEEK_SET);
    fputc(0x55, file);
    fclose(file);
    assert_int_equal(store_read(f.path, TRIAL_AUTO, KEY, &back), STORE_NONE);
    write_trial(&f, &s);
    assert_int_equal(truncate(f.onnx, (off_t)s.trial.bytes - 1), 0);
    assert_int_equal(store_read(f.path, TRIAL_AUTO, KEY, &back), STORE_NONE);
    unlink(f.onnx);
    assert_int_equal(store_read(f.path, TRIAL_AUTO, KEY, &back), STORE_NONE);
    folder_remove(&f);
}

static char *read_text(const char *path, size_t *n)
{
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    char *text = calloc(1, 4096);
    *n = fread(text, 1, 4095, file);
    fclose(file);
    return text;
}

/* text with the first `from` made `to`: no record any more. */
static void assert_refused(const char *text, const char *from, const char *to)
{
    char changed[8192];
    stored out;
    uint64_t check;
    const char *at = strstr(text, from);
    assert_non_null(at);
    const int n = snprintf(changed, sizeof changed, "%.*s%s%s", (int)(at - text), text, to,
                           at + strlen(from));
    assert_true(n > 0 && (size_t)n < sizeof changed);
    if (store_parse(changed, (size_t)n, TRIAL_AUTO, KEY, &out, &check))
        fail_msg("taken with \"%s\" for \"%s\"", to, from);
    assert_int_equal(out.state, STORE_NONE);
}

static void hostile_records_are_none(void **state)
{
    (void)state;
    static const char *const changes[][2] = {
        { "\"version\":\t2", "\"version\":\t1" }, { "static-auto", "static" },
        { "0000000000001234", "0000000000001235" }, { "0000000000001234", "1234" },
        { "91.25", "101" }, { "91.25", "-2" }, { "91.25", "\"91\"" }, { "91.25", "null" },
        { "91.25", "1e999" }, { "0.125", "-1" }, { "\"epochs\":\t7", "\"epochs\":\t7.5" },
        { "\"epochs\":\t7", "\"epochs\":\t1e300" }, { "\"epochs\":\t7", "\"epochs\":\t-1" },
        { "\"float_share\":\t0.5", "\"float_share\":\t1.5" }, { "\"done\":\ttrue", "\"done\":\t1" },
        { "\"seconds\":\t1.5", "\"seconds\":\t[1.5]" }, { "\"model\":\t\"", "\"model\":\t\"g" },
        { "\"bytes\"", "\"byte\"" }, { "{", "[{" }, { "}", "" },
    };
    const folder f = folder_make();
    stored s = one_trial(), out;
    uint64_t check;
    size_t n;
    write_trial(&f, &s);
    char *text = read_text(f.json, &n);
    assert_true(store_parse(text, n, TRIAL_AUTO, KEY, &out, &check));
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++)
        assert_refused(text, changes[i][0], changes[i][1]);
    for (size_t cut = 0; cut + 1 < n; cut++)
        assert_false(store_parse(text, cut, TRIAL_AUTO, KEY, &out, &check));
    assert_false(store_parse("", 0, TRIAL_AUTO, KEY, &out, &check));
    char *deep = malloc(1 << 16);
    memset(deep, '[', 1 << 16);
    assert_false(store_parse(deep, 1 << 16, TRIAL_AUTO, KEY, &out, &check));
    free(deep);
    free(text);
    folder_remove(&f);
}

static void places_that_are_no_folder_are_named(void **state)
{
    (void)state;
    char path[STORE_PATH], lengthy[STORE_PATH + 8];
    memset(lengthy, 'a', sizeof lengthy - 1);
    lengthy[sizeof lengthy - 1] = '\0';
    assert_fails(store_open("/dev/null", err), RUNG_EIO, "a folder is wanted");
    assert_fails(store_open("/nonexistent/a/b", err), RUNG_EIO, "/nonexistent/a/b");
    assert_fails(store_path(lengthy, TRIAL_AUTO, KEY, "json", path, err), RUNG_EARGUMENT,
                 "too long");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_record_comes_back_as_it_was),
        cmocka_unit_test(a_beginning_is_known),
        cmocka_unit_test(a_model_that_was_changed_is_not_believed),
        cmocka_unit_test(hostile_records_are_none),
        cmocka_unit_test(places_that_are_no_folder_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
