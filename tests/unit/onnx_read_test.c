/* onnx: what a file says becomes a graph, and what is wrong with it a sentence that names it. */
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/mem.h"
#include "onnx_make.h"

typedef struct fixture {
    arena       *mem;
    model_proto *m;
    graph_proto *gp;
    graph       *g;
    rung_error   err;
} fixture;

/* x -> Relu -> y, to be changed. */
static int setup(void **state)
{
    static fixture f;
    f = (fixture){ .mem = arena_new() };
    f.m = make_model(f.mem);
    f.gp = f.m->graph;
    make_input(f.mem, f.gp, "x", RUNG_F32);
    make_node(f.mem, f.gp, "Relu", "x", "y");
    make_output(f.mem, f.gp, "y", RUNG_F32);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    fixture *f = *state;
    graph_free(f->g);
    arena_free(f->mem);
    return 0;
}

static void read_well(fixture *f)
{
    if (read_model_proto(f->m, f->mem, &f->g, &f->err) != RUNG_OK)
        fail_msg("refused: %s", f->err.message);
    const char *broken = what_breaks(f->g, &f->err);
    if (broken)
        fail_msg("%s: %s", broken, f->err.message);
}

/* The status is this, and the sentence has these words. */
static void refused(fixture *f, rung_status expected, const char *word, const char *second)
{
    const rung_status st = read_model_proto(f->m, f->mem, &f->g, &f->err);
    if (st != expected || !strstr(f->err.message, word) || !strstr(f->err.message, second))
        fail_msg("status %d, '%s' without '%s' or '%s'", st, f->err.message, word, second);
    assert_null(f->g);
}

static const value *value_of(const graph *g, const char *name)
{
    const int id = strmap_get(g->by_name, name, -1);
    assert_true(id >= 0);
    return &g->values[id];
}

/* --- what is read ----------------------------------------------------------------------------- */

static void test_rich_model(void **state)
{
    fixture *f = *state;
    const bytes b = make_rich_model(f->mem);
    assert_int_equal(onnx_read(b.data, b.size, NULL, &f->g, &f->err), RUNG_OK);
    const graph *g = f->g;
    assert_int_equal(g->n_inputs, 2);
    assert_int_equal(g->n_outputs, 1);
    assert_string_equal(g->values[g->inputs[0]].symbols[0], "batch");
    assert_int_equal(g->values[g->inputs[0]].dims[0], DIM_UNKNOWN);
    assert_int_equal(g->values[g->inputs[0]].dims[1], 3);
    assert_true(value_of(g, "listed")->listed_input);
    assert_false(value_of(g, "listed")->is_input);
    assert_true(value_of(g, "late")->has_info);
    assert_string_equal(graph_metadata(g, "key"), "value");
    assert_string_equal(g->nodes[0].op_type, "Strange"); /* the If uses what it makes */
    assert_int_equal(g->nodes[0].inputs[1], -1);
    assert_int_equal(g->nodes[0].outputs[0], -1);
    assert_null(what_breaks(g, &f->err));
}

static void test_captures(void **state)
{
    fixture *f = *state;
    const bytes b = make_rich_model(f->mem);
    assert_int_equal(onnx_read(b.data, b.size, NULL, &f->g, &f->err), RUNG_OK);
    const char *expected[] = { "late", "w", "x", "listed" };
    const node *n = &f->g->nodes[1];
    assert_int_equal(n->n_captures, 4);
    for (int i = 0; i < 4; i++)
        assert_string_equal(f->g->values[n->captures[i]].name, expected[i]);
}

