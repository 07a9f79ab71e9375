/* A qconfig brought to a recipe. An activation follows the rules of the node that makes it (where a
 * Relu is absorbed, of both), a graph input those that name a tensor only; weights and constant
 * operands follow the node that uses them. What shares parameters follows the tensor that it shares
 * them with. The width is what the widest of the nodes around a tensor asks for. */
#include <string.h>

#include "quant/parts.h"

static const node *node_at(const graph *g, int i)
{
    return i < 0 ? NULL : &g->nodes[i];
}

void exclude_by_rules(recipe *r)
{
    for (size_t i = 0; i < r->n_nodes; i++) {
        const qsubject s = { { &r->g->nodes[i] }, NULL };
        if (qconfig_resolve(r->rules, r->opt, &s).exclude)
            r->skip[i] = true;
    }
}

/* The node that computes activation v: behind it a Relu may have been absorbed. */
static qsubject makers_of(const recipe *r, int v)
{
    const graph *g = r->g;
    const node *maker = node_at(g, g->values[v].producer);
    qsubject s = { { maker }, g->values[v].name };
    if (maker && maker->op && maker->op->quant.kind == QUANT_ABSORBED && maker->n_inputs > 0 &&
        maker->inputs[0] >= 0 && r->places[maker->inputs[0]].kind == PLACE_NONE)
        s.makers[1] = node_at(g, g->values[maker->inputs[0]].producer);
    return s;
}

static bool is_activation_place(place_kind k)
{
    return k == PLACE_ACTIVATION || k == PLACE_SHARED || k == PLACE_FIXED;
}

/* --- what a preset asks of placement ---------------------------------------------------------- */

/* All that shares with `from` shares with `to` from now on. */
static void join_roots(recipe *r, int from, int to)
{
    for (size_t v = 0; from != to && v < r->n_values; v++)
        if (r->places[v].shares == from && is_activation_place(r->places[v].kind)) {
            r->places[v].shares = to;
            r->places[v].kind = PLACE_SHARED;
        }
}

/* A fixed range stays what it is. */
static void tie(recipe *r, const node *n)
{
    placement *out = &r->places[n->outputs[0]];
    if (!is_activation_place(out->kind) || r->places[out->shares].kind == PLACE_FIXED)
        return;
    for (int k = 0; k < n->n_inputs; k++) {
        const int v = n->inputs[k];
        if (v >= 0 && is_activation(n, k) && is_activation_place(r->places[v].kind) &&
            r->places[r->places[v].shares].kind != PLACE_FIXED)
            join_roots(r, out->shares, r->places[v].shares);
    }
    out->derived = out->kind == PLACE_SHARED;
}

static void fix_range(recipe *r, const node *n)
{
    const int v = n->outputs[0];
    placement *at = &r->places[v];
    float lo, hi;
    if (!is_activation_place(at->kind) || !qconfig_fixed_range(r->rules, n, &lo, &hi))
        return;
    at->kind = PLACE_FIXED;
    at->shares = v;
    at->lo = lo;
    at->hi = hi;
}

static void follow_preset(recipe *r)
{
    for (size_t i = 0; i < r->n_nodes; i++)
        if (r->quantized[i] && r->g->nodes[i].n_outputs == 1)
            fix_range(r, &r->g->nodes[i]);
    for (size_t i = 0; i < r->n_nodes; i++)
        if (r->quantized[i] && qconfig_ties(r->rules, &r->g->nodes[i]))
            tie(r, &r->g->nodes[i]);
}

/* --- settings --------------------------------------------------------------------------------- */

static bool same_weights(const qsettings *a, const qsettings *b)
{
    return a->per_tensor == b->per_tensor && a->weight_bits == b->weight_bits;
}

static bool same_activations(const qsettings *a, const qsettings *b)
{
    return a->act_type == b->act_type && a->act_bits == b->act_bits &&
           a->act_symmetric == b->act_symmetric && a->reduce_range == b->reduce_range;
}

/* The first node that uses a constant decides. */
static void set_constant(recipe *r, const node *n, int v, bool *done, diagnostics *diag)
{
    const bool weight = r->places[v].kind == PLACE_WEIGHT;
    const qsettings now = node_settings(r, n, v);
    if (done[v] && !(weight ? same_weights : same_activations)(&r->set[v], &now))
        diagnose(diag, "rule-conflict", r->g->values[v].name, "the nodes that use it are quantized "
                 "by different rules: the first one's are taken");
    if (done[v])
        return;
    done[v] = true;
    r->set[v] = now;
    if (weight && now.per_tensor)
        r->places[v].axis = -1;
}

static dtype widened(dtype t)
{
    return t == RUNG_U8 ? RUNG_U16 : t == RUNG_I8 ? RUNG_I16 : t;
}

/* The settings of a subject; wide: its node is among recipe.wide. */
static qsettings resolve(const recipe *r, const qsubject *s)
{
    qsettings out = qconfig_resolve(r->rules, r->opt, s);
    for (int i = 0; i < 2; i++)
        if (r->wide && s->makers[i] && r->wide[s->makers[i] - r->g->nodes])
            out.act_type = widened(out.act_type);
    return out;
}

