/* Which constants of a graph are trained, and the block that holds them. */
#include "train/params.h"

#include <stdint.h>
#include <string.h>

#include "graph/pass.h"
#include "quant/fake.h"

enum { ALIGN = 16, NOT_TRAINED = -1 }; /* floats: slices begin on a vector's boundary */

typedef struct collector {
    const graph *g;
    uses         u;
    int         *kind; /* by value id: param_kind, NOT_TRAINED */
} collector;

static rung_status out_of_memory(size_t n, rung_error *err)
{
    return fail_memory(err, "parameters", n);
}

/* --- roles ------------------------------------------------------------------------------------ */

static bool is_one_of(const node *n, const char *const *names)
{
    for (; *names; names++)
        if (node_is(n, *names))
            return true;
    return false;
}

/* The kind of operand i of n, a float32 constant. Constants of one number (the 0.5 of a Gelu, the
 * epsilon of a norm) are part of the formula. */
static int operand_kind(const node *n, int i, const tensor *t)
{
    static const char *const norms[] = { "LayerNormalization", "InstanceNormalization",
                                         "GroupNormalization", NULL };
    static const char *const pairs[] = { "Mul", "Add", "Sub", "Div", "PRelu", NULL };
    const quant_rule *rule = n->op ? &n->op->quant : NULL;
    if (rule && rule->weight && i == rule->weight)
        return t->rank > 0 ? PARAM_WEIGHT : NOT_TRAINED;
    if (rule && rule->bias && i == rule->bias)
        return PARAM_BIAS;
    if (node_is(n, "BatchNormalization"))
        return i == 1 || i == 2 ? PARAM_NORM : i == 3 || i == 4 ? PARAM_STATE : NOT_TRAINED;
    if (is_one_of(n, norms))
        return i == 1 || i == 2 ? PARAM_NORM : NOT_TRAINED;
    if (is_one_of(n, pairs))
        return tensor_count(t) > 1 ? PARAM_NORM : NOT_TRAINED;
    if ((node_is(n, "Gather") || node_is(n, "MatMul") || node_is(n, "Gemm")) && i < 2)
        return t->rank > 1 ? PARAM_WEIGHT : NOT_TRAINED;
    return NOT_TRAINED;
}

static void take(collector *c, int v, int kind)
{
    const tensor *t = v < 0 ? NULL : c->g->values[v].constant;
    if (t && t->type == RUNG_F32 && tensor_count(t) > 0 && c->kind[v] == NOT_TRAINED)
        c->kind[v] = kind;
}

/* The kind that the first trained use of v gives it; t: the constant behind v. */
static int kind_by_use(const collector *c, int v, const tensor *t)
{
    for (int k = c->u.first[v]; k < c->u.first[v + 1]; k++) {
        const node *n = &c->g->nodes[c->u.list[k]];
        for (int i = 0; i < n->n_inputs; i++) {
            const int kind = n->inputs[i] == v ? operand_kind(n, i, t) : NOT_TRAINED;
            if (kind != NOT_TRAINED)
                return kind;
        }
    }
    return NOT_TRAINED;
}

/* The range of a Softmax or Sigmoid is known: its scale stays. */
static bool has_fixed_range(const collector *c, int v)
{
    const int maker = c->g->values[v].producer;
    const op_def *op = maker < 0 ? NULL : c->g->nodes[maker].op;
    return op && op->quant.kind == QUANT_FIXED_OUTPUT;
}

static void take_pair(collector *c, int q)
{
    fake_quantizer f;
    fake_nodes n;
    if (!fake_read(c->g, &c->u, q, &f, &n))
        return;
    const tensor *t = c->g->values[n.in].constant;
    const int kind = t ? kind_by_use(c, n.out, t) : NOT_TRAINED;
    if (t && kind != NOT_TRAINED) {
        take(c, n.in, kind);
        take(c, n.scale, PARAM_WEIGHT_SCALE);
    }
    if (!t && !has_fixed_range(c, n.in))
        take(c, n.scale, PARAM_ACT_SCALE);
}

static void take_operands(collector *c, const node *n)
{
    for (int i = 0; i < n->n_inputs; i++) {
        const tensor *t = node_constant(c->g, n, i);
        const int kind = t && t->type == RUNG_F32 ? operand_kind(n, i, t) : NOT_TRAINED;
        if (kind != NOT_TRAINED)
            take(c, n->inputs[i], kind);
    }
}

/* A fixed range shares its scale with what only moves values: none of them is trained. */
static void leave_fixed(collector *c)
{
    fake_quantizer f;
    fake_nodes n;
    for (size_t i = 0; i < c->g->n_nodes; i++)
        if (fake_read(c->g, &c->u, (int)i, &f, &n) && has_fixed_range(c, n.in))
            c->kind[n.scale] = NOT_TRAINED;
}

