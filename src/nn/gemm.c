#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/threads.h"
#include "nn/gemm.h"
#include "nn/rows.h"
#include "nn/vec.h"

static int64_t columns_of(const product *p)
{
    return p->y[p->rank - 1];
}

static int64_t depth_of(const product *p)
{
    return p->a[p->rank - 1];
}

/* --- one row: a vector times a matrix --------------------------------------------------------- */
typedef struct gemv {
    const vec_ops *ops;
    const float   *w, *bias;
    size_t         k, n;
    float          lo, hi;
    int            add, out; /* buffers; add = -1: none */
} gemv;

static void gemv_run(const step *s, void *const *bufs, void *scratch, int thread, int n_threads)
{
    const gemv *g = s->params;
    size_t first, last;
    share(g->n, g->ops->gemv_block, thread, n_threads, &first, &last);
    g->ops->gemv(bufs[0], g->w, g->bias, g->add >= 0 ? bufs[g->add] : NULL, g->k, g->n, first, last,
                 g->lo, g->hi, bufs[g->out]);
}

/* b to [n / block][k][block], times alpha. */
static void pack_columns(const product *p, const float *b, size_t block, float *out)
{
    const size_t k = (size_t)depth_of(p), n = (size_t)columns_of(p);
    const size_t rows = (size_t)p->b_strides[p->rank - 2];
    const size_t columns = (size_t)p->b_strides[p->rank - 1];
    for (size_t c = 0; c < n; c++) {
        float *to = out + c / block * block * k + c % block;
        for (size_t i = 0; i < k; i++)
            to[i * block] = p->alpha * b[i * rows + c * columns];
    }
}

static rung_status gemv_step(const lowering *l, const product *p, step *s, rung_error *err)
{
    gemv *g = arena_zero(l->mem, 1, sizeof *g);
    if (!g)
        return fail_memory(err, "a step", sizeof *g);
    g->ops = vec_pick();
    g->k = (size_t)depth_of(p);
    g->n = (size_t)columns_of(p);
    const size_t block = g->ops->gemv_block, wide = (g->n + block - 1) / block * block;
    size_t count;
    float *w = mul_fits(wide, g->k + 1, &count) ? arena_zero(l->mem, count, sizeof *w) : NULL;
    if (!w)
        return fail_memory(err, "packed weights", wide * g->k * sizeof *w);
    pack_columns(p, l->in[1].constant->data, block, w);
    float *bias = w + wide * g->k;
    if (p->bias)
        memcpy(bias, p->bias, g->n * sizeof *bias);
    g->w = w;
    g->bias = bias;
    g->lo = l->epi.clamp ? l->epi.lo : -INFINITY;
    g->hi = l->epi.clamp ? l->epi.hi : INFINITY;
    g->add = l->epi.add;
    g->out = l->n_in;
    s->kernel = "gemv_f32 vec";
    s->run = gemv_run;
    s->params = g;
    s->macs = (int64_t)(g->k * g->n);
    return RUNG_OK;
}

/* --- matrices: oneDNN ------------------------------------------------------------------------- */
typedef struct product_formats {
    dnnl_memory_desc_t a, b, b_any, bias, y;
} product_formats;

static rung_status describe(const lowering *l, const product *p, product_formats *f,
                            rung_error *err)
{
    const bool packs = l->in[1].constant != NULL;
    dnnl_dims_t dims, strides;
    rung_status st = lib_describe(&f->a, p->rank, p->a, p->a_strides, err);
    if (st == RUNG_OK)
        st = lib_describe(&f->b, p->rank, p->b, p->b_strides, err);
    if (st == RUNG_OK)
        st = lib_describe(&f->y, p->rank, p->y, p->y_strides, err);
    if (st != RUNG_OK)
        return st;
    f->b_any = f->b;
    if (packs && dnnl_memory_desc_init_by_tag(&f->b_any, p->rank, p->b, dnnl_f32,
                                              dnnl_format_tag_any) != dnnl_success)
        return fail(err, RUNG_EUNSUPPORTED, "oneDNN does not take a matrix of rank %d", p->rank);
    for (int i = 0; i < p->rank; i++) {
        dims[i] = i == p->rank - 1 ? columns_of(p) : 1;
        strides[i] = i == p->rank - 1 ? 1 : columns_of(p);
    }
    f->bias = (dnnl_memory_desc_t){0};
    return p->bias ? lib_describe(&f->bias, p->rank, dims, strides, err) : RUNG_OK;
}

