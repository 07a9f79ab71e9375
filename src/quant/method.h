/* What improves on rounding to the nearest (docs/methods.md): each method in a file of its own, all
 * of them judged by integer runs on calibration data. */
#ifndef RUNG_QUANT_METHOD_H
#define RUNG_QUANT_METHOD_H

#include "measure/measure.h"
#include "quant/parts.h"

/* Fills r (r->g, opt, diag are set) with parameters, scales and codes by the methods of r->opt.
 * What makes the error larger is undone and reported. */
rung_status methods_apply(recipe *r, dataset *data, rung_error *err);

/* --- samples in memory (method_samples.c, method_pack.c) -------------------------------------- */

/* A tensor's bytes; floats that came from bytes (method_pack.c) as codes, of which each channel has
 * its own table: element i belongs to channel i / inner % channels. */
typedef struct packed {
    rung_tensor t; /* data: NULL where it is packed */
    uint8_t    *codes;
    float      *values; /* [channels][256] */
    size_t      channels, inner;
} packed;

enum { PACKED_CHANNELS = 4 };

/* False: memory is out. What comes back is in mem, or p's own. */
bool   pack_tensor(arena *mem, const rung_tensor *t, packed *to);
bool   unpack_tensor(const packed *p, arena *mem, int n_threads, rung_tensor *to);
size_t packed_bytes(const packed *p);

typedef struct kept_batch {
    size_t n; /* samples */
    int    n_inputs;
    struct kept_input {
        const char *name;
        packed      data;
    } *inputs;
} kept_batch;

/* What the float model gives for an output: of each sample n of its `of` elements, which are the
 * same in all. y: [samples][n]. batched: its first dimension is that of the samples. */
typedef struct answer {
    size_t  of, n, *at;
    float  *y;
    bool    batched;
} answer;

/* Batches of calibration data, at most SAMPLES_BYTES of them: to be run many times. The first n_fit
 * batches are to fit on, the others to check with (all of them both, where there is one). */
typedef struct samples {
    arena      *mem;
    kept_batch *list;
    size_t      n, n_fit;
    answer     *answers; /* by output; NULL: not asked yet */
    int         n_outputs;
    int         n_threads;
    uint64_t    seed;
} samples;

enum { SAMPLES_BYTES = 48 << 20, ANSWER_BYTES = 8 << 20 };

rung_status samples_load(const graph *g, dataset *data, const rung_quant_options *opt, samples *out,
                         rung_error *err);
void        samples_free(samples *s);
/* In the first batches. */
size_t      samples_before(const samples *s, size_t batch_index);

/* Runs g over batches [first, end); observe and tap as in engine.h, after (NULL: none) is called
 * behind each run. */
typedef struct runner {
    const bool *observe;
    engine_tap  tap;
    rung_status (*after)(void *ctx, rung_error *err);
    void       *ctx;
    engine     *e;  /* set during the run */
    size_t      at; /* the batch that runs */
} runner;
rung_status samples_run(const samples *s, const graph *g, size_t first, size_t end, runner *run,
                        rung_error *err);

/* Asks the float model g; the functions below compare with that. */
rung_status samples_answer(samples *s, const graph *g, rung_error *err);
/* Adds the squared errors of q over batches [first, end) to noise, by output. */
rung_status samples_noise(const samples *s, const graph *q, size_t first, size_t end, double *noise,
                          rung_error *err);
/* The worst output's SQNR in dB, noise being that of batches [first, end). */
double      samples_db(const samples *s, size_t first, size_t end, const double *noise);
/* The same of q over the check batches. */
rung_status samples_check(const samples *s, const graph *q, double *db, rung_error *err);
/* The same for any g, whatever was asked before. */
rung_status samples_sqnr(const samples *s, const graph *g, const graph *q, double *db,
                         rung_error *err);

/* A graph with pairs from r as it stands; map (NULL: not wanted): r->dequantized, in mem. */
rung_status recipe_graph(const recipe *r, arena *mem, graph **out, const int **map,
                         rung_error *err);

/* samples_check of that. */
rung_status recipe_judge(const recipe *r, const samples *s, double *db, rung_error *err);

/* --- layers (method_layers.c) ----------------------------------------------------------------- */

