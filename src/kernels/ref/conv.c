/* Convolution in plain C. Packed: bias [out_c] int32 with the zero point folded in, then
 * w [out_c][tap][in_c / groups]. */
#include <string.h>

#include "kernels/ref/conv_outputs.h"
#include "kernels/ref/ref.h"

bool conv_fits_ref(const conv_shape *s)
{
    return true;
}

size_t conv_packed_size_ref(const conv_shape *s)
{
    const size_t per_output = (size_t)(s->in_c / s->groups) * s->kernel_h * s->kernel_w;
    return (size_t)s->out_c * (sizeof(int32_t) + per_output);
}

size_t conv_scratch_size_ref(const conv_shape *s)
{
    return 0;
}

void conv_pack_ref(const conv_shape *s, const int8_t *w, const int32_t *bias, int x_zero,
                   void *packed)
{
    const size_t out_c = s->out_c, in_c = s->in_c / s->groups;
    const size_t taps = (size_t)s->kernel_h * s->kernel_w;
    int32_t *b = packed;
    int8_t *to = (int8_t *)(b + out_c);
    for (size_t o = 0; o < out_c; o++) {
        b[o] = bias ? bias[o] : 0;
        for (size_t t = 0; t < taps; t++)
            for (size_t c = 0; c < in_c; c++) {
                to[(o * taps + t) * in_c + c] = w[(o * in_c + c) * taps + t];
                b[o] -= x_zero * w[(o * in_c + c) * taps + t];
            }
    }
}

/* x NULL: a tap outside the image, which reads x_zero. */
static int32_t dot(const uint8_t *x, int x_zero, const int8_t *w, size_t n)
{
    int32_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (x ? x[i] : x_zero) * w[i];
    return sum;
}

static int32_t conv_sum(const conv_shape *s, const uint8_t *image, int x_zero, const int8_t *w,
                        int oy, int ox)
{
    const int in_c = s->in_c / s->groups;
    int32_t sum = 0;
    for (int ky = 0; ky < s->kernel_h; ky++) {
        const int iy = oy * s->stride_h - s->pad_top + ky * s->dilation_h;
        for (int kx = 0; kx < s->kernel_w; kx++) {
            const int ix = ox * s->stride_w - s->pad_left + kx * s->dilation_w;
            const bool inside = iy >= 0 && iy < s->in_h && ix >= 0 && ix < s->in_w;
            sum += dot(inside ? image + ((size_t)iy * s->in_w + ix) * s->in_c : NULL, x_zero,
                       w + ((size_t)ky * s->kernel_w + kx) * in_c, in_c);
        }
    }
    return sum;
}

void conv_run_ref(const conv_shape *s, const void *packed, const uint8_t *x, int x_zero,
                  const requant *q, uint8_t *y, void *scratch, int thread, int n_threads)
{
    conv_outputs(s, packed, x, x_zero, q, y, conv_sum, thread, n_threads);
}

void conv_sums_ref(const conv_shape *s, const void *packed, const uint8_t *x, int x_zero,
                   int32_t *y, void *scratch, int thread, int n_threads)
{
    conv_outputs(s, packed, x, x_zero, NULL, y, conv_sum, thread, n_threads);
}
