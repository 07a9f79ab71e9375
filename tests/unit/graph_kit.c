#include "graph_kit.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

graph *kit_graph(op_lookup find_op)
{
    graph *g;
    assert_ok(graph_create(find_op, &g, err));
    assert_ok(graph_set_opset(g, "", 13, err));
    g->ir_version = 8;
    return g;
}

int kit_input(graph *g, const char *name, int rank, const int64_t *dims)
{
    const int id = graph_add_value(g, name, RUNG_F32, rank, dims);
    assert_true(id >= 0);
    assert_ok(graph_mark_input(g, id, err));
    return id;
}

void kit_output(graph *g, int id)
{
    assert_ok(graph_mark_output(g, id, err));
}

int kit_constant(graph *g, const char *name, dtype type, int rank, const int64_t *dims,
                 const void *data)
{
    tensor t = { .type = type, .rank = rank, .data = (void *)data };
    for (int d = 0; d < rank; d++)
        t.dims[d] = dims[d];
    const int id = graph_add_constant(g, name, &t);
    assert_true(id >= 0);
    return id;
}

int kit_ints(graph *g, const char *name, int n, const int64_t *v)
{
    return kit_constant(g, name, RUNG_I64, 1, DIMS(n), v);
}

static float *random_floats(rng *r, size_t n)
{
    float *v = mem_alloc(n * sizeof *v);
    assert_non_null(v);
    for (size_t i = 0; i < n; i++)
        v[i] = rng_normal(r);
    return v;
}

int kit_random(graph *g, rng *r, const char *name, int rank, const int64_t *dims)
{
    float *v = random_floats(r, dims_count(rank, dims));
    const int id = kit_constant(g, name, RUNG_F32, rank, dims, v);
    mem_free(v);
    return id;
}

int kit_positive(graph *g, rng *r, const char *name, int64_t n)
{
    float *v = random_floats(r, (size_t)n);
    for (int64_t i = 0; i < n; i++)
        v[i] = 0.5f + (float)rng_uniform(r);
    const int id = kit_constant(g, name, RUNG_F32, 1, &n, v);
    mem_free(v);
    return id;
}

int kit_node(graph *g, const char *op_type, const char *name, int n_in, const int *in)
{
    char out_name[64];
    snprintf(out_name, sizeof out_name, "%s_out", *name ? name : op_type);
    const int out = graph_add_value(g, out_name, RUNG_UNDEFINED, -1, NULL);
    assert_true(out >= 0);
    assert_true(graph_add_node(g, op_type, "", name, in, n_in, &out, 1) >= 0);
    return out;
}

node *kit_last(graph *g)
{
    return &g->nodes[g->n_nodes - 1];
}

void kit_set_int(graph *g, const char *name, int64_t v)
{
    assert_ok(graph_set_int(g, kit_last(g), name, v, err));
}

void kit_set_ints(graph *g, const char *name, int n, const int64_t *v)
{
    assert_ok(graph_set_ints(g, kit_last(g), name, v, (size_t)n, err));
}

int kit_find(const graph *g, const char *name)
{
    const int id = strmap_get(g->by_name, name, -1);
    if (id < 0)
        fail_msg("no value '%s'", name);
    return id;
}

int kit_count(const graph *g, const char *op_type)
{
    int n = 0;
    for (size_t i = 0; i < g->n_nodes; i++)
        n += !strcmp(g->nodes[i].op_type, op_type);
    return n;
}

const node *kit_only(const graph *g, const char *op_type)
{
    assert_int_equal(kit_count(g, op_type), 1);
    for (size_t i = 0; i < g->n_nodes; i++)
        if (!strcmp(g->nodes[i].op_type, op_type))
            return &g->nodes[i];
    return NULL;
}

/* --- running ---------------------------------------------------------------------------------- */

/* The dims of input k, unknown ones 2. */
static const int64_t *full_dims(const graph *g, int k, arena *mem)
{
    const value *v = &g->values[g->inputs[k]];
    int64_t *dims = arena_zero(mem, RUNG_MAX_RANK, sizeof *dims);
    assert_non_null(dims);
    for (int d = 0; d < v->rank; d++)
        dims[d] = v->dims[d] < 0 ? 2 : v->dims[d];
    return dims;
}

