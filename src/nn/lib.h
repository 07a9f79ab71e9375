/* A step that is one oneDNN primitive. Everything is created at lowering; a run sets the handles of
 * the memories and executes. Objects are destroyed with the lowering's arena. */
#ifndef RUNG_NN_LIB_H
#define RUNG_NN_LIB_H

#include "oneapi/dnnl/dnnl.h"

#include "nn/layout.h"

#define LIB_MAX_ARGS 6

typedef struct lib {
    dnnl_engine_t         engine;
    dnnl_stream_t         stream;
    dnnl_primitive_desc_t desc;
    dnnl_primitive_t      primitive;
    dnnl_memory_t         scratch; /* NULL: the primitive wants none */
    dnnl_exec_arg_t       args[LIB_MAX_ARGS + 1]; /* the scratchpad is the last */
    int                   bufs[LIB_MAX_ARGS]; /* where args[i] finds its data; -1: its own */
    int                   n_args, n_bound, n_threads;
    bool                  slow_epilogue; /* set before lib_create: a second pass does it */
    epilogue              after; /* what the primitive does not take of the epilogue */
    int                   out_buf;
    size_t                out_count;
} lib;

/* A lib in l->mem, destroyed with it. */
rung_status lib_open(const lowering *l, lib **out, rung_error *err);

/* The primitive for `op` (a pointer to an operation descriptor of oneDNN), with l's epilogue as
 * post-operations; `dst` describes the output and the operand that is added. RUNG_EUNSUPPORTED
 * where oneDNN has no implementation. */
rung_status lib_create(lib *c, const lowering *l, const_dnnl_op_desc_t op,
                       const dnnl_memory_desc_t *dst, rung_error *err);

/* Argument `arg` (DNNL_ARG_...) is buffer `buf` of the step in format md. */
rung_status lib_bind(lib *c, int arg, const dnnl_memory_desc_t *md, int buf, rung_error *err);

/* Argument `arg` is constant: data, in format `from`, is brought into the format `to` in l->mem. */
rung_status lib_pack(lib *c, const lowering *l, int arg, const dnnl_memory_desc_t *from,
                     const float *data, const dnnl_memory_desc_t *to, rung_error *err);

/* Binds the output and the added operand, and fills s. */
rung_status lib_finish(lib *c, const lowering *l, const dnnl_memory_desc_t *dst, const char *kernel,
                       int64_t macs, step *s, rung_error *err);

/* A float32 descriptor with strides in elements. */
rung_status lib_describe(dnnl_memory_desc_t *md, int rank, const int64_t *dims,
                         const int64_t *strides, rung_error *err);

/* The same for an operand as it is stored. */
rung_status lib_describe_operand(dnnl_memory_desc_t *md, const operand *o, rung_error *err);

/* oneDNN divides the work of a primitive, when it creates it and when it runs it, for as many
 * threads as OpenMP would give the caller: both must find the same number. Gives
 * what lib_leave takes. */
int  lib_enter(int n_threads);
void lib_leave(int before, int n_threads);

/* "the name of what failed": a sentence for a status of oneDNN. */
rung_status lib_fail(rung_error *err, dnnl_status_t status, const char *what);

#endif
