#include <string.h>

#include "base/mem.h"
#include "kernels/kernels.h"
#include "nn/layout.h"
#include "nn/rows.h"

/* Operators that only move elements: a list of strided copies to disjoint parts of the outputs. */
typedef struct move {
    copy_shape shape;
    source     from;
    int64_t    x_offset, y_offset; /* bytes */
    int        out_buf;
} move;

typedef struct moves {
    int  n;
    move list[];
} moves;

static void moves_run(const step *s, void *const *bufs, void *scratch, int thread, int n_threads)
{
    const moves *m = s->params;
    for (int i = 0; i < m->n; i++) {
        const move *v = &m->list[i];
        copy_strided(&v->shape, (const char *)source_data(&v->from, bufs) + v->x_offset,
                     (char *)bufs[v->out_buf] + v->y_offset, thread, n_threads);
    }
}

/* Room for `most` copies; every operand that moves must be of a type of whole bytes, the same. */
static rung_status open_moves(const lowering *l, int most, int last_in, moves **out,
                              rung_error *err)
{
    size_t size;
    const size_t elem = dtype_bytes(l->out[0].type, 1), two = dtype_bytes(l->out[0].type, 2);
    for (int i = 0; i <= last_in && i < l->n_in; i++) {
        if (l->in[i].type != l->out[0].type)
            return fail(err, RUNG_EUNSUPPORTED, "operands of different types");
    }
    if ((elem != 1 && elem != 2 && elem != 4 && elem != 8) || two != 2 * elem)
        return fail(err, RUNG_EUNSUPPORTED, "no fast row for %s", dtype_name(l->out[0].type));
    if (l->epi.add >= 0 || l->epi.clamp)
        return fail(err, RUNG_EUNSUPPORTED, "no fast row with an epilogue");
    if (!mul_fits((size_t)most, sizeof(move), &size))
        return fail_memory(err, "a step", SIZE_MAX);
    *out = arena_zero(l->mem, 1, sizeof **out + size);
    return *out ? RUNG_OK : fail_memory(err, "a step", size);
}

/* A copy of dims (ONNX order) with these strides and offsets in elements. */
static void add_move(moves *m, const lowering *l, const source *from, int out, int rank,
                     const int64_t *dims, const int64_t *x_strides, int64_t x_offset,
                     const int64_t *y_strides, int64_t y_offset)
{
    move *v = &m->list[m->n++];
    const int elem = (int)dtype_bytes(l->out[0].type, 1);
    v->shape.rank = rank;
    v->shape.elem = elem;
    for (int i = 0; i < rank; i++) {
        v->shape.dims[i] = dims[i];
        v->shape.x_strides[i] = x_strides[i];
        v->shape.y_strides[i] = y_strides[i];
    }
    copy_shape_normalise(&v->shape);
    v->from = *from;
    v->x_offset = x_offset * elem;
    v->y_offset = y_offset * elem;
    v->out_buf = l->n_in + out;
}

static rung_status finish(const moves *m, const char *kernel, step *s)
{
    s->kernel = kernel;
    s->run = moves_run;
    s->params = m;
    return RUNG_OK;
}

/* Whether one copy of x's dims covers the output. */
static rung_status one_move(const lowering *l, const int64_t *dims, int rank,
                            const int64_t *x_strides, int64_t x_offset, const int64_t *y_strides,
                            const char *kernel, step *s, rung_error *err)
{
    moves *m;
    source from;
    rung_status st = open_moves(l, 1, 0, &m, err);
    if (st != RUNG_OK || (st = source_open(l, 0, &from, err)) != RUNG_OK)
        return st;
    add_move(m, l, &from, 0, rank, dims, x_strides, x_offset, y_strides, 0);
    return finish(m, kernel, s);
}

/* --- Concat, Split ---------------------------------------------------------------------------- */
rung_status concat_row(const lowering *l, step *s, rung_error *err)
{
    moves *m;
    int axis;
    int64_t x_strides[RUNG_MAX_RANK], y_strides[RUNG_MAX_RANK], at = 0;
    const operand *y = &l->out[0];
    rung_status st = open_moves(l, l->n_in, l->n_in, &m, err);
    if (st != RUNG_OK)
        return st;
    if (!axis_normal(node_int(l->n, "axis", 0), y->rank, &axis))
        return fail(err, RUNG_EUNSUPPORTED, "an axis out of range");
    operand_strides(y, y_strides);
    for (int i = 0; i < l->n_in; i++) {
        const operand *x = &l->in[i];
        source from;
        if (x->rank != y->rank)
            return fail(err, RUNG_EUNSUPPORTED, "operands of different ranks");
        if ((st = source_open(l, i, &from, err)) != RUNG_OK)
            return st;
        operand_strides(x, x_strides);
        add_move(m, l, &from, 0, x->rank, x->dims, x_strides, 0, y_strides, at * y_strides[axis]);
        at += x->dims[axis];
    }
    return finish(m, "concat copy", s);
}