/* A Conv (two spatial axes), Gemm or MatMul with a constant weight, as matrices: for each group y =
 * w x + b, where a row of x holds what one output position reads. */
typedef struct layer {
    size_t node;
    int    x, y, weight, bias; /* value ids; bias -1: none */
    size_t groups, in, out;    /* of a group: inputs and outputs */
    bool   transposed;         /* the weight lies as [in][out] */
    bool   conv;
    int64_t kernel[2], stride[2], pad[2], pad_end[2], dilation[2];
    int64_t same; /* auto_pad: 1 SAME_UPPER, -1 SAME_LOWER */
    float  lo, hi; /* of the Relu or Clip behind it; infinite: none */
} layer;

/* False: it is no such layer. */
bool layer_of(const graph *g, const value_info *info, const uses *u, size_t node_index, layer *out);
/* Its weight as [groups * out][in], and codes of that order in the order of the weight. */
void layer_weight(const layer *l, const float *w, float *to);
void layer_codes(const layer *l, const int8_t *from, int8_t *to);

/* Positions drawn by seed, ascending: at: [n], each in [0, of). n <= of. */
void draw_positions(uint64_t seed, size_t n, size_t of, size_t *at);
/* How many positions a sample of x has, and what they read: to [n_samples * n_at][groups * in]. x:
 * float32 in ONNX's order. */
size_t layer_positions(const layer *l, const tensor *x);
void   layer_inputs(const layer *l, const tensor *x, size_t n_samples, const size_t *at,
                    size_t n_at, float *to);
/* Outputs at the same positions, from y as a tap shows it: to [n_samples * n_at][groups * out]. */
void layer_outputs(const layer *l, const float *y, bool channels_last, size_t positions,
                   size_t n_samples, const size_t *at, size_t n_at, float *to);

/* --- linear algebra (method_matrix.c) --------------------------------------------------------- */

/* All matrices row-major; results do not depend on the number of threads. */

/* c[i][j] = sum over r of a[r][i] b[r][j]; lda, ldb: elements between rows. */
void matrix_products(const float *a, size_t lda, size_t n_a, const float *b, size_t ldb, size_t n_b,
                     size_t rows, int n_threads, float *c);
/* a [n][n] (its lower triangle) becomes L with a = L L'. False: not positive definite. */
bool matrix_cholesky(double *a, size_t n, int n_threads);
/* Solves L L' x = b for m columns at once; b [n][m] becomes x. */
void matrix_solve(const double *l, size_t n, double *b, size_t m, int n_threads);

/* --- one layer (method_fit.c) ----------------------------------------------------------------- */

/* What a layer is fitted to: rows of inputs as the quantized model computes them, and of outputs as
 * the float model computes them, at the same places. Centred: the means are apart. */
typedef struct evidence {
    size_t rows, fit_rows; /* the first fit_rows are to fit on, the others to check with */
    float *x, *y;          /* [rows][groups * in], [rows][groups * out] */
    double *x_mean, *y_mean;
} evidence;

/* A layer's numbers: codes [groups * out][in], scales [groups * out] (per tensor all the same),
 * bias [groups * out]. */
typedef struct rounding {
    int8_t *codes;
    float  *scales, *bias;
} rounding;

typedef struct fit {
    const layer    *l;
    const evidence *e;
    const float    *w;    /* [groups * out][in], float */
    const rounding *now;  /* as the layer is */
    const float    *least; /* [groups * out]: smallest scales with which biases fit int32 */
    bool            per_tensor, has_bias;
    int             top;  /* largest code */
    unsigned        methods;
    uint64_t        seed;
    int             n_threads;
    arena          *mem;  /* scratch */
} fit;

/* Mean squared error of the layer's outputs (behind its Relu) on the check rows. */
double fit_error(const fit *f, const rounding *r);
/* The same with the float weights and the bias as it is: what the inputs alone do. */
double fit_float_error(const fit *f);
/* f->e->x holds inputs before their pair, not centred, and is quantized here; with `search` the
 * pair's parameters (of value root) are chosen anew before (method_ranges.c). */
