/* Factors that move between an activation and the weights that read it: y = (x / f)(f W) is the
 * same function, and easier to quantize. SmoothQuant and AWQ choose f; here is who shares one,
 * the rows it is chosen on, and where it goes. */
#ifndef RUNG_QUANT_RESCALE_H
#define RUNG_QUANT_RESCALE_H

#include "quant/method.h"

/* Matrix products that are tied to one factor per input: they read the same activation, or use the
 * same weight. Node indices and value ids; no weight has another user. */
typedef struct product_group {
    int   *nodes, *xs, *ws;
    size_t n_nodes, n_xs, n_ws;
    size_t in; /* inputs of a product */
} product_group;

/* The groups of MatMul and Gemm nodes (constant float32 matrix, transA = 0) that `wanted` [n_nodes]
 * names; everything in mem. */
rung_status groups_find(const graph *g, const value_info *info, const bool *wanted, arena *mem,
                        product_group **out, size_t *n, rung_error *err);
/* Weight w of the group as [in][outputs] in mem; NULL: memory is out. */
tensor *group_weight(const graph *g, const product_group *p, int w, arena *mem);

/* Rows of what a group reads, of all its activations: x [n][in], the first n_fit from the batches
 * to fit on, the others to check with; owner[r]: which of p->xs it is from. */
typedef struct group_rows {
    size_t n, n_fit, in;
    float *x;
    int   *owner;
    float *lo, *hi; /* [n_xs][in]: the ends of every channel, 0 among them, of all that was seen */
} group_rows;

enum { GROUP_BYTES = 48 << 20 };

/* Runs g over the samples up to the group's activations. About `rows` rows, GROUP_BYTES at most,
 * drawn by seed: memory does not grow with the data. out->n = 0: shapes are not what a product has,
 * or no batch is left to check with. */
rung_status group_collect(const graph *g, const product_group *p, const samples *s, size_t rows,
                          uint64_t seed, arena *mem, group_rows *out, rung_error *err);

/* Sums of squares h [in][in] of rows [first, end), in mem. NULL: memory is out. */
float *rows_moments(const group_rows *r, size_t first, size_t end, int n_threads, arena *mem);
/* The squared error that d [in][out], the change of a weight, makes of its outputs: the sum of
 * d' h d. NaN: memory is out. */
double moments_error(const float *h, const float *d, size_t in, size_t out, int n_threads);

/* Whether the factors would be free of cost: every activation is made by an operator that takes
 * them in its constants (LayerNormalization and its decomposed form, Mul, Div, Add, a product's
 * weight, all through Relu), and nothing else reads it. */
bool rescale_folds(const graph *g, const uses *u, const product_group *p);
/* Multiplies row i of the group's weights by f[i] and divides the activations: in the constants of
 * what makes them, or by a Mul of its own where that cannot be; *n_muls counts these. Adds nodes,
 * so u is stale afterwards. */
rung_status rescale_apply(graph *g, const uses *u, const product_group *p, const float *f,
                          size_t *n_muls, rung_error *err);

/* --- who chooses ------------------------------------------------------------------------------ */

/* SmoothQuant (method_smooth.c) of the products that `wanted` names. *g (sorted) is replaced by
 * another that is sorted again, also after a failure; may_add: a Mul may be added where a factor
 * does not fold. *n: groups rescaled. */
rung_status methods_smooth(graph **g, const samples *s, const rung_quant_options *opt,
                           const bool *wanted, bool may_add, diagnostics *diag, size_t *n,
                           rung_error *err);

/* The same on samples of its own. */
rung_status smooth_products(graph **g, dataset *data, const rung_quant_options *opt, bool *wanted,
                            bool may_add, diagnostics *diag, rung_error *err);
/* Static quantization: opt->pairs becomes what RUNG_PAIRS_AUTO stands for; `preset`: another tool's
 * qconfig. And smoothing, where opt->methods names it or leaves it to us and layers alone get
 * pairs; then opt->methods is what is left to do. */
void        settle_pairs(const graph *g, bool preset, rung_quant_options *opt);
rung_status smooth_static(graph **g, dataset *data, rung_quant_options *opt, diagnostics *diag,
                          rung_error *err);

/* AWQ (method_awq.c) for codes of `type` in blocks (0: whole lines). */
rung_status methods_awq(graph *g, const samples *s, const rung_quant_options *opt,
                        const bool *wanted, dtype type, size_t block, diagnostics *diag, size_t *n,
                        rung_error *err);

#endif
