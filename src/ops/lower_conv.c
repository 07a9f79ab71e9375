/* Conv, ConvTranspose, Gemm and MatMul by constant weights: integer products, packed once. */
#include "ops/lower.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "ops/lower_wide.h"
#include "ops/packs.h"
#include "ops/window.h"

/* Far above what memory holds; below what 64 bits count in multiply-accumulates. */
#define MAX_ELEMENTS ((size_t)1 << 31)

static void run_conv(const step *s, void *const *bufs, void *scratch, int thread, int n_threads)
{
    const conv_step *c = s->params;
    c->kernel->run(&c->shape, c->packed, bufs[0], c->x_zero, &c->q, bufs[c->out], scratch, thread,
                   n_threads);
}

const conv_step *step_convolution(const step *s)
{
    return s->run == run_conv ? s->params : NULL;
}

/* Dims that the kernels can count, and so few elements that products with them stay in 64 bits. */
static bool fits_int(const operand *o)
{
    if (stored_count(o) > MAX_ELEMENTS)
        return false;
    for (int i = 0; i < o->rank; i++)
        if (o->dims[i] > INT32_MAX)
            return false;
    return true;
}

/* Weights as int8 with zero point 0: as they are, or uint8 around 128. */
static rung_status weights_int8(const lowering *l, const int8_t **out, rung_error *err)
{
    const operand *w = &l->in[1];
    if (!w->constant || !w->quantized)
        return fail(err, RUNG_EUNSUPPORTED, "its weight '%s' is not a quantized constant", w->name);
    if (!fits_int(w))
        return fail(err, RUNG_EUNSUPPORTED, "a dimension of '%s' does not fit int32", w->name);
    const size_t n = stored_count(w);
    if (w->type == RUNG_I8 && w->zero == 0) {
        *out = w->constant->data;
        return RUNG_OK;
    }
    if (w->type != RUNG_U8 || w->zero != 128)
        return fail(err, RUNG_EUNSUPPORTED, "its weight '%s' (%s) has zero point %d, not %d",
                    w->name, dtype_name(w->type), w->zero, w->type == RUNG_U8 ? 128 : 0);
    int8_t *copy = arena_alloc(l->mem, n);
    if (!copy)
        return fail_memory(err, "weights", n);
    const uint8_t *from = w->constant->data;
    for (size_t i = 0; i < n; i++)
        copy[i] = (int8_t)(from[i] - 128);
    *out = copy;
    return RUNG_OK;
}

static float weight_scale(const operand *w, int c)
{
    return w->scales[w->n_scales == 1 ? 0 : c];
}

/* One bias as int32 at scale s: as it is where it has that scale (to float32 rounding), else
 * rne(b / s). False: it does not fit. */
static bool bias_at(const operand *b, size_t i, float s, int32_t *out)
{
    const bool coded = b->type == RUNG_I32 && b->quantized;
    const double raw = tensor_get(b->constant, i);
    const float own = coded ? b->scales[b->n_scales == 1 ? 0 : i] : 1;
    if (coded && fabsf(own - s) <= 1e-6f * s) {
        *out = (int32_t)raw;
        return true;
    }
    const double q = nearbyint((coded ? (raw - b->zero) * own : raw) / s);
    if (!(fabs(q) <= INT32_MAX))
        return false;
    *out = (int32_t)q;
    return true;
}

/* Biases of n channels at scale s_x * s_w[c]; *out = NULL where there is no bias. */
static rung_status bias_int32(const lowering *l, int n, const int32_t **out, rung_error *err)
{
    *out = NULL;
    if (l->n_in < 3 || operand_absent(&l->in[2]))
        return RUNG_OK;
    const operand *b = &l->in[2], *w = &l->in[1];
    if (!b->constant || (b->type != RUNG_I32 && b->type != RUNG_F32))
        return fail(err, RUNG_EUNSUPPORTED, "its bias '%s' is not a constant of int32 or float32",
                    b->name);
    const size_t count = stored_count(b);
    if (count != (size_t)n && count != 1)
        return fail(err, RUNG_EUNSUPPORTED, "its bias '%s' is not one number per channel", b->name);
    int32_t *v = arena_zero(l->mem, (size_t)n, sizeof *v);
    if (!v)
        return fail_memory(err, "a bias", (size_t)n * sizeof *v);
    for (int c = 0; c < n; c++) {
        const float s = l->in[0].scale * weight_scale(w, c);
        if (!bias_at(b, count == 1 ? 0 : (size_t)c, s, &v[c]))
            return fail(err, RUNG_EUNSUPPORTED, "bias '%s'[%d] does not fit int32 at scale %g",
                        b->name, c, (double)s);
    }
    *out = v;
    return RUNG_OK;
}