static void test_attributes(void **state)
{
    fixture *f = *state;
    const int64_t *ints;
    const bytes b = make_rich_model(f->mem);
    assert_int_equal(onnx_read(b.data, b.size, NULL, &f->g, &f->err), RUNG_OK);
    const node *n = &f->g->nodes[0];
    assert_true(node_float(n, "f", 0) == 2.5f);
    assert_int_equal(node_int(n, "i", 0), -3);
    assert_string_equal(node_string(n, "s", ""), "text");
    assert_int_equal(node_ints(n, "ints", &ints), 3);
    assert_int_equal(ints[2], 300);
    assert_int_equal(node_attr(n, "floats")->floats.n, 2);
    assert_memory_equal(node_attr(n, "strings")->strings.v[0].data, "one", 4);
    assert_int_equal(node_attr(n, "t")->t->type, RUNG_F32);
    assert_true(node_attr(n, "t")->opaque.size > 0); /* its name has no other place */
}

typedef struct typed_case {
    dtype       type;
    size_t      n; /* of items */
    const void *bytes; /* of six elements */
    size_t      size;
} typed_case;

/* The items 1, 2, 3 ... of each typed field, and what six elements of a type are in memory. */
static void test_typed_fields(void **state)
{
    static const unsigned char u8[] = { 1, 2, 3, 4, 5, 6 };
    static const unsigned char six_bits[] = { 0x81, 0x30, 0x10, 0x85, 0x01 };
    static const uint16_t u16[] = { 1, 2, 3, 4, 5, 6 };
    static const int32_t i32[] = { 1, 2, 3, 4, 5, 6 };
    static const int64_t i64[] = { 1, 2, 3, 4, 5, 6 };
    static const uint64_t u64[] = { 1, 2, 3, 4, 5, 6 };
    static const float f32[] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 };
    static const double f64[] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 };
    static const typed_case cases[] = {
        { RUNG_U8, 6, u8, 6 },         { RUNG_I8, 6, u8, 6 },     { RUNG_BOOL, 6, u8, 6 },
        { RUNG_F8E4M3FN, 6, u8, 6 },   { RUNG_F8E8M0, 6, u8, 6 }, { RUNG_U16, 6, u16, 12 },
        { RUNG_I16, 6, u16, 12 },      { RUNG_F16, 6, u16, 12 },  { RUNG_BF16, 6, u16, 12 },
        { RUNG_I32, 6, i32, 24 },      { RUNG_U32, 6, i32, 24 },  { RUNG_I64, 6, i64, 48 },
        { RUNG_U64, 6, u64, 48 },      { RUNG_F32, 6, f32, 24 },  { RUNG_F64, 6, f64, 48 },
        { RUNG_COMPLEX64, 12, f32, 48 }, { RUNG_COMPLEX128, 12, f64, 96 },
        { RUNG_U4, 3, u8, 3 },         { RUNG_I4, 3, u8, 3 },     { RUNG_F4E2M1, 3, u8, 3 },
        { RUNG_U2, 2, u8, 2 },         { RUNG_I2, 2, u8, 2 },     { RUNG_F6E2M3, 6, six_bits, 5 },
    };
    fixture *f = *state;
    const int64_t dims[] = { 2, 3 };
    tensor_proto *t = make_tensor(f->mem, f->gp, "w", RUNG_F32, 2, dims);
    t->int32_data = (int32_t *)i32;
    t->int64_data = (int64_t *)i64;
    t->uint64_data = (uint64_t *)u64;
    t->float_data = (float *)f32;
    t->double_data = (double *)f64;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const typed_case *c = &cases[i];
        t->data_type = (int32_t)c->type;
        t->n_int64_data = t->n_int32_data = t->n_uint64_data = c->n <= 6 ? c->n : 0;
        t->n_float_data = t->n_double_data = c->n;
        read_well(f);
        if (memcmp(value_of(f->g, "w")->constant->data, c->bytes, c->size))
            fail_msg("%s: other bytes", dtype_name(c->type));
        graph_free(f->g);
        t->n_int64_data = t->n_int32_data = t->n_uint64_data = c->n - 1;
        t->n_float_data = t->n_double_data = c->n - 1;
        refused(f, RUNG_EFORMAT, "'w'", "need");
    }
}

