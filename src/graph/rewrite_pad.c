/* Pad folded into the Conv or pool behind it. */
#include "graph/pass.h"
#include "graph/rewrite.h"

#include <math.h>
#include <string.h>

enum {
    MAX_SPATIAL = RUNG_MAX_RANK - 2,
    LARGEST_PAD = 1 << 24, /* and stride, kernel, dilation: products of two fit easily */
};

/* What a Pad node adds around the spatial axes: [n] at the beginnings, [n] at the ends. */
typedef struct padding {
    int64_t before[MAX_SPATIAL], after[MAX_SPATIAL];
    int     n;
    double  fill;
} padding;

/* --- the Pad node -------------------------------------------------------------------------- */

/* Puts one axis' pads in its place; false: no spatial axis, or out of the bounds. */
static bool put_axis(padding *out, int64_t axis, int64_t before, int64_t after)
{
    if (before == 0 && after == 0)
        return true;
    axis = axis < 0 ? axis + out->n + 2 : axis;
    if (axis < 2 || axis >= out->n + 2 || before < 0 || after < 0 || before > LARGEST_PAD ||
        after > LARGEST_PAD)
        return false;
    out->before[axis - 2] = before;
    out->after[axis - 2] = after;
    return true;
}

static bool read_padding(const pass *p, const node *n, padding *out)
{
    const graph *g = p->g;
    const int rank = pass_info(p, n->inputs[0])->rank;
    size_t n_pads = 0, n_axes = 0;
    const int64_t *pads = tensor_ints(node_constant(g, n, 1), p->mem, &n_pads);
    const int64_t *axes = tensor_ints(node_constant(g, n, 3), p->mem, &n_axes);
    const tensor *fill = node_constant(g, n, 2);
    *out = (padding){ .n = rank - 2 };
    if (strcmp(node_string(n, "mode", "constant"), "constant") || rank < 3 || !pads)
        return false;
    if ((node_input(n, 2) >= 0 && (!fill || tensor_count(fill) != 1)) ||
        (node_input(n, 3) >= 0 && !axes))
        return false;
    if (!axes)
        n_axes = (size_t)rank;
    if (n_pads != 2 * n_axes)
        return false;
    out->fill = fill ? tensor_get(fill, 0) : 0;
    for (size_t i = 0; i < n_axes; i++)
        if (!put_axis(out, axes ? axes[i] : (int64_t)i, pads[i], pads[n_axes + i]))
            return false;
    return true;
}

/* --- the node behind ----------------------------------------------------------------------- */

/* A Conv's or pool's window along the spatial axes. */
typedef struct window {
    int64_t kernel[MAX_SPATIAL], stride[MAX_SPATIAL], dilation[MAX_SPATIAL];
    int64_t before[MAX_SPATIAL], after[MAX_SPATIAL];
} window;

/* n ints of an attribute, `otherwise` where it is absent; false: their number or size is wrong. */
static bool read_ints(const node *n, const char *name, int64_t otherwise, int count, int64_t *out)
{
    const int64_t *v = NULL;
    const size_t n_v = node_ints(n, name, &v);
    if (n_v && n_v != (size_t)count)
        return false;
    for (int i = 0; i < count; i++) {
        out[i] = n_v ? v[i] : otherwise;
        if (out[i] < 0 || out[i] > LARGEST_PAD)
            return false;
    }
    return true;
}

static bool read_kernel(const graph *g, const node *n, int spatial, window *w)
{
    const tensor *weight = node_constant(g, n, 1);
    if (node_is(n, "Conv") && !node_attr(n, "kernel_shape")) {
        if (!weight || weight->rank != spatial + 2)
            return false;
        for (int d = 0; d < spatial; d++)
            w->kernel[d] = weight->dims[d + 2];
        return true;
    }
    return node_attr(n, "kernel_shape") && read_ints(n, "kernel_shape", 1, spatial, w->kernel);
}

/* SAME_UPPER and SAME_LOWER as explicit pads, where the spatial dims of x are known. */
static bool same_pads(const value_info *x, bool lower, int spatial, window *w)
{
    for (int d = 0; d < spatial; d++) {
        const int64_t in = x->dims[d + 2];
        if (in < 0 || in > INT32_MAX || w->stride[d] < 1)
            return false;
        const int64_t out = (in + w->stride[d] - 1) / w->stride[d];
        const int64_t reach = (w->kernel[d] - 1) * w->dilation[d] + 1;
        int64_t total = (out - 1) * w->stride[d] + reach - in;
        total = total < 0 ? 0 : total;
        w->before[d] = lower ? total - total / 2 : total / 2;
        w->after[d] = total - w->before[d];
    }
    return true;
}

static bool read_window(const pass *p, const node *n, int spatial, window *w)
{
    const char *automatic = node_string(n, "auto_pad", "NOTSET");
    int64_t pads[2 * MAX_SPATIAL];
    if (!read_kernel(p->g, n, spatial, w) || !read_ints(n, "strides", 1, spatial, w->stride) ||
        !read_ints(n, "dilations", 1, spatial, w->dilation) ||
        !read_ints(n, "pads", 0, 2 * spatial, pads))
        return false;
    const bool valid = !strcmp(automatic, "VALID"), lower = !strcmp(automatic, "SAME_LOWER");
    if (lower || !strcmp(automatic, "SAME_UPPER"))
        return same_pads(pass_info(p, n->inputs[0]), lower, spatial, w);
    for (int d = 0; d < spatial; d++) {
        w->before[d] = valid ? 0 : pads[d];
        w->after[d] = valid ? 0 : pads[spatial + d];
    }
    return valid || !strcmp(automatic, "NOTSET");
}

