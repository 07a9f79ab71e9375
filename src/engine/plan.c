/* Making a plan, from the graph's copy to the last buffer. */
#include "engine/plan.h"

#include "base/mem.h"
#include "graph/rewrite.h"

static rung_status check_inputs(const plan *p, rung_error *err)
{
    for (int i = 0; i < p->g->n_inputs; i++) {
        const value *v = &p->g->values[p->g->inputs[i]];
        const value_info *info = &p->info[p->g->inputs[i]];
        if (info->rank < 0)
            return fail(err, RUNG_EARGUMENT,
                        "input '%s': the model does not say its shape, give it", v->name);
        for (int k = 0; k < info->rank; k++)
            if (info->dims[k] < 0)
                return fail(err, RUNG_EARGUMENT,
                            "input '%s': dimension %d (%s) is not known, give it", v->name, k,
                            v->symbols[k] ? v->symbols[k] : "no name");
    }
    return RUNG_OK;
}

/* What is known before the run: constants, and what shape inference could compute. */
static rung_status note_constants(plan *p, rung_error *err)
{
    const size_t n = p->g->n_values;
    p->constant = arena_zero(p->mem, n + 1, sizeof *p->constant);
    p->slot_of = arena_zero(p->mem, n + 1, sizeof *p->slot_of);
    if (!p->constant || !p->slot_of)
        return fail_memory(err, "the plan", n * sizeof *p->slot_of);
    for (size_t v = 0; v < n; v++) {
        const value *val = &p->g->values[v];
        p->constant[v] = val->constant ? val->constant : val->is_input ? NULL : p->info[v].data;
        for (int f = 0; f < N_FORMS; f++)
            p->slot_of[v][f] = NO_SLOT;
    }
    return RUNG_OK;
}

static rung_status prepare_arrays(plan *p, rung_error *err)
{
    const graph *g = p->g;
    p->unit_at = arena_zero(p->mem, g->n_nodes + 1, sizeof *p->unit_at);
    p->absorbed = arena_zero(p->mem, g->n_nodes + 1, sizeof *p->absorbed);
    p->input_slots = arena_zero(p->mem, (size_t)g->n_inputs + 1, sizeof *p->input_slots);
    p->output_slots = arena_zero(p->mem, (size_t)g->n_outputs + 1, sizeof *p->output_slots);
    if (!p->unit_at || !p->absorbed || !p->input_slots || !p->output_slots)
        return fail_memory(err, "the plan", g->n_nodes * sizeof *p->unit_at);
    return RUNG_OK;
}

static rung_status prepare(plan *p, const engine_options *opt, rung_error *err)
{
    rung_status st = rewrite_prepare(p->g, err);
    if (st != RUNG_OK)
        return st;
    p->info = arena_zero(p->mem, p->g->n_values + 1, sizeof *p->info);
    if (!p->info)
        return fail_memory(err, "the plan", p->g->n_values * sizeof *p->info);
    if ((st = graph_infer(p->g, opt->input_dims, p->mem, p->info, err)) != RUNG_OK ||
        (st = check_inputs(p, err)) != RUNG_OK || (st = note_constants(p, err)) != RUNG_OK ||
        (st = prepare_arrays(p, err)) != RUNG_OK)
        return st;
    return graph_uses(p->g, p->mem, &p->use, err);
}

/* rewrite_prepare may add values at the end: the caller's array of n does not know those. */
static const bool *marks(const plan *p, const bool *from, size_t n)
{
    bool *own = arena_zero(p->mem, p->g->n_values + 1, sizeof *own);
    for (size_t v = 0; own && from && v < n; v++)
        own[v] = from[v];
    return own;
}

rung_status plan_build(const graph *g, const engine_options *opt, int n_threads, plan **out,
                       rung_error *err)
{
    *out = NULL;
    plan *p = mem_zero(1, sizeof *p);
    if (!p)
        return fail_memory(err, "the plan", sizeof *p);
    rung_status st = RUNG_OK;
    p->n_threads = n_threads;
    p->store = opt->packs;
    p->mem = arena_new();
    if (!p->mem) {
        st = fail_memory(err, "the plan", 1);
        goto done;
    }
    st = opt->shares_constants ? graph_clone_shared(g, &p->g, err) : graph_clone(g, &p->g, err);
    if (st != RUNG_OK || (st = prepare(p, opt, err)) != RUNG_OK)
        goto done;
    p->observe = marks(p, opt->observe, g->n_values);
    p->keep = marks(p, opt->keep, g->n_values);
    if (!p->observe || !p->keep) {
        st = fail_memory(err, "the plan", p->g->n_values);
        goto done;
    }
    if ((st = plan_groups(p, err)) != RUNG_OK || (st = plan_emit(p, err)) != RUNG_OK ||
        (st = plan_compose(p, err)) != RUNG_OK || (st = plan_memory(p, err)) != RUNG_OK ||
        (st = plan_segments(p, err)) != RUNG_OK)
        goto done;
    *out = p;
    p = NULL;
done:
    plan_free(p);
    return st;
}

void plan_free(plan *p)
{
    if (!p)
        return;
    crew_free(p->crew);
    arena_free(p->mem);
    graph_free(p->g);
    mem_free(p->buffer);
    mem_free(p->scratch);
    relay_free(p->relay);
    mem_free(p);
}
