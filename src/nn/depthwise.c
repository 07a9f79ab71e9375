#include "nn/depthwise.h"

#include <string.h>

#include "base/threads.h"
#include "nn/backward_rows.h"
#include "nn/vec.h"
#include "nn/vec_train.h"
#include "ops/window.h"

/* A single spatial axis is horizontal. */
typedef struct depthwise {
    const vec_train *ops;
    const vec_ops   *plain;
    size_t           batch, channels;
    int64_t          in[2], out[2], kernel[2], stride[2], dilation[2], begin[2];
    vec_taps        forward[2], backward[2]; /* taps of the output's lines, of the input's */
    int              x, w, bias, y, dy, dx, dw, db; /* buffers; -1: not there, not wanted */
} depthwise;

bool depthwise_takes(const lowering *l)
{
    const operand *x = &l->in[0], *y = &l->out[0];
    if (x->rank < 3 || x->rank > 4 || !has_input(l, 1) || l->in[1].rank != x->rank ||
        l->in[1].dims[1] != 1 || l->in[1].dims[0] != x->dims[1] || x->dims[1] < 2 ||
        node_int(l->n, "group", 1) != x->dims[1] || y->dims[1] != x->dims[1])
        return false;
    const bool bias = !has_input(l, 2) || stored_count(&l->in[2]) == (size_t)x->dims[1];
    return operand_channels_last(x) && operand_channels_last(y) &&
           !operand_channels_last(&l->in[1]) && bias;
}

/* --- taps ------------------------------------------------------------------------------------- */
/* Output position o meets input position i with weight k where i = o * stride + k * dilation -
 * begin: the taps of o, or, turned, those of i. */
static int64_t partner(const depthwise *d, int axis, bool turned, int64_t at, int64_t k)
{
    const int64_t shift = k * d->dilation[axis] - d->begin[axis];
    if (!turned)
        return at * d->stride[axis] + shift;
    const int64_t o = at - shift;
    return o >= 0 && o % d->stride[axis] == 0 ? o / d->stride[axis] : -1;
}

static rung_status make_taps(const depthwise *d, int axis, bool turned, arena *mem, vec_taps *out,
                             rung_error *err)
{
    const int64_t lines = turned ? d->in[axis] : d->out[axis];
    const int64_t limit = turned ? d->out[axis] : d->in[axis], kernel = d->kernel[axis];
    if (lines > INT32_MAX / kernel) /* both are below 2^30 */
        return fail(err, RUNG_EUNSUPPORTED, "a line of %lld pixels", (long long)lines);
    int32_t *first = arena_zero(mem, (size_t)lines + 1, sizeof *first), n = 0;
    vec_tap *taps = arena_zero(mem, (size_t)(lines * kernel), sizeof *taps);
    if (!first || !taps)
        return fail_memory(err, "taps of a convolution", (size_t)(lines * kernel) * sizeof *taps);
    for (int64_t at = 0; at < lines; at++) {
        for (int64_t k = 0; k < kernel; k++) {
            const int64_t p = partner(d, axis, turned, at, k);
            if (p >= 0 && p < limit)
                taps[n++] = (vec_tap){(int32_t)k, (int32_t)p};
        }
        first[at + 1] = n;
    }
    *out = (vec_taps){first, taps};
    return RUNG_OK;
}

/* --- running ---------------------------------------------------------------------------------- */
static size_t taps_of(const depthwise *d)
{
    return (size_t)(d->kernel[0] * d->kernel[1]);
}

/* ONNX's [channels][taps] to [taps][channels], or back. */
static void pack_weights(const depthwise *d, const float *w, float *packed)
{
    const size_t taps = taps_of(d);
    for (size_t c = 0; c < d->channels; c++) {
        for (size_t k = 0; k < taps; k++)
            packed[k * d->channels + c] = w[c * taps + k];
    }
}