static rung_status write_pads(graph *g, node *n, const window *w, int spatial, rung_error *err)
{
    int64_t pads[2 * MAX_SPATIAL];
    for (int d = 0; d < spatial; d++) {
        pads[d] = w->before[d];
        pads[spatial + d] = w->after[d];
    }
    node_remove_attr(n, "auto_pad");
    return graph_set_ints(g, n, "pads", pads, 2 * (size_t)spatial, err);
}

/* --- which combinations are exact ---------------------------------------------------------- */

/* No value of v is negative. */
static bool never_negative(const graph *g, int v)
{
    static const char *const makers[] = { "Relu", "Sigmoid",    "Abs", "Exp", "Softmax",
                                          "HardSigmoid" };
    const int maker = g->values[v].producer;
    const node *n = maker < 0 ? NULL : &g->nodes[maker];
    if (!n)
        return false;
    for (size_t i = 0; i < sizeof makers / sizeof *makers; i++)
        if (node_is(n, makers[i]))
            return true;
    const tensor *low = node_is(n, "Clip") ? node_constant(g, n, 1) : NULL;
    return low && tensor_count(low) == 1 && tensor_get(low, 0) >= 0;
}

/* Every window of the pool reaches a true element: the padding at either side is narrower. */
static bool pool_can_pad(const node *n, const window *w, const padding *pad)
{
    for (int d = 0; d < pad->n; d++)
        if (w->before[d] + pad->before[d] >= w->kernel[d] ||
            w->after[d] + pad->after[d] >= w->kernel[d] || w->dilation[d] != 1)
            return false;
    return node_int(n, "ceil_mode", 0) == 0; /* rounding up leaves out windows of padding only */
}

static bool has_padding(const window *w, int spatial)
{
    for (int d = 0; d < spatial; d++)
        if (w->before[d] || w->after[d])
            return true;
    return false;
}

/* Whether n, behind a Pad of x, can do the padding itself. */
static bool can_absorb(const pass *p, const node *n, int x, const padding *pad, const window *w)
{
    if (node_is(n, "Conv"))
        return pad->fill == 0;
    if (!pool_can_pad(n, w, pad))
        return false;
    if (node_is(n, "AveragePool"))
        return pad->fill == 0 &&
               (node_int(n, "count_include_pad", 0) || !has_padding(w, pad->n));
    const bool cannot_win = (isinf(pad->fill) && pad->fill < 0) ||
                            (pad->fill == 0 && never_negative(p->g, x));
    return node_is(n, "MaxPool") && cannot_win && !pass_output_used(p, n, 1);
}

/* pad_node -> n: n reads the Pad's input and pads itself, where that is the same. */
static rung_status absorb(const pass *p, const node *pad_node, node *n, const padding *pad,
                          rung_error *err)
{
    window w;
    const int x = pad_node->inputs[0];
    if (!node_is(n, "Conv") && !node_is(n, "AveragePool") && !node_is(n, "MaxPool"))
        return RUNG_OK;
    if (node_input(n, 0) != pad_node->outputs[0] || !read_window(p, n, pad->n, &w) ||
        !can_absorb(p, n, x, pad, &w))
        return RUNG_OK;
    for (int d = 0; d < pad->n; d++) {
        w.before[d] += pad->before[d];
        w.after[d] += pad->after[d];
    }
    rung_status st = write_pads(p->g, n, &w, pad->n, err);
    if (st == RUNG_OK && node_is(n, "AveragePool"))
        st = graph_set_int(p->g, n, "count_include_pad", 1, err);
    if (st == RUNG_OK)
        n->inputs[0] = x;
    return st;
}

static bool uses_value(const node *n, int v)
{
    for (int k = 0; k < n->n_inputs; k++)
        if (n->inputs[k] == v)
            return true;
    return false;
}

static rung_status fold(const pass *p, node *n, rung_error *err)
{
    padding pad;
    rung_status st = RUNG_OK;
    if (!node_is(n, "Pad") || node_input(n, 0) < 0 || n->n_outputs != 1 || n->outputs[0] < 0 ||
        !read_padding(p, n, &pad))
        return RUNG_OK;
    const int y = n->outputs[0];
    bool needed = p->kept[y];
    for (int u = p->uses.first[y]; st == RUNG_OK && u < p->uses.first[y + 1]; u++) {
        node *user = &p->g->nodes[p->uses.list[u]];
        st = absorb(p, n, user, &pad, err);
        needed = needed || uses_value(user, y);
    }
    /* Later Pads may come to read y, but only through users that are among these. */
    n->dead = !needed;
    return st;
}

rung_status rewrite_fold_pad(graph *g, rung_error *err)
{
    pass p;
    rung_status st = pass_begin(&p, g, err);
    if (st == RUNG_OK)
        st = pass_infer(&p, err);
    for (size_t i = 0; st == RUNG_OK && i < g->n_nodes; i++)
        st = fold(&p, &g->nodes[i], err);
    if (st == RUNG_OK)
        st = graph_sort(g, err);
    pass_end(&p);
    return st;
}
