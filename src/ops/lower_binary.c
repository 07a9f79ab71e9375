/* Add, Sub and Mul of quantized operands, broadcast in every way ONNX knows. */
#include "ops/lower_wide.h"

#include <math.h>
#include <string.h>

/* The output's axes in storage order: extent, and the strides of both operands (0: repeats). */
typedef struct axes_of {
    int rank;
    int64_t dims[RUNG_MAX_RANK], a[RUNG_MAX_RANK], b[RUNG_MAX_RANK];
} axes_of;

static void run_binary(const step *s, void *const *bufs, void *scratch, int thread, int n_threads)
{
    const binary_step *p = s->params;
    const char *a = p->a_const ? p->a_const : bufs[p->swapped];
    const char *b = p->b_const ? p->b_const : bufs[!p->swapped];
    char *y = bufs[2];
    const wide_binary_q *q = &p->q;
    size_t row, end_row, first, end;
    const bool by_rows = p->n_rows >= (size_t)n_threads;
    kernel_share(by_rows ? p->n_rows : p->n, by_rows ? 1 : 64, thread, n_threads, &first, &end);
    row = by_rows ? first : 0;
    end_row = by_rows ? end : p->n_rows;
    if (by_rows) {
        first = 0;
        end = p->n;
    }
    for (; row < end_row && first < end; row++) {
        size_t at_a = first, at_b = p->b_step ? first : 0;
        size_t rest = row;
        for (int i = p->rank - 1; i >= 0; i--) {
            const size_t k = rest % (size_t)p->outer[i];
            rest /= (size_t)p->outer[i];
            at_a += k * (size_t)p->a_strides[i];
            at_b += k * (size_t)p->b_strides[i];
        }
        const void *from_a = a + (at_a << q->a_wide), *from_b = b + (at_b << q->b_wide);
        void *to = y + ((row * p->n + first) << q->y_wide);
        if (p->wide_kernel)
            p->wide_kernel->run(from_a, from_b, p->b_step, end - first, q, to);
        else
            p->kernel->run(from_a, from_b, p->b_step, end - first, &q->q, to);
    }
}

const binary_step *step_binary(const step *s)
{
    return s->run == run_binary ? s->params : NULL;
}

/* ONNX axis k (of the output) in storage order. */
static int storage_axis(const operand *y, int k)
{
    if (!y->channels_last || y->rank < 3 || k == 0)
        return k;
    return k == 1 ? y->rank - 1 : k - 1;
}

/* Extents of an operand on the output's storage axes: 1 where it repeats. */
static rung_status extents(const operand *o, const operand *y, int64_t *dims, rung_error *err)
{
    if (o->rank > y->rank || (!o->constant && o->channels_last != y->channels_last) ||
        (y->channels_last && !o->constant && o->rank != y->rank))
        return fail(err, RUNG_EUNSUPPORTED, "the layouts of its operands differ");
    for (int k = 0; k < y->rank; k++) {
        const int own = k - (y->rank - o->rank);
        dims[storage_axis(y, k)] = own < 0 ? 1 : o->dims[own];
    }
    return RUNG_OK;
}

static void strides_of(int rank, const int64_t *dims, int64_t *strides)
{
    int64_t stride = 1;
    for (int i = rank - 1; i >= 0; i--) {
        strides[i] = dims[i] == 1 ? 0 : stride;
        stride *= dims[i];
    }
}

/* Axes of extent 1 vanish, neighbours that both operands walk alike become one. */
static void merge(axes_of *x)
{
    int n = 0;
    for (int i = 0; i < x->rank; i++) {
        if (x->dims[i] == 1)
            continue;
        if (n && x->a[n - 1] == x->a[i] * x->dims[i] && x->b[n - 1] == x->b[i] * x->dims[i]) {
            x->dims[n - 1] *= x->dims[i];
            x->a[n - 1] = x->a[i];
            x->b[n - 1] = x->b[i];
            continue;
        }
        x->dims[n] = x->dims[i];
        x->a[n] = x->a[i];
        x->b[n++] = x->b[i];
    }
    x->rank = n;
}

/* A constant in stored form and storage order; an operand that is none: NULL. */
static rung_status constant_codes(const lowering *l, const operand *o, const void **out,
                                  rung_error *err)
{
    *out = NULL;
    if (!o->constant)
        return RUNG_OK;
    const operand *y = &l->out[0];
    const size_t n = stored_count(o), size = operand_is_wide(o) ? 2 : 1;
    uint8_t *codes = arena_zero(l->mem, n, size);
    if (!codes)
        return fail_memory(err, "a constant", n);
    operand wide = *y, stored;
    for (int k = 0; k < y->rank; k++)
        wide.dims[k] = k < y->rank - o->rank ? 1 : o->dims[k - (y->rank - o->rank)];
    stored = wide;
    wide.channels_last = false;
    copy_shape c = {.rank = y->rank, .elem = (int)size};
    memcpy(c.dims, wide.dims, sizeof wide.dims);
    stored_strides(&wide, c.x_strides);
    stored_strides(&stored, c.y_strides);
    copy_strided(&c, o->constant->data, codes, 0, 1);
    for (size_t i = 0; o->type == RUNG_I8 && i < n; i++)
        codes[i] ^= 0x80;
    for (size_t i = 0; o->type == RUNG_I16 && i < n; i++)
        ((uint16_t *)(void *)codes)[i] ^= 0x8000;
    *out = codes;
    return RUNG_OK;
}