/* This thread's lines of the result: the output from the input, or, turned, dx from dy. */
static void run_lines(const depthwise *d, bool turned, const float *from, const float *packed,
                      const float *bias, float *to, const float **lines, int thread,
                      int n_threads)
{
    const int64_t *from_dims = turned ? d->out : d->in, *to_dims = turned ? d->in : d->out;
    const vec_taps *taps = turned ? d->backward : d->forward;
    const size_t height = (size_t)to_dims[0], line = (size_t)from_dims[1] * d->channels;
    const float **weights = lines + d->kernel[0];
    size_t at, last;
    share(d->batch * height, 1, thread, n_threads, &at, &last);
    for (; at < last; at++) {
        const float *image = from + at / height * (size_t)from_dims[0] * line;
        const int32_t *first = &taps[0].first[at % height];
        const size_t n = (size_t)(first[1] - first[0]);
        for (size_t i = 0; i < n; i++) {
            const vec_tap t = taps[0].taps[(size_t)first[0] + i];
            lines[i] = image + (size_t)t.pixel * line;
            weights[i] = packed + (size_t)(t.weight * d->kernel[1]) * d->channels;
        }
        d->ops->depthwise(lines, weights, n, &taps[1], (size_t)to_dims[1], d->channels, bias,
                          to + at * (size_t)to_dims[1] * d->channels);
    }
}

/* Scratch memory: two rows of pointers, then a weight as it is packed. */
static float *scratch_weights(const depthwise *d, void *scratch)
{
    return (float *)((const float **)scratch + 2 * d->kernel[0]);
}

static size_t scratch_size(const depthwise *d)
{
    return 2 * (size_t)d->kernel[0] * sizeof(float *) + taps_of(d) * d->channels * sizeof(float);
}

static void run_forward(const step *s, void *const *bufs, void *scratch, int thread, int n_threads)
{
    const depthwise *d = s->params;
    float *packed = scratch_weights(d, scratch);
    pack_weights(d, bufs[d->w], packed);
    run_lines(d, false, bufs[d->x], packed, d->bias >= 0 ? bufs[d->bias] : NULL, bufs[d->y],
              scratch, thread, n_threads);
}

/* The output positions [from, to) along the horizontal axis whose tap k lies inside the input. */
static void span_of(const depthwise *d, int64_t k, int64_t *from, int64_t *to)
{
    const int64_t by = d->stride[1], shift = k * d->dilation[1] - d->begin[1];
    const int64_t room = d->in[1] - shift;
    *from = shift < 0 ? (-shift + by - 1) / by : 0;
    *to = room <= 0 ? 0 : (room - 1) / by + 1;
    *to = *to < d->out[1] ? *to : d->out[1];
}

/* One line of dy with one line of x: channels [c, c + n) of the row of weights. */
static void weight_line(const depthwise *d, const float *x, const float *dy, size_t c, size_t n,
                        float *dw)
{
    const size_t x_step = (size_t)d->stride[1] * d->channels;
    for (int64_t k = 0; k < d->kernel[1]; k++) {
        int64_t from, to;
        span_of(d, k, &from, &to);
        if (from >= to)
            continue;
        const int64_t at = from * d->stride[1] + k * d->dilation[1] - d->begin[1];
        d->ops->depthwise_weight(x + (size_t)at * d->channels + c, x_step,
                                 dy + (size_t)from * d->channels + c, d->channels,
                                 (size_t)(to - from), n, dw + (size_t)k * d->channels + c);
    }
}

/* Channels [c, c + n) of dW. */
static void run_weight(const depthwise *d, const float *x, const float *dy, size_t c, size_t n,
                       float *sums, float *dw)
{
    const size_t height = (size_t)d->out[0], in_line = (size_t)d->in[1] * d->channels;
    const size_t out_line = (size_t)d->out[1] * d->channels, taps = taps_of(d);
    memset(sums, 0, taps * d->channels * sizeof *sums);
    for (size_t at = 0; at < d->batch * height; at++) {
        const float *image = x + at / height * (size_t)d->in[0] * in_line;
        const int32_t *first = &d->forward[0].first[at % height];
        for (int32_t i = first[0]; i < first[1]; i++) {
            const vec_tap t = d->forward[0].taps[i];
            weight_line(d, image + (size_t)t.pixel * in_line, dy + at * out_line, c, n,
                        sums + (size_t)(t.weight * d->kernel[1]) * d->channels);
        }
    }
    for (size_t i = c; i < c + n; i++) {
        for (size_t k = 0; k < taps; k++)
            dw[i * taps + k] = sums[k * d->channels + i];
    }
}

