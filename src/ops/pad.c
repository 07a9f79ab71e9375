/* Pad, Tile, Expand: an output index of each axis names an input index. */
#include <string.h>

#include "ops/element.h"
#include "ops/entries.h"
#include "ops/grad.h"
#include "ops/lower.h"
#include "ops/move.h"
#include "ops/taps.h"
#include "ops/walk.h"

bool maps_alloc(arena *mem, const tensor *y, int64_t **maps)
{
    for (int i = 0; i < y->rank; i++) {
        if (!(maps[i] = arena_zero(mem, (size_t)y->dims[i] + 1, sizeof **maps)))
            return false;
    }
    return true;
}

/* One row of y; x at the row's origin, NULL where the outer indices say fill. */
static void map_row(const char *x, const int64_t *map, const char *fill, size_t n, size_t elem,
                    char *y)
{
    for (size_t i = 0; i < n; i++) {
        const bool inside = x && map[i] >= 0;
        memcpy(y + i * elem, inside ? x + (size_t)map[i] * elem : fill, elem);
    }
}

void gather_mapped(const tensor *x, int64_t *const *maps, const void *fill, tensor *y)
{
    const size_t elem = movable_size(y->type), count = tensor_count(y);
    const int last = y->rank - 1;
    int64_t strides[RUNG_MAX_RANK], at[RUNG_MAX_RANK] = {0};
    if (count == 0)
        return;
    if (y->rank == 0) {
        memcpy(y->data, x->data, elem);
        return;
    }
    const size_t row = (size_t)y->dims[last];
    char *to = y->data;
    dims_strides(x->rank, x->dims, strides);
    do {
        int64_t offset = 0;
        for (int i = 0; i < last && offset >= 0; i++)
            offset = maps[i][at[i]] < 0 ? -1 : offset + maps[i][at[i]] * strides[i];
        const char *from = offset < 0 ? NULL : (const char *)x->data + (size_t)offset * elem;
        map_row(from, maps[last], fill, row, elem, to);
        to += row * elem;
    } while (next_position(last, y->dims, at));
}

/* --- Pad -------------------------------------------------------------------------------------- */
static rung_status read_mode(const node *n, pad_mode *out, rung_error *err)
{
    static const char *const names[] = {"constant", "reflect", "edge", "wrap"};
    const char *mode = node_string(n, "mode", "constant");
    for (int i = 0; i < 4; i++) {
        if (strcmp(mode, names[i]) == 0) {
            *out = (pad_mode)i;
            return RUNG_OK;
        }
    }
    return fail(err, RUNG_EMODEL, "mode is '%.40s', not constant, reflect, edge or wrap", mode);
}

/* No real pad comes near it. */
#define PAD_LIMIT (INT64_C(1) << 40)

rung_status pad_of(const node *n, const tensor *pads, const tensor *axis_list, int rank,
                   pad_amounts *out, rung_error *err)
{
    int64_t v[2 * RUNG_MAX_RANK], at[RUNG_MAX_RANK] = {0, 1, 2, 3, 4, 5, 6, 7};
    size_t n_pads = 0, n_axes = (size_t)rank;
    axes list;
    rung_status st;
    memset(out, 0, sizeof *out);
    if ((st = read_mode(n, &out->mode, err)) ||
        (st = op_ints(pads, "pads", 2 * (size_t)rank, v, &n_pads, err)) ||
        (axis_list && (st = op_ints(axis_list, "axes", (size_t)rank, at, &n_axes, err))) ||
        (st = op_axes(at, n_axes, rank, &list, err)))
        return st;
    if (n_pads != 2 * n_axes)
        return fail(err, RUNG_EMODEL, "pads has %zu entries for %zu axes", n_pads, n_axes);
    for (size_t i = 0; i < n_pads; i++) {
        if (v[i] <= -PAD_LIMIT || v[i] >= PAD_LIMIT)
            return fail(err, RUNG_EMODEL, "pads[%zu] is %lld", i, (long long)v[i]);
    }
    for (int i = 0; i < list.n; i++) {
        out->before[list.at[i]] = v[i];
        out->behind[list.at[i]] = v[(size_t)i + n_axes];
    }
    return RUNG_OK;
}

static rung_status padded_dim(const pad_amounts *p, int axis, int64_t dim, int64_t *out,
                              rung_error *err)
{
    *out = DIM_UNKNOWN;
    if (dim == DIM_UNKNOWN)
        return RUNG_OK;
    if (dim >= INT64_MAX - 2 * PAD_LIMIT || dim + p->before[axis] + p->behind[axis] < 0)
        return fail(err, RUNG_EMODEL, "pads of %lld and %lld do not fit axis %d of %lld",
                    (long long)p->before[axis], (long long)p->behind[axis], axis, (long long)dim);
    *out = dim + p->before[axis] + p->behind[axis];
    if (p->mode != PAD_CONSTANT && dim == 0 && *out > 0)
        return fail(err, RUNG_EMODEL, "axis %d is empty: there is nothing to pad from", axis);
    return RUNG_OK;
}

