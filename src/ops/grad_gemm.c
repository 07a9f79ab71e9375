/* Gradients of Gemm and MatMul. */
#include "ops/gemm.h"
#include "ops/grad.h"

static matrix transposed(matrix m)
{
    return (matrix){m.v, m.col, m.row};
}

static void scale(tensor *t, float by)
{
    const size_t n = tensor_count(t);
    for (size_t i = 0; by != 1 && i < n; i++)
        ((float *)t->data)[i] *= by;
}

/* y = alpha A B + beta C with A [m,k] = a or aᵀ, B [k,n] = b or bᵀ: dA = alpha dy Bᵀ,
 * dB = alpha Aᵀ dy, and of a transposed operand the transposed product, dAᵀ = alpha B dyᵀ. */
rung_status gemm_grad(const grad_args *a, rung_error *err)
{
    const bool ta = node_int(a->n, "transA", 0) != 0, tb = node_int(a->n, "transB", 0) != 0;
    const float alpha = node_float(a->n, "alpha", 1), beta = node_float(a->n, "beta", 1);
    const size_t m = (size_t)a->out[0].dims[0], n = (size_t)a->out[0].dims[1];
    const size_t k = (size_t)a->in[0].dims[!ta];
    bool any;
    const rung_status st = grad_begin(a, &any, err);
    if (st || !any)
        return st;
    const matrix dy = {a->dout[0].data, n, 1};
    const matrix A = {a->in[0].data, ta ? 1 : k, ta ? m : 1};
    const matrix B = {a->in[1].data, tb ? 1 : n, tb ? k : 1};
    tensor *da = &a->din[0], *db = &a->din[1];
    if (da->data && ta)
        matrix_product(k, m, n, B, transposed(dy), da->data);
    else if (da->data)
        matrix_product(m, k, n, dy, transposed(B), da->data);
    if (db->data && tb)
        matrix_product(n, k, m, transposed(dy), A, db->data);
    else if (db->data)
        matrix_product(k, n, m, transposed(A), dy, db->data);
    if (da->data)
        scale(da, alpha);
    if (db->data)
        scale(db, alpha);
    return a->n_in > 2 ? grad_broadcast(&a->dout[0], beta, &a->din[2], a->mem, err) : RUNG_OK;
}

/* y = x w, [m,k] [k,n] a batch: dx = dy wᵀ, dw = xᵀ dy, summed where it is broadcast. */
rung_status matmul_grad(const grad_args *a, rung_error *err)
{
    const float *x = a->in[0].data, *b = a->in[1].data, *dy = a->dout[0].data;
    float *dx = a->din[0].data, *db = a->din[1].data;
    matmul_walk w;
    size_t x_at, b_at, y_at;
    bool any;
    const rung_status st = grad_begin(a, &any, err);
    if (st || !any)
        return st;
    matmul_walk_begin(&w, &a->in[0], &a->in[1]);
    while (matmul_walk_next(&w, &x_at, &b_at, &y_at)) {
        const matrix g = {dy + y_at, w.n, 1};
        if (dx)
            matrix_product(w.m, w.k, w.n, g, (matrix){b + b_at, 1, w.n}, dx + x_at);
        if (db)
            matrix_product(w.k, w.n, w.m, (matrix){x + x_at, 1, w.k}, g, db + b_at);
    }
    return RUNG_OK;
}
