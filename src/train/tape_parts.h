/* What the files of the tape share. A tape is a list of steps over cells, made once and run in its
 * order: first the forward steps, then the backward ones. A cell is written by one step and read by
 * later ones, so that its life, and with it its place in the one buffer, is known beforehand.
 *
 * A value may have a cell in each of two layouts; `last` says which: false row-major ONNX order,
 * true N, spatial..., C (rank >= 3 only). What step of which node makes a value, or what stands in
 * for it (a constant, a parameter, codes that the engine kept), tape_values.c knows: the backward
 * walk asks it for what it wants to read. */
#ifndef RUNG_TRAIN_TAPE_PARTS_H
#define RUNG_TRAIN_TAPE_PARTS_H

#include "base/threads.h"
#include "engine/engine.h"
#include "ops/lower.h"
#include "train/tape.h"

#define NO_CELL (-1)

typedef enum cell_home {
    CELL_BUFFER, /* in the tape's buffer */
    CELL_FIXED,  /* a constant's data */
    CELL_PARAM,  /* at `first` of the parameters */
    CELL_GRAD,   /* at `first` of their gradients: steps add to it */
    CELL_CODES,  /* what the engine keeps of `value` */
} cell_home;

typedef struct cell {
    cell_home home;
    int       value;
    size_t    bytes, first;
    void     *data;       /* where it is now */
    int       root;       /* CELL_BUFFER: the cell whose memory it shares; itself otherwise */
    int       born, last; /* CELL_BUFFER: the first and the last step that touch it; -1: none */
    bool      pinned;     /* nothing is written over it in place */
    size_t    offset;     /* of a root, in the buffer */
} cell;

/* Why a step failed: evaluations can. */
typedef struct tape_failure {
    rung_status status;
    rung_error  error;
} tape_failure;

typedef struct tape_step {
    step          s;
    const node   *n; /* NULL: none */
    int          *cells; /* NO_CELL: absent */
    int           n_cells;
    int           over; /* s.in_place: cells[over] may take the memory of cells[0] */
    void        **bufs;
    tape_failure *failure; /* NULL: cannot fail */
} tape_step;

/* How a node's operands are laid out: those of its first kind (activations), and its outputs. */
typedef struct node_layout {
    bool in, out;
} node_layout;

/* A FakeQuantize (quant/fake.h). */
typedef struct pair {
    int    x, y, codes; /* value ids: what is quantized, what is read instead */
    int    scale;       /* value id: a parameter, or a constant */
    int    lo, hi;      /* ends of the codes less the zero point */
    int    zero;        /* in the form that the engine stores */
    int    moving;      /* value id: a zero point that is a parameter, and then lo, hi and zero are
                         * as for zero point 0; -1: none */
    bool   watched;     /* the range of x is taken by a step of the walk */
    bool   weight;      /* x is a parameter */
    bool   kept;        /* the engine keeps the codes */
    size_t outer, channels, inner; /* x around the axis of the scales; channels = 1: one scale */
    float  grad_scale;
    struct product *product; /* the integer product that makes the codes; NULL: another thing */
} pair;

/* A Conv, Gemm or MatMul with the Relu or Clip behind it, which the engine runs as one step. */
typedef struct product {
    int            codes; /* value ids: what the engine makes, and the operator's own output */
    int            y;
    float          floor, ceiling; /* real values, infinite: open */
    conv_step      first; /* of the first engine: kernel and shape are those of all */
    engine_product now;   /* of the present one */
} product;

struct tape {
    arena *mem;
    const graph  *g;
    const params *p;
    tape_options  opt;
    bool          prepared;
    uses          use;
    team         *threads;

    /* By value id. */
    value_info    *info;
    const tensor **constant; /* known before the run, and no parameter */
    int          (*cell_of)[2];
    bool          *home;     /* the layout in which it is made, and that of its gradient */
    bool          *active;   /* a gradient is wanted: between a parameter and an output */
    int           *grad;     /* the cell of the gradient so far */
    int           *batch_of; /* of what a BatchNormalization makes: the cell of the batch's mean;
                              * that of its variance is the next */

    /* By node index. */
    pair       **pair_at; /* whose end, or Clip between, it is */
    node_layout *layouts;

    cell  *cells;
    size_t n_cells, cap_cells;
    tape_step *steps;
    size_t n_steps, cap_steps;
    size_t n_forward; /* steps before the backward walk */

    unsigned char *buffer, *scratch;
    size_t buffer_bytes, scratch_bytes;
    int   *stack; /* [n_values + 1]: values that are being made */
    size_t depth; /* of stack */

    int n_inputs, n_outputs;
    int *input_cells, *output_values, *output_cells, *output_grads;
    tensor *inputs, *outputs;

    float *seen; /* tape_seen */

    struct moment *moments; /* BatchNormalizations whose running statistics move */
    size_t n_moments, cap_moments;

    graph  *converted; /* prepared: by the parameters as they were in the last run */
    engine *e;    /* of that; NULL: there was none, or it failed */
    bool   *keep; /* by value id: codes that the walk may read */
};

/* A batch's statistics and the running ones: parameters at first. */
typedef struct moment {
    size_t first, count;
    int    batch;  /* cell */
    float  momentum;
} moment;

