/* Steps made of strided copies, and the operators that are one copy or one copy an operand. */
#include "ops/lower_move.h"

#include <stdlib.h>
#include <string.h>

#include "ops/lower_wide.h"
#include "ops/move.h"

/* --- running --------------------------------------------------------------------------------- */

/* Bytes of a code that is changed on its way. */
static int code_size(const move_part *p, bool from)
{
    const rescale_q *r = p->rescale;
    return 1 + (r ? (from ? r->x_wide : r->y_wide) : p->flip);
}

/* n codes in a row; distances in elements. */
static void map_codes(const move_part *p, const char *x, int64_t xs, char *y, int64_t ys, size_t n)
{
    const bool close = xs == 1 && ys == 1;
    if (p->table && close)
        KERNEL_PICK(table_u8)->run((const uint8_t *)x, n, p->table, (uint8_t *)y);
    else if (p->table)
        for (int64_t i = 0; i < (int64_t)n; i++)
            ((uint8_t *)y)[i * ys] = p->table[((const uint8_t *)x)[i * xs]];
    else if (p->flip)
        for (int64_t i = 0; i < (int64_t)n; i++)
            ((uint16_t *)(void *)y)[i * ys] = ((const uint16_t *)(const void *)x)[i * xs] ^ 0x8000;
    else if (close)
        KERNEL_PICK(rescale_wide)->run(x, n, p->rescale, y);
    else
        for (int64_t i = 0; i < (int64_t)n; i++)
            rescale_wide[0].run(x + i * xs * (1 << p->rescale->x_wide), 1, p->rescale,
                                y + i * ys * (1 << p->rescale->y_wide));
}

/* copy_strided that changes codes on the way: rows of the last axis, shared by threads. */
static void copy_mapped(const move_part *p, const char *x, char *y, int thread, int n_threads)
{
    const copy_shape *c = &p->shape;
    const int last = c->rank - 1;
    size_t rows = 1, first, end;
    for (int i = 0; i < last; i++)
        rows *= (size_t)c->dims[i];
    const int64_t n = last < 0 ? 1 : c->dims[last];
    const int64_t xs = last < 0 ? 1 : c->x_strides[last], ys = last < 0 ? 1 : c->y_strides[last];
    kernel_share(rows, 1, thread, n_threads, &first, &end);
    for (size_t row = first; row < end; row++) {
        size_t rest = row;
        int64_t from = 0, to = 0;
        for (int i = last - 1; i >= 0; i--) {
            const int64_t k = (int64_t)(rest % (size_t)c->dims[i]);
            rest /= (size_t)c->dims[i];
            from += k * c->x_strides[i];
            to += k * c->y_strides[i];
        }
        map_codes(p, x + from * code_size(p, true), xs, y + to * code_size(p, false), ys,
                  (size_t)n);
    }
}

static void run_move(const step *s, void *const *bufs, void *scratch, int thread, int n_threads)
{
    const move_step *m = s->params;
    for (int i = 0; i < m->n_parts; i++) {
        const move_part *p = &m->parts[i];
        const bool mapped = p->table || p->rescale || p->flip;
        const size_t elem = (size_t)p->shape.elem;
        const char *x = p->in < 0 ? (const char *)m->fill : (const char *)bufs[p->in];
        const char *from = x + p->x_offset * (mapped ? (size_t)code_size(p, true) : elem);
        char *to = (char *)bufs[p->out] + p->y_offset * elem;
        if (mapped)
            copy_mapped(p, from, to, thread, n_threads);
        else
            copy_strided(&p->shape, from, to, thread, n_threads);
    }
}

/* --- building -------------------------------------------------------------------------------- */

rung_status mover_begin(mover *b, const lowering *l, rung_error *err)
{
    *b = (mover){.l = l, .m = arena_zero(l->mem, 1, sizeof *b->m)};
    if (!b->m)
        return fail_memory(err, "a step", sizeof *b->m);
    b->elem = movable_size(l->out[0].type);
    return b->elem ? RUNG_OK
                   : fail(err, RUNG_EUNSUPPORTED, "cannot move elements of type %s",
                          dtype_name(l->out[0].type));
}

