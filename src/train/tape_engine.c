/* The forward run of a prepared graph: the integer engine on the converted graph. */
#include <string.h>

#include "base/mem.h"
#include "quant/qat.h"
#include "train/tape_parts.h"

/* Values that somebody wants to see beside the outputs are outputs of the converted graph, so that
 * they are float32 and row-major. */
static rung_status mark_extra(const tape *t, graph *g, rung_error *err)
{
    rung_status st = RUNG_OK;
    for (int i = t->g->n_outputs; i < t->n_outputs && st == RUNG_OK; i++)
        st = graph_mark_output(g, t->output_values[i], err);
    return st;
}

static void drop_engine(tape *t)
{
    engine_free(t->e);
    graph_free(t->converted);
    t->e = NULL;
    t->converted = NULL;
}

/* The engine of the converted graph by these parameters takes the place of the one before, which
 * goes first: both would be twice the memory. */
static rung_status make_engine(tape *t, const float *data, rung_error *err)
{
    const float *const *by_value;
    const int64_t **dims = mem_zero((size_t)t->n_inputs + 1, sizeof *dims);
    arena *mem = arena_new();
    rung_status st = dims && mem ? RUNG_OK : tape_out_of_memory(err);
    if (st != RUNG_OK)
        goto done;
    drop_engine(t);
    for (int i = 0; i < t->n_inputs; i++)
        dims[i] = t->inputs[i].dims;
    if ((st = params_by_value(t->p, data, mem, &by_value, err)) != RUNG_OK ||
        (st = qat_convert_shared(t->g, by_value, &t->converted, err)) != RUNG_OK ||
        (st = mark_extra(t, t->converted, err)) != RUNG_OK)
        goto done;
    const engine_options opt = {.n_threads = team_size(t->threads),
                                .input_dims = dims,
                                .keep = t->keep,
                                .shares_constants = true};
    st = engine_create(t->converted, &opt, &t->e, err);
done:
    arena_free(mem);
    mem_free(dims);
    return st;
}

/* Which codes the engine keeps, and in which layout. */
rung_status tape_first_engine(tape *t, rung_error *err)
{
    t->keep = arena_zero(t->mem, t->g->n_values + 1, sizeof *t->keep);
    if (!t->keep)
        return tape_out_of_memory(err);
    for (size_t i = 0; i < t->g->n_nodes; i++)
        if (t->pair_at[i] && t->pair_at[i]->kept)
            t->keep[t->pair_at[i]->codes] = true;
    rung_status st = make_engine(t, t->p->data, err);
    for (size_t i = 0; i < t->g->n_nodes && st == RUNG_OK; i++) {
        pair *q = t->pair_at[i];
        engine_kept k;
        if (!q || !q->kept)
            continue;
        q->kept = engine_codes(t->e, q->codes, &k) && k.count == q->inner;
        t->home[q->codes] = q->kept && k.channels_last;
        if (q->kept && !q->product)
            st = tape_find_product(t, q, err);
    }
    return st;
}

/* The backward steps are made for the plan of the first engine; that of any other parameters is
 * the same. */
static rung_status check_plan(const tape *t, rung_error *err)
{
    for (size_t i = 0; i < t->g->n_nodes; i++) {
        const pair *q = t->pair_at[i];
        engine_kept k;
        if (q && q->kept && (!engine_codes(t->e, q->codes, &k) || k.count != q->inner ||
                             k.channels_last != t->home[q->codes]))
            return fail(err, RUNG_EMODEL, "the codes of '%s' lie otherwise than before",
                        t->g->values[q->x].name);
        if (q && q->product) {
            const rung_status st = tape_renew_product(t, q->product, err);
            if (st != RUNG_OK)
                return st;
        }
    }
    return RUNG_OK;
}

static rung_status renew(tape *t, const float *data, rung_error *err)
{
    rung_status st = make_engine(t, data, err);
    if (st == RUNG_OK)
        st = check_plan(t, err);
    if (st != RUNG_OK)
        drop_engine(t);
    return st;
}

rung_status tape_run_engine(tape *t, const float *data, bool changed, rung_error *err)
{
    rung_status st = changed || !t->e ? renew(t, data, err) : RUNG_OK;
    if (st != RUNG_OK)
        return st;
    for (int i = 0; i < t->n_inputs; i++)
        memcpy(engine_input(t->e, i)->data, t->inputs[i].data,
               dtype_bytes(t->inputs[i].type, tensor_count(&t->inputs[i])));
    if ((st = engine_run(t->e, err)) != RUNG_OK)
        return st;
    for (int i = 0; i < t->n_outputs; i++)
        t->outputs[i].data = engine_output(t->e, i)->data;
    return RUNG_OK;
}