rung_status split_row(const lowering *l, step *s, rung_error *err)
{
    moves *m;
    int axis;
    source from;
    int64_t x_strides[RUNG_MAX_RANK], y_strides[RUNG_MAX_RANK], at = 0;
    const operand *x = &l->in[0];
    rung_status st = open_moves(l, l->n_out, 0, &m, err);
    if (st != RUNG_OK || (st = source_open(l, 0, &from, err)) != RUNG_OK)
        return st;
    if (!axis_normal(node_int(l->n, "axis", 0), x->rank, &axis))
        return fail(err, RUNG_EUNSUPPORTED, "an axis out of range");
    operand_strides(x, x_strides);
    for (int i = 0; i < l->n_out; i++) {
        const operand *y = &l->out[i];
        if (y->type != x->type || y->rank != x->rank)
            return fail(err, RUNG_EUNSUPPORTED, "an output that is absent");
        operand_strides(y, y_strides);
        add_move(m, l, &from, i, y->rank, y->dims, x_strides, at * x_strides[axis], y_strides, 0);
        at += y->dims[axis];
    }
    return finish(m, "split copy", s);
}

/* --- Slice ------------------------------------------------------------------------------------ */
typedef struct slice {
    int64_t start[RUNG_MAX_RANK], step[RUNG_MAX_RANK];
} slice;

/* Inputs starts, axes, steps; how many elements an axis keeps is in the output's dims. */
static bool read_slice(const lowering *l, slice *r)
{
    int64_t starts[RUNG_MAX_RANK * 2], axes[RUNG_MAX_RANK * 2], steps[RUNG_MAX_RANK * 2];
    const operand *x = &l->in[0];
    const int n = constant_ints(l, 1, starts);
    const int n_axes = has_input(l, 3) ? constant_ints(l, 3, axes) : n;
    const int n_steps = has_input(l, 4) ? constant_ints(l, 4, steps) : n;
    if (n < 0 || n > x->rank || n_axes != n || n_steps != n)
        return false;
    for (int i = 0; i < x->rank; i++) {
        r->start[i] = 0;
        r->step[i] = 1;
    }
    for (int i = 0; i < n; i++) {
        int axis;
        if (!axis_normal(has_input(l, 3) ? axes[i] : i, x->rank, &axis))
            return false;
        const int64_t d = x->dims[axis], by = has_input(l, 4) ? steps[i] : 1;
        int64_t from = starts[i] < 0 ? starts[i] < -d ? -1 : starts[i] + d : starts[i];
        if (from < 0)
            from = 0;
        if (from > d - (by < 0))
            from = d - (by < 0);
        r->start[axis] = from;
        r->step[axis] = l->out[0].dims[axis] == 1 ? 1 : by; /* one element: no step is taken */
    }
    return true;
}

rung_status slice_row(const lowering *l, step *s, rung_error *err)
{
    slice r;
    int64_t x_strides[RUNG_MAX_RANK], y_strides[RUNG_MAX_RANK], offset = 0;
    const operand *x = &l->in[0], *y = &l->out[0];
    if (l->opset < 10 || x->rank != y->rank || !read_slice(l, &r))
        return fail(err, RUNG_EUNSUPPORTED, "starts, axes or steps that are not constant");
    operand_strides(x, x_strides);
    operand_strides(y, y_strides);
    for (int i = 0; i < x->rank; i++) {
        const int64_t last = r.start[i] + (y->dims[i] - 1) * r.step[i];
        if (r.step[i] == 0 || r.start[i] >= x->dims[i] || last < 0 || last >= x->dims[i])
            return fail(err, RUNG_EUNSUPPORTED, "a slice that leaves its input");
        offset += r.start[i] * x_strides[i];
        x_strides[i] *= r.step[i];
    }
    return one_move(l, y->dims, y->rank, x_strides, offset, y_strides, "slice copy", s, err);
}