static const tensor *random_input(const value_info *i, rng *r, arena *mem)
{
    tensor *t = tensor_new(mem, RUNG_F32, i->rank, i->dims);
    assert_non_null(t);
    for (size_t k = 0; k < tensor_count(t); k++)
        ((float *)t->data)[k] = rng_normal(r);
    return t;
}

static void run_node(const graph *g, const node *n, const value_info *info, const tensor **content,
                     arena *mem)
{
    tensor in[16] = { 0 }, out[8] = { 0 };
    char label[NODE_LABEL_SIZE];
    assert_true(n->n_inputs <= 16 && n->n_outputs <= 8);
    if (!n->op || !n->op->eval)
        fail_msg("%s cannot be evaluated", node_label(g, n, label, sizeof label));
    for (int k = 0; k < n->n_inputs; k++)
        if (n->inputs[k] >= 0)
            in[k] = *content[n->inputs[k]];
    for (int k = 0; k < n->n_outputs; k++) {
        if (n->outputs[k] < 0)
            continue;
        const value_info *i = &info[n->outputs[k]];
        tensor *t = tensor_new(mem, i->type, i->rank, i->dims);
        if (!t)
            fail_msg("%s: type or dims not known", node_label(g, n, label, sizeof label));
        out[k] = *t;
        content[n->outputs[k]] = t;
    }
    const eval_args a = { n, graph_opset(g, n->domain), in, n->n_inputs, out, n->n_outputs, mem };
    assert_ok(n->op->eval(&a, err));
}

const tensor **kit_run(const graph *g, uint64_t seed, arena *mem)
{
    rng r;
    rng_seed(&r, seed);
    const int64_t **dims = arena_zero(mem, (size_t)g->n_inputs, sizeof *dims);
    value_info *info = arena_zero(mem, g->n_values, sizeof *info);
    const tensor **content = arena_zero(mem, g->n_values, sizeof *content);
    const tensor **out = arena_zero(mem, (size_t)g->n_outputs, sizeof *out);
    assert_true(dims && info && content && out);
    for (int k = 0; k < g->n_inputs; k++)
        dims[k] = full_dims(g, k, mem);
    assert_ok(graph_infer(g, dims, mem, info, err));
    for (size_t v = 0; v < g->n_values; v++)
        content[v] = g->values[v].constant;
    for (int k = 0; k < g->n_inputs; k++)
        content[g->inputs[k]] = random_input(&info[g->inputs[k]], &r, mem);
    for (size_t i = 0; i < g->n_nodes; i++)
        run_node(g, &g->nodes[i], info, content, mem);
    for (int k = 0; k < g->n_outputs; k++)
        out[k] = content[g->outputs[k]];
    return out;
}

static void same_tensor(const char *name, const tensor *a, const tensor *b, double tolerance)
{
    assert_int_equal(a->type, b->type);
    assert_int_equal(a->rank, b->rank);
    assert_memory_equal(a->dims, b->dims, (size_t)a->rank * sizeof *a->dims);
    for (size_t i = 0; i < tensor_count(a); i++) {
        const double x = tensor_get(a, i), y = tensor_get(b, i);
        if (x != y && !(fabs(x - y) <= tolerance * (1 + fabs(x)))) /* infinities too */
            fail_msg("%s[%zu] was %.9g, is %.9g", name, i, x, y);
    }
}

void kit_same_function(const graph *before, const graph *g, uint64_t seed, double tolerance)
{
    arena *mem = arena_new();
    const tensor **a = kit_run(before, seed, mem), **b = kit_run(g, seed, mem);
    assert_int_equal(before->n_outputs, g->n_outputs);
    for (int k = 0; k < g->n_outputs; k++) {
        const char *name = g->values[g->outputs[k]].name;
        assert_string_equal(before->values[before->outputs[k]].name, name);
        same_tensor(name, a[k], b[k], tolerance);
    }
    arena_free(mem);
}

graph *kit_rewritten(const graph *g, kit_rewrite rewrite, uint64_t seed, double tolerance)
{
    graph *after;
    assert_ok(graph_clone(g, &after, err));
    assert_ok(rewrite(after, err));
    assert_ok(graph_verify(after, err));
    kit_same_function(g, after, seed, tolerance);
    return after;
}
