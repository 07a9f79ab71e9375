/* QuantizeLinear and DequantizeLinear: which scale belongs to which element. */
#ifndef RUNG_OPS_QUANTIZE_H
#define RUNG_OPS_QUANTIZE_H

#include "ops/args.h"

/* Elements are [outer][axis_dim][inner], scales [outer][n_blocks][inner], [axis_dim], or one. */
typedef struct scale_map {
    enum { SCALE_TENSOR, SCALE_AXIS, SCALE_BLOCKS } kind;
    size_t axis_dim, inner, block, n_blocks;
} scale_map;

/* From the shapes of the data and of the scale (both known). RUNG_EMODEL: they do not fit. */
rung_status scale_map_of(const node *n, int rank, const int64_t *dims, int scale_rank,
                         const int64_t *scale_dims, scale_map *out, rung_error *err);

/* The index of the scale of element i. */
static inline size_t scale_at(const scale_map *m, size_t i)
{
    if (m->kind == SCALE_TENSOR)
        return 0;
    const size_t at = i / m->inner % m->axis_dim;
    if (m->kind == SCALE_AXIS)
        return at;
    const size_t outer = i / (m->inner * m->axis_dim);
    return (outer * m->n_blocks + at / m->block) * m->inner + i % m->inner;
}

#endif
