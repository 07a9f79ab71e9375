/* Writes the chosen parameters into the graph: QuantizeLinear and DequantizeLinear nodes and their
 * constants. A deep network of small layers has as many bytes in names and declarations as in
 * scales: the nodes get no names, their results no declared types, equal zero points are one
 * constant, and of a weight only the codes (w_q) are named after it. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "graph/rewrite.h"
#include "quant/fake.h"
#include "quant/parts.h"

enum { NO_ZERO = -2 }; /* in place of a zero point's id: the operand is left out, which means 0 */

/* Zero points, and the bounds of Clips on codes, that many share. */
typedef struct zeros {
    const char *name;
    dtype   type;
    size_t  n;    /* that many channels; 0: a scalar */
    int     code; /* of a scalar; vectors are 0 */
    int     id;
} zeros;

typedef struct inserter {
    recipe *r;
    int    *scale, *zero;   /* by value id: constants of pairs, -1: not made yet */
    int    *dequantized;    /* by value id: what its consumers read instead; -1: itself */
    int    *narrowed;       /* by value id: what those of 8 bits read of a 16-bit tensor */
    zeros  *zeros;
    size_t  n_zeros, cap_zeros;
} inserter;

static rung_status out_of_memory(rung_error *err)
{
    return fail_memory(err, "Q/DQ pairs", sizeof(node));
}

static const char *named(const inserter *s, const char *base, const char *suffix)
{
    return arena_printf(s->r->mem, "%s%s", base, suffix);
}

/* NULL: memory is out. */
static const char *short_name(const inserter *s, const char *kind, int v)
{
    return arena_printf(s->r->mem, "%s%d", kind, v);
}

static int add_constant(inserter *s, const char *base, const char *suffix, const tensor *t)
{
    const char *name = base ? named(s, base, suffix) : NULL;
    return name ? graph_add_constant(s->r->g, name, t) : -1;
}

static int add_value(inserter *s, const char *base, const char *suffix)
{
    const char *name = base ? named(s, base, suffix) : NULL;
    return name ? graph_add_value(s->r->g, name, RUNG_UNDEFINED, -1, NULL) : -1;
}

/* [n] zeros, or for n = 0 a scalar code; values of one name are shared. */
static int shared_codes(inserter *s, const char *name, dtype type, size_t n, int code)
{
    for (size_t i = 0; i < s->n_zeros; i++)
        if (!strcmp(s->zeros[i].name, name) && s->zeros[i].type == type && s->zeros[i].n == n &&
            s->zeros[i].code == code)
            return s->zeros[i].id;
    zeros *list = arena_grow(s->r->mem, s->zeros, &s->cap_zeros, s->n_zeros + 1, sizeof *list);
    uint8_t *data = arena_zero(s->r->mem, dtype_bytes(type, n ? n : 1), 1);
    if (!list || !data)
        return -1;
    data[0] = (uint8_t)code;
    if (type == RUNG_U16 || type == RUNG_I16)
        ((uint16_t *)(void *)data)[0] = (uint16_t)code;
    s->zeros = list;
    const tensor t = { type, n ? 1 : 0, { (int64_t)n }, data };
    const int id = add_constant(s, name, "", &t);
    list[s->n_zeros++] = (zeros){ name, type, n, code, id };
    return id;
}

static int zero_point(inserter *s, dtype type, size_t n, int code)
{
    return shared_codes(s, "zero", type, n, code);
}

/* Scale and zero point (or NO_ZERO) are inputs 1 and 2. axis < 0: per tensor. */
static rung_status add_node(inserter *s, const char *op, const int in[3], int out, int axis,
                            rung_error *err)
{
    graph *g = s->r->g;
    if (in[0] < 0 || in[1] < 0 || in[2] == -1 || out < 0)
        return out_of_memory(err);
    const int at = graph_add_node(g, op, "", "", in, in[2] == NO_ZERO ? 2 : 3, &out, 1);
    if (at < 0)
        return out_of_memory(err);
    return axis < 0 ? RUNG_OK : graph_set_int(g, &g->nodes[at], "axis", axis, err);
}