/* A constant b times alpha, as it lies. */
static rung_status scaled_weights(const lowering *l, float alpha, const float **out,
                                  rung_error *err)
{
    const size_t n = stored_count(&l->in[1]);
    *out = l->in[1].constant->data;
    if (alpha == 1.0f)
        return RUNG_OK;
    float *v = arena_copy(l->mem, *out, n * sizeof *v);
    if (!v)
        return fail_memory(err, "scaled weights", n * sizeof *v);
    for (size_t i = 0; i < n; i++)
        v[i] *= alpha;
    *out = v;
    return RUNG_OK;
}

static rung_status bind(lib *c, const lowering *l, const product *p, const product_formats *f,
                        rung_error *err)
{
    const dnnl_memory_desc_t *wanted =
        dnnl_primitive_desc_query_md(c->desc, dnnl_query_weights_md, 0);
    const float *weights;
    rung_status st = lib_bind(c, DNNL_ARG_SRC, &f->a, 0, err);
    if (st != RUNG_OK)
        return st;
    if (!l->in[1].constant)
        st = lib_bind(c, DNNL_ARG_WEIGHTS, wanted, 1, err);
    else if ((st = scaled_weights(l, p->alpha, &weights, err)) == RUNG_OK)
        st = lib_pack(c, l, DNNL_ARG_WEIGHTS, &f->b, weights, wanted, err);
    if (st != RUNG_OK || !p->bias)
        return st;
    return lib_pack(c, l, DNNL_ARG_BIAS, &f->bias, p->bias, &f->bias, err);
}

static rung_status product_step(const lowering *l, const product *p, step *s, rung_error *err)
{
    lib *c;
    product_formats f;
    dnnl_matmul_desc_t desc;
    if (l->in[0].constant)
        return fail(err, RUNG_EUNSUPPORTED, "no fast row for a constant left operand");
    if (l->in[1].constant && (int64_t)stored_count(&l->out[0]) == columns_of(p))
        return gemv_step(l, p, s, err);
    if (p->alpha != 1.0f && !l->in[1].constant)
        return fail(err, RUNG_EUNSUPPORTED, "no fast row for alpha = %g", (double)p->alpha);
    rung_status st = lib_open(l, &c, err);
    if (st != RUNG_OK || (st = describe(l, p, &f, err)) != RUNG_OK)
        return st;
    const dnnl_status_t done =
        dnnl_matmul_desc_init(&desc, &f.a, &f.b_any, p->bias ? &f.bias : NULL, &f.y);
    if (done != dnnl_success)
        return lib_fail(err, done, "matrix product");
    if ((st = lib_create(c, l, &desc, &f.y, err)) != RUNG_OK ||
        (st = bind(c, l, p, &f, err)) != RUNG_OK)
        return st;
    return lib_finish(c, l, &f.y, "matmul_f32 onednn",
                      (int64_t)stored_count(&l->out[0]) * depth_of(p), s, err);
}

/* --- Gemm ------------------------------------------------------------------------------------- */
static void set_matrix(int64_t *dims, int64_t *strides, const operand *o, bool transposed)
{
    const int r = transposed ? 1 : 0;
    dims[0] = o->dims[r];
    dims[1] = o->dims[1 - r];
    strides[0] = r ? 1 : o->dims[1];
    strides[1] = r ? o->dims[1] : 1;
    if (dims[0] == 1 || dims[1] == 1) { /* a vector: both orders are the same, oneDNN wants rows */
        strides[0] = dims[1];
        strides[1] = 1;
    }
}

/* beta * C as one row; C must be a constant that is the same for every row. */
static rung_status read_bias(const lowering *l, product *p, rung_error *err)
{
    if (!has_input(l, 2))
        return RUNG_OK;
    const operand *c = &l->in[2];
    const size_t n = (size_t)columns_of(p), count = stored_count(c);
    const float beta = node_float(l->n, "beta", 1.0f);
    const bool row =
        count == 1 || (count == n && c->rank > 0 && c->dims[c->rank - 1] == (int64_t)n);
    if (!c->constant || !row)
        return fail(err, RUNG_EUNSUPPORTED, "no fast row for a C that is not a constant row");
    if (!(p->bias = arena_zero(l->mem, n, sizeof(float))))
        return fail_memory(err, "a bias", n * sizeof(float));
    const float *from = c->constant->data;
    for (size_t i = 0; i < n; i++)
        p->bias[i] = beta * from[count == 1 ? 0 : i];
    return RUNG_OK;
}

