/* A node's forward step: nn's row whose operands change between runs, a movement, or the operator's
 * plain evaluation. */
#include <math.h>

#include "graph/pass.h"
#include "nn/backward.h"
#include "ops/lower.h"
#include "train/tape_parts.h"

bool tape_uses_batch(const tape *t, const node *n)
{
    return t->opt.batch_stats && node_is(n, "BatchNormalization") && n->n_inputs == 5;
}

rung_status tape_lowering(tape *t, const node *n, lowering *l, rung_error *err)
{
    const node_layout *layout = &t->layouts[n - t->g->nodes];
    operand *in = arena_zero(t->mem, (size_t)n->n_inputs + 1, sizeof *in);
    operand *out = arena_zero(t->mem, (size_t)n->n_outputs + 1, sizeof *out);
    if (!in || !out)
        return tape_out_of_memory(err);
    for (int i = 0; i < n->n_inputs; i++)
        if (n->inputs[i] >= 0)
            in[i] = tape_operand(t, n->inputs[i], tape_input_last(t, n, i));
    for (int i = 0; i < n->n_outputs; i++)
        if (n->outputs[i] >= 0)
            out[i] = tape_operand(t, n->outputs[i], layout->out);
    *l = (lowering){.n = n,
                    .opset = graph_opset(t->g, n->domain),
                    .in = in,
                    .n_in = n->n_inputs,
                    .out = out,
                    .n_out = n->n_outputs,
                    .q_hi = 255,
                    .epi = {.add = -1, .lo = -INFINITY, .hi = INFINITY},
                    .n_threads = team_size(t->threads),
                    .mem = t->mem};
    return RUNG_OK;
}

/* --- plain evaluation ------------------------------------------------------------------------- */
typedef struct plain {
    const node   *n;
    int64_t       opset;
    tensor       *in, *out;
    tape_failure *failure;
} plain;

static void run_plain(const step *s, void *const *bufs, void *scratch, int thread, int n_threads)
{
    const plain *e = s->params;
    arena *mem = arena_new();
    if (!mem) {
        e->failure->status = fail_memory(&e->failure->error, "temporaries", 1);
        return;
    }
    for (int i = 0; i < e->n->n_inputs; i++)
        e->in[i].data = bufs[i];
    for (int i = 0; i < e->n->n_outputs; i++)
        e->out[i].data = bufs[e->n->n_inputs + i];
    const eval_args a = {.n = e->n, .opset = e->opset, .in = e->in, .n_in = e->n->n_inputs,
                         .out = e->out, .n_out = e->n->n_outputs, .mem = mem};
    e->failure->status = e->n->op->eval(&a, &e->failure->error);
    arena_free(mem);
}

static rung_status plain_step(tape *t, const node *n, step *s, tape_failure **failure,
                              rung_error *err)
{
    if (!n->op || !n->op->eval || n->n_captures)
        return fail(err, RUNG_EUNSUPPORTED, "rung cannot execute %s%s%s", n->domain,
                    n->domain[0] ? "." : "", n->op_type);
    plain *e = arena_zero(t->mem, 1, sizeof *e);
    tensor *all = arena_zero(t->mem, (size_t)(n->n_inputs + n->n_outputs) + 1, sizeof *all);
    tape_failure *f = arena_zero(t->mem, 1, sizeof *f);
    if (!e || !all || !f)
        return tape_out_of_memory(err);
    *e = (plain){.n = n, .opset = graph_opset(t->g, n->domain), .in = all,
                 .out = all + n->n_inputs, .failure = f};
    for (int i = 0; i < n->n_inputs + n->n_outputs; i++) {
        const int v = i < n->n_inputs ? n->inputs[i] : n->outputs[i - n->n_inputs];
        if (v >= 0)
            all[i] = tape_tensor(t, v);
    }
    *failure = f;
    *s = (step){.kernel = "eval", .run = run_plain, .params = e, .library = true};
    return RUNG_OK;
}

/* --- the step --------------------------------------------------------------------------------- */

