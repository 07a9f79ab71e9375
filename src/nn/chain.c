#include "nn/chain.h"

#include <string.h>

#include "nn/lib.h"

static void chain_close(void *ctx)
{
    chain *c = ctx;
    for (int i = 0; i < CHAIN_LINKS; i++) {
        chain_link *k = &c->links[i];
        for (int a = 0; a < k->n_args; a++)
            dnnl_memory_destroy(k->args[a].memory);
        if (k->primitive)
            dnnl_primitive_destroy(k->primitive);
        if (k->desc)
            dnnl_primitive_desc_destroy(k->desc);
    }
    if (c->stream)
        dnnl_stream_destroy(c->stream);
    if (c->engine)
        dnnl_engine_destroy(c->engine);
}

rung_status chain_open(const lowering *l, chain **out, rung_error *err)
{
    chain *c = arena_zero(l->mem, 1, sizeof *c);
    if (!c || arena_defer(l->mem, chain_close, c) != 0)
        return fail_memory(err, "a library step", sizeof *c);
    c->mem = l->mem;
    c->n_threads = l->n_threads > 0 ? l->n_threads : 1;
    dnnl_status_t st = dnnl_engine_create(&c->engine, dnnl_cpu, 0);
    if (st == dnnl_success)
        st = dnnl_stream_create(&c->stream, c->engine, dnnl_stream_default_flags);
    if (st != dnnl_success)
        return lib_fail(err, st, "engine");
    *out = c;
    return RUNG_OK;
}

static size_t round_up(size_t n)
{
    return (n + 63) & ~(size_t)63;
}

chain_place chain_temporary(chain *c, const dnnl_memory_desc_t *md)
{
    const chain_place p = {-1, c->scratch_bytes};
    c->scratch_bytes += round_up(dnnl_memory_desc_get_size(md));
    return p;
}

static chain_link *last_link(chain *c)
{
    return &c->links[c->n - 1];
}

rung_status chain_bind(chain *c, int arg, const dnnl_memory_desc_t *md, chain_place at,
                       rung_error *err)
{
    chain_link *k = last_link(c);
    dnnl_memory_t m;
    const dnnl_status_t st = dnnl_memory_create(&m, md, c->engine, DNNL_MEMORY_NONE);
    if (st != dnnl_success)
        return lib_fail(err, st, "memory");
    k->args[k->n_args] = (dnnl_exec_arg_t){arg, m};
    k->places[k->n_args++] = at;
    return RUNG_OK;
}

/* The primitive of the last link's desc, and its scratchpad, which lies behind all temporaries:
 * that place is known when the chain is finished. */
static dnnl_status_t make_primitive(chain *c)
{
    chain_link *k = last_link(c);
    dnnl_status_t st = dnnl_primitive_create(&k->primitive, k->desc);
    if (st != dnnl_success)
        return st;
    const dnnl_memory_desc_t *md =
        dnnl_primitive_desc_query_md(k->desc, dnnl_query_scratchpad_md, 0);
    const size_t size = md ? round_up(dnnl_memory_desc_get_size(md)) : 0;
    if (size == 0)
        return dnnl_success;
    dnnl_memory_t m;
    st = dnnl_memory_create(&m, md, c->engine, DNNL_MEMORY_NONE);
    if (st != dnnl_success)
        return st;
    k->args[k->n_args] = (dnnl_exec_arg_t){DNNL_ARG_SCRATCHPAD, m};
    k->places[k->n_args++] = (chain_place){-1, 0};
    c->pad_bytes = c->pad_bytes > size ? c->pad_bytes : size;
    return dnnl_success;
}

static dnnl_status_t make_attributes(float scale, dnnl_primitive_attr_t *out)
{
    dnnl_status_t st = dnnl_primitive_attr_create(out);
    if (st != dnnl_success)
        return st;
    st = dnnl_primitive_attr_set_scratchpad_mode(*out, dnnl_scratchpad_mode_user);
    if (st == dnnl_success && scale != 1.0f)
        st = dnnl_primitive_attr_set_output_scales(*out, 1, 0, &scale);
    if (st != dnnl_success)
        dnnl_primitive_attr_destroy(*out);
    return st;
}

static rung_status next_link(chain *c, rung_error *err)
{
    if (c->n == CHAIN_LINKS)
        return fail(err, RUNG_EUNSUPPORTED, "more than %d primitives for a step", CHAIN_LINKS);
    void **data = arena_zero(c->mem, CHAIN_ARGS + 1, sizeof *data);
    if (!data)
        return fail_memory(err, "a library step", (CHAIN_ARGS + 1) * sizeof *data);
    c->links[c->n++].data = data;
    return RUNG_OK;
}

/* oneDNN's reference loops need a hundred times the time of our plain ones. */
static bool is_reference(const chain_link *k)
{
    const char *name = NULL;
    return dnnl_primitive_desc_query(k->desc, dnnl_query_impl_info_str, 0, &name) == dnnl_success &&
           strncmp(name, "ref", 3) == 0;
}