/* --- Pad -------------------------------------------------------------------------------------- */
typedef struct padding {
    int64_t begin[RUNG_MAX_RANK], end[RUNG_MAX_RANK]; /* may be negative: cut off */
    source  value;
} padding;

static bool read_pads(const lowering *l, padding *p)
{
    int64_t pads[RUNG_MAX_RANK * 2], axes[RUNG_MAX_RANK * 2];
    const int rank = l->in[0].rank, n = constant_ints(l, 1, pads);
    const int n_axes = has_input(l, 3) ? constant_ints(l, 3, axes) : rank;
    if (n_axes < 0 || n_axes > rank || n != 2 * n_axes)
        return false;
    for (int i = 0; i < n_axes; i++) {
        int axis;
        if (!axis_normal(has_input(l, 3) ? axes[i] : i, rank, &axis))
            return false;
        p->begin[axis] = pads[i];
        p->end[axis] = pads[n_axes + i];
    }
    return true;
}

static rung_status open_padding(const lowering *l, padding *p, rung_error *err)
{
    const operand *x = &l->in[0], *y = &l->out[0];
    memset(p, 0, sizeof *p);
    if (strcmp(node_string(l->n, "mode", "constant"), "constant") != 0)
        return fail(err, RUNG_EUNSUPPORTED, "no fast row for this mode");
    if (l->opset < 11 || x->rank != y->rank || !read_pads(l, p))
        return fail(err, RUNG_EUNSUPPORTED, "pads or axes that are not constant");
    for (int i = 0; i < x->rank; i++) {
        if (x->dims[i] + p->begin[i] + p->end[i] != y->dims[i] ||
            x->dims[i] + (p->begin[i] < 0 ? p->begin[i] : 0) + (p->end[i] < 0 ? p->end[i] : 0) < 1)
            return fail(err, RUNG_EUNSUPPORTED, "pads that leave nothing of the input");
    }
    if (has_input(l, 2)) {
        if (l->in[2].type != x->type || operand_count(&l->in[2]) != 1)
            return fail(err, RUNG_EUNSUPPORTED, "a padding value of another type");
        return source_open(l, 2, &p->value, err);
    }
    p->value.fixed = arena_zero(l->mem, 1, sizeof(int64_t));
    return p->value.fixed ? RUNG_OK : fail_memory(err, "a step", sizeof(int64_t));
}

/* The borders are filled axis by axis, each within what the axes before it left: no element is
 * written twice, so threads need not wait for each other. */
rung_status pad_row(const lowering *l, step *s, rung_error *err)
{
    moves *m;
    padding p;
    source from;
    const int64_t none[RUNG_MAX_RANK] = {0};
    int64_t x_strides[RUNG_MAX_RANK], y_strides[RUNG_MAX_RANK], dims[RUNG_MAX_RANK];
    int64_t x_offset = 0, y_offset = 0;
    const operand *x = &l->in[0], *y = &l->out[0];
    rung_status st = open_moves(l, 2 * RUNG_MAX_RANK + 1, 0, &m, err);
    if (st != RUNG_OK || (st = open_padding(l, &p, err)) != RUNG_OK ||
        (st = source_open(l, 0, &from, err)) != RUNG_OK)
        return st;
    operand_strides(x, x_strides);
    operand_strides(y, y_strides);
    memcpy(dims, y->dims, sizeof dims);
    for (int i = 0; i < y->rank; i++) {
        const int64_t before = p.begin[i] > 0 ? p.begin[i] : 0, after = p.end[i] > 0 ? p.end[i] : 0;
        dims[i] = before;
        if (before > 0)
            add_move(m, l, &p.value, 0, y->rank, dims, none, 0, y_strides, y_offset);
        dims[i] = after;
        if (after > 0)
            add_move(m, l, &p.value, 0, y->rank, dims, none, 0, y_strides,
                     y_offset + (y->dims[i] - after) * y_strides[i]);
        dims[i] = y->dims[i] - before - after;
        x_offset += (before - p.begin[i]) * x_strides[i];
        y_offset += before * y_strides[i];
    }
    add_move(m, l, &from, 0, y->rank, dims, x_strides, x_offset, y_strides, y_offset);
    return finish(m, "pad copy", s);
}

