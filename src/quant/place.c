/* Where pairs go: the rules of the operators' entries, applied. */
#include <string.h>

#include "graph/pass.h"
#include "quant/parts.h"

typedef struct placer {
    const graph              *g;
    const value_info         *info;
    const rung_quant_options *opt;
    const bool               *skip;
    diagnostics              *diag;
    uses                      uses;
    placement                *places;
    bool                     *quantized; /* by node index */
    bool                     *absorbed;  /* by node index: vanishes in the pair behind it */
    bool                     *captured;  /* by value id */
    int                      *parent;    /* by value id: towards the root of those that share */
} placer;

/* --- which nodes ------------------------------------------------------------------------------ */

static bool matches_any(const char *const *patterns, int n, const node *of, bool names)
{
    for (int i = 0; i < n; i++)
        if (pattern_matches(patterns[i], of->op_type) ||
            (names && pattern_matches(patterns[i], of->name)))
            return true;
    return false;
}

static bool is_excluded(const placer *p, const node *n)
{
    return (p->skip && p->skip[n - p->g->nodes]) ||
           matches_any(p->opt->exclude, p->opt->n_exclude, n, true);
}

bool options_allow(const rung_quant_options *opt, const node *n)
{
    return n->op && !n->dead && !matches_any(opt->exclude, opt->n_exclude, n, true) &&
           (!opt->n_ops || matches_any(opt->ops, opt->n_ops, n, false));
}

static bool is_allowed(const placer *p, const node *n)
{
    return options_allow(p->opt, n) && !is_excluded(p, n);
}

static bool is_float_activation(const placer *p, int v)
{
    return p->info[v].type == RUNG_F32 && !p->g->values[v].constant;
}

/* Why a bias cannot become int32; NULL: it can, or there is none. */
static const char *bias_trouble(const placer *p, const node *n)
{
    const int i = n->op->quant.bias, v = i ? node_input(n, i) : -1, w = weight_of(p->g, n);
    if (v < 0)
        return NULL;
    const tensor *b = node_constant(p->g, n, i);
    if (!b || w < 0)
        return "its bias or its weight is not constant";
    const int axis = weight_axis_of(p->g, n, n->op->quant.weight);
    const int64_t channels = p->g->values[w].constant->dims[axis] *
                             (node_is(n, "ConvTranspose") ? node_int(n, "group", 1) : 1);
    if (b->type != RUNG_F32 || b->rank != 1 || b->dims[0] != channels)
        return "its bias is not one float32 number per channel";
    return NULL;
}

/* Why an operator with a rule stays float; NULL: it need not. */
static const char *compute_trouble(const placer *p, const node *n)
{
    int n_activations = 0;
    for (int i = 0; i < n->n_inputs; i++) {
        const int v = n->inputs[i];
        if (v < 0 || !(is_activation(n, i) || (i && i == n->op->quant.weight)))
            continue;
        if (p->info[v].type != RUNG_F32)
            return "its operands are not float32";
        n_activations += !p->g->values[v].constant;
    }
    if (!n_activations)
        return "it has no activation as operand";
    if (node_is(n, "Gemm") && (node_float(n, "alpha", 1) != 1 || node_float(n, "beta", 1) != 1))
        return "alpha or beta scales an operand that is not constant";
    return bias_trouble(p, n);
}

static bool is_compute(const node *n)
{
    return n->op->quant.kind == QUANT_COMPUTE || n->op->quant.kind == QUANT_FIXED_OUTPUT;
}

static void choose_compute(placer *p)
{
    char label[NODE_LABEL_SIZE];
    for (size_t i = 0; i < p->g->n_nodes; i++) {
        const node *n = &p->g->nodes[i];
        if (!is_allowed(p, n) || !is_compute(n) || n->n_outputs < 1 || n->outputs[0] < 0 ||
            (p->opt->pairs == RUNG_PAIRS_LAYERS && weight_of(p->g, n) < 0))
            continue;
        const char *trouble = compute_trouble(p, n);
        p->quantized[i] = !trouble;
        if (trouble && p->info[n->outputs[0]].type == RUNG_F32)
            diagnose(p->diag, "stays-float", node_label(p->g, n, label, sizeof label),
                     "it stays in float32: %s", trouble);
    }
}

/* --- absorbed Relu and Clip ------------------------------------------------------------------- */

static bool has_constant_bounds(const placer *p, const node *n)
{
    for (int i = 1; i < n->n_inputs; i++)
        if (n->inputs[i] >= 0 && !p->g->values[n->inputs[i]].constant)
            return false;
    return true;
}

static bool is_private(const placer *p, int v)
{
    return p->uses.first[v + 1] - p->uses.first[v] == 1 && !p->g->values[v].is_output &&
           !p->captured[v];
}

