/* The model in memory: values, nodes, constants. A quantized model is the same graph with
 * QuantizeLinear / DequantizeLinear nodes in it; there is no second representation.
 *
 * Ids. A value is named by its index in g->values, a node by its index in g->nodes. Value ids never
 * change, not by a pass and not by graph_clone: a pass keeps its notes in its own arrays, by value
 * id. Node indices change when graph_sort runs. Nodes stand in execution order.
 *
 * Memory. Everything a graph points to lives in g->mem (or is mapped and unmapped with it), so
 * nothing is freed singly. Constants are read-only once in the graph: make another instead. */
#ifndef RUNG_GRAPH_GRAPH_H
#define RUNG_GRAPH_GRAPH_H

#include "base/arena.h"
#include "base/status.h"
#include "base/strmap.h"

typedef rung_tensor tensor;
typedef rung_dtype  dtype;
struct op_def;

/* How a graph finds the operators' entries (ops/ops.h: op_find); graph stands below ops. */
typedef const struct op_def *(*op_lookup)(const char *op_type, const char *domain);

/* A dimension that is not known is -1; its symbol is kept for writing back. */
#define DIM_UNKNOWN (-1)

typedef struct bytes {
    const unsigned char *data;
    size_t               size;
} bytes;

typedef struct value {
    const char   *name; /* unique; "" never occurs */
    dtype         type; /* RUNG_UNDEFINED: not known */
    int           rank; /* -1: not known */
    int64_t       dims[RUNG_MAX_RANK];
    const char   *symbols[RUNG_MAX_RANK]; /* dim_param, or NULL */
    const tensor *constant; /* an initializer, or NULL */
    bool          is_input; /* the caller must feed it: not an initializer's default */
    bool          is_output;
    bool          has_info;  /* the file declared it in value_info: declare it again */
    bool          listed_input; /* an initializer that the file lists as graph input too */
    int           producer;  /* node index or -1; kept right by graph_sort */
    bytes         type_proto; /* a type that is no tensor (sequence, map ...), as it was read */
    bytes         extra;     /* fields of its ValueInfoProto that rung does not know */
} value;

typedef enum attr_kind {
    ATTR_FLOAT = 1, /* ONNX's AttributeProto.AttributeType numbers */
    ATTR_INT = 2,
    ATTR_STRING = 3,
    ATTR_TENSOR = 4,
    ATTR_GRAPH = 5,
    ATTR_FLOATS = 6,
    ATTR_INTS = 7,
    ATTR_STRINGS = 8,
    ATTR_OPAQUE = 0, /* any other: kept as the bytes of its AttributeProto */
} attr_kind;

typedef struct attr {
    const char *name;
    attr_kind   kind;
    union {
        float   f;
        int64_t i;
        bytes   s; /* STRING: data is followed by a NUL; GRAPH: the bytes of a GraphProto */
        struct {
            const float *v;
            size_t       n;
        } floats;
        struct {
            const int64_t *v;
            size_t         n;
        } ints;
        struct {
            const bytes *v;
            size_t       n;
        } strings;
        const tensor *t;
    };
    bytes opaque; /* ATTR_OPAQUE, and a TENSOR whose form must be kept: its whole AttributeProto */
} attr;

typedef struct node {
    const struct op_def *op; /* what rung knows of it; NULL: kept, not understood */
    const char *name;        /* may be "" */
    const char *op_type, *domain; /* domain "" is ONNX's own */
    int        *inputs, *outputs; /* value ids; -1: absent optional */
    int         n_inputs, n_outputs;
    int        *captures; /* values that its subgraphs use by name: inputs that are not operands */
    int         n_captures;
    attr       *attrs;
    int         n_attrs;
    bytes       extra; /* fields of its NodeProto that rung does not know (doc_string ...) */
    bool        dead;  /* removed; graph_sort drops it */
} node;

typedef struct opset {
    const char *domain;
    int64_t     version;
} opset;

typedef struct metadata {
    const char *key, *value;
} metadata;

typedef struct graph {
    arena     *mem;
    op_lookup  find_op;
    value     *values;
    size_t     n_values, cap_values;
    node      *nodes;
    size_t     n_nodes, cap_nodes;
    int       *inputs, *outputs; /* value ids, in the model's order; initializers are not inputs */
    int        n_inputs, n_outputs;
    strmap    *by_name; /* value name -> id */
    opset     *opsets;
    int        n_opsets;
    metadata  *metadata;
    int        n_metadata;
    int64_t    ir_version;
    const char *name;
    bytes      model_extra, graph_extra; /* other fields of ModelProto and GraphProto, verbatim */
} graph;

/* --- making and copying ----------------------------------------------------------------------- */
rung_status graph_create(op_lookup find_op, graph **out, rung_error *err);
void        graph_free(graph *g);
/* A deep copy with the same ids, independent of g (constants are copied too). */
rung_status graph_clone(const graph *g, graph **out, rung_error *err);
/* The same, but its constants are those of g, which outlives it. */
rung_status graph_clone_shared(const graph *g, graph **out, rung_error *err);

