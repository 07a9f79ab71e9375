/* HQQ: Badri and Shaji, "Half-Quadratic Quantization of Large Machine Learning Models", 2023
 * (https://mobiusml.github.io/hqq_blog/).
 *
 * No data is looked at. The error of a block is split off as e, which may have outliers (|e|^p with
 * p < 1), and what is left is fitted: in turns e is shrunk towards zero, and the zero point (of a
 * symmetric type, which has none, the scale) is solved for. Errors are counted in steps of the
 * scale, so that the constants of the paper serve weights of any size. ONNX's zero points are
 * integers; theirs are not: the scale makes up for the rounding at the end. */
#include <float.h>
#include <math.h>

#include "quant/blocks.h"

static const double P = 0.7, BETA = 10, KAPPA = 1.01;
enum { TURNS = 20 };

static double shrink(double r, double beta)
{
    const double size = fabs(r), left = size > 0 ? size - pow(size, P - 1) / beta : 0;
    return left > 0 ? copysign(left, r) : 0;
}

static double code_of(double x, double zero, const block_format *f)
{
    return fmin(fmax(nearbyint(x + zero), f->lo), f->hi);
}

static double finite_or_zero(float x)
{
    return isfinite(x) ? x : 0;
}

/* Zero point (asymmetric) or scale after one turn; scale and zero as they are. */
static double turn(const float *x, size_t n, size_t stride, const block_format *f, double scale,
                   double zero, double beta)
{
    double shift = 0, xq = 0, qq = 0;
    for (size_t i = 0; i < n; i++) {
        const double v = finite_or_zero(x[i * stride]) / scale, q = code_of(v, zero, f);
        const double kept = v - shrink(v - (q - zero), beta);
        shift += q - kept;
        xq += kept * q;
        qq += q * q;
    }
    if (!f->symmetric)
        return shift / (double)n;
    return qq > 0 && xq > 0 ? scale * xq / qq : scale;
}

void block_half_quadratic(const float *x, size_t n, size_t stride, const block_format *f,
                          float *scale, int *zero)
{
    double s = *scale, z = *zero, beta = BETA;
    for (int t = 0; t < TURNS; t++, beta *= KAPPA) {
        const double next = turn(x, n, stride, f, s, z, beta);
        const bool settled = fabs(next - (f->symmetric ? s : z)) < (f->symmetric ? 1e-6 * s : 1e-3);
        *(f->symmetric ? &s : &z) = next;
        if (settled)
            break;
    }
    *scale = (float)fmin(fmax(s, FLT_MIN), FLT_MAX);
    *zero = f->symmetric ? 0 : (int)fmin(fmax(nearbyint(z), f->lo), f->hi);
}