static rung_status make_mult(const lowering *l, int n, const float **out, rung_error *err)
{
    float *mult = arena_zero(l->mem, (size_t)n, sizeof *mult);
    if (!mult)
        return fail_memory(err, "scales", (size_t)n * sizeof *mult);
    for (int c = 0; c < n; c++) {
        mult[c] = l->in[0].scale * weight_scale(&l->in[1], c) / l->out[0].scale;
        if (!isfinite(mult[c]) || mult[c] <= 0)
            return fail(err, RUNG_EUNSUPPORTED, "scale %d of '%s' is too large or too small", c,
                        l->in[1].name);
    }
    *out = mult;
    return RUNG_OK;
}

static rung_status refuse_overflow(const lowering *l, int c, int64_t sum, const int32_t *bias,
                                   rung_error *err)
{
    const int64_t b = bias ? llabs((int64_t)bias[c]) : 0;
    /* of 16-bit operands the high part takes 1/256 of the low one and of the bias */
    if (255 * sum + (lowering_is_wide(l) ? INT32_MAX / 256 + b / 256 + 2 : b) <= INT32_MAX)
        return RUNG_OK;
    return fail(err, RUNG_EMODEL, "channel %d of weight '%s' could overflow the int32 accumulator",
                c, l->in[1].name);
}

/* Weights of which each output channel is `per` numbers in a row. */
static rung_status check_rows(const lowering *l, const int8_t *w, int n, size_t per,
                              const int32_t *bias, rung_error *err)
{
    rung_status st = RUNG_OK;
    for (int c = 0; c < n && st == RUNG_OK; c++) {
        int64_t sum = 0;
        for (size_t i = 0; i < per; i++)
            sum += abs(w[(size_t)c * per + i]);
        st = refuse_overflow(l, c, sum, bias, err);
    }
    return st;
}

/* The same for a transposed convolution: [in_c][out_c / groups][kernel]. */
static rung_status check_transposed(const lowering *l, const int8_t *w, const conv_shape *s,
                                    const int32_t *bias, rung_error *err)
{
    const size_t k = (size_t)s->kernel_h * (size_t)s->kernel_w;
    const int per_out = s->out_c / s->groups, per_in = s->in_c / s->groups;
    rung_status st = RUNG_OK;
    for (int c = 0; c < s->out_c && st == RUNG_OK; c++) {
        int64_t sum = 0;
        for (int i = 0; i < per_in; i++) {
            const size_t row = (size_t)(c / per_out * per_in + i) * (size_t)per_out;
            const int8_t *from = w + (row + (size_t)(c % per_out)) * k;
            for (size_t j = 0; j < k; j++)
                sum += abs(from[j]);
        }
        st = refuse_overflow(l, c, sum, bias, err);
    }
    return st;
}

typedef struct conv_pack {
    const conv_kernel *kernel;
    const conv_shape *shape;
    const int8_t *w;
    const int32_t *bias;
    int x_zero;
} conv_pack;

static rung_status pack(const void *ctx, arena *mem, const void **packed, rung_error *err)
{
    const conv_pack *c = ctx;
    const size_t size = c->kernel->packed_size(c->shape);
    void *to = arena_zero(mem, size + 1, 1);
    if (!to)
        return fail_memory(err, "packed weights", size);
    c->kernel->pack(c->shape, c->w, c->bias, c->x_zero, to);
    *packed = to;
    return RUNG_OK;
}

/* What packed weights depend on besides weights and bias: see conv_kernel. */
typedef struct conv_params {
    void (*pack)(const conv_shape *s, const int8_t *w, const int32_t *bias, int x_zero,
                 void *packed);
    conv_shape shape;
    int64_t x_zero;
} conv_params;
_Static_assert(sizeof(conv_params) == sizeof(void (*)(void)) + sizeof(conv_shape) +
                                          sizeof(int64_t),
               "it is compared as bytes");

rung_status lower_conv_packed(const lowering *l, const conv_kernel *kernel, const conv_shape *shape,
                              const int8_t *w, const int32_t *bias, int x_zero,
                              const void **packed, rung_error *err)
{
    const conv_pack c = {kernel, shape, w, bias, x_zero};
    conv_params params = {kernel->pack, *shape, x_zero};
    params.shape.batch = 0;
    if (shape->kernel_h == 1 && shape->kernel_w == 1)
        params.shape.in_h = params.shape.in_w = params.shape.out_h = params.shape.out_w = 0;
    const pack_key key = {.source = l->in[1].source,
                          .kind = node_int(l->n, "transB", 0) ? "conv_u8s8 rows" : "conv_u8s8",
                          .params = &params,
                          .n_params = sizeof params,
                          .more = bias,
                          .n_more = bias ? (size_t)shape->out_c * sizeof *bias : 0};
    return pack_take(l, &key, pack, &c, packed, err);
}