static bool is_absorbing(const node *n)
{
    return n->op && n->op->quant.kind == QUANT_ABSORBED;
}

static void choose_absorbed(placer *p)
{
    for (size_t i = 0; i < p->g->n_nodes; i++) {
        const node *n = &p->g->nodes[i];
        const int v = node_input(n, 0), maker = v < 0 ? -1 : p->g->values[v].producer;
        if (n->dead || !is_absorbing(n) || is_excluded(p, n) || maker < 0 || !is_private(p, v) ||
            !has_constant_bounds(p, n))
            continue;
        const node *m = &p->g->nodes[maker];
        p->absorbed[i] = p->quantized[maker] && m->op->quant.kind == QUANT_COMPUTE &&
                         m->n_outputs == 1;
        p->quantized[i] = p->absorbed[i];
    }
}

/* --- pairs ------------------------------------------------------------------------------------ */

static int root_of(const placer *p, int v)
{
    while (p->parent[v] != v)
        v = p->parent[v];
    return v;
}

static bool has_pair(const placer *p, int v)
{
    return p->places[v].kind != PLACE_NONE;
}

static void put_pair(placer *p, int v)
{
    if (!has_pair(p, v))
        p->places[v].kind = PLACE_ACTIVATION;
}

static void put_weight(placer *p, const node *n, int i)
{
    const int axis = weight_axis_of(p->g, n, i);
    /* Scales along axis 1 of a grouped ConvTranspose would be shared across groups. */
    const bool grouped = node_is(n, "ConvTranspose") && node_int(n, "group", 1) != 1;
    const bool matrices = node_is(n, "MatMul") && p->g->values[n->inputs[i]].constant->rank > 2;
    p->places[n->inputs[i]] = (placement){
        .kind = PLACE_WEIGHT, .channel_axis = axis,
        .axis = p->opt->per_tensor || grouped || matrices ? -1 : axis,
    };
}

static void put_inputs(placer *p, const node *n)
{
    for (int i = 0; i < n->n_inputs; i++) {
        const int v = n->inputs[i];
        if (v < 0)
            continue;
        if (weight_axis_of(p->g, n, i) >= 0)
            put_weight(p, n, i);
        else if (i && i == n->op->quant.bias)
            p->places[v] = (placement){ .kind = PLACE_BIAS, .input = n->inputs[0],
                                        .weight = weight_of(p->g, n) };
        else if (!is_activation(n, i) && i != n->op->quant.weight)
            continue;
        else if (p->g->values[v].constant)
            p->places[v].kind = PLACE_CONSTANT;
        else
            put_pair(p, v);
    }
}

/* The output of a compute node; where a Relu is absorbed, the pair goes behind it. */
static void put_output(placer *p, const node *n)
{
    const quant_rule *rule = &n->op->quant;
    int v = n->outputs[0];
    const int user = p->uses.first[v + 1] > p->uses.first[v] ? p->uses.list[p->uses.first[v]] : -1;
    if (user >= 0 && p->absorbed[user])
        v = p->g->nodes[user].outputs[0];
    put_pair(p, v);
    if (rule->kind == QUANT_FIXED_OUTPUT) {
        p->places[v].kind = PLACE_FIXED;
        p->places[v].lo = rule->fixed_lo;
        p->places[v].hi = rule->fixed_hi;
    }
}

static void put_compute(placer *p)
{
    for (size_t i = 0; i < p->g->n_nodes; i++) {
        const node *n = &p->g->nodes[i];
        if (!p->quantized[i] || p->absorbed[i])
            continue;
        put_inputs(p, n);
        if (p->opt->pairs != RUNG_PAIRS_LAYERS)
            put_output(p, n);
    }
}

/* --- what only moves values ------------------------------------------------------------------- */

static bool is_mover(const placer *p, const node *n)
{
    return is_allowed(p, n) && n->op->quant.kind == QUANT_SHARES_INPUT && n->n_inputs > 0 &&
           n->inputs[0] >= 0 && is_float_activation(p, n->inputs[0]);
}

/* Pad and cubic Resize make values of their own. */
static bool invents_values(const node *n)
{
    return node_is(n, "Pad") || node_is(n, "Resize");
}

static bool output_has_pair(const placer *p, const node *n)
{
    for (int i = 0; i < n->n_outputs; i++)
        if (n->outputs[i] >= 0 && has_pair(p, n->outputs[i]))
            return true;
    return false;
}

static void put_mover(placer *p, size_t i)
{
    const node *n = &p->g->nodes[i];
    const int from = n->inputs[0];
    put_pair(p, from);
    for (int k = 0; k < n->n_outputs; k++) {
        const int v = n->outputs[k];
        if (v < 0 || p->info[v].type != RUNG_F32)
            continue; /* MaxPool's indices */
        put_pair(p, v);
        p->parent[root_of(p, v)] = root_of(p, from);
        p->places[v].derived = !invents_values(n);
    }
    p->quantized[i] = true;
}

