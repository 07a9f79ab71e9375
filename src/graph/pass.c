/* What the rewrites share. */
#include "graph/pass.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"

/* --- notes ------------------------------------------------------------------------------------ */

rung_status pass_begin(pass *p, graph *g, rung_error *err)
{
    *p = (pass){ .g = g, .n_values = g->n_values, .mem = arena_new() };
    p->kept = p->mem ? arena_zero(p->mem, g->n_values, sizeof *p->kept) : NULL;
    if (!p->kept)
        return fail_memory(err, "rewriting the graph", g->n_values);
    for (size_t v = 0; v < g->n_values; v++)
        p->kept[v] = g->values[v].is_output;
    for (size_t i = 0; i < g->n_nodes; i++)
        for (int k = 0; k < g->nodes[i].n_captures; k++)
            p->kept[g->nodes[i].captures[k]] = true;
    return graph_uses(g, p->mem, &p->uses, err);
}

rung_status pass_infer(pass *p, rung_error *err)
{
    p->info = arena_zero(p->mem, p->n_values, sizeof *p->info);
    if (!p->info)
        return fail_memory(err, "shape inference", p->n_values * sizeof *p->info);
    return graph_infer(p->g, NULL, p->mem, p->info, err);
}

void pass_end(pass *p)
{
    arena_free(p->mem);
}

static int pass_n_uses(const pass *p, int v)
{
    return (size_t)v < p->n_values ? p->uses.first[v + 1] - p->uses.first[v] : 0;
}

int pass_only_user(const pass *p, int v)
{
    return pass_n_uses(p, v) == 1 ? p->uses.list[p->uses.first[v]] : -1;
}

node *pass_private_maker(const pass *p, int v, const char *op_type)
{
    if (v < 0 || (size_t)v >= p->n_values || p->kept[v] || pass_n_uses(p, v) != 1)
        return NULL;
    const int maker = p->g->values[v].producer;
    node *n = maker < 0 ? NULL : &p->g->nodes[maker];
    return n && !n->dead && node_is(n, op_type) && n->n_outputs == 1 ? n : NULL;
}

const value_info *pass_info(const pass *p, int v)
{
    static const value_info nothing = { .rank = -1 };
    return v >= 0 && (size_t)v < p->n_values ? &p->info[v] : &nothing;
}

bool pass_output_used(const pass *p, const node *n, int i)
{
    const int v = i < n->n_outputs ? n->outputs[i] : -1;
    return v >= 0 && (size_t)v < p->n_values && (p->kept[v] || pass_n_uses(p, v) > 0);
}

/* --- nodes ------------------------------------------------------------------------------------ */

bool node_is(const node *n, const char *op_type)
{
    return !*n->domain && !strcmp(n->op_type, op_type);
}

int node_input(const node *n, int i)
{
    return i < n->n_inputs ? n->inputs[i] : -1;
}

const tensor *node_constant(const graph *g, const node *n, int i)
{
    const int v = node_input(n, i);
    return v < 0 ? NULL : g->values[v].constant;
}

bool node_has_subgraph(const node *n)
{
    if (node_is(n, "If") || node_is(n, "Loop") || node_is(n, "Scan") || n->n_captures)
        return true;
    for (int i = 0; i < n->n_attrs; i++)
        if (n->attrs[i].kind == ATTR_GRAPH)
            return true;
    return false;
}

rung_status node_set_inputs(graph *g, node *n, const int *in, int n_in, rung_error *err)
{
    int *copy = arena_copy(g->mem, in, (size_t)n_in * sizeof *in);
    if (!copy)
        return fail_memory(err, "a node's inputs", (size_t)n_in * sizeof *in);
    n->inputs = copy;
    n->n_inputs = n_in;
    return RUNG_OK;
}

rung_status node_set_input(graph *g, node *n, int i, int v, rung_error *err)
{
    if (v < 0)
        return fail_memory(err, "a node's inputs", sizeof v);
    if (i < n->n_inputs) {
        n->inputs[i] = v;
        return RUNG_OK;
    }
    int *in = arena_alloc(g->mem, ((size_t)i + 1) * sizeof *in);
    if (!in)
        return fail_memory(err, "a node's inputs", ((size_t)i + 1) * sizeof *in);
    for (int k = 0; k < i; k++)
        in[k] = node_input(n, k);
    in[i] = v;
    n->inputs = in;
    n->n_inputs = i + 1;
    return RUNG_OK;
}

/* --- constants -------------------------------------------------------------------------------- */

int pass_add_tensor(graph *g, const char *hint, const char *suffix, const tensor *t)
{
    const char *name = arena_printf(g->mem, "%s%s", hint, suffix);
    const int v = name ? graph_add_value(g, name, t->type, t->rank, t->dims) : -1;
    if (v >= 0)
        g->values[v].constant = t;
    return v;
}

int pass_add_ints(graph *g, const char *hint, const char *suffix, const int64_t *v, size_t n)
{
    /* v may be read-only: graph_add_constant copies it. */
    const tensor t = { .type = RUNG_I64, .rank = 1, .dims = { (int64_t)n }, .data = (void *)v };
    const char *name = arena_printf(g->mem, "%s%s", hint, suffix);
    return name ? graph_add_constant(g, name, &t) : -1;
}

