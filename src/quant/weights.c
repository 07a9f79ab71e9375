/* Weights and biases as integers. */
#include "quant/quant.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* w as [outer][channels][inner]; axis -1: one channel. */
typedef struct channels {
    size_t outer, n, inner;
} channels;

static channels channels_of(const tensor *w, int axis)
{
    if (axis < 0)
        return (channels){ 1, 1, tensor_count(w) };
    return (channels){ dims_count(axis, w->dims), (size_t)w->dims[axis],
                       dims_count(w->rank - axis - 1, w->dims + axis + 1) };
}

size_t weight_channels(const tensor *w, int axis)
{
    return channels_of(w, axis).n;
}

/* Calls are per run of `inner` elements that belong to channel c. */
#define FOR_EACH_RUN(k, c, at)                                                                     \
    for (size_t o_ = 0, at = 0; o_ < (k).outer; o_++)                                              \
        for (size_t c = 0; c < (k).n; c++, at += (k).inner)

size_t weight_scales(const tensor *w, int axis, float *scales)
{
    const channels k = channels_of(w, axis);
    const float *x = w->data;
    float most = 0;
    size_t bad = 0;
    memset(scales, 0, k.n * sizeof *scales);
    FOR_EACH_RUN(k, c, at) {
        for (size_t i = at; i < at + k.inner; i++) {
            bad += !isfinite(x[i]);
            scales[c] = isfinite(x[i]) ? fmaxf(scales[c], fabsf(x[i])) : scales[c];
        }
    }
    for (size_t c = 0; c < k.n; c++)
        most = fmaxf(most, scales[c]);
    /* A channel of zeros takes the tensor's largest scale: its bias must still be fine. */
    for (size_t c = 0; c < k.n; c++)
        scales[c] = fmaxf((scales[c] > 0 ? scales[c] : most > 0 ? most : 1) / 127, FLT_MIN);
    return bad;
}

static int8_t quantize_one(float x, float scale, int lowest)
{
    const float q = isfinite(x) ? nearbyintf(x / scale) : 0;
    return (int8_t)fminf(fmaxf(q, (float)lowest), 127);
}

void weight_codes(const tensor *w, int axis, const float *scales, int lowest, int8_t *q)
{
    const channels k = channels_of(w, axis);
    const float *x = w->data;
    FOR_EACH_RUN(k, c, at) {
        for (size_t i = at; i < at + k.inner; i++)
            q[i] = quantize_one(x[i], scales[c], lowest);
    }
}

size_t weight_quantize(const tensor *w, int axis, float *scales, int8_t *q)
{
    const size_t bad = weight_scales(w, axis, scales);
    weight_codes(w, axis, scales, -127, q);
    return bad;
}

double weight_code_sum(const tensor *w, int axis, size_t channel, float scale)
{
    const channels k = channels_of(w, axis);
    const float *x = w->data;
    double sum = 0;
    for (size_t o = 0; o < k.outer; o++) {
        const size_t at = (o * k.n + channel) * k.inner;
        for (size_t i = at; i < at + k.inner; i++)
            sum += abs(quantize_one(x[i], scale, -128));
    }
    return sum;
}

int32_t bias_code(float b, float scale)
{
    const double q = isfinite(b) ? nearbyint((double)b / scale) : 0;
    return (int32_t)fmin(fmax(q, -(double)INT32_MAX), INT32_MAX);
}
