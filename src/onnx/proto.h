/* protobuf-c under our rules: memory from an arena, bounded; and what rung does not know, kept.
 *
 * The "extra" of a value, node or graph is its message stripped of what rung holds in fields of its
 * own, so that only unknown fields are left, at whatever depth. Writing restores that message and
 * fills the known fields in again. */
#ifndef RUNG_ONNX_PROTO_H
#define RUNG_ONNX_PROTO_H

#include "graph/graph.h"
#include "onnx/onnx_rung.pb-c.h"

typedef OnnxPb__ModelProto model_proto;
typedef OnnxPb__GraphProto graph_proto;
typedef OnnxPb__NodeProto node_proto;
typedef OnnxPb__AttributeProto attr_proto;
typedef OnnxPb__TensorProto tensor_proto;
typedef OnnxPb__SparseTensorProto sparse_proto;
typedef OnnxPb__ValueInfoProto value_proto;
typedef OnnxPb__TypeProto type_proto;
typedef OnnxPb__TensorTypeProto tensor_type_proto;
typedef OnnxPb__TensorShapeProto shape_proto;
typedef OnnxPb__DimensionProto dim_proto;
typedef OnnxPb__StringStringEntryProto entry_proto;
typedef OnnxPb__OperatorSetIdProto opset_proto;
typedef ProtobufCMessageDescriptor descriptor;

#define MODEL_PROTO  (&onnx_pb__model_proto__descriptor)
#define GRAPH_PROTO  (&onnx_pb__graph_proto__descriptor)
#define NODE_PROTO   (&onnx_pb__node_proto__descriptor)
#define ATTR_PROTO   (&onnx_pb__attribute_proto__descriptor)
#define TENSOR_PROTO (&onnx_pb__tensor_proto__descriptor)
#define SPARSE_PROTO (&onnx_pb__sparse_tensor_proto__descriptor)
#define VALUE_PROTO  (&onnx_pb__value_info_proto__descriptor)
#define TYPE_PROTO   (&onnx_pb__type_proto__descriptor)
#define TENSOR_TYPE_PROTO (&onnx_pb__tensor_type_proto__descriptor)
#define SHAPE_PROTO  (&onnx_pb__tensor_shape_proto__descriptor)
#define DIM_PROTO    (&onnx_pb__dimension_proto__descriptor)
#define ENTRY_PROTO  (&onnx_pb__string_string_entry_proto__descriptor)
#define OPSET_PROTO  (&onnx_pb__operator_set_id_proto__descriptor)

enum { TENSOR_EXTERNAL = 1 }; /* TensorProto.DataLocation */

/* The message in b, in mem, which it never outgrows: at most 256 MiB + 8 bytes a byte of b. NULL:
 * *st is RUNG_EFORMAT (damaged) or RUNG_EMEMORY, the sentence is in err. */
void *proto_unpack(const descriptor *d, bytes b, arena *mem, rung_status *st, rung_error *err);

/* The message's bytes, in mem. data = NULL: memory is out. */
bytes proto_pack(const void *message, arena *mem);

/* The same for bytes that will be unpacked again: refused where that would fail (protobuf-c takes a
 * field number 0 in a long form, but not in the short one that it packs). */
rung_status proto_keep(const void *message, arena *mem, bytes *out, rung_error *err);

/* An empty message in mem, or the one that `extra` holds; NULL: memory is out. */
void *proto_new(const descriptor *d, arena *mem);
void *proto_restore(const descriptor *d, bytes extra, arena *mem);

bool proto_has_unknown(const void *message); /* at its own level */

static inline bytes proto_bytes(ProtobufCBinaryData b)
{
    return (bytes){ b.data, b.len };
}

static inline ProtobufCBinaryData proto_binary(bytes b)
{
    return (ProtobufCBinaryData){ b.size, (uint8_t *)b.data };
}

/* The text of an optional string field. */
static inline const char *proto_text(const char *s)
{
    return s ? s : "";
}

#endif
