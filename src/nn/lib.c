#include "nn/lib.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#include "nn/vec.h"

rung_status lib_fail(rung_error *err, dnnl_status_t status, const char *what)
{
    if (status == dnnl_out_of_memory)
        return fail(err, RUNG_EMEMORY, "oneDNN ran out of memory for %s", what);
    return fail(err, RUNG_EUNSUPPORTED, "oneDNN has no %s for this case (status %d)", what,
                (int)status);
}

int lib_enter(int n_threads)
{
    const int before = omp_get_max_threads();
    if (before != n_threads)
        omp_set_num_threads(n_threads);
    return before;
}

void lib_leave(int before, int n_threads)
{
    if (before != n_threads)
        omp_set_num_threads(before);
}

static void lib_close(void *ctx)
{
    lib *c = ctx;
    for (int i = 0; i < c->n_args; i++)
        dnnl_memory_destroy(c->args[i].memory);
    if (c->scratch)
        dnnl_memory_destroy(c->scratch);
    if (c->primitive)
        dnnl_primitive_destroy(c->primitive);
    if (c->desc)
        dnnl_primitive_desc_destroy(c->desc);
    if (c->stream)
        dnnl_stream_destroy(c->stream);
    if (c->engine)
        dnnl_engine_destroy(c->engine);
}

rung_status lib_open(const lowering *l, lib **out, rung_error *err)
{
    lib *c = arena_zero(l->mem, 1, sizeof *c);
    if (!c || arena_defer(l->mem, lib_close, c) != 0)
        return fail_memory(err, "a library step", sizeof *c);
    c->after = (epilogue){.add = -1};
    dnnl_status_t st = dnnl_engine_create(&c->engine, dnnl_cpu, 0);
    if (st == dnnl_success)
        st = dnnl_stream_create(&c->stream, c->engine, dnnl_stream_default_flags);
    if (st != dnnl_success)
        return lib_fail(err, st, "engine");
    *out = c;
    return RUNG_OK;
}

rung_status lib_describe(dnnl_memory_desc_t *md, int rank, const int64_t *dims,
                         const int64_t *strides, rung_error *err)
{
    dnnl_dims_t all_dims = {0}, all_strides = {0};
    memcpy(all_dims, dims, (size_t)rank * sizeof *dims);
    memcpy(all_strides, strides, (size_t)rank * sizeof *strides);
    const dnnl_status_t st =
        dnnl_memory_desc_init_by_strides(md, rank, all_dims, dnnl_f32, all_strides);
    return st == dnnl_success ? RUNG_OK : lib_fail(err, st, "memory descriptor");
}

rung_status lib_describe_operand(dnnl_memory_desc_t *md, const operand *o, rung_error *err)
{
    int64_t strides[RUNG_MAX_RANK];
    stored_strides(o, strides);
    return lib_describe(md, o->rank, o->dims, strides, err);
}

static dnnl_status_t append_clamp(dnnl_post_ops_t ops, const epilogue *e)
{
    if (e->lo == 0 && e->hi == INFINITY)
        return dnnl_post_ops_append_eltwise(ops, 1, dnnl_eltwise_relu, 0, 0);
    return dnnl_post_ops_append_eltwise(ops, 1, dnnl_eltwise_clip_v2, e->lo, e->hi);
}

/* Scratch memory is the caller's; the epilogue becomes post-operations. */
static dnnl_status_t make_attributes(const epilogue *e, const dnnl_memory_desc_t *dst,
                                     dnnl_primitive_attr_t *out)
{
    dnnl_primitive_attr_t made = NULL;
    dnnl_post_ops_t ops = NULL;
    dnnl_status_t st = dnnl_primitive_attr_create(&made);
    if (st == dnnl_success)
        st = dnnl_primitive_attr_set_scratchpad_mode(made, dnnl_scratchpad_mode_user);
    if (st == dnnl_success)
        st = dnnl_post_ops_create(&ops);
    if (st == dnnl_success && e->add >= 0)
        st = dnnl_post_ops_append_binary(ops, dnnl_binary_add, dst);
    if (st == dnnl_success && e->clamp)
        st = append_clamp(ops, e);
    if (st == dnnl_success)
        st = dnnl_primitive_attr_set_post_ops(made, ops);
    if (ops)
        dnnl_post_ops_destroy(ops);
    if (st != dnnl_success && made) {
        dnnl_primitive_attr_destroy(made);
        made = NULL;
    }
    *out = made;
    return st;
}

