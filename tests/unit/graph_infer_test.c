/* graph_infer with made-up operators: what is declared, what is inferred, what is evaluated. */
#include "graph_kit.h"

#include <string.h>

#include "base/mem.h"

/* --- operators -------------------------------------------------------------------------------- */

static rung_status same_infer(const infer_args *a, rung_error *err)
{
    if (!a->in[0])
        return fail(err, RUNG_EMODEL, "an input is missing");
    a->out[0] = *a->in[0];
    a->out[0].data = NULL;
    return RUNG_OK;
}

static rung_status shape_infer(const infer_args *a, rung_error *err)
{
    const value_info *x = a->in[0];
    a->out[0].type = RUNG_I64;
    if (x->rank < 0)
        return RUNG_OK;
    a->out[0].rank = 1;
    a->out[0].dims[0] = x->rank;
    if (dims_count(x->rank, x->dims) == SIZE_MAX)
        return RUNG_OK;
    tensor *t = tensor_new(a->mem, RUNG_I64, 1, a->out[0].dims);
    if (!t)
        return fail_memory(err, "a shape", 0);
    memcpy(t->data, x->dims, (size_t)x->rank * sizeof *x->dims);
    a->out[0].data = t;
    return RUNG_OK;
}

static rung_status double_eval(const eval_args *a, rung_error *err)
{
    const int64_t *x = a->in[0].data;
    int64_t *y = a->out[0].data;
    for (size_t i = 0; i < tensor_count(&a->in[0]); i++) {
        if (x[i] == 13)
            return fail(err, RUNG_EMODEL, "13 brings bad luck");
        if (x[i] == 17)
            return fail(err, RUNG_EUNSUPPORTED, "17 is hard");
        y[i] = 2 * x[i];
    }
    return RUNG_OK;
}

static rung_status fill_infer(const infer_args *a, rung_error *err)
{
    const tensor *dims = a->in[0]->data;
    a->out[0].type = RUNG_F32;
    if (!dims)
        return RUNG_OK;
    a->out[0].rank = (int)tensor_count(dims);
    for (int d = 0; d < a->out[0].rank && d < RUNG_MAX_RANK; d++)
        a->out[0].dims[d] = tensor_get_int(dims, (size_t)d);
    return RUNG_OK;
}

static const op_def ops[] = {
    { .name = "Same", .domain = "", .infer = same_infer },
    { .name = "Shape", .domain = "", .infer = shape_infer },
    { .name = "Double", .domain = "", .infer = same_infer, .eval = double_eval },
    { .name = "QuantizeLinear", .domain = "", .infer = same_infer, .eval = double_eval },
    { .name = "Fill", .domain = "", .infer = fill_infer },
    { .name = "Silent", .domain = "" },
};

static const op_def *find(const char *op_type, const char *domain)
{
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        if (!strcmp(ops[i].name, op_type))
            return &ops[i];
    return NULL;
}

/* --- running it ------------------------------------------------------------------------------- */

typedef struct fixture {
    graph      *g;
    arena      *mem;
    value_info *info;
} fixture;

static void begin(fixture *f)
{
    f->g = kit_graph(find);
    f->mem = arena_new();
}

static rung_status infer(fixture *f, const int64_t *const *dims, rung_error *err)
{
    f->info = arena_zero(f->mem, f->g->n_values, sizeof *f->info);
    return graph_infer(f->g, dims, f->mem, f->info, err);
}

static void end(fixture *f)
{
    arena_free(f->mem);
    graph_free(f->g);
}

static void expect_dims(const fixture *f, int v, int rank, const int64_t *dims)
{
    assert_int_equal(f->info[v].rank, rank);
    for (int d = 0; d < rank; d++)
        assert_int_equal(f->info[v].dims[d], dims[d]);
}

/* Declares type and dims of a value. */
static void declare(graph *g, int v, int rank, const int64_t *dims)
{
    g->values[v].type = RUNG_F32;
    g->values[v].rank = rank;
    memcpy(g->values[v].dims, dims, (size_t)rank * sizeof *dims);
}

/* --- declared and inferred -------------------------------------------------------------------- */

static void unknown_parts_come_from_either(void **state)
{
    fixture f;
    begin(&f);
    const int x = kit_input(f.g, "x", 2, DIMS(DIM_UNKNOWN, 3));
    const int y = kit_node(f.g, "Same", "s", 1, IDS(x));
    const int z = kit_node(f.g, "Silent", "q", 1, IDS(y));
    const int u = kit_node(f.g, "Unheard", "u", 1, IDS(z));
    declare(f.g, y, 2, DIMS(4, DIM_UNKNOWN));
    declare(f.g, z, 1, DIMS(9));
    assert_ok(infer(&f, NULL, err));
    expect_dims(&f, y, 2, DIMS(4, 3));
    expect_dims(&f, z, 1, DIMS(9));
    assert_int_equal(f.info[z].type, RUNG_F32);
    assert_int_equal(f.info[u].rank, -1);
    end(&f);
}

static void conflicts_name_node_and_both(void **state)
{
    fixture f;
    begin(&f);
    const int y = kit_node(f.g, "Same", "s", 1, IDS(kit_input(f.g, "x", 2, DIMS(2, 3))));
    declare(f.g, y, 2, DIMS(2, 4));
    assert_fails(infer(&f, NULL, err), RUNG_EMODEL,
                 "Same 's': 's_out' is declared [2,4], but its operator makes [2,3]");
    declare(f.g, y, 1, DIMS(6));
    assert_fails(infer(&f, NULL, err), RUNG_EMODEL, "declared [6]");
    declare(f.g, y, 2, DIMS(2, 3));
    f.g->values[y].type = RUNG_I8;
    assert_fails(infer(&f, NULL, err), RUNG_EMODEL, "declared int8, but its operator makes float");
    f.g->nodes[0].inputs[0] = -1;
    assert_fails(infer(&f, NULL, err), RUNG_EMODEL, "Same 's': an input is missing");
    end(&f);
}

