/* ValueInfoProto <-> value: types, dims, and what is said of them that rung does not know. */
#include "onnx/parts.h"

/* --- reading ---------------------------------------------------------------------------------- */

/* Whether rung's fields can hold this type. */
static bool type_fits(const type_proto *p)
{
    const tensor_type_proto *t = p->tensor_type;
    if (!t || !dtype_valid((dtype)t->elem_type))
        return false;
    return !t->shape || t->shape->n_dim <= RUNG_MAX_RANK;
}

/* The symbol belongs to the message, which lives in the graph's memory. */
static void read_shape(const shape_proto *s, value *v)
{
    v->rank = (int)s->n_dim;
    for (int i = 0; i < v->rank; i++) {
        const dim_proto *d = s->dim[i];
        const bool known = d->has_dim_value && d->dim_value >= 0;
        v->dims[i] = known ? d->dim_value : DIM_UNKNOWN;
        v->symbols[i] = !known && d->dim_param && *d->dim_param ? d->dim_param : NULL;
    }
}

/* Clears what value has fields for. Returns whether something is left (denotations ...). */
static bool strip_type(type_proto *p)
{
    tensor_type_proto *t = p->tensor_type;
    bool left = proto_has_unknown(p) || proto_has_unknown(t);
    t->has_elem_type = false;
    if (!t->shape)
        return left;
    left |= proto_has_unknown(t->shape);
    for (size_t i = 0; i < t->shape->n_dim; i++) {
        dim_proto *d = t->shape->dim[i];
        left |= proto_has_unknown(d);
        d->has_dim_value = false;
        d->dim_param = NULL;
    }
    return left;
}

/* Takes the type out of p, but for what value has no fields for. */
static rung_status read_type(reader *r, value_proto *p, value *v, rung_error *err)
{
    type_proto *type = p->type;
    if (!type_fits(type)) {
        if (type->tensor_type && dtype_valid((dtype)type->tensor_type->elem_type))
            v->type = (dtype)type->tensor_type->elem_type;
        p->type = NULL;
        return proto_keep(type, r->g->mem, &v->type_proto, err);
    }
    if (!v->constant) {
        v->type = (dtype)type->tensor_type->elem_type;
        if (type->tensor_type->shape)
            read_shape(type->tensor_type->shape, v);
    }
    if (!strip_type(type))
        p->type = NULL;
    return RUNG_OK;
}

rung_status value_read(reader *r, value_proto *p, value *v, rung_error *err)
{
    rung_status st = p->type ? read_type(r, p, v, err) : RUNG_OK;
    p->name = NULL;
    if (st == RUNG_OK && (p->type || proto_has_unknown(p)))
        st = proto_keep(p, r->g->mem, &v->extra, err);
    return st == RUNG_OK ? st : fail_at(err, st, "value '%s'", v->name);
}

/* --- building --------------------------------------------------------------------------------- */

static bool build_dims(const value *v, arena *mem, shape_proto *s)
{
    const size_t rank = (size_t)v->rank;
    if (s->n_dim != rank) {
        s->dim = arena_zero(mem, rank, sizeof *s->dim);
        s->n_dim = s->dim ? rank : 0;
        for (size_t i = 0; i < s->n_dim; i++)
            if (!(s->dim[i] = proto_new(DIM_PROTO, mem)))
                return false;
    }
    if (rank && !s->dim)
        return false;
    for (size_t i = 0; i < rank; i++) {
        s->dim[i]->has_dim_value = v->dims[i] >= 0;
        s->dim[i]->dim_value = v->dims[i];
        s->dim[i]->dim_param = v->dims[i] < 0 ? (char *)v->symbols[i] : NULL;
    }
    return true;
}

static bool build_tensor_type(const value *v, arena *mem, type_proto *p)
{
    if (!p->tensor_type && !(p->tensor_type = proto_new(TENSOR_TYPE_PROTO, mem)))
        return false;
    tensor_type_proto *t = p->tensor_type;
    t->has_elem_type = true;
    t->elem_type = (int32_t)v->type;
    if (v->rank < 0) {
        t->shape = NULL;
        return true;
    }
    if (!t->shape && !(t->shape = proto_new(SHAPE_PROTO, mem)))
        return false;
    return build_dims(v, mem, t->shape);
}

value_proto *value_build(const value *v, arena *mem)
{
    value_proto *p = proto_restore(VALUE_PROTO, v->extra, mem);
    if (!p)
        return NULL;
    p->name = (char *)v->name;
    if (v->type_proto.size) {
        p->type = proto_restore(TYPE_PROTO, v->type_proto, mem);
        return p->type ? p : NULL;
    }
    if (v->type == RUNG_UNDEFINED && v->rank < 0)
        return p;
    if (!p->type && !(p->type = proto_new(TYPE_PROTO, mem)))
        return NULL;
    return build_tensor_type(v, mem, p->type) ? p : NULL;
}
