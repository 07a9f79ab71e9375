/* Gradients of the normalizations. Statistics in double, as their evaluation. */
#include <math.h>

#include "ops/element.h"
#include "ops/grad.h"

/* --- BatchNormalization, inference form ------------------------------------------------------- */
/* y = (x - mean) inv scale + bias, inv = (variance + epsilon)^(-1/2). */
typedef struct channel_sums {
    double dy, dy_x; /* of dy and of dy (x - mean) */
} channel_sums;

static double element(const tensor *t, size_t i)
{
    return ((const float *)t->data)[i];
}

static channel_sums sum_channel(const grad_args *a, size_t c)
{
    const tensor *x = &a->in[0];
    const size_t inner = dims_product(x->dims, 2, x->rank), channels = (size_t)x->dims[1];
    const double mean = element(&a->in[3], c);
    channel_sums s = {0, 0};
    for (size_t n = 0; n < (size_t)x->dims[0]; n++) {
        const float *v = (const float *)x->data + (n * channels + c) * inner;
        const float *dy = (const float *)a->dout[0].data + (n * channels + c) * inner;
        for (size_t i = 0; i < inner; i++) {
            s.dy += dy[i];
            s.dy_x += dy[i] * (v[i] - mean);
        }
    }
    return s;
}

static void put(tensor *t, size_t i, double v)
{
    if (t->data)
        ((float *)t->data)[i] = (float)v;
}

rung_status batch_norm_grad(const grad_args *a, rung_error *err)
{
    const tensor *x = &a->in[0];
    const double epsilon = node_float(a->n, "epsilon", 1e-5f);
    const float *dy = a->dout[0].data;
    float *dx = a->din[0].data;
    bool any;
    const rung_status st = grad_begin(a, &any, err);
    if (st || !any || !dy)
        return st;
    const size_t channels = (size_t)x->dims[1], inner = dims_product(x->dims, 2, x->rank);
    for (size_t c = 0; c < channels; c++) {
        const double scale = element(&a->in[1], c);
        const double inv = 1 / sqrt(element(&a->in[4], c) + epsilon), slope = scale * inv;
        for (size_t n = 0; dx && n < (size_t)x->dims[0]; n++) {
            const size_t first = (n * channels + c) * inner;
            for (size_t i = first; i < first + inner; i++)
                dx[i] = (float)(dy[i] * slope);
        }
        if (!a->din[1].data && !a->din[2].data && !a->din[3].data && !a->din[4].data)
            continue;
        const channel_sums s = sum_channel(a, c);
        put(&a->din[1], c, s.dy_x * inv);
        put(&a->din[2], c, s.dy);
        put(&a->din[3], c, -s.dy * slope);
        put(&a->din[4], c, -0.5 * s.dy_x * slope * inv * inv);
    }
    return RUNG_OK;
}

/* --- normalizations of groups of neighbouring elements ---------------------------------------- */
/* y = h scale + bias, h = (x - mean) inv over groups of `size` elements (rms: mean = 0). x stands
 * for all that has its shape: scale and bias broadcast to it. */
typedef struct group_norm {
    tensor x, dy, scale, dscale, dbias;
    size_t size;
    double epsilon;
    bool   rms;
    const tensor *dmean, *dinv; /* of LayerNormalization's other outputs, or NULL */
    float *dx;
} group_norm;

typedef struct moments {
    double mean, inv;
} moments;

static moments moments_of(const group_norm *g, const float *x)
{
    double mean = 0, variance = 0;
    for (size_t i = 0; !g->rms && i < g->size; i++)
        mean += x[i];
    mean /= (double)g->size;
    for (size_t i = 0; i < g->size; i++)
        variance += (x[i] - mean) * (x[i] - mean);
    return (moments){mean, 1 / sqrt(variance / (double)g->size + g->epsilon)};
}

/* One group: dh is overwritten by dx. dx = inv (dh - mean(dh) - h mean(h dh)). */
static void through_group(const group_norm *g, size_t at, const float *h, double *dh, double inv)
{
    const double n = (double)g->size;
    double sum = 0, product = 0;
    for (size_t i = 0; i < g->size; i++) {
        sum += dh[i];
        product += dh[i] * h[i];
    }
    const double dmean = g->dmean ? element(g->dmean, at) : 0;
    const double dinv = g->dinv ? element(g->dinv, at) : 0;
    const double all = g->rms ? 0 : (dmean - inv * sum) / n;
    const double by_h = -(inv * product + dinv * inv * inv) / n;
    for (size_t i = 0; i < g->size; i++)
        g->dx[at * g->size + i] = (float)(inv * dh[i] + all + by_h * h[i]);
}

#define CHUNK 256