static rung_status pad_infer(const infer_args *a, rung_error *err)
{
    pad_amounts p;
    int64_t dims[RUNG_MAX_RANK];
    rung_status st;
    if ((st = op_counts(a, 2, 4, 1, err)) || (st = op_type(a, 1, TYPE(RUNG_I64), err)) ||
        (st = op_type(a, 3, TYPES_INDEX, err)))
        return st;
    const value_info *x = a->in[0], *with = op_in(a, 2), *list = op_in(a, 3);
    a->out[0].type = x->type;
    if (with && with->type != RUNG_UNDEFINED && x->type != RUNG_UNDEFINED &&
        with->type != x->type)
        return fail(err, RUNG_EMODEL, "constant_value is %s, the input %s",
                    dtype_name(with->type), dtype_name(x->type));
    if (x->rank < 0)
        return RUNG_OK;
    if (!a->in[1]->data || (list && !list->data)) {
        for (int i = 0; i < x->rank; i++)
            dims[i] = DIM_UNKNOWN;
        return op_shape(&a->out[0], x->type, x->rank, dims, err);
    }
    st = pad_of(a->n, a->in[1]->data, list ? list->data : NULL, x->rank, &p, err);
    for (int i = 0; st == RUNG_OK && i < x->rank; i++)
        st = padded_dim(&p, i, x->dims[i], &dims[i], err);
    return st ? st : op_shape(&a->out[0], x->type, x->rank, dims, err);
}

/* The input index that index i of an axis of dim > 0 reads, i counted from the input's beginning;
 * -1: the constant. */
static int64_t pad_index(pad_mode mode, int64_t i, int64_t dim)
{
    if (i >= 0 && i < dim)
        return i;
    switch (mode) {
    case PAD_CONSTANT:
        return -1;
    case PAD_EDGE:
        return i < 0 ? 0 : dim - 1;
    case PAD_WRAP:
        return (i % dim + dim) % dim;
    case PAD_REFLECT:
        break;
    }
    if (dim == 1)
        return 0;
    const int64_t period = 2 * (dim - 1), k = (i % period + period) % period;
    return k < dim ? k : period - k;
}

rung_status pad_read(const eval_args *a, const tensor *y, int64_t **maps, rung_error *err)
{
    const tensor *x = &a->in[0];
    int64_t dims[RUNG_MAX_RANK];
    pad_amounts p;
    rung_status st = pad_of(a->n, &a->in[1], eval_in(a, 3), x->rank, &p, err);
    for (int d = 0; st == RUNG_OK && d < x->rank; d++)
        st = padded_dim(&p, d, x->dims[d], &dims[d], err);
    if (st || (st = op_check_output(y, x->rank, dims, err)) || tensor_count(y) == 0)
        return st;
    if (!maps_alloc(a->mem, y, maps))
        return fail_memory(err, "index maps", (size_t)y->rank * sizeof **maps);
    for (int d = 0; d < x->rank; d++) {
        for (int64_t i = 0; i < y->dims[d]; i++)
            maps[d][i] = pad_index(p.mode, i - p.before[d], x->dims[d]);
    }
    return RUNG_OK;
}

static rung_status pad_eval(const eval_args *a, rung_error *err)
{
    const tensor *x = &a->in[0], *with = eval_in(a, 2);
    int64_t *maps[RUNG_MAX_RANK];
    const uint64_t zero = 0;
    rung_status st;
    if ((st = check_movable(x->type, err)) || (st = pad_read(a, &a->out[0], maps, err)))
        return st;
    if (with && tensor_count(with) == 0)
        return fail(err, RUNG_EMODEL, "constant_value is empty");
    if (tensor_count(&a->out[0]) != 0)
        gather_mapped(x, maps, with ? with->data : &zero, &a->out[0]);
    return RUNG_OK;
}

/* --- Tile ------------------------------------------------------------------------------------- */
static rung_status tiled_dims(const tensor *list, int rank, const int64_t *dims, int64_t *out,
                              rung_error *err)
{
    int64_t repeats[RUNG_MAX_RANK];
    size_t n = 0;
    const rung_status st = op_ints(list, "repeats", (size_t)rank, repeats, &n, err);
    if (st)
        return st;
    if (n != (size_t)rank)
        return fail(err, RUNG_EMODEL, "repeats has %zu entries, the input rank %d", n, rank);
    for (int i = 0; i < rank; i++) {
        out[i] = DIM_UNKNOWN;
        if (repeats[i] < 0 ||
            (dims[i] != DIM_UNKNOWN && __builtin_mul_overflow(dims[i], repeats[i], &out[i])))
            return fail(err, RUNG_EMODEL, "repeats[%d] is %lld", i, (long long)repeats[i]);
    }
    return RUNG_OK;
}

