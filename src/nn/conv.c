#include <math.h>
#include <string.h>

#include "base/threads.h"
#include "nn/lib.h"
#include "nn/rows.h"
#include "nn/vec.h"
#include "ops/window.h"

#define DEPTHWISE_LIMIT (1 << 28) /* of every size: sums of two stay in int */

/* oneDNN's parameters of a convolution: its dilation 0 is ONNX's 1. */
typedef struct conv_params {
    int            n;
    int64_t        groups;
    dnnl_dims_t    strides, dilations, begin, end;
    dnnl_memory_desc_t x, w, w_any, bias, y;
} conv_params;

static void set_window(conv_params *p, const window *w)
{
    p->n = w->n;
    for (int i = 0; i < w->n; i++) {
        p->strides[i] = w->strides[i];
        p->dilations[i] = w->dilations[i] - 1;
        p->begin[i] = w->begin[i];
        p->end[i] = w->end[i];
    }
}

static rung_status check_groups(const lowering *l, int64_t *groups, rung_error *err)
{
    const operand *w = &l->in[1];
    const int64_t g = node_int(l->n, "group", 1);
    if (w->rank != l->in[0].rank || g < 1 || l->in[0].dims[1] % g != 0 ||
        l->out[0].dims[1] % g != 0)
        return fail(err, RUNG_EUNSUPPORTED, "group = %lld does not fit the shapes", (long long)g);
    if (has_input(l, 2) && operand_count(&l->in[2]) != (size_t)l->out[0].dims[1])
        return fail(err, RUNG_EUNSUPPORTED, "the bias does not fit the output");
    *groups = g;
    return RUNG_OK;
}

/* The weight as oneDNN counts it, [groups][out / groups][in / groups][kernel...], from ONNX's
 * [out][in / groups][kernel...], or, transposed, [in][out / groups][kernel...]. */
static rung_status describe_weights(const lowering *l, conv_params *p, bool transposed,
                                    rung_error *err)
{
    const operand *w = &l->in[1];
    int64_t own[RUNG_MAX_RANK];
    dnnl_dims_t dims, strides;
    operand_strides(w, own);
    const int grouped = p->groups > 1, o = transposed ? 1 : 0, i = 1 - o;
    dims[0] = p->groups;
    dims[grouped] = transposed ? w->dims[1] : w->dims[0] / p->groups;
    dims[grouped + 1] = transposed ? w->dims[0] / p->groups : w->dims[1];
    strides[0] = own[0] * (w->dims[0] / p->groups);
    strides[grouped] = own[o];
    strides[grouped + 1] = own[i];
    for (int k = 0; k < p->n; k++) {
        dims[grouped + 2 + k] = w->dims[2 + k];
        strides[grouped + 2 + k] = own[2 + k];
    }
    const int rank = grouped + 2 + p->n;
    if (dnnl_memory_desc_init_by_tag(&p->w_any, rank, dims, dnnl_f32, dnnl_format_tag_any) !=
        dnnl_success)
        return fail(err, RUNG_EUNSUPPORTED, "oneDNN does not take a weight of rank %d", rank);
    const rung_status st = lib_describe(&p->w, rank, dims, strides, err);
    if (!w->constant) /* arrives at run time, as it is */
        p->w_any = p->w;
    return st;
}

static rung_status describe(const lowering *l, conv_params *p, bool transposed, rung_error *err)
{
    const int64_t one = 1;
    rung_status st = check_groups(l, &p->groups, err);
    if (st == RUNG_OK)
        st = describe_weights(l, p, transposed, err);
    if (st == RUNG_OK)
        st = lib_describe_operand(&p->x, &l->in[0], err);
    if (st == RUNG_OK)
        st = lib_describe_operand(&p->y, &l->out[0], err);
    p->bias = (dnnl_memory_desc_t){0}; /* no bias */
    if (st == RUNG_OK && has_input(l, 2))
        st = lib_describe(&p->bias, 1, &l->out[0].dims[1], &one, err);
    return st;
}

static rung_status bind(lib *c, const lowering *l, const conv_params *p, rung_error *err)
{
    const dnnl_memory_desc_t *wanted =
        dnnl_primitive_desc_query_md(c->desc, dnnl_query_weights_md, 0);
    rung_status st = lib_bind(c, DNNL_ARG_SRC, &p->x, 0, err);
    if (st != RUNG_OK)
        return st;
    if (l->in[1].constant)
        st = lib_pack(c, l, DNNL_ARG_WEIGHTS, &p->w, l->in[1].constant->data, wanted, err);
    else
        st = lib_bind(c, DNNL_ARG_WEIGHTS, wanted, 1, err);
    if (st != RUNG_OK || !has_input(l, 2))
        return st;
    if (l->in[2].constant)
        return lib_pack(c, l, DNNL_ARG_BIAS, &p->bias, l->in[2].constant->data, &p->bias, err);
    return lib_bind(c, DNNL_ARG_BIAS, &p->bias, 2, err);
}

