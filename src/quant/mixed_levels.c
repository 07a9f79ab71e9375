/* From a recipe with all layers in 8 bits to a graph of several levels. */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "quant/mixed.h"

static bool has_params(const recipe *r, size_t v)
{
    const place_kind k = r->places[v].kind;
    return k != PLACE_NONE && k != PLACE_BIAS && k != PLACE_WEIGHT;
}

/* --- 16 bits ---------------------------------------------------------------------------------- */

static qparams wide_constant(const recipe *r, size_t v, const qsettings *s)
{
    const tensor *t = r->g->values[v].constant;
    float lo = 0, hi = 0;
    bool repaired;
    for (size_t i = 0; i < tensor_count(t); i++) {
        const float x = ((const float *)t->data)[i];
        lo = isfinite(x) ? fminf(lo, x) : lo;
        hi = isfinite(x) ? fmaxf(hi, x) : hi;
    }
    return qparams_from_range(lo, hi, s->act_type, qsettings_bits(s), s->act_symmetric, &repaired);
}

/* Tensors that have 16 bits now get parameters for them, by what r's observers saw of all that
 * shares with them; nodes of 8 bits that read them keep the parameters that r chose. */
static rung_status widen(const recipe *r, recipe *to, rung_error *err)
{
    to->params = arena_copy(to->mem, r->params, r->n_values * sizeof *r->params);
    to->narrow = arena_copy(to->mem, r->narrow, r->n_values * sizeof *r->narrow);
    if (!to->params || !to->narrow)
        return fail_memory(err, "a mixed model", r->n_values * sizeof *to->params);
    for (size_t v = 0; v < r->n_values; v++) {
        const qsettings *s = &to->set[v];
        if (!has_params(to, v) || !qsettings_wide(s) || qsettings_wide(&r->set[v]))
            continue;
        to->params[v] = to->places[v].kind == PLACE_CONSTANT ? wide_constant(r, v, s)
                                                             : params_as(r, (int)v, s);
    }
    for (size_t i = 0; i < r->n_nodes; i++) {
        const node *n = &r->g->nodes[i];
        for (int k = 0; to->quantized[i] && k < n->n_inputs; k++) {
            const int v = n->inputs[k];
            if (is_activation(n, k) && reads_narrow(to, n, v) && !qsettings_wide(&r->set[v]))
                to->narrow[v] = r->params[v];
        }
    }
    return RUNG_OK;
}

/* Of the codes of output channel c. */
static double code_sum(const recipe *r, int w, size_t c)
{
    const placement *p = &r->places[w];
    const tensor *t = r->g->values[w].constant;
    const float scale = r->scales[w][p->axis < 0 ? 0 : c];
    if (!r->codes[w])
        return weight_code_sum(t, p->channel_axis, c, scale);
    size_t inner = 1;
    for (int d = p->channel_axis + 1; d < t->rank; d++)
        inner *= (size_t)t->dims[d];
    double sum = 0;
    for (size_t i = 0; i < tensor_count(t); i++)
        sum += i / inner % (size_t)t->dims[p->channel_axis] == c ? abs(r->codes[w][i]) : 0;
    return sum;
}

static bool fits(const recipe *r, const node *n, const qparams *x)
{
    const int w = weight_of(r->g, n), b = bias_of(r->g, n);
    if (w < 0 || r->places[w].kind != PLACE_WEIGHT)
        return true;
    const float *bias = b >= 0 ? r->g->values[b].constant->data : NULL;
    const size_t n_bias = bias ? tensor_count(r->g->values[b].constant) : 0;
    const size_t channels = (size_t)r->g->values[w].constant->dims[r->places[w].channel_axis];
    for (size_t c = 0; c < (n_bias > channels ? n_bias : channels); c++) {
        const float product = x->scale * r->scales[w][r->places[w].axis < 0 ? 0 : c % channels];
        const double code = bias && isfinite(bias[c]) ? fabs((double)bias[c] / product) : 0;
        if (!(product >= FLT_MIN) || code > INT32_MAX ||
            !products_fit(x, code_sum(r, w, c % channels), nearbyint(code)))
            return false;
    }
    return true;
}

