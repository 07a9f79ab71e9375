/* Gather, GatherElements, DepthToSpace, SpaceToDepth. */
#include <string.h>

#include "ops/entries.h"
#include "ops/grad.h"
#include "ops/lower.h"
#include "ops/move.h"

rung_status wrap_index(int64_t index, int64_t dim, size_t *out, rung_error *err)
{
    if (index < -dim || index >= dim)
        return fail(err, RUNG_EMODEL, "index %lld is not in [-%lld, %lld)", (long long)index,
                    (long long)dim, (long long)dim);
    *out = (size_t)(index < 0 ? index + dim : index);
    return RUNG_OK;
}

/* --- Gather ----------------------------------------------------------------------------------- */
static rung_status gather_infer(const infer_args *a, rung_error *err)
{
    int64_t dims[2 * RUNG_MAX_RANK];
    int axis = 0, rank = 0;
    rung_status st;
    if ((st = op_counts(a, 2, 2, 1, err)) || (st = op_type(a, 1, TYPES_INDEX, err)) ||
        (st = op_min_rank(a, 0, 1, err)))
        return st;
    const value_info *x = a->in[0], *index = a->in[1];
    a->out[0].type = x->type;
    if (x->rank < 0 || index->rank < 0)
        return RUNG_OK;
    if ((st = op_axis(node_int(a->n, "axis", 0), x->rank, &axis, err)))
        return st;
    for (int i = 0; i < axis; i++)
        dims[rank++] = x->dims[i];
    for (int i = 0; i < index->rank; i++)
        dims[rank++] = index->dims[i];
    for (int i = axis + 1; i < x->rank; i++)
        dims[rank++] = x->dims[i];
    return op_shape(&a->out[0], x->type, rank, dims, err);
}

static rung_status gather_eval(const eval_args *a, rung_error *err)
{
    const tensor *x = &a->in[0], *index = &a->in[1];
    int axis = 0;
    rung_status st;
    if ((st = check_movable(x->type, err)) ||
        (st = op_axis(node_int(a->n, "axis", 0), x->rank, &axis, err)))
        return st;
    const size_t outer = dims_product(x->dims, 0, axis), n = tensor_count(index);
    const size_t inner = dims_product(x->dims, axis + 1, x->rank) * movable_size(x->type);
    const size_t dim = (size_t)x->dims[axis];
    for (size_t i = 0; i < n; i++) {
        size_t at = 0;
        if ((st = wrap_index(tensor_get_int(index, i), x->dims[axis], &at, err)))
            return st;
        for (size_t o = 0; inner && o < outer; o++)
            memcpy((char *)a->out[0].data + (o * n + i) * inner,
                   (const char *)x->data + (o * dim + at) * inner, inner);
    }
    return RUNG_OK;
}

static rung_status gather_elements_infer(const infer_args *a, rung_error *err)
{
    int axis = 0;
    rung_status st;
    if ((st = op_counts(a, 2, 2, 1, err)) || (st = op_type(a, 1, TYPES_INDEX, err)) ||
        (st = op_min_rank(a, 0, 1, err)))
        return st;
    const value_info *x = a->in[0], *index = a->in[1];
    a->out[0].type = x->type;
    if (x->rank < 0 || index->rank < 0)
        return RUNG_OK;
    if ((st = op_rank(a, 1, x->rank, err)) ||
        (st = op_axis(node_int(a->n, "axis", 0), x->rank, &axis, err)))
        return st;
    for (int i = 0; i < x->rank; i++) {
        if (i != axis && x->dims[i] != DIM_UNKNOWN && index->dims[i] > x->dims[i])
            return fail(err, RUNG_EMODEL, "dimension %d of the indices is %lld, of the data %lld",
                        i, (long long)index->dims[i], (long long)x->dims[i]);
    }
    return op_shape(&a->out[0], x->type, x->rank, index->dims, err);
}

