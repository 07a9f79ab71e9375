#include "quant/blocks.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* Clips that are tried: the full range times 1 - step * i. Four bits gain from clipping up to a
 * third of the range away; finer steps give less than 0.01 dB more. */
enum { CANDIDATES = 24 };
static const float STEP = 1.0f / 64;

block_format block_format_of(dtype type, bool search)
{
    switch (type) {
    case RUNG_I4: return (block_format){ -7, 7, true, search, false };
    case RUNG_U4: return (block_format){ 0, 15, false, search, false };
    case RUNG_U8: return (block_format){ 0, 255, false, search, false };
    default: return (block_format){ -127, 127, true, search, false };
    }
}

static float finite_or_zero(float x)
{
    return isfinite(x) ? x : 0;
}

static int code_of(float x, float scale, int zero, const block_format *f)
{
    const float q = nearbyintf(finite_or_zero(x) / scale) + (float)zero;
    return (int)fminf(fmaxf(q, (float)f->lo), (float)f->hi);
}

/* A block's numbers while it is fitted. */
typedef struct fit {
    const float        *x;
    size_t              n, stride;
    const block_format *f;
} fit;

/* The squared error at these parameters; *best: the scale of least squares for the codes. */
static double error_at(const fit *b, float scale, int zero, float *best)
{
    double error = 0, xq = 0, qq = 0;
    for (size_t i = 0; i < b->n; i++) {
        const float x = finite_or_zero(b->x[i * b->stride]);
        const double q = code_of(x, scale, zero, b->f) - zero, d = x - q * scale;
        error += d * d;
        xq += x * q;
        qq += q * q;
    }
    *best = qq > 0 && xq > 0 ? (float)(xq / qq) : scale;
    return error;
}

static float usable(float scale)
{
    return fminf(fmaxf(scale, FLT_MIN), FLT_MAX);
}

static void from_range(const fit *b, float lo, float hi, float *scale, int *zero)
{
    if (b->f->symmetric) {
        *scale = usable(fmaxf(-lo, hi) / (float)b->f->hi);
        *zero = 0;
        return;
    }
    /* Halves, as the difference of two finite numbers need not be finite. */
    *scale = usable((hi / 2 - lo / 2) / ((float)(b->f->hi - b->f->lo) / 2));
    *zero = (int)fminf(fmaxf(nearbyintf((float)b->f->lo - lo / *scale), (float)b->f->lo),
                       (float)b->f->hi);
}

static void consider(const fit *b, float scale, int zero, float *scale_out, int *zero_out,
                     double *least)
{
    float better, unused;
    double error = error_at(b, scale, zero, &better);
    better = usable(better);
    const double refined = error_at(b, better, zero, &unused);
    if (refined < error) {
        error = refined;
        scale = better;
    }
    if (error < *least) {
        *least = error;
        *scale_out = scale;
        *zero_out = zero;
    }
}

double block_quantize(const float *x, size_t n, size_t stride, const block_format *f, float *scale,
                      int *zero, int8_t *q)
{
    const fit b = { x, n, stride, f };
    float lo = 0, hi = 0, unused;
    for (size_t i = 0; i < n; i++) {
        lo = fminf(lo, finite_or_zero(x[i * stride]));
        hi = fmaxf(hi, finite_or_zero(x[i * stride]));
    }
    from_range(&b, lo, hi, scale, zero);
    double least = error_at(&b, *scale, *zero, &unused);
    for (int i = 0; f->search && i < CANDIDATES && least > 0; i++) {
        const float keep = 1 - STEP * (float)i;
        float s;
        int z;
        from_range(&b, lo * keep, hi * keep, &s, &z);
        consider(&b, s, z, scale, zero, &least);
    }
    if (f->half_quadratic && least > 0) {
        float s = *scale;
        int z = *zero;
        block_half_quadratic(x, n, stride, f, &s, &z);
        consider(&b, s, z, scale, zero, &least);
    }
    for (size_t i = 0; i < n; i++)
        q[i] = (int8_t)code_of(x[i * stride], *scale, *zero, f);
    return least;
}

size_t blocks_quantize(const tensor *w, int axis, size_t block, const block_format *f,
                       float *scales, int8_t *zeros, int8_t *codes, int8_t *scratch)
{
    const size_t length = (size_t)w->dims[axis], outer = dims_count(axis, w->dims);
    const size_t inner = dims_count(w->rank - axis - 1, w->dims + axis + 1);
    const float *x = w->data;
    size_t bad = 0, at = 0;
    for (size_t o = 0; o < outer; o++)
        for (size_t first = 0; first < length; first += block)
            for (size_t i = 0; i < inner; i++, at++) {
                const size_t from = (o * length + first) * inner + i;
                const size_t n = length - first < block ? length - first : block;
                int zero = 0;
                block_quantize(x + from, n, inner, f, &scales[at], &zero, scratch);
                for (size_t k = 0; k < n; k++) {
                    codes[from + k * inner] = scratch[k];
                    bad += !isfinite(x[from + k * inner]);
                }
                if (zeros)
                    zeros[at] = (int8_t)zero;
            }
    return bad;
}
