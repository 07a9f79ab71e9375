/* Tensors in every storage form: raw bytes, typed fields, strings, external data. */
#include "onnx/parts.h"

#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "raw_data is little-endian");

/* A typed field: items of item_size bytes, of which the low `unit` bytes are the element's. */
typedef struct field {
    const char *name;
    const void *items;
    size_t      n, item_size, unit;
} field;

/* Where ONNX puts elements of a type when not in raw_data. Types under 8 bits are packed to bytes
 * first, so their unit is one byte. */
static field typed_field(const tensor_proto *p, dtype type)
{
    switch (type) {
    case RUNG_F32:
    case RUNG_COMPLEX64:
        return (field){ "float_data", p->float_data, p->n_float_data, 4, 4 };
    case RUNG_F64:
    case RUNG_COMPLEX128:
        return (field){ "double_data", p->double_data, p->n_double_data, 8, 8 };
    case RUNG_I64:
        return (field){ "int64_data", p->int64_data, p->n_int64_data, 8, 8 };
    case RUNG_U64:
        return (field){ "uint64_data", p->uint64_data, p->n_uint64_data, 8, 8 };
    case RUNG_U32:
        return (field){ "uint64_data", p->uint64_data, p->n_uint64_data, 8, 4 };
    case RUNG_I32:
        return (field){ "int32_data", p->int32_data, p->n_int32_data, 4, 4 };
    case RUNG_U16:
    case RUNG_I16:
    case RUNG_F16:
    case RUNG_BF16:
        return (field){ "int32_data", p->int32_data, p->n_int32_data, 4, 2 };
    default:
        return (field){ "int32_data", p->int32_data, p->n_int32_data, 4, 1 };
    }
}

static rung_status wrong_size(const char *name, const tensor *t, const char *where, size_t has,
                              size_t need, rung_error *err)
{
    return fail(err, RUNG_EFORMAT,
                "tensor '%s': %s holds %zu bytes, its dimensions need %zu of type %s", name, where,
                has, need, dtype_name(t->type));
}

/* 6-bit types: an item holds one element, in memory four lie in three bytes. */
static rung_status read_six_bits(reader *r, const tensor_proto *p, const char *name, size_t count,
                                 size_t need, tensor *t, rung_error *err)
{
    if (p->n_int32_data != count)
        return fail(err, RUNG_EFORMAT,
                    "tensor '%s': int32_data holds %zu elements, its dimensions need %zu", name,
                    p->n_int32_data, count);
    unsigned char *data = arena_zero(r->g->mem, need, 1);
    if (!data)
        return fail_memory(err, name, need);
    for (size_t i = 0; i < count; i++) {
        const unsigned v = (unsigned)p->int32_data[i] & 63, shift = i % 4 * 6 % 8;
        unsigned char *at = data + i / 4 * 3 + i % 4 * 6 / 8;
        at[0] |= (unsigned char)(v << shift);
        if (shift > 2)
            at[1] |= (unsigned char)(v >> (8 - shift));
    }
    t->data = data;
    return RUNG_OK;
}

static rung_status read_typed(reader *r, const tensor_proto *p, const char *name, size_t need,
                              tensor *t, rung_error *err)
{
    const field f = typed_field(p, t->type);
    if (f.n != need / f.unit)
        return wrong_size(name, t, f.name, f.n * f.unit, need, err);
    if (f.unit == f.item_size || !f.n) {
        t->data = f.n ? (void *)f.items : arena_alloc(r->g->mem, 0);
        return t->data ? RUNG_OK : fail_memory(err, name, 0);
    }
    unsigned char *data = arena_alloc(r->g->mem, need);
    if (!data)
        return fail_memory(err, name, need);
    for (size_t i = 0; i < f.n; i++)
        memcpy(data + i * f.unit, (const unsigned char *)f.items + i * f.item_size, f.unit);
    t->data = data;
    return RUNG_OK;
}

static rung_status read_strings(reader *r, const tensor_proto *p, const char *name, size_t count,
                                tensor *t, rung_error *err)
{
    if (p->n_string_data != count)
        return fail(err, RUNG_EFORMAT,
                    "tensor '%s': %zu strings are stored, its dimensions need %zu", name,
                    p->n_string_data, count);
    bytes *list = arena_zero(r->g->mem, count, sizeof *list);
    if (!list)
        return fail_memory(err, name, count * sizeof *list);
    for (size_t i = 0; i < count; i++)
        list[i] = proto_bytes(p->string_data[i]);
    t->data = list;
    return RUNG_OK;
}

