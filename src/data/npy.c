#include "data/npy.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"

static const char magic[] = "\x93NUMPY";
enum { MAGIC_BYTES = 6, HEADER_UNIT = 64 };

static const struct npy_type {
    rung_dtype type;
    size_t bytes;
    const char *descr; /* behind the byte order: kind and size */
} types[] = {
    {RUNG_BOOL, 1, "b1"}, {RUNG_I8, 1, "i1"},  {RUNG_U8, 1, "u1"},  {RUNG_I16, 2, "i2"},
    {RUNG_U16, 2, "u2"},  {RUNG_I32, 4, "i4"}, {RUNG_U32, 4, "u4"}, {RUNG_I64, 8, "i8"},
    {RUNG_U64, 8, "u8"},  {RUNG_F16, 2, "f2"}, {RUNG_F32, 4, "f4"}, {RUNG_F64, 8, "f8"},
};
enum { N_TYPES = sizeof types / sizeof *types };

static const struct npy_type *type_row(rung_dtype type)
{
    for (size_t i = 0; i < N_TYPES; i++)
        if (types[i].type == type)
            return &types[i];
    return NULL;
}

size_t npy_item_bytes(rung_dtype type)
{
    const struct npy_type *row = type_row(type);
    return row ? row->bytes : 0;
}

/* The header is a Python dict of three keys in any order; only what NumPy writes is read. */
typedef struct parser {
    const char *at, *end;
    bool has_descr, has_order, has_shape;
    rung_tensor t;
    rung_error *err;
} parser;

static rung_status bad_header(const parser *p, const char *what)
{
    return fail(p->err, RUNG_EFORMAT, "npy header: %s", what);
}

static void skip_spaces(parser *p)
{
    while (p->at < p->end && (*p->at == ' ' || *p->at == '\n'))
        p->at++;
}

/* Takes the character c, if it is next. */
static bool take(parser *p, char c)
{
    skip_spaces(p);
    if (p->at == p->end || *p->at != c)
        return false;
    p->at++;
    return true;
}

static bool take_word(parser *p, const char *word)
{
    const size_t n = strlen(word);
    skip_spaces(p);
    if ((size_t)(p->end - p->at) < n || memcmp(p->at, word, n) != 0)
        return false;
    p->at += n;
    return true;
}

/* A quoted string without escapes into text, cut when too long for the words that we know. */
static rung_status read_string(parser *p, char *text, size_t size)
{
    const char quote = take(p, '\'') ? '\'' : '"';
    if (quote == '"' && !take(p, '"'))
        return bad_header(p, "expected a string");
    size_t n = 0;
    for (; p->at < p->end && *p->at != quote; p->at++)
        if (n + 1 < size)
            text[n++] = *p->at;
    text[n] = '\0';
    return take(p, quote) ? RUNG_OK : bad_header(p, "a string does not end");
}

static rung_status read_descr(parser *p)
{
    char text[32];
    if (take(p, '['))
        return fail(p->err, RUNG_EUNSUPPORTED, "a structured array; save its columns as arrays");
    rung_status st = read_string(p, text, sizeof text);
    if (st != RUNG_OK)
        return st;
    const bool has_order = text[0] && strchr("<>|=", text[0]);
    for (size_t i = 0; i < N_TYPES && p->t.type == RUNG_UNDEFINED; i++)
        if (strcmp(text + has_order, types[i].descr) == 0)
            p->t.type = types[i].type;
    if (p->t.type == RUNG_UNDEFINED)
        return fail(p->err, RUNG_EUNSUPPORTED,
                    "elements of type \"%s\"; bool, integers and floats of 16 to 64 bits are read",
                    text);
    if (text[0] == '>' && npy_item_bytes(p->t.type) > 1)
        return fail(p->err, RUNG_EUNSUPPORTED,
                    "elements of type \"%s\" are big-endian; save it as little-endian, \"<%s\"",
                    text, text + 1);
    return RUNG_OK;
}

