/* Conv with weights that change: forward, and the three gradients. oneDNN in the layout of the
 * activations (channels-last is the fast one); the weight is reordered in each run into the format
 * that the primitive likes, its gradient back into ONNX's order. */
#include <string.h>

#include "nn/backward_rows.h"
#include "nn/chain.h"
#include "nn/conv.h"

static rung_status check_operands(const lowering *l, rung_error *err)
{
    if (l->in[0].rank < 3 || l->in[0].rank > 5 || !has_input(l, 1))
        return fail(err, RUNG_EUNSUPPORTED, "no fast row for an input of rank %d", l->in[0].rank);
    if (l->in[0].constant || operand_channels_last(&l->in[1]))
        return fail(err, RUNG_EUNSUPPORTED, "a constant input, or a weight in another order");
    return RUNG_OK;
}

/* oneDNN's kernels for few input channels write blocks of 16 channels, which for 16 channels is
 * the same memory as channels-last; its others need twice the time. */
static bool first_layer(const lowering *l, conv_params *p)
{
    const operand *x = &l->in[0], *y = &l->out[0];
    const bool planes = !operand_channels_last(x) || x->dims[1] == 1;
    if (x->rank != 4 || !planes || x->dims[1] > 3 || y->dims[1] != 16 ||
        !operand_channels_last(y) || p->groups != 1)
        return false;
    dnnl_dims_t in = {0}, out = {0};
    memcpy(in, x->dims, 4 * sizeof *in);
    memcpy(out, y->dims, 4 * sizeof *out);
    if (dnnl_memory_desc_init_by_tag(&p->x, 4, in, dnnl_f32, dnnl_nchw) != dnnl_success)
        return false;
    p->x_like = p->x;
    return dnnl_memory_desc_init_by_tag(&p->y, 4, out, dnnl_f32, dnnl_nChw16c) == dnnl_success;
}

static rung_status read_conv(const lowering *l, conv_params *p, rung_error *err)
{
    window w;
    rung_status st = check_operands(l, err);
    if (st != RUNG_OK ||
        (st = window_conv(l->n, l->in[0].rank, l->in[0].dims, l->in[1].dims, &w, err)) != RUNG_OK)
        return st;
    conv_set_window(p, &w);
    return conv_describe(l, p, false, err);
}

/* A chain that fill fills for one kind of formats. */
typedef rung_status (*fill_chain)(const lowering *l, unsigned wanted, const conv_params *p,
                                  chain *c, rung_error *err);

static rung_status build(const lowering *l, unsigned wanted, fill_chain fill, chain **c,
                         rung_error *err)
{
    conv_params p, first;
    rung_status st = read_conv(l, &p, err);
    if (st != RUNG_OK || (st = chain_open(l, c, err)) != RUNG_OK)
        return st;
    first = p;
    if (first_layer(l, &first)) {
        st = fill(l, wanted, &first, *c, err);
        if (st != RUNG_EUNSUPPORTED || (st = chain_open(l, c, err)) != RUNG_OK)
            return st;
    }
    return fill(l, wanted, &p, *c, err);
}

/* The same operation forward: itself, or the hint that the backward primitives are chosen by. */
static dnnl_status_t describe_forward(const lowering *l, const conv_params *p,
                                      dnnl_convolution_desc_t *d)
{
    return dnnl_dilated_convolution_forward_desc_init(
        d, dnnl_forward_training, dnnl_convolution_direct, &p->x_like, &p->w_any,
        has_input(l, 2) ? &p->bias : NULL, &p->y, p->strides, p->dilations, p->begin, p->end);
}

/* --- forward ---------------------------------------------------------------------------------- */
static rung_status forward_chain(const lowering *l, unsigned wanted, const conv_params *p,
                                 chain *c, rung_error *err)
{
    dnnl_convolution_desc_t d;
    const dnnl_status_t done = describe_forward(l, p, &d);
    if (done != dnnl_success)
        return lib_fail(err, done, "convolution");
    rung_status st = chain_add(c, &d, NULL, 1.0f, err);
    if (st == RUNG_OK)
        st = chain_bind_input(c, DNNL_ARG_SRC, &p->x, chain_buf(0), dnnl_query_src_md, err);
    if (st == RUNG_OK && has_input(l, 2))
        st = chain_bind(c, DNNL_ARG_BIAS, &p->bias, chain_buf(2), err);
    if (st == RUNG_OK)
        st = chain_bind(c, DNNL_ARG_DST, &p->y, chain_buf(l->n_in), err);
    if (st == RUNG_OK)
        st = chain_bind_input(c, DNNL_ARG_WEIGHTS, &p->w, chain_buf(1), dnnl_query_weights_md, err);
    return st;
}