static rung_status collect(collector *c, arena *mem, rung_error *err)
{
    const graph *g = c->g;
    c->kind = arena_alloc(mem, (g->n_values + 1) * sizeof *c->kind);
    if (!c->kind)
        return out_of_memory(g->n_values, err);
    for (size_t v = 0; v < g->n_values; v++)
        c->kind[v] = NOT_TRAINED;
    const rung_status st = graph_uses(g, mem, &c->u, err);
    for (size_t i = 0; st == RUNG_OK && i < g->n_nodes; i++) {
        const node *n = &g->nodes[i];
        if (n->dead)
            continue;
        if (node_is(n, "QuantizeLinear"))
            take_pair(c, (int)i);
        else if (!node_is(n, "DequantizeLinear"))
            take_operands(c, n);
    }
    if (st == RUNG_OK)
        leave_fixed(c);
    return st;
}

/* --- the block -------------------------------------------------------------------------------- */

static rung_status list_params(params *p, const collector *c, rung_error *err)
{
    const graph *g = c->g;
    for (size_t v = 0; v < g->n_values; v++) {
        p->at[v] = -1;
        if (c->kind[v] == NOT_TRAINED)
            continue;
        const size_t n = tensor_count(g->values[v].constant);
        if (n > SIZE_MAX / sizeof(float) - p->total - ALIGN)
            return out_of_memory(n, err);
        p->at[v] = (int)p->n;
        p->list[p->n++] = (param){ (int)v, arena_strdup(p->mem, g->values[v].name),
                                   (param_kind)c->kind[v], p->total, n };
        if (!p->list[p->n - 1].name)
            return out_of_memory(n, err);
        p->total += (n + ALIGN - 1) / ALIGN * ALIGN;
    }
    return RUNG_OK;
}

static rung_status fill(params *p, const graph *g, rung_error *err)
{
    if (!(p->data = arena_zero(p->mem, p->total + 1, sizeof *p->data)))
        return out_of_memory(p->total * sizeof *p->data, err);
    for (size_t i = 0; i < p->n; i++) {
        const tensor *t = g->values[p->list[i].value].constant;
        for (size_t k = 0; k < p->list[i].count; k++)
            p->data[p->list[i].first + k] = (float)tensor_get(t, k);
    }
    return RUNG_OK;
}

rung_status params_create_with(const graph *g, const int *zeros, size_t n_zeros, params **out,
                               rung_error *err)
{
    collector c = { .g = g };
    arena *mem = arena_new(), *scratch = arena_new();
    params *p = mem ? arena_zero(mem, 1, sizeof *p) : NULL;
    rung_status st = RUNG_OK;
    *out = NULL;
    if (p) {
        p->mem = mem;
        p->n_values = g->n_values;
        p->list = arena_zero(mem, g->n_values + 1, sizeof *p->list);
        p->at = arena_zero(mem, g->n_values + 1, sizeof *p->at);
    }
    if (!p || !scratch || !p->list || !p->at)
        st = out_of_memory(g->n_values, err);
    if (st == RUNG_OK)
        st = collect(&c, scratch, err);
    for (size_t i = 0; st == RUNG_OK && i < n_zeros; i++)
        c.kind[zeros[i]] = PARAM_STATE;
    if (st == RUNG_OK && (st = list_params(p, &c, err)) == RUNG_OK)
        st = fill(p, g, err);
    if (st == RUNG_OK && p->n == 0)
        st = fail(err, RUNG_EARGUMENT, "the model has no float32 weights that could be trained%s",
                  graph_metadata(g, "rung.quantized") ? ": it is quantized already; give the "
                                                        "float32 model" : "");
    arena_free(scratch);
    if (st == RUNG_OK)
        *out = p;
    else
        arena_free(mem);
    return st;
}

rung_status params_create(const graph *g, params **out, rung_error *err)
{
    return params_create_with(g, NULL, 0, out, err);
}

void params_free(params *p)
{
    if (p)
        arena_free(p->mem);
}

rung_status params_by_value(const params *p, const float *data, arena *mem,
                            const float *const **out, rung_error *err)
{
    const float **list = arena_zero(mem, p->n_values + 1, sizeof *list);
    if (!list)
        return out_of_memory(p->n_values * sizeof *list, err);
    for (size_t i = 0; i < p->n; i++)
        list[p->list[i].value] = data + p->list[i].first;
    *out = list;
    return RUNG_OK;
}

rung_status params_apply(const params *p, const float *data, const graph *g, graph **out,
                         rung_error *err)
{
    graph *copy;
    rung_status st = graph_clone(g, &copy, err);
    *out = NULL;
    for (size_t i = 0; st == RUNG_OK && i < p->n; i++) {
        const param *a = &p->list[i];
        const tensor *was = copy->values[a->value].constant;
        if (!(copy->values[a->value].constant = fake_constant(copy->mem, was, data + a->first)))
            st = out_of_memory(a->count * sizeof *data, err);
    }
    if (st == RUNG_OK)
        *out = copy;
    else
        graph_free(copy);
    return st;
}
