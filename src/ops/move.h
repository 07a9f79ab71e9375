/* Operators that only move elements: what their attributes and inputs come to, for eval and for
 * lowering. Refusals (RUNG_EMODEL) do not name the node. */
#ifndef RUNG_OPS_MOVE_H
#define RUNG_OPS_MOVE_H

#include "ops/args.h"

/* Slice: output index i of an axis reads input index start + i * step. */
typedef struct slice {
    int64_t start[RUNG_MAX_RANK], step[RUNG_MAX_RANK], count[RUNG_MAX_RANK];
} slice;
/* axes, steps: NULL when absent. A dimension that is DIM_UNKNOWN gives count DIM_UNKNOWN. */
rung_status slice_of(const tensor *starts, const tensor *ends, const tensor *axis_list,
                     const tensor *steps, int rank, const int64_t *dims, slice *out,
                     rung_error *err);

/* Transpose: output axis i is input axis perm[i]. */
rung_status perm_of(const node *n, int rank, int *perm, rung_error *err);

/* Split of opset `version`: sizes[i] of output i along *axis. split: NULL when absent. */
rung_status split_of(const node *n, int64_t version, const tensor *split, int rank,
                     const int64_t *dims, int *axis, int64_t *sizes, rung_error *err);

/* The result, seen with these dims, is x read from element `first` on with these strides. */
typedef struct strided {
    int     rank;
    int64_t dims[RUNG_MAX_RANK], strides[RUNG_MAX_RANK];
    size_t  first; /* 0 where the result is empty */
} strided;
rung_status transpose_read(const eval_args *a, strided *s, rung_error *err);
rung_status slice_read(const eval_args *a, strided *s, rung_error *err);
rung_status depth_to_space_read(const eval_args *a, strided *s, rung_error *err);
rung_status space_to_depth_read(const eval_args *a, strided *s, rung_error *err);

/* Pad: elements added (negative: removed) before and behind each axis. */
typedef enum pad_mode {
    PAD_CONSTANT,
    PAD_REFLECT,
    PAD_EDGE,
    PAD_WRAP,
} pad_mode;
typedef struct pad_amounts {
    pad_mode mode;
    int64_t  before[RUNG_MAX_RANK], behind[RUNG_MAX_RANK];
} pad_amounts;
rung_status pad_of(const node *n, const tensor *pads, const tensor *axis_list, int rank,
                   pad_amounts *out, rung_error *err);

/* The result (all of it has the dims of y, which are checked) as gather_mapped reads it: one map an
 * axis, made in a->mem. y that is empty has none. */
rung_status pad_read(const eval_args *a, const tensor *y, int64_t **maps, rung_error *err);
rung_status tile_read(const eval_args *a, const tensor *y, int64_t **maps, rung_error *err);

/* index in [-dim, dim) -> [0, dim). */
rung_status wrap_index(int64_t index, int64_t dim, size_t *out, rung_error *err);
/* GatherElements: the element of x that element i of the result reads. */
rung_status gathered_element(const tensor *x, const tensor *index, int axis, size_t i, size_t *from,
                             rung_error *err);

/* Bytes of an element that can be moved singly: 1, 2, 4, 8; 0 for other types. */
size_t movable_size(dtype type);
/* The refusal of a type for which that is 0. */
rung_status check_movable(dtype type, rung_error *err);
/* Plain copy of all elements between tensors of one type and count (4-bit types too). */
rung_status copy_tensor(const tensor *from, tensor *to, rung_error *err);

/* y (all of it, row-major) = x read with these strides, in elements, from x_first on. */
void gather_strided(const tensor *x, size_t x_first, const int64_t *x_strides, tensor *y);
/* The same for a result that is seen with other dims. */
rung_status eval_strided(const eval_args *a, const strided *s, rung_error *err);

/* y[i0][i1]... = x[maps[0][i0]][maps[1][i1]]..., *fill where a map says -1. maps: one entry an
 * axis, each of y's dimension; fill: an element, NULL where no map says -1. */
void gather_mapped(const tensor *x, int64_t *const *maps, const void *fill, tensor *y);
/* Memory for such maps; false: it is out. y is not empty (an empty one may be huge in one axis). */
bool maps_alloc(arena *mem, const tensor *y, int64_t **maps);

#endif
