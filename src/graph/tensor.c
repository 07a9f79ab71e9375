/* Tensors: sizes, elements, copies. */
#include "graph/graph.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"

/* Bits an element takes; 0: no fixed size (STRING) or not known. */
static const struct {
    const char   *name;
    unsigned char bits;
} types[] = {
    [RUNG_UNDEFINED] = { "undefined", 0 },
    [RUNG_F32] = { "float32", 32 },
    [RUNG_U8] = { "uint8", 8 },
    [RUNG_I8] = { "int8", 8 },
    [RUNG_U16] = { "uint16", 16 },
    [RUNG_I16] = { "int16", 16 },
    [RUNG_I32] = { "int32", 32 },
    [RUNG_I64] = { "int64", 64 },
    [RUNG_STRING] = { "string", 0 },
    [RUNG_BOOL] = { "bool", 8 },
    [RUNG_F16] = { "float16", 16 },
    [RUNG_F64] = { "float64", 64 },
    [RUNG_U32] = { "uint32", 32 },
    [RUNG_U64] = { "uint64", 64 },
    [RUNG_COMPLEX64] = { "complex64", 64 },
    [RUNG_COMPLEX128] = { "complex128", 128 },
    [RUNG_BF16] = { "bfloat16", 16 },
    [RUNG_F8E4M3FN] = { "float8e4m3fn", 8 },
    [RUNG_F8E4M3FNUZ] = { "float8e4m3fnuz", 8 },
    [RUNG_F8E5M2] = { "float8e5m2", 8 },
    [RUNG_F8E5M2FNUZ] = { "float8e5m2fnuz", 8 },
    [RUNG_U4] = { "uint4", 4 },
    [RUNG_I4] = { "int4", 4 },
    [RUNG_F4E2M1] = { "float4e2m1", 4 },
    [RUNG_F8E8M0] = { "float8e8m0", 8 },
    [RUNG_U2] = { "uint2", 2 },
    [RUNG_I2] = { "int2", 2 },
    [RUNG_F6E2M3] = { "float6e2m3", 6 },
    [RUNG_F6E3M2] = { "float6e3m2", 6 },
};
enum { N_TYPES = sizeof types / sizeof *types };

bool dtype_valid(dtype type)
{
    return (unsigned)type < N_TYPES;
}

const char *dtype_name(dtype type)
{
    return dtype_valid(type) ? types[type].name : "an unknown type";
}

bool dtype_is_float(dtype type)
{
    return type == RUNG_F32 || type == RUNG_F16 || type == RUNG_F64 || type == RUNG_BF16;
}

size_t dtype_bytes(dtype type, size_t count)
{
    const unsigned bits = dtype_valid(type) ? types[type].bits : 0;
    size_t whole = 0;
    if (bits >= 8)
        return mul_fits(count, bits / 8, &whole) ? whole : SIZE_MAX;
    if (bits == 0)
        return 0;
    return count / 8 * bits + (count % 8 * bits + 7) / 8;
}

size_t dims_count(int rank, const int64_t *dims)
{
    size_t count = 1;
    for (int i = 0; i < rank; i++)
        if (dims[i] < 0 || !mul_fits(count, (size_t)dims[i], &count))
            return SIZE_MAX;
    return rank < 0 ? SIZE_MAX : count;
}

size_t tensor_count(const tensor *t)
{
    return dims_count(t->rank, t->dims);
}

/* Bytes that data takes, STRING's descriptors counted; SIZE_MAX: does not fit. */
static size_t data_bytes(dtype type, size_t count)
{
    size_t n = 0;
    if (count == SIZE_MAX)
        return SIZE_MAX;
    if (type == RUNG_STRING)
        return mul_fits(count, sizeof(bytes), &n) ? n : SIZE_MAX;
    return dtype_bytes(type, count);
}

