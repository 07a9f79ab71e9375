#include "ops/lower_dynamic.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "kernels/arith.h"
#include "ops/lower.h"
#include "ops/packs.h"
#include "ops/window.h"

/* --- DynamicQuantizeLinear -------------------------------------------------------------------- */

static void run_range(const step *s, void *const *bufs, void *scratch, int thread, int n_threads)
{
    dynamic_step *d = (dynamic_step *)(uintptr_t)s->params; /* its notes of this run */
    size_t first, end;
    kernel_share(d->n, 64, thread, n_threads, &first, &end);
    range_part *part = &d->part[thread];
    KERNEL_PICK(range_f32)->run((const float *)bufs[0] + first, end - first, &part->lo, &part->hi);
    if (thread == 0)
        d->n_parts = n_threads;
}

static void run_codes(const step *s, void *const *bufs, void *scratch, int thread, int n_threads)
{
    const dynamic_step *d = s->params;
    uint8_t *y = bufs[1];
    float lo = 0, hi = 0;
    for (int i = 0; i < d->n_parts; i++) {
        lo = d->part[i].lo < lo ? d->part[i].lo : lo;
        hi = d->part[i].hi > hi ? d->part[i].hi : hi;
    }
    const float scale = dynamic_scale(lo, hi);
    const int zero = dynamic_zero(lo, scale);
    size_t first, end;
    kernel_share(d->n, 64, thread, n_threads, &first, &end);
    if (scale > 0 && isfinite(scale))
        KERNEL_PICK(quantize_u8)
            ->run((const float *)bufs[0] + first, end - first, scale, zero, 0, 255, y + first);
    else
        memset(y + first, 0, end - first);
    if (thread == 0 && bufs[2])
        *(float *)bufs[2] = scale;
    if (thread == 0 && bufs[3])
        *(uint8_t *)bufs[3] = (uint8_t)zero;
}

rung_status lower_dynamic_quantize(const lowering *l, step *range, step *quantize, rung_error *err)
{
    dynamic_step *d = arena_zero(l->mem, 1, sizeof *d);
    range_part *part = arena_zero(l->mem, (size_t)l->n_threads, sizeof *part);
    if (!d || !part)
        return fail_memory(err, "a step", sizeof *d);
    *d = (dynamic_step){.n = stored_count(&l->in[0]), .n_parts = 1, .part = part};
    *range = (step){.kernel = "range_f32", .run = run_range, .params = d};
    *quantize = (step){.kernel = "dynamic_quantize_u8", .run = run_codes, .params = d};
    return RUNG_OK;
}

/* --- products --------------------------------------------------------------------------------- */

static product_q parameters(const product_step *p, void *const *bufs, int group)
{
    const size_t column = (size_t)group * (size_t)p->shape.n;
    return (product_q){.x_scale = p->fixed ? p->x_scale : *(const float *)bufs[1],
                       .x_zero = p->has_zero ? *(const uint8_t *)bufs[2] : p->x_zero,
                       .w_scale = p->scale + column,
                       .bias = p->bias ? p->bias + column : NULL};
}

static void run_matrix(const step *s, void *const *bufs, void *scratch, int thread, int n_threads)
{
    const product_step *p = s->params;
    const product_q q = parameters(p, bufs, 0);
    p->kernel->run(&p->shape, p->packed, bufs[0], &q, bufs[p->out], scratch, thread, n_threads);
}

/* The taps of output pixel `row`, side by side, channels [c, c + n): outside the image x_zero. */
static void gather_row(const conv_shape *s, const uint8_t *x, size_t row, size_t c, size_t n,
                       int x_zero, uint8_t *to)
{
    const int ox = (int)(row % (size_t)s->out_w), oy = (int)(row / (size_t)s->out_w) % s->out_h;
    const size_t image = row / (size_t)s->out_w / (size_t)s->out_h;
    x += image * (size_t)s->in_h * (size_t)s->in_w * (size_t)s->in_c + c;
    for (int ky = 0; ky < s->kernel_h; ky++)
        for (int kx = 0; kx < s->kernel_w; kx++, to += n) {
            const int iy = oy * s->stride_h - s->pad_top + ky * s->dilation_h;
            const int ix = ox * s->stride_w - s->pad_left + kx * s->dilation_w;
            if (iy < 0 || iy >= s->in_h || ix < 0 || ix >= s->in_w)
                memset(to, x_zero, n);
            else
                memcpy(to, x + ((size_t)iy * (size_t)s->in_w + (size_t)ix) * (size_t)s->in_c, n);
        }
}