static rung_status read_order(parser *p, bool *fortran)
{
    *fortran = take_word(p, "True");
    if (!*fortran && !take_word(p, "False"))
        return bad_header(p, "fortran_order is neither True nor False");
    return RUNG_OK;
}

static rung_status read_dim(parser *p, int64_t *out)
{
    int64_t v = 0;
    skip_spaces(p);
    const char *start = p->at;
    for (; p->at < p->end && *p->at >= '0' && *p->at <= '9'; p->at++) {
        if (v > (INT64_MAX - 9) / 10)
            return bad_header(p, "a dimension is too large");
        v = v * 10 + (*p->at - '0');
    }
    *out = v;
    return p->at > start ? RUNG_OK : bad_header(p, "expected a dimension");
}

static rung_status read_shape(parser *p)
{
    if (!take(p, '('))
        return bad_header(p, "shape is not a tuple");
    while (!take(p, ')')) {
        if (p->t.rank == RUNG_MAX_RANK)
            return fail(p->err, RUNG_EUNSUPPORTED, "more than %d dimensions", RUNG_MAX_RANK);
        rung_status st = read_dim(p, &p->t.dims[p->t.rank++]);
        if (st != RUNG_OK)
            return st;
        if (!take(p, ',') && (p->at == p->end || *p->at != ')'))
            return bad_header(p, "shape does not end");
    }
    return RUNG_OK;
}

static rung_status read_key(parser *p, bool *fortran)
{
    char key[32];
    rung_status st = read_string(p, key, sizeof key);
    if (st == RUNG_OK && !take(p, ':'))
        return bad_header(p, "expected a colon");
    if (st != RUNG_OK)
        return st;
    if (strcmp(key, "descr") == 0 && !p->has_descr) {
        p->has_descr = true;
        return read_descr(p);
    }
    if (strcmp(key, "fortran_order") == 0 && !p->has_order) {
        p->has_order = true;
        return read_order(p, fortran);
    }
    if (strcmp(key, "shape") == 0 && !p->has_shape) {
        p->has_shape = true;
        return read_shape(p);
    }
    return fail(p->err, RUNG_EFORMAT, "npy header: the key \"%s\" is unknown or there twice", key);
}

static rung_status read_dict(parser *p)
{
    bool fortran = false;
    if (!take(p, '{'))
        return bad_header(p, "it is not a dict");
    while (!take(p, '}')) {
        rung_status st = read_key(p, &fortran);
        if (st != RUNG_OK)
            return st;
        skip_spaces(p);
        if (!take(p, ',') && (p->at == p->end || *p->at != '}'))
            return bad_header(p, "it does not end");
    }
    if (!p->has_descr || !p->has_order || !p->has_shape)
        return bad_header(p, "descr, fortran_order or shape is missing");
    if (fortran && p->t.rank > 1)
        return fail(p->err, RUNG_EUNSUPPORTED,
                    "the array is in Fortran order; save it with numpy.ascontiguousarray");
    return RUNG_OK;
}

/* Elements and bytes of t, or false when they do not fit. */
static bool tensor_bytes(const rung_tensor *t, size_t *count, size_t *bytes)
{
    *count = 1;
    for (int i = 0; i < t->rank; i++)
        if (t->dims[i] < 0 || !mul_fits(*count, (size_t)t->dims[i], count))
            return false;
    return mul_fits(*count, npy_item_bytes(t->type), bytes);
}

static rung_status check_data(parser *p, size_t have)
{
    size_t count, bytes;
    if (!tensor_bytes(&p->t, &count, &bytes))
        return bad_header(p, "the shape is too large");
    if (have != bytes)
        return fail(p->err, RUNG_EFORMAT, "the array needs %zu bytes behind its header, but %s %zu",
                    bytes, have < bytes ? "the file is truncated: it has" : "the file has", have);
    const unsigned char *v = p->t.data;
    for (size_t i = 0; p->t.type == RUNG_BOOL && i < count; i++)
        if (v[i] > 1)
            return fail(p->err, RUNG_EFORMAT, "element %zu of a bool array is %d", i, v[i]);
    return RUNG_OK;
}