/* Cells of the operands, then of the outputs; a view's output is its input. */
static rung_status add_step(tape *t, const node *n, const step *s, bool plain_layout,
                            tape_failure *failure, rung_error *err)
{
    const int n_in = n->n_inputs, n_out = n->n_outputs;
    const bool out_last = !plain_layout && t->layouts[n - t->g->nodes].out;
    int *cells = arena_zero(t->mem, (size_t)(n_in + n_out) + 1, sizeof *cells);
    rung_status st = cells ? RUNG_OK : tape_out_of_memory(err);
    for (int i = 0; i < n_in && st == RUNG_OK; i++) {
        cells[i] = NO_CELL;
        if (n->inputs[i] >= 0)
            st = tape_need(t, n->inputs[i], !plain_layout && tape_input_last(t, n, i), &cells[i],
                           err);
    }
    for (int i = 0; i < n_out && st == RUNG_OK; i++) {
        const int v = n->outputs[i];
        cells[n_in + i] = NO_CELL;
        if (v < 0)
            continue;
        if (s->view)
            cells[n_in + i] = cells[0];
        else
            st = cell_new(t, v, &cells[n_in + i], err);
        if (st == RUNG_OK)
            t->cell_of[v][out_last && tape_may_be_last(t, v)] = cells[n_in + i];
    }
    if (st != RUNG_OK || s->view)
        return st;
    return tape_add(t, s, n, cells, n_in + n_out, n_in, failure, err);
}

/* nn's row or a movement; RUNG_EUNSUPPORTED: there is none. */
static rung_status fast_step(tape *t, const node *n, step *s, rung_error *err)
{
    lowering l;
    if (!n->op || n->n_captures)
        return fail(err, RUNG_EUNSUPPORTED, "no row for %s", n->op_type);
    const rung_status st = tape_lowering(t, n, &l, err);
    if (st != RUNG_OK)
        return st;
    return lower_moves(n->op) ? n->op->lower(&l, s, err) : nn_lower_training(&l, s, err);
}

static rung_status note_moments(tape *t, const node *n, const int batch[2], rung_error *err)
{
    for (int i = 0; i < 2; i++) {
        const int v = n->inputs[3 + i];
        if (!tape_is_param(t, v))
            continue;
        moment *grown =
            arena_grow(t->mem, t->moments, &t->cap_moments, t->n_moments + 1, sizeof *grown);
        if (!grown)
            return tape_out_of_memory(err);
        t->moments = grown;
        const param *p = &t->p->list[t->p->at[v]];
        const float own = node_float(n, "momentum", 0.9f);
        grown[t->n_moments++] = (moment){p->first, p->count, batch[i],
                                         t->opt.momentum > 0 ? t->opt.momentum : own};
    }
    return RUNG_OK;
}

static rung_status batchnorm_step(tape *t, const node *n, rung_error *err)
{
    lowering l;
    step s = {0};
    const bool last = t->layouts[n - t->g->nodes].out && tape_may_be_last(t, n->outputs[0]);
    const size_t size = tape_count(t, n->inputs[1]) * sizeof(float);
    int cells[6];
    rung_status st = tape_lowering(t, n, &l, err);
    if (st == RUNG_OK)
        st = nn_lower_batchnorm_training(&l, &s, err);
    for (int i = 0; i < 3 && st == RUNG_OK; i++)
        st = tape_need(t, n->inputs[i], tape_input_last(t, n, i), &cells[i], err);
    if (st == RUNG_OK)
        st = cell_new(t, n->outputs[0], &cells[3], err);
    for (int i = 4; i < 6 && st == RUNG_OK; i++)
        st = cell_of_bytes(t, size, &cells[i], err);
    if (st == RUNG_OK)
        st = note_moments(t, n, cells + 4, err);
    if (st != RUNG_OK)
        return st;
    t->cell_of[n->outputs[0]][last] = cells[3];
    t->batch_of[n->outputs[0]] = cells[4]; /* the variance is the next */
    return tape_add(t, &s, n, cells, 6, 3, NULL, err);
}

rung_status tape_node(tape *t, const node *n, rung_error *err)
{
    step s = {0};
    tape_failure *failure = NULL;
    rung_error why = {""};
    if (tape_uses_batch(t, n))
        return tape_label(t, n, batchnorm_step(t, n, err), err);
    rung_status st = fast_step(t, n, &s, &why);
    const bool plain_layout = st == RUNG_EUNSUPPORTED;
    if (plain_layout)
        st = plain_step(t, n, &s, &failure, err);
    else if (st != RUNG_OK)
        return tape_label(t, n, fail(err, st, "%s", why.message), err);
    if (st == RUNG_OK)
        st = add_step(t, n, &s, plain_layout, failure, err);
    return tape_label(t, n, st, err);
}
