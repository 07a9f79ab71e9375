/* Adding steps to a plan. */
#include "engine/plan.h"

#include <string.h>

#include "base/mem.h"

/* A constant that a step would make, larger than this, is made in every run instead. */
#define MAX_CONSTANT_BYTES ((size_t)64 << 20)

int constant_source(const plan *p, int id)
{
    const tensor *own = id < 0 ? NULL : p->g->values[id].constant;
    return own && own == p->constant[id] ? id + 1 : 0;
}

operand operand_of(const plan *p, int id, form f)
{
    const value_info *info = &p->info[id];
    f = form_of(p, id, f);
    operand o = {.name = p->g->values[id].name,
                 .type = info->type,
                 .rank = info->rank,
                 .channels_last = f == FORM_LAST,
                 .constant = p->constant[id],
                 .source = constant_source(p, id)};
    memcpy(o.dims, info->dims, sizeof o.dims);
    if (o.constant)
        o.channels_last = false;
    else if (f != FORM_RAW && (o.type == RUNG_I8 || o.type == RUNG_I16))
        o.type = o.type == RUNG_I8 ? RUNG_U8 : RUNG_U16;
    return o;
}

static bool all_constant(const plan *p, const int *slots, int n_in)
{
    bool any = false;
    for (int i = 0; i < n_in; i++) {
        if (slots[i] == NO_SLOT)
            continue;
        if (!slot_is_constant(p, slots[i]))
            return false;
        any = true;
    }
    return any;
}

static bool makes_small_outputs(const plan *p, const int *slots, int n_out)
{
    for (int i = 0; i < n_out; i++)
        if (slots[i] != NO_SLOT && p->slots[slots[i]].bytes > MAX_CONSTANT_BYTES)
            return false;
    return true;
}

/* The output of a constant step is a constant: later lowerings may pack it. */
static rung_status note_constant(plan *p, const slot *s, rung_error *err)
{
    if (p->constant[s->value] || s->f != form_of(p, s->value, FORM_RAW))
        return RUNG_OK;
    tensor *t = arena_zero(p->mem, 1, sizeof *t);
    if (!t)
        return fail_memory(err, "a constant", sizeof *t);
    const value_info *info = &p->info[s->value];
    t->type = info->type;
    t->rank = info->rank;
    memcpy(t->dims, info->dims, sizeof t->dims);
    t->data = (void *)(uintptr_t)s->data;
    p->constant[s->value] = t;
    return RUNG_OK;
}

static void *slot_data(const plan *p, int s)
{
    return s == NO_SLOT ? NULL : (void *)(uintptr_t)p->slots[root_of(p, s)].data;
}

/* Runs a step whose inputs are constant, while the plan is made. */
static rung_status run_once(plan *p, const step *s, const int *slots, int n_in, int n_out,
                            const step_failure *failure, rung_error *err)
{
    rung_status st = RUNG_OK;
    void **bufs = mem_zero((size_t)(n_in + n_out), sizeof *bufs);
    void *scratch = mem_alloc(s->scratch_bytes + 1);
    if (!bufs || !scratch) {
        st = fail_memory(err, "a constant", s->scratch_bytes);
        goto done;
    }
    for (int i = 0; i < n_in + n_out; i++) {
        if (i >= n_in && slots[i] != NO_SLOT) {
            slot *o = &p->slots[slots[i]];
            o->data = arena_zero(p->mem, o->bytes + 1, 1);
            if (!o->data) {
                st = fail_memory(err, "a constant", o->bytes);
                goto done;
            }
        }
        bufs[i] = slot_data(p, slots[i]);
    }
    s->run(s, bufs, scratch, 0, 1);
    if (failure && failure->status != RUNG_OK) {
        st = fail(err, failure->status, "%s", failure->error.message);
        goto done;
    }
    for (int i = n_in; i < n_in + n_out && st == RUNG_OK; i++)
        if (slots[i] != NO_SLOT)
            st = note_constant(p, &p->slots[slots[i]], err);
done:
    mem_free(bufs);
    mem_free(scratch);
    return st;
}

static rung_status add_view(plan *p, int from, int to, rung_error *err)
{
    slot *out = &p->slots[to];
    if (out->bytes != p->slots[from].bytes)
        return fail(err, RUNG_EMODEL, "'%s' has another size than what it is a view of",
                    p->g->values[out->value].name);
    out->root = root_of(p, from);
    out->data = p->slots[out->root].data;
    return out->data ? note_constant(p, out, err) : RUNG_OK;
}

static size_t work_of(const plan *p, const step *s, const int *slots, int n)
{
    size_t work = (size_t)s->macs / 8;
    for (int i = 0; i < n; i++)
        work += slots[i] == NO_SLOT ? 0 : p->slots[slots[i]].bytes;
    return work;
}

