/* The engine: a plan, its threads, and the tensors at its border. */
#include "engine/engine.h"

#include <string.h>

#include "base/mem.h"
#include "engine/plan.h"
#include "ops/lower.h"

struct engine {
    plan *p;
    team *t;
    tensor *inputs, *outputs;
    engine_tap tap;
    void *tap_ctx;
    bool profile;
};

static tensor *border_tensors(const plan *p, const int *values, const int *slots, int n)
{
    tensor *t = mem_zero((size_t)n + 1, sizeof *t);
    for (int i = 0; t && i < n; i++) {
        const value_info *info = &p->info[values[i]];
        t[i].type = info->type;
        t[i].rank = info->rank;
        memcpy(t[i].dims, info->dims, sizeof t[i].dims);
        t[i].data = (void *)(uintptr_t)p->slots[slots[i]].data;
    }
    return t;
}

rung_status engine_create(const graph *g, const engine_options *opt, engine **out, rung_error *err)
{
    static const engine_options defaults = {0};
    *out = NULL;
    opt = opt ? opt : &defaults;
    engine *e = mem_zero(1, sizeof *e);
    if (!e)
        return fail_memory(err, "an engine", sizeof *e);
    rung_status st = team_create(opt->n_threads, &e->t, err);
    if (st != RUNG_OK)
        goto done;
    if ((st = plan_build(g, opt, team_size(e->t), &e->p, err)) != RUNG_OK)
        goto done;
    const graph *own = e->p->g;
    e->inputs = border_tensors(e->p, own->inputs, e->p->input_slots, own->n_inputs);
    e->outputs = border_tensors(e->p, own->outputs, e->p->output_slots, own->n_outputs);
    if (!e->inputs || !e->outputs) {
        st = fail_memory(err, "an engine", sizeof *e->inputs);
        goto done;
    }
    *out = e;
    e = NULL;
done:
    engine_free(e);
    return st;
}

void engine_free(engine *e)
{
    if (!e)
        return;
    plan_free(e->p);
    team_free(e->t);
    mem_free(e->inputs);
    mem_free(e->outputs);
    mem_free(e);
}

int engine_n_inputs(const engine *e)
{
    return e->p->g->n_inputs;
}

int engine_n_outputs(const engine *e)
{
    return e->p->g->n_outputs;
}

int engine_threads(const engine *e)
{
    return team_size(e->t);
}

const tensor *engine_input(const engine *e, int i)
{
    return &e->inputs[i];
}

const tensor *engine_output(const engine *e, int i)
{
    return &e->outputs[i];
}

void engine_set_tap(engine *e, engine_tap fn, void *ctx)
{
    e->tap = fn;
    e->tap_ctx = ctx;
}

bool engine_shows_channels_last(const engine *e, int id)
{
    for (size_t i = 0; i < e->p->n_taps; i++)
        if (e->p->taps[i].value == id)
            return e->p->slots[e->p->taps[i].slot].f == FORM_LAST;
    return false;
}

bool engine_codes(const engine *e, int id, engine_kept *out)
{
    const plan *p = e->p;
    const bool kept = id >= 0 && (size_t)id < p->g->n_values && p->keep[id];
    const int s = kept ? slot_of_codes(p, id) : NO_SLOT;
    if (s == NO_SLOT || !p->slots[s].data)
        return false;
    *out = (engine_kept){p->slots[s].data, p->slots[s].bytes, p->slots[s].f == FORM_LAST};
    return true;
}

/* Whether a slot holds codes that stay. */
static bool is_kept(const plan *p, int s)
{
    return s != NO_SLOT && p->keep[p->slots[s].value] && slot_of_codes(p, p->slots[s].value) == s;
}

bool engine_product_of(const engine *e, int id, engine_product *out)
{
    const plan *p = e->p;
    engine_kept k;
    if (!engine_codes(e, id, &k))
        return false;
    for (size_t i = 0; i < p->n_steps; i++) {
        const plan_step *s = &p->steps[i];
        const conv_step *c = step_convolution(&s->s);
        if (!c || s->n_out != 1 || s->slots[s->n_in] != slot_of_codes(p, id))
            continue;
        *out = (engine_product){c, s->bufs[0]};
        return is_kept(p, s->slots[0]);
    }
    return false;
}

rung_status engine_run(engine *e, rung_error *err)
{
    return plan_run(e->p, e->t, e->tap, e->tap_ctx, e->profile, err);
}

size_t engine_n_steps(const engine *e)
{
    return e->p->n_steps;
}

engine_step_info engine_step(const engine *e, size_t i)
{
    const plan_step *s = &e->p->steps[i];
    return (engine_step_info){.node = s->label,
                              .op_type = s->n ? s->n->op_type : "",
                              .kernel = s->s.kernel,
                              .integer = s->integer,
                              .macs = s->s.macs,
                              .seconds = s->seconds};
}

void engine_profile(engine *e, bool on)
{
    e->profile = on;
}

int64_t engine_macs(const engine *e)
{
    return e->p->macs;
}

int64_t engine_int_macs(const engine *e)
{
    return e->p->int_macs;
}

size_t engine_bytes(const engine *e)
{
    const plan *p = e->p;
    return p->buffer_bytes + p->scratch_bytes * (size_t)p->n_threads + arena_bytes(p->mem);
}

size_t engine_n_islands(const engine *e)
{
    return e->p->n_islands;
}

const float_island *engine_islands(const engine *e)
{
    return e->p->islands;
}
