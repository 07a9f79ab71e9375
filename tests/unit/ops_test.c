/* The operator table: its order, its rules, and what shape inference refuses. */
#include "unit.h"

#include <stdlib.h>
#include <string.h>

#include "ops/ops.h"
#include "ops/window.h"

static size_t table_size(void)
{
    size_t n = 0;
    while (op_table[n])
        n++;
    return n;
}

static void test_sorted_and_found(void **state)
{
    assert_true(table_size() > 100);
    for (size_t i = 0; op_table[i]; i++) {
        const op_def *op = op_table[i];
        assert_string_equal(op->domain, "");
        if (i > 0)
            assert_true(strcmp(op_table[i - 1]->name, op->name) < 0);
        assert_ptr_equal(op_find(op->name, ""), op);
        assert_ptr_equal(op_find(op->name, "ai.onnx"), op);
        assert_null(op_find(op->name, "com.microsoft"));
    }
    assert_null(op_find("", ""));
    assert_null(op_find("Conw", ""));
    assert_null(op_find("zzz", ""));
}

static void test_abilities(void **state)
{
    for (size_t i = 0; op_table[i]; i++) {
        assert_non_null(op_table[i]->infer);
        assert_non_null(op_table[i]->eval);
    }
}

static void test_quant_rules(void **state)
{
    for (size_t i = 0; op_table[i]; i++) {
        const quant_rule *q = &op_table[i]->quant;
        assert_int_equal(q->kind == QUANT_NONE, q->activations == 0);
        assert_int_equal(q->kind == QUANT_FIXED_OUTPUT, q->fixed_hi > q->fixed_lo);
        assert_true(q->bias == 0 || q->weight != 0);
        /* 0 must lie on the ladder: ranges are widened to hold it. */
        assert_true(q->fixed_lo <= 0 && q->fixed_hi >= 0);
    }
}

/* --- refusals --------------------------------------------------------------------------------- */
/* One node on values of these shapes. */
typedef struct fixture {
    arena            *mem;
    node              n;
    int               ids[4], out_id;
    attr              attrs[4];
    value_info        in[4], out[2];
    const value_info *operands[4];
    rung_error        err;
} fixture;

static int setup(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    f->mem = arena_new();
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    arena_free(((fixture *)*state)->mem);
    free(*state);
    return 0;
}

static void begin(fixture *f, const char *op)
{
    memset(&f->n, 0, sizeof f->n);
    f->n.op = op_find(op, "");
    f->n.op_type = op;
    f->n.domain = f->n.name = "";
    f->n.inputs = f->ids;
    f->n.outputs = &f->out_id;
    f->n.n_outputs = 1;
    f->n.attrs = f->attrs;
}

static value_info *add_input(fixture *f, dtype type, int rank, const int64_t *dims)
{
    value_info *v = &f->in[f->n.n_inputs];
    *v = (value_info){.type = type, .rank = rank};
    for (int i = 0; i < rank; i++)
        v->dims[i] = dims[i];
    f->operands[f->n.n_inputs++] = v;
    return v;
}

static void add_ints(fixture *f, const char *name, size_t n, const int64_t *v)
{
    attr *a = &f->attrs[f->n.n_attrs++];
    *a = (attr){.name = name, .kind = ATTR_INTS};
    a->ints.v = v;
    a->ints.n = n;
}

static void add_int(fixture *f, const char *name, int64_t v)
{
    attr *a = &f->attrs[f->n.n_attrs++];
    *a = (attr){.name = name, .kind = ATTR_INT};
    a->i = v;
}

/* A constant int64 vector as the next input. */
static void add_vector(fixture *f, int64_t n, const int64_t *v)
{
    value_info *in = add_input(f, RUNG_I64, 1, &n);
    tensor *t = tensor_new(f->mem, RUNG_I64, 1, &n);
    memcpy(t->data, v, (size_t)n * sizeof *v);
    in->data = t;
}

static rung_status infer(fixture *f)
{
    const infer_args a = {.n = &f->n, .opset = 21, .in = f->operands, .out = f->out, .mem = f->mem};
    f->out[0] = f->out[1] = (value_info){.rank = -1};
    return f->n.op->infer(&a, &f->err);
}

static void assert_refused(fixture *f, const char *why)
{
    assert_int_equal(infer(f), RUNG_EMODEL);
    if (!strstr(f->err.message, why))
        fail_msg("the refusal '%s' does not say '%s'", f->err.message, why);
}

static const int64_t image[] = {1, 4, 8, 8}, weight[] = {6, 4, 3, 3};

static void conv(fixture *f, const char *name, size_t n, const int64_t *v)
{
    begin(f, "Conv");
    add_input(f, RUNG_F32, 4, image);
    add_input(f, RUNG_F32, 4, weight);
    add_ints(f, name, n, v);
}

