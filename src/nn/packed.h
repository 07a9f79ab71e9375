/* Steps whose weights stay integers in memory: weight-only models. */
#ifndef RUNG_NN_PACKED_H
#define RUNG_NN_PACKED_H

#include "ops/step.h"

/* A constant behind a DequantizeLinear: a matrix of int8, uint8, int4 or uint4. */
typedef struct packed_weight {
    const node   *dq; /* its axis and block_size */
    const tensor *codes, *scale, *zero; /* zero may be NULL */
    bool          transposed; /* [n, k] */
    int           sources[3]; /* of codes, scale and zero: operand.source; zero may have none */
    const void   *packed; /* made where it is NULL; may be used again for the same weight */
} packed_weight;

/* in[0]: x, row-major; in[epi.add]: what is added. bias: constant, one number or one a column,
 * times beta; NULL: none. RUNG_EUNSUPPORTED: a form of scales that the kernels do not have. */
rung_status packed_product(const lowering *l, packed_weight *w, const tensor *bias, float beta,
                           step *s, rung_error *err);

/* Where a gather says that an index is out of range. */
typedef struct packed_failure {
    rung_status *status;
    rung_error  *error;
} packed_failure;
/* Rows of the weight, by the indices in[0] (int32 or int64). */
rung_status packed_gather(const lowering *l, const packed_weight *w, packed_failure f, step *s,
                          rung_error *err);

#endif
