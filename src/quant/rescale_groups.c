/* Which products share a factor. */
#include <string.h>

#include "graph/pass.h"
#include "quant/rescale.h"

typedef struct finder {
    const graph      *g;
    const value_info *info;
    uses              u;
    bool             *part;   /* by node index: is one of the products */
    int              *parent; /* by value id: towards the root of its group */
    int              *group;  /* by value id of a root: number of its group + 1 */
} finder;

static bool is_transposed(const node *n)
{
    return node_is(n, "Gemm") && node_int(n, "transB", 0);
}

/* A product with a constant matrix whose inputs are the last axis of a float32 activation. */
static bool is_product(const finder *f, const node *n)
{
    const int x = node_input(n, 0), w = node_input(n, 1);
    const tensor *t = node_constant(f->g, n, 1);
    if (n->dead || (!node_is(n, "MatMul") && !node_is(n, "Gemm")) || node_int(n, "transA", 0) ||
        !t || t->type != RUNG_F32 || t->rank != 2 || tensor_count(t) == 0 || x < 0 || x == w ||
        f->g->values[x].constant || f->g->values[w].is_output)
        return false;
    const value_info *i = &f->info[x];
    return i->type == RUNG_F32 && i->rank >= 2 &&
           i->dims[i->rank - 1] == t->dims[is_transposed(n)];
}

/* Everyone who uses w uses it as the matrix of a product, and all of them in one orientation. */
static bool weight_is_tied(const finder *f, int w)
{
    const node *first = NULL;
    for (int k = f->u.first[w]; k < f->u.first[w + 1]; k++) {
        const node *n = &f->g->nodes[f->u.list[k]];
        if (!f->part[f->u.list[k]] || n->inputs[1] != w)
            return false;
        first = first ? first : n;
        if (is_transposed(n) != is_transposed(first))
            return false;
    }
    return true;
}

/* Until nothing changes: a product that falls out may take others with it. */
static void drop_untied(finder *f)
{
    for (bool more = true; more;) {
        more = false;
        for (size_t i = 0; i < f->g->n_nodes; i++)
            if (f->part[i] && !weight_is_tied(f, f->g->nodes[i].inputs[1])) {
                f->part[i] = false;
                more = true;
            }
    }
}

static int root_of(const finder *f, int v)
{
    while (f->parent[v] != v)
        v = f->parent[v];
    return v;
}

static void append(int *list, size_t *n, int v)
{
    for (size_t i = 0; i < *n; i++)
        if (list[i] == v)
            return;
    list[(*n)++] = v;
}

static bool add_node(const finder *f, size_t i, arena *mem, product_group *list, size_t *n)
{
    const node *at = &f->g->nodes[i];
    int *number = &f->group[root_of(f, at->inputs[0])];
    if (!*number) {
        product_group *p = &list[*n];
        const tensor *w = f->g->values[at->inputs[1]].constant;
        p->in = (size_t)w->dims[is_transposed(at)];
        size_t members = 0;
        for (size_t k = 0; k < f->g->n_nodes; k++)
            members += f->part[k] && root_of(f, f->g->nodes[k].inputs[0]) ==
                                         root_of(f, at->inputs[0]);
        p->nodes = arena_zero(mem, members, sizeof *p->nodes);
        p->xs = arena_zero(mem, members, sizeof *p->xs);
        p->ws = arena_zero(mem, members, sizeof *p->ws);
        if (!p->nodes || !p->xs || !p->ws)
            return false;
        *number = (int)++*n;
    }
    product_group *p = &list[*number - 1];
    p->nodes[p->n_nodes++] = (int)i;
    append(p->xs, &p->n_xs, at->inputs[0]);
    append(p->ws, &p->n_ws, at->inputs[1]);
    return true;
}

static rung_status find(finder *f, const bool *wanted, arena *mem, product_group **out, size_t *n,
                        rung_error *err)
{
    const graph *g = f->g;
    bool good = true;
    for (size_t i = 0; i < g->n_nodes; i++)
        f->part[i] = wanted[i] && is_product(f, &g->nodes[i]);
    drop_untied(f);
    for (size_t v = 0; v < g->n_values; v++)
        f->parent[v] = (int)v;
    for (size_t i = 0; i < g->n_nodes; i++)
        if (f->part[i])
            f->parent[root_of(f, g->nodes[i].inputs[0])] = root_of(f, g->nodes[i].inputs[1]);
    *n = 0;
    *out = arena_zero(mem, g->n_nodes + 1, sizeof **out);
    for (size_t i = 0; *out && i < g->n_nodes && good; i++)
        if (f->part[i])
            good = add_node(f, i, mem, *out, n);
    return *out && good ? RUNG_OK : fail_memory(err, "groups of products", g->n_nodes);
}

rung_status groups_find(const graph *g, const value_info *info, const bool *wanted, arena *mem,
                        product_group **out, size_t *n, rung_error *err)
{
    finder f = { .g = g, .info = info };
    arena *scratch = arena_new();
    f.part = scratch ? arena_zero(scratch, g->n_nodes + 1, sizeof *f.part) : NULL;
    f.parent = f.part ? arena_zero(scratch, g->n_values + 1, sizeof *f.parent) : NULL;
    f.group = f.parent ? arena_zero(scratch, g->n_values + 1, sizeof *f.group) : NULL;
    rung_status st = f.group ? graph_uses(g, scratch, &f.u, err)
                             : fail_memory(err, "groups of products", g->n_values);
    if (st == RUNG_OK)
        st = find(&f, wanted, mem, out, n, err);
    arena_free(scratch);
    return st;
}

tensor *group_weight(const graph *g, const product_group *p, int w, arena *mem)
{
    const tensor *t = g->values[w].constant;
    bool transposed = false;
    for (size_t i = 0; i < p->n_nodes; i++)
        if (g->nodes[p->nodes[i]].inputs[1] == w)
            transposed = is_transposed(&g->nodes[p->nodes[i]]);
    const int64_t dims[2] = { t->dims[transposed], t->dims[!transposed] };
    tensor *m = tensor_new(mem, RUNG_F32, 2, dims);
    const size_t k = (size_t)dims[0], n = (size_t)dims[1];
    const float *from = t->data;
    float *to = m ? m->data : NULL;
    for (size_t i = 0; to && i < k; i++)
        for (size_t j = 0; j < n; j++)
            to[i * n + j] = from[transposed ? j * k + i : i * n + j];
    return m;
}