/* Round to nearest even; out of range becomes infinite. */
static uint16_t to_half(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    const uint32_t sign = u >> 16 & 0x8000, magnitude = u & 0x7fffffff;
    if (magnitude > 0x7f800000)
        return (uint16_t)(sign | 0x7e00);
    if (magnitude >= 0x477ff000) /* rounds to 65536 or more */
        return (uint16_t)(sign | 0x7c00);
    if (magnitude < 0x33000000) /* under half the smallest subnormal */
        return (uint16_t)sign;
    const int exponent = (int)(magnitude >> 23);
    const uint32_t fraction = (magnitude & 0x7fffff) | 0x800000;
    const int drop = exponent < 113 ? 126 - exponent : 13; /* bits that do not fit */
    uint32_t h = exponent < 113 ? fraction >> drop
                                : (((uint32_t)exponent - 112) << 10) + (fraction >> 13) - 1024;
    const uint32_t rest = fraction & ((1u << drop) - 1), half = 1u << (drop - 1);
    h += rest > half || (rest == half && h & 1);
    return (uint16_t)(sign | h);
}

int pass_add_scalar(graph *g, const char *hint, const char *suffix, dtype type, float v)
{
    const double wide = v;
    uint16_t half = to_half(v);
    tensor t = { .type = type };
    if (type == RUNG_F64)
        t.data = (void *)&wide;
    else if (type == RUNG_F16)
        t.data = &half;
    else {
        t.type = RUNG_F32;
        t.data = &v;
    }
    const char *name = arena_printf(g->mem, "%s%s", hint, suffix);
    return name ? graph_add_constant(g, name, &t) : -1;
}

const int64_t *tensor_ints(const tensor *t, arena *mem, size_t *n)
{
    if (!t || (t->type != RUNG_I64 && t->type != RUNG_I32) || t->rank > 1)
        return NULL;
    *n = tensor_count(t);
    int64_t *v = arena_zero(mem, *n, sizeof *v);
    for (size_t i = 0; v && i < *n; i++)
        v[i] = tensor_get_int(t, i);
    return v;
}

/* --- evaluation ------------------------------------------------------------------------------- */

bool node_is_pure(const node *n)
{
    static const char *const never[] = { "QuantizeLinear", "DequantizeLinear", "RandomNormal",
                                         "RandomUniform", "RandomNormalLike", "RandomUniformLike",
                                         "Multinomial", "Bernoulli" };
    if (!n->op || !n->op->eval || node_has_subgraph(n))
        return false;
    for (size_t i = 0; i < sizeof never / sizeof *never; i++)
        if (!strcmp(n->op_type, never[i]))
            return false;
    return true;
}

rung_status node_eval(const graph *g, const node *n, const tensor *const *in,
                      const value_info *known, arena *mem, tensor **out, rung_error *err)
{
    char label[NODE_LABEL_SIZE];
    arena *scratch = arena_new();
    tensor *ins = scratch ? arena_zero(scratch, (size_t)n->n_inputs, sizeof *ins) : NULL;
    tensor *outs = ins ? arena_zero(scratch, (size_t)n->n_outputs, sizeof *outs) : NULL;
    rung_status st = outs ? RUNG_OK : fail_memory(err, "evaluating a node", sizeof *outs);
    for (int i = 0; st == RUNG_OK && i < n->n_inputs; i++)
        if (in[i])
            ins[i] = *in[i];
    for (int i = 0; st == RUNG_OK && i < n->n_outputs; i++) {
        out[i] = NULL;
        if (known[i].type == RUNG_UNDEFINED)
            continue;
        if (!(out[i] = tensor_new(mem, known[i].type, known[i].rank, known[i].dims)))
            st = fail_memory(err, "a constant", dims_count(known[i].rank, known[i].dims));
        else
            outs[i] = *out[i];
    }
    if (st == RUNG_OK) {
        const eval_args a = { n, graph_opset(g, n->domain), ins, n->n_inputs, outs, n->n_outputs,
                              scratch };
        st = n->op->eval(&a, err);
    }
    arena_free(scratch);
    return st == RUNG_OK ? st : fail_at(err, st, "%s", node_label(g, n, label, sizeof label));
}

const char *dims_text(int rank, const int64_t *dims, char *buf, size_t size)
{
    size_t at = 0;
    if (rank < 0)
        return "?";
    buf[0] = '\0';
    for (int i = 0; i <= rank && at < size; i++) {
        const char *before = i == 0 ? "[" : i < rank ? "," : "";
        if (i == rank)
            at += (size_t)snprintf(buf + at, size - at, "%s]", rank ? "" : "[");
        else if (dims[i] < 0)
            at += (size_t)snprintf(buf + at, size - at, "%s?", before);
        else
            at += (size_t)snprintf(buf + at, size - at, "%s%lld", before, (long long)dims[i]);
    }
    return buf;
}
