/* Codes of weight-only matrices beyond rounding each weight by itself. */
#ifndef RUNG_QUANT_ROUNDING_H
#define RUNG_QUANT_ROUNDING_H

#include "quant/blocks.h"
#include "quant/rescale.h"

/* What blocks_quantize makes of a matrix [in][out] along axis 0: codes [in][out], scales and zeros
 * [ceil(in / block)][out]. codes = NULL: not there. */
typedef struct block_codes {
    int8_t *codes, *zeros;
    float  *scales;
} block_codes;

typedef struct matrix_format {
    size_t       in, out, block;
    block_format f;
} matrix_format;

bool block_codes_new(arena *mem, const matrix_format *m, block_codes *c);
/* Each weight to the nearest code; false: memory is out. */
bool block_codes_nearest(const tensor *w, const matrix_format *m, block_codes *c);
/* What the codes stand for, less w: [in][out]. */
void block_codes_change(const float *w, const matrix_format *m, const block_codes *c, float *d);

/* GPTQ (method_gptq_blocks.c): for weights of the products that `wanted` names, where that lowers
 * the error on samples kept apart; rounded: by value id, in mem. */
rung_status methods_gptq_blocks(const graph *g, const samples *s, const rung_quant_options *opt,
                                const bool *wanted, dtype type, size_t block, arena *mem,
                                block_codes *rounded, diagnostics *diag, rung_error *err);

/* The same for one matrix w [in][out]: h are its inputs' sums of squares. Two ways of rounding,
 * each with and without scales refitted to its codes; the best by check (sums of squares of rows
 * kept apart) goes to c. *before, *after: errors there, to the nearest and as c has it; equal:
 * nothing is better, c is to the nearest. */
rung_status gptq_matrix(const tensor *w, const matrix_format *m, const float *h, const float *check,
                        int n_threads, block_codes *c, double *before, double *after,
                        rung_error *err);

#endif
