/* Gemm and MatMul. */
#include "ops/gemm.h"

#include "ops/element.h"
#include "ops/entries.h"
#include "ops/grad.h"
#include "ops/lower.h"
#include "ops/walk.h"

#include <string.h>

/* Both sides of the summed dimension are equal where they are known. */
static rung_status check_inner(int64_t a, int64_t b, rung_error *err)
{
    if (a == DIM_UNKNOWN || b == DIM_UNKNOWN || a == b)
        return RUNG_OK;
    return fail(err, RUNG_EMODEL, "the summed dimension is %lld on the left and %lld on the right",
                (long long)a, (long long)b);
}

/* C broadcasts to [M, N], one way only. */
static rung_status check_addend(const value_info *c, const int64_t *dims, rung_error *err)
{
    if (!c || c->rank < 0)
        return RUNG_OK;
    if (c->rank > 2)
        return fail(err, RUNG_EMODEL, "input 2 has rank %d, not 0 to 2", c->rank);
    for (int i = 0; i < c->rank; i++) {
        const int64_t have = c->dims[i], want = dims[2 - c->rank + i];
        if (have != DIM_UNKNOWN && want != DIM_UNKNOWN && have != 1 && have != want)
            return fail(err, RUNG_EMODEL, "input 2 does not broadcast to [%lld, %lld]",
                        (long long)dims[0], (long long)dims[1]);
    }
    return RUNG_OK;
}

static rung_status gemm_infer(const infer_args *a, rung_error *err)
{
    dtype type;
    rung_status st;
    int64_t dims[2] = {DIM_UNKNOWN, DIM_UNKNOWN}, inner[2] = {DIM_UNKNOWN, DIM_UNKNOWN};
    if ((st = op_counts(a, 2, 3, 1, err)) ||
        (st = op_same_type(a, 0, 2, TYPES_NUMBER, &type, err)) || (st = op_rank(a, 0, 2, err)) ||
        (st = op_rank(a, 1, 2, err)))
        return st;
    const bool trans[2] = {node_int(a->n, "transA", 0) != 0, node_int(a->n, "transB", 0) != 0};
    for (int i = 0; i < 2; i++) {
        if (a->in[i]->rank < 0)
            continue;
        dims[i] = a->in[i]->dims[trans[i] != (i == 1)];
        inner[i] = a->in[i]->dims[trans[i] == (i == 1)];
    }
    if ((st = check_inner(inner[0], inner[1], err)) || (st = check_addend(op_in(a, 2), dims, err)))
        return st;
    return op_shape(&a->out[0], type, 2, dims, err);
}

/* sum of a[i * a_step] * b[i * b_step] over i < k. */
static double dot(const float *a, size_t a_step, const float *b, size_t b_step, size_t k)
{
    double sum = 0;
    for (size_t i = 0; i < k; i++)
        sum += (double)a[i * a_step] * b[i * b_step];
    return sum;
}

static rung_status gemm_eval(const eval_args *a, rung_error *err)
{
    const bool ta = node_int(a->n, "transA", 0) != 0, tb = node_int(a->n, "transB", 0) != 0;
    const double alpha = node_float(a->n, "alpha", 1), beta = node_float(a->n, "beta", 1);
    const tensor *add = eval_in(a, 2);
    const size_t m = (size_t)a->out[0].dims[0], n = (size_t)a->out[0].dims[1];
    const size_t k = (size_t)a->in[0].dims[!ta];
    if (!dtype_is_float(a->in[0].type))
        return unsupported_type(a->in[0].type, err);
    const float *x = floats_of(&a->in[0], a->mem), *w = floats_of(&a->in[1], a->mem);
    const float *c = floats_of(add, a->mem);
    float *y = floats_for(&a->out[0], a->mem);
    if (!x || !w || !y || (add && !c))
        return fail_memory(err, "operands", m * n * sizeof *y);
    const size_t c_row = add && add->rank == 2 && add->dims[0] != 1 ? (size_t)add->dims[1] : 0;
    const size_t c_col = add && add->rank >= 1 && add->dims[add->rank - 1] != 1;
    for (size_t i = 0; i < m; i++) {
        for (size_t j = 0; j < n; j++) {
            const double sum = dot(x + (ta ? i : i * k), ta ? m : 1, w + (tb ? j * k : j),
                                   tb ? 1 : n, k);
            const double more = c ? beta * c[i * c_row + j * c_col] : 0;
            y[i * n + j] = (float)(alpha * sum + more);
        }
    }
    floats_done(&a->out[0], y);
    return RUNG_OK;
}

/* A vector on the left is a row, on the right a column: the dims as matrices. */
static void as_matrix(const value_info *v, bool left, int *rank, int64_t *dims)
{
    *rank = v->rank;
    memcpy(dims, v->dims, sizeof v->dims);
    if (v->rank == 1) {
        *rank = 2;
        dims[left ? 1 : 0] = v->dims[0];
        dims[left ? 0 : 1] = 1;
    }
}