/* Of a graph to be trained: `codes` within [ends[0], ends[1]] become value `to`. */
static rung_status clip_codes(inserter *s, int codes, int to, dtype type, const int ends[2],
                              rung_error *err)
{
    const int in[] = { codes, shared_codes(s, "lowest", type, 0, ends[0]),
                       shared_codes(s, "highest", type, 0, ends[1]) };
    return add_node(s, "Clip", in, to, -1, err);
}

/* --- activations ------------------------------------------------------------------------------ */

static rung_status make_params(inserter *s, int root, rung_error *err)
{
    qparams p = s->r->params[root];
    const char *base = s->r->g->values[root].name;
    const tensor scale_t = { .type = RUNG_F32, .data = &p.scale };
    if (s->scale[root] >= 0)
        return RUNG_OK;
    s->scale[root] = add_constant(s, base, "_scale", &scale_t);
    s->zero[root] = zero_point(s, p.type, 0, p.zero);
    return s->scale[root] < 0 || s->zero[root] < 0 ? out_of_memory(err) : RUNG_OK;
}

/* A value that must keep its name behind the pair is made by DequantizeLinear now; its producer
 * makes another. */
static int move_producer(inserter *s, int v)
{
    graph *g = s->r->g;
    const int raw = add_value(s, g->values[v].name, "_float");
    node *n = raw < 0 ? NULL : &g->nodes[g->values[v].producer];
    for (int k = 0; n && k < n->n_outputs; k++)
        if (n->outputs[k] == v)
            n->outputs[k] = raw;
    return raw;
}

/* What moves values that are within the codes leaves them there. */
static bool needs_clip(const recipe *r, int v)
{
    return r->set[v].act_bits < 8 && !qsettings_wide(&r->set[v]) &&
           !(r->places[v].kind == PLACE_SHARED && r->places[v].derived);
}

static bool has_narrow_reader(const recipe *r, int v)
{
    if (!(r->narrow[v].scale > 0))
        return false;
    for (size_t i = 0; i < r->n_nodes; i++) {
        const node *n = &r->g->nodes[i];
        for (int k = 0; r->quantized[i] && k < n->n_inputs; k++)
            if (n->inputs[k] == v && reads_narrow(r, n, v))
                return true;
    }
    return false;
}

/* The pair of 8 bits behind one of 16. */
static rung_status insert_narrow(inserter *s, int v, rung_error *err)
{
    const char *base = s->r->g->values[v].name;
    qparams p = s->r->narrow[v];
    int from = s->dequantized[v];
    rung_status st = RUNG_OK;
    if (p.bits < 8)
        st = clip_to_codes(s->r->g, from, -1, from, &p, NULL, &from, err);
    if (st != RUNG_OK)
        return st;
    const tensor scale_t = { .type = RUNG_F32, .data = &p.scale };
    const int scale = add_constant(s, base, "_narrow_scale", &scale_t);
    const int zero = zero_point(s, p.type, 0, p.zero), codes = add_value(s, base, "_narrow_q");
    const int q[] = { from, scale, zero }, dq[] = { codes, scale, zero };
    s->narrowed[v] = add_value(s, base, "_narrow_dq");
    if ((st = add_node(s, "QuantizeLinear", q, codes, -1, err)) != RUNG_OK)
        return st;
    return add_node(s, "DequantizeLinear", dq, s->narrowed[v], -1, err);
}