/* A new value; its name is `hint`, with _1, _2 ... where it is taken. -1: memory is out (or rank is
 * over RUNG_MAX_RANK). Moves g->values: pointers into it are stale afterwards. */
int graph_add_value(graph *g, const char *hint, dtype type, int rank, const int64_t *dims);
/* A new constant; dims and data are copied into g. -1: memory is out. */
int graph_add_constant(graph *g, const char *hint, const tensor *t);
/* A new node at the end of g->nodes (graph_sort puts it in its place), its op looked up. Strings
 * and ids are copied. Returns its index, -1: memory is out. Domain "ai.onnx" becomes "". Moves
 * g->nodes: pointers into it are stale afterwards. */
int graph_add_node(graph *g, const char *op_type, const char *domain, const char *name,
                   const int *in, int n_in, const int *out, int n_out);
/* The value is appended to the graph's inputs or outputs (copies the list: to build by hand). */
rung_status graph_mark_input(graph *g, int value, rung_error *err);
rung_status graph_mark_output(graph *g, int value, rung_error *err);
rung_status graph_set_opset(graph *g, const char *domain, int64_t version, rung_error *err);
/* Copies; replaces an attribute of that name. */
rung_status graph_set_attr(graph *g, node *n, const attr *a, rung_error *err);
rung_status graph_set_int(graph *g, node *n, const char *name, int64_t v, rung_error *err);
rung_status graph_set_ints(graph *g, node *n, const char *name, const int64_t *v, size_t count,
                           rung_error *err);
rung_status graph_set_float(graph *g, node *n, const char *name, float v, rung_error *err);
rung_status graph_set_string(graph *g, node *n, const char *name, const char *v, rung_error *err);
void        node_remove_attr(node *n, const char *name);
bool        attr_copy(arena *mem, const attr *from, attr *to); /* deep; false: memory is out */
rung_status graph_set_metadata(graph *g, const char *key, const char *v, rung_error *err);
const char *graph_metadata(const graph *g, const char *key); /* NULL: not there */

/* --- reading ---------------------------------------------------------------------------------- */
const attr *node_attr(const node *n, const char *name);
int64_t     node_int(const node *n, const char *name, int64_t otherwise);
float       node_float(const node *n, const char *name, float otherwise);
const char *node_string(const node *n, const char *name, const char *otherwise);
/* The ints of an attribute: their number, *v set; 0 and *v untouched when it is not there. */
size_t  node_ints(const node *n, const char *name, const int64_t **v);
int64_t graph_opset(const graph *g, const char *domain); /* 0: not imported; "ai.onnx" is "" */
/* "Conv 'layer1.0'" or, without a name, "Conv making 'x12'": how messages name a node. The text is
 * in buf. */
const char *node_label(const graph *g, const node *n, char *buf, size_t size);
#define NODE_LABEL_SIZE 200

/* --- uses ------------------------------------------------------------------------------------- */
/* Consumers of every value, as one table: the nodes that use v (as operand or capture) are
 * list[first[v]] .. list[first[v + 1] - 1], in execution order, one entry a use. In `mem`. */
typedef struct uses {
    const int *first, *list;
} uses;
rung_status graph_uses(const graph *g, arena *mem, uses *out, rung_error *err);

/* --- structure -------------------------------------------------------------------------------- */
/* Replaces every use of value `from` by `to`: operands only; not captures, not graph outputs. */
void graph_replace_uses(graph *g, int from, int to);
/* Drops dead nodes, puts the others in execution order (stable), sets producers. RUNG_EMODEL names
 * a node on a cycle, or a value that two nodes make. */
rung_status graph_sort(graph *g, rung_error *err);
/* Every rule a valid graph keeps: ids in range, single assignment, order, inputs that exist (each
 * operand is a graph input, a constant or made before), constants whose size fits their type and
 * dims. Run after each rewrite by tests, and after reading by onnx. */
rung_status graph_verify(const graph *g, rung_error *err);

/* --- tensors ---------------------------------------------------------------------------------
 * Data of type STRING is an array of `bytes`, one an element. */
/* Number of elements, SIZE_MAX when it overflows or a dimension is negative. */
size_t tensor_count(const tensor *t);
size_t dims_count(int rank, const int64_t *dims);
/* Bytes of count elements of a type: 4-bit types two a byte; 0 for STRING and unknown types;
 * SIZE_MAX when it overflows. */
size_t dtype_bytes(dtype type, size_t count);
const char *dtype_name(dtype type); /* "float32", "uint8" ... */
bool   dtype_valid(dtype type);    /* one of rung.h's numbers, RUNG_UNDEFINED among them */
bool   dtype_is_float(dtype type); /* F32, F64, F16, BF16 */
/* Element i as double or as integer; type must be a number (F16, BF16 and 4-bit types too). */
double  tensor_get(const tensor *t, size_t i);
int64_t tensor_get_int(const tensor *t, size_t i);
/* A tensor whose data (uninitialised) is in mem; NULL: memory is out or the size overflows. */
tensor *tensor_new(arena *mem, dtype type, int rank, const int64_t *dims);
tensor *tensor_copy(arena *mem, const tensor *t); /* deep; NULL: memory is out */

#endif