static void test_empty_tensors(void **state)
{
    fixture *f = *state;
    const int64_t dims[] = { 0, INT64_C(1) << 40 };
    make_tensor(f->mem, f->gp, "typed", RUNG_F32, 2, dims);
    make_raw(f->mem, make_tensor(f->mem, f->gp, "raw", RUNG_I64, 2, dims), "", 0);
    make_tensor(f->mem, f->gp, "words", RUNG_STRING, 2, dims);
    read_well(f);
    assert_int_equal(tensor_count(value_of(f->g, "raw")->constant), 0);
}

/* Fields in the wrong order of the file, and a value declared twice: the first one counts. */
static void test_outputs_of_inputs_and_constants(void **state)
{
    fixture *f = *state;
    const float one = 1;
    make_raw(f->mem, make_tensor(f->mem, f->gp, "w", RUNG_F32, 0, NULL), &one, sizeof one);
    make_output(f->mem, f->gp, "w", RUNG_F32);
    make_output(f->mem, f->gp, "x", RUNG_I8);
    make_info(f->mem, f->gp, "x", RUNG_I8);
    make_info(f->mem, f->gp, "nowhere", RUNG_I8);
    read_well(f);
    assert_int_equal(f->g->n_outputs, 3);
    assert_int_equal(value_of(f->g, "x")->type, RUNG_F32);
    assert_true(f->g->graph_extra.size > 0);
}

/* --- what is refused -------------------------------------------------------------------------- */

static void test_versions(void **state)
{
    fixture *f = *state;
    f->m->ir_version = 2;
    refused(f, RUNG_EUNSUPPORTED, "ir_version 2", "anew");
    f->m->has_ir_version = false;
    refused(f, RUNG_EFORMAT, "ir_version", "");
    f->m->has_ir_version = true;
    f->m->ir_version = 3;
    f->m->opset_import[0]->version = 6;
    refused(f, RUNG_EUNSUPPORTED, "opset 6", "version_converter");
    f->m->opset_import[0]->version = -1;
    refused(f, RUNG_EFORMAT, "opset", "");
    f->m->opset_import[0]->version = 99;
    read_well(f);
    f->m->graph = NULL;
    graph_free(f->g);
    refused(f, RUNG_EFORMAT, "graph", "");
}

static void test_names(void **state)
{
    fixture *f = *state;
    node_proto *n = make_node(f->mem, f->gp, "Add", "x,nowhere", "z");
    refused(f, RUNG_EMODEL, "Add making 'z'", "'nowhere'");
    n->name = (char *)"sum";
    refused(f, RUNG_EMODEL, "Add 'sum'", "'nowhere'");
    n->input[1] = (char *)"x";
    n->output[0] = (char *)"y";
    refused(f, RUNG_EMODEL, "Add 'sum'", "'y'");
    n->output[0] = (char *)"x";
    refused(f, RUNG_EMODEL, "Add 'sum'", "'x'");
    n->output[0] = (char *)"z";
    n->op_type = NULL;
    refused(f, RUNG_EFORMAT, "'sum'", "op_type");
    n->op_type = (char *)"Add";
    make_input(f->mem, f->gp, "x", RUNG_F32);
    refused(f, RUNG_EMODEL, "input", "'x'");
    f->gp->n_input--;
    make_output(f->mem, f->gp, "absent", RUNG_F32);
    refused(f, RUNG_EMODEL, "output", "'absent'");
}

