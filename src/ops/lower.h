/* The integer steps: what op_def.lower of the operators is made of. Each fills a step for a
 * lowering whose activations are quantized (stored as uint8 or, where lower_checks_wide of
 * lower_wide.h allows it, uint16) and whose weights are int8 constants;
 * it returns RUNG_EUNSUPPORTED with the reason where there is no kernel for the case (the node
 * stays float) and RUNG_EMODEL, naming the tensor, where the arithmetic could overflow. Parameters
 * and packed weights are put in l->mem. The parameter structs are public to those who print steps
 * (emit). */
#ifndef RUNG_OPS_LOWER_H
#define RUNG_OPS_LOWER_H

#include "kernels/wide.h"
#include "ops/step.h"

/* --- lower_conv.c: Conv, ConvTranspose, Gemm, MatMul --- */
typedef struct conv_step {
    const conv_kernel *kernel;
    conv_shape shape;
    requant q;
    int x_zero, out; /* out: the output's place among the step's buffers */
    const void *packed;
} conv_step;
rung_status lower_conv(const lowering *l, step *s, rung_error *err);
/* Of a step that one of the functions of this file has filled; NULL: of another. */
const conv_step *step_convolution(const step *s);
rung_status lower_conv_transpose(const lowering *l, step *s, rung_error *err);
/* Packs w (made of in[1]), bias and x_zero for a kernel: once for all plans that share packs. */
rung_status lower_conv_packed(const lowering *l, const conv_kernel *kernel, const conv_shape *shape,
                              const int8_t *w, const int32_t *bias, int x_zero,
                              const void **packed, rung_error *err);
/* The shape of a convolution of in[0] to out[0] with one or two spatial axes. */
struct window;
rung_status lower_conv_shape(const lowering *l, const struct window *w, conv_shape *s,
                             rung_error *err);
rung_status lower_gemm(const lowering *l, step *s, rung_error *err); /* Gemm and MatMul */

/* --- lower_binary.c: Add, Sub, Mul --- */
/* The output as rows of n elements; row r (counted over `outer` dims) reads a and b at the sum of
 * its indices times the strides. */
typedef struct binary_step {
    const binary_kernel *kernel;
    const wide_binary_kernel *wide_kernel; /* instead, where an operand has 16 bits; else NULL */
    wide_binary_q q;
    bool swapped;                  /* a is operand 1 */
    const void *a_const, *b_const; /* constants in stored form; NULL: an operand */
    int rank;                         /* outer dims */
    int64_t outer[RUNG_MAX_RANK], a_strides[RUNG_MAX_RANK], b_strides[RUNG_MAX_RANK];
    size_t n_rows, n;
    int b_step; /* the inner dim of b: 1 or 0 */
} binary_step;
/* Of a step that lower_binary has filled; NULL: of another. The same of tables. */
const binary_step *step_binary(const step *s);
/* Div, Pow, Min and Max only by a constant number: lower_scalar. */
rung_status lower_binary(const lowering *l, step *s, rung_error *err);

/* --- lower_table.c: unary functions --- */
typedef struct table_step {
    const table_kernel *kernel;
    size_t n;
    int in, out; /* their places among the step's buffers */
    uint8_t table[256];
} table_step;
rung_status lower_table(const lowering *l, step *s, rung_error *err);
const table_step *step_table(const step *s);
/* The step of a given table over n codes: one input, one output. */
rung_status lower_table_of(arena *mem, const uint8_t table[256], size_t n, step *s,
                           rung_error *err);
/* A binary operator one of whose operands is one constant number: a function of the other. */
rung_status lower_scalar(const lowering *l, step *s, rung_error *err);
/* The table that turns x's codes into y's, clamped to [lo, hi]; x may be a constant of int8 (then
 * it is indexed by the raw byte). False: the table changes nothing. */
bool requantize_table(const operand *x, const operand *y, int lo, int hi, uint8_t table[256]);

/* --- lower_pool.c: Max, Average, Global pools, ReduceMean over the image --- */
typedef struct pool_step {
    const pool_kernel *kernel;
    pool_shape shape;
    pool_q q;
    int out; /* the output's place among the step's buffers */
} pool_step;
rung_status lower_pool(const lowering *l, step *s, rung_error *err);
/* Whether a reduction is over all axes behind the channels. axes: NULL: they are an attribute. */
bool reduces_image(const node *n, const tensor *axes, int rank);

