/* Gemm and MatMul with operands that change, and their gradients: da = alpha dy bT,
 * db = alpha aT dy, dC = beta times the sums of dy's columns. */
#include <string.h>

#include "nn/backward_rows.h"
#include "nn/chain.h"
#include "nn/gemm.h"
#include "nn/vec.h"

/* A factor or the result of one product. */
typedef struct matrix {
    const int64_t *dims, *strides;
    int            buf;
} matrix;

static rung_status describe(const matrix *m, int rank, bool turned, dnnl_memory_desc_t *md,
                            rung_error *err)
{
    dnnl_dims_t dims, strides;
    memcpy(dims, m->dims, (size_t)rank * sizeof *dims);
    memcpy(strides, m->strides, (size_t)rank * sizeof *strides);
    if (turned) {
        const int i = rank - 2, j = rank - 1;
        dims[i] = m->dims[j];
        dims[j] = m->dims[i];
        strides[i] = m->strides[j];
        strides[j] = m->strides[i];
    }
    return lib_describe(md, rank, dims, strides, err);
}

/* z = alpha x y (+ bias, NULL: none), x and y turned where it says so. A z that stands transposed
 * in memory is computed as zT = yT xT: oneDNN writes rows. */
typedef struct term {
    matrix x, y, z;
    bool   turn_x, turn_y;
} term;

static rung_status add_term(chain *c, term t, int rank, float alpha,
                            const dnnl_memory_desc_t *bias, int bias_buf, rung_error *err)
{
    dnnl_memory_desc_t x, y, z;
    dnnl_matmul_desc_t d;
    const bool turned = t.z.strides[rank - 1] != 1;
    if (turned)
        t = (term){t.y, t.x, t.z, !t.turn_y, !t.turn_x};
    rung_status st = describe(&t.x, rank, t.turn_x, &x, err);
    if (st != RUNG_OK || (st = describe(&t.y, rank, t.turn_y, &y, err)) != RUNG_OK ||
        (st = describe(&t.z, rank, turned, &z, err)) != RUNG_OK)
        return st;
    const dnnl_status_t done = dnnl_matmul_desc_init(&d, &x, &y, bias, &z);
    if (done != dnnl_success)
        return lib_fail(err, done, "matrix product");
    if ((st = chain_add(c, &d, NULL, alpha, err)) != RUNG_OK ||
        (st = chain_bind(c, DNNL_ARG_SRC, &x, chain_buf(t.x.buf), err)) != RUNG_OK ||
        (st = chain_bind(c, DNNL_ARG_WEIGHTS, &y, chain_buf(t.y.buf), err)) != RUNG_OK ||
        (st = chain_bind(c, DNNL_ARG_DST, &z, chain_buf(t.z.buf), err)) != RUNG_OK)
        return st;
    return bias ? chain_bind(c, DNNL_ARG_BIAS, bias, chain_buf(bias_buf), err) : RUNG_OK;
}

static int64_t macs_of(const product *p)
{
    int64_t n = p->a[p->rank - 1];
    for (int i = 0; i < p->rank; i++)
        n *= p->y[i];
    return n;
}

/* --- forward ---------------------------------------------------------------------------------- */
/* C as a row. */
static rung_status describe_bias(const lowering *l, const product *p, dnnl_memory_desc_t *md,
                                 rung_error *err)
{
    const operand *c = &l->in[2];
    const int64_t dims[2] = {1, p->y[1]}, strides[2] = {p->y[1], 1};
    if (c->rank < 1 || c->dims[c->rank - 1] != p->y[1] || stored_count(c) != (size_t)p->y[1] ||
        node_float(l->n, "beta", 1.0f) != 1.0f)
        return fail(err, RUNG_EUNSUPPORTED, "no fast row for a C that is not a row, or a beta");
    return lib_describe(md, 2, dims, strides, err);
}

rung_status gemm_training(const lowering *l, step *s, rung_error *err)
{
    product p;
    chain *c;
    dnnl_memory_desc_t bias;
    const bool biased = has_input(l, 2);
    rung_status st = product_of_gemm(l, &p, err);
    if (st == RUNG_OK && biased)
        st = describe_bias(l, &p, &bias, err);
    if (st != RUNG_OK || (st = chain_open(l, &c, err)) != RUNG_OK)
        return st;
    if (p.alpha != 1.0f && biased) /* oneDNN scales the bias too */
        return fail(err, RUNG_EUNSUPPORTED, "no fast row for alpha = %g with a C",
                    (double)p.alpha);
    const term t = {{p.a, p.a_strides, 0}, {p.b, p.b_strides, 1},
                    {p.y, p.y_strides, at_out(l, 0)}, false, false};
    if ((st = add_term(c, t, p.rank, p.alpha, biased ? &bias : NULL, 2, err)) != RUNG_OK)
        return st;
    chain_finish(c, "matmul_f32 onednn", macs_of(&p), s);
    return RUNG_OK;
}