static void test_initializers(void **state)
{
    fixture *f = *state;
    const float one = 1;
    tensor_proto *t = make_tensor(f->mem, f->gp, "w", RUNG_F32, 0, NULL);
    refused(f, RUNG_EFORMAT, "'w'", "need");
    make_raw(f->mem, t, &one, 3);
    refused(f, RUNG_EFORMAT, "'w'", "3 bytes");
    make_raw(f->mem, t, &one, 4);
    make_raw(f->mem, make_tensor(f->mem, f->gp, "w", RUNG_F32, 0, NULL), &one, 4);
    refused(f, RUNG_EMODEL, "initializer", "'w'");
    f->gp->initializer[1]->name = NULL;
    refused(f, RUNG_EFORMAT, "initializer", "name");
    f->gp->n_initializer = 1;
    t->data_type = 99;
    refused(f, RUNG_EUNSUPPORTED, "'w'", "99");
    t->data_type = 0;
    refused(f, RUNG_EUNSUPPORTED, "'w'", "type");
    t->data_type = RUNG_STRING;
    refused(f, RUNG_EFORMAT, "'w'", "strings");
    t->data_type = RUNG_F32;
    t->has_segment = true;
    refused(f, RUNG_EUNSUPPORTED, "'w'", "segments");
}

static void test_absurd_dimensions(void **state)
{
    static const int64_t cases[][3] = {
        { INT64_MAX, INT64_MAX, 1 }, { -1, 1, 1 },           { INT64_MIN, 0, 1 },
        { INT64_C(1) << 32, INT64_C(1) << 32, 1 },           { INT64_MAX, 1, 1 },
        { INT64_C(1) << 40, 1, 1 },  { INT64_C(1) << 61, 4, 4 },
    };
    static const int32_t kinds[] = { RUNG_F32, RUNG_STRING, RUNG_I4, RUNG_F6E2M3, RUNG_COMPLEX128 };
    fixture *f = *state;
    tensor_proto *t = make_tensor(f->mem, f->gp, "w", RUNG_F32, 3, cases[0]);
    make_raw(f->mem, t, "1234", 4);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
            t->dims = (int64_t *)cases[i];
            t->data_type = kinds[k];
            refused(f, RUNG_EFORMAT, "'w'", "dimensions");
        }
    static const int64_t ones[9] = { 1, 1, 1, 1, 1, 1, 1, 1, 1 };
    t->dims = (int64_t *)ones;
    t->n_dims = 9;
    refused(f, RUNG_EUNSUPPORTED, "'w'", "9 dimensions");
}

static void test_cycles(void **state)
{
    fixture *f = *state;
    f->gp->node[0]->input[0] = (char *)"y";
    refused(f, RUNG_EMODEL, "Relu making 'y'", "");
    f->gp->node[0]->input[0] = (char *)"a";
    make_node(f->mem, f->gp, "Neg", "b", "a");
    make_node(f->mem, f->gp, "Abs", "a", "b");
    refused(f, RUNG_EMODEL, "making", "cycle");
}

static void test_attribute_errors(void **state)
{
    fixture *f = *state;
    attr_proto *a = make_attr(f->mem, f->gp->node[0], "k", ATTR_TENSOR);
    refused(f, RUNG_EFORMAT, "Relu making 'y'", "'k'");
    a->has_type = false;
    refused(f, RUNG_EFORMAT, "'k'", "type");
    a->has_type = true;
    a->type = 77; /* a kind of a later ONNX: kept */
    read_well(f);
    assert_int_equal(f->g->nodes[0].attrs[0].kind, ATTR_OPAQUE);
    graph_free(f->g);
    a->type = ATTR_GRAPH;
    a->has_g = true;
    a->g = proto_binary((bytes){ (const unsigned char *)"\xff", 1 });
    refused(f, RUNG_EFORMAT, "Relu making 'y'", "'k'");
    a->name = NULL;
    a->type = ATTR_INT;
    a->has_g = false;
    refused(f, RUNG_EFORMAT, "Relu making 'y'", "no name");
}

/* --- files ------------------------------------------------------------------------------------ */

