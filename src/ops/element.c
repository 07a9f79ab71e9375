#include "ops/element.h"

#include <math.h>
#include <string.h>

/* Loops over one C type: the switch on the type stays outside. */
#define EACH(op)                                                                                   \
    for (size_t i = 0; i < n; i++) {                                                               \
        op;                                                                                        \
    }

bool int_range(dtype type, int64_t *lo, int64_t *hi)
{
    static const struct {
        dtype   type;
        int64_t lo, hi;
    } ranges[] = {
        {RUNG_U8, 0, UINT8_MAX},          {RUNG_I8, INT8_MIN, INT8_MAX},
        {RUNG_U16, 0, UINT16_MAX},        {RUNG_I16, INT16_MIN, INT16_MAX},
        {RUNG_U32, 0, UINT32_MAX},        {RUNG_I32, INT32_MIN, INT32_MAX},
        {RUNG_U4, 0, 15},                 {RUNG_I4, -8, 7},
        {RUNG_U2, 0, 3},                  {RUNG_I2, -2, 1},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
        if (ranges[i].type == type) {
            *lo = ranges[i].lo;
            *hi = ranges[i].hi;
            return true;
        }
    }
    return false;
}

/* The bits of the integer that v becomes in this type. */
static int64_t saturate(dtype type, double v)
{
    int64_t lo = 0, hi = 0;
    if (isnan(v))
        return 0;
    if (type == RUNG_U64)
        return v <= 0 ? 0 : v >= 0x1p64 ? -1 : (int64_t)(uint64_t)v;
    if (!int_range(type, &lo, &hi)) /* int64 */
        return v < -0x1p63 ? INT64_MIN : v >= 0x1p63 ? INT64_MAX : (int64_t)v;
    return v < (double)lo ? lo : v > (double)hi ? hi : (int64_t)v;
}

void load_doubles(const tensor *t, size_t first, size_t n, double *v)
{
    switch (t->type) {
    case RUNG_F32:
        EACH(v[i] = ((const float *)t->data)[first + i])
        return;
    case RUNG_U8:
        EACH(v[i] = ((const uint8_t *)t->data)[first + i])
        return;
    default:
        EACH(v[i] = tensor_get(t, first + i))
    }
}

void load_ints(const tensor *t, size_t first, size_t n, int64_t *v)
{
    if (dtype_is_float(t->type)) {
        EACH(v[i] = saturate(RUNG_I64, tensor_get(t, first + i)))
    } else {
        EACH(v[i] = tensor_get_int(t, first + i))
    }
}

/* A double rounded half to even to a float of `bits` mantissa bits (with the hidden one) and least
 * normal exponent `low`. Exact: both scalings are powers of two. */
static double round_to(double v, int bits, int low)
{
    if (v == 0 || !isfinite(v))
        return v;
    int e = 0;
    frexp(v, &e); /* |v| in [2^(e-1), 2^e) */
    if (e < low + 1)
        e = low + 1;
    return ldexp(nearbyint(ldexp(v, bits - e)), e - bits);
}

static uint16_t to_half(double v)
{
    const uint16_t sign = signbit(v) ? 0x8000 : 0;
    if (isnan(v))
        return sign | 0x7e00;
    const double a = fabs(round_to(v, 11, -14));
    if (a > 65504)
        return sign | 0x7c00;
    if (a < 0x1p-14)
        return sign | (uint16_t)(a * 0x1p24);
    int e = 0;
    const double m = frexp(a, &e); /* in [0.5, 1) */
    return sign | (uint16_t)((e + 14) << 10) | (uint16_t)((m * 2 - 1) * 1024);
}

static uint16_t to_bfloat(double v)
{
    if (isnan(v))
        return 0x7fc0;
    const float f = (float)round_to(v, 8, -126); /* past the range: infinite */
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return (uint16_t)(bits >> 16);
}

/* Element i of `bits` (4 or 2): the first of a byte is the lowest, and clears the others. */
static void store_packed(tensor *t, size_t i, unsigned bits, int64_t v)
{
    const size_t per_byte = 8 / bits;
    const unsigned shift = (unsigned)(i % per_byte) * bits, mask = ((1u << bits) - 1) << shift;
    uint8_t *byte = (uint8_t *)t->data + i / per_byte;
    const unsigned before = shift == 0 ? 0 : *byte & ~mask;
    *byte = (uint8_t)(before | (((unsigned)v << shift) & mask));
}

void store_doubles(tensor *t, size_t first, size_t n, const double *v)
{
    switch (t->type) {
    case RUNG_F32:
        EACH(((float *)t->data)[first + i] = (float)v[i])
        return;
    case RUNG_F64:
        EACH(((double *)t->data)[first + i] = v[i])
        return;
    case RUNG_F16:
        EACH(((uint16_t *)t->data)[first + i] = to_half(v[i]))
        return;
    case RUNG_BF16:
        EACH(((uint16_t *)t->data)[first + i] = to_bfloat(v[i]))
        return;
    case RUNG_BOOL:
        EACH(((uint8_t *)t->data)[first + i] = v[i] != 0)
        return;
    default:
        for (size_t i = 0; i < n; i++) {
            const int64_t q = saturate(t->type, v[i]);
            store_ints(t, first + i, 1, &q);
        }
    }
}

void store_ints(tensor *t, size_t first, size_t n, const int64_t *v)
{
    switch (t->type) {
    case RUNG_BOOL:
        EACH(((uint8_t *)t->data)[first + i] = v[i] != 0)
        return;
    case RUNG_U8:
    case RUNG_I8:
        EACH(((uint8_t *)t->data)[first + i] = (uint8_t)v[i])
        return;
    case RUNG_U16:
    case RUNG_I16:
        EACH(((uint16_t *)t->data)[first + i] = (uint16_t)v[i])
        return;
    case RUNG_U32:
    case RUNG_I32:
        EACH(((uint32_t *)t->data)[first + i] = (uint32_t)v[i])
        return;
    case RUNG_U64:
    case RUNG_I64:
        EACH(((int64_t *)t->data)[first + i] = v[i])
        return;
    case RUNG_U4:
    case RUNG_I4:
        EACH(store_packed(t, first + i, 4, v[i]))
        return;
    case RUNG_U2:
    case RUNG_I2:
        EACH(store_packed(t, first + i, 2, v[i]))
        return;
    default:
        for (size_t i = 0; i < n; i++) {
            const double d = (double)v[i];
            store_doubles(t, first + i, 1, &d);
        }
    }
}

const float *floats_of(const tensor *t, arena *mem)
{
    if (!t || t->type == RUNG_F32)
        return t ? t->data : NULL;
    const size_t n = tensor_count(t);
    float *v = arena_zero(mem, n ? n : 1, sizeof *v);
    for (size_t i = 0; v && i < n; i++)
        v[i] = (float)tensor_get(t, i);
    return v;
}

float *floats_for(const tensor *t, arena *mem)
{
    const size_t n = tensor_count(t);
    return t->type == RUNG_F32 ? t->data : arena_zero(mem, n ? n : 1, sizeof(float));
}

void floats_done(tensor *t, const float *v)
{
    const size_t n = t->type == RUNG_F32 ? 0 : tensor_count(t);
    for (size_t i = 0; i < n; i++) {
        const double d = v[i];
        store_doubles(t, i, 1, &d);
    }
}

rung_status unsupported_type(dtype type, rung_error *err)
{
    return fail(err, RUNG_EUNSUPPORTED, "cannot compute with %s", dtype_name(type));
}
