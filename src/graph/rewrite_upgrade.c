/* Operators of opsets 7 to 12 in their form of opset 13. */
#include "graph/pass.h"
#include "graph/rewrite.h"

#include <string.h>

enum { OLDEST = 7, TARGET = 13 };

typedef struct upgrade {
    pass    p;
    int64_t from; /* the opset the graph comes in */
} upgrade;

static rung_status refuse(const upgrade *u, const node *n, const char *why, rung_error *err)
{
    char label[NODE_LABEL_SIZE];
    return fail(err, RUNG_EUNSUPPORTED, "%s: %s; export the model with opset %d or later",
                node_label(u->p.g, n, label, sizeof label), why, TARGET);
}

/* What new constants of n are named after. */
static const char *hint_of(const upgrade *u, const node *n)
{
    for (int k = 0; k < n->n_outputs; k++)
        if (n->outputs[k] >= 0)
            return u->p.g->values[n->outputs[k]].name;
    return n->op_type;
}

static void retype(upgrade *u, node *n, const char *op_type)
{
    n->op_type = op_type;
    n->op = u->p.g->find_op ? u->p.g->find_op(op_type, "") : NULL;
}

/* --- attributes that became inputs --------------------------------------------------------- */

/* The ints attribute `name` (or a single int, as a list of one), where there is one, becomes input
 * i. */
static rung_status ints_to_input(upgrade *u, node *n, const char *name, int i, rung_error *err)
{
    const attr *a = node_attr(n, name);
    const int64_t *v = NULL;
    size_t count = node_ints(n, name, &v);
    if (!a || (a->kind != ATTR_INTS && a->kind != ATTR_INT))
        return RUNG_OK;
    if (a->kind == ATTR_INT) {
        v = &a->i;
        count = 1;
    }
    const char *suffix = arena_printf(u->p.mem, "_%s", name);
    const int c = suffix ? pass_add_ints(u->p.g, hint_of(u, n), suffix, v, count) : -1;
    const rung_status st = node_set_input(u->p.g, n, i, c, err);
    node_remove_attr(n, name);
    return st;
}

static rung_status axes_to_input(upgrade *u, node *n, rung_error *err)
{
    return ints_to_input(u, n, "axes", 1, err);
}

static rung_status split_to_input(upgrade *u, node *n, rung_error *err)
{
    return ints_to_input(u, n, "split", 1, err);
}

static rung_status k_to_input(upgrade *u, node *n, rung_error *err)
{
    return u->from < 10 ? ints_to_input(u, n, "k", 1, err) : RUNG_OK;
}

static rung_status pads_to_input(upgrade *u, node *n, rung_error *err)
{
    return u->from < 11 ? ints_to_input(u, n, "pads", 1, err) : RUNG_OK;
}

static rung_status slice_to_inputs(upgrade *u, node *n, rung_error *err)
{
    if (u->from >= 10)
        return RUNG_OK;
    rung_status st = ints_to_input(u, n, "starts", 1, err);
    if (st == RUNG_OK)
        st = ints_to_input(u, n, "ends", 2, err);
    return st == RUNG_OK ? ints_to_input(u, n, "axes", 3, err) : st;
}

/* The float attribute becomes input i, a scalar of the type of input 0. */
static rung_status float_to_input(upgrade *u, node *n, const char *name, int i, rung_error *err)
{
    const attr *a = node_attr(n, name);
    if (!a || a->kind != ATTR_FLOAT)
        return RUNG_OK;
    const dtype type = u->p.info ? pass_info(&u->p, node_input(n, 0))->type : RUNG_F32;
    if (type == RUNG_BF16 || (type != RUNG_UNDEFINED && !dtype_is_float(type)))
        return refuse(u, n, "its attribute has no form in this element type", err);
    const char *suffix = arena_printf(u->p.mem, "_%s", name);
    const int c = suffix ? pass_add_scalar(u->p.g, hint_of(u, n), suffix, type, a->f) : -1;
    const rung_status st = node_set_input(u->p.g, n, i, c, err);
    node_remove_attr(n, name);
    return st;
}

