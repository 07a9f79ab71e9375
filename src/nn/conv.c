#include "nn/conv.h"
#include "nn/rows.h"

void conv_set_window(conv_params *p, const window *w)
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
    if (has_input(l, 2) && stored_count(&l->in[2]) != (size_t)l->out[0].dims[1])
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
    stored_strides(w, own);
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
    return lib_describe(&p->w, rank, dims, strides, err);
}

rung_status conv_describe(const lowering *l, conv_params *p, bool transposed, rung_error *err)
{
    const int64_t one = 1;
    rung_status st = check_groups(l, &p->groups, err);
    if (st == RUNG_OK)
        st = describe_weights(l, p, transposed, err);
    if (st == RUNG_OK)
        st = lib_describe_operand(&p->x, &l->in[0], err);
    if (st == RUNG_OK)
        st = lib_describe_operand(&p->y, &l->out[0], err);
    if (st == RUNG_OK) {
        operand like = l->in[0];
        like.channels_last = operand_channels_last(&l->out[0]);
        st = lib_describe_operand(&p->x_like, &like, err);
    }
    p->bias = (dnnl_memory_desc_t){0}; /* no bias */
    if (st == RUNG_OK && has_input(l, 2))
        st = lib_describe(&p->bias, 1, &l->out[0].dims[1], &one, err);
    return st;
}

/* A weight that arrives at run time is taken as it is. */
static rung_status describe(const lowering *l, conv_params *p, bool transposed, rung_error *err)
{
    const rung_status st = conv_describe(l, p, transposed, err);
    if (st == RUNG_OK && !l->in[1].constant)
        p->w_any = p->w;
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

/* Each position meets the whole kernel; the weight's size counts each group once. */
int64_t conv_macs(const lowering *l, const operand *positions)
{
    const int64_t pixels = (int64_t)stored_count(positions) / positions->dims[1];
    return pixels * (int64_t)stored_count(&l->in[1]);
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
    rung_status st = open_conv(l, &c, err);
    if (st != RUNG_OK ||
        (st = window_conv(l->n, l->in[0].rank, l->in[0].dims, l->in[1].dims, &w, err)) != RUNG_OK)
        return st;
    conv_set_window(&p, &w);
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
    return lib_finish(c, l, &p.y, "conv_f32 onednn", conv_macs(l, &l->out[0]), s, err);
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
    conv_set_window(&p, &w);
    c->slow_epilogue = true; /* oneDNN 2.6 applies it element by element here: ten times the time */
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
                      conv_macs(l, &l->in[0]), s, err);
}
