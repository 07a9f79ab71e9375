/* QuantizeLinear and DequantizeLinear of activations, where they are not absorbed. */
#include "ops/lower.h"

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

static rung_status finish(const lowering *l, const operand *codes, const char *kernel, step_run run,
                          step *s, rung_error *err)
{
    quantize_step *q = arena_zero(l->mem, 1, sizeof *q);
    if (!q)
        return fail_memory(err, "a step", sizeof *q);
    *q = (quantize_step){
        .n = stored_count(codes), .scale = codes->scale, .zero = codes->zero, .hi = 255};
    *s = (step){.kernel = kernel, .run = run, .params = q};
    return RUNG_OK;
}

rung_status lower_quantize(const lowering *l, step *s, rung_error *err)
{
    return finish(l, &l->out[0], "quantize_u8", run_quantize, s, err);
}

rung_status lower_dequantize(const lowering *l, step *s, rung_error *err)
{
    return finish(l, &l->in[0], "dequantize_u8", run_dequantize, s, err);
}