/* --- backward --------------------------------------------------------------------------------- */
/* A batch in which the operand is repeated would have to be summed. */
static rung_status check_batch(const product *p, const int64_t *dims, rung_error *err)
{
    for (int i = 0; i < p->rank - 2; i++) {
        if (dims[i] != p->y[i])
            return fail(err, RUNG_EUNSUPPORTED, "no fast row for a matrix that is repeated");
    }
    return RUNG_OK;
}

static rung_status backward_chain(const lowering *l, unsigned wanted, const product *p, chain *c,
                                  rung_error *err)
{
    const matrix a = {p->a, p->a_strides, 0}, b = {p->b, p->b_strides, 1};
    const matrix dy = {p->y, p->y_strides, at_dout(l, 0)};
    const matrix da = {p->a, p->a_strides, at_din(l, 0)}, db = {p->b, p->b_strides, at_din(l, 1)};
    rung_status st = RUNG_OK;
    if (wants(wanted, 0) && (st = check_batch(p, p->a, err)) == RUNG_OK)
        st = add_term(c, (term){dy, b, da, false, true}, p->rank, p->alpha, NULL, 0, err);
    if (st == RUNG_OK && wants(wanted, 1) && (st = check_batch(p, p->b, err)) == RUNG_OK)
        st = add_term(c, (term){a, dy, db, true, false}, p->rank, p->alpha, NULL, 0, err);
    return st;
}

/* dC, of a row or of one number. */
typedef struct bias_sum {
    const vec_ops *ops;
    size_t         rows, n;
    bool           one;
    float          beta;
    int            dy, dc;
} bias_sum;

static void sum_bias(const void *ctx, void *const *bufs)
{
    const bias_sum *b = ctx;
    float *dc = bufs[b->dc];
    if (b->one)
        b->ops->row_sum(bufs[b->dy], 1, b->rows * b->n, dc);
    else
        b->ops->window_mean(bufs[b->dy], b->rows, b->n, 1, b->n, b->n, 1.0f, dc);
    for (size_t i = 0; b->beta != 1.0f && i < (b->one ? 1 : b->n); i++)
        dc[i] *= b->beta;
}

static rung_status add_bias(const lowering *l, const product *p, chain *c, rung_error *err)
{
    const operand *o = &l->in[2];
    const size_t n = (size_t)p->y[1], count = stored_count(o);
    if (count != 1 && (count != n || o->rank < 1 || o->dims[o->rank - 1] != p->y[1]))
        return fail(err, RUNG_EUNSUPPORTED, "no fast row for a C that is not a row");
    bias_sum *b = arena_zero(l->mem, 1, sizeof *b);
    if (!b)
        return fail_memory(err, "a step", sizeof *b);
    *b = (bias_sum){vec_pick(), (size_t)p->y[0], n, count == 1,
                    node_float(l->n, "beta", 1.0f), at_dout(l, 0), at_din(l, 2)};
    return chain_call(c, sum_bias, b, err);
}

static rung_status product_backward(const lowering *l, unsigned wanted, const product *p, step *s,
                                    rung_error *err)
{
    chain *c;
    rung_status st = chain_open(l, &c, err);
    if (st == RUNG_OK)
        st = backward_chain(l, wanted, p, c, err);
    if (st == RUNG_OK && wants(wanted, 2))
        st = add_bias(l, p, c, err);
    if (st == RUNG_OK)
        chain_finish(c, "matmul_backward_f32 onednn",
                     (wants(wanted, 0) + wants(wanted, 1)) * macs_of(p), s);
    return st;
}

rung_status gemm_backward(const lowering *l, unsigned wanted, step *s, rung_error *err)
{
    product p;
    const rung_status st = product_of_gemm(l, &p, err);
    return st == RUNG_OK ? product_backward(l, wanted, &p, s, err) : st;
}

rung_status matmul_backward(const lowering *l, unsigned wanted, step *s, rung_error *err)
{
    product p;
    const rung_status st = product_of_matmul(l, &p, err);
    return st == RUNG_OK ? product_backward(l, wanted, &p, s, err) : st;
}
