/* QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear. */
#include "ops/quantize.h"

#include <math.h>

#include "ops/element.h"
#include "ops/entries.h"

#define TYPES_QUANTIZED                                                                            \
    (TYPE(RUNG_U8) | TYPE(RUNG_I8) | TYPE(RUNG_U16) | TYPE(RUNG_I16) | TYPE(RUNG_U4) |             \
     TYPE(RUNG_I4) | TYPE(RUNG_U2) | TYPE(RUNG_I2) | TYPE(RUNG_F8E4M3FN) |                         \
     TYPE(RUNG_F8E4M3FNUZ) | TYPE(RUNG_F8E5M2) | TYPE(RUNG_F8E5M2FNUZ) | TYPE(RUNG_F4E2M1))
#define TYPES_SCALE (TYPES_FLOAT | TYPE(RUNG_F8E8M0))

/* --- which scale ------------------------------------------------------------------------------ */
static rung_status blocked_map(int rank, const int64_t *dims, const int64_t *scale_dims, int axis,
                               int64_t block, scale_map *out, rung_error *err)
{
    for (int i = 0; i < rank; i++) {
        const int64_t want = i == axis ? dims[i] / block + (dims[i] % block != 0) : dims[i];
        if (scale_dims[i] != want)
            return fail(err, RUNG_EMODEL,
                        "dimension %d of the scale is %lld; blocks of %lld need %lld", i,
                        (long long)scale_dims[i], (long long)block, (long long)want);
    }
    out->kind = SCALE_BLOCKS;
    out->block = (size_t)block;
    out->n_blocks = (size_t)scale_dims[axis];
    return RUNG_OK;
}

rung_status scale_map_of(const node *n, int rank, const int64_t *dims, int scale_rank,
                         const int64_t *scale_dims, scale_map *out, rung_error *err)
{
    const int64_t block = node_int(n, "block_size", 0);
    int axis = 0;
    *out = (scale_map){.kind = SCALE_TENSOR, .axis_dim = 1, .inner = 1, .block = 1, .n_blocks = 1};
    if (block < 0)
        return fail(err, RUNG_EMODEL, "block_size is %lld", (long long)block);
    if (block == 0 && (scale_rank == 0 || (scale_rank == 1 && scale_dims[0] == 1)))
        return RUNG_OK;
    const rung_status st = op_axis(node_int(n, "axis", 1), rank, &axis, err);
    if (st)
        return st;
    out->axis_dim = (size_t)dims[axis];
    out->inner = dims_product(dims, axis + 1, rank);
    if (block > 0) {
        if (scale_rank != rank)
            return fail(err, RUNG_EMODEL, "the scale has rank %d, the blocked tensor %d",
                        scale_rank, rank);
        return blocked_map(rank, dims, scale_dims, axis, block, out, err);
    }
    if (scale_rank != 1 || scale_dims[0] != dims[axis])
        return fail(err, RUNG_EMODEL, "the scale fits neither the tensor nor axis %d of %lld", axis,
                    (long long)dims[axis]);
    out->kind = SCALE_AXIS;
    return RUNG_OK;
}

/* --- shapes ----------------------------------------------------------------------------------- */
/* Scale and zero point against the data and each other, where all dimensions are known. */
static rung_status check_scale(const infer_args *a, rung_error *err)
{
    const value_info *x = a->in[0], *s = a->in[1], *z = op_in(a, 2);
    scale_map map;
    if (s->rank < 0 || dims_count(s->rank, s->dims) == SIZE_MAX)
        return RUNG_OK;
    if (z && z->rank >= 0) {
        const size_t n = dims_count(z->rank, z->dims);
        if (n != SIZE_MAX && n != dims_count(s->rank, s->dims))
            return fail(err, RUNG_EMODEL, "%zu zero points for %zu scales", n,
                        dims_count(s->rank, s->dims));
    }
    if (x->rank < 0 || dims_count(x->rank, x->dims) == SIZE_MAX)
        return RUNG_OK;
    return scale_map_of(a->n, x->rank, x->dims, s->rank, s->dims, &map, err);
}

/* The attribute output_dtype, RUNG_UNDEFINED when it is not given. */
static rung_status output_dtype(const node *n, unsigned types, dtype *out, rung_error *err)
{
    const int64_t v = node_int(n, "output_dtype", RUNG_UNDEFINED);
    *out = RUNG_UNDEFINED;
    if (v < RUNG_UNDEFINED || v > RUNG_I2 ||
        (v != RUNG_UNDEFINED && !(types & TYPE((unsigned)v))))
        return fail(err, RUNG_EMODEL, "output_dtype = %lld is not allowed", (long long)v);
    *out = (dtype)v;
    return RUNG_OK;
}

static rung_status quantize_infer(const infer_args *a, rung_error *err)
{
    dtype to, zero_type;
    rung_status st;
    if ((st = op_counts(a, 2, 3, 1, err)) ||
        (st = op_type(a, 0, TYPES_FLOAT | TYPE(RUNG_I32), err)) ||
        (st = op_type(a, 1, TYPES_SCALE | TYPE(RUNG_I32), err)) ||
        (st = op_same_type(a, 2, 2, TYPES_QUANTIZED, &zero_type, err)) ||
        (st = output_dtype(a->n, TYPES_QUANTIZED, &to, err)) || (st = check_scale(a, err)))
        return st;
    if (to != RUNG_UNDEFINED && zero_type != RUNG_UNDEFINED && to != zero_type)
        return fail(err, RUNG_EMODEL, "output_dtype is %s, the zero point is %s", dtype_name(to),
                    dtype_name(zero_type));
    if (to == RUNG_UNDEFINED)
        to = op_in(a, 2) ? zero_type : RUNG_U8;
    return op_like(a, 0, 0, to, err);
}

