/* From a graph with FakeQuantize to the integer model. Nodes are edited in place: what stays keeps
 * its id, and what static quantization would have made besides takes the ids that were kept for it.
 *
 * B. Jacob et al., Quantization and training of neural networks for efficient integer-arithmetic-
 * only inference, CVPR 2018. */
#include "quant/qat.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "graph/pass.h"
#include "quant/parts.h"

typedef struct conversion {
    graph *g;
    arena *mem;
    uses   u;        /* of the prepared graph */
    size_t n_values, n_nodes;
    bool  *used;     /* by value id: made, read or declared there */
} conversion;

static rung_status out_of_memory(rung_error *err)
{
    return fail_memory(err, "an integer model", sizeof(graph));
}

rung_status qat_prepare(const graph *g, dataset *data, const rung_quant_options *opt, graph **out,
                        diagnostics *diag, rung_error *err)
{
    return quantize_with_pairs(g, data, opt, true, out, diag, err);
}

bool qat_is_prepared(const graph *g)
{
    for (size_t i = 0; i < g->n_nodes; i++) {
        const tensor *t = node_constant(g, &g->nodes[i], 0);
        if (node_is(&g->nodes[i], "QuantizeLinear") && t && t->type == RUNG_F32)
            return true;
    }
    return false;
}

qat_codes qat_codes_of(const graph *g, const node *quantize)
{
    fake_quantizer f;
    fake_codes_begin(g, quantize, &f);
    for (size_t i = 0; i < g->n_nodes; i++)
        if (!g->nodes[i].dead && node_input(&g->nodes[i], 0) == quantize->outputs[0] &&
            fake_read_clip(g, &g->nodes[i], &f))
            break;
    return (qat_codes){ f.lo, f.hi };
}

static int bits_of(int n_codes)
{
    int bits = 1;
    while (1 << bits < n_codes)
        bits++;
    return bits;
}

/* Lines of "BITS affine NAME" or "BITS symmetric NAME" (parts.h: META_OBSERVERS). */
qat_observer qat_observer_of(const graph *g, const char *scale, const fake_quantizer *f)
{
    const int most = bits_of(f->hi - f->lo + 1);
    const char *line = graph_metadata(g, META_OBSERVERS);
    const size_t length = strlen(scale);
    while (line && *line) {
        const char *end = strchr(line, '\n'), *how = strchr(line, ' ');
        const char *name = how ? strchr(how + 1, ' ') : NULL;
        if (!end || !name || name > end)
            break;
        if ((size_t)(end - name - 1) == length && !memcmp(name + 1, scale, length)) {
            const int bits = *line - '0';
            return (qat_observer){ bits >= 2 && bits < most ? bits : most, how[1] == 's' };
        }
        line = end + 1;
    }
    return (qat_observer){ most, false };
}

rung_scales qat_scales_of(const graph *g)
{
    const char *text = graph_metadata(g, META_SCALES);
    return !text                    ? RUNG_SCALES_LEARNED
           : !strcmp(text, "observed") ? RUNG_SCALES_OBSERVED
           : !strcmp(text, "fixed")    ? RUNG_SCALES_FIXED
                                       : RUNG_SCALES_LEARNED;
}

/* --- values that were kept -------------------------------------------------------------------- */

/* The value of that name, or of one in its place (name_1 ...), that nothing uses; -1: none. */
static int kept_value(const conversion *c, const char *base, const char *suffix)
{
    enum { MOST = 32 };
    for (int i = 0; i < MOST; i++) {
        const char *name = i ? arena_printf(c->mem, "%s%s_%d", base, suffix, i)
                             : arena_printf(c->mem, "%s%s", base, suffix);
        const int id = name ? strmap_get(c->g->by_name, name, -1) : -1;
        if (id < 0 || (size_t)id >= c->n_values)
            return -1;
        if (!c->used[id]) {
            c->used[id] = true;
            return id;
        }
    }
    return -1;
}

static int value_named(conversion *c, const char *base, const char *suffix)
{
    const int id = kept_value(c, base, suffix);
    const char *name = id < 0 ? arena_printf(c->mem, "%s%s", base, suffix) : NULL;
    return name ? graph_add_value(c->g, name, RUNG_UNDEFINED, -1, NULL) : id;
}

