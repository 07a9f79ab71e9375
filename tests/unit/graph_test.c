/* The graph: making, copying, attributes, uses, order. */
#include "graph_kit.h"

#include <string.h>

#include "base/mem.h"

static const op_def known = { .name = "Known", .domain = "" };

static const op_def *find_known(const char *op_type, const char *domain)
{
    return !strcmp(op_type, "Known") && !*domain ? &known : NULL;
}

/* x -> Known a -> Known b -> y, w and every sort of attribute on b. */
static graph *chain(void)
{
    graph *g = kit_graph(find_known);
    const float w[] = { 1, 2, 3 };
    const int x = kit_input(g, "x", 2, DIMS(DIM_UNKNOWN, 3));
    const int c = kit_constant(g, "w", RUNG_F32, 1, DIMS(3), w);
    const int a = kit_node(g, "Known", "a", 1, IDS(x));
    kit_output(g, kit_node(g, "Known", "b", 3, IDS(a, -1, c)));
    node *b = kit_last(g);
    const bytes words[] = { { (const unsigned char *)"one", 3 }, { NULL, 0 } };
    const attr floats = { .name = "floats", .kind = ATTR_FLOATS, .floats = { w, 3 } };
    const attr strings = { .name = "strings", .kind = ATTR_STRINGS, .strings = { words, 2 } };
    const attr t = { .name = "t", .kind = ATTR_TENSOR, .t = g->values[c].constant };
    const attr opaque = { .name = "o", .opaque = { (const unsigned char *)"\1\2", 2 } };
    assert_ok(graph_set_attr(g, b, &floats, err));
    assert_ok(graph_set_attr(g, b, &strings, err));
    assert_ok(graph_set_attr(g, b, &t, err));
    assert_ok(graph_set_attr(g, b, &opaque, err));
    assert_ok(graph_set_int(g, b, "i", 7, err));
    assert_ok(graph_set_ints(g, b, "ints", DIMS(4, 5), 2, err));
    assert_ok(graph_set_float(g, b, "f", 1.5f, err));
    assert_ok(graph_set_string(g, b, "s", "text", err));
    assert_ok(graph_set_metadata(g, "key", "value", err));
    g->values[x].symbols[0] = "N";
    return g;
}

static void adding(void **state)
{
    graph *g = chain();
    assert_ok(graph_verify(g, err));
    assert_ptr_equal(g->nodes[0].op, &known);
    assert_int_equal(g->values[kit_find(g, "a_out")].producer, 0);
    const int again = graph_add_value(g, "x", RUNG_F32, 0, NULL);
    assert_string_equal(g->values[again].name, "x_1");
    const int third = graph_add_value(g, "x", RUNG_F32, 0, NULL);
    assert_string_equal(g->values[third].name, "x_2");
    assert_string_equal(g->values[graph_add_value(g, "", RUNG_F32, 0, NULL)].name, "value");
    assert_int_equal(graph_add_value(g, "deep", RUNG_F32, RUNG_MAX_RANK + 1, NULL), -1);
    graph_add_node(g, "Known", "ai.onnx", "", NULL, 0, NULL, 0);
    assert_string_equal(kit_last(g)->domain, "");
    assert_ptr_equal(kit_last(g)->op, &known);
    graph_add_node(g, "Known", "other", "", NULL, 0, NULL, 0);
    assert_null(kit_last(g)->op);
    graph_free(g);
}

