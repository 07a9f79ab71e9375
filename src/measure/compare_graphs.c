/* The three graphs that a comparison runs: the float model and the int8 model with their values
 * shown, and the int8 model with each layer alone. */
#include "base/mem.h"
#include "measure/compare_parts.h"

/* v as an output of g: its place among the outputs, made where it is none yet. */
static rung_status show(graph *g, int v, int *at, rung_error *err)
{
    for (int i = 0; i < g->n_outputs && g->values[v].is_output; i++)
        if (g->outputs[i] == v) {
            *at = i;
            return RUNG_OK;
        }
    *at = g->n_outputs;
    return graph_mark_output(g, v, err);
}

rung_status compare_shown_reference(const comparison *c, const pairing *p, graph **out, int *at,
                                    rung_error *err)
{
    rung_status st = graph_clone(p->reference, out, err);
    for (size_t i = 0; i < c->n_tensors && st == RUNG_OK; i++)
        st = show(*out, p->pairs[i].match, &at[i], err);
    return st;
}

rung_status compare_shown_model(const comparison *c, const pairing *p, graph **out, int *at,
                                rung_error *err)
{
    rung_status st = graph_clone(p->g, out, err);
    for (size_t i = 0; i < c->n_tensors && st == RUNG_OK; i++)
        st = show(*out, p->pairs[i].y, &at[i], err);
    return st;
}

static int add_node(graph *g, const char *op_type, const pair *q, int in)
{
    const int out = graph_add_value(g, "exact", RUNG_UNDEFINED, -1, NULL);
    const int inputs[] = { in, q->scale, q->zero };
    if (out < 0 || graph_add_node(g, op_type, "", "", inputs, q->zero < 0 ? 2 : 3, &out, 1) < 0)
        return -1;
    return out;
}

/* Who read value v reads a new pair instead, behind a new input. */
static rung_status feed_exact(graph *g, const pair *q, const int *readers, size_t n_readers,
                              const tensor *like, rung_error *err)
{
    const int in = graph_add_value(g, "exact", RUNG_F32, like->rank, like->dims);
    const int codes = in < 0 ? -1 : add_node(g, "QuantizeLinear", q, in);
    const int out = codes < 0 ? -1 : add_node(g, "DequantizeLinear", q, codes);
    if (out < 0)
        return fail_memory(err, "a comparison's graph", sizeof(node));
    for (size_t i = 0; i < n_readers; i++)
        graph_replace_uses(g, readers[i], out);
    return graph_mark_input(g, in, err);
}

rung_status compare_alone(const comparison *c, const pairing *p, const tensor *const *exact,
                          graph **out, int *at, rung_error *err)
{
    int *readers = mem_zero(p->g->n_values + 1, sizeof *readers);
    rung_status st = readers ? graph_clone(p->g, out, err)
                             : fail_memory(err, "a comparison's graph", p->g->n_values);
    for (size_t i = 0; i < c->n_tensors && st == RUNG_OK; i++) {
        size_t n = 0;
        for (size_t v = 0; v < p->g->n_values; v++)
            if (p->pair_of[v] == (int)i)
                readers[n++] = (int)v;
        st = feed_exact(*out, &p->pairs[i], readers, n, exact[i], err);
        if (st == RUNG_OK)
            st = show(*out, p->pairs[i].y, &at[i], err);
    }
    mem_free(readers);
    return st == RUNG_OK ? graph_sort(*out, err) : st;
}
