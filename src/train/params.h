/* What training changes: named slices of one block of float32, so that optimizers, checkpoints and
 * averaging over processes are loops over one array. */
#ifndef RUNG_TRAIN_PARAMS_H
#define RUNG_TRAIN_PARAMS_H

#include "graph/op.h"

typedef enum param_kind {
    PARAM_WEIGHT,       /* weight decay applies */
    PARAM_BIAS,
    PARAM_NORM,         /* scale and bias of a normalization */
    PARAM_WEIGHT_SCALE, /* the step size of a weight's FakeQuantize */
    PARAM_ACT_SCALE,    /* of an activation's */
    PARAM_STATE,        /* has no gradient: running means and variances, zero points that move */
} param_kind;

typedef struct param {
    int         value; /* the constant's id in the graph */
    const char *name;
    param_kind  kind;
    size_t      first, count; /* in params.data */
} param;

typedef struct params {
    arena  *mem;
    param  *list;
    size_t  n;
    size_t  total; /* floats in data */
    float  *data;
    int    *at;       /* by value id: the index in list, -1 */
    size_t  n_values; /* of at */
} params;

/* All that training may change in g (float or prepared, qat.h), with g's values. */
rung_status params_create(const graph *g, params **out, rung_error *err);
/* And these zero points, value ids of uint8 or int8 constants, as whole numbers: PARAM_STATE. */
rung_status params_create_with(const graph *g, const int *zeros, size_t n_zeros, params **out,
                               rung_error *err);
void        params_free(params *p);
/* By value id, for qat_convert and for writing back: pointers into data, NULL elsewhere. */
rung_status params_by_value(const params *p, const float *data, arena *mem,
                            const float *const **out, rung_error *err);
/* A copy of g whose constants hold `data`. */
rung_status params_apply(const params *p, const float *data, const graph *g, graph **out,
                         rung_error *err);

#endif
