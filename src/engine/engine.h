/* A graph made executable: QDQ groups become integer steps, the rest float steps; buffers are
 * placed once; run allocates nothing. */
#ifndef RUNG_ENGINE_ENGINE_H
#define RUNG_ENGINE_ENGINE_H

#include "graph/op.h"

typedef struct engine engine;

typedef struct engine_options {
    int n_threads; /* 0: all processors */
    /* One entry per graph input (NULL: none given), each NULL or the input's dims; where a dim is
     * unknown and not given, engine_create fails and names the input. */
    const int64_t *const *input_dims;
    /* Indexed by value id (NULL: none): values that must be computed and shown to the tap; they are
     * not fused away. Only values of float type. */
    const bool *observe;
    /* Indexed by value id (NULL: none): outputs of QuantizeLinear whose codes stay readable after a
     * run; nothing takes their memory. */
    const bool *keep;
    bool shares_constants; /* those of g are read where they are: g outlives the engine */
    /* Of g, unchanged since the first engine (ops/packs.h): what its engines pack of constants is
     * made once. NULL: each packs its own. */
    struct pack_store *packs;
} engine_options;

/* Called during run, by the calling thread, with each observed value in execution order: `count`
 * float32 elements in storage order (row-major or channels-last), valid during the call. A status
 * other than RUNG_OK stops the run and is returned by it. */
typedef rung_status (*engine_tap)(void *ctx, int value, const float *data, size_t count,
                                  rung_error *err);

/* g is copied; it may be freed after. Fails, naming the node, where rung cannot execute it. */
rung_status engine_create(const graph *g, const engine_options *opt, engine **out, rung_error *err);
void        engine_free(engine *e);

/* Inputs and outputs in the graph's order. Their types and dims are fixed at creation. */
int           engine_threads(const engine *e);
int           engine_n_inputs(const engine *e);
int           engine_n_outputs(const engine *e);
int           engine_threads(const engine *e);
const tensor *engine_input(const engine *e, int i);  /* type, rank, dims; data: where to write it */
const tensor *engine_output(const engine *e, int i); /* data: the result, until the next run */
void          engine_set_tap(engine *e, engine_tap fn, void *ctx);
/* Whether the tap is shown this observed value channels-last. */
bool          engine_shows_channels_last(const engine *e, int id);

/* Inputs have been written into engine_input(e, i)->data (row-major, ONNX order). */
rung_status engine_run(engine *e, rung_error *err);

/* Kept codes: uint8, int8 ones plus 128. */
typedef struct engine_kept {
    const uint8_t *data; /* fixed at creation; the content of the last run */
    size_t         count;
    bool           channels_last; /* N, spatial..., C; otherwise row-major */
} engine_kept;
/* False: this value is no such code, or vanished in the plan (a node that does nothing). */
bool engine_codes(const engine *e, int id, engine_kept *out);

/* The convolution or matrix product that makes kept codes in one integer step, and the kept codes
 * that it reads: its exact sums can be had again (conv_kernel.run_sums). */
struct conv_step;
typedef struct engine_product {
    const struct conv_step *step; /* ops/lower.h */
    const uint8_t          *x;
} engine_product;
bool engine_product_of(const engine *e, int id, engine_product *out);

/* --- what the plan is ------------------------------------------------------------------------ */
typedef struct engine_step_info {
    const char *node;   /* label of the node it computes */
    const char *op_type;
    const char *kernel;
    bool        integer; /* integer arithmetic in and out */
    int64_t     macs;
    double      seconds; /* of the last profiled run */
} engine_step_info;

size_t           engine_n_steps(const engine *e);
engine_step_info engine_step(const engine *e, size_t i);
void             engine_profile(engine *e, bool on);
int64_t          engine_macs(const engine *e);     /* of one run */
int64_t          engine_int_macs(const engine *e); /* those in integer steps */
size_t           engine_bytes(const engine *e);    /* buffers, packed weights of its own */

/* Nodes left in float though the model has Q/DQ pairs, each with the reason. */
typedef struct float_island {
    const char *node, *op_type, *reason;
} float_island;
size_t              engine_n_islands(const engine *e);
const float_island *engine_islands(const engine *e);

#endif
