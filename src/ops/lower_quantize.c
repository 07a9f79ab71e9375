/* QuantizeLinear and DequantizeLinear of activations, where they are not absorbed. */
#include "ops/lower_wide.h"

static void run_quantize(const step *s, void *const *bufs, void *scratch, int thread, int n_threads)
{
    const quantize_step *q = s->params;
    const float *x = bufs[0];
    uint8_t *y = bufs[1];
    size_t first, end;
    kernel_share(q->n, 64, thread, n_threads, &first, &end);
    if (first < end)
        KERNEL_PICK(quantize_u8)
            ->run(x + first, end - first, q->scale, q->zero, q->lo, q->hi, y + first);
}

/* Each image's planes to channels-last; the threads share the pixels of all images. */
static void run_quantize_planes(const step *s, void *const *bufs, void *scratch, int thread,
                                int n_threads)
{
    const quantize_step *q = s->params;
    const size_t channels = (size_t)q->channels;
    size_t at, end;
    kernel_share(q->n * (size_t)q->batch, 64, thread, n_threads, &at, &end);
    for (size_t n; at < end; at += n) {
        const size_t image = at / q->n, pixel = at % q->n;
        n = end - at < q->n - pixel ? end - at : q->n - pixel;
        const float *x = (const float *)bufs[0] + image * q->n * channels + pixel;
        KERNEL_PICK(quantize_planes_u8)
            ->run(x, q->n, n, q->channels, q->scale, q->zero, q->lo, q->hi,
                  (uint8_t *)bufs[1] + at * channels);
    }
}

static void run_dequantize(const step *s, void *const *bufs, void *scratch, int thread,
                           int n_threads)
{
    const quantize_step *q = s->params;
    const uint8_t *x = bufs[0];
    float *y = bufs[1];
    size_t first, end;
    kernel_share(q->n, 64, thread, n_threads, &first, &end);
    if (first < end)
        KERNEL_PICK(dequantize_u8)->run(x + first, end - first, q->scale, q->zero, y + first);
}

/* --- 16 bits ---------------------------------------------------------------------------------- */

static void run_quantize_wide(const step *s, void *const *bufs, void *scratch, int thread,
                              int n_threads)
{
    const quantize_step *q = s->params;
    size_t first, end;
    kernel_share(q->n, 64, thread, n_threads, &first, &end);
    if (first < end)
        KERNEL_PICK(quantize_u16)
            ->run((const float *)bufs[0] + first, end - first, q->scale, q->zero, q->lo, q->hi,
                  (uint16_t *)bufs[1] + first);
}

static void run_dequantize_wide(const step *s, void *const *bufs, void *scratch, int thread,
                                int n_threads)
{
    const quantize_step *q = s->params;
    size_t first, end;
    kernel_share(q->n, 64, thread, n_threads, &first, &end);
    if (first < end)
        KERNEL_PICK(dequantize_u16)
            ->run((const uint16_t *)bufs[0] + first, end - first, q->scale, q->zero,
                  (float *)bufs[1] + first);
}

/* A piece of each plane, then its codes side by side. */
static void run_quantize_planes_wide(const step *s, void *const *bufs, void *scratch, int thread,
                                     int n_threads)
{
    enum { PIECE = 256 };
    const quantize_step *q = s->params;
    const size_t channels = (size_t)q->channels;
    size_t at, end;
    kernel_share(q->n * (size_t)q->batch, 64, thread, n_threads, &at, &end);
    for (size_t n; at < end; at += n) {
        const size_t image = at / q->n, pixel = at % q->n;
        uint16_t codes[PIECE], *y = (uint16_t *)bufs[1] + at * channels;
        n = end - at < q->n - pixel ? end - at : q->n - pixel;
        n = n < PIECE ? n : PIECE;
        for (size_t c = 0; c < channels; c++) {
            const float *x = (const float *)bufs[0] + (image * channels + c) * q->n + pixel;
            KERNEL_PICK(quantize_u16)->run(x, n, q->scale, q->zero, q->lo, q->hi, codes);
            for (size_t i = 0; i < n; i++)
                y[i * channels + c] = codes[i];
        }
    }
}

/* ---------------------------------------------------------------------------------------------- */

static rung_status finish(const lowering *l, const operand *codes, const char *kernel, step_run run,
                          step *s, rung_error *err)
{
    quantize_step *q = arena_zero(l->mem, 1, sizeof *q);
    if (!q)
        return fail_memory(err, "a step", sizeof *q);
    *q = (quantize_step){.n = stored_count(codes),
                         .scale = codes->scale,
                         .zero = codes->zero,
                         .hi = stored_top(codes)};
    *s = (step){.kernel = kernel, .run = run, .params = q};
    return RUNG_OK;
}

static rung_status lower_planes(const lowering *l, step *s, rung_error *err)
{
    const operand *y = &l->out[0];
    if (y->rank < 3 || y->dims[1] < 1 || y->dims[1] > QUANTIZE_PLANES_MAX)
        return fail(err, RUNG_EUNSUPPORTED, "too many planes to quantize to channels-last");
    quantize_step *q = arena_zero(l->mem, 1, sizeof *q);
    if (!q)
        return fail_memory(err, "a step", sizeof *q);
    *q = (quantize_step){.n = stored_count(y) / (size_t)(y->dims[0] * y->dims[1]),
                         .batch = (int)y->dims[0],
                         .channels = (int)y->dims[1],
                         .scale = y->scale,
                         .zero = y->zero,
                         .hi = stored_top(y)};
    *s = (step){.kernel = "quantize_planes_u8", .run = run_quantize_planes, .params = q};
    if (operand_is_wide(y)) {
        s->kernel = "quantize_planes_u16";
        s->run = run_quantize_planes_wide;
    }
    return RUNG_OK;
}

rung_status lower_quantize(const lowering *l, step *s, rung_error *err)
{
    if (l->out[0].channels_last && !l->in[0].channels_last)
        return lower_planes(l, s, err);
    if (operand_is_wide(&l->out[0]))
        return finish(l, &l->out[0], "quantize_u16", run_quantize_wide, s, err);
    return finish(l, &l->out[0], "quantize_u8", run_quantize, s, err);
}

rung_status lower_dequantize(const lowering *l, step *s, rung_error *err)
{
    if (operand_is_wide(&l->in[0]))
        return finish(l, &l->in[0], "dequantize_u16", run_dequantize_wide, s, err);
    return finish(l, &l->in[0], "dequantize_u8", run_dequantize, s, err);
}
