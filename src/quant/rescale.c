/* Where a factor goes: into the constants of what makes the activation, or into a Mul. */
#include "quant/rescale.h"

#include <string.h>

#include "graph/pass.h"

/* The walk against the edges, twice alike: first it looks (apply = false), then it changes. */
typedef struct folder {
    graph       *g;
    const uses  *u;
    const float *inverse; /* [in] */
    size_t       in;
    bool         apply, failed; /* failed: memory is out */
} folder;

static bool fold(folder *f, int v);

/* A constant that can carry a number per channel of the last axis. */
static bool carries(const folder *f, const node *n, int i)
{
    const tensor *t = node_constant(f->g, n, i);
    return t && t->type == RUNG_F32 && t->rank <= 1 &&
           (tensor_count(t) == f->in || tensor_count(t) == 1);
}

/* Operand i of n, a constant, times or (divide) over the inverse factors, as a new constant. */
static bool scale_constant(folder *f, node *n, int i, bool divide)
{
    const tensor *t = node_constant(f->g, n, i);
    const int64_t dims[1] = { (int64_t)f->in };
    const size_t count = tensor_count(t);
    if (!f->apply)
        return true;
    tensor *scaled = tensor_new(f->g->mem, RUNG_F32, 1, dims);
    for (size_t c = 0; scaled && c < f->in; c++) {
        const float old = ((const float *)t->data)[count == 1 ? 0 : c];
        ((float *)scaled->data)[c] = divide ? old / f->inverse[c] : old * f->inverse[c];
    }
    const int id = scaled ? pass_add_tensor(f->g, f->g->values[n->inputs[i]].name, "_rescaled",
                                            scaled) : -1;
    if (id >= 0)
        n->inputs[i] = id;
    f->failed |= id < 0;
    return true;
}

/* The outputs of a product: columns of its matrix, and a Gemm's row of biases. */
static bool fold_product(folder *f, node *n)
{
    const int w = node_input(n, 1);
    const tensor *t = node_constant(f->g, n, 1);
    const bool gemm = node_is(n, "Gemm"), by_rows = gemm && node_int(n, "transB", 0);
    if (!t || t->type != RUNG_F32 || t->rank != 2 || f->g->values[w].is_output ||
        f->u->first[w + 1] - f->u->first[w] != 1 || (size_t)t->dims[!by_rows] != f->in ||
        (gemm && node_input(n, 2) >= 0 && !carries(f, n, 2)))
        return false;
    if (!f->apply)
        return true;
    tensor *scaled = tensor_copy(f->g->mem, t);
    const size_t columns = (size_t)t->dims[1];
    for (size_t i = 0; scaled && i < tensor_count(t); i++)
        ((float *)scaled->data)[i] *= f->inverse[by_rows ? i / columns : i % columns];
    if (scaled)
        f->g->values[w].constant = scaled;
    f->failed |= !scaled;
    return !gemm || node_input(n, 2) < 0 || scale_constant(f, n, 2, false);
}

/* x * c, x / c: the constant takes it all. */
static bool fold_by_constant(folder *f, node *n)
{
    const bool divide = node_is(n, "Div");
    if (carries(f, n, 1))
        return scale_constant(f, n, 1, divide);
    return !divide && carries(f, n, 0) && scale_constant(f, n, 0, false);
}

/* x + c: both take it. */
static bool fold_sum(folder *f, node *n)
{
    const int c = carries(f, n, 1) ? 1 : 0;
    return carries(f, n, c) && fold(f, n->inputs[1 - c]) && scale_constant(f, n, c, false);
}

static bool fold_norm(folder *f, node *n, int rank)
{
    const int64_t axis = node_int(n, "axis", -1);
    const bool bias = node_input(n, 2) >= 0, last = axis == -1 || (rank > 0 && axis == rank - 1);
    if (!last || n->n_outputs != 1 || !carries(f, n, 1) || (bias && !carries(f, n, 2)) ||
        tensor_count(node_constant(f->g, n, 1)) != f->in)
        return false;
    return scale_constant(f, n, 1, false) && (!bias || scale_constant(f, n, 2, false));
}

/* Whether what makes v can take the factors; with f->apply it does. Only v's maker is looked at:
 * nothing but the products, or the operator that asks, may read v. */