static void overrides_win_over_stale_declarations(void **state)
{
    fixture f;
    begin(&f);
    const int x = kit_input(f.g, "x", 2, DIMS(1, 3)), w = kit_input(f.g, "w", 1, DIMS(5));
    const int y = kit_node(f.g, "Same", "s", 1, IDS(x));
    const int z = kit_node(f.g, "Silent", "q", 1, IDS(y));
    declare(f.g, y, 2, DIMS(1, 3));
    declare(f.g, z, 2, DIMS(1, 3));
    const int64_t *given[] = { DIMS(8, DIM_UNKNOWN), NULL };
    assert_ok(infer(&f, given, err));
    expect_dims(&f, x, 2, DIMS(8, 3));
    expect_dims(&f, w, 1, DIMS(5));
    expect_dims(&f, y, 2, DIMS(8, 3));
    expect_dims(&f, z, 2, DIMS(1, 3)); /* nobody knows better */
    given[0] = DIMS(8, -2);
    assert_fails(infer(&f, given, err), RUNG_EARGUMENT, "input 'x': dimension 1 is given as -2");
    f.g->values[x].rank = -1;
    assert_fails(infer(&f, given, err), RUNG_EUNSUPPORTED, "'x'");
    end(&f);
}

/* --- contents --------------------------------------------------------------------------------- */

static void shapes_are_evaluated(void **state)
{
    fixture f;
    begin(&f);
    const int x = kit_input(f.g, "x", 2, DIMS(2, 5));
    const int shape = kit_node(f.g, "Shape", "s", 1, IDS(x));
    const int twice = kit_node(f.g, "Double", "d", 1, IDS(shape));
    const int filled = kit_node(f.g, "Fill", "f", 1, IDS(twice));
    assert_ok(infer(&f, NULL, err));
    assert_int_equal(tensor_get_int(f.info[twice].data, 1), 10);
    expect_dims(&f, filled, 2, DIMS(4, 10));
    f.g->values[x].dims[0] = DIM_UNKNOWN;
    assert_ok(infer(&f, NULL, err));
    assert_null(f.info[twice].data);
    assert_int_equal(f.info[filled].rank, -1);
    end(&f);
}

static void what_is_large_or_a_weight_is_not_evaluated(void **state)
{
    fixture f;
    begin(&f);
    int64_t *many = mem_zero(4097, sizeof *many);
    const int c = kit_ints(f.g, "c", 4096, many), d = kit_ints(f.g, "d", 4097, many);
    const int small = kit_node(f.g, "Double", "a", 1, IDS(c));
    const int large = kit_node(f.g, "Double", "b", 1, IDS(d));
    const int weight = kit_node(f.g, "QuantizeLinear", "q", 1, IDS(c));
    assert_ok(infer(&f, NULL, err));
    assert_non_null(f.info[small].data);
    assert_null(f.info[large].data);
    assert_null(f.info[weight].data);
    mem_free(many);
    end(&f);
}

static void failed_evaluations(void **state)
{
    fixture f;
    begin(&f);
    const int hard = kit_ints(f.g, "hard", 1, DIMS(17)), bad = kit_ints(f.g, "bad", 1, DIMS(13));
    const int y = kit_node(f.g, "Double", "a", 1, IDS(hard));
    assert_ok(infer(&f, NULL, err));
    assert_null(f.info[y].data);
    kit_node(f.g, "Double", "b", 1, IDS(bad));
    assert_fails(infer(&f, NULL, err), RUNG_EMODEL, "Double 'b': 13 brings bad luck");
    end(&f);
}

static void wild_results_are_refused(void **state)
{
    fixture f;
    begin(&f);
    kit_node(f.g, "Fill", "f", 1, IDS(kit_ints(f.g, "c", 2, DIMS(4, -7))));
    assert_fails(infer(&f, NULL, err), RUNG_EMODEL, "Fill 'f': 'f_out' would have the dimension -");
    f.g->nodes[0].inputs[0] = kit_ints(f.g, "r", 9, DIMS(1, 1, 1, 1, 1, 1, 1, 1, 1));
    assert_fails(infer(&f, NULL, err), RUNG_EMODEL, "rank 9: at most 8");
    end(&f);
}

static void every_allocation_may_fail(void **state)
{
    rung_status st = RUNG_EMEMORY;
    fixture f;
    begin(&f);
    int n = 0;
    const int x = kit_input(f.g, "x", 2, DIMS(2, 5));
    kit_node(f.g, "Double", "d", 1, IDS(kit_node(f.g, "Shape", "s", 1, IDS(x))));
    for (; st != RUNG_OK && n < 1000; n++) {
        rung_error why;
        mem_fail_after(n);
        arena *mem = arena_new();
        value_info *info = mem ? arena_zero(mem, f.g->n_values, sizeof *info) : NULL;
        st = info ? graph_infer(f.g, NULL, mem, info, &why) : RUNG_EMEMORY;
        mem_fail_after(-1);
        assert_true(st == RUNG_OK || st == RUNG_EMEMORY);
        arena_free(mem);
    }
    assert_int_equal(st, RUNG_OK);
    assert_true(n > 3);
    end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unknown_parts_come_from_either),
        cmocka_unit_test(conflicts_name_node_and_both),
        cmocka_unit_test(overrides_win_over_stale_declarations),
        cmocka_unit_test(shapes_are_evaluated),
        cmocka_unit_test(what_is_large_or_a_weight_is_not_evaluated),
        cmocka_unit_test(failed_evaluations),
        cmocka_unit_test(wild_results_are_refused),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
