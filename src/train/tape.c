/* Making a tape, and its border. */
#include "train/tape.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "quant/qat.h"
#include "train/tape_parts.h"

/* --- what is known of the graph --------------------------------------------------------------- */

static rung_status input_dims(const tape *t, int i, tensor *x, rung_error *err)
{
    const value *v = &t->g->values[t->g->inputs[i]];
    const int64_t samples = (int64_t)t->opt.batch;
    if (v->rank < 1)
        return fail(err, RUNG_EUNSUPPORTED, "input '%s' has no first dimension for samples",
                    v->name);
    *x = (tensor){.type = v->type, .rank = v->rank};
    memcpy(x->dims, v->dims, sizeof x->dims);
    if (x->dims[0] == DIM_UNKNOWN)
        x->dims[0] = samples;
    if (x->dims[0] != samples)
        return fail(err, RUNG_EARGUMENT, "input '%s' is made for %lld samples at once, not %lld",
                    v->name, (long long)x->dims[0], (long long)samples);
    for (int k = 1; k < x->rank; k++) {
        if (x->dims[k] < 0 && t->opt.input_dims && t->opt.input_dims[i])
            x->dims[k] = t->opt.input_dims[i][k];
        if (x->dims[k] < 0)
            return fail(err, RUNG_EARGUMENT, "dimension %d of input '%s' is not known, give it", k,
                        v->name);
    }
    return RUNG_OK;
}

static rung_status infer(tape *t, rung_error *err)
{
    const int64_t **dims = arena_zero(t->mem, (size_t)t->n_inputs + 1, sizeof *dims);
    rung_status st = dims ? RUNG_OK : tape_out_of_memory(err);
    for (int i = 0; i < t->n_inputs && st == RUNG_OK; i++) {
        st = input_dims(t, i, &t->inputs[i], err);
        dims[i] = t->inputs[i].dims;
    }
    if (st == RUNG_OK)
        st = graph_infer(t->g, dims, t->mem, t->info, err);
    for (size_t v = 0; v < t->g->n_values && st == RUNG_OK; v++) {
        const value *at = &t->g->values[v];
        if (!tape_is_param(t, (int)v) && !at->is_input)
            t->constant[v] = at->constant ? at->constant : t->info[v].data;
    }
    return st;
}

static rung_status make_arrays(tape *t, rung_error *err)
{
    const size_t n = t->g->n_values + 1, in = (size_t)t->n_inputs + 1,
                 out = (size_t)t->n_outputs + 1;
    t->info = arena_zero(t->mem, n, sizeof *t->info);
    t->constant = arena_zero(t->mem, n, sizeof *t->constant);
    t->cell_of = arena_zero(t->mem, n, sizeof *t->cell_of);
    t->home = arena_zero(t->mem, n, sizeof *t->home);
    t->active = arena_zero(t->mem, n, sizeof *t->active);
    t->grad = arena_zero(t->mem, n, sizeof *t->grad);
    t->batch_of = arena_zero(t->mem, n, sizeof *t->batch_of);
    t->stack = arena_zero(t->mem, n, sizeof *t->stack);
    t->pair_at = arena_zero(t->mem, t->g->n_nodes + 1, sizeof *t->pair_at);
    t->layouts = arena_zero(t->mem, t->g->n_nodes + 1, sizeof *t->layouts);
    t->inputs = arena_zero(t->mem, in, sizeof *t->inputs);
    t->input_cells = arena_zero(t->mem, in, sizeof *t->input_cells);
    t->outputs = arena_zero(t->mem, out, sizeof *t->outputs);
    t->output_values = arena_zero(t->mem, out, sizeof *t->output_values);
    t->output_cells = arena_zero(t->mem, out, sizeof *t->output_cells);
    t->output_grads = arena_zero(t->mem, out, sizeof *t->output_grads);
    if (!t->info || !t->constant || !t->cell_of || !t->home || !t->active || !t->grad ||
        !t->batch_of || !t->stack || !t->pair_at || !t->layouts || !t->inputs ||
        !t->input_cells || !t->outputs || !t->output_values || !t->output_cells ||
        !t->output_grads)
        return tape_out_of_memory(err);
    if (t->opt.observe &&
        !(t->seen = arena_alloc(t->mem, (2 * t->p->n + 1) * sizeof *t->seen)))
        return tape_out_of_memory(err);
    for (size_t v = 0; v < n; v++)
        t->cell_of[v][0] = t->cell_of[v][1] = t->grad[v] = NO_CELL;
    return RUNG_OK;
}

/* --- what is wanted --------------------------------------------------------------------------- */

static bool learns(const tape *t, int v)
{
    if (!tape_is_param(t, v))
        return false;
    switch (t->p->list[t->p->at[v]].kind) {
    case PARAM_STATE: return false;
    case PARAM_ACT_SCALE: return t->opt.learn_act_scales;
    case PARAM_WEIGHT_SCALE: return t->opt.learn_weight_scales;
    default: return true;
    }
}

