/* onnx: any bytes are either a model that survives a round trip, or refused with a sentence. Run
 * under AddressSanitizer: each try lies in memory of exactly its size. */
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "onnx_make.h"

static void try_bytes(const unsigned char *data, size_t size, const char *what, size_t where)
{
    rung_error err = { "" };
    graph *g = NULL;
    const rung_status st = onnx_read(data, size, NULL, &g, &err);
    const char *broken = NULL;
    if (st == RUNG_OK)
        broken = what_breaks(g, &err);
    else if (g || !err.message[0])
        broken = "a failure without a sentence";
    graph_free(g);
    if (broken)
        fail_msg("%s %zu: %s: %s", what, where, broken, err.message);
}

static void test_every_truncation(void **state)
{
    arena *mem = arena_new();
    const bytes b = make_rich_model(mem);
    for (size_t n = 0; n < b.size; n++) {
        unsigned char *cut = malloc(n ? n : 1);
        memcpy(cut, b.data, n);
        try_bytes(cut, n, "cut at byte", n);
        free(cut);
    }
    arena_free(mem);
}

static void test_every_bit_flip(void **state)
{
    arena *mem = arena_new();
    const bytes b = make_rich_model(mem);
    unsigned char *copy = malloc(b.size);
    memcpy(copy, b.data, b.size);
    for (size_t bit = 0; bit < 8 * b.size; bit++) {
        copy[bit / 8] ^= (unsigned char)(1u << bit % 8);
        try_bytes(copy, b.size, "bit", bit);
        copy[bit / 8] ^= (unsigned char)(1u << bit % 8);
    }
    free(copy);
    arena_free(mem);
}

/* Each byte at its extremes: lengths and numbers far too large. */
static void test_every_byte_at_its_extremes(void **state)
{
    static const unsigned char extremes[] = { 0, 0x7f, 0x80, 0xff };
    arena *mem = arena_new();
    const bytes b = make_rich_model(mem);
    unsigned char *copy = malloc(b.size);
    memcpy(copy, b.data, b.size);
    for (size_t i = 0; i < b.size; i++) {
        for (size_t k = 0; k < sizeof extremes; k++) {
            copy[i] = extremes[k];
            try_bytes(copy, b.size, "byte", i);
        }
        copy[i] = b.data[i];
    }
    free(copy);
    arena_free(mem);
}

/* A model whose If has an If in its branch, and so on. */
static bytes nested_model(arena *mem, int depth)
{
    bytes inner = { NULL, 0 };
    for (int i = 0; i < depth; i++) {
        graph_proto *g = proto_new(GRAPH_PROTO, mem);
        node_proto *n = make_node(mem, g, "If", "c", "o");
        if (inner.size) {
            attr_proto *a = make_attr(mem, n, "then_branch", ATTR_GRAPH);
            a->has_g = true;
            a->g = proto_binary(inner);
        }
        inner = proto_pack(g, mem);
    }
    model_proto *m = make_model(mem);
    make_input(mem, m->graph, "c", RUNG_BOOL);
    attr_proto *a = make_attr(mem, make_node(mem, m->graph, "If", "c", "y"), "then_branch",
                              ATTR_GRAPH);
    a->has_g = true;
    a->g = proto_binary(inner);
    make_output(mem, m->graph, "y", RUNG_F32);
    return proto_pack(m, mem);
}

static void test_nesting(void **state)
{
    arena *mem = arena_new();
    graph *g = NULL;
    rung_error err;
    bytes b = nested_model(mem, 64);
    assert_int_equal(onnx_read(b.data, b.size, NULL, &g, &err), RUNG_OK);
    assert_int_equal(g->nodes[0].n_captures, 1);
    assert_null(what_breaks(g, &err));
    graph_free(g);
    b = nested_model(mem, 65);
    assert_int_equal(onnx_read(b.data, b.size, NULL, &g, &err), RUNG_EFORMAT);
    assert_non_null(strstr(err.message, "nested"));
    assert_non_null(strstr(err.message, "If making 'y'"));
    b = nested_model(mem, 2000);
    assert_int_equal(onnx_read(b.data, b.size, NULL, &g, &err), RUNG_EFORMAT);
    arena_free(mem);
}

