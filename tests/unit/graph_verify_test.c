/* graph_verify finds the breach of each rule: one small valid graph, broken in one place. */
#include "graph_kit.h"

#include <string.h>

static const op_def known = { .name = "Known", .domain = "" };

static const op_def *find_known(const char *op_type, const char *domain)
{
    return !strcmp(op_type, "Known") ? &known : NULL;
}

enum { X, W, A, Y }; /* values of the graph: x, w -> Known a -> Known b -> y */

static graph *valid(void)
{
    graph *g = kit_graph(find_known);
    const float w[] = { 1, 2, 3 };
    kit_input(g, "x", 2, DIMS(1, 3));
    kit_constant(g, "w", RUNG_F32, 1, DIMS(3), w);
    kit_node(g, "Known", "a", 2, IDS(X, W));
    kit_output(g, kit_node(g, "Known", "b", 1, IDS(A)));
    assert_ok(graph_verify(g, err));
    return g;
}

/* The constant w as a tensor that may be changed. */
static tensor *own_constant(graph *g)
{
    tensor *t = tensor_copy(g->mem, g->values[W].constant);
    g->values[W].constant = t;
    return t;
}

static void no_name(graph *g)
{
    g->values[A].name = "";
}
static void same_name(graph *g)
{
    g->values[A].name = "x";
}
static void unknown_type(graph *g)
{
    g->values[A].type = (dtype)99;
}
static void high_rank(graph *g)
{
    g->values[A].rank = RUNG_MAX_RANK + 1;
}
static void negative_dim(graph *g)
{
    g->values[X].dims[1] = -2;
}
static void constant_type(graph *g)
{
    own_constant(g)->type = RUNG_UNDEFINED;
}
static void constant_rank(graph *g)
{
    own_constant(g)->rank = RUNG_MAX_RANK + 1;
}
static void constant_too_large(graph *g)
{
    tensor *t = own_constant(g);
    t->rank = 3;
    t->dims[0] = t->dims[1] = t->dims[2] = INT64_C(1) << 40;
}
static void constant_negative(graph *g)
{
    own_constant(g)->dims[0] = -1;
}
static void constant_no_data(graph *g)
{
    own_constant(g)->data = NULL;
}
static void constant_other_dims(graph *g)
{
    g->values[W].dims[0] = 4;
}
static void constant_fed(graph *g)
{
    g->values[W].is_input = true;
}
static void input_range(graph *g)
{
    g->inputs[0] = 4;
}
static void input_twice(graph *g)
{
    assert_ok(graph_mark_input(g, X, err));
}
static void input_unlisted(graph *g)
{
    g->n_inputs = 0;
}
static void output_range(graph *g)
{
    g->outputs[0] = -1;
}
static void output_unflagged(graph *g)
{
    g->values[Y].is_output = false;
}
static void output_not_made(graph *g)
{
    g->n_nodes = 1;
    g->values[Y].producer = -1;
}
static void operand_range(graph *g)
{
    g->nodes[0].inputs[0] = 4;
}
static void operand_below(graph *g)
{
    g->nodes[0].inputs[0] = -2;
}
static void operand_later(graph *g)
{
    g->nodes[0].inputs[0] = Y;
}
static void capture_absent(graph *g)
{
    static int none = -1;
    g->nodes[0].captures = &none;
    g->nodes[0].n_captures = 1;
}
static void result_range(graph *g)
{
    g->nodes[0].outputs[0] = 4;
}
static void result_twice(graph *g)
{
    g->nodes[1].outputs[0] = A;
}
static void result_is_constant(graph *g)
{
    g->nodes[0].outputs[0] = W;
}
static void wrong_producer(graph *g)
{
    g->values[Y].producer = 0;
}
static void stale_producer(graph *g)
{
    g->values[X].producer = 0;
}
static void dead_node(graph *g)
{
    g->nodes[1].dead = true;
}
static void negative_count(graph *g)
{
    g->nodes[0].n_inputs = -1;
}
static void other_entry(graph *g)
{
    g->nodes[0].op_type = "Other";
}
static void no_op_type(graph *g)
{
    g->nodes[0].op_type = "";
}
static void attr_no_name(graph *g)
{
    assert_ok(graph_set_int(g, &g->nodes[0], "i", 1, err));
    g->nodes[0].attrs[0].name = "";
}
static void attr_kind_unknown(graph *g)
{
    assert_ok(graph_set_int(g, &g->nodes[0], "i", 1, err));
    g->nodes[0].attrs[0].kind = (attr_kind)17;
}
static void attr_tensor(graph *g)
{
    static const tensor no_data = { RUNG_F32, 1, { 1 }, NULL };
    assert_ok(graph_set_int(g, &g->nodes[0], "t", 1, err));
    g->nodes[0].attrs[0].kind = ATTR_TENSOR;
    g->nodes[0].attrs[0].t = &no_data;
}

