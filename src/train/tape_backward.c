/* The reverse walk: each node that lies between a parameter and an output gets the step that makes
 * the gradients of its operands out of those of its outputs. */
#include "graph/pass.h"
#include "nn/backward.h"
#include "ops/lower.h"
#include "train/tape_parts.h"

/* --- plain gradients -------------------------------------------------------------------------- */
typedef struct plain_grad {
    const node   *n;
    int64_t       opset;
    tensor       *in, *out, *dout, *din;
    tape_failure *failure;
} plain_grad;

static void bind_tensors(tensor *list, int n, void *const *bufs)
{
    for (int i = 0; i < n; i++)
        list[i].data = bufs[i];
}

static void run_plain_grad(const step *s, void *const *bufs, void *scratch, int thread,
                           int n_threads)
{
    const plain_grad *e = s->params;
    const int n_in = e->n->n_inputs, n_out = e->n->n_outputs;
    arena *mem = arena_new();
    if (!mem) {
        e->failure->status = fail_memory(&e->failure->error, "temporaries", 1);
        return;
    }
    bind_tensors(e->in, n_in, bufs);
    bind_tensors(e->out, n_out, bufs + n_in);
    bind_tensors(e->dout, n_out, bufs + n_in + n_out);
    bind_tensors(e->din, n_in, bufs + n_in + 2 * n_out);
    const grad_args a = {.n = e->n, .opset = e->opset, .in = e->in, .n_in = n_in, .out = e->out,
                         .n_out = n_out, .dout = e->dout, .din = e->din, .mem = mem};
    e->failure->status = e->n->op->grad(&a, &e->failure->error);
    arena_free(mem);
}

static rung_status plain_grad_step(tape *t, const node *n, step *s, tape_failure **failure,
                                   rung_error *err)
{
    const int n_in = n->n_inputs, n_out = n->n_outputs;
    if (!n->op || !n->op->grad)
        return fail(err, RUNG_EUNSUPPORTED, "rung has no gradient of %s%s%s", n->domain,
                    n->domain[0] ? "." : "", n->op_type);
    plain_grad *e = arena_zero(t->mem, 1, sizeof *e);
    tensor *all = arena_zero(t->mem, 2 * (size_t)(n_in + n_out) + 1, sizeof *all);
    tape_failure *f = arena_zero(t->mem, 1, sizeof *f);
    if (!e || !all || !f)
        return tape_out_of_memory(err);
    *e = (plain_grad){.n = n, .opset = graph_opset(t->g, n->domain), .in = all,
                      .out = all + n_in, .dout = all + n_in + n_out,
                      .din = all + n_in + 2 * n_out, .failure = f};
    for (int i = 0; i < n_in; i++)
        if (n->inputs[i] >= 0)
            e->in[i] = e->din[i] = tape_tensor(t, n->inputs[i]);
    for (int i = 0; i < n_out; i++)
        if (n->outputs[i] >= 0)
            e->out[i] = e->dout[i] = tape_tensor(t, n->outputs[i]);
    *failure = f;
    *s = (step){.kernel = "grad", .run = run_plain_grad, .params = e, .library = true};
    return RUNG_OK;
}

/* --- the cells of a step ---------------------------------------------------------------------- */
typedef struct back {
    const node *n;
    unsigned    wanted;
    bool        plain; /* all in ONNX order */
    int        *in, *out, *dout, *din; /* cells, in the order of the step's buffers */
    int         n_cells;
} back;

static bool in_last(const tape *t, const back *b, int i)
{
    return !b->plain && tape_input_last(t, b->n, i);
}

static rung_status need_inputs(tape *t, back *b, rung_error *err)
{
    const node *n = b->n;
    rung_status st = RUNG_OK;
    for (int i = 0; i < n->n_inputs && st == RUNG_OK; i++) {
        const int v = n->inputs[i];
        const bool reads = n->op->reads.in >> (i < 31 ? i : 31) & 1;
        /* Indices, shapes and bounds are always there. */
        if (v >= 0 && (reads || t->constant[v] || t->info[v].type != RUNG_F32))
            st = tape_need(t, v, in_last(t, b, i), &b->in[i], err);
    }
    return st;
}

static rung_status need_outputs(tape *t, back *b, rung_error *err)
{
    const node *n = b->n;
    const bool last = !b->plain && t->layouts[n - t->g->nodes].out;
    rung_status st = RUNG_OK;
    for (int i = 0; i < n->n_outputs && st == RUNG_OK; i++) {
        const int v = n->outputs[i];
        if (v >= 0 && n->op->reads.out >> (i < 31 ? i : 31) & 1)
            st = tape_need(t, v, last, &b->out[i], err);
        if (st == RUNG_OK && v >= 0)
            st = tape_grad(t, v, last, &b->dout[i], err);
    }
    return st;
}

static rung_status back_begin(tape *t, const node *n, unsigned wanted, bool plain_layout, back *b,
                              rung_error *err)
{
    const int n_in = n->n_inputs, n_out = n->n_outputs, all = 2 * (n_in + n_out);
    int *cells = arena_alloc(t->mem, ((size_t)all + 1) * sizeof *cells);
    if (!cells)
        return tape_out_of_memory(err);
    for (int i = 0; i < all; i++)
        cells[i] = NO_CELL;
    *b = (back){.n = n, .wanted = wanted, .plain = plain_layout, .in = cells, .out = cells + n_in,
                .dout = cells + n_in + n_out, .din = cells + n_in + 2 * n_out, .n_cells = all};
    rung_status st = need_inputs(t, b, err);
    if (st == RUNG_OK)
        st = need_outputs(t, b, err);
    for (int i = 0; i < n_in && st == RUNG_OK; i++)
        if (wanted >> i & 1)
            st = cell_new(t, n->inputs[i], &b->din[i], err);
    return st;
}