tensor *tensor_new(arena *mem, dtype type, int rank, const int64_t *dims)
{
    if (rank < 0 || rank > RUNG_MAX_RANK)
        return NULL;
    const size_t n = data_bytes(type, dims_count(rank, dims));
    tensor *t = n < SIZE_MAX / 2 ? arena_zero(mem, 1, sizeof *t) : NULL;
    if (!t)
        return NULL;
    t->type = type;
    t->rank = rank;
    for (int i = 0; i < rank; i++)
        t->dims[i] = dims[i];
    t->data = arena_alloc(mem, n);
    return t->data ? t : NULL;
}

tensor *tensor_copy(arena *mem, const tensor *t)
{
    tensor *copy = tensor_new(mem, t->type, t->rank, t->dims);
    if (!copy)
        return NULL;
    const size_t count = tensor_count(t), n = data_bytes(t->type, count);
    if (n)
        memcpy(copy->data, t->data, n);
    if (t->type != RUNG_STRING)
        return copy;
    bytes *s = copy->data;
    for (size_t i = 0; i < count; i++) {
        s[i].data = arena_copy(mem, s[i].data, s[i].size);
        if (!s[i].data)
            return NULL;
    }
    return copy;
}

static double from_half(uint16_t h)
{
    const int sign = h >> 15, exponent = (h >> 10) & 31, fraction = h & 1023;
    double v;
    if (exponent == 31)
        v = fraction ? NAN : INFINITY;
    else if (exponent == 0)
        v = ldexp(fraction, -24);
    else
        v = ldexp(1024 + fraction, exponent - 25);
    return sign ? -v : v;
}

static double from_bf16(uint16_t h)
{
    const uint32_t wide = (uint32_t)h << 16;
    float f;
    memcpy(&f, &wide, sizeof f);
    return f;
}

double tensor_get(const tensor *t, size_t i)
{
    switch (t->type) {
    case RUNG_F32:
        return ((const float *)t->data)[i];
    case RUNG_F64:
        return ((const double *)t->data)[i];
    case RUNG_F16:
        return from_half(((const uint16_t *)t->data)[i]);
    case RUNG_BF16:
        return from_bf16(((const uint16_t *)t->data)[i]);
    case RUNG_U64:
        return (double)((const uint64_t *)t->data)[i];
    default:
        return (double)tensor_get_int(t, i);
    }
}

/* A float's integer part; what int64 cannot hold saturates, NaN is 0. */
static int64_t to_int(double v)
{
    if (isnan(v))
        return 0;
    if (v >= 9223372036854775808.0)
        return INT64_MAX;
    return v < -9223372036854775808.0 ? INT64_MIN : (int64_t)v;
}

/* Element i of a type of `bits` < 8, without sign. */
static unsigned packed_bits(const tensor *t, size_t i, unsigned bits)
{
    const size_t per_byte = 8 / bits;
    const unsigned byte = ((const unsigned char *)t->data)[i / per_byte];
    return byte >> (i % per_byte * bits) & ((1u << bits) - 1);
}

int64_t tensor_get_int(const tensor *t, size_t i)
{
    switch (t->type) {
    case RUNG_U8:
    case RUNG_BOOL:
        return ((const uint8_t *)t->data)[i];
    case RUNG_I8:
        return ((const int8_t *)t->data)[i];
    case RUNG_U16:
        return ((const uint16_t *)t->data)[i];
    case RUNG_I16:
        return ((const int16_t *)t->data)[i];
    case RUNG_I32:
        return ((const int32_t *)t->data)[i];
    case RUNG_U32:
        return ((const uint32_t *)t->data)[i];
    case RUNG_I64:
        return ((const int64_t *)t->data)[i];
    case RUNG_U64:
        return (int64_t)((const uint64_t *)t->data)[i];
    case RUNG_U4:
    case RUNG_U2:
        return packed_bits(t, i, t->type == RUNG_U4 ? 4 : 2);
    case RUNG_I4:
        return (int64_t)(packed_bits(t, i, 4) ^ 8u) - 8;
    case RUNG_I2:
        return (int64_t)(packed_bits(t, i, 2) ^ 2u) - 2;
    default:
        return dtype_is_float(t->type) ? to_int(tensor_get(t, i)) : 0;
    }
}