/* In a prepared graph what is seen of a value is what its pair makes of it: nothing else is there
 * in the deployed model. */
static int seen_value(const tape *t, int v)
{
    for (int i = t->use.first[v]; t->prepared && i < t->use.first[v + 1]; i++) {
        const pair *q = t->pair_at[t->use.list[i]];
        if (q && q->x == v)
            return q->y;
    }
    return v;
}

static void note_outputs(tape *t)
{
    for (int i = 0; i < t->n_outputs; i++)
        t->output_values[i] = i < t->g->n_outputs
                                  ? t->g->outputs[i]
                                  : seen_value(t, t->opt.extra[i - t->g->n_outputs]);
}

/* reaches: of what is used on the way to an output; active: of those behind a parameter. */
static void mark(tape *t, bool *reaches)
{
    const graph *g = t->g;
    for (size_t v = 0; v < g->n_values; v++)
        t->active[v] = learns(t, (int)v);
    for (size_t i = 0; i < g->n_nodes; i++) { /* the data's range is known */
        const pair *q = t->pair_at[i];
        if (q && g->values[q->x].is_input)
            t->active[q->scale] = false;
    }
    for (int i = 0; i < t->n_outputs; i++)
        reaches[t->output_values[i]] = true;
    for (size_t i = 0; i < g->n_nodes; i++) {
        const node *n = &g->nodes[i];
        bool any = false;
        for (int k = 0; k < n->n_inputs && !n->dead; k++)
            any |= n->inputs[k] >= 0 && t->active[n->inputs[k]];
        for (int k = 0; k < n->n_outputs && any; k++)
            if (n->outputs[k] >= 0)
                t->active[n->outputs[k]] = true;
    }
    for (size_t i = g->n_nodes; i-- > 0;) {
        const node *n = &g->nodes[i];
        bool any = false;
        for (int k = 0; k < n->n_outputs && !n->dead; k++)
            any |= n->outputs[k] >= 0 && reaches[n->outputs[k]];
        for (int k = 0; k < n->n_inputs && any; k++)
            if (n->inputs[k] >= 0)
                reaches[n->inputs[k]] = true;
    }
    for (size_t v = 0; v < g->n_values; v++)
        t->active[v] = t->active[v] && reaches[v] && t->info[v].type == RUNG_F32;
}

/* --- the list of steps ------------------------------------------------------------------------ */

static rung_status make_inputs(tape *t, rung_error *err)
{
    rung_status st = RUNG_OK;
    for (int i = 0; i < t->n_inputs && st == RUNG_OK; i++) {
        const int v = t->g->inputs[i];
        st = cell_new(t, v, &t->input_cells[i], err);
        t->cell_of[v][0] = t->input_cells[i];
    }
    return st;
}

/* In the order of the graph, as far as an output needs it. */
static rung_status make_forward(tape *t, const bool *reaches, rung_error *err)
{
    rung_status st = RUNG_OK;
    int c;
    for (size_t i = 0; i < t->g->n_nodes && st == RUNG_OK; i++) {
        const node *n = &t->g->nodes[i];
        const pair *q = t->pair_at[i];
        for (int k = 0; k < n->n_outputs && st == RUNG_OK && !n->dead; k++) {
            const int v = n->outputs[k];
            if (v >= 0 && reaches[v] && (!q || q->y == v) && !t->constant[v])
                st = tape_need(t, v, t->home[v], &c, err);
        }
    }
    for (int i = 0; i < t->n_outputs && st == RUNG_OK; i++)
        st = tape_need(t, t->output_values[i], false, &t->output_cells[i], err);
    return st;
}

static rung_status make_backward(tape *t, rung_error *err)
{
    rung_status st = RUNG_OK;
    t->n_forward = t->n_steps;
    for (int i = 0; i < t->n_outputs && st == RUNG_OK; i++) {
        const int v = t->output_values[i];
        t->output_grads[i] = NO_CELL;
        if (t->info[v].type != RUNG_F32)
            continue;
        st = cell_new(t, v, &t->output_grads[i], err);
        if (st == RUNG_OK)
            st = tape_contribute(t, v, t->output_grads[i], false, err);
    }
    if (st == RUNG_OK)
        st = tape_walk(t, err);
    return st == RUNG_OK && t->seen ? tape_watch_rest(t, err) : st;
}

static rung_status make_steps(tape *t, rung_error *err)
{
    bool *reaches = arena_zero(t->mem, t->g->n_values + 1, sizeof *reaches);
    if (!reaches)
        return tape_out_of_memory(err);
    note_outputs(t);
    mark(t, reaches);
    rung_status st = t->prepared ? tape_first_engine(t, err) : RUNG_OK;
    if (st != RUNG_OK)
        return st;
    tape_layouts(t);
    if ((st = make_inputs(t, err)) != RUNG_OK)
        return st;
    for (int i = 0; i < t->n_outputs; i++)
        t->output_cells[i] = NO_CELL;
    if (!t->prepared && (st = make_forward(t, reaches, err)) != RUNG_OK)
        return st;
    return make_backward(t, err);
}

