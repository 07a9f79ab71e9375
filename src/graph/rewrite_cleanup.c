/* Nodes that do nothing, nodes that nothing needs, and the whole sequence. */
#include "graph/pass.h"
#include "graph/rewrite.h"

#include <string.h>

#include "base/mem.h"

/* --- identities ------------------------------------------------------------------------------- */

static bool all_equal(const tensor *t, int64_t v)
{
    for (size_t i = 0; i < tensor_count(t); i++)
        if (tensor_get_int(t, i) != v)
            return false;
    return true;
}

/* Equal ranks and dims; one dim may be unknown where the number of elements is kept anyway. */
static bool same_dims(const value_info *a, const value_info *b)
{
    int n_unknown = 0;
    if (a->rank < 0 || a->rank != b->rank)
        return false;
    for (int d = 0; d < a->rank; d++) {
        if (a->dims[d] != b->dims[d] || a->dims[d] == 0)
            return false;
        n_unknown += a->dims[d] < 0;
    }
    return n_unknown <= 1;
}

static bool reshape_is_noop(const pass *p, const node *n)
{
    return same_dims(pass_info(p, n->inputs[0]), pass_info(p, n->outputs[0]));
}

static bool expand_is_noop(const pass *p, const node *n)
{
    const value_info *x = pass_info(p, n->inputs[0]);
    return dims_count(x->rank, x->dims) != SIZE_MAX && reshape_is_noop(p, n);
}

static bool always_noop(const pass *p, const node *n)
{
    return true;
}

static bool single_is_noop(const pass *p, const node *n)
{
    return n->n_inputs == 1;
}

static bool dropout_is_noop(const pass *p, const node *n)
{
    if (graph_opset(p->g, "") < 12 || node_input(n, 2) < 0)
        return true;
    const tensor *training = node_constant(p->g, n, 2);
    return training && all_equal(training, 0);
}

static bool cast_is_noop(const pass *p, const node *n)
{
    const dtype from = pass_info(p, n->inputs[0])->type;
    return from != RUNG_UNDEFINED && node_int(n, "to", RUNG_UNDEFINED) == (int64_t)from;
}

static bool transpose_is_noop(const pass *p, const node *n)
{
    const int64_t *perm = NULL;
    const size_t n_perm = node_ints(n, "perm", &perm);
    const int rank = pass_info(p, n->inputs[0])->rank;
    for (size_t i = 0; i < n_perm; i++)
        if (perm[i] != (int64_t)i)
            return false;
    return n_perm > 0 || rank == 0 || rank == 1;
}

static bool pad_is_noop(const pass *p, const node *n)
{
    const tensor *pads = node_constant(p->g, n, 1);
    return pads && all_equal(pads, 0);
}

static bool slice_is_noop(const pass *p, const node *n)
{
    const value_info *x = pass_info(p, n->inputs[0]), *y = pass_info(p, n->outputs[0]);
    const tensor *steps = node_constant(p->g, n, 4);
    const bool forward = node_input(n, 4) < 0 || (steps && all_equal(steps, 1));
    size_t n_axes = 0;
    const int64_t *axes = tensor_ints(node_constant(p->g, n, 3), p->mem, &n_axes);
    if (!forward || x->rank < 0 || x->rank != y->rank || (node_input(n, 3) >= 0 && !axes))
        return false;
    for (int d = 0; d < x->rank; d++) {
        bool sliced = !axes;
        for (size_t i = 0; i < n_axes; i++)
            sliced = sliced || axes[i] == d || axes[i] == d - x->rank;
        if (sliced && (x->dims[d] < 0 || x->dims[d] != y->dims[d]))
            return false;
    }
    return true;
}

static const struct {
    const char *op_type;
    bool (*is_noop)(const pass *p, const node *n);
} noops[] = {
    { "Identity", always_noop },     { "Dropout", dropout_is_noop },
    { "Cast", cast_is_noop },        { "Reshape", reshape_is_noop },
    { "Flatten", reshape_is_noop },  { "Squeeze", reshape_is_noop },
    { "Expand", expand_is_noop },    { "Transpose", transpose_is_noop },
    { "Pad", pad_is_noop },          { "Slice", slice_is_noop },
    { "Concat", single_is_noop },    { "Sum", single_is_noop },
    { "Max", single_is_noop },       { "Min", single_is_noop },
    { "Mean", single_is_noop },
};

static bool is_noop(const pass *p, const node *n)
{
    if (node_input(n, 0) < 0 || n->n_outputs < 1 || n->outputs[0] < 0)
        return false;
    for (int k = 1; k < n->n_outputs; k++)
        if (pass_output_used(p, n, k))
            return false;
    for (size_t i = 0; i < sizeof noops / sizeof *noops; i++)
        if (node_is(n, noops[i].op_type))
            return noops[i].is_noop(p, n);
    return false;
}