rung_status matmul_shape_infer(const infer_args *a, dtype type, rung_error *err)
{
    const value_info *x = a->in[0], *w = a->in[1];
    int64_t xd[RUNG_MAX_RANK], wd[RUNG_MAX_RANK], dims[RUNG_MAX_RANK];
    int xr, wr;
    rung_status st;
    if ((st = op_min_rank(a, 0, 1, err)) || (st = op_min_rank(a, 1, 1, err)))
        return st;
    a->out[0].type = type;
    if (x->rank < 0 || w->rank < 0)
        return RUNG_OK;
    as_matrix(x, true, &xr, xd);
    as_matrix(w, false, &wr, wd);
    if ((st = check_inner(xd[xr - 1], wd[wr - 2], err)))
        return st;
    int rank = xr - 2;
    memcpy(dims, xd, sizeof dims);
    if ((st = op_broadcast(&rank, dims, wr - 2, wd, err)))
        return st;
    if (x->rank > 1)
        dims[rank++] = xd[xr - 2];
    if (w->rank > 1)
        dims[rank++] = wd[wr - 1];
    return op_shape(&a->out[0], type, rank, dims, err);
}

static rung_status matmul_infer(const infer_args *a, rung_error *err)
{
    dtype type;
    rung_status st;
    if ((st = op_counts(a, 2, 2, 1, err)) || (st = op_same_type(a, 0, 1, TYPES_NUMBER, &type, err)))
        return st;
    return matmul_shape_infer(a, type, err);
}

/* The batch dimensions of t as a tensor whose elements are whole matrices. */
static tensor batch_of(const tensor *t)
{
    tensor b = *t;
    b.rank = t->rank > 2 ? t->rank - 2 : 0;
    return b;
}

void matmul_walk_begin(matmul_walk *w, const tensor *x, const tensor *y)
{
    tensor all = {.rank = 0}, left = batch_of(x), right = batch_of(y);
    all.rank = left.rank > right.rank ? left.rank : right.rank;
    for (int i = 0; i < all.rank; i++) {
        const int l = i - (all.rank - left.rank), r = i - (all.rank - right.rank);
        const int64_t ld = l < 0 ? 1 : left.dims[l], rd = r < 0 ? 1 : right.dims[r];
        all.dims[i] = ld == 1 ? rd : ld;
    }
    w->m = x->rank > 1 ? (size_t)x->dims[x->rank - 2] : 1;
    w->k = (size_t)x->dims[x->rank - 1];
    w->n = y->rank > 1 ? (size_t)y->dims[y->rank - 1] : 1;
    w->first = true;
    w->in_row = 0;
    w->any = walk_begin(&w->rows, &all, (const tensor *const[]){&left, &right}, 2);
}

bool matmul_walk_next(matmul_walk *w, size_t *x, size_t *y, size_t *out)
{
    if (!w->any)
        return false;
    if (!w->first && ++w->in_row == w->rows.row) {
        w->in_row = 0;
        if (!walk_next(&w->rows))
            return false;
    }
    w->first = false;
    *x = (w->rows.offset[0] + (w->rows.repeats[0] ? 0 : w->in_row)) * w->m * w->k;
    *y = (w->rows.offset[1] + (w->rows.repeats[1] ? 0 : w->in_row)) * w->k * w->n;
    *out = (w->rows.out + w->in_row) * w->m * w->n;
    return true;
}

static rung_status matmul_eval(const eval_args *a, rung_error *err)
{
    matmul_walk w;
    size_t x_at, w_at, y_at;
    if (!dtype_is_float(a->in[0].type))
        return unsupported_type(a->in[0].type, err);
    const float *x = floats_of(&a->in[0], a->mem), *b = floats_of(&a->in[1], a->mem);
    float *y = floats_for(&a->out[0], a->mem);
    if (!x || !b || !y)
        return fail_memory(err, "operands", tensor_count(&a->out[0]) * sizeof *y);
    matmul_walk_begin(&w, &a->in[0], &a->in[1]);
    while (matmul_walk_next(&w, &x_at, &w_at, &y_at)) {
        for (size_t i = 0; i < w.m; i++) {
            for (size_t j = 0; j < w.n; j++)
                y[y_at + i * w.n + j] =
                    (float)dot(x + x_at + i * w.k, 1, b + w_at + j, w.n, w.k);
        }
    }
    floats_done(&a->out[0], y);
    return RUNG_OK;
}

const op_def op_gemm = {
    .name = "Gemm",
    .domain = "",
    .infer = gemm_infer,
    .eval = gemm_eval,
    .grad = gemm_grad,
    .reads = {.in = 1 | 2},
    .lower = lower_gemm,
    .quant = {QUANT_COMPUTE, .activations = 1, .weight = 1, .weight_axis = 0, .bias = 2},
    .layout = LAYOUT_PLAIN,
};

const op_def op_matmul = {
    .name = "MatMul",
    .domain = "",
    .infer = matmul_infer,
    .eval = matmul_eval,
    .grad = matmul_grad,
    .reads = {.in = 1 | 2},
    .lower = lower_gemm,
    .quant = {QUANT_COMPUTE, .activations = 1 | 2, .weight = 1, .weight_axis = -1},
    .layout = LAYOUT_PLAIN,
};