/* A Relu or Clip by itself works on what is quantized anyway; it is no reason to quantize. */
static void put_alone(placer *p, size_t i)
{
    const node *n = &p->g->nodes[i];
    put_pair(p, n->outputs[0]);
    p->quantized[i] = true;
}

static bool spread_to(placer *p, size_t i)
{
    const node *n = &p->g->nodes[i];
    if (n->dead || p->quantized[i])
        return false;
    if (is_mover(p, n) && (has_pair(p, n->inputs[0]) || output_has_pair(p, n))) {
        put_mover(p, i);
        return true;
    }
    if (is_absorbing(n) && is_allowed(p, n) && node_input(n, 0) >= 0 &&
        has_pair(p, n->inputs[0]) && is_float_activation(p, n->inputs[0]) &&
        has_constant_bounds(p, n)) {
        put_alone(p, i);
        return true;
    }
    return false;
}

/* Until nothing changes: down with the order of the nodes, then up against it. */
static void spread(placer *p)
{
    for (bool more = true; more;) {
        more = false;
        for (size_t i = 0; i < p->g->n_nodes; i++)
            more |= spread_to(p, i);
        for (size_t i = p->g->n_nodes; i-- > 0;)
            more |= spread_to(p, i);
    }
}

/* --- Concat ----------------------------------------------------------------------------------- */

/* An input that only this Concat uses loses nothing by taking the parameters of the result, and
 * becomes a plain copy. */
static bool joins_concat(const placer *p, int v)
{
    return p->places[v].kind == PLACE_ACTIVATION && root_of(p, v) == v && is_private(p, v) &&
           p->g->values[v].producer >= 0;
}

static void join_concats(placer *p)
{
    for (size_t i = 0; i < p->g->n_nodes; i++) {
        const node *n = &p->g->nodes[i];
        if (!p->quantized[i] || !node_is(n, "Concat"))
            continue;
        const int out = n->outputs[0];
        bool all = true;
        for (int k = 0; k < n->n_inputs; k++) {
            if (joins_concat(p, n->inputs[k]))
                p->parent[n->inputs[k]] = root_of(p, out);
            else
                all = false;
        }
        p->places[out].derived |= all;
    }
}

/* ---------------------------------------------------------------------------------------------- */

static void name_roots(placer *p)
{
    for (size_t v = 0; v < p->g->n_values; v++) {
        placement *at = &p->places[v];
        at->shares = root_of(p, (int)v);
        if (at->kind == PLACE_ACTIVATION && at->shares != (int)v)
            at->kind = PLACE_SHARED;
    }
}

static rung_status begin(placer *p, arena *mem, rung_error *err)
{
    const graph *g = p->g;
    p->absorbed = arena_zero(mem, g->n_nodes, sizeof *p->absorbed);
    p->captured = arena_zero(mem, g->n_values, sizeof *p->captured);
    p->parent = arena_zero(mem, g->n_values, sizeof *p->parent);
    if (!p->absorbed || !p->captured || !p->parent)
        return fail_memory(err, "placing Q/DQ pairs", g->n_values * sizeof *p->parent);
    memset(p->quantized, 0, g->n_nodes * sizeof *p->quantized);
    memset(p->places, 0, g->n_values * sizeof *p->places);
    for (size_t v = 0; v < g->n_values; v++)
        p->parent[v] = (int)v;
    for (size_t i = 0; i < g->n_nodes; i++)
        for (int k = 0; k < g->nodes[i].n_captures; k++)
            p->captured[g->nodes[i].captures[k]] = true;
    return graph_uses(g, mem, &p->uses, err);
}

rung_status place_pairs(const graph *g, const value_info *info, const rung_quant_options *opt,
                        const bool *skip_node, placement *placements, bool *quantized,
                        diagnostics *diag, rung_error *err)
{
    placer p = { .g = g, .info = info, .opt = opt, .skip = skip_node, .diag = diag,
                 .places = placements, .quantized = quantized };
    arena *mem = arena_new();
    const rung_status st = mem ? begin(&p, mem, err)
                               : fail_memory(err, "placing Q/DQ pairs", sizeof p);
    if (st == RUNG_OK) {
        choose_compute(&p);
        if (opt->pairs != RUNG_PAIRS_LAYERS)
            choose_absorbed(&p);
        put_compute(&p);
        if (opt->pairs != RUNG_PAIRS_LAYERS)
            spread(&p);
        join_concats(&p);
        name_roots(&p);
    }
    arena_free(mem);
    return st;
}
