/* What an operator can do. The instances live in ops, one entry per operator; an ability that is
 * missing is NULL, and docs/operators.md is made from the table. */
#ifndef RUNG_GRAPH_OP_H
#define RUNG_GRAPH_OP_H

#include "graph/graph.h"

/* What is known of a value while shapes are inferred: by value id, never in the graph. */
typedef struct value_info {
    dtype         type; /* RUNG_UNDEFINED: not known */
    int           rank; /* -1: not known */
    int64_t       dims[RUNG_MAX_RANK]; /* DIM_UNKNOWN: not known */
    const tensor *data; /* its content where that is known: constants, and what Shape gives */
} value_info;

/* in[i] = NULL: absent (in has at least 16 entries, out 8). out[i] arrives with rank = -1, type
 * undefined; absent outputs too are there to be written. An infer that cannot say leaves rank = -1
 * or DIM_UNKNOWN; one that finds a breach of the operator's rules returns RUNG_EMODEL, its sentence
 * without the node's name (the caller puts that before it). Temporaries and *out->data may be made
 * in mem. */
typedef struct infer_args {
    const node       *n;
    int64_t           opset; /* of the node's domain */
    const value_info *const *in;
    value_info       *out;
    arena            *mem;
} infer_args;

/* Plain evaluation: row-major, ONNX order. out[i] has its inferred type, dims and data to be
 * written; in[i].data = NULL: absent. Every dim is known. Reads nothing beyond the tensors. */
typedef struct eval_args {
    const node   *n;
    int64_t       opset;
    const tensor *in;
    int           n_in;
    tensor       *out;
    int           n_out;
    arena        *mem; /* temporaries */
} eval_args;

/* The gradient of a scalar loss by plain evaluation: row-major, ONNX order, float32. in and out are
 * as eval had them; data = NULL where the operator's grad_reads say that it is not read. dout[i] is
 * dL/dout[i], data = NULL: zero. din[i] (the dims of in[i]) is to be written whole; data = NULL:
 * not wanted, and so are operands that are no floats (indices, shapes). */
typedef struct grad_args {
    const node   *n;
    int64_t       opset;
    const tensor *in;
    int           n_in;
    const tensor *out;
    int           n_out;
    const tensor *dout;
    tensor       *din;
    arena        *mem; /* temporaries */
} grad_args;

/* What a gradient reads: bit i for operand i; all operands: ~0u. Integer operands (axes, indices)
 * are always there. */
typedef struct grad_reads {
    unsigned in, out;
} grad_reads;

/* How Q/DQ pairs are put at an operator (design section 4). */
typedef enum quant_kind {
    QUANT_NONE = 0,      /* stays float */
    QUANT_COMPUTE,       /* a pair on the activation inputs and on the output */
    QUANT_SHARES_INPUT,  /* a pair on both sides, the output's parameters are the input's */
    QUANT_FIXED_OUTPUT,  /* like COMPUTE, the output's range is fixed: [fixed_lo, fixed_hi] */
    QUANT_ABSORBED,      /* Relu, Clip: vanishes in the pair that follows, where its input is made
                          * by a COMPUTE operator that nothing else uses */
} quant_kind;

typedef struct quant_rule {
    quant_kind kind;
    unsigned   activations; /* bit i: input i is an activation to quantize (all inputs: ~0u) */
    int        weight;      /* input that is a weight when it is constant; 0: none */
    int        weight_axis; /* its output-channel axis (Gemm: for transB = 1; the rule of the pass
                             * knows transB, MatMul's is -1: the last) */
    int        bias;        /* input that is a bias; 0: none */
    float      fixed_lo, fixed_hi;
} quant_rule;

/* How the engine stores the activations an operator works on. */
typedef enum layout_wish {
    LAYOUT_PLAIN = 0, /* row-major ONNX order */
    LAYOUT_CHANNELS,  /* channels-last: Conv, pools, Resize ... */
    LAYOUT_FOLLOWS,   /* either, the same for all operands: elementwise, Concat, Slice, Pad */
} layout_wish;

struct lowering;
struct step;

typedef struct op_def {
    const char *name;   /* op_type */
    const char *domain; /* "" is ONNX's own */
    rung_status (*infer)(const infer_args *a, rung_error *err);
    rung_status (*eval)(const eval_args *a, rung_error *err);
    /* Fills s with the integer step for l (ops/step.h). RUNG_EUNSUPPORTED with the reason in err:
     * this case has none and becomes a float island. */
    rung_status (*lower)(const struct lowering *l, struct step *s, rung_error *err);
    quant_rule  quant;
    layout_wish layout;
    rung_status (*grad)(const grad_args *a, rung_error *err);
    grad_reads  reads; /* of grad, and of nn's fast row for it */
} op_def;

/* Inference over the whole graph. info[g->n_values] is filled; input_dims[i] (NULL, or one entry
 * per graph input, each NULL or the dims of that input's rank; DIM_UNKNOWN: as declared) replaces
 * what the model declares. Then the declared dims of the values behind may be stale, and count only
 * where an operator has no infer. Small contents (shapes) are evaluated on the way. Failures name
 * the node. */
rung_status graph_infer(const graph *g, const int64_t *const *input_dims, arena *mem,
                        value_info *info, rung_error *err);

#endif