static rung_status check_operand(const operand *o, rung_error *err)
{
    if (!o->quantized || (o->type != RUNG_U8 && o->type != RUNG_I8 && !operand_is_wide(o)) ||
        (o->constant && o->n_scales != 1))
        return fail(err, RUNG_EUNSUPPORTED, "its operand '%s' is not quantized per tensor",
                    o->name);
    return RUNG_OK;
}

static void binary_params(const lowering *l, binary_step *p)
{
    const operand *a = &l->in[p->swapped], *b = &l->in[!p->swapped], *y = &l->out[0];
    p->q = (wide_binary_q){.q = {.a_scale = a->scale,
                                 .b_scale = b->scale,
                                 .y_scale = y->scale,
                                 .a_zero = stored_zero(a),
                                 .b_zero = stored_zero(b),
                                 .y_zero = y->zero,
                                 .lo = l->q_lo,
                                 .hi = l->q_hi},
                           .a_wide = operand_is_wide(a),
                           .b_wide = operand_is_wide(b),
                           .y_wide = operand_is_wide(y)};
    /* a - b is a + (-b): the formula of Add holds for a negative scale too. */
    if (strcmp(l->n->op_type, "Sub") == 0)
        *(p->swapped ? &p->q.q.a_scale : &p->q.q.b_scale) *= -1;
}

/* Along the inner axis a has stride 1, b 1 or 0: the operands change places for that. */
static void binary_loops(axes_of *x, binary_step *p)
{
    merge(x);
    const int inner = x->rank - 1;
    p->rank = inner < 0 ? 0 : inner;
    p->swapped = inner >= 0 && x->a[inner] == 0;
    p->n = inner < 0 ? 1 : (size_t)x->dims[inner];
    p->b_step = inner >= 0 && (p->swapped ? x->a[inner] : x->b[inner]) != 0;
    p->n_rows = 1;
    for (int i = 0; i < p->rank; i++) {
        p->outer[i] = x->dims[i];
        p->a_strides[i] = p->swapped ? x->b[i] : x->a[i];
        p->b_strides[i] = p->swapped ? x->a[i] : x->b[i];
        p->n_rows *= (size_t)x->dims[i];
    }
}

/* Whether the kernels of Add and Mul compute it: both operands are quantized. */
static bool has_kernel(const lowering *l)
{
    const char *op = l->n->op_type;
    return l->in[0].quantized && l->in[1].quantized &&
           (strcmp(op, "Add") == 0 || strcmp(op, "Sub") == 0 || strcmp(op, "Mul") == 0);
}

rung_status lower_binary(const lowering *l, step *s, rung_error *err)
{
    if (l->n_in != 2 || !has_kernel(l))
        return lower_scalar(l, s, err);
    const operand *y = &l->out[0];
    int64_t a_dims[RUNG_MAX_RANK], b_dims[RUNG_MAX_RANK], y_dims[RUNG_MAX_RANK];
    axes_of x = {.rank = y->rank};
    rung_status st;
    if ((st = check_operand(&l->in[0], err)) != RUNG_OK ||
        (st = check_operand(&l->in[1], err)) != RUNG_OK ||
        (st = extents(&l->in[0], y, a_dims, err)) != RUNG_OK ||
        (st = extents(&l->in[1], y, b_dims, err)) != RUNG_OK ||
        (st = extents(y, y, y_dims, err)) != RUNG_OK)
        return st;
    memcpy(x.dims, y_dims, sizeof y_dims);
    strides_of(y->rank, a_dims, x.a);
    strides_of(y->rank, b_dims, x.b);
    binary_step *p = arena_zero(l->mem, 1, sizeof *p);
    if (!p)
        return fail_memory(err, "a step", sizeof *p);
    binary_loops(&x, p);
    binary_params(l, p);
    const bool mul = strcmp(l->n->op_type, "Mul") == 0;
    const bool wide = lowering_is_wide(l);
    p->kernel = mul ? KERNEL_PICK(mul_u8) : KERNEL_PICK(add_u8);
    if (wide)
        p->wide_kernel = mul ? KERNEL_PICK(mul_wide) : KERNEL_PICK(add_wide);
    if ((st = constant_codes(l, &l->in[p->swapped], &p->a_const, err)) != RUNG_OK ||
        (st = constant_codes(l, &l->in[!p->swapped], &p->b_const, err)) != RUNG_OK)
        return st;
    const char *name = arena_printf(l->mem, "%s_%s %s", mul ? "mul" : "add", wide ? "u16" : "u8",
                                    wide ? p->wide_kernel->name : p->kernel->name);
    if (!name)
        return fail_memory(err, "a name", 1);
    *s = (step){.kernel = name,
                .run = run_binary,
                .params = p,
                .in_place = operand_is_wide(&l->in[0]) == operand_is_wide(y)};
    return RUNG_OK;
}
