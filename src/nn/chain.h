/* A step that is several oneDNN primitives, one behind the other, whose operands all change between
 * runs: reorders of weights into the format that the next primitive wants, and back. Everything is
 * created at lowering for l->n_threads; a run may be inside a parallel region when that is 1, and
 * each step is run by one thread at a time. Objects are destroyed with the lowering's arena. */
#ifndef RUNG_NN_CHAIN_H
#define RUNG_NN_CHAIN_H

#include "oneapi/dnnl/dnnl.h"

#include "nn/layout.h"

#define CHAIN_LINKS 6
#define CHAIN_ARGS  5

/* Where an argument's data is. */
typedef struct chain_place {
    int    buf;    /* of the step; -1: in its scratch memory */
    size_t offset; /* there, in bytes */
} chain_place;

/* One primitive, or a function of ours with these arguments. */
typedef struct chain_link {
    dnnl_primitive_desc_t desc;
    dnnl_primitive_t      primitive; /* NULL: call */
    dnnl_exec_arg_t       args[CHAIN_ARGS + 1]; /* the primitive's own scratchpad is the last */
    chain_place           places[CHAIN_ARGS + 1];
    void                **data; /* where the arguments were in the last run */
    int                   n_args;
    void (*call)(const void *ctx, void *const *bufs);
    const void *ctx;
} chain_link;

typedef struct chain {
    arena        *mem;
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    int           n_threads;
    chain_link    links[CHAIN_LINKS];
    int           n;
    size_t        scratch_bytes, pad_bytes; /* temporaries; the largest primitive's own */
} chain;

rung_status chain_open(const lowering *l, chain **out, rung_error *err);

static inline chain_place chain_buf(int buf)
{
    return (chain_place){buf, 0};
}

/* Memory for md between links. */
chain_place chain_temporary(chain *c, const dnnl_memory_desc_t *md);

/* Appends a primitive (op: an operation descriptor of oneDNN; forward: the hint that backward ones
 * want, or NULL; scale: multiplies the output); its arguments follow by chain_bind.
 * RUNG_EUNSUPPORTED: oneDNN has none, or only its reference. */
rung_status chain_add(chain *c, const_dnnl_op_desc_t op, const_dnnl_primitive_desc_t forward,
                      float scale, rung_error *err);
rung_status chain_bind(chain *c, int arg, const dnnl_memory_desc_t *md, chain_place at,
                       rung_error *err);

/* Argument `arg` of the last primitive, which wants it in the format of `query`, stands at `at` as
 * md: brought there by a reorder before the primitive where that is another format. */
rung_status chain_bind_input(chain *c, int arg, const dnnl_memory_desc_t *md, chain_place at,
                             dnnl_query_t query, rung_error *err);
/* The same for a result: a reorder behind the primitive. Its last argument to be bound. */
rung_status chain_bind_output(chain *c, int arg, const dnnl_memory_desc_t *md, chain_place at,
                              dnnl_query_t query, rung_error *err);

/* Appends call(ctx, bufs). */
rung_status chain_call(chain *c, void (*call)(const void *ctx, void *const *bufs), const void *ctx,
                       rung_error *err);

void chain_finish(chain *c, const char *kernel, int64_t macs, step *s);

#endif