/* The tensors at the border: their cells have their places now. */
static void make_border(tape *t)
{
    for (int i = 0; i < t->n_inputs; i++)
        t->inputs[i].data = t->cells[t->input_cells[i]].data;
    for (int i = 0; i < t->n_outputs; i++)
        t->outputs[i] = tape_tensor(t, t->output_values[i]);
}

/* --- the contract ----------------------------------------------------------------------------- */

static rung_status check_options(const graph *g, const tape_options *opt, rung_error *err)
{
    if (opt->batch < 1 || opt->batch > INT32_MAX)
        return fail(err, RUNG_EARGUMENT, "a run of %zu samples", opt->batch);
    for (int i = 0; i < opt->n_extra; i++)
        if (opt->extra[i] < 0 || (size_t)opt->extra[i] >= g->n_values)
            return fail(err, RUNG_EARGUMENT, "extra output %d is no value of the graph", i);
    return RUNG_OK;
}

static rung_status build(tape *t, rung_error *err)
{
    rung_status st = team_create(t->opt.n_threads, &t->threads, err);
    if (st != RUNG_OK || (st = make_arrays(t, err)) != RUNG_OK ||
        (st = infer(t, err)) != RUNG_OK ||
        (st = graph_uses(t->g, t->mem, &t->use, err)) != RUNG_OK ||
        (st = tape_find_pairs(t, err)) != RUNG_OK || (st = make_steps(t, err)) != RUNG_OK ||
        (st = tape_place(t, err)) != RUNG_OK)
        return st;
    make_border(t);
    return RUNG_OK;
}

rung_status tape_create(const graph *g, const params *p, const tape_options *opt, tape **out,
                        rung_error *err)
{
    *out = NULL;
    rung_status st = check_options(g, opt, err);
    if (st != RUNG_OK)
        return st;
    tape *t = mem_zero(1, sizeof *t);
    if (!t || !(t->mem = arena_new())) {
        st = tape_out_of_memory(err);
        goto done;
    }
    t->g = g;
    t->p = p;
    t->opt = *opt;
    t->prepared = qat_is_prepared(g);
    t->n_inputs = g->n_inputs;
    t->n_outputs = g->n_outputs + opt->n_extra;
    if ((st = build(t, err)) != RUNG_OK)
        goto done;
    *out = t;
    t = NULL;
done:
    tape_free(t);
    return st;
}

void tape_free(tape *t)
{
    if (!t)
        return;
    engine_free(t->e);
    graph_free(t->converted);
    team_free(t->threads);
    arena_free(t->mem);
    mem_free(t->buffer);
    mem_free(t->scratch);
    mem_free(t);
}

int tape_n_inputs(const tape *t)
{
    return t->n_inputs;
}

const tensor *tape_input(const tape *t, int i)
{
    return &t->inputs[i];
}

int tape_n_outputs(const tape *t)
{
    return t->n_outputs;
}

const tensor *tape_output(const tape *t, int i)
{
    return &t->outputs[i];
}

float *tape_output_grad(const tape *t, int i)
{
    return t->output_grads[i] == NO_CELL ? NULL : t->cells[t->output_grads[i]].data;
}

static void move_moments(const tape *t, const float *data, float *state)
{
    for (size_t i = 0; i < t->n_moments; i++) {
        const moment *m = &t->moments[i];
        const float *own = t->cells[m->batch].data;
        for (size_t k = 0; k < m->count; k++)
            state[m->first + k] =
                m->momentum * data[m->first + k] + (1 - m->momentum) * own[k];
    }
}

rung_status tape_forward(tape *t, const float *data, bool changed, float *state, rung_error *err)
{
    rung_status st = RUNG_OK;
    if (t->prepared)
        return tape_run_engine(t, data, changed, err);
    tape_bind(t, data, NULL);
    if ((st = tape_run_steps(t, 0, t->n_forward, err)) != RUNG_OK)
        return st;
    for (int i = 0; i < t->n_outputs; i++)
        t->outputs[i].data = t->cells[t->output_cells[i]].data;
    if (state)
        move_moments(t, data, state);
    return RUNG_OK;
}

rung_status tape_backward(tape *t, const float *data, float *grad, rung_error *err)
{
    if (t->prepared && !t->e)
        return fail(err, RUNG_EARGUMENT, "there was no forward run to go back from");
    for (size_t i = 0; t->seen && i < 2 * t->p->n; i++)
        t->seen[i] = -INFINITY;
    tape_bind(t, data, grad);
    return tape_run_steps(t, t->n_forward, t->n_steps, err);
}

const float *tape_seen(const tape *t)
{
    return t->seen;
}

size_t tape_bytes(const tape *t)
{
    return t->buffer_bytes + t->scratch_bytes * (size_t)team_size(t->threads) +
           arena_bytes(t->mem) + (t->e ? engine_bytes(t->e) : 0) +
           (t->converted ? arena_bytes(t->converted->mem) : 0);
}