static rung_status dequantize_infer(const infer_args *a, rung_error *err)
{
    dtype to, type;
    rung_status st;
    if ((st = op_counts(a, 2, 3, 1, err)) ||
        (st = op_type(a, 0, TYPES_QUANTIZED | TYPE(RUNG_I32), err)) ||
        (st = op_type(a, 1, TYPES_SCALE, err)) ||
        (st = output_dtype(a->n, TYPES_FLOAT, &to, err)) || (st = check_scale(a, err)))
        return st;
    if (op_in(a, 2) && a->in[0]->type != RUNG_UNDEFINED &&
        (st = op_type(a, 2, TYPE(a->in[0]->type), err)))
        return st;
    type = to != RUNG_UNDEFINED ? to : a->in[1]->type;
    return op_like(a, 0, 0, type, err);
}

/* --- evaluation ------------------------------------------------------------------------------- */
/* rne(x / scale) + zero, saturated; the division in float32. NaN counts as 0. */
static int64_t quantize_value(float x, float scale, int64_t zero, int64_t lo, int64_t hi)
{
    const double v = isnan(x / scale) ? 0 : nearbyint(x / scale);
    return v < (double)(lo - zero) ? lo : v > (double)(hi - zero) ? hi : (int64_t)v + zero;
}

static rung_status quantize_eval(const eval_args *a, rung_error *err)
{
    const tensor *x = &a->in[0], *s = &a->in[1], *z = eval_in(a, 2);
    tensor *y = &a->out[0];
    const size_t n = tensor_count(y);
    int64_t lo, hi;
    scale_map map;
    rung_status st;
    if (!int_range(y->type, &lo, &hi))
        return unsupported_type(y->type, err);
    if (s->type == RUNG_F8E8M0)
        return unsupported_type(s->type, err);
    if ((st = scale_map_of(a->n, x->rank, x->dims, s->rank, s->dims, &map, err)))
        return st;
    for (size_t i = 0; i < n; i++) {
        const size_t at = scale_at(&map, i);
        const int64_t q = quantize_value((float)tensor_get(x, i), (float)tensor_get(s, at),
                                         z ? tensor_get_int(z, at) : 0, lo, hi);
        store_ints(y, i, 1, &q);
    }
    return RUNG_OK;
}

static rung_status dequantize_eval(const eval_args *a, rung_error *err)
{
    const tensor *x = &a->in[0], *s = &a->in[1], *z = eval_in(a, 2);
    const size_t n = tensor_count(&a->out[0]);
    int64_t lo, hi;
    scale_map map;
    rung_status st;
    if (!int_range(x->type, &lo, &hi))
        return unsupported_type(x->type, err);
    if (s->type == RUNG_F8E8M0)
        return unsupported_type(s->type, err);
    if ((st = scale_map_of(a->n, x->rank, x->dims, s->rank, s->dims, &map, err)))
        return st;
    for (size_t i = 0; i < n; i++) {
        const size_t at = scale_at(&map, i);
        const int64_t q = tensor_get_int(x, i) - (z ? tensor_get_int(z, at) : 0);
        const double v = (float)q * (float)tensor_get(s, at);
        store_doubles(&a->out[0], i, 1, &v);
    }
    return RUNG_OK;
}

/* --- DynamicQuantizeLinear -------------------------------------------------------------------- */
static rung_status dynamic_infer(const infer_args *a, rung_error *err)
{
    rung_status st;
    if ((st = op_counts(a, 1, 1, 3, err)) || (st = op_type(a, 0, TYPE(RUNG_F32), err)) ||
        (st = op_like(a, 0, 0, RUNG_U8, err)))
        return st;
    if (a->n->n_outputs != 3)
        return fail(err, RUNG_EMODEL, "%d outputs where 3 are needed", a->n->n_outputs);
    if ((st = op_shape(&a->out[1], RUNG_F32, 0, NULL, err)))
        return st;
    return op_shape(&a->out[2], RUNG_U8, 0, NULL, err);
}

static rung_status dynamic_eval(const eval_args *a, rung_error *err)
{
    const float *x = a->in[0].data;
    const size_t n = tensor_count(&a->in[0]);
    float lo = 0, hi = 0; /* the range always holds 0 */
    for (size_t i = 0; i < n; i++) {
        lo = x[i] < lo ? x[i] : lo;
        hi = x[i] > hi ? x[i] : hi;
    }
    const float scale = (hi - lo) / 255;
    const int64_t zero = scale > 0 ? quantize_value(0 - lo, scale, 0, 0, 255) : 0;
    for (size_t i = 0; i < n; i++)
        ((uint8_t *)a->out[0].data)[i] =
            (uint8_t)(scale > 0 ? quantize_value(x[i], scale, zero, 0, 255) : 0);
    if (a->out[1].data)
        *(float *)a->out[1].data = scale;
    if (a->out[2].data)
        *(uint8_t *)a->out[2].data = (uint8_t)zero;
    return RUNG_OK;
}

const op_def op_dequantize_linear = {.name = "DequantizeLinear", .domain = "",
                                     .infer = dequantize_infer, .eval = dequantize_eval,
                                     .layout = LAYOUT_FOLLOWS};
const op_def op_dynamic_quantize_linear = {.name = "DynamicQuantizeLinear", .domain = "",
                                           .infer = dynamic_infer, .eval = dynamic_eval,
                                           .layout = LAYOUT_FOLLOWS};
const op_def op_quantize_linear = {.name = "QuantizeLinear", .domain = "",
                                   .infer = quantize_infer, .eval = quantize_eval,
                                   .layout = LAYOUT_FOLLOWS};
