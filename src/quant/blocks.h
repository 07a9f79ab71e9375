/* The block quantizer of weight-only models: a few codes that share one scale. */
#ifndef RUNG_QUANT_BLOCKS_H
#define RUNG_QUANT_BLOCKS_H

#include "graph/graph.h"

typedef struct block_format {
    int  lo, hi;    /* of the codes: -7..7, 0..15, -127..127 */
    bool symmetric; /* zero point 0; lo = -hi */
    bool search;    /* least squared error instead of the range from minimum to maximum */
    bool half_quadratic; /* tries what HQQ finds, too, and takes it where its error is less */
} block_format;

/* dtype of the codes: bits 4 or 8, symmetric or not. */
block_format block_format_of(dtype type, bool search);

/* Quantizes n values, stride elements apart: x[i * stride] ~ scale * (q[i] - zero). The scale is
 * finite and >= FLT_MIN; what is not finite counts as 0. q: [n]. Returns the sum of squared
 * errors. */
double block_quantize(const float *x, size_t n, size_t stride, const block_format *f, float *scale,
                      int *zero, int8_t *q);

/* HQQ (method_hqq.c) from *scale and *zero on: better ones, where the error has outliers. */
void block_half_quadratic(const float *x, size_t n, size_t stride, const block_format *f,
                          float *scale, int *zero);

/* A whole tensor w in blocks of `block` along `axis` (the last of a line may be shorter), as ONNX's
 * DequantizeLinear of opset 21 has it: scales and zeros (NULL where the type is symmetric) are
 * dense, with ceil(dims[axis] / block) in the place of dims[axis]; codes: one an element, in w's
 * order. block = dims[axis]: one scale per line. scratch: [block] codes. Returns how many values
 * were not finite. */
size_t blocks_quantize(const tensor *w, int axis, size_t block, const block_format *f,
                       float *scales, int8_t *zeros, int8_t *codes, int8_t *scratch);

#endif
