/* Resize: what its attributes and inputs come to, for eval and for lowering. */
#ifndef RUNG_OPS_RESIZE_H
#define RUNG_OPS_RESIZE_H

#include "ops/args.h"

typedef enum resize_mode {
    RESIZE_NEAREST,
    RESIZE_LINEAR,
    RESIZE_CUBIC,
} resize_mode;

typedef enum resize_round {
    ROUND_PREFER_FLOOR,
    ROUND_PREFER_CEIL,
    ROUND_FLOOR,
    ROUND_CEIL,
} resize_round;

typedef enum resize_coordinates {
    COORD_HALF_PIXEL,
    COORD_HALF_PIXEL_SYMMETRIC,
    COORD_PYTORCH_HALF_PIXEL,
    COORD_ALIGN_CORNERS,
    COORD_ASYMMETRIC,
    COORD_TF_CROP_AND_RESIZE, /* its output shape is inferred, nothing computes it */
} resize_coordinates;

typedef struct resize {
    resize_mode        mode;
    resize_round       round;
    resize_coordinates coordinates;
    bool               antialias, exclude_outside;
    float              cubic_a;
    int                rank;
    int64_t            in[RUNG_MAX_RANK], out[RUNG_MAX_RANK]; /* DIM_UNKNOWN where not known */
    float              scale[RUNG_MAX_RANK];                  /* 1 on axes that stay */
} resize;

/* scales, sizes: NULL when absent (exactly one is there). RUNG_EMODEL does not name the node. */
rung_status resize_of(const node *n, const tensor *scales, const tensor *sizes, int rank,
                      const int64_t *dims, resize *out, rung_error *err);

/* Nearest: the input index that output index o of an axis reads (axis with known dimensions). */
int64_t resize_index(const resize *r, int axis, int64_t o);
/* Linear: y[o] = w0 * x[*i0] + w1 * x[*i1], w0 = 1 - w1. */
void resize_pair(const resize *r, int axis, int64_t o, int64_t *i0, int64_t *i1, float *w1);

#define RESIZE_TAPS 4
/* Linear and cubic: y[o] = the sum of weight[t] * x[index[t]]. Gives the number of taps. */
int resize_taps(const resize *r, int axis, int64_t o, int64_t *index, double *weight);

/* What evaluation and gradient begin with: the node's resize, RUNG_EUNSUPPORTED for those that rung
 * does not compute; y has the dims that it says. */
rung_status resize_read(const eval_args *a, const tensor *y, resize *r, rung_error *err);
/* Nearest: the result (not empty) as gather_mapped reads it (ops/move.h). */
rung_status resize_maps(const eval_args *a, const resize *r, const tensor *y, int64_t **maps,
                        rung_error *err);

#endif
