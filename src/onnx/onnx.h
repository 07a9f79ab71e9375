/* .onnx bytes <-> graph. What rung does not understand is kept and written back unchanged. */
#ifndef RUNG_ONNX_ONNX_H
#define RUNG_ONNX_ONNX_H

#include "graph/graph.h"

/* Reads a model file. External data (but that of local functions, which stay bytes) is mapped from
 * the files beside it; a location that is absolute or leaves the model's folder is refused. The
 * graph is verified. Errors name the path and the node, tensor or field. Opset 7 and later;
 * ir_version 3 and later. Memory is bounded by the size of the files, whatever they claim. A sparse
 * initializer becomes a Constant node with sparse_value. */
rung_status onnx_read_file(const char *path, graph **out, rung_error *err);

/* The same from memory; external data is looked for in `folder` (NULL: refused, by tensor name). */
rung_status onnx_read(const void *data, size_t size, const char *folder, graph **out,
                      rung_error *err);

/* Writes atomically (temporary name, rename). Constants over 1 KiB go to `<path>.data` as external
 * data where `external` says so or the protobuf would pass 2 GB. Constants are written as raw_data;
 * the same graph gives the same bytes. */
rung_status onnx_write_file(const graph *g, const char *path, bool external, rung_error *err);

/* The whole model as one protobuf; *out is mem_alloc'ed, the caller's. */
rung_status onnx_write(const graph *g, unsigned char **out, size_t *size, rung_error *err);

#endif
