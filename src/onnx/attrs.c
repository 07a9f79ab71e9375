/* AttributeProto <-> attr. */
#include "onnx/parts.h"

#include <string.h>

/* --- reading ---------------------------------------------------------------------------------- */

/* A copy with a NUL behind it. */
static bool copy_string(arena *mem, ProtobufCBinaryData from, bytes *to)
{
    unsigned char *data = arena_alloc(mem, from.len + 1);
    if (!data)
        return false;
    if (from.len)
        memcpy(data, from.data, from.len);
    data[from.len] = '\0';
    *to = (bytes){ data, from.len };
    return true;
}

static rung_status read_strings(reader *r, const attr_proto *p, attr *a, rung_error *err)
{
    bytes *list = arena_zero(r->g->mem, p->n_strings, sizeof *list);
    for (size_t i = 0; list && i < p->n_strings; i++)
        if (!copy_string(r->g->mem, p->strings[i], &list[i]))
            list = NULL;
    if (!list)
        return fail_memory(err, a->name, p->n_strings * sizeof *list);
    a->strings.v = list;
    a->strings.n = p->n_strings;
    return RUNG_OK;
}

static rung_status read_tensor(reader *r, const attr_proto *p, attr *a, rung_error *err)
{
    if (!p->t)
        return fail(err, RUNG_EFORMAT, "attribute '%s' has no tensor", a->name);
    const rung_status st = tensor_read(r, p->t, a->name, &a->t, err);
    /* Its name and the like have no place in a tensor; but a file that is named there may not be
     * beside the model that is written. */
    const bool has_more = proto_has_unknown(p->t) || (p->t->name && *p->t->name);
    const bool kept = has_more && p->t->data_location != TENSOR_EXTERNAL;
    return st == RUNG_OK && kept ? proto_keep(p, r->g->mem, &a->opaque, err) : st;
}

rung_status attr_read(reader *r, attr_proto *p, attr *out, rung_error *err)
{
    *out = (attr){ .name = proto_text(p->name), .kind = (attr_kind)p->type };
    attr *a = out;
    rung_status st = RUNG_OK;
    if (!*a->name)
        return fail(err, RUNG_EFORMAT, "an attribute has no name");
    switch (p->type) {
    case ATTR_FLOAT:
        a->f = p->f;
        break;
    case ATTR_INT:
        a->i = p->i;
        break;
    case ATTR_STRING:
        if (!copy_string(r->g->mem, p->s, &a->s))
            st = fail_memory(err, a->name, p->s.len);
        break;
    case ATTR_TENSOR:
        st = read_tensor(r, p, a, err);
        break;
    case ATTR_GRAPH:
        a->s = proto_bytes(p->g);
        break;
    case ATTR_FLOATS:
        a->floats.v = p->floats;
        a->floats.n = p->n_floats;
        break;
    case ATTR_INTS:
        a->ints.v = p->ints;
        a->ints.n = p->n_ints;
        break;
    case ATTR_STRINGS:
        st = read_strings(r, p, a, err);
        break;
    default:
        if (!p->has_type)
            return fail(err, RUNG_EFORMAT, "attribute '%s' has no type", a->name);
        a->kind = ATTR_OPAQUE;
        return proto_keep(p, r->g->mem, &a->opaque, err);
    }
    return st == RUNG_OK && proto_has_unknown(p) ? proto_keep(p, r->g->mem, &a->opaque, err) : st;
}

/* --- building --------------------------------------------------------------------------------- */

static bool build_strings(const attr *a, arena *mem, attr_proto *p)
{
    p->strings = arena_zero(mem, a->strings.n, sizeof *p->strings);
    if (!p->strings)
        return false;
    p->n_strings = a->strings.n;
    for (size_t i = 0; i < p->n_strings; i++)
        p->strings[i] = proto_binary(a->strings.v[i]);
    return true;
}

static bool build_tensor(const attr *a, arena *mem, attr_proto *p)
{
    p->t = proto_new(TENSOR_PROTO, mem);
    return p->t && tensor_build(a->t, mem, p->t);
}

static bool build_content(const attr *a, arena *mem, attr_proto *p)
{
    switch (a->kind) {
    case ATTR_FLOAT:
        p->has_f = true;
        p->f = a->f;
        return true;
    case ATTR_INT:
        p->has_i = true;
        p->i = a->i;
        return true;
    case ATTR_STRING:
        p->has_s = true;
        p->s = proto_binary(a->s);
        return true;
    case ATTR_TENSOR:
        return build_tensor(a, mem, p);
    case ATTR_GRAPH:
        p->has_g = true;
        p->g = proto_binary(a->s);
        return true;
    case ATTR_FLOATS:
        p->floats = (float *)a->floats.v;
        p->n_floats = a->floats.n;
        return true;
    case ATTR_INTS:
        p->ints = (int64_t *)a->ints.v;
        p->n_ints = a->ints.n;
        return true;
    case ATTR_STRINGS:
        return build_strings(a, mem, p);
    case ATTR_OPAQUE:
        break; /* is its bytes */
    }
    return true;
}

attr_proto *attr_build(const attr *a, arena *mem)
{
    attr_proto *p = proto_restore(ATTR_PROTO, a->opaque, mem);
    if (!p || a->opaque.size)
        return p;
    p->name = (char *)a->name;
    p->has_type = true;
    p->type = (int32_t)a->kind;
    return build_content(a, mem, p) ? p : NULL;
}
