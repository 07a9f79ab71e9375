/* The weights of an int8 model beside the float model's. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "graph/pass.h"
#include "measure/compare_parts.h"

enum { COARSE_CODE = 7 }; /* the largest that 4 bits hold */

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
static bool find_weight(const graph *g, const node *n, weight_source *s)
{
    const int i = n->op && !n->dead ? n->op->quant.weight : 0;
    const int v = i ? node_input(n, i) : -1;
    const int at = v >= 0 ? g->values[v].producer : -1;
    if (at < 0 || !node_is(&g->nodes[at], "DequantizeLinear"))
        return false;
    const node *dq = &g->nodes[at];
    *s = (weight_source){ n, dq, node_constant(g, dq, 0), node_constant(g, dq, 1),
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
static void find_real(const pairing *p, weight_source *s)
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
    s->alpha = node_float(&r->nodes[at], "alpha", 1) / node_float(s->n, "alpha", 1);
}

/* --- element by element ----------------------------------------------------------------------- */

/* One element: its code less the zero point, what that stands for, the float model's weight, and
 * the channels it is between. */
typedef struct element {
    int    code;
    double made, want;
    size_t out, in;
} element;

/* Where an element lies, and the number of input channels. */
typedef struct shape {
    size_t out_inner, outs, in_inner, ins, outs_in_group, groups;
} shape;

static size_t inner_of(const tensor *t, int axis)
{
    size_t n = 1;
    for (int d = axis + 1; d < t->rank; d++)
        n *= (size_t)t->dims[d];
    return n;
}

static shape shape_of(const weight_source *s)
{
    const int in_axis = s->axis == 0 ? 1 : s->axis - 1;
    shape h = { inner_of(s->codes, s->axis), (size_t)s->codes->dims[s->axis],
                inner_of(s->codes, in_axis), (size_t)s->codes->dims[in_axis], 0, 1 };
    if (s->axis == 0)
        h.groups = (size_t)node_int(s->n, "group", 1);
    h.outs_in_group = h.groups ? h.outs / h.groups : 0;
    return h;
}

static element element_at(const weight_source *s, const shape *h, size_t i)
{
    element e = { .out = i / h->out_inner % h->outs };
    const size_t k = tensor_count(s->scales) > 1 ? e.out : 0;
    e.code = (int)(tensor_get_int(s->codes, i) - (s->zeros ? tensor_get_int(s->zeros, k) : 0));
    e.made = e.code * tensor_get(s->scales, k);
    e.want = s->real ? ((const float *)s->real->data)[i] * s->alpha : e.made;
    e.in = i / h->in_inner % h->ins;
    if (h->outs_in_group)
        e.in += e.out / h->outs_in_group * h->ins;
    return e;
}

void compare_weight_factors(const weight_record *w, const weight_source *s, const float *fx,
                            size_t n_fx, float *fy)
{
    const shape h = shape_of(s);
    double *sums = mem_zero(w->channels + 1, 2 * sizeof *sums);
    if (h.groups * h.ins != n_fx)
        fx = NULL;
    for (size_t i = 0; i < tensor_count(s->codes) && sums; i++) {
        const element e = element_at(s, &h, i);
        const double want = e.want / (fx ? fx[e.in] : 1); /* where each code is off by as much */
        if (!isfinite(want))
            continue;
        sums[2 * e.out] += e.made * want;
        sums[2 * e.out + 1] += want * want;
    }
    for (size_t k = 0; k < w->channels; k++)
        fy[k] = sums && sums[2 * k + 1] > 0 ? (float)(sums[2 * k] / sums[2 * k + 1]) : 1;
    mem_free(sums);
}

void compare_weight_errors(weight_record *w, const weight_source *s, const float *fx, size_t n_fx,
                           const float *fy)
{
    const shape h = shape_of(s);
    if (h.groups * h.ins != n_fx)
        fx = NULL;
    w->signal = w->noise = 0;
    memset(w->max, 0, w->channels * sizeof *w->max);
    for (size_t i = 0; i < tensor_count(s->codes); i++) {
        const element e = element_at(s, &h, i);
        const double up = s->real && fy ? fy[e.out] : 1, down = s->real && fx ? fx[e.in] : 1;
        const double want = e.want * up / down;
        if (!isfinite(want))
            continue;
        w->signal += want * want;
        w->noise += (want - e.made) * (want - e.made);
        w->max[e.out] = fmaxf(w->max[e.out], fabsf((float)want));
    }
}

static void count_codes(const weight_source *s, weight_record *w)
{
    const shape h = shape_of(s);
    for (size_t i = 0; i < tensor_count(s->codes); i++) {
        const element e = element_at(s, &h, i);
        w->max_code[e.out] = abs(e.code) > w->max_code[e.out] ? abs(e.code) : w->max_code[e.out];
    }
    for (size_t c = 0; c < w->channels; c++)
        w->n_coarse += w->max_code[c] <= COARSE_CODE;
}

/* --- records ---------------------------------------------------------------------------------- */

static rung_status add_weight(comparison *c, const pairing *p, const weight_source *s,
                              rung_error *err)
{
    char label[NODE_LABEL_SIZE];
    weight_record *w = &c->weights[c->n_weights];
    w->name = arena_strdup(c->mem, p->g->values[s->dq->inputs[0]].name);
    w->node = arena_strdup(c->mem, node_label(p->g, s->n, label, sizeof label));
    w->node_name = arena_strdup(c->mem, s->n->name);
    w->op_type = arena_strdup(c->mem, s->n->op_type);
    w->channels = (size_t)s->codes->dims[s->axis];
    w->per_channel = tensor_count(s->scales) > 1;
    w->known = s->real != NULL;
    w->max = arena_zero(c->mem, w->channels, sizeof *w->max);
    w->max_code = arena_zero(c->mem, w->channels, sizeof *w->max_code);
    w->steps = arena_zero(c->mem, tensor_count(s->scales), sizeof *w->steps);
    if (!w->name || !w->node || !w->node_name || !w->op_type || !w->max || !w->max_code ||
        !w->steps)
        return fail_memory(err, "the records of weights", w->channels * sizeof *w->max);
    for (size_t i = 0; i < tensor_count(s->scales); i++)
        w->steps[i] = (float)tensor_get(s->scales, i);
    count_codes(s, w);
    compare_weight_errors(w, s, NULL, 0, NULL);
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

rung_status compare_weights(comparison *c, pairing *p, rung_error *err)
{
    const graph *g = p->g;
    rung_status st = RUNG_OK;
    c->weights = arena_zero(c->mem, g->n_nodes + 1, sizeof *c->weights);
    p->sources = arena_zero(c->mem, g->n_nodes + 1, sizeof *p->sources);
    if (!c->weights || !p->sources)
        return fail_memory(err, "the records of weights", g->n_nodes * sizeof *c->weights);
    for (size_t i = 0; i < g->n_nodes && st == RUNG_OK; i++) {
        weight_source *s = &p->sources[c->n_weights];
        if (!find_weight(g, &g->nodes[i], s))
            continue;
        find_real(p, s);
        if ((st = add_weight(c, p, s, err)) == RUNG_OK)
            assign(c, p, s->n->outputs[0], (int)c->n_weights - 1);
    }
    return st;
}