static void attributes(void **state)
{
    graph *g = chain();
    node *b = &g->nodes[1];
    const int64_t *v = NULL;
    assert_int_equal(node_int(b, "i", 0), 7);
    assert_int_equal(node_int(b, "f", -1), -1); /* another kind is as good as none */
    assert_true(node_float(b, "f", 0) == 1.5f);
    assert_string_equal(node_string(b, "s", ""), "text");
    assert_int_equal(node_ints(b, "ints", &v), 2);
    assert_int_equal(v[1], 5);
    assert_int_equal(node_ints(b, "none", &v), 0);
    const int n = b->n_attrs;
    assert_ok(graph_set_int(g, b, "i", 8, err));
    assert_int_equal(b->n_attrs, n);
    assert_int_equal(node_int(b, "i", 0), 8);
    node_remove_attr(b, "i");
    assert_int_equal(b->n_attrs, n - 1);
    assert_null(node_attr(b, "i"));
    assert_string_equal(node_string(b, "s", ""), "text");
    graph_free(g);
}

static void opsets_and_metadata(void **state)
{
    graph *g = kit_graph(NULL);
    assert_int_equal(graph_opset(g, "ai.onnx"), 13);
    assert_ok(graph_set_opset(g, "ai.onnx", 21, err));
    assert_int_equal(graph_opset(g, ""), 21);
    assert_int_equal(g->n_opsets, 1);
    assert_int_equal(graph_opset(g, "com.microsoft"), 0);
    assert_ok(graph_set_opset(g, "com.microsoft", 1, err));
    assert_int_equal(graph_opset(g, "com.microsoft"), 1);
    assert_null(graph_metadata(g, "k"));
    assert_ok(graph_set_metadata(g, "k", "1", err));
    assert_ok(graph_set_metadata(g, "k", "2", err));
    assert_string_equal(graph_metadata(g, "k"), "2");
    assert_int_equal(g->n_metadata, 1);
    graph_free(g);
}

static void labels(void **state)
{
    graph *g = chain();
    char text[NODE_LABEL_SIZE], cut[8];
    assert_string_equal(node_label(g, &g->nodes[0], text, sizeof text), "Known 'a'");
    g->nodes[0].name = "";
    assert_string_equal(node_label(g, &g->nodes[0], text, sizeof text), "Known making 'a_out'");
    g->nodes[0].n_outputs = 0;
    assert_string_equal(node_label(g, &g->nodes[0], text, sizeof text), "Known");
    assert_string_equal(node_label(g, &g->nodes[1], cut, sizeof cut), "Known '");
    graph_free(g);
}

static void same_attrs(const node *a, const node *b)
{
    assert_int_equal(a->n_attrs, b->n_attrs);
    for (int i = 0; i < a->n_attrs; i++) {
        assert_string_equal(a->attrs[i].name, b->attrs[i].name);
        assert_int_equal(a->attrs[i].kind, b->attrs[i].kind);
        assert_ptr_not_equal(a->attrs[i].name, b->attrs[i].name);
    }
}

static void clone_is_equal_and_independent(void **state)
{
    graph *g = chain(), *c;
    assert_ok(graph_clone(g, &c, err));
    const node *a = &g->nodes[1];
    graph *const original = g;
    for (size_t v = 0; v < g->n_values; v++) {
        assert_string_equal(g->values[v].name, c->values[v].name);
        assert_int_equal(strmap_get(c->by_name, g->values[v].name, -1), (int)v);
        assert_int_equal(g->values[v].producer, c->values[v].producer);
    }
    same_attrs(a, &c->nodes[1]);
    assert_ptr_not_equal(g->values[1].constant->data, c->values[1].constant->data);
    graph_free(original);
    assert_ok(graph_verify(c, err));
    const node *b = &c->nodes[1];
    assert_string_equal(c->values[0].symbols[0], "N");
    assert_string_equal(graph_metadata(c, "key"), "value");
    assert_int_equal(graph_opset(c, ""), 13);
    assert_true(node_attr(b, "floats")->floats.v[2] == 3);
    assert_memory_equal(node_attr(b, "strings")->strings.v[0].data, "one", 3);
    assert_true(tensor_get(node_attr(b, "t")->t, 1) == 2);
    assert_memory_equal(node_attr(b, "o")->opaque.data, "\1\2", 2);
    assert_true(tensor_get(c->values[1].constant, 2) == 3);
    const int added = graph_add_value(c, "w", RUNG_F32, 0, NULL);
    assert_int_equal(added, (int)c->n_values - 1);
    assert_string_equal(c->values[added].name, "w_1");
    graph_free(c);
}