/* Packs for the kernel and fills the step. */
static rung_status finish(const lowering *l, const conv_kernel *kernel, const conv_shape *shape,
                          const int8_t *w, const int32_t *bias, step *s, rung_error *err)
{
    const float *mult = NULL;
    rung_status st = make_mult(l, shape->out_c, &mult, err);
    if (st != RUNG_OK || lowering_is_wide(l))
        return st == RUNG_OK ? lower_wide_conv(l, shape, w, bias, mult, s, err) : st;
    conv_step *c = arena_zero(l->mem, 1, sizeof *c);
    const char *name = arena_printf(l->mem, "conv_u8s8 %s", kernel->name);
    if (!c || !name)
        return fail_memory(err, "a step", sizeof *c);
    *c = (conv_step){.kernel = kernel,
                     .shape = *shape,
                     .q = {.mult = mult, .zero = l->out[0].zero, .lo = l->q_lo, .hi = l->q_hi},
                     .x_zero = l->in[0].zero,
                     .out = l->n_in};
    st = lower_conv_packed(l, kernel, shape, w, bias, c->x_zero, &c->packed, err);
    *s = (step){
        .kernel = name, .run = run_conv, .params = c, .scratch_bytes = kernel->scratch_size(shape)};
    return st;
}

/* The kernels know two spatial axes: one more of extent 1 is put before a single one. */
rung_status lower_conv_shape(const lowering *l, const window *w, conv_shape *s, rung_error *err)
{
    const operand *x = &l->in[0], *y = &l->out[0];
    if (w->n > 2)
        return fail(err, RUNG_EUNSUPPORTED, "there is no integer kernel for %d spatial axes", w->n);
    if (!fits_int(x) || !fits_int(y))
        return fail(err, RUNG_EUNSUPPORTED, "a dimension does not fit int32");
    const int a = w->n - 1;
    *s = (conv_shape){.batch = (int)x->dims[0],
                      .in_h = 1,
                      .in_w = (int)x->dims[w->n + 1],
                      .in_c = (int)x->dims[1],
                      .out_h = 1,
                      .out_w = (int)y->dims[w->n + 1],
                      .out_c = (int)y->dims[1],
                      .kernel_h = 1,
                      .kernel_w = (int)w->kernel[a],
                      .stride_h = 1,
                      .stride_w = (int)w->strides[a],
                      .dilation_h = 1,
                      .dilation_w = (int)w->dilations[a],
                      .pad_left = (int)w->begin[a],
                      .groups = (int)node_int(l->n, "group", 1)};
    if (w->n == 2) {
        s->in_h = (int)x->dims[2];
        s->out_h = (int)y->dims[2];
        s->kernel_h = (int)w->kernel[0];
        s->stride_h = (int)w->strides[0];
        s->dilation_h = (int)w->dilations[0];
        s->pad_top = (int)w->begin[0];
    }
    return RUNG_OK;
}

static int64_t conv_macs(const conv_shape *s, const operand *positions)
{
    return (int64_t)(stored_count(positions) / (size_t)positions->dims[1]) * (s->in_c / s->groups) *
           s->kernel_h * s->kernel_w * s->out_c;
}

/* Scales on the output channels, or one for all. */
static rung_status check_axis(const operand *w, int axis, rung_error *err)
{
    if (w->n_scales == 1 || w->axis == axis)
        return RUNG_OK;
    return fail(err, RUNG_EUNSUPPORTED, "the scales of '%s' are not per output channel", w->name);
}

rung_status lower_conv(const lowering *l, step *s, rung_error *err)
{
    window win;
    conv_shape shape;
    const int8_t *w = NULL;
    const int32_t *bias = NULL;
    const operand *x = &l->in[0];
    rung_status st = weights_int8(l, &w, err);
    if (st != RUNG_OK || (st = check_axis(&l->in[1], 0, err)) != RUNG_OK ||
        (st = window_conv(l->n, x->rank, x->dims, l->in[1].dims, &win, err)) != RUNG_OK ||
        (st = lower_conv_shape(l, &win, &shape, err)) != RUNG_OK ||
        (st = bias_int32(l, shape.out_c, &bias, err)) != RUNG_OK ||
        (st = check_rows(l, w, shape.out_c, stored_count(&l->in[1]) / (size_t)shape.out_c, bias,
                         err)) != RUNG_OK)
        return st;
    st = finish(l, conv_pick(&shape), &shape, w, bias, s, err);
    s->macs = conv_macs(&shape, &l->out[0]);
    return st;
}