static rung_status part_rescale(const lowering *l, const operand *x, const operand *y,
                                move_part *p, rung_error *err)
{
    if (x->constant && (x->type == RUNG_I8 || x->type == RUNG_I16))
        return fail(err, RUNG_EUNSUPPORTED, "its constant '%s' is of a signed type", x->name);
    const rescale_q q = rescale_of(l, x, y);
    if (operand_same_params(x, y) && q.lo == 0 && q.hi == stored_top(y))
        return RUNG_OK;
    p->rescale = arena_copy(l->mem, &q, sizeof q);
    return p->rescale ? RUNG_OK : fail_memory(err, "a step", sizeof q);
}

/* What changes the codes of one operand into those of another; nothing where they stay. */
static rung_status part_codes(const lowering *l, const operand *x, const operand *y, move_part *p,
                              rung_error *err)
{
    if (x->quantized != y->quantized || (x->constant && x->quantized && x->n_scales != 1))
        return fail(err, RUNG_EUNSUPPORTED, "its operand '%s' is not quantized per tensor",
                    x->name);
    if (x->quantized && (operand_is_wide(x) || operand_is_wide(y)))
        return part_rescale(l, x, y, p, err);
    const bool codes = (x->type == RUNG_U8 || x->type == RUNG_I8) && y->type == RUNG_U8;
    if (x->type != y->type && !codes)
        return fail(err, RUNG_EUNSUPPORTED, "its operand '%s' has another type", x->name);
    if (!x->quantized)
        return RUNG_OK;
    uint8_t table[256];
    if (!requantize_table(x, y, l->q_lo, l->q_hi, table))
        return RUNG_OK;
    p->table = arena_copy(l->mem, table, sizeof table);
    return p->table ? RUNG_OK : fail_memory(err, "a table", sizeof table);
}

rung_status mover_add(mover *b, int in, int out, int64_t x_offset, int64_t y_offset, int rank,
                      const int64_t *dims, const int64_t *x_strides, const int64_t *y_strides,
                      rung_error *err)
{
    const lowering *l = b->l;
    move_part p = {.in = in,
                   .out = l->n_in + out,
                   .x_offset = (size_t)x_offset,
                   .y_offset = (size_t)y_offset,
                   .shape = {.elem = (int)b->elem}};
    if (in >= 0) {
        const rung_status st = part_codes(l, &l->in[in], &l->out[out], &p, err);
        if (st != RUNG_OK)
            return st;
    }
    for (int i = 0; i < rank; i++) {
        if (dims[i] == 0)
            return RUNG_OK;
        if (dims[i] == 1)
            continue;
        if (p.shape.rank == COPY_MAX_RANK)
            return fail(err, RUNG_EUNSUPPORTED, "too many axes for one copy");
        p.shape.dims[p.shape.rank] = dims[i];
        p.shape.x_strides[p.shape.rank] = in < 0 ? 0 : x_strides[i];
        p.shape.y_strides[p.shape.rank++] = y_strides[i];
    }
    copy_shape_normalise(&p.shape);
    move_part *grown =
        arena_grow(l->mem, b->m->parts, &b->cap, (size_t)b->m->n_parts + 1, sizeof *grown);
    if (!grown)
        return fail_memory(err, "a step", sizeof *grown);
    b->m->parts = grown;
    grown[b->m->n_parts++] = p;
    return RUNG_OK;
}

static bool is_view(const mover *b)
{
    const move_part *p = &b->m->parts[0];
    if (b->m->n_parts != 1 || p->in != 0 || p->table || p->rescale || p->flip ||
        p->x_offset || p->y_offset ||
        b->l->n_out != 1 || stored_count(&b->l->in[0]) != stored_count(&b->l->out[0]))
        return false;
    int64_t stride = 1;
    for (int i = p->shape.rank - 1; i >= 0; i--) {
        if (p->shape.x_strides[i] != stride || p->shape.y_strides[i] != stride)
            return false;
        stride *= p->shape.dims[i];
    }
    return (size_t)stride == stored_count(&b->l->out[0]);
}

rung_status mover_end(mover *b, const char *kernel, step *s, rung_error *err)
{
    *s = (step){.kernel = kernel, .run = run_move, .params = b->m, .view = is_view(b)};
    return RUNG_OK;
}

/* --- operators ------------------------------------------------------------------------------- */

/* The whole of in[0] to out[0], both of the same ONNX dims. */
static rung_status whole(mover *b, rung_error *err)
{
    const operand *x = &b->l->in[0], *y = &b->l->out[0];
    int64_t xs[RUNG_MAX_RANK], ys[RUNG_MAX_RANK];
    stored_strides(x, xs);
    stored_strides(y, ys);
    return mover_add(b, 0, 0, 0, 0, y->rank, y->dims, xs, ys, err);
}