/* --- tape_cells.c: cells and steps ------------------------------------------------------------ */
rung_status tape_out_of_memory(rung_error *err);
bool   tape_is_param(const tape *t, int v); /* also running statistics */
size_t tape_count(const tape *t, int v);
bool   tape_may_be_last(const tape *t, int v);
/* A new cell of the buffer for a value. */
rung_status cell_new(tape *t, int v, int *out, rung_error *err);
rung_status cell_of_bytes(tape *t, size_t size, int *out, rung_error *err);
rung_status cell_at(tape *t, cell_home home, int v, size_t first, size_t size, void *data, int *out,
                    rung_error *err);
tensor tape_tensor(const tape *t, int v); /* its type and dims, without data */
/* The operand that v in this layout is to a row. */
operand tape_operand(const tape *t, int v, bool last);
/* cells are copied. */
rung_status tape_add(tape *t, const step *s, const node *n, const int *cells, int n_cells, int over,
                     tape_failure *failure, rung_error *err);
/* y = x in the other layout. */
rung_status tape_convert(tape *t, int v, int from, bool from_last, int *out, rung_error *err);
/* A cell that is x + y, two tensors of n floats: written over x where nobody needs that. */
rung_status tape_sum(tape *t, int x, int y, int *out, rung_error *err);
rung_status tape_label(const tape *t, const node *n, rung_status st, rung_error *err);

/* --- tape_layout.c ---------------------------------------------------------------------------- */
/* Fills t->layouts and t->home. */
void tape_layouts(tape *t);
/* The layout in which operand i of n is read. */
bool tape_input_last(const tape *t, const node *n, int i);

/* --- tape_values.c ---------------------------------------------------------------------------- */
/* The cell of v in this layout, made by steps added now where it is missing. */
rung_status tape_need(tape *t, int v, bool last, int *out, rung_error *err);

/* --- tape_forward.c --------------------------------------------------------------------------- */
/* The step of n; its operands have cells. */
rung_status tape_node(tape *t, const node *n, rung_error *err);
bool tape_uses_batch(const tape *t, const node *n); /* a BatchNormalization by batch statistics */
/* The lowering that n is; operands and outputs in its layouts. In t->mem. */
rung_status tape_lowering(tape *t, const node *n, lowering *l, rung_error *err);

/* --- tape_backward.c, tape_grads.c ------------------------------------------------------------ */
rung_status tape_walk(tape *t, rung_error *err);
/* The cell `from` (in this layout) is part of dL/dv. */
rung_status tape_contribute(tape *t, int v, int from, bool last, rung_error *err);
/* dL/dv so far in this layout; NO_CELL: none. */
rung_status tape_grad(tape *t, int v, bool last, int *out, rung_error *err);
/* Where the gradient of parameter v is added up. */
rung_status tape_param_grad(tape *t, int v, int *out, rung_error *err);

/* --- tape_pairs.c ----------------------------------------------------------------------------- */
rung_status tape_find_pairs(tape *t, rung_error *err);
/* The pair that n is an end of; the pair whose DequantizeLinear makes v. NULL: none. */
pair *tape_pair_of(const tape *t, const node *n);
pair *tape_pair_behind(const tape *t, int v);
/* Makes q->y: the codes are kept, or q->x has a cell. */
rung_status tape_dequantize(tape *t, const pair *q, rung_error *err);
/* From the gradient of q->y to those of q->x and of the scale. */
rung_status tape_pair_backward(tape *t, pair *q, rung_error *err);
/* Where q's step puts the range of its values, which it is then to take; NULL: nowhere. */
float *tape_watch(const tape *t, pair *q);
/* Steps for the pairs that are observed and have none on the walk. */
rung_status tape_watch_rest(tape *t, rung_error *err);
/* The cell of the zero point that moves; NO_CELL: none. */
rung_status tape_moving_zero(tape *t, const pair *q, int *out, rung_error *err);
/* Where the gradient of q's scale is added up; NO_CELL: not wanted. */
rung_status tape_scale_grad(tape *t, const pair *q, int *out, rung_error *err);

/* --- tape_products.c -------------------------------------------------------------------------- */
/* Fills q->product where the engine's plan has one. */
rung_status tape_find_product(tape *t, pair *q, rung_error *err);
/* The same product of the present engine. */
rung_status tape_renew_product(const tape *t, product *p, rung_error *err);
/* As tape_pair_backward, from the exact sums to the gradient of q->product->y. */
rung_status tape_product_backward(tape *t, pair *q, rung_error *err);

/* --- tape_engine.c ---------------------------------------------------------------------------- */
/* Makes the engine of the parameters as they are, and learns which codes it keeps. */
rung_status tape_first_engine(tape *t, rung_error *err);
rung_status tape_run_engine(tape *t, const float *data, bool changed, rung_error *err);

/* --- tape_run.c ------------------------------------------------------------------------------- */
rung_status tape_run_steps(const tape *t, size_t first, size_t end, rung_error *err);

/* --- tape_memory.c ---------------------------------------------------------------------------- */
rung_status tape_place(tape *t, rung_error *err);
/* Points all cells at their data. grad: NULL in the forward run. */
void tape_bind(tape *t, const float *data, float *grad);
/* Whether no two cells that live at the same time overlap: for tests. */
bool tape_memory_is_sound(const tape *t);

#endif