/* --- uses and order --------------------------------------------------------------------------- */

static void uses_list_operands_and_captures(void **state)
{
    graph *g = chain();
    const int x = kit_find(g, "x"), y = kit_find(g, "b_out");
    kit_node(g, "Known", "twice", 2, IDS(x, x));
    int captured[] = { x };
    kit_last(g)->captures = captured;
    kit_last(g)->n_captures = 1;
    kit_node(g, "Known", "gone", 1, IDS(x));
    kit_last(g)->dead = true;
    arena *mem = arena_new();
    uses u;
    assert_ok(graph_uses(g, mem, &u, err));
    assert_int_equal(u.first[x + 1] - u.first[x], 4);
    assert_int_equal(u.list[u.first[x]], 0);
    for (int i = 1; i < 4; i++)
        assert_int_equal(u.list[u.first[x] + i], 2);
    assert_int_equal(u.first[y + 1] - u.first[y], 0);
    assert_int_equal(u.first[g->n_values], 6);
    arena_free(mem);
    graph_free(g);
}

static void replacing_uses(void **state)
{
    graph *g = chain();
    const int x = kit_find(g, "x"), a = kit_find(g, "a_out");
    int captured[] = { a };
    g->nodes[1].captures = captured;
    g->nodes[1].n_captures = 1;
    graph_replace_uses(g, a, x);
    assert_int_equal(g->nodes[1].inputs[0], x);
    assert_int_equal(g->nodes[1].inputs[1], -1);
    assert_int_equal(g->nodes[1].captures[0], a);
    graph_free(g);
}

static void sort_moves_only_what_must(void **state)
{
    graph *g = kit_graph(NULL);
    const int x = kit_input(g, "x", 0, NULL);
    const int late = graph_add_value(g, "late", RUNG_F32, 0, NULL);
    kit_node(g, "A", "first", 1, IDS(x));
    kit_node(g, "A", "user", 1, IDS(late));
    const int last = kit_node(g, "A", "last", 1, IDS(x));
    kit_node(g, "A", "gone", 1, IDS(x));
    kit_last(g)->dead = true;
    assert_int_equal(graph_add_node(g, "A", "", "maker", &x, 1, &late, 1), 4);
    kit_output(g, last);
    assert_fails(graph_verify(g, err), RUNG_EMODEL, "made before");
    assert_ok(graph_sort(g, err));
    const char *const order[] = { "first", "maker", "user", "last" };
    assert_int_equal(g->n_nodes, 4);
    for (int i = 0; i < 4; i++)
        assert_string_equal(g->nodes[i].name, order[i]);
    assert_int_equal(g->values[late].producer, 1);
    assert_int_equal(g->values[kit_find(g, "gone_out")].producer, -1);
    assert_ok(graph_verify(g, err));
    graph_free(g);
}

static void sort_puts_makers_before_captures(void **state)
{
    graph *g = kit_graph(NULL);
    const int x = kit_input(g, "x", 0, NULL);
    int made = graph_add_value(g, "made", RUNG_F32, 0, NULL);
    kit_output(g, kit_node(g, "If", "branch", 1, IDS(x)));
    kit_last(g)->captures = &made;
    kit_last(g)->n_captures = 1;
    graph_add_node(g, "A", "", "maker", &x, 1, &made, 1);
    assert_ok(graph_sort(g, err));
    assert_string_equal(g->nodes[0].name, "maker");
    assert_ok(graph_verify(g, err));
    graph_free(g);
}

