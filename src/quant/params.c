/* Scale and zero point from a range. */
#include "quant/quant.h"

#include <float.h>
#include <math.h>

static int lowest(dtype type)
{
    return type == RUNG_I8 ? -128 : 0;
}

/* Both halves of zero point and scale are ONNX Runtime's: 255 steps, int8 about 0 with 254. */
static qparams symmetric_params(float lo, float hi, dtype type)
{
    const float top = fmaxf(-lo, hi);
    return type == RUNG_I8 ? (qparams){ top / 127, 0, type }
                           : (qparams){ top / 255 + top / 255, 128, type };
}

static qparams affine_params(float lo, float hi, dtype type)
{
    const float width = hi - lo; /* may overflow */
    qparams p = { isfinite(width) ? width / 255 : hi / 255 - lo / 255, lowest(type), type };
    if (p.scale > 0)
        p.zero = (int)fminf(fmaxf(nearbyintf((float)p.zero - lo / p.scale), (float)p.zero),
                            (float)p.zero + 255);
    return p;
}

qparams qparams_from_range(float lo, float hi, dtype type, bool symmetric, bool *repaired)
{
    *repaired = false;
    lo = fminf(lo, 0); /* NaN too becomes 0 */
    hi = fmaxf(hi, 0);
    if (lo == 0 && hi == 0) { /* any scale holds 0; a small one keeps biases fine */
        hi = 1;
        *repaired = true;
    }
    qparams p = symmetric ? symmetric_params(lo, hi, type) : affine_params(lo, hi, type);
    if (p.scale < FLT_MIN) {
        p = (qparams){ FLT_MIN, lowest(type) + (lo < 0 ? 128 : 0), type };
        *repaired = true;
    }
    return p;
}

uint8_t qparams_quantize(const qparams *p, float x)
{
    const float lo = (float)lowest(p->type);
    const float q = nearbyintf(x / p->scale) + (float)p->zero;
    const float kept = isnan(q) ? (float)p->zero : fminf(fmaxf(q, lo), lo + 255);
    return (uint8_t)(int)kept;
}