static void run_backward(const step *s, void *const *bufs, void *scratch, int thread,
                         int n_threads)
{
    const depthwise *d = s->params;
    float *packed = scratch_weights(d, scratch);
    const float *dy = bufs[d->dy];
    size_t first, last;
    share(d->channels, 16, thread, n_threads, &first, &last);
    if (d->dx >= 0) {
        pack_weights(d, bufs[d->w], packed);
        run_lines(d, true, dy, packed, NULL, bufs[d->dx], scratch, thread, n_threads);
    }
    if (d->dw >= 0 && first < last)
        run_weight(d, bufs[d->x], dy, first, last - first, packed, bufs[d->dw]);
    if (d->db >= 0 && first < last) {
        const size_t line = (size_t)d->out[1] * d->channels;
        d->plain->window_mean(dy + first, d->batch * (size_t)d->out[0], line, (size_t)d->out[1],
                              d->channels, last - first, 1.0f, (float *)bufs[d->db] + first);
    }
}

/* --- lowering --------------------------------------------------------------------------------- */
static void set_axis(depthwise *d, int to, const window *w, int from, int64_t in)
{
    d->in[to] = in;
    d->out[to] = w->out[from];
    d->kernel[to] = w->kernel[from];
    d->stride[to] = w->strides[from];
    d->dilation[to] = w->dilations[from];
    d->begin[to] = w->begin[from];
}

static rung_status open_depthwise(const lowering *l, depthwise **out, rung_error *err)
{
    window w;
    const operand *x = &l->in[0];
    depthwise *d = arena_zero(l->mem, 1, sizeof *d);
    if (!d)
        return fail_memory(err, "a step", sizeof *d);
    const rung_status st = window_conv(l->n, x->rank, x->dims, l->in[1].dims, &w, err);
    if (st != RUNG_OK)
        return st;
    d->in[0] = d->out[0] = d->kernel[0] = d->stride[0] = d->dilation[0] = 1;
    for (int i = 0; i < w.n; i++)
        set_axis(d, 2 - w.n + i, &w, i, x->dims[2 + i]);
    d->ops = vec_train_pick();
    d->plain = vec_pick();
    d->batch = (size_t)x->dims[0];
    d->channels = (size_t)x->dims[1];
    d->x = 0;
    d->w = 1;
    d->bias = has_input(l, 2) ? 2 : -1;
    d->y = at_out(l, 0);
    *out = d;
    return RUNG_OK;
}

static rung_status both_axes(depthwise *d, bool turned, arena *mem, rung_error *err)
{
    vec_taps *taps = turned ? d->backward : d->forward;
    const rung_status st = make_taps(d, 0, turned, mem, &taps[0], err);
    return st == RUNG_OK ? make_taps(d, 1, turned, mem, &taps[1], err) : st;
}

static void finish(const lowering *l, const depthwise *d, int products, step *s)
{
    s->params = d;
    s->scratch_bytes = scratch_size(d);
    s->macs = products * (int64_t)(stored_count(&l->out[0]) * taps_of(d));
}

rung_status depthwise_training(const lowering *l, step *s, rung_error *err)
{
    depthwise *d;
    rung_status st = open_depthwise(l, &d, err);
    if (st != RUNG_OK || (st = both_axes(d, false, l->mem, err)) != RUNG_OK)
        return st;
    s->kernel = "conv_f32 depthwise";
    s->run = run_forward;
    finish(l, d, 1, s);
    return RUNG_OK;
}

rung_status depthwise_backward(const lowering *l, unsigned wanted, step *s, rung_error *err)
{
    depthwise *d;
    rung_status st = open_depthwise(l, &d, err);
    if (st != RUNG_OK || (st = both_axes(d, false, l->mem, err)) != RUNG_OK ||
        (st = both_axes(d, true, l->mem, err)) != RUNG_OK)
        return st;
    d->dy = at_dout(l, 0);
    d->dx = wants(wanted, 0) ? at_din(l, 0) : -1;
    d->dw = wants(wanted, 1) ? at_din(l, 1) : -1;
    d->db = wants(wanted, 2) ? at_din(l, 2) : -1;
    s->kernel = "conv_backward_f32 depthwise";
    s->run = run_backward;
    finish(l, d, wants(wanted, 0) + wants(wanted, 1), s);
    return RUNG_OK;
}
