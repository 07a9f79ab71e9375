/* Types, dimensions and small contents of all values. */
#include "graph/pass.h"

#include <string.h>

enum {
    SMALL = 4096, /* elements of a value that is evaluated on the way: shapes are shorter */
    MAX_SPENT = 64 << 20, /* bytes of such contents in all: a hostile file may have many */
    SPARE_IN = 16, SPARE_OUT = 8, /* operands an infer may look at though the node has fewer */
};

typedef struct inference {
    const graph       *g;
    arena             *mem;
    value_info        *info;
    bool               overridden; /* by the caller's dims: others' declared dims may be stale */
    const value_info **in;         /* room for the operands of one node */
    value_info        *out;
    size_t             spent;
} inference;

/* --- what is declared ------------------------------------------------------------------------- */

static value_info declared(const value *v)
{
    value_info i = { .type = v->type, .rank = v->rank, .data = v->constant };
    memcpy(i.dims, v->dims, sizeof i.dims);
    return i;
}

static rung_status override_input(const graph *g, int k, const int64_t *dims, value_info *i,
                                  rung_error *err)
{
    const char *name = g->values[g->inputs[k]].name;
    if (i->rank < 0)
        return fail(err, RUNG_EUNSUPPORTED, "input '%s': the model does not say its rank", name);
    for (int d = 0; d < i->rank; d++) {
        if (dims[d] < DIM_UNKNOWN)
            return fail(err, RUNG_EARGUMENT, "input '%s': dimension %d is given as %lld", name, d,
                        (long long)dims[d]);
        if (dims[d] >= 0)
            i->dims[d] = dims[d];
    }
    return RUNG_OK;
}

static rung_status begin_values(inference *s, const int64_t *const *input_dims, rung_error *err)
{
    const graph *g = s->g;
    rung_status st = RUNG_OK;
    for (size_t v = 0; v < g->n_values; v++)
        s->info[v] = declared(&g->values[v]);
    for (int k = 0; input_dims && st == RUNG_OK && k < g->n_inputs; k++) {
        if (!input_dims[k])
            continue;
        s->overridden = true;
        st = override_input(g, k, input_dims[k], &s->info[g->inputs[k]], err);
    }
    return st;
}

/* --- one node --------------------------------------------------------------------------------- */

static rung_status merge_dims(const value *v, value_info *got, rung_error *err)
{
    char a[DIMS_TEXT_SIZE], b[DIMS_TEXT_SIZE];
    bool conflict = v->rank >= 0 && got->rank >= 0 && v->rank != got->rank;
    if (got->rank < 0) {
        got->rank = v->rank;
        memcpy(got->dims, v->dims, sizeof got->dims);
    }
    for (int d = 0; !conflict && d < v->rank; d++)
        conflict = v->dims[d] >= 0 && got->dims[d] >= 0 && v->dims[d] != got->dims[d];
    if (conflict)
        return fail(err, RUNG_EMODEL, "'%s' is declared %s, but its operator makes %s", v->name,
                    dims_text(v->rank, v->dims, a, sizeof a),
                    dims_text(got->rank, got->dims, b, sizeof b));
    for (int d = 0; d < v->rank; d++)
        if (got->dims[d] < 0)
            got->dims[d] = v->dims[d];
    return RUNG_OK;
}

/* Joins what the operator says of its output with what the file declares. */
static rung_status merge(const inference *s, const node *n, const value *v, value_info *got,
                         rung_error *err)
{
    if (got->rank > RUNG_MAX_RANK)
        return fail(err, RUNG_EMODEL, "'%s' would have rank %d: at most %d is possible", v->name,
                    got->rank, RUNG_MAX_RANK);
    for (int d = 0; d < got->rank; d++)
        if (got->dims[d] < DIM_UNKNOWN)
            return fail(err, RUNG_EMODEL, "'%s' would have the dimension %lld", v->name,
                        (long long)got->dims[d]);
    if (got->type == RUNG_UNDEFINED)
        got->type = v->type;
    if (v->type != RUNG_UNDEFINED && v->type != got->type)
        return fail(err, RUNG_EMODEL, "'%s' is declared %s, but its operator makes %s", v->name,
                    dtype_name(v->type), dtype_name(got->type));
    if (s->overridden && n->op && n->op->infer)
        return RUNG_OK;
    return merge_dims(v, got, err);
}

