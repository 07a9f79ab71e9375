#include "ops/grad.h"

#include <string.h>

#include "ops/element.h"

#define CHUNK 256

static rung_status not_float32(const char *what, int i, dtype type, rung_error *err)
{
    return fail(err, RUNG_EUNSUPPORTED, "%s %d is %s; gradients are computed in float32 only", what,
                i, dtype_name(type));
}

rung_status grad_begin(const grad_args *a, bool *any, rung_error *err)
{
    *any = false;
    for (int i = 0; i < a->n_in; i++) {
        const bool wanted = a->din[i].data != NULL;
        const bool other_float = dtype_is_float(a->in[i].type) && a->in[i].type != RUNG_F32;
        if ((wanted && a->in[i].type != RUNG_F32) || (a->in[i].data && other_float))
            return not_float32("input", i, a->in[i].type, err);
        if (wanted)
            memset(a->din[i].data, 0, tensor_count(&a->din[i]) * sizeof(float));
    }
    for (int i = 0; i < a->n_out; i++) {
        if (!a->dout[i].data)
            continue;
        if (a->out[i].type != RUNG_F32)
            return not_float32("output", i, a->out[i].type, err);
        *any = *any || tensor_count(&a->dout[i]) > 0;
    }
    return RUNG_OK;
}

eval_args grad_as_eval(const grad_args *a)
{
    return (eval_args){.n = a->n, .opset = a->opset, .in = a->in, .n_in = a->n_in, .mem = a->mem};
}

rung_status flat_grad(const grad_args *a, rung_error *err)
{
    bool any;
    return grad_begin(a, &any, err);
}

/* --- broadcast operands ----------------------------------------------------------------------- */
rung_status grad_sum_begin(grad_sum *s, tensor *din, size_t n_out, arena *mem, rung_error *err)
{
    *s = (grad_sum){.to = din};
    const size_t n = tensor_count(din);
    if (!din->data || n == n_out)
        return RUNG_OK;
    s->sums = arena_zero(mem, n + 1, sizeof *s->sums);
    return s->sums ? RUNG_OK : fail_memory(err, "sums of a gradient", n * sizeof *s->sums);
}

void grad_sum_add(grad_sum *s, const walk *w, int k, size_t first, size_t n, const double *v)
{
    const size_t at = w->offset[k] + (w->repeats[k] ? 0 : first);
    float *to = s->to->data;
    if (!to)
        return;
    if (s->sums && w->repeats[k]) {
        double sum = 0;
        for (size_t i = 0; i < n; i++)
            sum += v[i];
        s->sums[at] += sum;
        return;
    }
    for (size_t i = 0; i < n; i++) {
        if (s->sums)
            s->sums[at + i] += v[i];
        else
            to[at + i] = (float)v[i];
    }
}

void grad_sum_end(grad_sum *s)
{
    const size_t n = s->sums ? tensor_count(s->to) : 0;
    for (size_t i = 0; i < n; i++)
        ((float *)s->to->data)[i] = (float)s->sums[i];
}

rung_status grad_broadcast(const tensor *dout, double factor, tensor *din, arena *mem,
                           rung_error *err)
{
    double v[CHUNK];
    grad_sum s;
    walk w;
    const rung_status st = grad_sum_begin(&s, din, tensor_count(dout), mem, err);
    if (st || !din->data || !walk_begin(&w, dout, (const tensor *const[]){din}, 1))
        return st;
    do {
        for (size_t first = 0; first < w.row; first += CHUNK) {
            const size_t n = w.row - first < CHUNK ? w.row - first : CHUNK;
            load_doubles(dout, w.out + first, n, v);
            for (size_t i = 0; i < n; i++)
                v[i] *= factor;
            grad_sum_add(&s, &w, 0, first, n, v);
        }
    } while (walk_next(&w));
    grad_sum_end(&s);
    return RUNG_OK;
}

/* --- products --------------------------------------------------------------------------------- */
#define LANES 8

/* LANES sums beside each other, which the compiler can keep in vector registers. */
static float dot(const float *restrict a, const float *restrict b, size_t n)
{
    double sum[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (size_t j = 0; j < LANES; j++)
            sum[j] += (double)a[i + j] * b[i + j];
    }
    for (; i < n; i++)
        sum[0] += (double)a[i] * b[i];
    for (size_t j = 1; j < LANES; j++)
        sum[0] += sum[j];
    return (float)sum[0];
}

static float dot_strided(const float *a, size_t a_step, const float *b, size_t b_step, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)a[i * a_step] * b[i * b_step];
    return (float)sum;
}

static void add_scaled(const float *restrict v, float by, size_t n, float *restrict to)
{
    for (size_t i = 0; i < n; i++)
        to[i] += by * v[i];
}

void matrix_product(size_t m, size_t n, size_t k, matrix a, matrix b, float *c)
{
    for (size_t i = 0; i < m; i++) {
        const float *row = a.v + i * a.row;
        if (b.col == 1) { /* rows of b are whole */
            for (size_t p = 0; p < k; p++)
                add_scaled(b.v + p * b.row, row[p * a.col], n, c + i * n);
            continue;
        }
        for (size_t j = 0; j < n; j++) {
            const float *col = b.v + j * b.col;
            c[i * n + j] += a.col == 1 && b.row == 1 ? dot(row, col, k)
                                                     : dot_strided(row, a.col, col, b.row, k);
        }
    }
}