static const struct {
    void (*damage)(graph *g);
    const char *words;
} breaches[] = {
    { no_name, "no name" },
    { same_name, "two values have the name 'x'" },
    { unknown_type, "unknown element type 99" },
    { high_rank, "'a_out' has rank 9" },
    { negative_dim, "'x' has a negative dimension" },
    { constant_type, "unknown element type 0" },
    { constant_rank, "constant 'w' has rank 9" },
    { constant_too_large, "too large" },
    { constant_negative, "negative or too large" },
    { constant_no_data, "'w' has no data" },
    { constant_other_dims, "'w' differs from its declared" },
    { constant_fed, "'w' is both a constant and an input" },
    { input_range, "graph input 0 is value 4" },
    { input_twice, "'x' is listed twice" },
    { input_unlisted, "'x' is missing on the list of graph inputs" },
    { output_range, "graph output 0 is value -1" },
    { output_unflagged, "'b_out' is on the list of graph outputs, its flag is not" },
    { output_not_made, "graph output 'b_out' is made by no node" },
    { operand_range, "Known 'a' uses value 4" },
    { operand_below, "Known 'a' uses value -2" },
    { operand_later, "not made before" },
    { capture_absent, "uses value -1" },
    { result_range, "makes value 4" },
    { result_twice, "Known 'b' makes 'a_out', which is there already" },
    { result_is_constant, "Known 'a' makes 'w', which is there already" },
    { wrong_producer, "whose producer says 0, not 1" },
    { stale_producer, "'x' names node 0 as its maker" },
    { dead_node, "Known 'b' is removed but not dropped" },
    { negative_count, "negative number" },
    { other_entry, "Other 'a' has the entry of operator Known" },
    { no_op_type, "no operator type" },
    { attr_no_name, "attribute 0 has no name" },
    { attr_kind_unknown, "unknown kind 17" },
    { attr_tensor, "attribute 't' has no data" },
};

static void each_breach_is_found(void **state)
{
    for (size_t i = 0; i < sizeof breaches / sizeof *breaches; i++) {
        graph *g = valid();
        breaches[i].damage(g);
        assert_fails(graph_verify(g, err), RUNG_EMODEL, breaches[i].words);
        graph_free(g);
    }
}

static void string_and_empty_constants_are_valid(void **state)
{
    graph *g = kit_graph(NULL);
    const bytes words[] = { { (const unsigned char *)"ab", 2 }, { NULL, 0 } };
    const int s = kit_constant(g, "s", RUNG_STRING, 1, DIMS(2), words);
    const int e = kit_constant(g, "e", RUNG_F32, 2, DIMS(0, 5), NULL);
    graph *c;
    assert_ok(graph_verify(g, err));
    assert_ok(graph_clone(g, &c, err));
    graph_free(g);
    assert_ok(graph_verify(c, err));
    const bytes *copied = c->values[s].constant->data;
    assert_memory_equal(copied[0].data, "ab", 2);
    assert_int_equal(copied[1].size, 0);
    assert_int_equal(tensor_count(c->values[e].constant), 0);
    graph_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_breach_is_found),
        cmocka_unit_test(string_and_empty_constants_are_valid),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