rung_status step_add(plan *p, const step *s, const node *n, const int *slots, int n_in, int n_out,
                     bool integer, step_failure *failure, rung_error *err)
{
    if (s->view)
        return add_view(p, slots[0], slots[n_in], err);
    if (all_constant(p, slots, n_in) && makes_small_outputs(p, slots + n_in, n_out))
        return run_once(p, s, slots, n_in, n_out, failure, err);
    plan_step *grown = arena_grow(p->mem, p->steps, &p->cap_steps, p->n_steps + 1, sizeof *grown);
    if (!grown)
        return fail_memory(err, "the plan", sizeof *grown);
    p->steps = grown;
    char label[NODE_LABEL_SIZE];
    plan_step made = {
        .s = *s, .n = n, .n_in = n_in, .n_out = n_out, .integer = integer, .failure = failure};
    made.work = work_of(p, s, slots, n_in + n_out);
    made.label = arena_strdup(p->mem, n ? node_label(p->g, n, label, sizeof label) : "input");
    made.slots = arena_copy(p->mem, slots, (size_t)(n_in + n_out) * sizeof *slots);
    made.bufs = arena_zero(p->mem, (size_t)(n_in + n_out) + 1, sizeof *made.bufs);
    if (!made.label || !made.slots || !made.bufs)
        return fail_memory(err, "the plan", sizeof made);
    grown[p->n_steps++] = made;
    p->macs += s->macs;
    p->int_macs += integer ? s->macs : 0;
    return RUNG_OK;
}

/* --- eval ------------------------------------------------------------------------------------ */

typedef struct eval_params {
    const node *n;
    int64_t opset;
    tensor *in, *out;
    int n_in, n_out;
    step_failure *failure;
} eval_params;

static void run_eval(const step *s, void *const *bufs, void *scratch, int thread, int n_threads)
{
    const eval_params *e = s->params;
    arena *mem = arena_new();
    if (!mem) {
        e->failure->status = fail_memory(&e->failure->error, "temporaries", 1);
        return;
    }
    for (int i = 0; i < e->n_in; i++)
        e->in[i].data = bufs[i];
    for (int i = 0; i < e->n_out; i++)
        e->out[i].data = bufs[e->n_in + i];
    const eval_args a = {.n = e->n,
                         .opset = e->opset,
                         .in = e->in,
                         .n_in = e->n_in,
                         .out = e->out,
                         .n_out = e->n_out,
                         .mem = mem};
    e->failure->status = e->n->op->eval(&a, &e->failure->error);
    arena_free(mem);
}

static tensor tensor_of(const plan *p, int id)
{
    tensor t = {0};
    if (id < 0)
        return t;
    t.type = p->info[id].type;
    t.rank = p->info[id].rank;
    memcpy(t.dims, p->info[id].dims, sizeof t.dims);
    return t;
}

static eval_params *eval_params_new(plan *p, const node *n)
{
    eval_params *e = arena_zero(p->mem, 1, sizeof *e);
    if (!e)
        return NULL;
    e->n = n;
    e->opset = graph_opset(p->g, n->domain);
    e->n_in = n->n_inputs;
    e->n_out = n->n_outputs;
    e->in = arena_zero(p->mem, (size_t)n->n_inputs + 1, sizeof *e->in);
    e->out = arena_zero(p->mem, (size_t)n->n_outputs + 1, sizeof *e->out);
    e->failure = arena_zero(p->mem, 1, sizeof *e->failure);
    if (!e->in || !e->out || !e->failure)
        return NULL;
    for (int i = 0; i < n->n_inputs; i++)
        e->in[i] = tensor_of(p, n->inputs[i]);
    for (int i = 0; i < n->n_outputs; i++)
        e->out[i] = tensor_of(p, n->outputs[i]);
    return e;
}

rung_status eval_step(plan *p, const node *n, rung_error *err)
{
    if (!n->op || !n->op->eval)
        return fail(err, RUNG_EUNSUPPORTED, "rung cannot execute %s%s%s", n->domain,
                    n->domain[0] ? "." : "", n->op_type);
    eval_params *e = eval_params_new(p, n);
    const int total = n->n_inputs + n->n_outputs;
    int *slots = arena_zero(p->mem, (size_t)total + 1, sizeof *slots);
    if (!e || !slots)
        return fail_memory(err, "the plan", sizeof *e);
    rung_status st = RUNG_OK;
    for (int i = 0; i < total && st == RUNG_OK; i++) {
        const int v = i < n->n_inputs ? n->inputs[i] : n->outputs[i - n->n_inputs];
        slots[i] = NO_SLOT;
        if (v >= 0)
            st = i < n->n_inputs ? slot_need(p, v, FORM_RAW, &slots[i], err)
                                 : slot_new(p, v, FORM_RAW, &slots[i], err);
    }
    if (st != RUNG_OK)
        return st;
    const step s = {.kernel = "eval", .run = run_eval, .params = e, .library = true};
    return step_add(p, &s, n, slots, n->n_inputs, n->n_outputs, false, e->failure, err);
}
