/* ConvInteger and MatMulInteger: exact int32 products of 8-bit operands. */
#include "ops/conv.h"
#include "ops/element.h"
#include "ops/entries.h"
#include "ops/gemm.h"
#include "ops/taps.h"

#define TYPES_8BIT (TYPE(RUNG_U8) | TYPE(RUNG_I8))

/* The zero points in inputs 2 and 3 have their operand's type. */
static rung_status integer_infer(const infer_args *a, rung_error *err)
{
    rung_status st;
    if ((st = op_counts(a, 2, 4, 1, err)))
        return st;
    for (int i = 0; i < 2; i++) {
        dtype type;
        if ((st = op_same_type(a, i, i, TYPES_8BIT, &type, err)) ||
            (type != RUNG_UNDEFINED && (st = op_type(a, i + 2, TYPE(type), err))))
            return st;
    }
    return RUNG_OK;
}

/* A zero point as int32: one for all, or one of many. */
static int32_t zero_at(const tensor *z, size_t i)
{
    if (!z)
        return 0;
    return (int32_t)tensor_get_int(z, tensor_count(z) == 1 ? 0 : i);
}

/* --- ConvInteger ------------------------------------------------------------------------------ */
static rung_status conv_integer_infer(const infer_args *a, rung_error *err)
{
    rung_status st;
    if ((st = integer_infer(a, err)) || (st = conv_shape_infer(a, RUNG_I32, err)))
        return st;
    const value_info *xz = op_in(a, 2), *wz = op_in(a, 3), *w = a->in[1];
    const size_t nx = xz ? dims_count(xz->rank, xz->dims) : 1;
    const size_t nw = wz ? dims_count(wz->rank, wz->dims) : 1;
    if (nx != 1 && nx != SIZE_MAX)
        return fail(err, RUNG_EMODEL, "%zu zero points of the input", nx);
    if (nw != 1 && nw != SIZE_MAX && w->rank > 0 && w->dims[0] != DIM_UNKNOWN &&
        nw != (size_t)w->dims[0])
        return fail(err, RUNG_EMODEL, "%zu zero points for %lld output channels", nw,
                    (long long)w->dims[0]);
    return RUNG_OK;
}

static rung_status conv_integer_eval(const eval_args *a, rung_error *err)
{
    const tensor *x = &a->in[0], *w = &a->in[1], *xz = eval_in(a, 2), *wz = eval_in(a, 3);
    window win;
    taps t;
    rung_status st;
    if ((st = window_conv(a->n, x->rank, x->dims, w->dims, &win, err)) ||
        (st = taps_init(&t, &win, x->dims + 2, false, a->mem, err)))
        return st;
    const size_t channels = (size_t)x->dims[1], outs = (size_t)w->dims[0], per = (size_t)w->dims[1];
    const size_t in = dims_product(x->dims, 2, x->rank), k = dims_product(w->dims, 2, x->rank);
    const size_t out = dims_product(a->out[0].dims, 2, x->rank);
    const size_t out_per_group = outs / (size_t)node_int(a->n, "group", 1);
    int32_t *y = a->out[0].data;
    int64_t at[WINDOW_MAX] = {0};
    size_t position = 0;
    do {
        taps_at(&t, at);
        for (size_t m = 0; m < (size_t)x->dims[0] * outs; m++) {
            const size_t image = m / outs, row = m % outs, group = row / out_per_group;
            const int32_t wzero = zero_at(wz, row), xzero = zero_at(xz, 0);
            uint32_t sum = 0; /* wraps as int32 does in the operator's definition */
            for (size_t i = 0; i < per * t.n; i++) {
                const size_t c = i / t.n, tap = i % t.n;
                const size_t from = (image * channels + group * per + c) * in + t.x[tap];
                const int32_t xv = (int32_t)tensor_get_int(x, from) - xzero;
                const int32_t wv = (int32_t)tensor_get_int(w, (row * per + c) * k + t.k[tap]);
                sum += (uint32_t)(xv * (wv - wzero));
            }
            y[m * out + position] = (int32_t)sum;
        }
        position++;
    } while (next_position(win.n, a->out[0].dims + 2, at));
    return RUNG_OK;
}

/* --- MatMulInteger ---------------------------------------------------------------------------- */
/* One zero point, or a vector with one a row (left) or column (right). */
static rung_status check_zeros(const infer_args *a, int i, int64_t many, rung_error *err)
{
    const value_info *z = op_in(a, i);
    if (!z || z->rank < 0)
        return RUNG_OK;
    const size_t n = dims_count(z->rank, z->dims);
    if (n == 1 || n == SIZE_MAX)
        return RUNG_OK;
    if (z->rank != 1)
        return fail(err, RUNG_EUNSUPPORTED, "zero points of rank %d", z->rank);
    if (many != DIM_UNKNOWN && n != (size_t)many)
        return fail(err, RUNG_EMODEL, "%zu zero points for %lld rows or columns", n,
                    (long long)many);
    return RUNG_OK;
}

/* The dimension `behind` from the last, 1 for a vector. */
static int64_t side(const value_info *v, int behind)
{
    return v->rank < 0 ? DIM_UNKNOWN : v->rank == 1 ? 1 : v->dims[v->rank - behind];
}

static rung_status matmul_integer_infer(const infer_args *a, rung_error *err)
{
    rung_status st;
    if ((st = integer_infer(a, err)) || (st = matmul_shape_infer(a, RUNG_I32, err)))
        return st;
    if ((st = check_zeros(a, 2, side(a->in[0], 2), err)))
        return st;
    return check_zeros(a, 3, side(a->in[1], 1), err);
}

static rung_status matmul_integer_eval(const eval_args *a, rung_error *err)
{
    const tensor *x = &a->in[0], *b = &a->in[1], *xz = eval_in(a, 2), *bz = eval_in(a, 3);
    int32_t *y = a->out[0].data;
    matmul_walk w;
    size_t x_at, b_at, y_at;
    matmul_walk_begin(&w, x, b);
    while (matmul_walk_next(&w, &x_at, &b_at, &y_at)) {
        for (size_t o = 0; o < w.m * w.n; o++) {
            const size_t i = o / w.n, j = o % w.n;
            const int32_t xzero = zero_at(xz, i), bzero = zero_at(bz, j);
            uint32_t sum = 0;
            for (size_t k = 0; k < w.k; k++) {
                const int32_t xv = (int32_t)tensor_get_int(x, x_at + i * w.k + k) - xzero;
                const int32_t bv = (int32_t)tensor_get_int(b, b_at + k * w.n + j) - bzero;
                sum += (uint32_t)(xv * bv);
            }
            y[y_at + o] = (int32_t)sum;
        }
    }
    return RUNG_OK;
}

const op_def op_conv_integer = {.name = "ConvInteger", .domain = "", .infer = conv_integer_infer,
                                .eval = conv_integer_eval, .layout = LAYOUT_CHANNELS};
const op_def op_matmul_integer = {.name = "MatMulInteger", .domain = "",
                                  .infer = matmul_integer_infer, .eval = matmul_integer_eval};
