/* What every infer and eval begins with: operands, counts, types, axes, the output's shape. All
 * refusals are RUNG_EMODEL and do not name the node. */
#ifndef RUNG_OPS_ARGS_H
#define RUNG_OPS_ARGS_H

#include "graph/op.h"

/* Sets of element types. */
#define TYPE(t) (1u << (t))
#define TYPES_SMALL_FLOAT (TYPE(RUNG_F16) | TYPE(RUNG_BF16))
#define TYPES_FLOAT (TYPE(RUNG_F32) | TYPE(RUNG_F64) | TYPES_SMALL_FLOAT)
#define TYPES_INT                                                                                  \
    (TYPE(RUNG_U8) | TYPE(RUNG_I8) | TYPE(RUNG_U16) | TYPE(RUNG_I16) | TYPE(RUNG_I32) |            \
     TYPE(RUNG_I64) | TYPE(RUNG_U32) | TYPE(RUNG_U64))
#define TYPES_NUMBER (TYPES_FLOAT | TYPES_INT)
#define TYPES_INDEX (TYPE(RUNG_I32) | TYPE(RUNG_I64))
#define TYPES_ANY (~0u)

/* Input i; NULL where it is absent. */
const value_info *op_in(const infer_args *a, int i);
const tensor *eval_in(const eval_args *a, int i);

/* The node has min_in to max_in inputs (the first min_in present) and at most max_out outputs. */
rung_status op_counts(const infer_args *a, int min_in, int max_in, int max_out, rung_error *err);
/* Input i, where present and of known type, is of one of these types. */
rung_status op_type(const infer_args *a, int i, unsigned types, rung_error *err);
/* Inputs first..last, where present, have one type among `types`; it goes to *out (RUNG_UNDEFINED:
 * none is known). */
rung_status op_same_type(const infer_args *a, int first, int last, unsigned types, dtype *out,
                         rung_error *err);
/* Input i, where present and of known rank, has this rank. */
rung_status op_rank(const infer_args *a, int i, int rank, rung_error *err);
/* The rank of input i is at least min; RUNG_OK too when it is not known. */
rung_status op_min_rank(const infer_args *a, int i, int min, rung_error *err);
/* Input i, where present and known, is a vector of n elements (n = DIM_UNKNOWN: of any length). */
rung_status op_vector(const infer_args *a, int i, int64_t n, rung_error *err);

/* Whether the rank of input i is known (false for an absent one). */
bool op_knows_rank(const infer_args *a, int i);

/* Writes type, rank and dims (rank = -1: not known); every dim is >= 0 or DIM_UNKNOWN, and the
 * number of bytes fits. */
rung_status op_shape(value_info *out, dtype type, int rank, const int64_t *dims, rung_error *err);
/* The output is of the input's shape, with this type. */
rung_status op_like(const infer_args *a, int in, int out, dtype type, rung_error *err);

/* axis in [-rank, rank) -> [0, rank). */
rung_status op_axis(int64_t axis, int rank, int *out, rung_error *err);
/* A set of axes, each once, in the order given. */
typedef struct axes {
    int  n;
    int  at[RUNG_MAX_RANK];
    bool has[RUNG_MAX_RANK];
} axes;
rung_status op_axes(const int64_t *v, size_t n, int rank, axes *out, rung_error *err);

/* The content of an integer vector (or scalar): at most max entries, their number in *n. */
rung_status op_ints(const tensor *t, const char *what, size_t max, int64_t *v, size_t *n,
                    rung_error *err);

/* Multidirectional broadcasting of dims b into the result so far (rank, dims); DIM_UNKNOWN stays so
 * unless the other side says more than 1. */
rung_status op_broadcast(int *rank, int64_t *dims, int b_rank, const int64_t *b, rung_error *err);

/* An evaluated output whose shape hangs on the content of inputs has the shape that they say: a
 * file may declare another, which infer could not know to be wrong. */
rung_status op_check_output(const tensor *out, int rank, const int64_t *dims, rung_error *err);

/* Product of dims[first .. last-1]; of an evaluated tensor, so it fits. */
size_t dims_product(const int64_t *dims, int first, int last);

#endif