/* alias[v] is what stands for v now; chains are at most two long, see remove_noop. */
static int resolve(const int *alias, int v)
{
    while (alias[v] != v)
        v = alias[v];
    return v;
}

static void resolve_inputs(const int *alias, node *n)
{
    for (int k = 0; k < n->n_inputs; k++)
        if (n->inputs[k] >= 0)
            n->inputs[k] = resolve(alias, n->inputs[k]);
}

/* x -> n -> y. Where y may go, x stands for it. Where y must keep its name and x need not, x's
 * maker makes y and y stands for x. Kept values have no alias: an alias' alias is the last. */
static void remove_noop(const pass *p, int *alias, node *n)
{
    graph *g = p->g;
    const int x = n->inputs[0], y = n->outputs[0];
    if (!p->kept[y]) {
        alias[y] = x;
        n->dead = true;
        return;
    }
    const int maker = g->values[x].producer;
    if (p->kept[x] || maker < 0)
        return;
    node *m = &g->nodes[maker];
    for (int k = 0; k < m->n_outputs; k++)
        if (m->outputs[k] == x)
            m->outputs[k] = y;
    g->values[y].producer = maker;
    g->values[x].producer = -1;
    g->values[x].has_info = false;
    alias[x] = y;
    n->dead = true;
}

static void remove_noops(const pass *p, int *alias)
{
    graph *g = p->g;
    for (size_t i = 0; i < g->n_nodes; i++) {
        node *n = &g->nodes[i];
        resolve_inputs(alias, n);
        if (is_noop(p, n))
            remove_noop(p, alias, n);
    }
    for (size_t i = 0; i < g->n_nodes; i++) /* uses before the node that renamed a value */
        resolve_inputs(alias, &g->nodes[i]);
}

rung_status rewrite_remove_identities(graph *g, rung_error *err)
{
    pass p;
    rung_status st = pass_begin(&p, g, err);
    if (st == RUNG_OK)
        st = pass_infer(&p, err);
    if (st != RUNG_OK)
        goto done;
    int *alias = arena_zero(p.mem, g->n_values, sizeof *alias);
    if (!alias) {
        st = fail_memory(err, "rewriting the graph", g->n_values * sizeof *alias);
        goto done;
    }
    for (size_t v = 0; v < g->n_values; v++)
        alias[v] = (int)v;
    remove_noops(&p, alias);
    st = graph_sort(g, err);
done:
    pass_end(&p);
    return st;
}

/* --- dead nodes ------------------------------------------------------------------------------- */

static void mark_needed(graph *g, bool *needed)
{
    for (int i = 0; i < g->n_outputs; i++)
        needed[g->outputs[i]] = true;
    for (size_t i = g->n_nodes; i-- > 0;) {
        node *n = &g->nodes[i];
        bool live = false;
        for (int k = 0; k < n->n_outputs; k++)
            live = live || (n->outputs[k] >= 0 && needed[n->outputs[k]]);
        n->dead = n->dead || !live;
        for (int k = 0; !n->dead && k < n->n_inputs; k++)
            if (n->inputs[k] >= 0)
                needed[n->inputs[k]] = true;
        for (int k = 0; !n->dead && k < n->n_captures; k++)
            needed[n->captures[k]] = true;
    }
}

rung_status rewrite_remove_dead(graph *g, rung_error *err)
{
    bool *needed = mem_zero(g->n_values + 1, sizeof *needed);
    if (!needed)
        return fail_memory(err, "removing dead nodes", g->n_values);
    mark_needed(g, needed);
    const rung_status st = graph_sort(g, err);
    for (size_t v = 0; st == RUNG_OK && v < g->n_values; v++) {
        value *x = &g->values[v];
        if (x->constant && !needed[v]) {
            x->constant = NULL;
            x->listed_input = false;
        }
        if (x->producer < 0 && !x->is_input && !x->constant)
            x->has_info = false;
    }
    mem_free(needed);
    return st;
}

/* --- the sequence ----------------------------------------------------------------------------- */

rung_status rewrite_prepare(graph *g, rung_error *err)
{
    static rung_status (*const steps[])(graph *, rung_error *) = {
        rewrite_upgrade,         rewrite_fold_constants, rewrite_remove_identities,
        rewrite_fuse_matmul_add, rewrite_fold_batchnorm, rewrite_fold_pad,
        rewrite_remove_dead,
    };
    rung_status st = RUNG_OK;
    for (size_t i = 0; st == RUNG_OK && i < sizeof steps / sizeof *steps; i++)
        st = steps[i](g, err);
    return st;
}
