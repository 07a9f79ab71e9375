/* The elementwise kernels of 16-bit activations in plain C. */
#include "kernels/arith.h"
#include "kernels/ref/wide.h"

void split_u16_ref(const uint16_t *x, size_t n, uint8_t *hi, uint8_t *lo)
{
    for (size_t i = 0; i < n; i++) {
        hi[i] = (uint8_t)(x[i] >> 8);
        lo[i] = (uint8_t)(x[i] & 255);
    }
}

void wide_requant_ref(const int32_t *hi, const int32_t *lo, size_t rows, size_t channels,
                      const wide_requant *q, void *y)
{
    for (size_t i = 0; i < rows * channels; i++) {
        const size_t c = i % channels;
        const int code = wide_requant_one((hi ? hi[i] : 0) + q->hi_fixed[c], lo[i] + q->lo_fixed[c],
                                          q->mult[c], q->zero, q->lo, q->hi);
        code_put(y, i, q->y_wide, code);
    }
}

void add_wide_ref(const void *a, const void *b, int b_step, size_t n, const wide_binary_q *w,
                  void *y)
{
    const binary_q *q = &w->q;
    const add_terms t =
        add_terms_of(q->a_scale, q->a_zero, q->b_scale, q->b_zero, q->y_scale, q->y_zero);
    const int b0 = n ? code_at(b, 0, w->b_wide) : 0; /* y may be b */
    for (size_t i = 0; i < n; i++) {
        const int bi = b_step ? code_at(b, i, w->b_wide) : b0;
        code_put(y, i, w->y_wide, add_code(code_at(a, i, w->a_wide), bi, t, q->lo, q->hi));
    }
}

void mul_wide_ref(const void *a, const void *b, int b_step, size_t n, const wide_binary_q *w,
                  void *y)
{
    const binary_q *q = &w->q;
    const float ratio = mul_ratio(q->a_scale, q->b_scale, q->y_scale);
    const int b0 = n ? code_at(b, 0, w->b_wide) : 0;
    for (size_t i = 0; i < n; i++) {
        const int bi = b_step ? code_at(b, i, w->b_wide) : b0;
        code_put(y, i, w->y_wide,
                 mul_code(code_at(a, i, w->a_wide) - q->a_zero, bi - q->b_zero, ratio, q->y_zero,
                          q->lo, q->hi));
    }
}

void quantize_u16_ref(const float *x, size_t n, float scale, int zero, int lo, int hi, uint16_t *y)
{
    for (size_t i = 0; i < n; i++)
        y[i] = (uint16_t)quantize_code(x[i], scale, zero, lo, hi);
}

void dequantize_u16_ref(const uint16_t *x, size_t n, float scale, int zero, float *y)
{
    for (size_t i = 0; i < n; i++)
        y[i] = dequantize_one(x[i], scale, zero);
}

void rescale_wide_ref(const void *x, size_t n, const rescale_q *q, void *y)
{
    for (size_t i = 0; i < n; i++) {
        const float v = dequantize_one(code_at(x, i, q->x_wide), q->x_scale, q->x_zero);
        code_put(y, i, q->y_wide, quantize_code(v, q->y_scale, q->y_zero, q->lo, q->hi));
    }
}

void table_wide_run(const void *x, bool x_wide, size_t n, const uint16_t *table, bool y_wide,
                    void *y)
{
    for (size_t i = 0; i < n; i++)
        code_put(y, i, y_wide, table[code_at(x, i, x_wide)]);
}

void table_wide_make(double (*f)(double x, const void *ctx), const void *ctx, const rescale_q *q,
                     uint16_t *table)
{
    const int codes = q->x_wide ? 1 << 16 : 1 << 8;
    for (int i = 0; i < codes; i++) {
        const float v = (float)f(dequantize_one(i, q->x_scale, q->x_zero), ctx);
        table[i] = (uint16_t)quantize_code(v, q->y_scale, q->y_zero, q->lo, q->hi);
    }
}