static rung_status insert_pair(inserter *s, int v, rung_error *err)
{
    graph *g = s->r->g;
    const int root = s->r->places[v].shares;
    const char *base = g->values[v].name;
    rung_status st = make_params(s, root, err);
    if (st != RUNG_OK)
        return st;
    const bool keeps_name = g->values[v].is_output && g->values[v].producer >= 0;
    int from = keeps_name ? move_producer(s, v) : v;
    const bool clips = from >= 0 && needs_clip(s->r, v);
    const qparams *p = &s->r->params[root];
    const int maker = g->values[v].producer, ends[] = { qparams_lowest(p), qparams_highest(p) };
    if (clips)
        st = s->r->prepare ? clip_reserve(g, v, maker, err)
                           : clip_to_codes(g, v, maker, from, p, NULL, &from, err);
    if (st != RUNG_OK)
        return st;
    const int codes = add_value(s, base, "_q");
    const int to = keeps_name ? v : add_value(s, base, "_dq");
    const int kept = clips && s->r->prepare ? add_value(s, base, "_kept") : codes;
    const int q[] = { from, s->scale[root], s->zero[root] };
    const int dq[] = { kept, s->scale[root], s->zero[root] };
    s->dequantized[v] = to;
    if ((st = add_node(s, "QuantizeLinear", q, codes, -1, err)) != RUNG_OK ||
        (kept != codes && (st = clip_codes(s, codes, kept, p->type, ends, err)) != RUNG_OK) ||
        (st = add_node(s, "DequantizeLinear", dq, to, -1, err)) != RUNG_OK)
        return st;
    return has_narrow_reader(s->r, v) ? insert_narrow(s, v, err) : RUNG_OK;
}

/* --- constants -------------------------------------------------------------------------------- */

/* The ends of the codes of constant v. */
static void constant_ends(const recipe *r, int v, int ends[2])
{
    const bool weight = r->places[v].kind == PLACE_WEIGHT;
    ends[0] = weight ? weight_lowest_of(r, v) : qparams_lowest(&r->params[v]);
    ends[1] = weight ? weight_top_of(r, v) : qparams_highest(&r->params[v]);
}

/* Constant v stays float and is quantized in the graph, to these codes (value to); one that would
 * get another code moves to the middle of the chosen one's rounding cell. */
static rung_status fake_quantize(inserter *s, int v, const tensor *codes, const int params[2],
                                 int axis, int to, rung_error *err)
{
    graph *g = s->r->g;
    int ends[2];
    tensor *moved = tensor_copy(g->mem, g->values[v].constant);
    if (!moved || params[0] < 0 || params[1] < 0)
        return out_of_memory(err);
    constant_ends(s->r, v, ends);
    fake_quantizer f = { g->values[params[0]].constant, g->values[params[1]].constant, axis,
                         ends[0], ends[1] };
    fake_move(&f, codes->data, moved);
    g->values[v].constant = moved;
    const bool clips = ends[1] - ends[0] < 255;
    const int raw = clips ? add_value(s, g->values[v].name, "_raw") : to;
    const int in[] = { v, params[0], params[1] };
    const rung_status st = add_node(s, "QuantizeLinear", in, raw, axis, err);
    return st == RUNG_OK && clips ? clip_codes(s, raw, to, codes->type, ends, err) : st;
}

static rung_status dequantize_constant(inserter *s, int v, const tensor *codes, int scale, int zero,
                                       int axis, rung_error *err)
{
    const char *name = s->r->g->values[v].name;
    const int fixed = s->r->prepare ? add_value(s, name, "_q") : add_constant(s, name, "_q", codes);
    const int in[] = { fixed, scale, zero }, params[] = { scale, zero };
    rung_status st = RUNG_OK;
    s->dequantized[v] = add_value(s, short_name(s, "d", v), "");
    if (s->r->prepare)
        st = fake_quantize(s, v, codes, params, axis, fixed, err);
    return st == RUNG_OK ? add_node(s, "DequantizeLinear", in, s->dequantized[v], axis, err) : st;
}

static rung_status insert_constant(inserter *s, int v, rung_error *err)
{
    const tensor *t = s->r->g->values[v].constant;
    const qparams *p = &s->r->params[v];
    const size_t n = tensor_count(t);
    const bool wide = qsettings_wide(&s->r->set[v]);
    void *q = mem_alloc(dtype_bytes(p->type, n));
    rung_status st = q ? make_params(s, v, err) : out_of_memory(err);
    for (size_t i = 0; i < n && q; i++) {
        const int code = qparams_code(p, ((const float *)t->data)[i]);
        if (wide)
            ((uint16_t *)q)[i] = (uint16_t)code;
        else
            ((uint8_t *)q)[i] = (uint8_t)code;
    }
    tensor codes = *t;
    codes.type = p->type;
    codes.data = q;
    if (st == RUNG_OK)
        st = dequantize_constant(s, v, &codes, s->scale[v], s->zero[v], -1, err);
    mem_free(q);
    return st;
}