static bool fold_maker(folder *f, int v)
{
    const int maker = f->g->values[v].producer;
    node *n = maker < 0 ? NULL : &f->g->nodes[maker];
    if (!n || n->n_captures || f->g->values[v].is_output)
        return false;
    if (node_is(n, "MatMul") || node_is(n, "Gemm"))
        return fold_product(f, n);
    if (node_is(n, "Mul") || node_is(n, "Div"))
        return fold_by_constant(f, n);
    if (node_is(n, "Add"))
        return fold_sum(f, n);
    if (node_is(n, "Relu")) /* factors are positive */
        return fold(f, n->inputs[0]);
    return node_is(n, "LayerNormalization") && fold_norm(f, n, f->g->values[v].rank);
}

static bool fold(folder *f, int v)
{
    return f->u->first[v + 1] - f->u->first[v] == 1 && fold_maker(f, v);
}

/* Only the group's products read x. */
static bool is_private(const graph *g, const uses *u, const product_group *p, int x)
{
    for (int k = u->first[x]; k < u->first[x + 1]; k++) {
        bool member = false;
        for (size_t i = 0; i < p->n_nodes; i++)
            member |= p->nodes[i] == u->list[k];
        if (!member)
            return false;
    }
    return !g->values[x].is_output;
}

bool rescale_folds(const graph *g, const uses *u, const product_group *p)
{
    folder f = { .g = (graph *)(uintptr_t)g, .u = u, .in = p->in }; /* looks only */
    for (size_t i = 0; i < p->n_xs; i++)
        if (!is_private(g, u, p, p->xs[i]) || !fold_maker(&f, p->xs[i]))
            return false;
    return true;
}

static rung_status scale_weight(graph *g, const product_group *p, int w, const float *f,
                                rung_error *err)
{
    const tensor *t = g->values[w].constant;
    tensor *scaled = tensor_copy(g->mem, t);
    bool transposed = false;
    for (size_t i = 0; i < p->n_nodes; i++) {
        const node *n = &g->nodes[p->nodes[i]];
        transposed |= n->inputs[1] == w && node_is(n, "Gemm") && node_int(n, "transB", 0);
    }
    if (!scaled)
        return fail_memory(err, "a rescaled weight", tensor_count(t) * sizeof *f);
    const size_t columns = (size_t)t->dims[1];
    for (size_t i = 0; i < tensor_count(t); i++)
        ((float *)scaled->data)[i] *= f[transposed ? i % columns : i / columns];
    g->values[w].constant = scaled;
    return RUNG_OK;
}

/* x / f as a value of its own, for the group's products. */
static rung_status add_mul(graph *g, const product_group *p, int x, int factors, rung_error *err)
{
    const char *name = arena_printf(g->mem, "%s_smooth", g->values[x].name);
    const value *at = &g->values[x];
    const int y = name ? graph_add_value(g, name, RUNG_F32, at->rank, at->dims) : -1;
    const int in[2] = { x, factors };
    if (y < 0 || graph_add_node(g, "Mul", "", name, in, 2, &y, 1) < 0)
        return fail_memory(err, "a Mul", sizeof in);
    for (size_t i = 0; i < p->n_nodes; i++) {
        node *n = &g->nodes[p->nodes[i]];
        if (n->inputs[0] == x)
            n->inputs[0] = y;
    }
    return RUNG_OK;
}

rung_status rescale_apply(graph *g, const uses *u, const product_group *p, const float *f,
                          size_t *n_muls, rung_error *err)
{
    const int64_t dims[1] = { (int64_t)p->in };
    tensor *inverse = tensor_new(g->mem, RUNG_F32, 1, dims);
    int factors = -1;
    rung_status st = RUNG_OK;
    if (!inverse)
        return fail_memory(err, "factors", p->in * sizeof *f);
    for (size_t i = 0; i < p->in; i++)
        ((float *)inverse->data)[i] = 1 / f[i];
    for (size_t i = 0; i < p->n_ws && st == RUNG_OK; i++)
        st = scale_weight(g, p, p->ws[i], f, err);
    folder into = { .g = g, .u = u, .inverse = inverse->data, .in = p->in };
    for (size_t i = 0; i < p->n_xs && st == RUNG_OK; i++) {
        into.apply = false;
        if (is_private(g, u, p, p->xs[i]) && fold_maker(&into, p->xs[i])) {
            into.apply = true;
            fold_maker(&into, p->xs[i]);
            if (into.failed)
                st = fail_memory(err, "factors", p->in * sizeof *f);
            continue;
        }
        if (factors < 0)
            factors = pass_add_tensor(g, g->values[p->ws[0]].name, "_factors", inverse);
        st = factors < 0 ? fail_memory(err, "factors", p->in * sizeof *f)
                         : add_mul(g, p, p->xs[i], factors, err);
        ++*n_muls;
    }
    return st;
}
