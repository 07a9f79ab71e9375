/* Layers as matrices: what an output position reads, and what it gives. */
#include <math.h>
#include <string.h>

#include "base/rng.h"
#include "graph/pass.h"
#include "quant/method.h"

/* --- recognition ------------------------------------------------------------------------------ */

static void two(const node *n, const char *name, int64_t to[2], int at)
{
    const int64_t *v;
    if (node_ints(n, name, &v) >= (size_t)at + 2)
        memcpy(to, v + at, 2 * sizeof *to);
}

static bool conv_geometry(const node *n, const tensor *w, layer *l)
{
    const char *pad = node_string(n, "auto_pad", "NOTSET");
    const int64_t group = node_int(n, "group", 1);
    if (w->rank != 4 || group < 1 || w->dims[0] % group)
        return false;
    l->conv = true;
    l->same = strcmp(pad, "SAME_UPPER") == 0 ? 1 : strcmp(pad, "SAME_LOWER") == 0 ? -1 : 0;
    l->groups = (size_t)group;
    l->in = (size_t)(w->dims[1] * w->dims[2] * w->dims[3]);
    l->out = (size_t)(w->dims[0] / group);
    for (int i = 0; i < 2; i++) {
        l->kernel[i] = w->dims[2 + i];
        l->stride[i] = l->dilation[i] = 1;
    }
    two(n, "strides", l->stride, 0);
    two(n, "dilations", l->dilation, 0);
    two(n, "pads", l->pad, 0);
    two(n, "pads", l->pad_end, 2);
    return true;
}

static bool matrix_geometry(const node *n, const tensor *w, layer *l)
{
    if (w->rank != 2 || node_int(n, "transA", 0))
        return false;
    l->transposed = node_is(n, "MatMul") || !node_int(n, "transB", 0);
    l->groups = 1;
    l->in = (size_t)w->dims[l->transposed ? 0 : 1];
    l->out = (size_t)w->dims[l->transposed ? 1 : 0];
    return true;
}

/* The bounds of a Relu or Clip that is all that reads y. */
static void bounds_behind(const graph *g, const uses *u, int y, layer *l)
{
    l->lo = -INFINITY;
    l->hi = INFINITY;
    if (u->first[y + 1] - u->first[y] != 1 || g->values[y].is_output)
        return;
    const node *n = &g->nodes[u->list[u->first[y]]];
    if (node_is(n, "Relu")) {
        l->lo = 0;
    } else if (node_is(n, "Clip")) {
        const tensor *lo = node_constant(g, n, 1), *hi = node_constant(g, n, 2);
        l->lo = lo && tensor_count(lo) == 1 ? (float)tensor_get(lo, 0) : -INFINITY;
        l->hi = hi && tensor_count(hi) == 1 ? (float)tensor_get(hi, 0) : INFINITY;
    }
}

bool layer_of(const graph *g, const value_info *info, const uses *u, size_t node_index, layer *out)
{
    const node *n = &g->nodes[node_index];
    const int weight = weight_of(g, n);
    *out = (layer){ .node = node_index, .weight = weight, .bias = bias_of(g, n) };
    if (n->dead || weight < 0 || n->n_outputs != 1 || n->outputs[0] < 0)
        return false;
    out->x = n->inputs[0];
    out->y = n->outputs[0];
    const tensor *w = g->values[weight].constant;
    const bool fits = node_is(n, "Conv") ? conv_geometry(n, w, out)
                      : (node_is(n, "Gemm") || (node_is(n, "MatMul") && n->inputs[1] == weight)) &&
                            matrix_geometry(n, w, out);
    const int rank = info[out->x].rank;
    if (!fits || g->values[out->x].constant || (out->conv ? rank != 4 : rank < 2) ||
        tensor_count(w) == 0)
        return false;
    bounds_behind(g, u, out->y, out);
    return true;
}

/* --- weights ---------------------------------------------------------------------------------- */

void layer_weight(const layer *l, const float *w, float *to)
{
    const size_t rows = l->groups * l->out;
    for (size_t o = 0; o < rows; o++)
        for (size_t i = 0; i < l->in; i++)
            to[o * l->in + i] = l->transposed ? w[i * rows + o] : w[o * l->in + i];
}