static size_t round64(size_t n)
{
    return (n + 63) / 64 * 64;
}

static void run_conv(const step *s, void *const *bufs, void *scratch, int thread, int n_threads)
{
    const product_step *p = s->params;
    const conv_shape *c = &p->conv;
    const size_t per = (size_t)(c->in_c / c->groups), n = (size_t)p->shape.n;
    uint8_t *rows = scratch;
    void *inner = rows + round64(p->chunk * (size_t)p->shape.k);
    size_t row, last;
    kernel_share((size_t)c->batch * (size_t)c->out_h * (size_t)c->out_w, 1, thread, n_threads, &row,
                 &last);
    for (; row < last; row += p->chunk)
        for (int g = 0; g < c->groups; g++) {
            const product_q q = parameters(p, bufs, g);
            product_shape shape = p->shape;
            shape.rows = last - row < p->chunk ? last - row : p->chunk;
            for (size_t i = 0; i < shape.rows; i++)
                gather_row(c, bufs[0], row + i, (size_t)g * per, per, q.x_zero,
                           rows + i * (size_t)shape.k);
            p->kernel->run(&shape, (const char *)p->packed + (size_t)g * p->group_bytes, rows, &q,
                           (float *)bufs[p->out] + row * shape.y_stride + (size_t)g * n, inner, 0,
                           1);
        }
}

/* Weights as int8 rows [n][k], k in the order of the gathered taps; each sum fits int32. */
static rung_status weight_rows(const product_weights *w, size_t n, size_t per, size_t taps,
                               bool transposed, int8_t *rows, rung_error *err)
{
    const size_t k = per * taps;
    const int zero = w->w->type == RUNG_U8 ? 128 : 0;
    for (size_t c = 0; c < n; c++) {
        int64_t sum = 0;
        for (size_t i = 0; i < k; i++) {
            const size_t tap = i / per, channel = i % per;
            const size_t at = transposed ? i * n + c : (c * per + channel) * taps + tap;
            const int v = (int)tensor_get_int(w->w, at) - zero;
            rows[c * k + i] = (int8_t)v;
            sum += abs(v);
        }
        if (255 * sum > INT32_MAX)
            return fail(err, RUNG_EMODEL,
                        "channel %zu of its weight could overflow the int32 accumulator", c);
    }
    return RUNG_OK;
}

/* One number for each of n channels. */
static rung_status spread(const lowering *l, const tensor *t, size_t n, const float **out,
                          rung_error *err)
{
    const size_t count = tensor_count(t);
    float *v = arena_zero(l->mem, n, sizeof *v);
    if (!v)
        return fail_memory(err, "scales", n * sizeof *v);
    for (size_t i = 0; i < n; i++)
        v[i] = ((const float *)t->data)[count == 1 ? 0 : i];
    *out = v;
    return RUNG_OK;
}

typedef struct product_pack {
    const product_step *p;
    const product_weights *w;
} product_pack;

static rung_status make_packed(const void *ctx, arena *mem, const void **out, rung_error *err)
{
    const product_step *p = ((const product_pack *)ctx)->p;
    const product_weights *w = ((const product_pack *)ctx)->w;
    const conv_shape *c = &p->conv;
    const int k = p->shape.k, n = p->shape.n, groups = p->is_conv ? c->groups : 1;
    const size_t taps = p->is_conv ? (size_t)c->kernel_h * (size_t)c->kernel_w : 1;
    const size_t channels = (size_t)n * (size_t)groups, all = channels * (size_t)k;
    char *packed = arena_zero(mem, (size_t)groups, p->group_bytes);
    int8_t *rows = mem_alloc(all);
    const bool columns = !p->is_conv && !w->transposed;
    rung_status st = packed && rows ? weight_rows(w, channels, (size_t)k / taps, taps, columns,
                                                  rows, err)
                                    : fail_memory(err, "packed weights", all);
    for (int g = 0; g < groups && st == RUNG_OK; g++)
        p->kernel->pack(k, n, rows + (size_t)g * (size_t)n * (size_t)k,
                        packed + (size_t)g * p->group_bytes);
    mem_free(rows);
    *out = packed;
    return st;
}

