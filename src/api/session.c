#include "api/handles.h"

#include "api/options.h"
#include "base/mem.h"
#include "engine/engine.h"
#include "measure/measure.h"

struct rung_session {
    engine *e;
    char **names; /* inputs, then outputs; the names are in mem */
    arena *mem;
};

/* Dims of every input for engine_create: the caller's, or declared with unknown first dims = batch.
 */
static rung_status session_dims(const graph *g, const rung_session_options *o, const int64_t **dims,
                                arena *mem, rung_error *err)
{
    for (int i = 0; i < g->n_inputs; i++) {
        const value *v = &g->values[g->inputs[i]];
        const rung_status st = o->inputs ? input_fits(v, &o->inputs[i], 0, err) : RUNG_OK;
        if (st != RUNG_OK)
            return st;
        const int64_t *from = o->inputs ? o->inputs[i].dims : v->dims;
        int64_t *d = arena_copy(mem, from, sizeof v->dims);
        if (!d)
            return fail_memory(err, "input shapes", sizeof v->dims);
        if (!o->inputs && v->rank > 0 && d[0] == DIM_UNKNOWN)
            d[0] = o->batch > 0 ? o->batch : 1;
        dims[i] = d;
    }
    return RUNG_OK;
}

static rung_status copy_names(rung_session *s, const graph *g, rung_error *err)
{
    s->names = arena_zero(s->mem, (size_t)g->n_inputs + (size_t)g->n_outputs + 1, sizeof *s->names);
    bool good = s->names != NULL;
    for (int i = 0; good && i < g->n_inputs + g->n_outputs; i++) {
        const int id = i < g->n_inputs ? g->inputs[i] : g->outputs[i - g->n_inputs];
        s->names[i] = arena_strdup(s->mem, g->values[id].name);
        good = s->names[i] != NULL;
    }
    return good ? RUNG_OK : fail_memory(err, "names", 0);
}

rung_status rung_session_create(const rung_model *model, const rung_session_options *options,
                                rung_session **out, rung_error *err)
{
    rung_session_options opt;
    rung_status st;
    if (!model || !out)
        return fail(err, RUNG_EARGUMENT, "rung_session_create: model and out must not be NULL");
    if ((st = options_copy(&opt, sizeof opt, options, "rung_session_options", err)) != RUNG_OK)
        return st;
    rung_session *s = mem_zero(1, sizeof *s);
    if (!s)
        return fail_memory(err, "a session", sizeof *s);
    s->mem = arena_new();
    const int64_t **dims =
        s->mem ? arena_zero(s->mem, (size_t)model->g->n_inputs + 1, sizeof *dims) : NULL;
    st = dims ? session_dims(model->g, &opt, dims, s->mem, err) : fail_memory(err, "a session", 0);
    const engine_options eo = {
        .n_threads = opt.n_threads, .input_dims = dims, .packs = model->packs};
    if (st == RUNG_OK && (st = copy_names(s, model->g, err)) == RUNG_OK &&
        (st = engine_create(model->g, &eo, &s->e, err)) == RUNG_OK) {
        engine_profile(s->e, opt.profile);
        *out = s;
        s = NULL;
    }
    rung_session_free(s);
    return st;
}

void rung_session_free(rung_session *s)
{
    if (!s)
        return;
    engine_free(s->e);
    arena_free(s->mem);
    mem_free(s);
}

int rung_session_n_inputs(const rung_session *s)
{
    return s ? engine_n_inputs(s->e) : 0;
}

int rung_session_n_outputs(const rung_session *s)
{
    return s ? engine_n_outputs(s->e) : 0;
}

const char *rung_session_input_name(const rung_session *s, int i)
{
    return i >= 0 && i < rung_session_n_inputs(s) ? s->names[i] : NULL;
}

const char *rung_session_output_name(const rung_session *s, int i)
{
    return i >= 0 && i < rung_session_n_outputs(s) ? s->names[rung_session_n_inputs(s) + i] : NULL;
}

const rung_tensor *rung_session_input(const rung_session *s, int i)
{
    return i >= 0 && i < rung_session_n_inputs(s) ? engine_input(s->e, i) : NULL;
}

const rung_tensor *rung_session_output(const rung_session *s, int i)
{
    return i >= 0 && i < rung_session_n_outputs(s) ? engine_output(s->e, i) : NULL;
}

rung_status rung_session_run(rung_session *s, rung_error *err)
{
    if (!s)
        return fail(err, RUNG_EARGUMENT, "rung_session_run: session must not be NULL");
    return engine_run(s->e, err);
}
