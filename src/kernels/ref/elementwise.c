/* Add, Mul, tables, QuantizeLinear and DequantizeLinear in plain C. */
#include "kernels/arith.h"
#include "kernels/ref/ref.h"

void add_u8_ref(const uint8_t *a, const uint8_t *b, int b_step, size_t n, const binary_q *q,
                uint8_t *y)
{
    const add_terms t =
        add_terms_of(q->a_scale, q->a_zero, q->b_scale, q->b_zero, q->y_scale, q->y_zero);
    const uint8_t b0 = n ? b[0] : 0; /* y may be b */
    for (size_t i = 0; i < n; i++)
        y[i] = add_one(a[i], b_step ? b[i] : b0, t, q->lo, q->hi);
}

void mul_u8_ref(const uint8_t *a, const uint8_t *b, int b_step, size_t n, const binary_q *q,
                uint8_t *y)
{
    const float ratio = mul_ratio(q->a_scale, q->b_scale, q->y_scale);
    const uint8_t b0 = n ? b[0] : 0;
    for (size_t i = 0; i < n; i++)
        y[i] = mul_one(a[i] - q->a_zero, (b_step ? b[i] : b0) - q->b_zero, ratio, q->y_zero, q->lo,
                       q->hi);
}

void table_u8_ref(const uint8_t *x, size_t n, const uint8_t table[256], uint8_t *y)
{
    for (size_t i = 0; i < n; i++)
        y[i] = table[x[i]];
}

void quantize_u8_ref(const float *x, size_t n, float scale, int zero, int lo, int hi, uint8_t *y)
{
    for (size_t i = 0; i < n; i++)
        y[i] = quantize_one(x[i], scale, zero, lo, hi);
}

void quantize_planes_u8_ref(const float *x, size_t plane, size_t n, int channels, float scale,
                            int zero, int lo, int hi, uint8_t *y)
{
    for (size_t i = 0; i < n; i++)
        for (int c = 0; c < channels; c++)
            y[i * channels + c] = quantize_one(x[c * plane + i], scale, zero, lo, hi);
}

void dequantize_u8_ref(const uint8_t *x, size_t n, float scale, int zero, float *y)
{
    for (size_t i = 0; i < n; i++)
        y[i] = dequantize_one(x[i], scale, zero);
}