/* --- Transpose, DepthToSpace, SpaceToDepth ---------------------------------------------------- */
rung_status transpose_row(const lowering *l, step *s, rung_error *err)
{
    int64_t own[RUNG_MAX_RANK], x_strides[RUNG_MAX_RANK], y_strides[RUNG_MAX_RANK];
    const operand *x = &l->in[0], *y = &l->out[0];
    const int64_t *perm = NULL;
    const size_t n = node_ints(l->n, "perm", &perm);
    if (x->rank != y->rank || (n != 0 && n != (size_t)x->rank))
        return fail(err, RUNG_EUNSUPPORTED, "perm does not fit the rank");
    operand_strides(x, own);
    operand_strides(y, y_strides);
    for (int i = 0; i < x->rank; i++) {
        const int64_t d = n ? perm[i] : x->rank - 1 - i;
        if (d < 0 || d >= x->rank || x->dims[d] != y->dims[i])
            return fail(err, RUNG_EUNSUPPORTED, "perm does not fit the shape");
        x_strides[i] = own[d];
    }
    return one_move(l, y->dims, y->rank, x_strides, 0, y_strides, "transpose copy", s, err);
}

/* Both ways: the deep side's channels are [b][b][c] (DCR, SpaceToDepth) or [c][b][b] (CRD), the
 * wide side's pixels [h][b] and [w][b]. */
rung_status depth_space_row(const lowering *l, step *s, rung_error *err)
{
    const bool to_space = l->n->op_type[0] == 'D';
    const bool crd = to_space && strcmp(node_string(l->n, "mode", "DCR"), "CRD") == 0;
    const operand *deep = to_space ? &l->in[0] : &l->out[0];
    const operand *wide = to_space ? &l->out[0] : &l->in[0];
    const int64_t b = node_int(l->n, "blocksize", 0);
    int64_t d[RUNG_MAX_RANK], w[RUNG_MAX_RANK];
    if (deep->rank != 4 || wide->rank != 4 || b < 1 || wide->dims[2] != deep->dims[2] * b ||
        wide->dims[3] != deep->dims[3] * b || deep->dims[1] != wide->dims[1] * b * b)
        return fail(err, RUNG_EUNSUPPORTED, "blocksize does not fit the shapes");
    operand_strides(deep, d);
    operand_strides(wide, w);
    const int64_t c = wide->dims[1], row = crd ? b : b * c, column = crd ? 1 : c;
    const int64_t dims[6] = {deep->dims[0], c, deep->dims[2], b, deep->dims[3], b};
    const int64_t deep_strides[6] = {d[0], crd ? b * b * d[1] : d[1], d[2], row * d[1], d[3],
                                     column * d[1]};
    const int64_t wide_strides[6] = {w[0], w[1], b * w[2], w[2], b * w[3], w[3]};
    return one_move(l, dims, 6, to_space ? deep_strides : wide_strides, 0,
                    to_space ? wide_strides : deep_strides, "depth_space copy", s, err);
}

/* --- Reshape and its kin ---------------------------------------------------------------------- */
/* Row-major order lies the same in memory, whatever the flag says. */
static bool is_plain(const operand *o)
{
    int order[RUNG_MAX_RANK], last = -1;
    operand_order(o, order);
    for (int i = 0; i < o->rank; i++) {
        if (o->dims[order[i]] == 1)
            continue;
        if (order[i] < last)
            return false;
        last = order[i];
    }
    return true;
}

/* Reshape, Flatten, Squeeze, Unsqueeze, Identity: elements keep their place in row-major order, so
 * the side that is not stored so is copied through the other's shape. */
rung_status reshape_row(const lowering *l, step *s, rung_error *err)
{
    const operand *x = &l->in[0], *y = &l->out[0];
    operand plain = is_plain(y) ? *x : *y;
    int64_t x_strides[RUNG_MAX_RANK], y_strides[RUNG_MAX_RANK];
    if (operand_count(x) != operand_count(y) || (!is_plain(x) && !is_plain(y)))
        return fail(err, RUNG_EUNSUPPORTED, "two channels-last shapes");
    plain.channels_last = false;
    operand_strides(is_plain(y) ? x : &plain, x_strides);
    operand_strides(is_plain(y) ? &plain : y, y_strides);
    s->view = is_plain(x) && is_plain(y) && !x->constant;
    return one_move(l, plain.dims, plain.rank, x_strides, 0, y_strides, "reshape copy", s, err);
}
