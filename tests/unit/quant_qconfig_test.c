/* qconfig: the numbers of the presets, the order of rules, and every mistake in a file with its
 * line. */
#include "graph_kit.h"

#include <stdlib.h>
#include <string.h>

#include "ops/ops.h"
#include "quant/qconfig.h"
#include "quant/quant.h"

static const rung_quant_options none = RUNG_QUANT_OPTIONS;

static qconfig *parsed(const char *text)
{
    qconfig *c = NULL;
    assert_ok(qconfig_parse(text, strlen(text), "q.json", &c, err));
    return c;
}

static qconfig *loaded(const char *name)
{
    qconfig *c = NULL;
    assert_ok(qconfig_load(name, &c, err));
    return c;
}

/* --- presets ---------------------------------------------------------------------------------- */

static void presets_mean_what_their_tools_mean(void **state)
{
    static const struct {
        const char *name;
        dtype       type;
        int         bits;
        rung_range  range;
        bool        per_tensor;
    } expected[] = {
        { "default", RUNG_U8, 8, RUNG_RANGE_MSE, false },
        { "x86", RUNG_U8, 7, RUNG_RANGE_MSE, false },
        { "fbgemm", RUNG_U8, 7, RUNG_RANGE_MSE, false },
        { "onednn", RUNG_U8, 8, RUNG_RANGE_MSE, false },
        { "qnnpack", RUNG_U8, 8, RUNG_RANGE_MSE, true },
        { "ort", RUNG_I8, 8, RUNG_RANGE_MINMAX, false },
        { "tflite", RUNG_I8, 8, RUNG_RANGE_MINMAX, false },
    };
    (void)state;
    for (int i = 0; i < COUNT(expected); i++) {
        qconfig *c = loaded(expected[i].name);
        const qsettings s = qconfig_resolve(c, &none, NULL);
        assert_int_equal(s.act_type, expected[i].type);
        assert_int_equal(qsettings_bits(&s), expected[i].bits);
        assert_int_equal(s.range, expected[i].range);
        assert_int_equal(s.per_tensor, expected[i].per_tensor);
        assert_int_equal(s.act_bits, 8);
        assert_int_equal(s.weight_bits, 8);
        assert_false(s.act_symmetric || s.exclude);
        assert_int_equal(qconfig_is_preset(c), i > 0);
        qconfig_free(c);
    }
}

static void tflite_fixes_outputs(void **state)
{
    static const struct {
        const char *op;
        float       scale;
        int         zero;
    } expected[] = {
        { "Sigmoid", 1.0f / 256, -128 },   { "Softmax", 1.0f / 256, -128 },
        { "LogSoftmax", 16.0f / 256, 127 }, { "Tanh", 1.0f / 128, 0 },
        { "LpNormalization", 1.0f / 128, 0 },
    };
    (void)state;
    qconfig *tflite = loaded("tflite"), *ort = loaded("ort");
    for (int i = 0; i < COUNT(expected); i++) {
        const node n = { .op_type = expected[i].op, .domain = "" };
        float lo, hi;
        bool repaired;
        assert_true(qconfig_fixed_range(tflite, &n, &lo, &hi));
        const qparams p = qparams_from_range(lo, hi, RUNG_I8, 8, false, &repaired);
        assert_true(p.scale == expected[i].scale); /* to the bit */
        assert_int_equal(p.zero, expected[i].zero);
        assert_false(qconfig_fixed_range(ort, &n, &lo, &hi));
    }
    const node pool = { .op_type = "AveragePool", .domain = "" };
    assert_true(qconfig_ties(tflite, &pool));
    assert_false(qconfig_ties(ort, &pool));
    qconfig_free(tflite);
    qconfig_free(ort);
}

static void unknown_names_list_the_presets(void **state)
{
    qconfig *c = (qconfig *)1;
    (void)state;
    assert_fails(qconfig_load("fbgem", &c, err), RUNG_EARGUMENT, "qnnpack, ort, tflite");
    assert_null(c);
    assert_fails(qconfig_load("no/such.json", &c, err), RUNG_EIO, "no/such.json");
}

static void options_win(void **state)
{
    rung_quant_options o = RUNG_QUANT_OPTIONS;
    (void)state;
    qconfig *c = parsed("{\"base\": \"qnnpack\", \"rules\": [{\"set\": {\"act_bits\": 4, "
                        "\"weight_bits\": 3, \"range\": \"ema\", \"act_symmetric\": true, "
                        "\"reduce_range\": true, \"percentile\": 99}}]}");
    const node n = { .op_type = "Conv", .name = "c", .domain = "" };
    const qsubject at = { { &n }, NULL };
    o.act_type = RUNG_I8;
    o.act_bits = 6;
    o.weight_bits = 7;
    o.range = RUNG_RANGE_PERCENTILE;
    o.percentile = 98;
    o.act_affine = o.per_channel = o.full_range = true;
    const qsettings s = qconfig_resolve(c, &o, &at);
    assert_int_equal(s.act_type, RUNG_I8);
    assert_int_equal(s.act_bits, 6);
    assert_int_equal(s.weight_bits, 7);
    assert_int_equal(s.range, RUNG_RANGE_PERCENTILE);
    assert_true(s.percentile == 98);
    assert_false(s.act_symmetric || s.per_tensor || s.reduce_range);
    const qsettings file = qconfig_resolve(c, &none, &at);
    assert_int_equal(file.act_bits, 4);
    assert_int_equal(file.weight_bits, 3);
    assert_int_equal(file.range, RUNG_RANGE_EMA);
    assert_true(file.percentile == 99);
    assert_true(file.act_symmetric && file.per_tensor && file.reduce_range);
    qconfig_free(c);
}