static void sort_names_the_cycle(void **state)
{
    graph *g = kit_graph(NULL);
    const int x = kit_input(g, "x", 0, NULL), back = graph_add_value(g, "back", RUNG_F32, 0, NULL);
    const int a = kit_node(g, "A", "one", 2, IDS(x, back));
    graph_add_node(g, "A", "", "two", &a, 1, &back, 1);
    assert_fails(graph_sort(g, err), RUNG_EMODEL, "cycle");
    assert_int_equal(g->n_nodes, 2);
    g->nodes[1].inputs[0] = back; /* a node that reads itself */
    assert_fails(graph_sort(g, err), RUNG_EMODEL, "A 'two'");
    graph_free(g);
}

static void sort_names_the_value_made_twice(void **state)
{
    graph *g = kit_graph(NULL);
    const int x = kit_input(g, "x", 0, NULL), a = kit_node(g, "A", "one", 1, IDS(x));
    graph_add_node(g, "A", "", "two", &x, 1, &a, 1);
    assert_fails(graph_sort(g, err), RUNG_EMODEL,
                 "'one_out' is made twice: by A 'one' and by A 'two'");
    graph_free(g);
}

/* A chain of 100000 nodes in reverse: the walk uses its own stack, not C's. */
static void sort_is_not_recursive(void **state)
{
    enum { N = 100000 };
    graph *g = kit_graph(NULL);
    const int x = kit_input(g, "v", 0, NULL);
    for (int i = 1; i <= N; i++)
        assert_int_equal(graph_add_value(g, i == 1 ? "first" : NULL, RUNG_F32, 0, NULL), i + x);
    for (int i = N; i > 0; i--) {
        const int in = i - 1 + x, out = i + x;
        assert_int_equal(graph_add_node(g, "A", "", "", &in, 1, &out, 1), N - i);
    }
    kit_output(g, N + x);
    assert_ok(graph_sort(g, err));
    assert_ok(graph_verify(g, err));
    assert_int_equal(g->values[N + x].producer, N - 1);
    graph_free(g);
}

/* --- memory ----------------------------------------------------------------------------------- */

static rung_status try_all(const graph *g, rung_error *err)
{
    graph *c = NULL;
    uses u;
    arena *mem = arena_new();
    rung_status st = mem ? graph_uses(g, mem, &u, err) : RUNG_EMEMORY;
    arena_free(mem);
    if (st == RUNG_OK)
        st = graph_clone(g, &c, err);
    if (st == RUNG_OK)
        st = graph_sort(c, err);
    if (st == RUNG_OK)
        st = graph_verify(c, err);
    if (st == RUNG_OK && graph_add_node(c, "Known", "", "n", NULL, 0, NULL, 0) < 0)
        st = RUNG_EMEMORY;
    if (st == RUNG_OK && graph_add_constant(c, "k", c->values[1].constant) < 0)
        st = RUNG_EMEMORY;
    graph_free(c);
    return st;
}

static void every_allocation_may_fail(void **state)
{
    graph *g = chain();
    rung_error why;
    int n = 0;
    rung_status st;
    do {
        mem_fail_after(n);
        st = try_all(g, &why);
        mem_fail_after(-1);
        assert_true(st == RUNG_OK || st == RUNG_EMEMORY);
        assert_ok(graph_verify(g, err));
    } while (st != RUNG_OK && ++n < 10000);
    assert_int_equal(st, RUNG_OK);
    assert_true(n > 5);
    graph_free(g);
    graph_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(adding),
        cmocka_unit_test(attributes),
        cmocka_unit_test(opsets_and_metadata),
        cmocka_unit_test(labels),
        cmocka_unit_test(clone_is_equal_and_independent),
        cmocka_unit_test(uses_list_operands_and_captures),
        cmocka_unit_test(replacing_uses),
        cmocka_unit_test(sort_moves_only_what_must),
        cmocka_unit_test(sort_puts_makers_before_captures),
        cmocka_unit_test(sort_names_the_cycle),
        cmocka_unit_test(sort_names_the_value_made_twice),
        cmocka_unit_test(sort_is_not_recursive),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