/* t (copied) becomes the content of value id. False: memory is out. */
static bool set_constant(graph *g, int id, const tensor *t)
{
    value *v = id < 0 ? NULL : &g->values[id];
    if (!v || !(v->constant = tensor_copy(g->mem, t)))
        return false;
    v->type = t->type;
    v->rank = t->rank;
    memcpy(v->dims, t->dims, sizeof v->dims);
    return true;
}

/* --- FakeQuantize ----------------------------------------------------------------------------- */

static rung_status convert_constant(conversion *c, const fake_quantizer *f, const fake_nodes *n,
                                    rung_error *err)
{
    graph *g = c->g;
    const tensor *w = g->values[n->in].constant;
    const char *name = g->values[n->in].name;
    fake_layout at;
    if (!fake_layout_of(f, w, &at))
        return fail(err, RUNG_EMODEL, "weight '%s': its scales are not one for each channel", name);
    for (size_t i = 0; i < at.channels; i++)
        if (!(((const float *)f->scale->data)[i] > 0) ||
            !isfinite(((const float *)f->scale->data)[i]))
            return fail(err, RUNG_EMODEL, "weight '%s': the scale of channel %zu is %g", name, i,
                        (double)((const float *)f->scale->data)[i]);
    tensor codes = *w;
    codes.type = fake_type(f);
    codes.data = arena_alloc(c->mem, tensor_count(w));
    if (!codes.data)
        return out_of_memory(err);
    fake_codes(f, w, f->scale->data, codes.data);
    /* The value that DequantizeLinear reads becomes the constant. */
    if (!set_constant(g, g->nodes[n->dq].inputs[0], &codes))
        return out_of_memory(err);
    g->nodes[n->q].dead = true;
    if (n->clip >= 0)
        g->nodes[n->clip].dead = true;
    return RUNG_OK;
}

/* The Clip of codes goes, one of real values comes before the pair (design section 4). */
static rung_status convert_activation(conversion *c, const fake_quantizer *f, const fake_nodes *n,
                                      rung_error *err)
{
    graph *g = c->g;
    const float scale = *(const float *)f->scale->data;
    const qparams p = { scale, f->zero ? (int)tensor_get_int(f->zero, 0) : 0, fake_type(f),
                        bits_of(f->hi - f->lo + 1) };
    if (tensor_count(f->scale) != 1 || qparams_lowest(&p) != f->lo || qparams_highest(&p) != f->hi)
        return fail(err, RUNG_EUNSUPPORTED, "'%s': codes from %d to %d of an activation are no "
                    "range of 2 to 8 bits", g->values[n->in].name, f->lo, f->hi);
    const int base = g->values[n->out].is_output ? n->out : n->in;
    const char *name = g->values[base].name;
    const clip_values ready = { kept_value(c, name, "_lo"), kept_value(c, name, "_hi"),
                                kept_value(c, name, "") };
    int to;
    const rung_status st = clip_to_codes(g, base, g->values[n->in].producer, n->in, &p, &ready, &to,
                                         err);
    if (st != RUNG_OK)
        return st;
    g->nodes[n->q].inputs[0] = to;
    g->nodes[n->dq].inputs[0] = n->codes;
    g->nodes[n->clip].dead = true;
    return RUNG_OK;
}

static rung_status convert_pairs(conversion *c, rung_error *err)
{
    rung_status st = RUNG_OK;
    fake_quantizer f;
    fake_nodes n;
    for (size_t i = 0; i < c->n_nodes && st == RUNG_OK; i++) {
        if (!fake_read(c->g, &c->u, (int)i, &f, &n))
            continue;
        const tensor *t = c->g->values[n.in].constant;
        if (t && t->type == RUNG_F32)
            st = convert_constant(c, &f, &n, err);
        else if (n.clip >= 0)
            st = convert_activation(c, &f, &n, err);
    }
    return st;
}

/* --- biases ----------------------------------------------------------------------------------- */

/* A product: its integer weight, and the scales. */
typedef struct product {
    const node   *n;
    const tensor *codes, *scales; /* of the weight */
    const char   *weight;         /* its name, for messages */
    int           axis;           /* of the output channels */
    float         x_scale;
} product;

/* The DequantizeLinear that makes operand i of n; NULL: another node or none. */
static const node *dequantizer(const graph *g, const node *n, int i)
{
    const int v = node_input(n, i), at = v < 0 ? -1 : g->values[v].producer;
    return at >= 0 && node_is(&g->nodes[at], "DequantizeLinear") ? &g->nodes[at] : NULL;
}