rung_status npy_view(const unsigned char *bytes, size_t n, rung_tensor *out, rung_error *err)
{
    if (n < MAGIC_BYTES || memcmp(bytes, magic, MAGIC_BYTES) != 0)
        return fail(err, RUNG_EFORMAT, "not a .npy file");
    const int version = n > MAGIC_BYTES ? bytes[MAGIC_BYTES] : 1;
    if (version < 1 || version > 3)
        return fail(err, RUNG_EUNSUPPORTED, "npy format %d; 1 to 3 are read", version);
    const size_t start = version == 1 ? 10 : 12;
    size_t length = 0;
    for (size_t i = start; n >= start && i > MAGIC_BYTES + 2; i--)
        length = length << 8 | bytes[i - 1];
    if (n < start || length > n - start)
        return fail(err, RUNG_EFORMAT, "the file is truncated within its header");
    const char *text = (const char *)bytes + start;
    parser p = {.at = text, .end = text + length, .err = err};
    rung_status st = read_dict(&p);
    if (st != RUNG_OK)
        return st;
    p.t.data = (void *)(uintptr_t)(bytes + start + length);
    st = check_data(&p, n - start - length);
    *out = p.t;
    return st;
}

rung_status npy_read_file(const char *path, arena *mem, rung_tensor *out, rung_error *err)
{
    file_map map;
    rung_status st = file_map_open(path, &map, err);
    if (st != RUNG_OK)
        return st;
    st = npy_view(map.data, map.size, out, err);
    if (st == RUNG_OK) {
        size_t count, bytes;
        tensor_bytes(out, &count, &bytes);
        out->data = arena_copy(mem, out->data, bytes);
        if (!out->data)
            st = fail_memory(err, "an array", bytes);
    }
    file_map_close(&map);
    return st == RUNG_OK ? st : fail_at(err, st, "%s", path);
}

/* The header of t, padded so that the data is aligned. Returns its length. */
static size_t make_header(const rung_tensor *t, const struct npy_type *row, char *text, size_t size)
{
    int n = snprintf(text, size, "%s%c%c%c%c{'descr': '%c%s', 'fortran_order': False, 'shape': (",
                     magic, 1, 0, 0, 0, row->bytes == 1 ? '|' : '<', row->descr);
    for (int i = 0; i < t->rank; i++)
        n += snprintf(text + n, size - (size_t)n, "%lld%s", (long long)t->dims[i],
                      t->rank == 1      ? ","
                      : i + 1 < t->rank ? ", "
                                        : "");
    n += snprintf(text + n, size - (size_t)n, "), }");
    while ((n + 1) % HEADER_UNIT)
        text[n++] = ' ';
    text[n++] = '\n';
    text[MAGIC_BYTES + 2] = (char)((n - 10) & 0xff);
    text[MAGIC_BYTES + 3] = (char)((n - 10) >> 8);
    return (size_t)n;
}

rung_status npy_write_file(const char *path, const rung_tensor *t, rung_error *err)
{
    const struct npy_type *row = type_row(t->type);
    size_t count, bytes;
    if (!row)
        return fail(err, RUNG_EUNSUPPORTED, "%s: .npy has no element type for ONNX's type %d", path,
                    (int)t->type);
    if (t->rank < 0 || t->rank > RUNG_MAX_RANK || !tensor_bytes(t, &count, &bytes))
        return fail(err, RUNG_EARGUMENT, "%s: the tensor's shape is not valid", path);
    char header[512]; /* 8 dimensions of 19 digits fit */
    const size_t n = make_header(t, row, header, sizeof header);
    file_writer *w;
    rung_status st = file_writer_open(path, &w, err);
    if (st != RUNG_OK)
        return st;
    st = file_write(w, header, n, err);
    if (st == RUNG_OK)
        st = file_write(w, t->data, bytes, err);
    if (st == RUNG_OK)
        return file_writer_commit(w, err);
    file_writer_abort(w);
    return st;
}