/* The weight's dims say the rest. */
static rung_status pack(const lowering *l, const product_step *p, product_weights *w,
                        rung_error *err)
{
    const product_pack made = {p, w};
    const int params[] = {p->is_conv, w->transposed, p->is_conv ? p->conv.groups : 1};
    const pack_key key = {.source = w->source,
                          .kind = p->kernel->name,
                          .params = params,
                          .n_params = sizeof params,
                          .more = &p->kernel->pack,
                          .n_more = sizeof p->kernel->pack};
    return pack_take(l, &key, make_packed, &made, &w->packed, err);
}

static bool fits_int(const operand *o)
{
    return stored_count(o) <= INT32_MAX;
}

static rung_status matrix_shape(const lowering *l, const product_weights *w, product_step *p,
                                rung_error *err)
{
    const operand *x = &l->in[0];
    const int64_t k = w->w->dims[w->transposed], n = w->w->dims[!w->transposed];
    if (w->w->rank != 2 || x->rank < 1 || x->channels_last || x->dims[x->rank - 1] != k || k < 1 ||
        n < 1)
        return fail(err, RUNG_EUNSUPPORTED, "its operands are no matrices");
    p->shape = (product_shape){.rows = stored_count(x) / (size_t)k,
                               .k = (int)k,
                               .n = (int)n,
                               .x_stride = (size_t)k,
                               .y_stride = (size_t)n};
    return RUNG_OK;
}

enum { CHUNK_BYTES = 32 * 1024 }; /* of gathered rows: stays in the first-level cache */

static rung_status conv_product_shape(const lowering *l, const tensor *w, product_step *p,
                                      rung_error *err)
{
    window win;
    const operand *x = &l->in[0];
    rung_status st = window_conv(l->n, x->rank, x->dims, w->dims, &win, err);
    if (st != RUNG_OK || (st = lower_conv_shape(l, &win, &p->conv, err)) != RUNG_OK)
        return st;
    const conv_shape *c = &p->conv;
    const int k = c->in_c / c->groups * c->kernel_h * c->kernel_w;
    p->is_conv = true;
    p->shape = (product_shape){.k = k,
                               .n = c->out_c / c->groups,
                               .x_stride = (size_t)k,
                               .y_stride = (size_t)c->out_c};
    p->chunk = CHUNK_BYTES / (size_t)k / 12 * 12;
    p->chunk = p->chunk < 12 ? 12 : p->chunk > 96 ? 96 : p->chunk;
    return RUNG_OK;
}

rung_status lower_product(const lowering *l, product_weights *w, step *s, rung_error *err)
{
    const bool conv = w->w->rank > 2;
    product_step *p = arena_zero(l->mem, 1, sizeof *p);
    if (!p)
        return fail_memory(err, "a step", sizeof *p);
    if (!fits_int(&l->in[0]) || !fits_int(&l->out[0]) || tensor_count(w->w) > INT32_MAX)
        return fail(err, RUNG_EUNSUPPORTED, "a dimension does not fit int32");
    rung_status st = conv ? conv_product_shape(l, w->w, p, err) : matrix_shape(l, w, p, err);
    if (st != RUNG_OK)
        return st;
    const size_t n = (size_t)(conv ? p->conv.out_c : p->shape.n);
    p->kernel = KERNEL_PICK(product_u8s8);
    p->group_bytes = round64(p->kernel->packed_size(p->shape.k, p->shape.n));
    if (!w->packed && (st = pack(l, p, w, err)) != RUNG_OK)
        return st;
    p->packed = w->packed;
    if ((st = spread(l, w->scale, n, &p->scale, err)) != RUNG_OK ||
        (w->bias && (st = spread(l, w->bias, n, &p->bias, err)) != RUNG_OK))
        return st;
    p->fixed = l->in[0].quantized;
    p->has_zero = !p->fixed && !operand_absent(&l->in[2]);
    p->x_scale = l->in[0].scale;
    p->x_zero = p->fixed ? l->in[0].zero : 0;
    p->out = l->n_in;
    *s = (step){.run = conv ? run_conv : run_matrix, .params = p};
    s->kernel = arena_printf(l->mem, "product_u8s8 %s", p->kernel->name);
    s->scratch_bytes = p->kernel->scratch_size(p->shape.k) +
                       (conv ? round64(p->chunk * (size_t)p->shape.k) : 0);
    s->macs = (int64_t)stored_count(&l->out[0]) * p->shape.k;
    return s->kernel ? RUNG_OK : fail_memory(err, "a name", 1);
}
