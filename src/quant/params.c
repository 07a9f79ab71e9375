/* Scale and zero point from a range. */
#include "quant/quant.h"

#include <float.h>
#include <math.h>

int qparams_lowest(const qparams *p)
{
    return p->type == RUNG_I8 || p->type == RUNG_I16 ? -(1 << (p->bits - 1)) : 0;
}

int qparams_highest(const qparams *p)
{
    return qparams_lowest(p) + (1 << p->bits) - 1;
}

/* Both halves of zero point and scale are ONNX Runtime's: 255 steps of 8 bits, int8 about 0 with
 * 254; 16 bits likewise. */
static qparams symmetric_params(float lo, float hi, dtype type, int bits)
{
    const float top = fmaxf(-lo, hi), middle = (float)(1 << (bits - 1));
    return type == RUNG_I8 || type == RUNG_I16
               ? (qparams){ top / (middle - 1), 0, type, bits }
               : (qparams){ top / (2 * middle - 1) + top / (2 * middle - 1), (int)middle, type,
                            bits };
}

static qparams affine_params(float lo, float hi, dtype type, int bits)
{
    const float width = hi - lo, steps = (float)((1 << bits) - 1); /* width may overflow */
    qparams p = { isfinite(width) ? width / steps : hi / steps - lo / steps, 0, type, bits };
    p.zero = qparams_lowest(&p);
    if (p.scale > 0)
        p.zero = (int)fminf(fmaxf(nearbyintf((float)p.zero - lo / p.scale), (float)p.zero),
                            (float)p.zero + steps);
    return p;
}

qparams qparams_from_range(float lo, float hi, dtype type, int bits, bool symmetric,
                           bool *repaired)
{
    *repaired = false;
    lo = fminf(lo, 0); /* NaN too becomes 0 */
    hi = fmaxf(hi, 0);
    if (lo == 0 && hi == 0) { /* any scale holds 0; a small one keeps biases fine */
        hi = 1;
        *repaired = true;
    }
    qparams p = symmetric ? symmetric_params(lo, hi, type, bits)
                          : affine_params(lo, hi, type, bits);
    if (p.scale < FLT_MIN) {
        p.scale = FLT_MIN;
        p.zero = qparams_lowest(&p) + (lo < 0 ? 1 << (bits - 1) : 0);
        *repaired = true;
    }
    return p;
}

int qparams_code(const qparams *p, float x)
{
    const float lo = (float)qparams_lowest(p), hi = (float)qparams_highest(p);
    const float q = nearbyintf(x / p->scale) + (float)p->zero;
    const float kept = isnan(q) ? (float)p->zero : fminf(fmaxf(q, lo), hi);
    return (int)kept;
}

uint8_t qparams_quantize(const qparams *p, float x)
{
    return (uint8_t)qparams_code(p, x);
}