static rung_status dropout(upgrade *u, node *n, rung_error *err)
{
    if (u->from < 10 && pass_output_used(&u->p, n, 1))
        return refuse(u, n, "its mask is used, whose type changed in opset 10", err);
    return u->from < 12 ? float_to_input(u, n, "ratio", 1, err) : RUNG_OK;
}

static rung_status pad_value_to_input(upgrade *u, node *n, rung_error *err)
{
    if (u->from >= 11)
        return RUNG_OK;
    if (node_float(n, "value", 0) != 0)
        return float_to_input(u, n, "value", 2, err);
    node_remove_attr(n, "value");
    return RUNG_OK;
}

static rung_status clip_to_inputs(upgrade *u, node *n, rung_error *err)
{
    if (u->from >= 11)
        return RUNG_OK;
    const rung_status st = float_to_input(u, n, "min", 1, err);
    return st == RUNG_OK ? float_to_input(u, n, "max", 2, err) : st;
}

/* --- operators that changed otherwise ------------------------------------------------------ */

/* Resize's coordinates as Upsample and Resize of opset 10 have them: out * in_size / out_size. */
static rung_status resize_asymmetric(upgrade *u, node *n, int x, int scales, rung_error *err)
{
    const int in[] = { x, -1, scales };
    graph *g = u->p.g;
    rung_status st = node_set_inputs(g, n, in, 3, err);
    if (st == RUNG_OK)
        st = graph_set_string(g, n, "coordinate_transformation_mode", "asymmetric", err);
    if (st == RUNG_OK)
        st = graph_set_string(g, n, "nearest_mode", "floor", err);
    return st;
}

static rung_status resize(upgrade *u, node *n, rung_error *err)
{
    const char *mode = node_string(n, "coordinate_transformation_mode", "half_pixel");
    if (u->from < 11) {
        if (node_input(n, 0) < 0 || node_input(n, 1) < 0)
            return refuse(u, n, "it lacks its scales", err);
        return resize_asymmetric(u, n, n->inputs[0], n->inputs[1], err);
    }
    if (!strcmp(mode, "tf_half_pixel_for_nn"))
        return refuse(u, n, "its coordinate mode tf_half_pixel_for_nn is not in opset 13", err);
    return RUNG_OK;
}

static rung_status upsample(upgrade *u, node *n, rung_error *err)
{
    graph *g = u->p.g;
    int scales = node_input(n, 1);
    const attr *a = node_attr(n, "scales");
    if (u->from < 9 && a && a->kind == ATTR_FLOATS) {
        const tensor t = { RUNG_F32, 1, { (int64_t)a->floats.n }, (void *)a->floats.v };
        const char *name = arena_printf(u->p.mem, "%s_scales", hint_of(u, n));
        scales = name ? graph_add_constant(g, name, &t) : -1;
        if (scales < 0)
            return fail_memory(err, "a constant", a->floats.n * sizeof(float));
        node_remove_attr(n, "scales");
    }
    if (node_input(n, 0) < 0 || scales < 0)
        return refuse(u, n, "it lacks its scales", err);
    retype(u, n, "Resize");
    return resize_asymmetric(u, n, n->inputs[0], scales, err);
}

static rung_status batchnorm(upgrade *u, node *n, rung_error *err)
{
    if (node_int(n, "spatial", 1) != 1)
        return refuse(u, n, "BatchNormalization with spatial = 0 is not in opset 9 and later", err);
    node_remove_attr(n, "spatial");
    return RUNG_OK;
}

static rung_status scatter(upgrade *u, node *n, rung_error *err)
{
    retype(u, n, "ScatterElements");
    return RUNG_OK;
}

/* --- Softmax over several axes ------------------------------------------------------------- */