rung_status product_of_gemm(const lowering *l, product *p, rung_error *err)
{
    *p = (product){.rank = 2, .alpha = node_float(l->n, "alpha", 1.0f)};
    if (!has_input(l, 1) || l->in[0].rank != 2 || l->in[1].rank != 2 || l->out[0].rank != 2)
        return fail(err, RUNG_EUNSUPPORTED, "operands that are no matrices");
    set_matrix(p->a, p->a_strides, &l->in[0], node_int(l->n, "transA", 0) != 0);
    set_matrix(p->b, p->b_strides, &l->in[1], node_int(l->n, "transB", 0) != 0);
    set_matrix(p->y, p->y_strides, &l->out[0], false);
    if (p->a[1] != p->b[0] || p->a[0] != p->y[0] || p->b[1] != p->y[1])
        return fail(err, RUNG_EUNSUPPORTED, "shapes that do not fit");
    return RUNG_OK;
}

rung_status gemm_row(const lowering *l, step *s, rung_error *err)
{
    product p;
    rung_status st = product_of_gemm(l, &p, err);
    if (st == RUNG_OK)
        st = read_bias(l, &p, err);
    return st == RUNG_OK ? product_step(l, &p, s, err) : st;
}

/* --- MatMul ----------------------------------------------------------------------------------- */
/* The dims with ones before them, and, for vectors, the one that NumPy adds: a row (a) or a column
 * (b); `axis` is where. */
static void set_operand(int rank, int64_t *dims, const operand *o, int axis)
{
    const int have = o->rank + (o->rank == 1);
    for (int i = 0; i < rank; i++)
        dims[i] = 1;
    for (int i = 0; i < o->rank; i++)
        dims[rank - have + i] = o->dims[i];
    if (o->rank == 1 && axis == 1) {
        dims[rank - 2] = o->dims[0];
        dims[rank - 1] = 1;
    } else if (o->rank == 1) {
        dims[rank - 2] = 1;
        dims[rank - 1] = o->dims[0];
    }
}

static void set_strides(int rank, const int64_t *dims, int64_t *strides)
{
    int64_t stride = 1;
    for (int i = rank - 1; i >= 0; i--) {
        strides[i] = stride;
        stride *= dims[i];
    }
}

static bool matrices_fit(const product *p)
{
    const int r = p->rank;
    for (int i = 0; i < r - 2; i++) {
        if ((p->a[i] != p->y[i] && p->a[i] != 1) || (p->b[i] != p->y[i] && p->b[i] != 1))
            return false;
    }
    return p->a[r - 1] == p->b[r - 2];
}

/* A b without a batch: all rows of a are one matrix. */
static void join_rows(product *p)
{
    const int r = p->rank;
    int64_t rows = 1;
    for (int i = 0; i < r - 2; i++) {
        if (p->b[i] != 1 || p->a[i] != p->y[i])
            return;
    }
    for (int i = 0; i < r - 1; i++)
        rows *= p->a[i];
    p->a[1] = p->a[r - 1];
    p->b[0] = p->b[r - 2];
    p->b[1] = p->y[1] = p->b[r - 1];
    p->a[0] = p->y[0] = rows;
    p->rank = 2;
}

rung_status product_of_matmul(const lowering *l, product *p, rung_error *err)
{
    *p = (product){.alpha = 1.0f};
    if (!has_input(l, 1) || l->in[0].rank < 1 || l->in[1].rank < 1)
        return fail(err, RUNG_EUNSUPPORTED, "operands that are no matrices");
    const int rank = l->in[0].rank > l->in[1].rank ? l->in[0].rank : l->in[1].rank;
    p->rank = rank < 2 ? 2 : rank;
    set_operand(p->rank, p->a, &l->in[0], 0);
    set_operand(p->rank, p->b, &l->in[1], 1);
    for (int i = 0; i < p->rank - 2; i++)
        p->y[i] = p->a[i] > p->b[i] ? p->a[i] : p->b[i];
    p->y[p->rank - 2] = p->a[p->rank - 2];
    p->y[p->rank - 1] = p->b[p->rank - 1];
    if (!matrices_fit(p) || operand_channels_last(&l->in[0]) ||
        operand_channels_last(&l->in[1]) || operand_channels_last(&l->out[0]))
        return fail(err, RUNG_EUNSUPPORTED, "shapes or layouts that do not fit");
    join_rows(p);
    set_strides(p->rank, p->a, p->a_strides);
    set_strides(p->rank, p->b, p->b_strides);
    set_strides(p->rank, p->y, p->y_strides);
    return RUNG_OK;
}

rung_status matmul_row(const lowering *l, step *s, rung_error *err)
{
    product p;
    const rung_status st = product_of_matmul(l, &p, err);
    return st == RUNG_OK ? product_step(l, &p, s, err) : st;
}
