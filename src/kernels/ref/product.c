/* Products with float32 results in plain C. Packed: w as it is. */
#include <string.h>

#include "kernels/ref/ref.h"

size_t product_packed_size_ref(int k, int n)
{
    return (size_t)k * n;
}

void product_pack_ref(int k, int n, const int8_t *w, void *packed)
{
    memcpy(packed, w, (size_t)k * n);
}

size_t product_scratch_size_ref(int k)
{
    return 0;
}

void product_run_ref(const product_shape *s, const void *packed, const uint8_t *x,
                     const product_q *q, float *y, void *scratch, int thread, int n_threads)
{
    size_t row, last;
    kernel_share(s->rows, 1, thread, n_threads, &row, &last);
    for (; row < last; row++) {
        const uint8_t *xr = x + row * s->x_stride;
        const int8_t *w = packed;
        for (int c = 0; c < s->n; c++, w += s->k) {
            int32_t acc = 0;
            for (int i = 0; i < s->k; i++)
                acc += (xr[i] - q->x_zero) * w[i];
            const float v = (float)acc * (q->x_scale * q->w_scale[c]);
            y[row * s->y_stride + c] = q->bias ? v + q->bias[c] : v;
        }
    }
}

void range_f32_ref(const float *x, size_t n, float *lo, float *hi)
{
    float a = 0, b = 0;
    for (size_t i = 0; i < n; i++) {
        a = x[i] < a ? x[i] : a;
        b = x[i] > b ? x[i] : b;
    }
    *lo = a;
    *hi = b;
}