rung_status conv_training(const lowering *l, step *s, rung_error *err)
{
    chain *c;
    const rung_status st = build(l, 0, forward_chain, &c, err);
    if (st != RUNG_OK)
        return st;
    chain_finish(c, "conv_f32 onednn", conv_macs(l, &l->out[0]), s);
    return RUNG_OK;
}

/* --- backward --------------------------------------------------------------------------------- */
static rung_status add_data(const lowering *l, const conv_params *p, chain *c,
                            const_dnnl_primitive_desc_t forward, rung_error *err)
{
    dnnl_convolution_desc_t d;
    const dnnl_status_t done = dnnl_dilated_convolution_backward_data_desc_init(
        &d, dnnl_convolution_direct, &p->x_like, &p->w_any, &p->y, p->strides, p->dilations,
        p->begin, p->end);
    if (done != dnnl_success)
        return lib_fail(err, done, "gradient of a convolution");
    rung_status st = chain_add(c, &d, forward, 1.0f, err);
    if (st == RUNG_OK)
        st = chain_bind(c, DNNL_ARG_DIFF_DST, &p->y, chain_buf(at_dout(l, 0)), err);
    if (st == RUNG_OK)
        st = chain_bind_input(c, DNNL_ARG_WEIGHTS, &p->w, chain_buf(1), dnnl_query_weights_md, err);
    if (st == RUNG_OK)
        st = chain_bind_output(c, DNNL_ARG_DIFF_SRC, &p->x, chain_buf(at_din(l, 0)),
                               dnnl_query_diff_src_md, err);
    return st;
}

/* dW and, in the same walk, dbias; the one that is not wanted goes to scratch memory. */
static rung_status add_weights(const lowering *l, unsigned wanted, const conv_params *p, chain *c,
                               const_dnnl_primitive_desc_t forward, rung_error *err)
{
    dnnl_convolution_desc_t d;
    const bool bias = wants(wanted, 2);
    const dnnl_status_t done = dnnl_dilated_convolution_backward_weights_desc_init(
        &d, dnnl_convolution_direct, &p->x_like, &p->w_any, bias ? &p->bias : NULL, &p->y,
        p->strides, p->dilations, p->begin, p->end);
    if (done != dnnl_success)
        return lib_fail(err, done, "gradient of a convolution's weight");
    rung_status st = chain_add(c, &d, forward, 1.0f, err);
    if (st == RUNG_OK)
        st = chain_bind_input(c, DNNL_ARG_SRC, &p->x, chain_buf(0), dnnl_query_src_md, err);
    if (st == RUNG_OK)
        st = chain_bind(c, DNNL_ARG_DIFF_DST, &p->y, chain_buf(at_dout(l, 0)), err);
    if (st == RUNG_OK && bias)
        st = chain_bind(c, DNNL_ARG_DIFF_BIAS, &p->bias, chain_buf(at_din(l, 2)), err);
    if (st != RUNG_OK)
        return st;
    const chain_place dw = wants(wanted, 1) ? chain_buf(at_din(l, 1)) : chain_temporary(c, &p->w);
    return chain_bind_output(c, DNNL_ARG_DIFF_WEIGHTS, &p->w, dw, dnnl_query_diff_weights_md, err);
}

static rung_status backward_chain(const lowering *l, unsigned wanted, const conv_params *p,
                                  chain *c, rung_error *err)
{
    dnnl_convolution_desc_t d;
    dnnl_primitive_desc_t forward;
    dnnl_status_t done = describe_forward(l, p, &d);
    if (done == dnnl_success)
        done = dnnl_primitive_desc_create(&forward, &d, NULL, c->engine, NULL);
    if (done != dnnl_success)
        return lib_fail(err, done, "convolution");
    rung_status st = RUNG_OK;
    if (wants(wanted, 0))
        st = add_data(l, p, c, forward, err);
    if (st == RUNG_OK && (wanted & 6) != 0)
        st = add_weights(l, wanted, p, c, forward, err);
    dnnl_primitive_desc_destroy(forward);
    return st;
}

rung_status conv_backward(const lowering *l, unsigned wanted, step *s, rung_error *err)
{
    chain *c;
    const rung_status st = build(l, wanted, backward_chain, &c, err);
    if (st != RUNG_OK)
        return st;
    const int products = wants(wanted, 0) + ((wanted & 6) != 0);
    chain_finish(c, "conv_backward_f32 onednn", products * conv_macs(l, &l->out[0]), s);
    return RUNG_OK;
}
