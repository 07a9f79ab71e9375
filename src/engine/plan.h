/* The plan: what engine_create makes of a graph and engine_run executes.
 *
 * Order of the making: plan_groups (which nodes run as one step), plan_emit (steps, and on demand
 * the conversions between forms of a value), plan_compose (chains of functions), plan_memory (one
 * static buffer), plan_segments (parallel regions). */
#ifndef RUNG_ENGINE_PLAN_H
#define RUNG_ENGINE_PLAN_H

#include "base/relay.h"
#include "base/threads.h"
#include "engine/engine.h"
#include "ops/step.h"

/* How a value may lie in memory. A value of rank < 3 has no FORM_LAST of its own (it is
 * FORM_PLAIN); only int8 and int16 tensors have a FORM_RAW of their own: their other forms hold
 * q + 128 as uint8, q + 32768 as uint16. */
typedef enum form {
    FORM_PLAIN = 0, /* row-major, ONNX order */
    FORM_LAST,      /* N, spatial..., C */
    FORM_RAW,       /* row-major and of ONNX's type: graph inputs, outputs, eval steps */
} form;
#define N_FORMS 3
#define NO_SLOT (-1)

typedef struct slot {
    int value;
    form f;
    size_t bytes;
    int root;         /* the slot whose memory it shares; itself when it is no view */
    const void *data; /* constants; NULL: in the plan's buffer */
    bool pinned;      /* graph inputs and outputs: nothing else uses their memory */
    int first, last;  /* steps that write and last read it (a root: with its views) */
    size_t offset;    /* of a root, in the plan's buffer */
} slot;

/* An integer product whose result is float: that of dynamic quantization with Cast, Mul by
 * x_scale * w_scale and Add of a bias behind it, or a MatMul or Gemm of dequantized operands with
 * the Add. All of them vanish in its step. */
typedef struct dynamic_tail {
    const node *cast, *scales, *mul, *add; /* add = NULL: no bias; the others: of dynamic ones */
    bool        owns_scales;               /* nobody else uses x_scale * w_scale */
    int         x_scale;                   /* value id */
    const node *x_dq;                      /* of dequantized operands; NULL: dynamic */
    bool        transposed;                /* the weight is [n, k] */
    const tensor *w, *w_scale, *bias;
    int w_source; /* operand.source */
} dynamic_tail;

/* A constant as a kernel has packed it: shared by the steps that use it. */
typedef struct plan_pack {
    const tensor *from;
    const char   *kind; /* a literal: what it was packed for */
    const void   *packed;
} plan_pack;

/* Several nodes that run as one step: n, then what is absorbed behind it. */
typedef struct plan_unit {
    const node *n;
    const node *add, *clamp;
    const node **quantizers; /* integer units: one per output of n, NULL where that is absent */
    const dynamic_tail *tail; /* of MatMulInteger and ConvInteger; NULL: none */
    bool integer;
    const char *why; /* not an integer unit, though Q/DQ pairs touch it: the reason; NULL: they do
                      * not */
} plan_unit;

/* A failure inside a step: only eval steps and library calls can fail. */
typedef struct step_failure {
    rung_status status;
    rung_error error;
} step_failure;

typedef struct plan_step {
    step s;
    const node *n;
    const char *label;
    int *slots; /* n_in inputs (NO_SLOT: absent), then n_out outputs */
    int n_in, n_out;
    void **bufs;
    bool integer, parallel;
    size_t work;           /* rough cost: bytes touched and multiplications */
    step_failure *failure; /* eval steps; NULL: cannot fail */
    double seconds;
} plan_step;

typedef enum segment_kind { SEGMENT_SERIAL, SEGMENT_PARALLEL, SEGMENT_LIBRARY } segment_kind;
typedef struct segment {
    segment_kind kind;
    size_t first, end; /* steps */
} segment;

typedef struct tap_point {
    int value, slot;
    size_t after; /* shown when this many steps have run */
} tap_point;

typedef struct plan {
    graph *g;
    arena *mem;
    value_info *info; /* by value id */
    uses use;
    const bool *observe;     /* may be NULL; only during the making */
    const bool *keep;        /* by value id: codes that stay readable */
    const tensor **constant; /* by value id: the content where it is known before the run */
    int (*slot_of)[N_FORMS]; /* by value id */
    plan_unit **unit_at;     /* by node index: the unit emitted there */
    bool *absorbed; /* by node index: part of a unit that is emitted elsewhere or by another */
    bool has_pairs; /* the model has Q/DQ nodes */
    struct pack_store *store; /* the caller's; may be NULL */
    int n_threads;

    slot *slots;
    size_t n_slots, cap_slots;
    plan_step *steps;
    size_t n_steps, cap_steps;
    tap_point *taps;
    size_t n_taps, cap_taps;
    segment *segments;
    size_t n_segments;
    relay *relay; /* of the steps in parallel segments; NULL: there are none */
    crew *crew;   /* does them; NULL: the team */
    float_island *islands;
    size_t n_islands, cap_islands;
    plan_pack *packs;
    size_t n_packs, cap_packs;

    int *input_slots, *output_slots; /* one per graph input, output */
    unsigned char *buffer;           /* mem_alloc'ed */
    size_t buffer_bytes;
    unsigned char *scratch; /* n_threads pieces of scratch_bytes */
    size_t scratch_bytes;
    int64_t macs, int_macs;
} plan;