rung_status gathered_element(const tensor *x, const tensor *index, int axis, size_t i, size_t *from,
                             rung_error *err)
{
    size_t hop = 1, rest = i;
    *from = 0;
    for (int d = x->rank - 1; d >= 0; d--) {
        size_t at = rest % (size_t)index->dims[d];
        rung_status st;
        rest /= (size_t)index->dims[d];
        if (d == axis && (st = wrap_index(tensor_get_int(index, i), x->dims[d], &at, err)))
            return st;
        *from += at * hop;
        hop *= (size_t)x->dims[d];
    }
    return RUNG_OK;
}

static rung_status gather_elements_eval(const eval_args *a, rung_error *err)
{
    const tensor *x = &a->in[0], *index = &a->in[1];
    const size_t elem = movable_size(x->type), n = tensor_count(index);
    int axis = 0;
    rung_status st;
    if ((st = check_movable(x->type, err)) ||
        (st = op_axis(node_int(a->n, "axis", 0), x->rank, &axis, err)))
        return st;
    for (size_t i = 0; i < n; i++) {
        size_t from;
        if ((st = gathered_element(x, index, axis, i, &from, err)))
            return st;
        memcpy((char *)a->out[0].data + i * elem, (const char *)x->data + from * elem, elem);
    }
    return RUNG_OK;
}

/* --- DepthToSpace, SpaceToDepth --------------------------------------------------------------- */
#define BLOCK_LIMIT (INT64_C(1) << 16)

static rung_status block_infer(const infer_args *a, int64_t *block, rung_error *err)
{
    const char *mode = node_string(a->n, "mode", "DCR");
    rung_status st;
    *block = node_int(a->n, "blocksize", 0);
    if ((st = op_counts(a, 1, 1, 1, err)) || (st = op_rank(a, 0, 4, err)))
        return st;
    if (*block < 1 || *block > BLOCK_LIMIT)
        return fail(err, RUNG_EMODEL, "blocksize is %lld", (long long)*block);
    if (strcmp(mode, "DCR") != 0 && strcmp(mode, "CRD") != 0)
        return fail(err, RUNG_EMODEL, "mode is '%.40s', not DCR or CRD", mode);
    a->out[0].type = a->in[0]->type;
    return RUNG_OK;
}

/* v / by and v * by, DIM_UNKNOWN as it is. */
static rung_status divide(int64_t v, int64_t by, int axis, int64_t *out, rung_error *err)
{
    *out = v == DIM_UNKNOWN ? v : v / by;
    if (v == DIM_UNKNOWN || v % by == 0)
        return RUNG_OK;
    return fail(err, RUNG_EMODEL, "dimension %d = %lld is no multiple of %lld", axis, (long long)v,
                (long long)by);
}

static rung_status multiply(int64_t v, int64_t by, int axis, int64_t *out, rung_error *err)
{
    *out = v;
    if (v == DIM_UNKNOWN || !__builtin_mul_overflow(v, by, out))
        return RUNG_OK;
    return fail(err, RUNG_EMODEL, "dimension %d = %lld times %lld overflows", axis, (long long)v,
                (long long)by);
}

static rung_status depth_to_space_infer(const infer_args *a, rung_error *err)
{
    int64_t b, dims[4];
    rung_status st;
    if ((st = block_infer(a, &b, err)) || a->in[0]->rank < 0)
        return st;
    const int64_t *x = a->in[0]->dims;
    dims[0] = x[0];
    if ((st = divide(x[1], b * b, 1, &dims[1], err)) ||
        (st = multiply(x[2], b, 2, &dims[2], err)) || (st = multiply(x[3], b, 3, &dims[3], err)))
        return st;
    return op_shape(&a->out[0], a->in[0]->type, 4, dims, err);
}