rung_status chain_add(chain *c, const_dnnl_op_desc_t op, const_dnnl_primitive_desc_t forward,
                      float scale, rung_error *err)
{
    dnnl_primitive_attr_t attributes;
    const rung_status next = next_link(c, err);
    if (next != RUNG_OK)
        return next;
    dnnl_status_t st = make_attributes(scale, &attributes);
    if (st != dnnl_success)
        return lib_fail(err, st, "attributes");
    const int threads = lib_enter(c->n_threads);
    st = dnnl_primitive_desc_create(&last_link(c)->desc, op, attributes, c->engine, forward);
    dnnl_primitive_attr_destroy(attributes);
    if (st == dnnl_success)
        st = is_reference(last_link(c)) ? dnnl_unimplemented : make_primitive(c);
    lib_leave(threads, c->n_threads);
    return st == dnnl_success ? RUNG_OK : lib_fail(err, st, "primitive");
}

/* Appends a copy from one format to another. */
static rung_status reorder(chain *c, const dnnl_memory_desc_t *from, chain_place src,
                           const dnnl_memory_desc_t *to, chain_place dst, rung_error *err)
{
    dnnl_primitive_attr_t attributes;
    rung_status done = next_link(c, err);
    if (done != RUNG_OK)
        return done;
    dnnl_status_t st = make_attributes(1.0f, &attributes);
    if (st != dnnl_success)
        return lib_fail(err, st, "attributes");
    const int threads = lib_enter(c->n_threads);
    st = dnnl_reorder_primitive_desc_create(&last_link(c)->desc, from, c->engine, to, c->engine,
                                            attributes);
    dnnl_primitive_attr_destroy(attributes);
    if (st == dnnl_success)
        st = make_primitive(c);
    lib_leave(threads, c->n_threads);
    if (st != dnnl_success)
        return lib_fail(err, st, "reorder");
    done = chain_bind(c, DNNL_ARG_FROM, from, src, err);
    return done == RUNG_OK ? chain_bind(c, DNNL_ARG_TO, to, dst, err) : done;
}

static const dnnl_memory_desc_t *format_of(chain *c, dnnl_query_t query)
{
    return dnnl_primitive_desc_query_md(last_link(c)->desc, query, 0);
}

rung_status chain_bind_input(chain *c, int arg, const dnnl_memory_desc_t *md, chain_place at,
                             dnnl_query_t query, rung_error *err)
{
    const dnnl_memory_desc_t *wanted = format_of(c, query);
    if (dnnl_memory_desc_equal(md, wanted))
        return chain_bind(c, arg, wanted, at, err);
    const chain_place moved = chain_temporary(c, wanted);
    rung_status st = chain_bind(c, arg, wanted, moved, err);
    if (st != RUNG_OK || (st = reorder(c, md, at, wanted, moved, err)) != RUNG_OK)
        return st;
    const chain_link first = c->links[c->n - 1];
    c->links[c->n - 1] = c->links[c->n - 2];
    c->links[c->n - 2] = first;
    return RUNG_OK;
}

rung_status chain_bind_output(chain *c, int arg, const dnnl_memory_desc_t *md, chain_place at,
                              dnnl_query_t query, rung_error *err)
{
    const dnnl_memory_desc_t *wanted = format_of(c, query);
    if (dnnl_memory_desc_equal(md, wanted))
        return chain_bind(c, arg, wanted, at, err);
    const chain_place made = chain_temporary(c, wanted);
    const rung_status st = chain_bind(c, arg, wanted, made, err);
    return st == RUNG_OK ? reorder(c, wanted, made, md, at, err) : st;
}

rung_status chain_call(chain *c, void (*call)(const void *ctx, void *const *bufs), const void *ctx,
                       rung_error *err)
{
    const rung_status st = next_link(c, err);
    if (st != RUNG_OK)
        return st;
    last_link(c)->call = call;
    last_link(c)->ctx = ctx;
    return RUNG_OK;
}

/* A primitive that was created can fail only for lack of memory for its argument list; the step has
 * no status to say so, and its output is then stale. */
static void run_link(const chain *c, const chain_link *k, void *const *bufs, char *scratch)
{
    if (!k->primitive) {
        k->call(k->ctx, bufs);
        return;
    }
    for (int i = 0; i < k->n_args; i++) {
        const chain_place *p = &k->places[i];
        void *data = p->buf >= 0 ? bufs[p->buf] : scratch + p->offset;
        if (data != k->data[i]) /* a call that costs as much as a small layer */
            (void)dnnl_memory_set_data_handle(k->args[i].memory, data);
        k->data[i] = data;
    }
    (void)dnnl_primitive_execute(k->primitive, c->stream, k->n_args, k->args);
}

static void chain_run(const step *s, void *const *bufs, void *scratch, int thread, int n_threads)
{
    const chain *c = s->params;
    const int threads = lib_enter(c->n_threads);
    for (int i = 0; i < c->n; i++)
        run_link(c, &c->links[i], bufs, scratch);
    lib_leave(threads, c->n_threads);
}

void chain_finish(chain *c, const char *kernel, int64_t macs, step *s)
{
    for (int i = 0; i < c->n; i++) {
        chain_link *k = &c->links[i];
        for (int a = 0; a < k->n_args; a++) {
            if (k->args[a].arg == DNNL_ARG_SCRATCHPAD)
                k->places[a].offset = c->scratch_bytes;
        }
    }
    s->kernel = kernel;
    s->run = chain_run;
    s->params = c;
    s->scratch_bytes = c->scratch_bytes + c->pad_bytes;
    s->macs = macs;
    s->library = true;
}