/* Types of types of types: bytes to us, whatever their depth. */
static void test_nested_types(void **state)
{
    enum { DEPTH = 20000 };
    arena *mem = arena_new();
    model_proto *m = make_model(mem);
    graph *g = NULL;
    rung_error err;
    bytes type = { NULL, 0 };
    unsigned char *end = (unsigned char *)arena_zero(mem, 1, 6 * DEPTH) + (size_t)6 * DEPTH;
    for (int i = 0; i < DEPTH; i++) { /* sequence_type = 4 of TypeProto, elem_type = 1 of it */
        for (int field = 1; field <= 4; field += 3) {
            unsigned char head[6];
            size_t n = 0, size = type.size;
            head[n++] = (unsigned char)(field << 3 | 2);
            for (; size >= 128; size >>= 7)
                head[n++] = (unsigned char)(size | 128);
            head[n++] = (unsigned char)size;
            if (type.size + n > (size_t)6 * DEPTH)
                break;
            end -= n;
            memcpy(end, head, n);
            type = (bytes){ end, type.size + n };
        }
    }
    make_input(mem, m->graph, "x", RUNG_F32)->type = proto_restore(TYPE_PROTO, type, mem);
    assert_int_equal(read_model_proto(m, mem, &g, &err), RUNG_OK);
    assert_int_equal(g->values[0].type_proto.size, type.size);
    assert_null(what_breaks(g, &err));
    graph_free(g);
    arena_free(mem);
}

/* Memory is bounded by the file: two million empty nodes would take a hundred times its size. */
static void test_memory_is_bounded(void **state)
{
    enum { SIZE = 8 << 20 };
    graph *g = NULL;
    rung_error err;
    unsigned char *data = malloc(SIZE + 16);
    size_t n = 0;
    data[n++] = 0x3a; /* graph, SIZE bytes */
    for (size_t size = SIZE; size; size >>= 7)
        data[n++] = (unsigned char)((size & 127) | (size >= 128 ? 128 : 0));
    for (size_t i = 0; i < SIZE; i += 2) {
        data[n++] = 0x0a; /* node, no bytes */
        data[n++] = 0;
    }
    assert_int_equal(onnx_read(data, n, NULL, &g, &err), RUNG_EMEMORY);
    assert_non_null(strstr(err.message, "memory"));
    free(data);
}

/* Each allocation fails in turn: a status, no leak, no crash. */
static void test_allocations_fail(void **state)
{
    arena *mem = arena_new();
    const bytes b = make_rich_model(mem);
    rung_status st = RUNG_EMEMORY;
    long n = 0;
    for (; st == RUNG_EMEMORY && n < 100000; n++) {
        rung_error err;
        graph *g = NULL;
        unsigned char *data = NULL;
        size_t size;
        mem_fail_after(n);
        st = onnx_read(b.data, b.size, NULL, &g, &err);
        if (st == RUNG_OK)
            st = onnx_write(g, &data, &size, &err);
        mem_fail_after(-1);
        mem_free(data);
        graph_free(g);
    }
    if (st != RUNG_OK || n < 10)
        fail_msg("status %d after %ld allocations", st, n);
    arena_free(mem);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_truncation),
        cmocka_unit_test(test_every_bit_flip),
        cmocka_unit_test(test_every_byte_at_its_extremes),
        cmocka_unit_test(test_nesting),
        cmocka_unit_test(test_nested_types),
        cmocka_unit_test(test_memory_is_bounded),
        cmocka_unit_test(test_allocations_fail),
    };
    return cmocka_run_group_tests_name("onnx_hostile", tests, NULL, NULL);
}