/* --- rules ------------------------------------------------------------------------------------ */

static void later_rules_win(void **state)
{
    (void)state;
    qconfig *c = parsed("{\"rules\": ["
                        "{\"op\": \"Conv\", \"set\": {\"weight_bits\": 4, \"act_bits\": 5}},"
                        "{\"name\": \"head*\", \"set\": {\"weight_bits\": 6}},"
                        "{\"op\": \"Conv\", \"name\": \"*.1\", \"set\": {\"exclude\": true}},"
                        "{\"tensor\": \"w?\", \"set\": {\"weight_bits\": 2}}]}");
    const node body = { .op_type = "Conv", .name = "body.0", .domain = "" };
    const node head = { .op_type = "Conv", .name = "head.1", .domain = "" };
    const node gemm = { .op_type = "Gemm", .name = "head.1", .domain = "" };
    const node relu = { .op_type = "Relu", .name = "", .domain = "" };
    const qsubject subjects[] = { { { &body }, NULL }, { { &head }, NULL }, { { &gemm }, NULL },
                                  { { &relu, &body }, "y" }, { { NULL }, "w1" },
                                  { { &head }, "w2" } };
    static const struct {
        int  weight_bits, act_bits;
        bool exclude;
    } expected[] = { { 4, 5, false }, { 6, 5, true }, { 6, 8, false },
                     { 4, 5, false }, { 2, 8, false }, { 2, 5, true } };
    for (int i = 0; i < COUNT(subjects); i++) {
        const qsettings s = qconfig_resolve(c, &none, &subjects[i]);
        assert_int_equal(s.weight_bits, expected[i].weight_bits);
        assert_int_equal(s.act_bits, expected[i].act_bits);
        assert_int_equal(s.exclude, expected[i].exclude);
    }
    qconfig_free(c);
}

static void rules_without_use_are_named(void **state)
{
    (void)state;
    graph *g = kit_graph(op_find);
    const int x = kit_input(g, "x", 2, DIMS(1, 4));
    kit_output(g, kit_node(g, "Relu", "r", 1, IDS(x)));
    diagnostics *d = diagnostics_new();
    qconfig *c = parsed("{\"rules\": [{\"op\": \"Relu\", \"set\": {\"act_bits\": 4}},"
                        "{\"op\": \"Conv\", \"set\": {\"act_bits\": 4}},"
                        "{\"tensor\": \"x\", \"set\": {\"act_bits\": 4}},"
                        "{\"tensor\": \"z*\", \"set\": {\"act_bits\": 4}}]}");
    qconfig_report_unused(c, g, d);
    assert_int_equal(d->n, 2);
    assert_string_equal(d->list[0].where, "rules[1]");
    assert_string_equal(d->list[1].where, "rules[3]");
    assert_string_equal(d->list[1].code, "rule-unused");
    qconfig_free(c);
    diagnostics_free(d);
    graph_free(g);
}

/* --- mistakes --------------------------------------------------------------------------------- */

#define RULE(keys) "{\n\"rules\": [\n" keys "]}"
#define SET(keys) RULE("{\"op\": \"Conv\",\n \"set\": {\n" keys "}}")