static rung_status space_to_depth_infer(const infer_args *a, rung_error *err)
{
    int64_t b, dims[4];
    rung_status st;
    if ((st = block_infer(a, &b, err)) || a->in[0]->rank < 0)
        return st;
    const int64_t *x = a->in[0]->dims;
    dims[0] = x[0];
    if ((st = multiply(x[1], b * b, 1, &dims[1], err)) ||
        (st = divide(x[2], b, 2, &dims[2], err)) || (st = divide(x[3], b, 3, &dims[3], err)))
        return st;
    return op_shape(&a->out[0], a->in[0]->type, 4, dims, err);
}

/* The result as [N, C, H, b, W, b] reads the input's depth at [bh][bw][C] (DCR) or [C][bh][bw]. */
rung_status depth_to_space_read(const eval_args *a, strided *s, rung_error *err)
{
    const int64_t *x = a->in[0].dims;
    const int64_t b = node_int(a->n, "blocksize", 1), h = x[2], w = x[3], hw = h * w;
    const int64_t c = x[1] / (b * b);
    const bool crd = strcmp(node_string(a->n, "mode", "DCR"), "CRD") == 0;
    const int64_t block = crd ? hw : c * hw; /* step of one depth block */
    *s = (strided){.rank = 6,
                   .dims = {x[0], c, h, b, w, b},
                   .strides = {x[1] * hw, crd ? b * b * hw : hw, w, b * block, 1, block}};
    return RUNG_OK;
}

static rung_status depth_to_space_eval(const eval_args *a, rung_error *err)
{
    strided s;
    const rung_status st = depth_to_space_read(a, &s, err);
    return st ? st : eval_strided(a, &s, err);
}

/* The result as [N, b, b, C, H, W] (DCR) or [N, C, b, b, H, W] reads [N, C, H, b, W, b]. */
rung_status space_to_depth_read(const eval_args *a, strided *s, rung_error *err)
{
    const int64_t *x = a->in[0].dims;
    const int64_t b = node_int(a->n, "blocksize", 1), c = x[1], row = x[3], hw = x[2] * row;
    *s = (strided){.rank = 6,
                   .dims = {x[0], b, b, c, x[2] / b, row / b},
                   .strides = {c * hw, row, 1, hw, b * row, b}};
    if (strcmp(node_string(a->n, "mode", "DCR"), "CRD") == 0) {
        s->dims[1] = c, s->dims[2] = b, s->dims[3] = b;
        s->strides[1] = hw, s->strides[2] = row, s->strides[3] = 1;
    }
    return RUNG_OK;
}

static rung_status space_to_depth_eval(const eval_args *a, rung_error *err)
{
    strided s;
    const rung_status st = space_to_depth_read(a, &s, err);
    return st ? st : eval_strided(a, &s, err);
}

#define MOVED .quant = {QUANT_SHARES_INPUT, .activations = 1}

const op_def op_depth_to_space = {.name = "DepthToSpace", .domain = "",
                                  .infer = depth_to_space_infer, .eval = depth_to_space_eval,
                                  .grad = depth_to_space_grad,
                                  .lower = lower_depth_space,
                                  MOVED, .layout = LAYOUT_CHANNELS};
const op_def op_gather = {.name = "Gather",
                          .domain = "",
                          .infer = gather_infer,
                          .eval = gather_eval,
                          .grad = gather_grad,
                          .lower = lower_gather,
                          MOVED,
                          .layout = LAYOUT_PLAIN};
const op_def op_gather_elements = {.name = "GatherElements", .domain = "",
                                   .infer = gather_elements_infer, .eval = gather_elements_eval,
                                   .grad = gather_elements_grad,
                                   MOVED, .layout = LAYOUT_PLAIN};
const op_def op_space_to_depth = {.name = "SpaceToDepth", .domain = "",
                                  .infer = space_to_depth_infer, .eval = space_to_depth_eval,
                                  .grad = space_to_depth_grad,
                                  .lower = lower_depth_space,
                                  MOVED, .layout = LAYOUT_CHANNELS};