static dnnl_status_t describe_primitive(lib *c, const_dnnl_op_desc_t op, const epilogue *e,
                                        const dnnl_memory_desc_t *dst)
{
    dnnl_primitive_attr_t made;
    dnnl_status_t st = make_attributes(e, dst, &made);
    if (st != dnnl_success)
        return st;
    st = dnnl_primitive_desc_create(&c->desc, op, made, c->engine, NULL);
    dnnl_primitive_attr_destroy(made);
    return st;
}

static rung_status make_scratch(lib *c, rung_error *err)
{
    const dnnl_memory_desc_t *md =
        dnnl_primitive_desc_query_md(c->desc, dnnl_query_scratchpad_md, 0);
    if (!md || dnnl_memory_desc_get_size(md) == 0)
        return RUNG_OK;
    const dnnl_status_t st =
        dnnl_memory_create(&c->scratch, md, c->engine, DNNL_MEMORY_NONE);
    return st == dnnl_success ? RUNG_OK : lib_fail(err, st, "scratchpad");
}

/* oneDNN 2.6 adds wrong elements of the other operand in its convolutions by Gemm with groups (how
 * they call themselves is all that tells them apart), and where it takes an operand whose dims are
 * 1 for one that is repeated. */
static bool adds_wrongly(const lib *c, const dnnl_memory_desc_t *dst)
{
    const char *name = NULL;
    for (int i = dst->ndims > 2; i < dst->ndims; i++) { /* 1 image is no trouble */
        if (dst->dims[i] == 1)
            return true;
    }
    return dnnl_primitive_desc_query(c->desc, dnnl_query_impl_info_str, 0, &name) == dnnl_success &&
           strstr(name, "gemm") != NULL;
}

/* Describes the primitive with as much of the epilogue as it can be trusted with. */
static dnnl_status_t describe_best(lib *c, const lowering *l, const_dnnl_op_desc_t op,
                                   const dnnl_memory_desc_t *dst)
{
    const epilogue none = {.add = -1};
    if (c->slow_epilogue) {
        c->after = l->epi;
        return describe_primitive(c, op, &none, dst);
    }
    dnnl_status_t st = describe_primitive(c, op, &l->epi, dst);
    const bool wrong = st == dnnl_success && l->epi.add >= 0 && adds_wrongly(c, dst);
    if (!wrong && (st != dnnl_unimplemented || (l->epi.add < 0 && !l->epi.clamp)))
        return st;
    if (wrong) {
        dnnl_primitive_desc_destroy(c->desc);
        c->desc = NULL;
    }
    c->after = l->epi;
    return describe_primitive(c, op, &none, dst);
}

rung_status lib_create(lib *c, const lowering *l, const_dnnl_op_desc_t op,
                       const dnnl_memory_desc_t *dst, rung_error *err)
{
    c->n_threads = l->n_threads > 0 ? l->n_threads : 1;
    const int threads = lib_enter(c->n_threads);
    dnnl_status_t st = describe_best(c, l, op, dst);
    if (st == dnnl_success)
        st = dnnl_primitive_create(&c->primitive, c->desc);
    lib_leave(threads, c->n_threads);
    return st == dnnl_success ? make_scratch(c, err) : lib_fail(err, st, "primitive");
}

static rung_status add_arg(lib *c, int arg, const dnnl_memory_desc_t *md, int buf, void *data,
                           rung_error *err)
{
    dnnl_memory_t m;
    const dnnl_status_t st = dnnl_memory_create(&m, md, c->engine, data);
    if (st != dnnl_success)
        return lib_fail(err, st, "memory");
    c->args[c->n_args] = (dnnl_exec_arg_t){arg, m};
    c->bufs[c->n_args++] = buf;
    return RUNG_OK;
}

rung_status lib_bind(lib *c, int arg, const dnnl_memory_desc_t *md, int buf, rung_error *err)
{
    return add_arg(c, arg, md, buf, DNNL_MEMORY_NONE, err);
}

