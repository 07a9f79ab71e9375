/* The engine's step: one kernel call of a plan. ops and nn fill steps, engine orders and runs them,
 * emit prints them. */
#ifndef RUNG_OPS_STEP_H
#define RUNG_OPS_STEP_H

#include "graph/op.h"

/* A value as a step sees it. Quantized activations are always stored as uint8 with the zero point
 * of that form: an int8 tensor q becomes q + 128 with zero point z + 128 (same real values). */
typedef struct operand {
    const char *name; /* the value's, for messages */
    dtype   type; /* how it is stored: RUNG_U8 for quantized activations */
    int     rank;
    int64_t dims[RUNG_MAX_RANK]; /* ONNX order, whatever the layout */
    bool    channels_last; /* rank >= 3: stored N, spatial..., C */
    bool    quantized;
    float   scale; /* real = scale * (q - zero) */
    int     zero;  /* in the stored form */
    /* Constants: data in ONNX order and their own type (weights int8, bias int32 or float32), never
     * channels_last. A quantized one has n_scales scales along `axis` (n_scales = 1: per tensor)
     * and one zero point, `zero`, in its own type; `scale` is scales[0]. */
    const tensor *constant;
    const float  *scales;
    int           n_scales, axis;
    int           source; /* constants that all plans of the graph have: 1 + value id; 0: others */
} operand;

/* What a float step does behind its operator before storing (engine finds the pattern). */
typedef struct epilogue {
    int   add; /* operand that is added (shape and layout of the output); -1: none */
    bool  clamp;
    float lo, hi; /* +-INFINITY where open */
} epilogue;

/* What an op (integer) or nn (float) is given to fill a step from. in[i].type = RUNG_UNDEFINED:
 * absent. Packed weights and parameters go in mem, which lives as long as the plan. */
typedef struct lowering {
    const node *n;
    int64_t     opset;
    operand    *in;
    int         n_in;
    operand    *out;
    int         n_out;
    int         q_lo, q_hi; /* integer steps: the output is clamped to [q_lo, q_hi] in stored form:
                             * absorbed Relu and Clip; 0 and 255 otherwise */
    epilogue    epi;        /* float steps */
    int         n_threads;
    struct pack_store *packs; /* ops/packs.h; NULL: nothing is shared between plans */
    arena      *mem;
} lowering;

struct step;
/* bufs: the operands' memory, inputs first in l->in's order (constants: their data; absent: NULL),
 * then outputs; scratch: this thread's scratch_bytes, aligned to 64. */
typedef void (*step_run)(const struct step *s, void *const *bufs, void *scratch, int thread,
                         int n_threads);

typedef struct step {
    const char *kernel; /* "conv_u8s8 avx512vnni": for profiles and tests */
    step_run    run;
    const void *params; /* of the kind that `run` knows; in lowering.mem */
    size_t      scratch_bytes; /* per thread */
    int64_t     macs;   /* multiply-accumulates of one run; 0: not that sort of step */
    bool        library; /* brings its own threads (oneDNN): called once, outside regions */
    bool        view;    /* no work: the output is the input's bytes (Reshape, Flatten, Squeeze) */
    bool        in_place; /* out[0] may take in[0]'s memory */
} step;

#endif