static bool read_product(const graph *g, const node *n, product *p)
{
    const quant_rule *rule = n->op ? &n->op->quant : NULL;
    if (n->dead || !rule || !rule->weight)
        return false;
    const node *x = dequantizer(g, n, 0), *w = dequantizer(g, n, rule->weight);
    const tensor *x_scale = x ? node_constant(g, x, 1) : NULL;
    *p = (product){ .n = n, .codes = w ? node_constant(g, w, 0) : NULL };
    p->scales = w ? node_constant(g, w, 1) : NULL;
    if (!x_scale || x_scale->type != RUNG_F32 || tensor_count(x_scale) != 1 || !p->codes ||
        p->codes->type != RUNG_I8 || p->codes->rank < 2 || !p->scales ||
        p->scales->type != RUNG_F32)
        return false;
    p->axis = rule->weight_axis < 0 ? p->codes->rank - 1 : rule->weight_axis;
    if (node_is(n, "Gemm"))
        p->axis = node_int(n, "transB", 0) ? 0 : 1;
    p->x_scale = *(const float *)x_scale->data;
    p->weight = g->values[w->inputs[0]].name;
    return p->axis < p->codes->rank;
}

static float product_scale(const product *p, size_t channel)
{
    const float *s = p->scales->data;
    return p->x_scale * s[tensor_count(p->scales) > 1 ? channel : 0];
}

/* sums[c]: the magnitudes of channel c's codes. */
static void add_codes(const product *p, double *sums)
{
    const tensor *t = p->codes;
    const size_t n = (size_t)t->dims[p->axis], count = tensor_count(t);
    const size_t inner = dims_count(t->rank - p->axis - 1, t->dims + p->axis + 1);
    const int8_t *q = t->data;
    for (size_t i = 0, c = 0; i < count; c = c + 1 < n ? c + 1 : 0)
        for (const size_t end = i + inner; i < end; i++)
            sums[c] += abs(q[i]);
}

/* 255 sum|w| + |b| bounds every partial sum. bias (may be NULL): [n_bias]. */
static rung_status check_sums(conversion *c, const product *p, const float *bias, size_t n_bias,
                              rung_error *err)
{
    const size_t n = (size_t)p->codes->dims[p->axis];
    double *sums = arena_zero(c->mem, n, sizeof *sums);
    if (!sums)
        return out_of_memory(err);
    add_codes(p, sums);
    for (size_t i = 0; i < (n_bias > n ? n_bias : n); i++) {
        const float scale = product_scale(p, i % n);
        const double b = i < n_bias && isfinite(bias[i]) ? fabs((double)bias[i] / scale) : 0;
        if (!(scale >= FLT_MIN) || !isfinite(scale) || 255 * sums[i % n] + nearbyint(b) > INT32_MAX)
            return fail(err, RUNG_EMODEL, "weight '%s': with input scale x weight scale = %g, the "
                        "sums of channel %zu do not fit int32; train with a smaller rate, or "
                        "exclude its node", p->weight, (double)scale, i);
    }
    return RUNG_OK;
}

/* Operand i of node `at` becomes int32 behind a DequantizeLinear. */
static rung_status convert_bias(conversion *c, const product *p, int at, int i, rung_error *err)
{
    graph *g = c->g;
    const int v = g->nodes[at].inputs[i];
    const tensor *b = g->values[v].constant;
    const size_t n = tensor_count(b);
    const bool per_channel = tensor_count(p->scales) > 1;
    int32_t *q = arena_zero(c->mem, n, sizeof *q);
    float *scales = arena_zero(c->mem, n, sizeof *scales);
    const char *suffix = arena_printf(c->mem, "%d", v);
    if (!q || !scales || !suffix)
        return out_of_memory(err);
    for (size_t k = 0; k < n; k++) {
        scales[k] = product_scale(p, k);
        q[k] = bias_code(((const float *)b->data)[k], scales[k]);
    }
    const tensor scale = { RUNG_F32, per_channel ? 1 : 0, { (int64_t)n }, scales };
    tensor codes = *b;
    codes.type = RUNG_I32;
    codes.data = q;
    const int in[] = { value_named(c, g->values[v].name, "_q"), value_named(c, "s", suffix) };
    const int out = value_named(c, "d", suffix);
    if (out < 0 || !set_constant(g, in[0], &codes) || !set_constant(g, in[1], &scale))
        return out_of_memory(err);
    const int dq = graph_add_node(g, "DequantizeLinear", "", "", in, 2, &out, 1);
    if (dq < 0)
        return out_of_memory(err);
    g->nodes[at].inputs[i] = out;
    return per_channel ? graph_set_int(g, &g->nodes[dq], "axis", 0, err) : RUNG_OK;
}