void layer_codes(const layer *l, const int8_t *from, int8_t *to)
{
    const size_t rows = l->groups * l->out;
    for (size_t o = 0; o < rows; o++)
        for (size_t i = 0; i < l->in; i++)
            to[l->transposed ? i * rows + o : o * l->in + i] = from[o * l->in + i];
}

/* --- rows ------------------------------------------------------------------------------------- */

void draw_positions(uint64_t seed, size_t n, size_t of, size_t *at)
{
    rng r;
    rng_seed(&r, seed);
    for (size_t i = 0; i < n; i++) /* one of each stratum: ascending, none twice */
        at[i] = (size_t)(((double)i + rng_uniform(&r) * 0.999) * (double)of / (double)n);
}

/* Output height or width, and the padding before. */
static int64_t output_size(const layer *l, int axis, int64_t size, int64_t *pad)
{
    const int64_t reach = (l->kernel[axis] - 1) * l->dilation[axis] + 1, s = l->stride[axis];
    *pad = l->pad[axis];
    if (!l->same)
        return (size + l->pad[axis] + l->pad_end[axis] - reach) / s + 1;
    const int64_t out = (size + s - 1) / s, all = (out - 1) * s + reach - size;
    *pad = all > 0 ? (l->same > 0 ? all / 2 : all - all / 2) : 0;
    return out;
}

size_t layer_positions(const layer *l, const tensor *x)
{
    int64_t pad;
    if (l->conv)
        return (size_t)(output_size(l, 0, x->dims[2], &pad) * output_size(l, 1, x->dims[3], &pad));
    return dims_count(x->rank - 2, x->dims + 1);
}

/* One channel of one sample: what the kernel reads at an output position. */
static void read_window(const layer *l, const float *x, int64_t h, int64_t w, int64_t top,
                        int64_t left, float *to)
{
    for (int64_t i = 0; i < l->kernel[0]; i++) {
        const int64_t y = top + i * l->dilation[0];
        for (int64_t j = 0; j < l->kernel[1]; j++) {
            const int64_t at = left + j * l->dilation[1];
            *to++ = y >= 0 && y < h && at >= 0 && at < w ? x[y * w + at] : 0;
        }
    }
}

static void conv_inputs(const layer *l, const tensor *x, size_t n_samples, const size_t *at,
                        size_t n_at, float *to)
{
    const int64_t h = x->dims[2], w = x->dims[3], channels = x->dims[1];
    const size_t taps = (size_t)(l->kernel[0] * l->kernel[1]);
    int64_t pad[2];
    output_size(l, 0, h, &pad[0]);
    const int64_t out_w = output_size(l, 1, w, &pad[1]);
    for (size_t s = 0; s < n_samples; s++) {
        const float *image = (const float *)x->data + s * (size_t)(channels * h * w);
        for (size_t i = 0; i < n_at; i++) {
            const int64_t top = (int64_t)at[i] / out_w * l->stride[0] - pad[0];
            const int64_t left = (int64_t)at[i] % out_w * l->stride[1] - pad[1];
            for (int64_t c = 0; c < channels; c++, to += taps)
                read_window(l, image + c * h * w, h, w, top, left, to);
        }
    }
}

void layer_inputs(const layer *l, const tensor *x, size_t n_samples, const size_t *at, size_t n_at,
                  float *to)
{
    if (l->conv) {
        conv_inputs(l, x, n_samples, at, n_at, to);
        return;
    }
    const size_t positions = layer_positions(l, x);
    for (size_t s = 0; s < n_samples; s++)
        for (size_t i = 0; i < n_at; i++, to += l->in)
            memcpy(to, (const float *)x->data + (s * positions + at[i]) * l->in,
                   l->in * sizeof *to);
}

void layer_outputs(const layer *l, const float *y, bool channels_last, size_t positions,
                   size_t n_samples, const size_t *at, size_t n_at, float *to)
{
    const size_t channels = l->groups * l->out;
    const bool last = channels_last || !l->conv;
    for (size_t s = 0; s < n_samples; s++)
        for (size_t i = 0; i < n_at; i++)
            for (size_t c = 0; c < channels; c++)
                *to++ = y[last ? (s * positions + at[i]) * channels + c
                               : (s * channels + c) * positions + at[i]];
}
