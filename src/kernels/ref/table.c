/* The 256-entry table of a unary function. */
#include "kernels/arith.h"
#include "kernels/kernels.h"

void table_make(double (*f)(double x, const void *ctx), const void *ctx, float x_scale, int x_zero,
                float y_scale, int y_zero, int lo, int hi, uint8_t table[256])
{
    for (int q = 0; q < 256; q++) {
        const float x = dequantize_one((uint8_t)q, x_scale, x_zero);
        table[q] = quantize_one((float)f(x, ctx), y_scale, y_zero, lo, hi);
    }
}