qsettings node_settings(const recipe *r, const node *n, int v)
{
    const qsubject s = { { n }, r->g->values[v].name };
    return resolve(r, &s);
}

static void set_activations(recipe *r)
{
    for (size_t v = 0; v < r->n_values; v++) {
        if (!is_activation_place(r->places[v].kind))
            continue;
        const qsubject s = makers_of(r, r->places[v].shares);
        r->set[v] = resolve(r, &s);
    }
}

/* --- width ------------------------------------------------------------------------------------ */

/* What computes with its operands; the others move them as they are. */
static bool has_own_width(const recipe *r, const node *n)
{
    return r->quantized[n - r->g->nodes] && n->op->quant.kind != QUANT_SHARES_INPUT;
}

static void ask_width(const recipe *r, int v, const qsettings *s, dtype *asked)
{
    if (is_activation_place(r->places[v].kind) && qsettings_wide(s))
        asked[r->places[v].shares] = s->act_type;
}

/* What shares parameters has one width. */
static void widen_activations(recipe *r, dtype *asked)
{
    for (size_t v = 0; v < r->n_values; v++) {
        if (!is_activation_place(r->places[v].kind))
            continue;
        const qsubject makers = makers_of(r, (int)v);
        const qsettings s = resolve(r, &makers);
        ask_width(r, (int)v, &s, asked);
    }
    for (size_t i = 0; i < r->n_nodes; i++) {
        const node *n = &r->g->nodes[i];
        for (int k = 0; r->quantized[i] && has_own_width(r, n) && k < n->n_inputs; k++) {
            if (!is_activation(n, k))
                continue;
            const qsettings s = node_settings(r, n, n->inputs[k]);
            ask_width(r, n->inputs[k], &s, asked);
        }
    }
    for (size_t v = 0; v < r->n_values; v++)
        if (is_activation_place(r->places[v].kind) && asked[r->places[v].shares] != RUNG_UNDEFINED)
            r->set[v].act_type = asked[r->places[v].shares];
}

bool reads_narrow(const recipe *r, const node *n, int v)
{
    if (v < 0 || (size_t)v >= r->n_values || !is_activation_place(r->places[v].kind) ||
        !qsettings_wide(&r->set[v]) || !has_own_width(r, n))
        return false;
    const qsettings s = node_settings(r, n, v);
    return !qsettings_wide(&s);
}

const qparams *read_params(const recipe *r, const node *n, int v)
{
    return reads_narrow(r, n, v) ? &r->narrow[v] : &r->params[v];
}

/* Operands of different types: integer arithmetic here, no kernel in ONNX Runtime. */
static void report_mixed(const recipe *r, const node *n, diagnostics *diag)
{
    char label[NODE_LABEL_SIZE];
    bool seen[2] = { false, false };
    for (int k = 0; k < n->n_inputs + n->n_outputs; k++) {
        const int v = k < n->n_inputs ? n->inputs[k] : n->outputs[k - n->n_inputs];
        if (v >= 0 && (is_activation_place(r->places[v].kind) ||
                       r->places[v].kind == PLACE_CONSTANT) && !qsettings_wide(&r->set[v]))
            seen[r->set[v].act_type == RUNG_I8] = true;
    }
    if (seen[0] && seen[1])
        diagnose(diag, "mixed-types", node_label(r->g, n, label, sizeof label),
                 "its operands and its result are uint8 and int8: rung computes that in integers, "
                 "ONNX Runtime may run it in float32; let the rules give them one act_type");
}

rung_status settle(recipe *r, diagnostics *diag, rung_error *err)
{
    bool *done = arena_zero(r->mem, r->n_values, sizeof *done);
    dtype *asked = arena_zero(r->mem, r->n_values, sizeof *asked);
    if (!done || !asked)
        return fail_memory(err, "settings", r->n_values * sizeof *asked);
    follow_preset(r);
    set_activations(r);
    widen_activations(r, asked);
    for (size_t i = 0; i < r->n_nodes; i++) {
        const node *n = &r->g->nodes[i];
        for (int k = 0; r->quantized[i] && k < n->n_inputs; k++) {
            const int v = n->inputs[k];
            if (v >= 0 && (r->places[v].kind == PLACE_WEIGHT ||
                           r->places[v].kind == PLACE_CONSTANT))
                set_constant(r, n, v, done, diag);
            else if (v >= 0 && r->places[v].kind == PLACE_BIAS)
                r->places[v].narrow = reads_narrow(r, n, r->places[v].input);
        }
        if (r->quantized[i])
            report_mixed(r, n, diag);
    }
    return RUNG_OK;
}

int weight_top_of(const recipe *r, int v)
{
    return (1 << (r->set[v].weight_bits - 1)) - 1;
}

int weight_lowest_of(const recipe *r, int v)
{
    return -weight_top_of(r, v) - (r->set[v].full_weights ? 1 : 0);
}