/* dh = dy scale; dscale = dy h, summed. */
static rung_status scale_grads(group_norm *g, const tensor *h, double *dh, arena *mem,
                               rung_error *err)
{
    double dy[CHUNK], v[CHUNK];
    grad_sum sum;
    walk w;
    const rung_status st = grad_sum_begin(&sum, &g->dscale, tensor_count(h), mem, err);
    if (st || !walk_begin(&w, &g->dy, (const tensor *const[]){&g->scale}, 1))
        return st;
    do {
        for (size_t first = 0; first < w.row; first += CHUNK) {
            const size_t n = w.row - first < CHUNK ? w.row - first : CHUNK, at = w.out + first;
            load_doubles(&g->dy, at, n, dy);
            walk_doubles(&w, 0, &g->scale, first, n, v);
            for (size_t i = 0; i < n; i++)
                dh[at + i] = dy[i] * v[i];
            load_doubles(h, at, n, v);
            for (size_t i = 0; i < n; i++)
                v[i] *= dy[i];
            grad_sum_add(&sum, &w, 0, first, n, v);
        }
    } while (walk_next(&w));
    grad_sum_end(&sum);
    return RUNG_OK;
}

static rung_status norm_grads(group_norm *g, arena *mem, rung_error *err)
{
    const size_t count = tensor_count(&g->x), groups = g->size ? count / g->size : 0;
    tensor h = g->x;
    double *dh = arena_zero(mem, count + 1, sizeof *dh);
    double *inv = arena_zero(mem, groups + 1, sizeof *inv);
    rung_status st = RUNG_OK;
    if (!(h.data = arena_zero(mem, count + 1, sizeof(float))) || !dh || !inv)
        return fail_memory(err, "normalized elements", count * sizeof *dh);
    for (size_t i = 0; i < groups; i++) {
        const float *x = (const float *)g->x.data + i * g->size;
        const moments m = moments_of(g, x);
        inv[i] = m.inv;
        for (size_t k = 0; k < g->size; k++)
            ((float *)h.data)[i * g->size + k] = (float)((x[k] - m.mean) * m.inv);
    }
    if (g->dy.data && ((st = scale_grads(g, &h, dh, mem, err)) ||
                       (st = grad_broadcast(&g->dy, 1, &g->dbias, mem, err))))
        return st;
    for (size_t i = 0; g->dx && i < groups; i++)
        through_group(g, i, (const float *)h.data + i * g->size, dh + i * g->size, inv[i]);
    return RUNG_OK;
}

/* The operands of a normalization whose scale and bias are inputs 1 and 2. */
static group_norm operands(const grad_args *a, size_t size)
{
    group_norm g = {.x = a->in[0], .dy = a->dout[0], .scale = a->in[1], .dscale = a->din[1]};
    g.dbias = a->n_in > 2 ? a->din[2] : (tensor){.rank = 0};
    g.size = size;
    g.epsilon = node_float(a->n, "epsilon", 1e-5f);
    g.dx = a->din[0].data;
    return g;
}

static void view(tensor *t, int rank, int64_t d0, int64_t d1, int64_t d2)
{
    t->rank = rank;
    t->dims[0] = d0;
    t->dims[1] = d1;
    t->dims[2] = d2;
}

/* One scale per channel of [N, channels, inner], or per group of [N, groups, size]. */
static rung_status channel_groups(const grad_args *a, int64_t groups, int64_t scales,
                                  rung_error *err)
{
    const tensor *x = &a->in[0];
    bool any;
    const rung_status st = grad_begin(a, &any, err);
    if (st || !any)
        return st;
    const size_t image = dims_product(x->dims, 1, x->rank); /* > 0: the result is not empty */
    group_norm g = operands(a, image / (size_t)groups);
    view(&g.x, 3, x->dims[0], scales, (int64_t)image / scales);
    view(&g.dy, 3, x->dims[0], scales, (int64_t)image / scales);
    view(&g.scale, 2, scales, 1, 0);
    view(&g.dscale, 2, scales, 1, 0);
    view(&g.dbias, 2, scales, 1, 0);
    return norm_grads(&g, a->mem, err);
}

rung_status instance_norm_grad(const grad_args *a, rung_error *err)
{
    return channel_groups(a, a->in[0].dims[1], a->in[0].dims[1], err);
}

rung_status group_norm_grad(const grad_args *a, rung_error *err)
{
    const int64_t groups = node_int(a->n, "num_groups", 1);
    return channel_groups(a, groups, a->opset < 21 ? groups : a->in[0].dims[1], err);
}

static rung_status trailing_norm(const grad_args *a, bool rms, rung_error *err)
{
    const tensor *x = &a->in[0];
    int axis = 0;
    bool any;
    rung_status st = grad_begin(a, &any, err);
    if (st || !any || (st = op_axis(node_int(a->n, "axis", -1), x->rank, &axis, err)))
        return st;
    group_norm g = operands(a, dims_product(x->dims, axis, x->rank));
    g.rms = rms;
    g.dmean = a->n_out > 1 && a->dout[1].data ? &a->dout[1] : NULL;
    g.dinv = a->n_out > 2 && a->dout[2].data ? &a->dout[2] : NULL;
    return norm_grads(&g, a->mem, err);
}