rung_status lower_convert(const lowering *l, step *s, rung_error *err)
{
    mover b;
    rung_status st = mover_begin(&b, l, err);
    if (st != RUNG_OK)
        return st;
    const dtype from = l->in[0].type, to = l->out[0].type;
    operand x = l->in[0], y = l->out[0];
    x.type = y.type; /* the sign is changed by the table below */
    x.quantized = y.quantized = false;
    lowering same = *l;
    same.in = &x;
    same.out = &y;
    b.l = &same;
    if ((st = whole(&b, err)) != RUNG_OK)
        return st;
    if (from != to && b.m->n_parts && b.elem == 2) {
        b.m->parts[0].flip = true;
    } else if (from != to && b.m->n_parts) {
        uint8_t *table = arena_alloc(l->mem, 256);
        if (!table)
            return fail_memory(err, "a table", 256);
        for (int i = 0; i < 256; i++)
            table[i] = (uint8_t)(i ^ 0x80);
        b.m->parts[0].table = table;
    }
    st = mover_end(&b, from != to ? "change sign" : "change layout", s, err);
    b.l = NULL;
    return st;
}

rung_status lower_view(const lowering *l, step *s, rung_error *err)
{
    mover b;
    rung_status st = mover_begin(&b, l, err);
    if (st != RUNG_OK)
        return st;
    const operand *x = &l->in[0], *y = &l->out[0];
    const bool alike = x->channels_last == y->channels_last;
    if (!alike || (x->channels_last && x->rank != y->rank) || stored_count(x) != stored_count(y))
        return fail(err, RUNG_EUNSUPPORTED, "its layouts differ");
    const int64_t count = (int64_t)stored_count(y), one = 1;
    st = mover_add(&b, 0, 0, 0, 0, 1, &count, &one, &one, err);
    return st == RUNG_OK ? mover_end(&b, "copy", s, err) : st;
}

rung_status lower_transpose(const lowering *l, step *s, rung_error *err)
{
    const operand *x = &l->in[0], *y = &l->out[0];
    int perm[RUNG_MAX_RANK];
    int64_t xs[RUNG_MAX_RANK], ys[RUNG_MAX_RANK], walk[RUNG_MAX_RANK];
    mover b;
    rung_status st = mover_begin(&b, l, err);
    if (st != RUNG_OK || (st = perm_of(l->n, x->rank, perm, err)) != RUNG_OK)
        return st;
    stored_strides(x, xs);
    stored_strides(y, ys);
    for (int i = 0; i < y->rank; i++)
        walk[i] = xs[perm[i]];
    st = mover_add(&b, 0, 0, 0, 0, y->rank, y->dims, walk, ys, err);
    return st == RUNG_OK ? mover_end(&b, "transpose", s, err) : st;
}

static const tensor *constant_at(const lowering *l, int i)
{
    return i < l->n_in && !operand_absent(&l->in[i]) ? l->in[i].constant : NULL;
}

/* Whether inputs first.. are constant where they are there. */
static rung_status need_constants(const lowering *l, int first, rung_error *err)
{
    for (int i = first; i < l->n_in; i++)
        if (!operand_absent(&l->in[i]) && !l->in[i].constant)
            return fail(err, RUNG_EUNSUPPORTED, "its input '%s' is not constant", l->in[i].name);
    return RUNG_OK;
}

rung_status lower_slice(const lowering *l, step *s, rung_error *err)
{
    const operand *x = &l->in[0], *y = &l->out[0];
    int64_t xs[RUNG_MAX_RANK], ys[RUNG_MAX_RANK], first = 0;
    slice cut;
    mover b;
    rung_status st = need_constants(l, 1, err);
    if (st != RUNG_OK || (st = mover_begin(&b, l, err)) != RUNG_OK ||
        (st = slice_of(constant_at(l, 1), constant_at(l, 2), constant_at(l, 3), constant_at(l, 4),
                       x->rank, x->dims, &cut, err)) != RUNG_OK)
        return st;
    stored_strides(x, xs);
    stored_strides(y, ys);
    for (int i = 0; i < x->rank; i++) {
        first += cut.start[i] * xs[i];
        xs[i] *= cut.step[i];
    }
    st = mover_add(&b, 0, 0, first, 0, y->rank, y->dims, xs, ys, err);
    return st == RUNG_OK ? mover_end(&b, "slice", s, err) : st;
}

