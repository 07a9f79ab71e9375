/* What the loss looks at: outputs, and tensors inside that are to be like the teacher's. */
#include <string.h>

#include "graph/pass.h"
#include "quant/fake.h"
#include "train/trainer_parts.h"

static rung_status out_of_memory(rung_error *err)
{
    return fail_memory(err, "outputs to be trained on", sizeof(watched));
}

static const node *maker_of(const graph *g, int v)
{
    const int at = v < 0 ? -1 : g->values[v].producer;
    return at < 0 ? NULL : &g->nodes[at];
}

/* What stands before the pair that makes v, or v. */
static int before_pair(const graph *g, int v)
{
    static const char *const parts[] = { "DequantizeLinear", "Clip", "QuantizeLinear" };
    int at = v;
    for (int i = 0; i < 3; i++) {
        const node *n = maker_of(g, at);
        if (n && node_is(n, parts[i]) && (i != 1 || maker_of(g, v) != n))
            at = n->inputs[0];
        else if (i != 1)
            return v;
    }
    return at;
}

/* Scores before a Softmax, where v are those behind it; else v. */
static int scores_of(const graph *g, int v)
{
    const node *n = maker_of(g, before_pair(g, v));
    return n && node_is(n, "Softmax") && maker_of(g, n->inputs[0]) ? n->inputs[0] : v;
}

/* The index of v among the outputs, of the graph and then the extra ones, where it is put if it is
 * not there yet. */
static int place_of(const graph *g, watch_list *w, int v)
{
    for (int i = 0; i < g->n_outputs; i++)
        if (g->outputs[i] == v)
            return i;
    for (int i = 0; i < w->n_extra; i++)
        if (w->extra[i] == v)
            return g->n_outputs + i;
    w->extra[w->n_extra] = v;
    return g->n_outputs + w->n_extra++;
}

static rung_status teacher_place(graph *teacher, int v, int *out, rung_error *err)
{
    for (int i = 0; i < teacher->n_outputs; i++)
        if (teacher->outputs[i] == v) {
            *out = i;
            return RUNG_OK;
        }
    *out = teacher->n_outputs;
    return graph_mark_output(teacher, v, err);
}

static rung_status watch_output(const graph *g, int i, watch_list *w, rung_error *err)
{
    watched *at = &w->list[w->n_outputs++];
    *at = (watched){ place_of(g, w, scores_of(g, g->outputs[i])), -1 };
    if (!w->teacher)
        return RUNG_OK;
    return teacher_place(w->teacher, scores_of(w->teacher, w->teacher->outputs[i]), &at->teacher,
                         err);
}

/* What consumers of the tensor of that name read: it, or what its pair makes of it. -1: there is
 * none that a node makes. */
static int find_tensor(const graph *g, const uses *u, const char *name)
{
    const int v = strmap_get(g->by_name, name, -1);
    fake_quantizer f;
    fake_nodes n;
    if (v < 0 || !maker_of(g, v))
        return -1;
    for (int k = u->first[v]; k < u->first[v + 1]; k++)
        if (fake_read(g, u, u->list[k], &f, &n))
            return n.out;
    return v;
}

static rung_status watch_feature(const graph *g, const uses *u, const char *name, watch_list *w,
                                 rung_error *err)
{
    const int v = find_tensor(g, u, name);
    const int t = strmap_get(w->teacher->by_name, name, -1);
    if (v < 0)
        return fail(err, RUNG_EARGUMENT, "feature '%s': no node of the model to be trained makes a "
                    "tensor of that name (a convolution's output before BatchNormalization is gone "
                    "when that is folded)", name);
    if (t < 0 || !maker_of(w->teacher, t))
        return fail(err, RUNG_EARGUMENT, "feature '%s': the teacher has no tensor of that name",
                    name);
    watched *at = &w->list[w->n_outputs + w->n_features++];
    *at = (watched){ place_of(g, w, v), -1 };
    return teacher_place(w->teacher, t, &at->teacher, err);
}

static rung_status copy_teacher(const graph *g, const graph *teacher, watch_list *w,
                                rung_error *err)
{
    if (teacher->n_inputs != g->n_inputs || teacher->n_outputs != g->n_outputs)
        return fail(err, RUNG_EARGUMENT, "the teacher has %d inputs and %d outputs, the model to "
                    "be trained has %d and %d", teacher->n_inputs, teacher->n_outputs, g->n_inputs,
                    g->n_outputs);
    return graph_clone(teacher, &w->teacher, err);
}

rung_status watch_outputs(const graph *g, const graph *teacher, const trainer_options *opt,
                          arena *mem, watch_list *out, rung_error *err)
{
    const size_t most = (size_t)(g->n_outputs + opt->n_features) + 1;
    rung_status st = RUNG_OK;
    uses u;
    *out = (watch_list){ .extra = arena_zero(mem, most, sizeof *out->extra),
                         .list = arena_zero(mem, most, sizeof *out->list) };
    if (!out->extra || !out->list)
        return out_of_memory(err);
    if (opt->n_features && !teacher)
        return fail(err, RUNG_EARGUMENT, "features need a teacher");
    if ((st = graph_uses(g, mem, &u, err)) != RUNG_OK ||
        (teacher && (st = copy_teacher(g, teacher, out, err)) != RUNG_OK))
        return st;
    for (int i = 0; i < g->n_outputs && st == RUNG_OK; i++)
        st = watch_output(g, i, out, err);
    for (int i = 0; i < opt->n_features && st == RUNG_OK; i++)
        st = watch_feature(g, &u, opt->features[i], out, err);
    return st;
}