static void test_files(void **state)
{
    fixture *f = *state;
    char folder[] = "/tmp/rung_onnx_XXXXXX", path[64];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/m.onnx", folder);
    assert_int_equal(onnx_read_file(path, &f->g, &f->err), RUNG_EIO);
    assert_non_null(strstr(f->err.message, path));
    read_well(f);
    assert_int_equal(onnx_write_file(f->g, path, false, &f->err), RUNG_OK);
    graph_free(f->g);
    assert_int_equal(onnx_read_file(path, &f->g, &f->err), RUNG_OK);
    graph_free(f->g);
    f->g = NULL;
    assert_int_equal(truncate(path, 20), 0);
    assert_int_equal(onnx_read_file(path, &f->g, &f->err), RUNG_EFORMAT);
    assert_non_null(strstr(f->err.message, path));
    assert_int_equal(truncate(path, 0), 0);
    assert_int_equal(onnx_read_file(path, &f->g, &f->err), RUNG_EFORMAT);
    assert_int_equal(onnx_read_file(folder, &f->g, &f->err), RUNG_EIO);
    unlink(path);
    rmdir(folder);
}

/* A write that fails leaves nothing. */
static void test_write_fails(void **state)
{
    fixture *f = *state;
    read_well(f);
    assert_int_equal(onnx_write_file(f->g, "/nonexistent/m.onnx", false, &f->err), RUNG_EIO);
    assert_non_null(strstr(f->err.message, "/nonexistent/m.onnx"));
    assert_int_equal(onnx_write_file(f->g, "/dev/full", false, &f->err), RUNG_EIO);
}

/* A constant made by rung: an initializer of a model whose ir_version wants them as inputs. */
static void test_new_constants_raise_the_version(void **state)
{
    fixture *f = *state;
    float one = 1;
    tensor t = { .type = RUNG_F32, .rank = 0, .data = &one };
    unsigned char *data;
    size_t size;
    graph *again;
    f->m->ir_version = 3;
    read_well(f);
    assert_int_equal(f->g->ir_version, 3);
    assert_true(graph_add_constant(f->g, "k", &t) >= 0);
    assert_int_equal(onnx_write(f->g, &data, &size, &f->err), RUNG_OK);
    assert_int_equal(onnx_read(data, size, NULL, &again, &f->err), RUNG_OK);
    assert_int_equal(again->ir_version, 4);
    graph_free(again);
    mem_free(data);
}

/* 2.4 GB of constants, none of them touched: known to be too much before anything is packed. */
static void test_over_2_gb_in_memory_is_refused(void **state)
{
    enum { COUNT = 200000000 };
    const int64_t dims[] = { COUNT };
    const tensor t = { .type = RUNG_F32, .rank = 1, .dims = { COUNT },
                       .data = mmap(NULL, (size_t)COUNT * 4, PROT_READ,
                                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) };
    fixture *f = *state;
    unsigned char *data;
    size_t size;
    assert_true(t.data != MAP_FAILED);
    read_well(f);
    for (int i = 0; i < 3; i++) {
        const int id = graph_add_value(f->g, "w", RUNG_F32, 1, dims);
        f->g->values[id].constant = &t;
    }
    assert_int_equal(onnx_write(f->g, &data, &size, &f->err), RUNG_EUNSUPPORTED);
    assert_non_null(strstr(f->err.message, "external data"));
    assert_null(data);
    munmap(t.data, (size_t)COUNT * 4);
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_rich_model),
        CASE(test_captures),
        CASE(test_attributes),
        CASE(test_typed_fields),
        CASE(test_empty_tensors),
        CASE(test_outputs_of_inputs_and_constants),
        CASE(test_versions),
        CASE(test_names),
        CASE(test_initializers),
        CASE(test_absurd_dimensions),
        CASE(test_cycles),
        CASE(test_attribute_errors),
        CASE(test_files),
        CASE(test_write_fails),
        CASE(test_new_constants_raise_the_version),
        CASE(test_over_2_gb_in_memory_is_refused),
    };
    return cmocka_run_group_tests_name("onnx_read", tests, NULL, NULL);
}