static dnnl_status_t reorder(lib *c, const dnnl_memory_desc_t *from, void *data,
                             dnnl_memory_t to_memory, const dnnl_memory_desc_t *to)
{
    dnnl_memory_t src = NULL;
    dnnl_primitive_desc_t desc = NULL;
    dnnl_primitive_t p = NULL;
    dnnl_status_t st = dnnl_memory_create(&src, from, c->engine, data);
    if (st == dnnl_success)
        st = dnnl_reorder_primitive_desc_create(&desc, from, c->engine, to, c->engine, NULL);
    if (st == dnnl_success)
        st = dnnl_primitive_create(&p, desc);
    if (st == dnnl_success) {
        const dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, src}, {DNNL_ARG_TO, to_memory}};
        st = dnnl_primitive_execute(p, c->stream, 2, args);
    }
    if (st == dnnl_success)
        st = dnnl_stream_wait(c->stream);
    if (p)
        dnnl_primitive_destroy(p);
    if (desc)
        dnnl_primitive_desc_destroy(desc);
    if (src)
        dnnl_memory_destroy(src);
    return st;
}

rung_status lib_pack(lib *c, const lowering *l, int arg, const dnnl_memory_desc_t *from,
                     const float *data, const dnnl_memory_desc_t *to, rung_error *err)
{
    const size_t size = dnnl_memory_desc_get_size(to);
    void *packed = arena_alloc(l->mem, size);
    if (!packed)
        return fail_memory(err, "packed weights", size);
    const rung_status st = add_arg(c, arg, to, -1, packed, err);
    if (st != RUNG_OK)
        return st;
    /* oneDNN's handles are not const; a reorder only reads its source. */
    union {
        const float *in;
        void        *out;
    } from_data = {data};
    /* One thread: weights are small, and waking others costs more, the most on a busy machine. */
    const int threads = lib_enter(1);
    const dnnl_status_t done = reorder(c, from, from_data.out, c->args[c->n_args - 1].memory, to);
    lib_leave(threads, 1);
    return done == dnnl_success ? RUNG_OK : lib_fail(err, done, "reorder of the weights");
}

/* A primitive that was created can fail only for lack of memory for its argument list; the step has
 * no status to say so, and the output is then stale. */
static void lib_run(const step *s, void *const *bufs, void *scratch, int thread, int n_threads)
{
    const lib *c = s->params;
    for (int i = 0; i < c->n_args; i++) {
        if (c->bufs[i] >= 0)
            (void)dnnl_memory_set_data_handle(c->args[i].memory, bufs[c->bufs[i]]);
    }
    if (c->scratch)
        (void)dnnl_memory_set_data_handle(c->scratch, scratch);
    const int threads = lib_enter(c->n_threads);
    (void)dnnl_primitive_execute(c->primitive, c->stream, c->n_bound, c->args);
    lib_leave(threads, c->n_threads);
    if (c->after.add >= 0)
        vec_pick()->binary[VEC_ADD](bufs[c->out_buf], 1, bufs[c->after.add], 1, c->out_count,
                                    bufs[c->out_buf]);
    if (c->after.clamp)
        vec_pick()->unary[VEC_CLAMP](bufs[c->out_buf], c->out_count, c->after.lo, c->after.hi,
                                     bufs[c->out_buf]);
}

rung_status lib_finish(lib *c, const lowering *l, const dnnl_memory_desc_t *dst, const char *kernel,
                       int64_t macs, step *s, rung_error *err)
{
    c->out_buf = l->n_in;
    c->out_count = stored_count(&l->out[0]);
    rung_status st = lib_bind(c, DNNL_ARG_DST, dst, c->out_buf, err);
    if (st == RUNG_OK && l->epi.add >= 0 && c->after.add < 0)
        st = lib_bind(c, DNNL_ARG_ATTR_MULTIPLE_POST_OP(0) | DNNL_ARG_SRC_1, dst, l->epi.add, err);
    if (st != RUNG_OK)
        return st;
    c->n_bound = c->n_args;
    if (c->scratch) {
        const dnnl_memory_desc_t *md =
            dnnl_primitive_desc_query_md(c->desc, dnnl_query_scratchpad_md, 0);
        c->args[c->n_bound++] = (dnnl_exec_arg_t){DNNL_ARG_SCRATCHPAD, c->scratch};
        s->scratch_bytes = dnnl_memory_desc_get_size(md);
    }
    s->kernel = kernel;
    s->run = lib_run;
    s->params = c;
    s->macs = macs;
    s->library = true;
    return RUNG_OK;
}