/* Type and dims, checked so that the size in bytes can be counted. */
static rung_status read_header(const tensor_proto *p, const char *name, tensor *t, size_t *count,
                               rung_error *err)
{
    t->type = (dtype)p->data_type;
    if (t->type == RUNG_UNDEFINED || !dtype_valid(t->type))
        return fail(err, RUNG_EUNSUPPORTED, "tensor '%s' has the unknown element type %d", name,
                    (int)p->data_type);
    if (p->n_dims > RUNG_MAX_RANK)
        return fail(err, RUNG_EUNSUPPORTED,
                    "tensor '%s' has %zu dimensions, at most %d are possible", name, p->n_dims,
                    RUNG_MAX_RANK);
    t->rank = (int)p->n_dims;
    for (int i = 0; i < t->rank; i++)
        t->dims[i] = p->dims[i];
    *count = tensor_count(t);
    if (*count > SIZE_MAX / 2 / sizeof(bytes))
        return fail(err, RUNG_EFORMAT, "tensor '%s': its dimensions are negative or too large",
                    name);
    return RUNG_OK;
}

static rung_status read_data(reader *r, const tensor_proto *p, const char *name, size_t count,
                             tensor *t, rung_error *err)
{
    if (t->type == RUNG_STRING && p->data_location != TENSOR_EXTERNAL)
        return read_strings(r, p, name, count, t, err);
    const size_t need = dtype_bytes(t->type, count);
    if (count > 0 && (need == 0 || need == SIZE_MAX))
        return fail(err, RUNG_EUNSUPPORTED, "tensor '%s': type %s is not read from here", name,
                    dtype_name(t->type));
    if (p->data_location == TENSOR_EXTERNAL) {
        const size_t align = typed_field(p, t->type).unit;
        const void *data;
        const rung_status st = external_read(r, p, name, need, align, &data, err);
        t->data = st == RUNG_OK ? (void *)data : NULL;
        return st;
    }
    if (!p->has_raw_data || (p->raw_data.len == 0 && need > 0)) {
        const bool six = t->type == RUNG_F6E2M3 || t->type == RUNG_F6E3M2;
        return six ? read_six_bits(r, p, name, count, need, t, err)
                   : read_typed(r, p, name, need, t, err);
    }
    if (p->raw_data.len != need)
        return wrong_size(name, t, "raw_data", p->raw_data.len, need, err);
    t->data = need ? p->raw_data.data : arena_alloc(r->g->mem, 0);
    return t->data ? RUNG_OK : fail_memory(err, name, need);
}

rung_status tensor_read(reader *r, const tensor_proto *p, const char *name, const tensor **out,
                        rung_error *err)
{
    tensor *t = arena_zero(r->g->mem, 1, sizeof *t);
    size_t count = 0;
    if (!t)
        return fail_memory(err, name, sizeof *t);
    if (p->has_segment)
        return fail(err, RUNG_EUNSUPPORTED,
                    "tensor '%s' is stored in segments: write the model anew with current tools",
                    name);
    rung_status st = read_header(p, name, t, &count, err);
    if (st == RUNG_OK)
        st = read_data(r, p, name, count, t, err);
    *out = t;
    return st;
}

static bool build_strings(const tensor *t, arena *mem, tensor_proto *p)
{
    const size_t n = tensor_count(t);
    const bytes *list = t->data;
    p->string_data = arena_zero(mem, n, sizeof *p->string_data);
    if (!p->string_data)
        return false;
    p->n_string_data = n;
    for (size_t i = 0; i < n; i++)
        p->string_data[i] = proto_binary(list[i]);
    return true;
}

bool tensor_build(const tensor *t, arena *mem, tensor_proto *p)
{
    p->n_dims = (size_t)t->rank;
    p->dims = (int64_t *)t->dims;
    p->has_data_type = true;
    p->data_type = (int32_t)t->type;
    if (t->type == RUNG_STRING)
        return build_strings(t, mem, p);
    p->has_raw_data = true;
    p->raw_data = proto_binary((bytes){ t->data, dtype_bytes(t->type, tensor_count(t)) });
    return true;
}
