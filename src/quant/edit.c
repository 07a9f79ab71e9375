#include "quant/edit.h"

#include <stdio.h>
#include <string.h>

#include "graph/pass.h"
#include "graph/rewrite.h"

static rung_status refuse_quantized(const graph *g, rung_error *err)
{
    static const char *const marks[] = { "QuantizeLinear", "DequantizeLinear",
                                         "DynamicQuantizeLinear" };
    for (size_t i = 0; i < g->n_nodes; i++)
        for (size_t k = 0; k < sizeof marks / sizeof *marks; k++)
            if (node_is(&g->nodes[i], marks[k]))
                return fail(err, RUNG_EARGUMENT,
                            "the model is quantized already; give the float32 model");
    return RUNG_OK;
}

rung_status edit_begin(edit *e, const graph *g, const rung_quant_options *opt, diagnostics *diag,
                       rung_error *err)
{
    *e = (edit){ .opt = opt, .diag = diag, .mem = arena_new() };
    rung_status st = e->mem ? refuse_quantized(g, err)
                            : fail_memory(err, "quantization", sizeof *e);
    if (st != RUNG_OK || (st = graph_clone(g, &e->g, err)) != RUNG_OK ||
        (st = rewrite_prepare(e->g, err)) != RUNG_OK)
        return st;
    e->n_values = e->g->n_values;
    e->n_nodes = e->g->n_nodes;
    e->info = arena_zero(e->mem, e->n_values + 1, sizeof *e->info);
    return e->info ? graph_infer(e->g, NULL, e->mem, e->info, err)
                   : fail_memory(err, "quantization", e->n_values * sizeof *e->info);
}

/* Float weights that integer ones stand for now are not written. */
static rung_status drop_unused(edit *e, rung_error *err)
{
    uses u;
    const rung_status st = graph_uses(e->g, e->mem, &u, err);
    for (size_t v = 0; st == RUNG_OK && v < e->g->n_values; v++) {
        value *at = &e->g->values[v];
        if (!at->constant || at->is_output || u.first[v] != u.first[v + 1])
            continue;
        at->constant = NULL;
        at->listed_input = at->has_info = false;
    }
    return st;
}

rung_status edit_end(edit *e, rung_status st, const char *text, graph **out, rung_error *err)
{
    if (st == RUNG_OK && (e->failed || !text))
        st = fail_memory(err, "a quantized model", sizeof *e);
    if (st == RUNG_OK && (st = graph_sort(e->g, err)) == RUNG_OK &&
        (st = drop_unused(e, err)) == RUNG_OK && (st = graph_verify(e->g, err)) == RUNG_OK)
        st = graph_set_metadata(e->g, "rung.quantized", text, err);
    *out = st == RUNG_OK ? e->g : NULL;
    if (st != RUNG_OK)
        graph_free(e->g);
    arena_free(e->mem);
    return st;
}

/* --- which nodes ------------------------------------------------------------------------------ */

static bool names_operator(const char *pattern, const node *n)
{
    if (!strcmp(pattern, "Linear"))
        return node_is(n, "MatMul") || node_is(n, "Gemm");
    return pattern_matches(pattern, n->op_type);
}

bool edit_selects(const edit *e, const node *n, const char *const *defaults)
{
    bool named = false;
    if (n->dead || n->domain[0])
        return false;
    for (int i = 0; i < e->opt->n_ops; i++)
        named = named || names_operator(e->opt->ops[i], n);
    for (; !e->opt->n_ops && *defaults; defaults++)
        named = named || node_is(n, *defaults);
    for (int i = 0; i < e->opt->n_exclude; i++)
        if (names_operator(e->opt->exclude[i], n) || pattern_matches(e->opt->exclude[i], n->name))
            return false;
    return named;
}

void edit_stays_float(const edit *e, const node *n, const char *why)
{
    char label[NODE_LABEL_SIZE];
    diagnose(e->diag, "stays-float", node_label(e->g, n, label, sizeof label), "%s", why);
}

void edit_report_bad(const edit *e, int v, size_t bad)
{
    if (bad)
        diagnose(e->diag, "not-finite-weights", e->g->values[v].name,
                 "%zu weights are NaN or infinite: taken as 0", bad);
}

/* --- making ----------------------------------------------------------------------------------- */

int edit_constant(edit *e, const char *base, const char *suffix, const tensor *t)
{
    const char *name = arena_printf(e->mem, "%s%s", base, suffix);
    const int v = name ? graph_add_constant(e->g, name, t) : -1;
    e->failed = e->failed || v < 0;
    return v;
}

int edit_value(edit *e, const char *base, const char *suffix, dtype type)
{
    const char *name = arena_printf(e->mem, "%s%s", base, suffix);
    const int v = name ? graph_add_value(e->g, name, type, -1, NULL) : -1;
    e->failed = e->failed || v < 0;
    return v;
}

int edit_node(edit *e, const char *op, const int *in, int n_in, int out, const char *base,
              const char *suffix, dtype type)
{
    if (out < 0)
        out = edit_value(e, base, suffix, type);
    for (int i = 0; i < n_in; i++)
        e->failed = e->failed || in[i] < 0;
    if (!e->failed && graph_add_node(e->g, op, "", "", in, n_in, &out, 1) < 0)
        e->failed = true;
    return e->failed ? -1 : out;
}

node *edit_last(edit *e)
{
    return e->failed ? NULL : &e->g->nodes[e->g->n_nodes - 1];
}

const tensor *edit_weight(const edit *e, const node *n, int i)
{
    const tensor *t = node_constant(e->g, n, i);
    return t && t->type == RUNG_F32 && tensor_count(t) > 0 ? t : NULL;
}

tensor *edit_matrix(edit *e, const tensor *t, bool transposed, float factor)
{
    const int64_t dims[2] = { t->dims[transposed], t->dims[!transposed] };
    tensor *m = tensor_new(e->mem, RUNG_F32, 2, dims);
    if (!m) {
        e->failed = true;
        return NULL;
    }
    const size_t k = (size_t)dims[0], n = (size_t)dims[1];
    const float *from = t->data;
    float *to = m->data;
    for (size_t i = 0; i < k; i++)
        for (size_t j = 0; j < n; j++)
            to[i * n + j] = factor * from[transposed ? j * k + i : i * n + j];
    return m;
}