rung_status plan_build(const graph *g, const engine_options *opt, int n_threads, plan **out,
                       rung_error *err);
void plan_free(plan *p);

/* --- plan_groups.c --- */
rung_status plan_groups(plan *p, rung_error *err);
/* The parameters of a Q or DQ node that the integer steps can use: constant, one scale > 0, one
 * zero point of an 8- or 16-bit type. The zero point is given in the stored form (int8: + 128). */
bool quant_params(const plan *p, const node *n, float *scale, int *zero);
/* The bounds of a Relu or Clip; false: another node, or bounds that are not constant. */
bool clamp_bounds(const plan *p, const node *n, float *lo, float *hi);
bool is_quantize(const node *n);
bool is_dequantize(const node *n);

bool is_op(const node *n, const char *op_type); /* of ONNX's own domain */
/* The node that alone uses a value as its operand, where nobody looks at the value; or NULL. */
const node *sole_user(const plan *p, int id);
/* The constant that is input i; NULL: another thing. */
const tensor *constant_input(const plan *p, const node *n, int i);

/* --- plan_dynamic.c --- */
/* Fills u->tail where n is an integer product with what dynamic quantization puts behind it. */
rung_status group_dynamic(plan *p, plan_unit *u, rung_error *err);
/* The nodes of a tail, NULL where there is none: at most 4. */
void dynamic_nodes(const dynamic_tail *t, const node *out[4]);

/* --- plan_slots.c --- */
form form_of(const plan *p, int id, form f); /* f, or FORM_PLAIN where that is the same */
/* A slot for a value in a form, without content yet. */
rung_status slot_new(plan *p, int id, form f, int *out, rung_error *err);
/* The slot of a value in a form, made where it is missing by steps added now. */
rung_status slot_need(plan *p, int id, form f, int *out, rung_error *err);
/* The form in which a value lies, or would lie at the least cost. */
form slot_prefers(const plan *p, int id);
bool value_is_quantized_source(const plan *p, int id); /* made by a plain DQ of a non-constant */
int root_of(const plan *p, int s);
bool slot_is_constant(const plan *p, int s);

/* --- plan_step.c --- */
/* The operand that a slot (or NO_SLOT with a value that is constant) is to a lowering. */
operand operand_of(const plan *p, int id, form f);
/* operand.source of a value: what rewrite_prepare leaves is the same in all plans of the graph,
 * what shape inference or a step has computed depends on the input's dims. */
int constant_source(const plan *p, int id);
/* Adds a step; one with constant inputs only is run now, its outputs become constants. A view makes
 * no step. slots: inputs, then outputs. */
rung_status step_add(plan *p, const step *s, const node *n, const int *slots, int n_in, int n_out,
                     bool integer, step_failure *failure, rung_error *err);
/* The step that evaluates n by op->eval. */
rung_status eval_step(plan *p, const node *n, rung_error *err);

/* --- plan_emit.c, emit_float.c --- */
rung_status plan_emit(plan *p, rung_error *err);
/* Emits a Q or DQ node as a step of its own. */
rung_status emit_quantize(plan *p, const node *n, rung_error *err);
rung_status emit_dequantize(plan *p, const node *n, form f, rung_error *err);

/* What `from` was packed to for `kind`; NULL: not yet. And notes it. */
const void *plan_packed(const plan *p, const tensor *from, const char *kind);
rung_status plan_note_packed(plan *p, const tensor *from, const char *kind, const void *packed,
                             rung_error *err);

/* The slot that holds the codes of a value as uint8; NO_SLOT: there is none. */
int slot_of_codes(const plan *p, int id);

/* --- plan_compose.c --- */
/* Steps that are functions of one tensor of codes, element by element, become one table. */
rung_status plan_compose(plan *p, rung_error *err);

/* --- plan_memory.c --- */
rung_status plan_memory(plan *p, rung_error *err);
/* Whether no two slots that live at the same time overlap: for tests. */
bool plan_memory_is_sound(const plan *p);

/* --- plan_segments.c, run.c --- */
rung_status plan_segments(plan *p, rung_error *err);
rung_status plan_run(plan *p, team *t, engine_tap tap, void *tap_ctx, bool profile,
                     rung_error *err);

#endif
