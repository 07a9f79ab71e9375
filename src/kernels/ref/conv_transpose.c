/* Transposed convolution in plain C, each output value gathered from the inputs that reach it.
 * Packed: bias [out_c] int32, then w [out_c][tap][in_c / groups]. */
#include "kernels/ref/conv_outputs.h"
#include "kernels/ref/ref.h"

void conv_transpose_pack_ref(const conv_shape *s, const int8_t *w, const int32_t *bias, int x_zero,
                             void *packed)
{
    const size_t group_in = s->in_c / s->groups, group_out = s->out_c / s->groups;
    const size_t taps = (size_t)s->kernel_h * s->kernel_w;
    int32_t *b = packed;
    int8_t *to = (int8_t *)(b + s->out_c);
    for (size_t o = 0; o < (size_t)s->out_c; o++) {
        const size_t first_in = o / group_out * group_in, o_in_group = o % group_out;
        b[o] = bias ? bias[o] : 0;
        for (size_t c = 0; c < group_in; c++)
            for (size_t t = 0; t < taps; t++)
                to[(o * taps + t) * group_in + c] =
                    w[((first_in + c) * group_out + o_in_group) * taps + t];
    }
}

/* The input position that tap k carries to output position o, or -1. */
static int source(int o, int pad, int k, int dilation, int stride, int in)
{
    const int at = o + pad - k * dilation;
    return at >= 0 && at % stride == 0 && at / stride < in ? at / stride : -1;
}

static int32_t transpose_sum(const conv_shape *s, const uint8_t *image, int x_zero, const int8_t *w,
                             int oy, int ox)
{
    const int in_c = s->in_c / s->groups;
    int32_t sum = 0;
    for (int ky = 0; ky < s->kernel_h; ky++) {
        const int iy = source(oy, s->pad_top, ky, s->dilation_h, s->stride_h, s->in_h);
        if (iy < 0)
            continue;
        for (int kx = 0; kx < s->kernel_w; kx++) {
            const int ix = source(ox, s->pad_left, kx, s->dilation_w, s->stride_w, s->in_w);
            if (ix < 0)
                continue;
            const uint8_t *xp = image + ((size_t)iy * s->in_w + ix) * s->in_c;
            const int8_t *wp = w + ((size_t)ky * s->kernel_w + kx) * in_c;
            for (int c = 0; c < in_c; c++)
                sum += (xp[c] - x_zero) * wp[c];
        }
    }
    return sum;
}

void conv_transpose_run_ref(const conv_shape *s, const void *packed, const uint8_t *x, int x_zero,
                            const requant *q, uint8_t *y, void *scratch, int thread, int n_threads)
{
    conv_outputs(s, packed, x, x_zero, q, y, transpose_sum, thread, n_threads);
}

void conv_transpose_sums_ref(const conv_shape *s, const void *packed, const uint8_t *x, int x_zero,
                             int32_t *y, void *scratch, int thread, int n_threads)
{
    conv_outputs(s, packed, x, x_zero, NULL, y, transpose_sum, thread, n_threads);
}