static rung_status ask_op(inference *s, const node *n, rung_error *err)
{
    for (int k = 0; k < n->n_inputs || k < SPARE_IN; k++) {
        const int v = node_input(n, k);
        s->in[k] = v < 0 ? NULL : &s->info[v];
    }
    for (int k = 0; k < n->n_outputs || k < SPARE_OUT; k++)
        s->out[k] = (value_info){ .rank = -1 };
    if (!n->op || !n->op->infer)
        return RUNG_OK;
    const infer_args a = { n, graph_opset(s->g, n->domain), s->in, s->out, s->mem };
    return n->op->infer(&a, err);
}

static bool is_small(const value_info *i)
{
    return i->rank >= 0 && dims_count(i->rank, i->dims) <= SMALL && dtype_bytes(i->type, 1) > 0;
}

/* Whether n's outputs can be computed now: everything it reads is known, and all is small. */
static bool can_evaluate(const inference *s, const node *n)
{
    bool missing = false;
    if (!node_is_pure(n))
        return false;
    for (int k = 0; k < n->n_inputs; k++)
        if (s->in[k] && (!s->in[k]->data || !is_small(s->in[k])))
            return false;
    for (int k = 0; k < n->n_outputs; k++) {
        if (n->outputs[k] >= 0 && !is_small(&s->out[k]))
            return false;
        missing = missing || (n->outputs[k] >= 0 && !s->out[k].data);
    }
    return missing && s->spent < MAX_SPENT;
}

static rung_status evaluate(inference *s, const node *n, rung_error *err)
{
    const tensor **in = arena_zero(s->mem, (size_t)n->n_inputs, sizeof *in);
    tensor **out = arena_zero(s->mem, (size_t)n->n_outputs, sizeof *out);
    if (!in || !out)
        return fail_memory(err, "shape inference", sizeof *out);
    for (int k = 0; k < n->n_inputs; k++)
        in[k] = s->in[k] ? s->in[k]->data : NULL;
    rung_error why;
    const rung_status st = node_eval(s->g, n, in, s->out, s->mem, out, &why);
    if (st == RUNG_EUNSUPPORTED) /* legal: then the content is simply not known */
        return RUNG_OK;
    if (st != RUNG_OK)
        return fail(err, st, "%s", why.message);
    for (int k = 0; k < n->n_outputs; k++) {
        s->out[k].data = out[k];
        s->spent += out[k] ? dtype_bytes(out[k]->type, tensor_count(out[k])) : 0;
    }
    return RUNG_OK;
}

static rung_status infer_node(inference *s, const node *n, rung_error *err)
{
    char label[NODE_LABEL_SIZE];
    rung_status st = ask_op(s, n, err);
    for (int k = 0; st == RUNG_OK && k < n->n_outputs; k++)
        if (n->outputs[k] >= 0)
            st = merge(s, n, &s->g->values[n->outputs[k]], &s->out[k], err);
    if (st != RUNG_OK)
        return fail_at(err, st, "%s", node_label(s->g, n, label, sizeof label));
    if (can_evaluate(s, n) && (st = evaluate(s, n, err)) != RUNG_OK)
        return st;
    for (int k = 0; k < n->n_outputs; k++)
        if (n->outputs[k] >= 0)
            s->info[n->outputs[k]] = s->out[k];
    return RUNG_OK;
}

rung_status graph_infer(const graph *g, const int64_t *const *input_dims, arena *mem,
                        value_info *info, rung_error *err)
{
    inference s = { .g = g, .mem = mem, .info = info };
    int most_in = SPARE_IN, most_out = SPARE_OUT;
    for (size_t i = 0; i < g->n_nodes; i++) {
        most_in = g->nodes[i].n_inputs > most_in ? g->nodes[i].n_inputs : most_in;
        most_out = g->nodes[i].n_outputs > most_out ? g->nodes[i].n_outputs : most_out;
    }
    s.in = arena_zero(mem, (size_t)most_in, sizeof *s.in);
    s.out = arena_zero(mem, (size_t)most_out, sizeof *s.out);
    if (!s.in || !s.out)
        return fail_memory(err, "shape inference", (size_t)most_in * sizeof *s.in);
    rung_status st = begin_values(&s, input_dims, err);
    for (size_t i = 0; st == RUNG_OK && i < g->n_nodes; i++)
        if (!g->nodes[i].dead)
            st = infer_node(&s, &g->nodes[i], err);
    return st;
}
