/* Elements of any numeric type as doubles or int64, and back; float tensors as float arrays. */
#ifndef RUNG_OPS_ELEMENT_H
#define RUNG_OPS_ELEMENT_H

#include "graph/op.h"

/* Elements first .. first+n-1 of t. Integers over 2^53 lose bits as doubles; uint64 keeps its bits
 * as int64. */
void load_doubles(const tensor *t, size_t first, size_t n, double *v);
void load_ints(const tensor *t, size_t first, size_t n, int64_t *v);

/* Stores with one rounding to the type (half to even). Integers: truncated toward zero and
 * saturated, NaN gives 0; BOOL: v != 0. */
void store_doubles(tensor *t, size_t first, size_t n, const double *v);
/* Stores modulo 2^bits (two's complement); elements that share a byte are stored in their order.
 * BOOL: v != 0; floats: rounded. */
void store_ints(tensor *t, size_t first, size_t n, const int64_t *v);

/* The range of an integer type (up to 32 bits wide; 4 and 2 bits too); false: no such type. */
bool int_range(dtype type, int64_t *lo, int64_t *hi);

/* The float elements of t: its own data when it is float32, else a converted copy in mem. NULL:
 * memory is out. t = NULL gives NULL too, so absent optional inputs need a look at t. */
const float *floats_of(const tensor *t, arena *mem);
/* Where the float32 results of t go: t's own data, or memory that floats_done converts from. */
float *floats_for(const tensor *t, arena *mem);
void floats_done(tensor *t, const float *v);

/* The refusal of a type that infer lets through and eval does not compute with. */
rung_status unsupported_type(dtype type, rung_error *err);

#endif