rung_status choose_range(recipe *r, const fit *f, int root, bool search, rung_error *err);
/* The range that p can express, and p for all that share root's parameters. */
range       range_of_params(const qparams *p);
void        set_params(recipe *r, int root, const qparams *p);
/* Ranges of activations, each times the largest reach of those that share it. */
void        stretch_ranges(recipe *r, const double *reach);
/* Tries the methods and gives the rounding of least error, in f->mem; *name says which method it
 * is, NULL: none is better than f->now. */
rung_status fit_layer(const fit *f, rounding *best, const char **name, double *before,
                      double *after, rung_error *err);
/* Scales of least squared error for rows w, each input weighted by weight[group * in + i] (NULL:
 * equally): a search from the largest magnitude downwards. */
void clip_scales(const float *w, size_t groups, size_t out, size_t in, const double *weight,
                 int top, bool per_tensor, int n_threads, float *scales);
/* AdaRound (method_adaround.c): codes by learned rounding of w at r's scales; r's bias is kept. */
rung_status adaround(const fit *f, const float *w, const rounding *r, rung_error *err);

/* --- where runs of a walk begin (method_prefix.c) --------------------------------------------- */

/* Of what is settled, the codes at the last place where they fit PREFIX_BYTES. open, which the walk
 * keeps: values (roots) whose parameters are still to be chosen. */
typedef struct prefix {
    arena         *mem;
    const samples *s;
    samples        codes;  /* batches of them, as inputs of the rest */
    arena        **stores; /* by batch */
    int           *values, *next; /* whose codes they are; what the current run is to keep */
    size_t         n, n_next;     /* n 0: runs begin with the samples */
    size_t         node, next_node; /* the first node that is run */
    qparams       *params; /* by value id, when the codes were made */
    bool          *open;
} prefix;

enum { PREFIX_BYTES = 24 << 20 };

rung_status prefix_begin(prefix *p, const recipe *r, const samples *s, rung_error *err);
void        prefix_end(prefix *p);
/* The quantized model, from where p stands to value v before its pair (output 0; behind the pair,
 * which then is settled, where p stands at v). All before node `settled` is. To be run over
 * prefix_source(p) with prefix_keep behind each batch, and prefix_moved in the end. */
rung_status    prefix_graph(prefix *p, const recipe *r, int v, size_t settled, arena *mem,
                            graph **out, rung_error *err);
const samples *prefix_source(const prefix *p);
rung_status    prefix_keep(prefix *p, const engine *e, size_t at, rung_error *err);
void           prefix_moved(prefix *p, const recipe *r);

/* --- all layers, in order (method_walk.c) ----------------------------------------------------- */

/* Each layer in turn is fitted behind what was chosen for those before it. */
rung_status methods_walk(recipe *r, const samples *s, unsigned methods, rung_error *err);

/* --- what is behind the last layers (method_tail.c) ------------------------------------------- */

/* Takes the pairs of what comes behind the last layers away where an output's error falls by half a
 * dB, and no other rises as far. */
rung_status methods_tail(recipe *r, const samples *s, rung_error *err);

/* --- equalization (method_equalize.c) --------------------------------------------------------- */

/* What to stretch the ranges of activations with so that samples from outside the calibration set
 * fit in, by value id: of g as it is, and equalized. */
typedef struct reaches {
    double *plain, *equal;
} reaches;

/* Rescales channels of g (split_roles done), which computes the same function; *n_changed: groups
 * of tensors that were. reach: NULL, or filled. */
rung_status methods_equalize(graph *g, const samples *s, const rung_quant_options *opt,
                             size_t *n_changed, reaches *reach, rung_error *err);

/* --- absorption (method_absorb.c) ------------------------------------------------------------- */

/* Moves what channels behind a Relu or Clip hold in all samples to fit on into the bias of the
 * layer that reads them (split_roles done), which computes the same function on these samples; *n:
 * tensors that are narrower for it. Constants are replaced, not written to. */
rung_status absorb_biases(graph *g, const samples *s, size_t *n, rung_error *err);
/* The same for r (recipe_begin done, *db: recipe_judge of it), which is begun anew and stays as it
 * was where *db does not rise. reach [n_values], NULL: ranges are not stretched. */
rung_status methods_absorb(recipe *r, dataset *data, const samples *s, const double *reach,
                           double *db, rung_error *err);

#endif