bool can_be_wide(const recipe *r, size_t i)
{
    const node *n = &r->g->nodes[i];
    const int v = n->n_inputs > 0 ? n->inputs[0] : -1;
    if (v < 0 || !has_params(r, (size_t)v) || r->places[v].kind == PLACE_CONSTANT)
        return false;
    qsettings s = node_settings(r, n, v);
    if (qsettings_wide(&s))
        return false;
    s.act_type = s.act_type == RUNG_I8 ? RUNG_I16 : RUNG_U16;
    const qparams x = params_as(r, v, &s);
    return fits(r, n, &x);
}

/* ---------------------------------------------------------------------------------------------- */

static rung_status begin(const recipe *r, const level *levels, recipe *to, rung_error *err)
{
    bool *wide = arena_zero(to->mem, r->n_nodes + 1, sizeof *wide);
    to->skip = arena_copy(to->mem, r->skip, r->n_nodes * sizeof *r->skip);
    to->quantized = arena_zero(to->mem, r->n_nodes, sizeof *to->quantized);
    to->places = arena_zero(to->mem, r->n_values, sizeof *to->places);
    to->set = arena_zero(to->mem, r->n_values, sizeof *to->set);
    if (!wide || !to->skip || !to->quantized || !to->places || !to->set)
        return fail_memory(err, "a mixed model", r->n_values * sizeof *to->places);
    for (size_t i = 0; i < r->n_nodes; i++) {
        to->skip[i] = to->skip[i] || levels[i] == LEVEL_FLOAT;
        wide[i] = levels[i] == LEVEL_WIDE;
    }
    to->wide = wide;
    rung_status st = place_pairs(r->g, r->info, r->opt, to->skip, to->places, to->quantized, NULL,
                                 err);
    if (st == RUNG_OK)
        st = settle(to, NULL, err);
    return st == RUNG_OK ? widen(r, to, err) : st;
}

/* Fewer nodes are quantized than in r, so what has a pair has one in r, and parameters with it. */
static rung_status check_parameters(const recipe *r, const recipe *to, rung_error *err)
{
    for (size_t v = 0; v < r->n_values; v++)
        if (has_params(to, v) && !(to->params[v].scale > 0))
            return fail(err, RUNG_EUNSUPPORTED, "'%s' gets a pair only when a layer beside it is "
                        "left in float: it has no parameters", r->g->values[v].name);
    return RUNG_OK;
}

static rung_status restore_biases(const recipe *r, const recipe *to, rung_error *err)
{
    for (size_t v = 0; v < r->n_values; v++) {
        if (r->places[v].kind != PLACE_BIAS || to->places[v].kind == PLACE_BIAS ||
            r->unfitted[v] == r->g->values[v].constant)
            continue;
        tensor *bias = tensor_copy(to->g->mem, r->unfitted[v]);
        if (!bias)
            return fail_memory(err, "a bias", tensor_count(r->unfitted[v]) * sizeof(float));
        to->g->values[v].constant = bias;
    }
    return RUNG_OK;
}

rung_status mixed_graph(const recipe *r, const level *levels, graph **out, rung_error *err)
{
    recipe to = *r;
    rung_status st;
    to.diag = NULL;
    to.mem = arena_new();
    if (!to.mem)
        return fail_memory(err, "a mixed model", sizeof to);
    st = begin(r, levels, &to, err);
    to.g = NULL; /* until now r's */
    if (st != RUNG_OK || (st = check_parameters(r, &to, err)) != RUNG_OK ||
        (st = graph_clone(r->g, &to.g, err)) != RUNG_OK ||
        (st = restore_biases(r, &to, err)) != RUNG_OK || (st = insert_pairs(&to, err)) != RUNG_OK)
        goto done;
    *out = to.g;
    to.g = NULL;
done:
    graph_free(to.g);
    arena_free(to.mem);
    return st;
}
