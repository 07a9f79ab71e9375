/* MatMul + Add of a constant row -> Gemm. */
#include "graph/pass.h"
#include "graph/rewrite.h"

/* The row that add joins to the product of m: a constant [n], [1,n]; -1: none. */
static int row_operand(const pass *p, const node *add, int product, int64_t n)
{
    const int row = add->inputs[0] == product ? add->inputs[1] : add->inputs[0];
    const tensor *t = row < 0 ? NULL : p->g->values[row].constant;
    if (!t || row == product || t->rank > 2 || (int64_t)tensor_count(t) != n)
        return -1;
    return t->rank == 2 && t->dims[0] != 1 ? -1 : row;
}

/* The same row with rank 1, as a bias is. */
static int as_vector(graph *g, int row, int64_t n)
{
    const tensor *t = g->values[row].constant;
    if (t->rank == 1)
        return row;
    tensor flat = { t->type, 1, { n }, t->data };
    return graph_add_constant(g, g->values[row].name, &flat);
}

static rung_status fuse(pass *p, int index, rung_error *err)
{
    graph *g = p->g;
    node *add = &g->nodes[index], *m = NULL;
    for (int k = 0; k < 2 && !m; k++)
        m = pass_private_maker(p, add->inputs[k], "MatMul");
    if (!m || m->n_inputs != 2)
        return RUNG_OK;
    const value_info *a = pass_info(p, m->inputs[0]), *b = pass_info(p, m->inputs[1]);
    if (a->rank != 2 || b->rank != 2 || b->dims[1] < 0 || a->type != RUNG_F32)
        return RUNG_OK;
    const int row = row_operand(p, add, m->outputs[0], b->dims[1]);
    if (row < 0)
        return RUNG_OK;
    const int in[] = { m->inputs[0], m->inputs[1], as_vector(g, row, b->dims[1]) };
    const int out[] = { add->outputs[0] };
    const char *name = *m->name ? m->name : add->name;
    m->dead = add->dead = true;
    if (in[2] < 0 || graph_add_node(g, "Gemm", "", name, in, 3, out, 1) < 0)
        return fail_memory(err, "fusing MatMul and Add", sizeof *m);
    return RUNG_OK;
}

rung_status rewrite_fuse_matmul_add(graph *g, rung_error *err)
{
    pass p;
    const size_t n_nodes = g->n_nodes;
    rung_status st = pass_begin(&p, g, err);
    if (st == RUNG_OK)
        st = pass_infer(&p, err);
    for (size_t i = 0; st == RUNG_OK && i < n_nodes; i++) {
        const node *n = &g->nodes[i];
        if (node_is(n, "Add") && n->n_inputs == 2 && n->n_outputs == 1 && n->outputs[0] >= 0)
            st = fuse(&p, (int)i, err);
    }
    if (st == RUNG_OK)
        st = graph_sort(g, err);
    pass_end(&p);
    return st;
}