/* The dims of x as the shape input of Reshape: a constant where at most one is unknown, else a
 * Shape node. -1: memory is out. */
static int shape_of(upgrade *u, int x, const char *hint)
{
    const value_info *i = pass_info(&u->p, x);
    int n_unknown = 0;
    for (int d = 0; d < i->rank; d++)
        n_unknown += i->dims[d] < 0;
    if (n_unknown <= 1)
        return pass_add_ints(u->p.g, hint, "_shape", i->dims, (size_t)i->rank);
    const char *name = arena_printf(u->p.mem, "%s_shape", hint);
    const int64_t rank = i->rank;
    const int shape = name ? graph_add_value(u->p.g, name, RUNG_I64, 1, &rank) : -1;
    return shape < 0 || graph_add_node(u->p.g, "Shape", "", "", &x, 1, &shape, 1) < 0 ? -1 : shape;
}

/* n over the dims from `axis` on taken together: Flatten, n over the last axis, Reshape back. */
static rung_status softmax_flattened(upgrade *u, int index, int64_t axis, rung_error *err)
{
    static const int64_t unknown[] = { DIM_UNKNOWN, DIM_UNKNOWN };
    graph *g = u->p.g;
    const node n = g->nodes[index];
    const char *hint = hint_of(u, &n);
    const char *in_name = arena_printf(u->p.mem, "%s_flat", hint);
    const char *out_name = arena_printf(u->p.mem, "%s_coerced", hint);
    if (!in_name || !out_name)
        return fail_memory(err, "a Softmax", strlen(hint));
    const dtype type = pass_info(&u->p, n.inputs[0])->type;
    const int flat = graph_add_value(g, in_name, type, 2, unknown);
    const int y = graph_add_value(g, out_name, type, 2, unknown);
    const int reshape_in[] = { y, shape_of(u, n.inputs[0], hint) };
    const int flatten = graph_add_node(g, "Flatten", "", "", n.inputs, 1, &flat, 1);
    if (flat < 0 || y < 0 || reshape_in[1] < 0 || flatten < 0 ||
        graph_add_node(g, "Reshape", "", "", reshape_in, 2, n.outputs, 1) < 0)
        return fail_memory(err, "a Softmax", sizeof n);
    rung_status st = graph_set_int(g, &g->nodes[flatten], "axis", axis, err);
    if (st == RUNG_OK)
        st = graph_set_int(g, &g->nodes[index], "axis", -1, err);
    g->nodes[index].inputs[0] = flat;
    g->nodes[index].outputs[0] = y;
    return st;
}

/* Below opset 13 Softmax, LogSoftmax and Hardmax take all dims from `axis` on as one. */
static rung_status softmax(upgrade *u, int index, rung_error *err)
{
    graph *g = u->p.g;
    node *n = &g->nodes[index];
    if (n->n_inputs != 1 || n->inputs[0] < 0 || n->n_outputs != 1 || n->outputs[0] < 0)
        return refuse(u, n, "it must have one input and one output", err);
    const value_info *x = pass_info(&u->p, n->inputs[0]);
    const int64_t given = node_int(n, "axis", 1), axis = given < 0 ? given + x->rank : given;
    bool alone = true, empty = false;
    if (x->rank < 0)
        return refuse(u, n, "the rank of its input is not known", err);
    if (axis < 0 || axis >= (x->rank ? x->rank : 1)) {
        char label[NODE_LABEL_SIZE];
        return fail(err, RUNG_EMODEL, "%s: axis = %lld does not fit rank %d",
                    node_label(g, n, label, sizeof label), (long long)given, x->rank);
    }
    for (int d = 0; d < x->rank; d++) {
        alone = alone && (d <= axis || x->dims[d] == 1);
        empty = empty || x->dims[d] == 0;
    }
    if (axis == x->rank - 1)
        return graph_set_int(g, n, "axis", -1, err);
    if (alone || empty)
        return graph_set_int(g, n, "axis", axis, err);
    return softmax_flattened(u, index, axis, err);
}