rung_status layer_norm_grad(const grad_args *a, rung_error *err)
{
    return trailing_norm(a, false, err);
}

rung_status rms_norm_grad(const grad_args *a, rung_error *err)
{
    return trailing_norm(a, true, err);
}

/* --- LRN, LpNormalization --------------------------------------------------------------------- */
typedef struct lrn {
    int64_t size, channels;
    double  per, beta, bias; /* y = x d^-beta, d = bias + per * the sum of squares around x */
    size_t  inner;
} lrn;

/* The sum of v over the channels -before .. behind away from element i. */
static double sum_around(const lrn *l, const double *v, size_t i, int64_t before, int64_t behind)
{
    const int64_t c = (int64_t)(i / l->inner) % l->channels;
    const int64_t first = c < before ? 0 : c - before;
    const int64_t last = behind > l->channels - 1 - c ? l->channels - 1 : c + behind;
    double sum = 0;
    for (int64_t k = first; k <= last; k++)
        sum += v[i + (size_t)(k - c) * l->inner];
    return sum;
}

/* dx = dy d^-beta - 2 per beta x (the sum of dy x d^(-beta-1) over those whose sum x is in). */
rung_status lrn_grad(const grad_args *a, rung_error *err)
{
    const tensor *x = &a->in[0];
    const float *v = x->data, *dy = a->dout[0].data;
    float *dx = a->din[0].data;
    bool any;
    const rung_status st = grad_begin(a, &any, err);
    if (st || !any || !dx)
        return st;
    lrn l = {.size = node_int(a->n, "size", 1), .channels = x->dims[1]};
    l.beta = node_float(a->n, "beta", 0.75f);
    l.bias = node_float(a->n, "bias", 1);
    l.per = node_float(a->n, "alpha", 1e-4f) / (double)l.size;
    l.inner = dims_product(x->dims, 2, x->rank);
    const int64_t before = (l.size - 1) / 2, behind = l.size - 1 - before;
    const size_t n = tensor_count(x);
    double *squares = arena_zero(a->mem, n, sizeof *squares);
    double *d = arena_zero(a->mem, n, sizeof *d), *t = arena_zero(a->mem, n, sizeof *t);
    if (!squares || !d || !t)
        return fail_memory(err, "sums around elements", n * sizeof *t);
    for (size_t i = 0; i < n; i++)
        squares[i] = (double)v[i] * v[i];
    for (size_t i = 0; i < n; i++) {
        d[i] = l.bias + l.per * sum_around(&l, squares, i, before, behind);
        t[i] = (double)dy[i] * v[i] * pow(d[i], -l.beta - 1);
    }
    for (size_t i = 0; i < n; i++)
        dx[i] = (float)(dy[i] * pow(d[i], -l.beta) -
                        2 * l.per * l.beta * v[i] * sum_around(&l, t, i, behind, before));
    return RUNG_OK;
}

/* y = x / |x|: dx = (dy - d|x|/dx (y . dy)) / |x|, d|x|/dx = y (p = 2) or sign(x) (p = 1). */
static void lp_norm_line(const float *x, const float *dy, size_t n, size_t step, bool euclid,
                         float *dx)
{
    double sum = 0, product = 0;
    for (size_t i = 0; i < n * step; i += step) {
        sum += euclid ? (double)x[i] * x[i] : fabs(x[i]);
        product += (double)x[i] * dy[i];
    }
    const double norm = euclid ? sqrt(sum) : sum;
    for (size_t i = 0; norm != 0 && i < n * step; i += step) {
        const double by = euclid ? x[i] / norm : (x[i] > 0) - (x[i] < 0);
        dx[i] = (float)((dy[i] - by * product / norm) / norm);
    }
}

rung_status lp_norm_grad(const grad_args *a, rung_error *err)
{
    const tensor *x = &a->in[0];
    int axis = 0;
    bool any;
    rung_status st = grad_begin(a, &any, err);
    if (st || !any || !a->din[0].data ||
        (st = op_axis(node_int(a->n, "axis", -1), x->rank, &axis, err)))
        return st;
    const size_t outer = dims_product(x->dims, 0, axis), n = (size_t)x->dims[axis];
    const size_t inner = dims_product(x->dims, axis + 1, x->rank);
    for (size_t o = 0; o < outer * inner; o++) {
        const size_t at = o / inner * n * inner + o % inner;
        lp_norm_line((const float *)x->data + at, (const float *)a->dout[0].data + at, n, inner,
                     node_int(a->n, "p", 2) == 2, (float *)a->din[0].data + at);
    }
    return RUNG_OK;
}
