/* Weight scales of least squared error (after Banner, Nahshan, Soudry: Post training 4-bit
 * quantization of convolutional networks for rapid-deployment, NeurIPS 2019; here by search, and
 * each weight's error counts as much as the input it is multiplied with varies). */
#include <float.h>
#include <math.h>

#include "quant/method.h"

enum { STEPS = 60 };
#define SMALLEST 0.4 /* of the largest magnitude */

static double row_error(const float *w, size_t n, const double *weight, float scale, int top)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        const float q = fminf(fmaxf(rintf(w[i] / scale), (float)-top), (float)top);
        const double d = (double)(q * scale) - w[i];
        sum += d * d * (weight ? weight[i] : 1);
    }
    return sum;
}

static float largest(const float *w, size_t n)
{
    float most = 0;
    for (size_t i = 0; i < n; i++)
        most = isfinite(w[i]) ? fmaxf(most, fabsf(w[i])) : most;
    return most;
}

static float candidate(float most, int step, int top)
{
    const double f = 1 - (1 - SMALLEST) * step / STEPS;
    return fmaxf((float)(f * most / top), FLT_MIN);
}

static float row_scale(const float *w, size_t n, const double *weight, int top, float fallback)
{
    const float most = largest(w, n);
    float best = candidate(most > 0 ? most : fallback, 0, top);
    double least = row_error(w, n, weight, best, top);
    for (int i = 1; i < STEPS && most > 0; i++) {
        const float scale = candidate(most, i, top);
        const double e = row_error(w, n, weight, scale, top);
        if (e < least) {
            least = e;
            best = scale;
        }
    }
    return best;
}

static float tensor_scale(const float *w, size_t groups, size_t out, size_t in,
                          const double *weight, int top)
{
    const float most = largest(w, groups * out * in);
    float best = candidate(most > 0 ? most : 1, 0, top);
    double least = INFINITY;
    for (int i = 0; i < STEPS && most > 0; i++) {
        const float scale = candidate(most, i, top);
        double e = 0;
        for (size_t r = 0; r < groups * out; r++)
            e += row_error(w + r * in, in, weight ? weight + r / out * in : NULL, scale, top);
        if (e < least) {
            least = e;
            best = scale;
        }
    }
    return best;
}

void clip_scales(const float *w, size_t groups, size_t out, size_t in, const double *weight,
                 int top, bool per_tensor, int n_threads, float *scales)
{
    const size_t rows = groups * out;
    if (per_tensor) {
        const float scale = tensor_scale(w, groups, out, in, weight, top);
        for (size_t r = 0; r < rows; r++)
            scales[r] = scale;
        return;
    }
    const float most = largest(w, rows * in); /* as weight_scales does for channels of zeros */
#pragma omp parallel for num_threads(n_threads) if (n_threads > 1)
    for (size_t r = 0; r < rows; r++)
        scales[r] = row_scale(w + r * in, in, weight ? weight + r / out * in : NULL, top,
                              most > 0 ? most : 1);
}