/* A vector of n scales, or for n = 0 the only one. */
static int add_scales(inserter *s, int v, float *scales, size_t n)
{
    const tensor t = { RUNG_F32, n ? 1 : 0, { (int64_t)n }, scales };
    return add_constant(s, short_name(s, "s", v), "", &t);
}

static rung_status insert_weight(inserter *s, int v, rung_error *err)
{
    const tensor *w = s->r->g->values[v].constant;
    const int axis = s->r->places[v].axis;
    const size_t n = axis < 0 ? 0 : (size_t)w->dims[axis];
    int8_t *q = mem_alloc(tensor_count(w));
    if (!q)
        return out_of_memory(err);
    if (s->r->codes[v])
        memcpy(q, s->r->codes[v], tensor_count(w));
    else
        weight_codes(w, axis, s->r->scales[v], weight_lowest_of(s->r, v), q);
    tensor codes = *w;
    codes.type = RUNG_I8;
    codes.data = q;
    const rung_status st = dequantize_constant(s, v, &codes, add_scales(s, v, s->r->scales[v], n),
                                               zero_point(s, RUNG_I8, n, 0), axis, err);
    mem_free(q);
    return st;
}

/* Of a graph to be trained: the operator reads the float bias, and the values that qat_convert will
 * need are made, so that ids come out in the same order. */
static rung_status keep_bias(inserter *s, int v, rung_error *err)
{
    graph *g = s->r->g;
    tensor *b = tensor_copy(g->mem, g->values[v].constant);
    if (!b || add_value(s, short_name(s, "s", v), "") < 0 ||
        add_value(s, g->values[v].name, "_q") < 0 || add_value(s, short_name(s, "d", v), "") < 0)
        return out_of_memory(err);
    for (size_t i = 0; i < tensor_count(b); i++) /* as bias_code takes them */
        if (!isfinite(((float *)b->data)[i]))
            ((float *)b->data)[i] = 0;
    g->values[v].constant = b;
    return RUNG_OK;
}

/* Without a zero point: ONNX Runtime fuses a bias without one, but not the weight of a Gemm. */
static rung_status insert_bias(inserter *s, int v, rung_error *err)
{
    const recipe *r = s->r;
    const placement *p = &r->places[v];
    const tensor *b = r->g->values[v].constant;
    const float x_scale = (p->narrow ? r->narrow : r->params)[p->input].scale;
    const float *w_scales = r->scales[p->weight];
    const bool per_channel = r->places[p->weight].axis >= 0;
    const size_t n = tensor_count(b);
    if (r->prepare)
        return keep_bias(s, v, err);
    int32_t *q = arena_zero(r->mem, n, sizeof *q);
    float *scales = arena_zero(r->mem, n, sizeof *scales);
    if (!q || !scales)
        return out_of_memory(err);
    for (size_t i = 0; i < n; i++) {
        scales[i] = x_scale * w_scales[per_channel ? i : 0];
        q[i] = bias_code(((const float *)b->data)[i], scales[i]);
    }
    tensor codes = *b;
    codes.type = RUNG_I32;
    codes.data = q;
    const int scale = add_scales(s, v, scales, per_channel ? n : 0);
    return dequantize_constant(s, v, &codes, scale, NO_ZERO, per_channel ? 0 : -1, err);
}

/* --- consumers -------------------------------------------------------------------------------- */

/* All read an activation behind its pair; a constant is exchanged for quantized nodes only. Q nodes
 * come after the first n_nodes and keep what they read. */
static void rewire(const inserter *s)
{
    graph *g = s->r->g;
    for (size_t i = 0; i < s->r->n_nodes; i++) {
        node *n = &g->nodes[i];
        for (int k = 0; k < n->n_inputs; k++) {
            const int v = n->inputs[k];
            if (v < 0 || (size_t)v >= s->r->n_values || s->dequantized[v] < 0)
                continue;
            if (!g->values[v].constant || s->r->quantized[i])
                n->inputs[k] =
                    reads_narrow(s->r, n, v) ? s->narrowed[v] : s->dequantized[v];
        }
    }
}

