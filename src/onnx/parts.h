/* The parts of onnx among themselves: reading fills a graph in `reader`, building makes messages in
 * an arena. A build function returns NULL (or false) when memory is out: it has no other reason. */
#ifndef RUNG_ONNX_PARTS_H
#define RUNG_ONNX_PARTS_H

#include "onnx/proto.h"

typedef struct reader {
    graph      *g;
    arena      *scratch; /* lives while reading */
    const char *folder;  /* where external data is looked for; NULL: refused */
    strmap     *files;   /* location of external data -> index in maps */
    struct file_map *maps; /* each closed with g->mem */
    size_t      n_maps, cap_maps;
    int        *stamps; /* by value id, for captures: the last node that took the value */
} reader;

/* --- reading --------------------------------------------------------------------------------- */
/* A tensor in g->mem. `name` is for messages. Its data may lie in the message (which must be in
 * g->mem) or in mapped external data. */
rung_status tensor_read(reader *r, const tensor_proto *p, const char *name, const tensor **out,
                        rung_error *err);

/* *data = `need` bytes of p's external data, aligned to `align`. */
rung_status external_read(reader *r, const tensor_proto *p, const char *name, size_t need,
                          size_t align, const void **data, rung_error *err);

/* Type, dims and symbols of v from p (not those of a constant, which has its own), and the rest
 * into v->extra; p is stripped. */
rung_status value_read(reader *r, value_proto *p, value *v, rung_error *err);

/* The attribute in g->mem; the message must be there too. */
rung_status attr_read(reader *r, attr_proto *p, attr *out, rung_error *err);

/* All nodes of the graph, their outputs declared first; sparse initializers have become Constant
 * nodes. Values of inputs and initializers are there. */
rung_status nodes_read(reader *r, graph_proto *p, rung_error *err);

/* The values of the main graph that the subgraphs of node `index` use by name, into its captures;
 * their external data into their bytes. p: the node's message, its attributes not read yet.
 * Subgraphs nested deeper than 64 are refused. */
rung_status captures_read(reader *r, node_proto *p, int index, rung_error *err);

/* --- building -------------------------------------------------------------------------------- */
/* p's fields set from t: dims, type and raw_data (or string_data). */
bool tensor_build(const tensor *t, arena *mem, tensor_proto *p);
value_proto *value_build(const value *v, arena *mem);
attr_proto *attr_build(const attr *a, arena *mem);
node_proto *node_build(const graph *g, const node *n, arena *mem);

/* The whole model, tensors' data not copied. external: constants over 1 KiB lie in the file
 * `location`, in the order of *placed. */
typedef struct external_part {
    const tensor *t;
    uint64_t      offset;
    size_t        size;
} external_part;
typedef struct external_plan {
    const char    *location;
    external_part *parts;
    size_t         n;
} external_plan;
model_proto *model_build(const graph *g, arena *mem, external_plan *external);

#endif
