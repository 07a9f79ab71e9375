/* The weights of an int8 model beside the float model's. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "graph/pass.h"
#include "measure/compare_parts.h"

enum { COARSE_CODE = 7 }; /* the largest that 4 bits hold */

/* A weight as its layer has it: real[i] = (codes[i] - zero) * scale[channel]. */
typedef struct source {
    const node   *n, *dq;
    const tensor *codes, *scales, *zeros, *real; /* zeros, real: may be NULL */
    int           axis; /* of the output channels */
    double        factor; /* of the float weight */
} source;

static int channel_axis(const node *n, const tensor *w)
{
    if (node_is(n, "Gemm"))
        return node_int(n, "transB", 0) ? 0 : 1;
    const int axis = n->op->quant.weight_axis;
    return axis < 0 ? w->rank - 1 : axis;
}

static bool is_code(dtype t)
{
    return t == RUNG_I8 || t == RUNG_U8 || t == RUNG_I4 || t == RUNG_U4 || t == RUNG_I2 ||
           t == RUNG_U2;
}

/* A layer whose weight is a constant behind a DequantizeLinear with one scale, or one a channel. */
static bool find_weight(const graph *g, const node *n, source *s)
{
    const int i = n->op && !n->dead ? n->op->quant.weight : 0;
    const int v = i ? node_input(n, i) : -1;
    const int at = v >= 0 ? g->values[v].producer : -1;
    if (at < 0 || !node_is(&g->nodes[at], "DequantizeLinear"))
        return false;
    const node *dq = &g->nodes[at];
    *s = (source){ n, dq, node_constant(g, dq, 0), node_constant(g, dq, 1),
                   node_constant(g, dq, 2), NULL, 0, 1 };
    if (!s->codes || !is_code(s->codes->type) || s->codes->rank < 2 || !s->scales ||
        !dtype_is_float(s->scales->type) || node_int(dq, "block_size", 0) != 0)
        return false;
    s->axis = channel_axis(n, s->codes);
    if (s->axis >= s->codes->rank || tensor_count(s->codes) == 0)
        return false;
    int64_t axis = node_int(dq, "axis", 1);
    axis += axis < 0 ? s->codes->rank : 0;
    const size_t n_scales = tensor_count(s->scales);
    return (n_scales == 1 || (axis == s->axis && (int64_t)n_scales == s->codes->dims[axis])) &&
           (!s->zeros || tensor_count(s->zeros) == n_scales);
}

/* The layer of the same name in the float model has a weight of the same shape. */
static void find_real(const pairing *p, source *s)
{
    const graph *r = p->reference;
    int v = strmap_get(r->by_name, p->g->values[s->n->outputs[0]].name, -1);
    if (v < 0 && s->n->name[0])
        for (size_t i = 0; i < r->n_nodes && v < 0; i++)
            if (strcmp(r->nodes[i].name, s->n->name) == 0)
                v = r->nodes[i].outputs[0];
    const int at = v >= 0 ? r->values[v].producer : -1;
    if (at < 0 || !node_is(&r->nodes[at], s->n->op_type) ||
        node_int(&r->nodes[at], "transB", 0) != node_int(s->n, "transB", 0))
        return;
    const tensor *w = node_constant(r, &r->nodes[at], s->n->op->quant.weight);
    if (!w || w->type != RUNG_F32 || w->rank != s->codes->rank)
        return;
    for (int d = 0; d < w->rank; d++)
        if (w->dims[d] != s->codes->dims[d])
            return;
    s->real = w;
    s->factor = node_float(&r->nodes[at], "alpha", 1) / node_float(s->n, "alpha", 1);
}

static void tally_element(const source *s, weight_record *w, size_t i, size_t channel)
{
    const size_t k = w->per_channel ? channel : 0;
    const int zero = s->zeros ? (int)tensor_get_int(s->zeros, k) : 0;
    const int code = (int)tensor_get_int(s->codes, i) - zero;
    const double made = code * tensor_get(s->scales, k);
    const double want = s->real ? ((const float *)s->real->data)[i] * s->factor : made;
    if (!isfinite(want))
        return;
    w->signal += want * want;
    w->noise += (want - made) * (want - made);
    w->max[channel] = fmaxf(w->max[channel], fabsf((float)want));
    w->max_code[channel] = abs(code) > w->max_code[channel] ? abs(code) : w->max_code[channel];
}

static void tally_weight(const source *s, weight_record *w)
{
    size_t inner = 1;
    for (int d = s->axis + 1; d < s->codes->rank; d++)
        inner *= (size_t)s->codes->dims[d];
    for (size_t i = 0; i < tensor_count(s->codes); i++)
        tally_element(s, w, i, i / inner % w->channels);
    for (size_t c = 0; c < w->channels; c++)
        w->n_coarse += w->max[c] > 0 && w->max_code[c] <= COARSE_CODE;
}

static rung_status add_weight(comparison *c, const pairing *p, const source *s, rung_error *err)
{
    char label[NODE_LABEL_SIZE];
    weight_record *w = &c->weights[c->n_weights];
    w->name = arena_strdup(c->mem, p->g->values[s->dq->inputs[0]].name);
    w->node = arena_strdup(c->mem, node_label(p->g, s->n, label, sizeof label));
    w->node_name = arena_strdup(c->mem, s->n->name);
    w->op_type = arena_strdup(c->mem, s->n->op_type);
    w->channels = (size_t)s->codes->dims[s->axis];
    w->per_channel = tensor_count(s->scales) > 1;
    w->scale = (float)tensor_get(s->scales, 0);
    w->known = s->real != NULL;
    w->max = arena_zero(c->mem, w->channels, sizeof *w->max);
    w->max_code = arena_zero(c->mem, w->channels, sizeof *w->max_code);
    if (!w->name || !w->node || !w->node_name || !w->op_type || !w->max || !w->max_code)
        return fail_memory(err, "the records of weights", w->channels * sizeof *w->max);
    tally_weight(s, w);
    c->n_weights++;
    return RUNG_OK;
}

/* The tensor that a layer's output becomes: behind what it absorbs. */
static void assign(comparison *c, const pairing *p, int v, int weights)
{
    const graph *g = p->g;
    for (size_t i = 0; i < c->n_tensors; i++) {
        const int x = p->pairs[i].x, at = g->values[x].producer;
        const node *n = at >= 0 ? &g->nodes[at] : NULL;
        const bool clamps = n && (node_is(n, "Relu") || node_is(n, "Clip"));
        if (x == v || (clamps && n->inputs[0] == v))
            c->tensors[i].weights = weights;
    }
}

rung_status compare_weights(comparison *c, const pairing *p, rung_error *err)
{
    const graph *g = p->g;
    rung_status st = RUNG_OK;
    c->weights = arena_zero(c->mem, g->n_nodes + 1, sizeof *c->weights);
    if (!c->weights)
        return fail_memory(err, "the records of weights", g->n_nodes * sizeof *c->weights);
    for (size_t i = 0; i < g->n_nodes && st == RUNG_OK; i++) {
        source s;
        if (!find_weight(g, &g->nodes[i], &s))
            continue;
        find_real(p, &s);
        if ((st = add_weight(c, p, &s, err)) == RUNG_OK)
            assign(c, p, s.n->outputs[0], (int)c->n_weights - 1);
    }
    return st;
}
