/* 16-bit activations: which operators know them, and the steps that are one kernel call. */
#include "ops/lower_wide.h"

bool operand_is_wide(const operand *o)
{
    return o->quantized && (o->type == RUNG_U16 || o->type == RUNG_I16);
}

bool lowering_is_wide(const lowering *l)
{
    for (int i = 0; i < l->n_in; i++)
        if (operand_is_wide(&l->in[i]))
            return true;
    for (int i = 0; i < l->n_out; i++)
        if (operand_is_wide(&l->out[i]))
            return true;
    return false;
}

int stored_zero(const operand *o)
{
    return o->zero + (o->type == RUNG_I8 ? 1 << 7 : o->type == RUNG_I16 ? 1 << 15 : 0);
}

int stored_top(const operand *o)
{
    return operand_is_wide(o) ? 65535 : 255;
}

rescale_q rescale_of(const lowering *l, const operand *x, const operand *y)
{
    return (rescale_q){.x_scale = x->scale,
                       .y_scale = y->scale,
                       .x_zero = stored_zero(x),
                       .y_zero = y->zero,
                       .lo = l->q_lo,
                       .hi = l->q_hi,
                       .x_wide = operand_is_wide(x),
                       .y_wide = operand_is_wide(y)};
}

rung_status lower_checks_wide(const lowering *l, const op_def *op, rung_error *err)
{
    typedef rung_status (*lower_fn)(const lowering *l, step *s, rung_error *err);
    static const lower_fn known[] = {lower_conv, lower_gemm,   lower_binary, lower_scalar,
                                     lower_pool, lower_resize, lower_table};
    if (!lowering_is_wide(l) || lower_moves(op))
        return RUNG_OK;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (op->lower == known[i])
            return RUNG_OK;
    return fail(err, RUNG_EUNSUPPORTED, "there is no kernel of 16 bits for %s", l->n->op_type);
}

/* --- other parameters, or another width ------------------------------------------------------- */

static void run_rescale(const step *s, void *const *bufs, void *scratch, int thread, int n_threads)
{
    const rescale_step *r = s->params;
    size_t first, end;
    kernel_share(r->n, 64, thread, n_threads, &first, &end);
    if (first < end)
        KERNEL_PICK(rescale_wide)
            ->run((const char *)bufs[0] + (first << r->q.x_wide), end - first, &r->q,
                  (char *)bufs[1] + (first << r->q.y_wide));
}

rung_status lower_rescale(const lowering *l, step *s, rung_error *err)
{
    rescale_step *r = arena_zero(l->mem, 1, sizeof *r);
    if (!r)
        return fail_memory(err, "a step", sizeof *r);
    *r = (rescale_step){.q = rescale_of(l, &l->in[0], &l->out[0]), .n = stored_count(&l->out[0])};
    *s = (step){.kernel = "rescale", .run = run_rescale, .params = r};
    return RUNG_OK;
}

/* --- functions of one value ------------------------------------------------------------------- */

static void run_table(const step *s, void *const *bufs, void *scratch, int thread, int n_threads)
{
    const wide_table_step *t = s->params;
    size_t first, end;
    kernel_share(t->n, 64, thread, n_threads, &first, &end);
    if (first < end)
        table_wide_run((const char *)bufs[t->in] + (first << t->x_wide), t->x_wide, end - first,
                       t->table, t->y_wide, (char *)bufs[t->out] + (first << t->y_wide));
}

rung_status lower_wide_table(const lowering *l, int in, double (*f)(double x, const void *ctx),
                             const void *ctx, step *s, rung_error *err)
{
    const rescale_q q = rescale_of(l, &l->in[in], &l->out[0]);
    const size_t entries = q.x_wide ? 1 << 16 : 1 << 8;
    wide_table_step *t = arena_zero(l->mem, 1, sizeof *t);
    uint16_t *table = arena_zero(l->mem, entries, sizeof *table);
    if (!t || !table)
        return fail_memory(err, "a table", entries * sizeof *table);
    table_wide_make(f, ctx, &q, table);
    *t = (wide_table_step){.n = stored_count(&l->out[0]),
                           .in = in,
                           .out = l->n_in,
                           .table = table,
                           .x_wide = q.x_wide,
                           .y_wide = q.y_wide};
    *s = (step){.kernel = q.y_wide ? "table_u16" : "table_u16 to u8",
                .run = run_table,
                .params = t,
                .in_place = in == 0 && q.x_wide == q.y_wide};
    return RUNG_OK;
}

/* --- pools ------------------------------------------------------------------------------------ */

static void run_pool(const step *s, void *const *bufs, void *scratch, int thread, int n_threads)
{
    const wide_pool_step *p = s->params;
    if (p->kind == WIDE_MAX)
        max_pool_u16(&p->shape, bufs[0], p->q.lo, p->q.hi, bufs[p->out], thread, n_threads);
    else if (p->kind == WIDE_AVERAGE)
        avg_pool_wide(&p->shape, bufs[0], &p->q, bufs[p->out], thread, n_threads);
    else
        global_avg_pool_wide(&p->shape, bufs[0], &p->q, bufs[p->out], thread, n_threads);
}

rung_status lower_wide_pool(const lowering *l, const wide_pool_step *p, step *s, rung_error *err)
{
    static const char *const names[] = {"max_pool_u16", "avg_pool_u16", "global_avg_pool_u16"};
    wide_pool_step *own = arena_copy(l->mem, p, sizeof *p);
    if (!own)
        return fail_memory(err, "a step", sizeof *p);
    own->q = rescale_of(l, &l->in[0], &l->out[0]);
    own->out = l->n_in;
    *s = (step){.kernel = names[p->kind], .run = run_pool, .params = own};
    return RUNG_OK;
}
