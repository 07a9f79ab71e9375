/* Softmax in plain C. */
#include <float.h>
#include <math.h>

#include "kernels/arith.h"
#include "kernels/kernels.h"

/* e[255 - d] belongs to an input that is d steps under the row's maximum. The exponents are raised
 * by a common shift, so that small values do not vanish and the sum of n of them stays finite. */
static void exp_table(float x_scale, size_t n, float e[256])
{
    const double room = log((double)(FLT_MAX / (float)n)) - 5;
    const double shift = (room > 0 ? room : 0) / (double)x_scale;
    for (int i = 0; i < 256; i++)
        e[i] = (float)exp(((double)i - 255 + shift) * (double)x_scale);
}

void softmax_u8(const uint8_t *x, size_t outer, size_t n, float x_scale, float y_scale, int y_zero,
                int lo, int hi, uint8_t *y, int thread, int n_threads)
{
    const float steps = 1.0f / y_scale;
    float e[256];
    size_t row, last;
    kernel_share(outer, 1, thread, n_threads, &row, &last);
    if (row == last || n == 0)
        return;
    exp_table(x_scale, n, e);
    for (; row < last; row++) {
        const uint8_t *from = x + row * n;
        uint8_t *to = y + row * n;
        uint8_t top = 0;
        for (size_t i = 0; i < n; i++)
            top = from[i] > top ? from[i] : top;
        const float *shifted = e + 255 - top;
        float sum = 0;
        for (size_t i = 0; i < n; i++)
            sum += shifted[from[i]];
        for (size_t i = 0; i < n; i++)
            to[i] = round_to_u8(shifted[from[i]] * steps / sum, y_zero, lo, hi);
    }
}
