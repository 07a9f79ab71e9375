/* The walk over the outputs of both convolutions. */
#ifndef RUNG_KERNELS_REF_CONV_OUTPUTS_H
#define RUNG_KERNELS_REF_CONV_OUTPUTS_H

#include "kernels/arith.h"
#include "kernels/kernels.h"

/* One output value without bias: image is [in_h][in_w][in_c] at the group's first
 * channel, w [tap][in_c / groups]. */
typedef int32_t (*output_sum)(const conv_shape *s, const uint8_t *image, int x_zero,
                              const int8_t *w, int oy, int ox);

/* y: bytes, or int32 sums where q is NULL. */
static inline void conv_outputs(const conv_shape *s, const void *packed, const uint8_t *x,
                                int x_zero, const requant *q, void *y, output_sum sum, int thread,
                                int n_threads)
{
    const int in_c = s->in_c / s->groups, out_c = s->out_c / s->groups;
    const size_t per_output = (size_t)in_c * s->kernel_h * s->kernel_w;
    const size_t image_size = (size_t)s->in_h * s->in_w * s->in_c;
    const int32_t *bias = packed;
    const int8_t *w = (const int8_t *)(bias + s->out_c);
    size_t row, last;
    kernel_share((size_t)s->batch * s->out_h * s->out_w, 1, thread, n_threads, &row, &last);
    for (; row < last; row++) {
        const int ox = (int)(row % s->out_w), oy = (int)(row / s->out_w % s->out_h);
        const uint8_t *image = x + row / s->out_w / s->out_h * image_size;
        for (int o = 0; o < s->out_c; o++) {
            const int32_t acc = bias[o] + sum(s, image + (size_t)(o / out_c) * in_c, x_zero,
                                              w + o * per_output, oy, ox);
            const size_t at = row * s->out_c + o;
            if (q)
                ((uint8_t *)y)[at] = requant_u8(acc, q->mult[o], q->zero, q->lo, q->hi);
            else
                ((int32_t *)y)[at] = acc;
        }
    }
}

#endif