static void test_conv_refusals(void **state)
{
    fixture *f = *state;
    conv(f, "strides", 2, (const int64_t[]){0, 1});
    assert_refused(f, "strides[0] = 0");
    conv(f, "strides", 3, (const int64_t[]){1, 1, 1});
    assert_refused(f, "strides has 3 entries");
    conv(f, "dilations", 2, (const int64_t[]){1, INT64_MAX});
    assert_refused(f, "dilations[1]");
    conv(f, "pads", 4, (const int64_t[]){0, 0, -1, 0});
    assert_refused(f, "pads[2] = -1");
    conv(f, "kernel_shape", 2, (const int64_t[]){3, 5});
    assert_refused(f, "kernel_shape[1] = 5");
    conv(f, "dilations", 2, (const int64_t[]){1, 4});
    assert_refused(f, "covers 9, the padded input has 8");
    conv(f, "strides", 2, (const int64_t[]){1, 1});
    add_int(f, "group", 3);
    assert_refused(f, "4 channels");
    conv(f, "strides", 2, (const int64_t[]){1, 1});
    add_int(f, "group", 0);
    assert_refused(f, "group = 0");
}

static void test_conv_unknown_dims(void **state)
{
    fixture *f = *state;
    conv(f, "strides", 2, (const int64_t[]){2, 2});
    f->in[0].dims[0] = f->in[0].dims[3] = DIM_UNKNOWN;
    assert_int_equal(infer(f), RUNG_OK);
    assert_int_equal(f->out[0].rank, 4);
    assert_int_equal(f->out[0].dims[0], DIM_UNKNOWN);
    assert_int_equal(f->out[0].dims[1], 6);
    assert_int_equal(f->out[0].dims[2], 3);
    assert_int_equal(f->out[0].dims[3], DIM_UNKNOWN);
}

static void test_shape_refusals(void **state)
{
    fixture *f = *state;
    begin(f, "Reshape");
    add_input(f, RUNG_F32, 4, image);
    add_vector(f, 2, (const int64_t[]){7, -1});
    assert_refused(f, "256 elements");
    begin(f, "Reshape");
    add_input(f, RUNG_F32, 4, image);
    add_vector(f, 2, (const int64_t[]){-1, -1});
    assert_refused(f, "-1 twice");
    begin(f, "Expand");
    add_input(f, RUNG_F32, 0, image);
    add_vector(f, 2, (const int64_t[]){INT64_C(1) << 40, INT64_C(1) << 40});
    assert_refused(f, "overflows");
    begin(f, "Tile");
    add_input(f, RUNG_F32, 4, image);
    add_vector(f, 4, (const int64_t[]){1, 1, 1, INT64_MAX});
    assert_refused(f, "repeats[3]");
    begin(f, "Transpose");
    add_input(f, RUNG_F32, 4, image);
    add_ints(f, "perm", 4, (const int64_t[]){0, 1, 1, 2});
    assert_refused(f, "axis 1 is named twice");
    begin(f, "Softmax");
    add_input(f, RUNG_F32, 4, image);
    add_int(f, "axis", INT64_MIN);
    assert_refused(f, "is not in [-4, 4)");
}

static void test_operand_refusals(void **state)
{
    fixture *f = *state;
    begin(f, "Add");
    add_input(f, RUNG_F32, 4, image);
    assert_refused(f, "1 inputs where 2");
    begin(f, "Add");
    add_input(f, RUNG_F32, 4, image);
    add_input(f, RUNG_F32, 4, weight);
    assert_refused(f, "do not broadcast");
    begin(f, "Add");
    add_input(f, RUNG_F32, 4, image);
    add_input(f, RUNG_I32, 4, image);
    assert_refused(f, "input 1 is int32");
    begin(f, "Sigmoid");
    add_input(f, RUNG_U8, 4, image);
    assert_refused(f, "uint8");
    begin(f, "Relu");
    add_input(f, RUNG_F32, 4, image);
    f->operands[0] = NULL;
    assert_refused(f, "input 0 is missing");
}

static void test_pool_window(void **state)
{
    fixture *f = *state;
    window w;
    begin(f, "AveragePool");
    add_ints(f, "kernel_shape", 2, (const int64_t[]){3, 3});
    add_ints(f, "strides", 2, (const int64_t[]){2, 2});
    add_int(f, "ceil_mode", 1);
    assert_int_equal(window_pool(&f->n, 4, image, &w, &f->err), RUNG_OK);
    assert_int_equal(w.out[0], 4); /* (8 - 3) / 2 rounded up, + 1 */
    add_ints(f, "pads", 4, (const int64_t[]){0, 0, 3, 0});
    assert_int_equal(window_pool(&f->n, 4, image, &w, &f->err), RUNG_EMODEL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sorted_and_found),
        cmocka_unit_test(test_abilities),
        cmocka_unit_test(test_quant_rules),
        cmocka_unit_test_setup_teardown(test_conv_refusals, setup, teardown),
        cmocka_unit_test_setup_teardown(test_conv_unknown_dims, setup, teardown),
        cmocka_unit_test_setup_teardown(test_shape_refusals, setup, teardown),
        cmocka_unit_test_setup_teardown(test_operand_refusals, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pool_window, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