rung_status drop_unused_constants(graph *g, arena *mem, rung_error *err)
{
    uses u;
    const rung_status st = graph_uses(g, mem, &u, err);
    for (size_t v = 0; st == RUNG_OK && v < g->n_values; v++) {
        value *at = &g->values[v];
        if (!at->constant || at->is_output || u.first[v] != u.first[v + 1])
            continue;
        at->constant = NULL;
        at->listed_input = false;
        at->has_info = false;
    }
    return st;
}

static rung_status insert_all(inserter *s, rung_error *err)
{
    rung_status st = RUNG_OK;
    for (size_t v = 0; v < s->r->n_values && st == RUNG_OK; v++) {
        switch (s->r->places[v].kind) {
        case PLACE_NONE: break;
        case PLACE_ACTIVATION:
        case PLACE_SHARED:
        case PLACE_FIXED: st = insert_pair(s, (int)v, err); break;
        case PLACE_CONSTANT: st = insert_constant(s, (int)v, err); break;
        case PLACE_WEIGHT: st = insert_weight(s, (int)v, err); break;
        case PLACE_BIAS: st = insert_bias(s, (int)v, err); break;
        }
    }
    return st;
}

/* Whether a pair has 16 bits: QuantizeLinear knows them since opset 21. */
static bool has_wide(const recipe *r)
{
    for (size_t v = 0; v < r->n_values; v++) {
        const place_kind k = r->places[v].kind;
        if (k != PLACE_NONE && k != PLACE_BIAS && k != PLACE_WEIGHT && qsettings_wide(&r->set[v]))
            return true;
    }
    return false;
}

/* How training would observe those activations whose codes do not say it (qat_observer_of). */
static rung_status describe_observers(const inserter *s, rung_error *err)
{
    const recipe *r = s->r;
    const char *text = "";
    for (size_t v = 0; v < r->n_values && text; v++) {
        const bool symmetric = s->scale[v] >= 0 && r->set[v].act_symmetric;
        if (s->scale[v] < 0 || (r->params[v].bits == r->set[v].act_bits && !symmetric))
            continue;
        text = arena_printf(r->mem, "%s%d %s %s\n", text, r->params[v].bits,
                            symmetric ? "symmetric" : "affine", r->g->values[s->scale[v]].name);
    }
    if (!text)
        return out_of_memory(err);
    return *text ? graph_set_metadata(r->g, META_OBSERVERS, text, err) : RUNG_OK;
}

rung_status insert_pairs(recipe *r, rung_error *err)
{
    const size_t size = r->n_values * sizeof(int);
    inserter s = { .r = r, .scale = arena_alloc(r->mem, size), .zero = arena_alloc(r->mem, size),
                   .dequantized = arena_alloc(r->mem, size),
                   .narrowed = arena_alloc(r->mem, size) };
    rung_status st;
    if (!s.scale || !s.zero || !s.dequantized || !s.narrowed)
        return out_of_memory(err);
    r->dequantized = s.dequantized;
    memset(s.scale, -1, size);
    memset(s.zero, -1, size);
    memset(s.dequantized, -1, size);
    memset(s.narrowed, -1, size);
    const bool wide = has_wide(r);
    if (wide && r->prepare)
        return fail(err, RUNG_EUNSUPPORTED, "training takes activations of 8 bits only: give the "
                    "rules and options act_type uint8 or int8");
    if ((st = insert_all(&s, err)) != RUNG_OK ||
        (r->prepare && (st = describe_observers(&s, err)) != RUNG_OK))
        return st;
    rewire(&s);
    if ((wide && (st = rewrite_raise_opset(r->g, 21, err)) != RUNG_OK) ||
        (st = graph_sort(r->g, err)) != RUNG_OK ||
        (st = drop_unused_constants(r->g, r->mem, err)) != RUNG_OK)
        return st;
    return graph_verify(r->g, err);
}