/* Multiply-accumulates: each of these positions (Conv: the output's, transposed: the input's) meets
 * the whole kernel; the weight's size counts each group once. */
static int64_t count_macs(const lowering *l, const operand *positions)
{
    const int64_t pixels = (int64_t)operand_count(positions) / positions->dims[1];
    return pixels * (int64_t)operand_count(&l->in[1]);
}

static rung_status open_conv(const lowering *l, lib **c, rung_error *err)
{
    if (l->in[0].rank < 3 || l->in[0].rank > 5 || !has_input(l, 1))
        return fail(err, RUNG_EUNSUPPORTED, "no fast row for an input of rank %d", l->in[0].rank);
    if (l->in[0].constant)
        return fail(err, RUNG_EUNSUPPORTED, "no fast row for a constant input");
    return lib_open(l, c, err);
}

rung_status conv_row(const lowering *l, step *s, rung_error *err)
{
    lib *c;
    window w;
    conv_params p;
    dnnl_convolution_desc_t desc;
    rung_status st = depthwise_row(l, s, err);
    if (st != RUNG_EUNSUPPORTED)
        return st;
    if ((st = open_conv(l, &c, err)) != RUNG_OK ||
        (st = window_conv(l->n, l->in[0].rank, l->in[0].dims, l->in[1].dims, &w, err)) != RUNG_OK)
        return st;
    set_window(&p, &w);
    if ((st = describe(l, &p, false, err)) != RUNG_OK)
        return st;
    const dnnl_status_t done = dnnl_dilated_convolution_forward_desc_init(
        &desc, dnnl_forward_inference, dnnl_convolution_direct, &p.x, &p.w_any,
        has_input(l, 2) ? &p.bias : NULL, &p.y, p.strides, p.dilations, p.begin, p.end);
    if (done != dnnl_success)
        return lib_fail(err, done, "convolution");
    if ((st = lib_create(c, l, &desc, &p.y, err)) != RUNG_OK ||
        (st = bind(c, l, &p, err)) != RUNG_OK)
        return st;
    return lib_finish(c, l, &p.y, "conv_f32 onednn", count_macs(l, &l->out[0]), s, err);
}

rung_status conv_transpose_row(const lowering *l, step *s, rung_error *err)
{
    lib *c;
    window w;
    conv_params p;
    dnnl_deconvolution_desc_t desc;
    rung_status st = open_conv(l, &c, err);
    if (st != RUNG_OK)
        return st;
    st = window_conv_transpose(l->n, l->in[0].rank, l->in[0].dims, l->in[1].dims, &w, err);
    if (st != RUNG_OK)
        return st;
    set_window(&p, &w);
    for (int i = 0; i < p.n; i++) { /* output_padding is negative padding at the end */
        const int64_t reach = (l->in[0].dims[2 + i] - 1) * w.strides[i] +
                              (w.kernel[i] - 1) * w.dilations[i] + 1;
        p.end[i] = reach - w.begin[i] - w.out[i];
    }
    if ((st = describe(l, &p, true, err)) != RUNG_OK)
        return st;
    const dnnl_status_t done = dnnl_dilated_deconvolution_forward_desc_init(
        &desc, dnnl_forward_inference, dnnl_deconvolution_direct, &p.x, &p.w_any,
        has_input(l, 2) ? &p.bias : NULL, &p.y, p.strides, p.dilations, p.begin, p.end);
    if (done != dnnl_success)
        return lib_fail(err, done, "transposed convolution");
    if ((st = lib_create(c, l, &desc, &p.y, err)) != RUNG_OK ||
        (st = bind(c, l, &p, err)) != RUNG_OK)
        return st;
    return lib_finish(c, l, &p.y, "conv_transpose_f32 onednn",
                      count_macs(l, &l->in[0]), s, err);
}

/* --- depthwise -------------------------------------------------------------------------------- */
typedef struct depthwise {
    vec_window     w;
    const vec_ops *ops;
    int            add, out; /* buffers; add = -1: none */
} depthwise;

static void depthwise_run(const step *s, void *const *bufs, void *scratch, int thread,
                          int n_threads)
{
    const depthwise *d = s->params;
    size_t first, last;
    share((size_t)d->w.batch * d->w.out_h, 1, thread, n_threads, &first, &last);
    d->ops->depthwise(&d->w, bufs[0], d->add >= 0 ? bufs[d->add] : NULL, bufs[d->out], first, last);
}