static rung_status contribute_all(tape *t, const back *b, rung_error *err)
{
    rung_status st = RUNG_OK;
    for (int i = 0; i < b->n->n_inputs && st == RUNG_OK; i++)
        if (b->din[i] != NO_CELL)
            st = tape_contribute(t, b->n->inputs[i], b->din[i], in_last(t, b, i), err);
    return st;
}

/* --- operators whose gradient is that of their output, as it is ------------------------------- */
static bool same_dims(const tape *t, int a, int b)
{
    const value_info *x = &t->info[a], *y = &t->info[b];
    bool same = x->rank == y->rank;
    for (int i = 0; same && i < x->rank; i++)
        same = x->dims[i] == y->dims[i];
    return same;
}

static bool passes_on(const tape *t, const node *n, int i)
{
    if (node_is(n, "Add") || node_is(n, "Sum"))
        return same_dims(t, n->inputs[i], n->outputs[0]);
    return i == 0 && node_is(n, "Identity");
}

/* Contributes to the operands for which there is nothing to compute and takes them off *wanted. */
static rung_status pass_on(tape *t, const node *n, unsigned *wanted, rung_error *err)
{
    const bool out_last = t->layouts[n - t->g->nodes].out;
    const bool views = n->op && n->op->lower == lower_view;
    int g;
    rung_status st = RUNG_OK;
    for (int i = 0; i < n->n_inputs && i < 32 && st == RUNG_OK; i++) {
        if (!(*wanted >> i & 1) || !(views ? i == 0 : passes_on(t, n, i)))
            continue;
        st = tape_grad(t, n->outputs[0], !views && out_last, &g, err);
        if (st == RUNG_OK)
            st = tape_contribute(t, n->inputs[i], g, !views && out_last, err);
        *wanted &= ~(1u << i);
    }
    return st;
}

/* --- nodes ------------------------------------------------------------------------------------ */
static rung_status batchnorm_backward(tape *t, const node *n, unsigned wanted, rung_error *err)
{
    lowering l;
    step s = {0};
    const int batch = t->batch_of[n->outputs[0]];
    int cells[8] = {NO_CELL, NO_CELL, batch, batch + 1, NO_CELL, NO_CELL, NO_CELL, NO_CELL};
    rung_status st = tape_lowering(t, n, &l, err);
    if (st == RUNG_OK)
        st = nn_lower_batchnorm_backward(&l, &s, err);
    for (int i = 0; i < 2 && st == RUNG_OK; i++)
        st = tape_need(t, n->inputs[i], tape_input_last(t, n, i), &cells[i], err);
    if (st == RUNG_OK)
        st = tape_grad(t, n->outputs[0], l.out[0].channels_last, &cells[4], err);
    for (int i = 0; i < 3 && st == RUNG_OK; i++)
        st = cell_new(t, n->inputs[i], &cells[5 + i], err);
    if (st == RUNG_OK)
        st = tape_add(t, &s, n, cells, 8, -1, NULL, err);
    for (int i = 0; i < 3 && st == RUNG_OK; i++)
        if (wanted >> i & 1)
            st = tape_contribute(t, n->inputs[i], cells[5 + i], tape_input_last(t, n, i), err);
    return st;
}

static unsigned wanted_of(const tape *t, const node *n)
{
    unsigned wanted = 0;
    for (int i = 0; i < n->n_inputs && i < 32; i++)
        if (n->inputs[i] >= 0 && t->active[n->inputs[i]])
            wanted |= 1u << i;
    return wanted;
}

static rung_status node_backward(tape *t, const node *n, rung_error *err)
{
    unsigned wanted = wanted_of(t, n);
    step s = {0};
    lowering l;
    back b = {.n = n};
    tape_failure *failure = NULL;
    rung_error why = {""};
    rung_status st = pass_on(t, n, &wanted, err);
    if (st == RUNG_OK && wanted == 0 && node_is(n, "DequantizeLinear"))
        return fail(err, RUNG_EUNSUPPORTED, "the pair is none of 8 bits with constant zero point");
    if (st != RUNG_OK || wanted == 0)
        return st;
    if (tape_uses_batch(t, n))
        return batchnorm_backward(t, n, wanted, err);
    if ((st = tape_lowering(t, n, &l, err)) != RUNG_OK)
        return st;
    st = nn_lower_backward(&l, wanted, &s, &why);
    const bool plain_layout = st == RUNG_EUNSUPPORTED;
    if (plain_layout)
        st = plain_grad_step(t, n, &s, &failure, err);
    else if (st != RUNG_OK)
        return fail(err, st, "%s", why.message);
    if (st == RUNG_OK)
        st = back_begin(t, n, wanted, plain_layout, &b, err);
    s.in_place = false;
    if (st == RUNG_OK)
        st = tape_add(t, &s, n, b.in, b.n_cells, -1, failure, err);
    return st == RUNG_OK ? contribute_all(t, &b, err) : st;
}

static bool has_gradient(const tape *t, const node *n)
{
    for (int i = 0; i < n->n_outputs; i++)
        if (n->outputs[i] >= 0 && t->grad[n->outputs[i]] != NO_CELL)
            return true;
    return false;
}

rung_status tape_walk(tape *t, rung_error *err)
{
    rung_status st = RUNG_OK;
    for (size_t i = t->g->n_nodes; i-- > 0 && st == RUNG_OK;) {
        const node *n = &t->g->nodes[i];
        if (n->dead || !has_gradient(t, n))
            continue;
        pair *q = tape_pair_of(t, n);
        st = q ? tape_pair_backward(t, q, err) : node_backward(t, n, err);
        st = tape_label(t, n, st, err);
    }
    return st;
}