static const struct mistake {
    const char *text, *words;
} mistakes[] = {
    { "", "q.json:1: this is not JSON" },
    { "{\n\"base\": \"x86\",\n\"rules\": [}\n", "q.json:3: this is not JSON" },
    { "{}\n}", "this is not JSON" },
    { "[]", "q.json:1: an object with" },
    { "null", "wanted, not null" },
    { "{\n\n\"bas\": \"x86\"}", "q.json:3: bas: there is no such key; keys here are base, "
      "scales, rules" },
    { "{\"base\": \"x86\",\n\"base\": \"ort\"}", "q.json:2: base: the key is there twice" },
    { "{\n\"base\": \"x87\"}", "q.json:2: base: there is no preset \"x87\"; presets are default" },
    { "{\n\"base\":\n8}", "q.json:2: base: a preset's name is wanted, not a number" },
    { "{\"rules\"\n: {}}", "q.json:1: rules: an array of rules is wanted, not an object" },
    { RULE("7"), "q.json:3: rules[0]: an object is wanted, not a number" },
    { RULE("{\"op\": \"Conv\"}"), "q.json:3: rules[0]: \"set\" is missing" },
    { RULE("{\"set\": {\"act_bits\": 4}},\n{}"), "q.json:4: rules[1]: \"set\" is missing" },
    { RULE("{\n\"operator\": \"Conv\"}"), "q.json:4: rules[0].operator: there is no such key" },
    { RULE("{\n\"op\": 3}"), "q.json:4: rules[0].op: a pattern (a string) is wanted" },
    { RULE("{\n\"name\": \"\"}"), "q.json:4: rules[0].name: the pattern is empty" },
    { RULE("{\"tensor\":\n null}"), "q.json:3: rules[0].tensor: a pattern (a string) is wanted" },
    { RULE("{\n\"set\": []}"), "q.json:4: rules[0].set: an object is wanted, not an array" },
    { RULE("{\n\"set\": {}}"), "q.json:4: rules[0].set: it is empty" },
    { RULE("{\"tensor\": \"t\",\n\"set\": {\"exclude\":\ntrue}}"), "rules[0].set.exclude: nodes" },
    { SET("\"bits\": 4"), "q.json:5: rules[0].set.bits: there is no such key" },
    { SET("\"weight_bits\": 9"), "q.json:5: rules[0].set.weight_bits: 9 is not a whole number" },
    { SET("\"weight_bits\": 4.5"), "weight_bits: 4.5 is not a whole number from 2 to 8" },
    { SET("\"act_bits\": 1"), "act_bits: 1 is not a whole number from 2 to 8" },
    { SET("\"act_bits\": \"4\""), "act_bits: a whole number is wanted, not a string" },
    { SET("\"act_type\": \"uint9\""),
      "act_type: \"uint9\" is none of \"uint8\", \"int8\", \"uint16\", \"int16\"" },
    { SET("\"act_type\": 8"), "act_type: one of \"uint8\", \"int8\", \"uint16\", \"int16\" is "
                                "wanted, not a number" },
    { SET("\"act_symmetric\": 1"), "act_symmetric: true or false is wanted, not a number" },
    { SET("\"weight_scheme\": \"row\""), "\"row\" is none of \"per-channel\", \"per-tensor\"" },
    { SET("\"range\": \"max\""), "range: \"max\" is none of \"minmax\", \"ema\"" },
    { SET("\"percentile\": 20"), "percentile: 20 is not a number from 50 to 100" },
    { SET("\"percentile\": 1e999"), "percentile" },
    { SET("\"reduce_range\": \"no\""), "reduce_range: true or false is wanted, not a string" },
    { SET("\"exclude\": null"), "exclude: true or false is wanted, not null" },
    /* Lines are counted in the text: escapes, brackets in strings, odd spacing. */
    { SET("\"act_bits\": 4,\n\"act_type\": \"a\\\"]}:,\\\\\",\n\"x\": 1"), "q.json:6: " },
    { "\xef\xbb\xbf{\r\n\t\"base\" : \"ort\" ,\r\n\"rules\":[ ] , \"x\"\n:1}", "q.json:3: x" },
};

static void mistakes_have_file_line_and_key(void **state)
{
    (void)state;
    for (int i = 0; i < COUNT(mistakes); i++) {
        qconfig *c = (qconfig *)1;
        const char *text = mistakes[i].text;
        assert_fails(qconfig_parse(text, strlen(text), "q.json", &c, err), RUNG_EFORMAT,
                     mistakes[i].words);
        assert_null(c);
    }
    qconfig *c = NULL;
    assert_fails(qconfig_parse("{}\0{}", 5, "q.json", &c, err), RUNG_EFORMAT, "not JSON");
}

/* Cut anywhere, a file is refused or taken, never read beyond its end. */
static void cut_files_are_survived(void **state)
{
    static const char text[] = "{\"base\": \"x86\", \"rules\": [{\"name\": \"a\\\"b\", \"op\": "
                               "\"Conv\", \"set\": {\"act_bits\": 4, \"range\": \"mse\"}}]}";
    (void)state;
    for (size_t n = 0; n < sizeof text; n++) {
        qconfig *c = NULL;
        char *exact = malloc(n + !n);
        assert_non_null(exact);
        memcpy(exact, text, n);
        const rung_status st = qconfig_parse(exact, n, "q.json", &c, NULL);
        assert_int_equal(st, n == sizeof text - 1 ? RUNG_OK : RUNG_EFORMAT);
        qconfig_free(c);
        free(exact);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(presets_mean_what_their_tools_mean),
        cmocka_unit_test(tflite_fixes_outputs),
        cmocka_unit_test(unknown_names_list_the_presets),
        cmocka_unit_test(options_win),
        cmocka_unit_test(later_rules_win),
        cmocka_unit_test(rules_without_use_are_named),
        cmocka_unit_test(mistakes_have_file_line_and_key),
        cmocka_unit_test(cut_files_are_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