/* One input channel for each output channel, constant weights, at most two spatial axes. */
static bool depthwise_fits(const lowering *l)
{
    const operand *x = &l->in[0];
    if ((x->rank != 3 && x->rank != 4) || !has_input(l, 1) || !l->in[1].constant || x->constant ||
        l->in[1].rank != x->rank)
        return false;
    if (has_input(l, 2) &&
        (!l->in[2].constant || operand_count(&l->in[2]) != (size_t)x->dims[1]))
        return false;
    const bool last = operand_channels_last(x) && operand_channels_last(&l->out[0]);
    const int64_t c = x->dims[1];
    if (!last || node_int(l->n, "group", 1) != c || l->in[1].dims[0] != c || l->in[1].dims[1] != 1)
        return false;
    for (int i = 0; i < x->rank; i++) {
        if (x->dims[i] >= DEPTHWISE_LIMIT || l->out[0].dims[i] >= DEPTHWISE_LIMIT)
            return false;
    }
    return true;
}

static bool set_depthwise_window(const lowering *l, const window *w, vec_window *v)
{
    const int x = w->n - 1; /* the horizontal axis; a single one is horizontal */
    for (int i = 0; i < w->n; i++) {
        if (w->kernel[i] >= DEPTHWISE_LIMIT || w->strides[i] >= DEPTHWISE_LIMIT ||
            w->begin[i] >= DEPTHWISE_LIMIT ||
            (w->kernel[i] - 1) * w->dilations[i] >= DEPTHWISE_LIMIT)
            return false;
    }
    *v = (vec_window){
        .batch = (int)l->in[0].dims[0], .channels = (int)l->in[0].dims[1],
        .in_h = w->n == 2 ? (int)l->in[0].dims[2] : 1, .in_w = (int)l->in[0].dims[2 + x],
        .out_h = w->n == 2 ? (int)w->out[0] : 1, .out_w = (int)w->out[x],
        .kernel_h = w->n == 2 ? (int)w->kernel[0] : 1, .kernel_w = (int)w->kernel[x],
        .stride_h = w->n == 2 ? (int)w->strides[0] : 1, .stride_w = (int)w->strides[x],
        .dilation_h = w->n == 2 ? (int)w->dilations[0] : 1, .dilation_w = (int)w->dilations[x],
        .pad_top = w->n == 2 ? (int)w->begin[0] : 0, .pad_left = (int)w->begin[x],
        .lo = l->epi.clamp ? l->epi.lo : -INFINITY, .hi = l->epi.clamp ? l->epi.hi : INFINITY};
    return true;
}

/* [channels][taps] to [taps][channels]; the bias behind it. */
static rung_status pack_depthwise(const lowering *l, vec_window *v, rung_error *err)
{
    const size_t channels = (size_t)v->channels, taps = (size_t)v->kernel_h * v->kernel_w;
    float *w = arena_zero(l->mem, (taps + 1) * channels, sizeof *w);
    if (!w)
        return fail_memory(err, "depthwise weights", (taps + 1) * channels * sizeof *w);
    const float *from = l->in[1].constant->data;
    for (size_t c = 0; c < channels; c++) {
        for (size_t t = 0; t < taps; t++)
            w[t * channels + c] = from[c * taps + t];
    }
    if (has_input(l, 2))
        memcpy(w + taps * channels, l->in[2].constant->data, channels * sizeof *w);
    v->w = w;
    v->bias = w + taps * channels;
    return RUNG_OK;
}

rung_status depthwise_row(const lowering *l, step *s, rung_error *err)
{
    window w;
    if (!depthwise_fits(l))
        return fail(err, RUNG_EUNSUPPORTED, "not a depthwise convolution");
    rung_status st = window_conv(l->n, l->in[0].rank, l->in[0].dims, l->in[1].dims, &w, err);
    if (st != RUNG_OK)
        return st;
    depthwise *d = arena_zero(l->mem, 1, sizeof *d);
    if (!d)
        return fail_memory(err, "a step", sizeof *d);
    if (!set_depthwise_window(l, &w, &d->w))
        return fail(err, RUNG_EUNSUPPORTED, "the window is too large");
    if ((st = pack_depthwise(l, &d->w, err)) != RUNG_OK)
        return st;
    d->ops = vec_pick();
    d->add = l->epi.add;
    d->out = l->n_in;
    s->kernel = "conv_depthwise_f32 vec";
    s->run = depthwise_run;
    s->params = d;
    s->macs = (int64_t)operand_count(&l->out[0]) * d->w.kernel_h * d->w.kernel_w;
    return RUNG_OK;
}