static int axis_of(const lowering *l, int64_t otherwise)
{
    const int64_t axis = node_int(l->n, "axis", otherwise);
    return (int)(axis < 0 ? axis + l->in[0].rank : axis);
}

rung_status lower_split(const lowering *l, step *s, rung_error *err)
{
    const operand *x = &l->in[0];
    int64_t xs[RUNG_MAX_RANK], ys[RUNG_MAX_RANK], at = 0;
    const int axis = axis_of(l, 0);
    mover b;
    rung_status st = mover_begin(&b, l, err);
    if (st != RUNG_OK)
        return st;
    if (axis < 0 || axis >= x->rank)
        return fail(err, RUNG_EMODEL, "axis is out of range");
    stored_strides(x, xs);
    for (int i = 0; i < l->n_out && st == RUNG_OK; i++) {
        const operand *y = &l->out[i];
        if (operand_absent(y))
            return fail(err, RUNG_EUNSUPPORTED, "one of its outputs is absent");
        stored_strides(y, ys);
        st = mover_add(&b, 0, i, at * xs[axis], 0, y->rank, y->dims, xs, ys, err);
        at += y->dims[axis];
    }
    return st == RUNG_OK ? mover_end(&b, "split", s, err) : st;
}

rung_status lower_concat(const lowering *l, step *s, rung_error *err)
{
    const operand *y = &l->out[0];
    int64_t xs[RUNG_MAX_RANK], ys[RUNG_MAX_RANK], at = 0;
    const int axis = axis_of(l, 1);
    mover b;
    rung_status st = mover_begin(&b, l, err);
    if (st != RUNG_OK)
        return st;
    if (axis < 0 || axis >= y->rank)
        return fail(err, RUNG_EMODEL, "axis is out of range");
    stored_strides(y, ys);
    for (int i = 0; i < l->n_in && st == RUNG_OK; i++) {
        const operand *x = &l->in[i];
        stored_strides(x, xs);
        st = mover_add(&b, i, 0, 0, at * ys[axis], y->rank, x->dims, xs, ys, err);
        at += x->dims[axis];
    }
    return st == RUNG_OK ? mover_end(&b, "concat", s, err) : st;
}

rung_status lower_depth_space(const lowering *l, step *s, rung_error *err)
{
    const bool to_space = strcmp(l->n->op_type, "DepthToSpace") == 0;
    const bool crd = to_space && strcmp(node_string(l->n, "mode", "DCR"), "CRD") == 0;
    const int64_t k = node_int(l->n, "blocksize", 0);
    const operand *deep = to_space ? &l->in[0] : &l->out[0];
    const operand *wide = to_space ? &l->out[0] : &l->in[0];
    int64_t ds[RUNG_MAX_RANK], ws[RUNG_MAX_RANK];
    mover b;
    rung_status st = mover_begin(&b, l, err);
    if (st != RUNG_OK)
        return st;
    if (deep->rank != 4 || k < 1 || wide->dims[1] * k * k != deep->dims[1])
        return fail(err, RUNG_EMODEL, "blocksize does not fit its shapes");
    stored_strides(deep, ds);
    stored_strides(wide, ws);
    /* n, c, h, i, w, j: row h * k + i and column w * k + j of the wide side. */
    const int64_t c = wide->dims[1];
    const int64_t dims[6] = {deep->dims[0], c, deep->dims[2], k, deep->dims[3], k};
    const int64_t in_deep[6] = {ds[0], crd ? ds[1] * k * k : ds[1],
                                ds[2], crd ? ds[1] * k : ds[1] * c * k,
                                ds[3], crd ? ds[1] : ds[1] * c};
    const int64_t in_wide[6] = {ws[0], ws[1], ws[2] * k, ws[2], ws[3] * k, ws[3]};
    st = mover_add(&b, 0, 0, 0, 0, 6, dims, to_space ? in_deep : in_wide,
                   to_space ? in_wide : in_deep, err);
    return st == RUNG_OK ? mover_end(&b, to_space ? "depth to space" : "space to depth", s, err)
                         : st;
}

bool lower_moves(const op_def *op)
{
    return op->lower &&
           (op->lower == lower_view || op->lower == lower_transpose || op->lower == lower_slice ||
            op->lower == lower_split || op->lower == lower_concat || op->lower == lower_pad ||
            op->lower == lower_depth_space || op->lower == lower_expand ||
            op->lower == lower_tile || op->lower == lower_gather);
}