rung_status lower_conv_transpose(const lowering *l, step *s, rung_error *err)
{
    window win;
    conv_shape shape;
    const int8_t *w = NULL;
    const int32_t *bias = NULL;
    const operand *x = &l->in[0];
    if (l->in[1].n_scales > 1 && node_int(l->n, "group", 1) != 1)
        return fail(err, RUNG_EUNSUPPORTED, "scales per channel of a grouped ConvTranspose");
    rung_status st = weights_int8(l, &w, err);
    if (st != RUNG_OK || (st = check_axis(&l->in[1], 1, err)) != RUNG_OK ||
        (st = window_conv_transpose(l->n, x->rank, x->dims, l->in[1].dims, &win, err)) != RUNG_OK ||
        (st = lower_conv_shape(l, &win, &shape, err)) != RUNG_OK ||
        (st = bias_int32(l, shape.out_c, &bias, err)) != RUNG_OK ||
        (st = check_transposed(l, w, &shape, bias, err)) != RUNG_OK)
        return st;
    const conv_kernel *kernel = KERNEL_PICK(conv_transpose_u8s8);
    st = finish(l, kernel, &shape, w, bias, s, err);
    s->kernel = arena_printf(l->mem, "conv_transpose_u8s8 %s", kernel->name);
    s->macs = conv_macs(&shape, x);
    return s->kernel ? st : fail_memory(err, "a name", 1);
}

/* [k][n] -> [n][k]: the order of a convolution's weights; mem_alloc'ed. */
static rung_status transpose_weights(size_t k, size_t n, const int8_t *w, int8_t **out,
                                     rung_error *err)
{
    int8_t *t = *out = mem_alloc(k * n);
    if (!t)
        return fail_memory(err, "weights", k * n);
    for (size_t i = 0; i < k; i++)
        for (size_t j = 0; j < n; j++)
            t[j * k + i] = w[i * n + j];
    return RUNG_OK;
}

static rung_status check_gemm(const lowering *l, bool transposed, rung_error *err)
{
    const operand *x = &l->in[0], *w = &l->in[1];
    if (w->rank != 2 || x->rank < 1 || x->channels_last)
        return fail(err, RUNG_EUNSUPPORTED, "its right operand is not a matrix");
    if (node_float(l->n, "alpha", 1) != 1 || node_float(l->n, "beta", 1) != 1 ||
        node_int(l->n, "transA", 0) != 0)
        return fail(err, RUNG_EUNSUPPORTED, "alpha, beta or transA is set");
    if (x->dims[x->rank - 1] != w->dims[transposed])
        return fail(err, RUNG_EMODEL, "its operands' shapes do not fit");
    if (!fits_int(x) || !fits_int(w) || stored_count(&l->out[0]) > INT32_MAX)
        return fail(err, RUNG_EUNSUPPORTED, "a dimension does not fit int32");
    return check_axis(w, !transposed, err);
}

rung_status lower_gemm(const lowering *l, step *s, rung_error *err)
{
    const bool transposed = node_int(l->n, "transB", 0) != 0;
    const int8_t *w = NULL;
    const int32_t *bias = NULL;
    rung_status st = weights_int8(l, &w, err);
    if (st != RUNG_OK || (st = check_gemm(l, transposed, err)) != RUNG_OK)
        return st;
    const int k = (int)l->in[1].dims[transposed], n = (int)l->in[1].dims[!transposed];
    const int m = (int)(stored_count(&l->out[0]) / (size_t)n);
    const conv_shape shape = {.batch = 1,
                              .in_h = 1,
                              .in_w = m,
                              .in_c = k,
                              .out_h = 1,
                              .out_w = m,
                              .out_c = n,
                              .kernel_h = 1,
                              .kernel_w = 1,
                              .stride_h = 1,
                              .stride_w = 1,
                              .dilation_h = 1,
                              .dilation_w = 1,
                              .groups = 1};
    int8_t *turned = NULL;
    if (!transposed &&
        (st = transpose_weights((size_t)k, (size_t)n, w, &turned, err)) != RUNG_OK)
        return st;
    w = turned ? turned : w;
    if ((st = bias_int32(l, n, &bias, err)) == RUNG_OK &&
        (st = check_rows(l, w, n, (size_t)k, bias, err)) == RUNG_OK)
        st = finish(l, conv_pick(&shape), &shape, w, bias, s, err);
    s->macs = (int64_t)m * n * k;
    mem_free(turned);
    return st;
}
