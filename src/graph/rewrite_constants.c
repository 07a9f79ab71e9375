/* Nodes whose inputs are all constant become constants. */
#include "graph/pass.h"
#include "graph/rewrite.h"

#include <string.h>

/* Bytes of one constant, and of all that a pass makes: shapes and weights, not blown-up fills. */
enum { MAX_CONSTANT = 64 << 20, MAX_TOTAL = 256 << 20 };

static void become_constant(graph *g, int v, const tensor *t)
{
    value *x = &g->values[v];
    x->constant = t;
    x->type = t->type;
    x->rank = t->rank;
    memcpy(x->dims, t->dims, sizeof x->dims);
    memset(x->symbols, 0, sizeof x->symbols);
    x->has_info = false;
    x->producer = -1;
}

/* --- Constant nodes --------------------------------------------------------------------------- */

/* The tensor an attribute of Constant stands for, its data in place; false: none of these. */
static bool attr_as_tensor(const attr *a, tensor *t)
{
    *t = (tensor){ 0 };
    switch (a->kind) {
    case ATTR_TENSOR:
        *t = *a->t;
        return !strcmp(a->name, "value");
    case ATTR_FLOAT:
        *t = (tensor){ .type = RUNG_F32, .data = (void *)&a->f };
        return !strcmp(a->name, "value_float");
    case ATTR_INT:
        *t = (tensor){ .type = RUNG_I64, .data = (void *)&a->i };
        return !strcmp(a->name, "value_int");
    case ATTR_STRING:
        *t = (tensor){ .type = RUNG_STRING, .data = (void *)&a->s };
        return !strcmp(a->name, "value_string");
    case ATTR_FLOATS:
        *t = (tensor){ RUNG_F32, 1, { (int64_t)a->floats.n }, (void *)a->floats.v };
        return !strcmp(a->name, "value_floats");
    case ATTR_INTS:
        *t = (tensor){ RUNG_I64, 1, { (int64_t)a->ints.n }, (void *)a->ints.v };
        return !strcmp(a->name, "value_ints");
    case ATTR_STRINGS:
        *t = (tensor){ RUNG_STRING, 1, { (int64_t)a->strings.n }, (void *)a->strings.v };
        return !strcmp(a->name, "value_strings");
    default:
        return false;
    }
}

static rung_status fold_constant_node(graph *g, node *n, rung_error *err)
{
    tensor t;
    if (n->n_attrs != 1 || n->n_inputs != 0 || n->n_outputs != 1 ||
        !attr_as_tensor(&n->attrs[0], &t))
        return RUNG_OK;
    const tensor *copy = n->attrs[0].kind == ATTR_TENSOR ? n->attrs[0].t : tensor_copy(g->mem, &t);
    if (!copy)
        return fail_memory(err, "a constant", tensor_count(&t));
    become_constant(g, n->outputs[0], copy);
    n->dead = true;
    return RUNG_OK;
}

/* --- evaluation ------------------------------------------------------------------------------- */

static bool reads_constants_only(const graph *g, const node *n)
{
    for (int k = 0; k < n->n_inputs; k++)
        if (n->inputs[k] >= 0 && !g->values[n->inputs[k]].constant)
            return false;
    return true;
}

/* Types and dims of the outputs are known, and small enough; *total grows by their size. */
static bool outputs_fit(const pass *p, const node *n, value_info *known, size_t *total)
{
    size_t sum = *total;
    for (int k = 0; k < n->n_outputs; k++) {
        known[k] = (value_info){ .rank = -1 };
        if (n->outputs[k] < 0)
            continue;
        known[k] = *pass_info(p, n->outputs[k]);
        const size_t count = dims_count(known[k].rank, known[k].dims);
        if (count == SIZE_MAX || dtype_bytes(known[k].type, 1) == 0 ||
            dtype_bytes(known[k].type, count) > MAX_CONSTANT)
            return false;
        sum += dtype_bytes(known[k].type, count);
    }
    if (sum > MAX_TOTAL)
        return false;
    *total = sum;
    return true;
}

/* The outputs' contents in the graph's memory: those that inference found, or evaluated now. */
static rung_status evaluate(const pass *p, const node *n, const value_info *known, tensor **out,
                            rung_error *err)
{
    bool all_known = true;
    for (int k = 0; k < n->n_outputs; k++)
        all_known = all_known && (n->outputs[k] < 0 || known[k].data);
    const tensor **in = arena_zero(p->mem, (size_t)n->n_inputs, sizeof *in);
    if (!in)
        return fail_memory(err, "folding constants", sizeof *in);
    for (int k = 0; k < n->n_inputs; k++)
        in[k] = node_constant(p->g, n, k);
    if (!all_known)
        return node_eval(p->g, n, in, known, p->g->mem, out, err);
    for (int k = 0; k < n->n_outputs; k++)
        if (n->outputs[k] >= 0 && !(out[k] = tensor_copy(p->g->mem, known[k].data)))
            return fail_memory(err, "a constant", sizeof *out[k]);
    return RUNG_OK;
}

static rung_status fold_node(const pass *p, node *n, size_t *total, rung_error *err)
{
    rung_error why;
    value_info *known = arena_zero(p->mem, (size_t)n->n_outputs, sizeof *known);
    tensor **out = arena_zero(p->mem, (size_t)n->n_outputs, sizeof *out);
    if (!known || !out)
        return fail_memory(err, "folding constants", sizeof *known);
    if (!outputs_fit(p, n, known, total))
        return RUNG_OK;
    const rung_status st = evaluate(p, n, known, out, &why);
    if (st == RUNG_EUNSUPPORTED) /* legal: the node stays */
        return RUNG_OK;
    if (st != RUNG_OK)
        return fail(err, st, "%s", why.message);
    for (int k = 0; k < n->n_outputs; k++)
        if (n->outputs[k] >= 0)
            become_constant(p->g, n->outputs[k], out[k]);
    n->dead = true;
    return RUNG_OK;
}

/* What reads Identity of a constant reads the constant: layers that share a weight still do. */
static void bypass_identity(const pass *p, node *n)
{
    graph_replace_uses(p->g, n->outputs[0], n->inputs[0]);
    p->g->values[n->outputs[0]].has_info = false;
    n->dead = true;
}

static bool is_identity(const pass *p, const node *n)
{
    return node_is(n, "Identity") && n->n_outputs == 1 && n->outputs[0] >= 0 &&
           !p->kept[n->outputs[0]] && node_constant(p->g, n, 0);
}

/* A graph output stays the output of a node. */
static bool makes_graph_output(const graph *g, const node *n)
{
    for (int k = 0; k < n->n_outputs; k++)
        if (n->outputs[k] >= 0 && g->values[n->outputs[k]].is_output)
            return true;
    return false;
}

rung_status rewrite_fold_constants(graph *g, rung_error *err)
{
    pass p;
    size_t total = 0;
    rung_status st = pass_begin(&p, g, err);
    if (st == RUNG_OK)
        st = pass_infer(&p, err);
    for (size_t i = 0; st == RUNG_OK && i < g->n_nodes; i++) {
        node *n = &g->nodes[i];
        if (makes_graph_output(g, n))
            continue;
        if (node_is(n, "Constant"))
            st = fold_constant_node(g, n, err);
        else if (is_identity(&p, n))
            bypass_identity(&p, n);
        else if (node_is_pure(n) && reads_constants_only(g, n))
            st = fold_node(&p, n, &total, err);
    }
    if (st == RUNG_OK)
        st = graph_sort(g, err);
    pass_end(&p);
    return st;
}
