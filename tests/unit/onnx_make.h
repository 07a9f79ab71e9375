/* Small models made by hand, from the messages that src/onnx reads; and what a model that was read
 * must survive. Memory is the arena's; failures to allocate end the test. */
#ifndef TESTS_ONNX_MAKE_H
#define TESTS_ONNX_MAKE_H

#include "onnx/onnx.h"
#include "onnx/proto.h"

/* An empty model: ir_version 8, opset 13, graph "g". */
model_proto *make_model(arena *mem);

/* Appended to the graph. Lists of names are separated by commas: "x,,w"; dims by their number. */
node_proto   *make_node(arena *mem, graph_proto *g, const char *op, const char *in,
                        const char *out);
value_proto  *make_input(arena *mem, graph_proto *g, const char *name, dtype type);
value_proto  *make_output(arena *mem, graph_proto *g, const char *name, dtype type);
value_proto  *make_info(arena *mem, graph_proto *g, const char *name, dtype type);
tensor_proto *make_tensor(arena *mem, graph_proto *g, const char *name, dtype type, int rank,
                          const int64_t *dims);
attr_proto   *make_attr(arena *mem, node_proto *n, const char *name, attr_kind kind);
void          make_raw(arena *mem, tensor_proto *t, const void *data, size_t size);

/* About 1 KB with something of everything: initializers in several forms, a listed one, attributes
 * of every kind, an If whose branches capture, metadata, fields rung does not know. */
bytes make_rich_model(arena *mem);

/* The model's bytes are read; the graph is the caller's. */
rung_status read_model_proto(const model_proto *m, arena *mem, graph **out, rung_error *err);

/* What a graph that was read must be: valid, written, read again, and written again to the same
 * bytes, also by way of a clone. NULL, or what broke (text in err). */
const char *what_breaks(const graph *g, rung_error *err);

#endif
