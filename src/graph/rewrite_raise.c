/* Operators of opsets 13 to 20 in their form of opset 21, which blocked and 4-bit weights and
 * 16-bit activations need. */
#include "graph/pass.h"
#include "graph/rewrite.h"

#include <string.h>

enum { FROM = 13, TARGET = 21, IR_VERSION = 10 };

typedef struct raise {
    graph  *g;
    int64_t from, to;
} raise;

typedef rung_status (*raise_fn)(raise *r, node *n, rung_error *err);

/* A change in `version` that is more than new types or attributes whose default is the old way. */
typedef struct change {
    const char *op_type;
    int64_t     version;
    raise_fn    convert; /* NULL: cannot be brought over, for the reason in `why` */
    const char *why;
} change;

static rung_status refuse(const raise *r, const node *n, const char *why, rung_error *err)
{
    char label[NODE_LABEL_SIZE];
    return fail(err, RUNG_EUNSUPPORTED,
                "%s: %s; export the model with opset %lld, or stay with 8 bits without --block",
                node_label(r->g, n, label, sizeof label), why, (long long)r->to);
}

/* The attribute `axes` becomes input 1. */
static rung_status axes_to_input(raise *r, node *n, rung_error *err)
{
    const int64_t *v = NULL;
    const size_t count = node_ints(n, "axes", &v);
    if (!count) {
        node_remove_attr(n, "axes");
        return RUNG_OK;
    }
    const char *hint = n->n_outputs && n->outputs[0] >= 0 ? r->g->values[n->outputs[0]].name
                                                          : n->op_type;
    const int axes = pass_add_ints(r->g, hint, "_axes", v, count);
    const rung_status st = node_set_input(r->g, n, 1, axes, err);
    node_remove_attr(n, "axes");
    return st;
}

/* Without sizes the parts are equal; their number has to be said since opset 18. */
static rung_status split_number(raise *r, node *n, rung_error *err)
{
    if (node_input(n, 1) >= 0)
        return RUNG_OK;
    return graph_set_int(r->g, n, "num_outputs", n->n_outputs, err);
}

static rung_status roi_align_mode(raise *r, node *n, rung_error *err)
{
    if (node_attr(n, "coordinate_transformation_mode"))
        return RUNG_OK;
    return graph_set_string(r->g, n, "coordinate_transformation_mode", "output_half_pixel", err);
}

static rung_status grid_sample_mode(raise *r, node *n, rung_error *err)
{
    const char *mode = node_string(n, "mode", "bilinear");
    if (!strcmp(mode, "nearest"))
        return RUNG_OK;
    return graph_set_string(r->g, n, "mode", !strcmp(mode, "bicubic") ? "cubic" : "linear", err);
}

/* In training mode, or with the outputs of opset 13 that only training fills, there is no way. */
static rung_status batchnorm(raise *r, node *n, rung_error *err)
{
    for (int k = 1; k < n->n_outputs; k++)
        if (n->outputs[k] >= 0)
            return refuse(r, n, "BatchNormalization has outputs for training", err);
    return RUNG_OK;
}

static const change changes[] = {
    { "BatchNormalization", 14, batchnorm, NULL },
    { "RoiAlign", 16, roi_align_mode, NULL },
    { "ReduceL1", 18, axes_to_input, NULL },
    { "ReduceL2", 18, axes_to_input, NULL },
    { "ReduceLogSum", 18, axes_to_input, NULL },
    { "ReduceLogSumExp", 18, axes_to_input, NULL },
    { "ReduceMax", 18, axes_to_input, NULL },
    { "ReduceMean", 18, axes_to_input, NULL },
    { "ReduceMin", 18, axes_to_input, NULL },
    { "ReduceProd", 18, axes_to_input, NULL },
    { "ReduceSumSquare", 18, axes_to_input, NULL },
    { "Split", 18, split_number, NULL },
    { "DFT", 20, NULL, "the axis of DFT became an input in opset 20" },
    { "GridSample", 20, grid_sample_mode, NULL },
    { "GroupNormalization", 21, NULL, "GroupNormalization has another scale in opset 21" },
};

static rung_status convert(raise *r, size_t index, rung_error *err)
{
    node *n = &r->g->nodes[index];
    if (node_has_subgraph(n))
        return refuse(r, n, "the nodes of its subgraph cannot be converted", err);
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        const change *c = &changes[i];
        if (!node_is(n, c->op_type) || r->from >= c->version || r->to < c->version)
            continue;
        return c->convert ? c->convert(r, n, err) : refuse(r, n, c->why, err);
    }
    return RUNG_OK;
}

rung_status rewrite_raise_opset(graph *g, int64_t to, rung_error *err)
{
    raise r = { .g = g, .from = graph_opset(g, ""), .to = to };
    rung_status st = RUNG_OK;
    if (r.from >= to)
        return RUNG_OK;
    if (r.from < FROM || to > TARGET)
        return fail(err, RUNG_EUNSUPPORTED, "from opset %lld to %lld there is no way",
                    (long long)r.from, (long long)to);
    for (size_t i = 0; i < g->n_nodes && st == RUNG_OK; i++)
        if (!g->nodes[i].dead)
            st = convert(&r, i, err);
    if (st == RUNG_OK)
        st = graph_set_opset(g, "", to, err);
    if (g->ir_version < IR_VERSION)
        g->ir_version = IR_VERSION; /* 4-bit types, and 16-bit codes, came with it */
    return st == RUNG_OK ? graph_sort(g, err) : st;
}