static rung_status convert_products(conversion *c, rung_error *err)
{
    graph *g = c->g;
    rung_status st = RUNG_OK;
    for (size_t k = 0; k < c->n_nodes && st == RUNG_OK; k++) {
        product p;
        if (!read_product(g, &g->nodes[k], &p))
            continue;
        const int i = p.n->op->quant.bias;
        const tensor *b = i ? node_constant(g, p.n, i) : NULL;
        const size_t n_scales = tensor_count(p.scales);
        const bool fits = b && b->type == RUNG_F32 && b->rank == 1 &&
                          (n_scales == 1 || tensor_count(b) == n_scales);
        st = check_sums(c, &p, fits ? b->data : NULL, fits ? tensor_count(b) : 0, err);
        if (st == RUNG_OK && fits)
            st = convert_bias(c, &p, (int)k, i, err);
    }
    return st;
}

/* --- all -------------------------------------------------------------------------------------- */

static rung_status take_values(graph *g, const float *const *data, rung_error *err)
{
    for (size_t v = 0; data && v < g->n_values; v++) {
        const tensor *t = g->values[v].constant;
        if (data[v] && t && !(g->values[v].constant = fake_constant(g->mem, t, data[v])))
            return out_of_memory(err);
    }
    return RUNG_OK;
}

static rung_status begin(conversion *c, rung_error *err)
{
    graph *g = c->g;
    c->n_values = g->n_values;
    c->n_nodes = g->n_nodes;
    c->mem = arena_new();
    c->used = c->mem ? arena_zero(c->mem, g->n_values, sizeof *c->used) : NULL;
    if (!c->used)
        return out_of_memory(err);
    const rung_status st = graph_uses(g, c->mem, &c->u, err);
    for (size_t v = 0; st == RUNG_OK && v < g->n_values; v++) {
        const value *at = &g->values[v];
        c->used[v] = at->constant || at->producer >= 0 || at->is_input || at->is_output ||
                     c->u.first[v + 1] > c->u.first[v];
    }
    return st;
}

static bool is_of_training(const char *key)
{
    return !strcmp(key, META_SCALES) || !strcmp(key, META_OBSERVERS);
}

static rung_status rename_metadata(graph *g, rung_error *err)
{
    int kept = 0;
    for (int i = 0; i < g->n_metadata; i++) {
        if (is_of_training(g->metadata[i].key))
            continue;
        g->metadata[kept] = g->metadata[i];
        if (!strcmp(g->metadata[i].key, "rung.prepared") &&
            !(g->metadata[kept].key = arena_strdup(g->mem, "rung.quantized")))
            return out_of_memory(err);
        kept++;
    }
    g->n_metadata = kept;
    return RUNG_OK;
}

static rung_status convert(const graph *g, const float *const *data, bool shared, graph **out,
                           rung_error *err)
{
    conversion c = { 0 };
    rung_status st;
    *out = NULL;
    if (!qat_is_prepared(g))
        return fail(err, RUNG_EARGUMENT, "the model is not prepared for training: there is nothing "
                    "to convert");
    if ((st = (shared ? graph_clone_shared : graph_clone)(g, &c.g, err)) != RUNG_OK ||
        (st = take_values(c.g, data, err)) != RUNG_OK || (st = begin(&c, err)) != RUNG_OK ||
        (st = convert_pairs(&c, err)) != RUNG_OK || (st = convert_products(&c, err)) != RUNG_OK ||
        (st = graph_sort(c.g, err)) != RUNG_OK ||
        (st = drop_unused_constants(c.g, c.mem, err)) != RUNG_OK ||
        (st = rename_metadata(c.g, err)) != RUNG_OK || (st = graph_verify(c.g, err)) != RUNG_OK)
        goto done;
    *out = c.g;
    c.g = NULL;
done:
    graph_free(c.g);
    arena_free(c.mem);
    return st;
}

rung_status qat_convert(const graph *g, const float *const *data, graph **out, rung_error *err)
{
    return convert(g, data, false, out, err);
}

rung_status qat_convert_shared(const graph *g, const float *const *data, graph **out,
                               rung_error *err)
{
    return convert(g, data, true, out, err);
}