/* --- lower_move.c: operators that only move elements, of any type (quantized or not) --- */
/* One strided copy. */
typedef struct move_part {
    int in, out;               /* numbers of the step's buffers; in = -1: reads `fill` */
    size_t x_offset, y_offset; /* in elements */
    copy_shape shape;
    /* What happens to a code on its way: one of these, or nothing. */
    const uint8_t *table;     /* 8 bits (elem is 1) */
    const rescale_q *rescale; /* 16 bits on one side or both */
    bool flip;                /* int16 and its stored form */
} move_part;
typedef struct move_step {
    int n_parts; /* they write disjoint places */
    move_part *parts;
    unsigned char fill[8];
} move_step;
rung_status lower_view(const lowering *l, step *s,
                       rung_error *err); /* Reshape, Flatten, Squeeze .. */
rung_status lower_transpose(const lowering *l, step *s, rung_error *err);
rung_status lower_slice(const lowering *l, step *s, rung_error *err);
rung_status lower_split(const lowering *l, step *s, rung_error *err);
rung_status lower_concat(const lowering *l, step *s, rung_error *err);
rung_status lower_pad(const lowering *l, step *s, rung_error *err);
rung_status lower_depth_space(const lowering *l, step *s, rung_error *err); /* both directions */
rung_status lower_expand(const lowering *l, step *s, rung_error *err);
rung_status lower_tile(const lowering *l, step *s, rung_error *err);
rung_status lower_gather(const lowering *l, step *s, rung_error *err);
/* in[0] to out[0]: the same values in another layout, or int8 in ONNX's form <-> stored form. */
rung_status lower_convert(const lowering *l, step *s, rung_error *err);
/* Whether the op's lower is one of these: it then serves float tensors too. */
bool lower_moves(const op_def *op);

/* --- lower_resize.c, lower_softmax.c --- */
typedef struct resize_step {
    int batch, in_h, in_w, channels, out_h, out_w;
    const int32_t *rows, *cols;            /* nearest; else NULL */
    const resize_tap *row_taps, *col_taps; /* linear; else NULL */
    pool_q q;
    rescale_q rescale; /* in place of q where an operand has 16 bits */
    bool wide;
    int out; /* the output's place among the step's buffers */
} resize_step;
rung_status lower_resize(const lowering *l, step *s, rung_error *err);
typedef struct softmax_step {
    size_t outer, n;
    float x_scale, y_scale;
    int y_zero, lo, hi;
} softmax_step;
rung_status lower_softmax(const lowering *l, step *s, rung_error *err);

/* --- lower_quantize.c: the pairs themselves --- */
typedef struct quantize_step {
    size_t n;               /* elements; of planes: pixels of an image */
    int    batch, channels; /* planes to channels-last */
    float scale;
    int zero, lo, hi;
} quantize_step;
rung_status lower_quantize(const lowering *l, step *s, rung_error *err);   /* float32 -> stored */
/* Most channels that lower_quantize brings from planes to channels-last on its way. */
#define QUANTIZE_PLANES_MAX 4
rung_status lower_dequantize(const lowering *l, step *s, rung_error *err); /* stored -> float32 */

/* --- lower_pointwise.c --- */
/* Whether each byte of the step's output depends on the bytes at the same place of one or two of
 * its inputs alone, all of one size: how many, and which in the order of its operands. 0: it does
 * otherwise. */
int step_pointwise(const step *s, int places[2]);
/* Its output where operand i reads operands[i]: table[x] of operands[i][x], x = 0 to 255. */
void step_tabulate(const step *s, const uint8_t *const operands[2], uint8_t table[256]);

/* --- common --- */
size_t stored_count(const operand *o);
/* Element strides of the ONNX dims in the operand's layout. */
void stored_strides(const operand *o, int64_t strides[RUNG_MAX_RANK]);
bool operand_absent(const operand *o);
/* Whether both have the same scale and zero point in the same form. */
bool operand_same_params(const operand *a, const operand *b);

#endif