static rung_status tile_infer(const infer_args *a, rung_error *err)
{
    int64_t dims[RUNG_MAX_RANK];
    rung_status st;
    if ((st = op_counts(a, 2, 2, 1, err)) || (st = op_type(a, 1, TYPE(RUNG_I64), err)))
        return st;
    const value_info *x = a->in[0], *list = a->in[1];
    a->out[0].type = x->type;
    if (x->rank < 0)
        return RUNG_OK;
    for (int i = 0; i < x->rank; i++)
        dims[i] = DIM_UNKNOWN;
    if (list->data && (st = tiled_dims(list->data, x->rank, x->dims, dims, err)))
        return st;
    return op_shape(&a->out[0], x->type, x->rank, dims, err);
}

rung_status tile_read(const eval_args *a, const tensor *y, int64_t **maps, rung_error *err)
{
    const tensor *x = &a->in[0];
    int64_t dims[RUNG_MAX_RANK];
    rung_status st;
    if ((st = tiled_dims(&a->in[1], x->rank, x->dims, dims, err)) ||
        (st = op_check_output(y, x->rank, dims, err)) || tensor_count(y) == 0)
        return st;
    if (!maps_alloc(a->mem, y, maps))
        return fail_memory(err, "index maps", (size_t)y->rank * sizeof **maps);
    for (int d = 0; d < x->rank; d++) {
        for (int64_t i = 0; i < y->dims[d]; i++)
            maps[d][i] = i % x->dims[d];
    }
    return RUNG_OK;
}

static rung_status tile_eval(const eval_args *a, rung_error *err)
{
    int64_t *maps[RUNG_MAX_RANK];
    rung_status st;
    if ((st = check_movable(a->in[0].type, err)) || (st = tile_read(a, &a->out[0], maps, err)))
        return st;
    if (tensor_count(&a->out[0]) != 0)
        gather_mapped(&a->in[0], maps, NULL, &a->out[0]);
    return RUNG_OK;
}

/* --- Expand ----------------------------------------------------------------------------------- */
static rung_status expand_infer(const infer_args *a, rung_error *err)
{
    int64_t dims[RUNG_MAX_RANK], want[RUNG_MAX_RANK];
    size_t n = 0;
    rung_status st;
    if ((st = op_counts(a, 2, 2, 1, err)) || (st = op_type(a, 1, TYPE(RUNG_I64), err)))
        return st;
    const value_info *x = a->in[0], *list = a->in[1];
    a->out[0].type = x->type;
    if (x->rank < 0)
        return RUNG_OK;
    if (list->data) {
        if ((st = op_ints(list->data, "shape", RUNG_MAX_RANK, want, &n, err)))
            return st;
        for (size_t i = 0; i < n; i++) {
            if (want[i] < 0)
                return fail(err, RUNG_EMODEL, "shape[%zu] is %lld", i, (long long)want[i]);
        }
    } else {
        if (list->rank != 1 || list->dims[0] < 0 || list->dims[0] > RUNG_MAX_RANK)
            return RUNG_OK;
        n = (size_t)list->dims[0];
        for (size_t i = 0; i < n; i++)
            want[i] = DIM_UNKNOWN;
    }
    int rank = x->rank;
    memcpy(dims, x->dims, sizeof dims);
    if ((st = op_broadcast(&rank, dims, (int)n, want, err)))
        return st;
    return op_shape(&a->out[0], x->type, rank, dims, err);
}

static rung_status expand_eval(const eval_args *a, rung_error *err)
{
    const tensor *x = &a->in[0];
    tensor *y = &a->out[0];
    int64_t own[RUNG_MAX_RANK], strides[RUNG_MAX_RANK] = {0};
    rung_status st = check_movable(x->type, err);
    if (st)
        return st;
    int rank = x->rank;
    int64_t dims[RUNG_MAX_RANK];
    memcpy(dims, x->dims, sizeof dims);
    if ((st = op_broadcast(&rank, dims, y->rank, y->dims, err)) ||
        (st = op_check_output(y, rank, dims, err)))
        return st;
    dims_strides(x->rank, x->dims, own);
    for (int i = 0; i < x->rank; i++)
        strides[y->rank - x->rank + i] = x->dims[i] == 1 ? 0 : own[i];
    gather_strided(x, 0, strides, y);
    return RUNG_OK;
}

#define MOVED .quant = {QUANT_SHARES_INPUT, .activations = 1}

const op_def op_expand = {.name = "Expand", .domain = "", .infer = expand_infer,
                          .eval = expand_eval, .grad = expand_grad,
                          .lower = lower_expand, MOVED, .layout = LAYOUT_PLAIN};
const op_def op_pad = {.name = "Pad", .domain = "", .infer = pad_infer, .eval = pad_eval,
                       .grad = pad_grad,
                       .lower = lower_pad, MOVED, .layout = LAYOUT_FOLLOWS};
const op_def op_tile = {.name = "Tile", .domain = "", .infer = tile_infer, .eval = tile_eval,
                        .grad = tile_grad,
                        .lower = lower_tile, MOVED, .layout = LAYOUT_PLAIN};