/* --- all nodes ----------------------------------------------------------------------------- */

typedef rung_status (*convert_fn)(upgrade *u, node *n, rung_error *err);

struct conversion {
    const char *op_type;
    convert_fn  convert;
};

/* What needs no inferred types: inference then knows all operators in their new form. */
static const struct conversion early[] = {
    { "Slice", slice_to_inputs },
    { "Pad", pads_to_input },
    { "Squeeze", axes_to_input },
    { "Unsqueeze", axes_to_input },
    { "ReduceSum", axes_to_input },
    { "Split", split_to_input },
    { "TopK", k_to_input },
    { "Upsample", upsample },
    { "Resize", resize },
    { "Dropout", dropout },
    { "BatchNormalization", batchnorm },
    { "Scatter", scatter },
    { NULL, NULL },
};

static const struct conversion late[] = {
    { "Clip", clip_to_inputs },
    { "Pad", pad_value_to_input },
    { NULL, NULL },
};

static rung_status convert_all(upgrade *u, const struct conversion *table, rung_error *err)
{
    graph *g = u->p.g;
    rung_status st = RUNG_OK;
    for (size_t i = 0; st == RUNG_OK && i < g->n_nodes; i++) {
        const struct conversion *c = table;
        while (c->op_type && !node_is(&g->nodes[i], c->op_type))
            c++;
        if (c->op_type)
            st = c->convert(u, &g->nodes[i], err);
    }
    return st;
}

static rung_status convert_softmaxes(upgrade *u, rung_error *err)
{
    graph *g = u->p.g;
    const size_t n_nodes = g->n_nodes;
    rung_status st = RUNG_OK;
    for (size_t i = 0; st == RUNG_OK && i < n_nodes; i++) {
        const node *n = &g->nodes[i];
        if (node_is(n, "Softmax") || node_is(n, "LogSoftmax") || node_is(n, "Hardmax"))
            st = softmax(u, (int)i, err);
    }
    return st;
}

static rung_status refuse_subgraphs(const upgrade *u, rung_error *err)
{
    const graph *g = u->p.g;
    for (size_t i = 0; i < g->n_nodes; i++)
        if (node_has_subgraph(&g->nodes[i]))
            return refuse(u, &g->nodes[i], "the nodes of its subgraph cannot be converted", err);
    return RUNG_OK;
}

static rung_status upgrade_graph(upgrade *u, rung_error *err)
{
    graph *g = u->p.g;
    rung_status st = refuse_subgraphs(u, err);
    if (st == RUNG_OK)
        st = convert_all(u, early, err);
    if (st == RUNG_OK)
        st = graph_set_opset(g, "", TARGET, err);
    /* Constants were added: the notes are made anew. */
    if (st == RUNG_OK) {
        pass_end(&u->p);
        st = pass_begin(&u->p, g, err);
    }
    if (st == RUNG_OK)
        st = pass_infer(&u->p, err);
    if (st == RUNG_OK)
        st = convert_all(u, late, err);
    if (st == RUNG_OK)
        st = convert_softmaxes(u, err);
    return st == RUNG_OK ? graph_sort(g, err) : st;
}

rung_status rewrite_upgrade(graph *g, rung_error *err)
{
    upgrade u = { .from = graph_opset(g, "") };
    if (u.from == 0 || u.from >= TARGET)
        return RUNG_OK;
    if (u.from < OLDEST)
        return fail(err, RUNG_EUNSUPPORTED, "the model's opset is %lld: %d and later are supported",
                    (long long)u.from, OLDEST);
    rung_status st = pass_begin(&u.p, g, err);
    if (st == RUNG_OK)
        st = upgrade_graph(&u, err);
    if (g->ir_version < 7) /* opset 13 came with it; constants need not be inputs since 4 */
        g->ir_version = 7;
    pass_end(&u.p);
    return st;
}
