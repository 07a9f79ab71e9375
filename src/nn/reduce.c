#include <string.h>

#include "base/threads.h"
#include "nn/reduce.h"
#include "nn/rows.h"
#include "nn/vec.h"

typedef struct reduce {
    const vec_ops *ops;
    reduced_axes   axes;
    bool           max;
    float          divisor;
    int            out_buf;
} reduce;

/* inner = 1: whole rows. */
static void reduce_rows(const reduce *r, const float *x, float *y, int thread, int n_threads)
{
    const reduced_axes *a = &r->axes;
    size_t first, last;
    share(a->outer, 1, thread, n_threads, &first, &last);
    if (r->max)
        r->ops->row_max(x + first * a->n, last - first, a->n, y + first);
    else
        r->ops->row_sum(x + first * a->n, last - first, a->n, y + first);
    for (size_t i = first; i < last && r->divisor != 1.0f; i++)
        y[i] /= r->divisor;
}

static void reduce_run(const step *s, void *const *bufs, void *scratch, int thread, int n_threads)
{
    const reduce *r = s->params;
    const reduced_axes *a = &r->axes;
    const float *x = bufs[0];
    float *y = bufs[r->out_buf];
    size_t first, last;
    if (a->inner == 1) {
        reduce_rows(r, x, y, thread, n_threads);
        return;
    }
    share(a->inner, 16, thread, n_threads, &first, &last);
    for (size_t i = 0; i < a->outer && first < last; i++) {
        const float *from = x + i * a->n * a->inner + first;
        float *to = y + i * a->inner + first;
        const size_t h = a->n / a->piece, row = a->piece * a->inner, n = last - first;
        if (r->max)
            r->ops->window_max(from, h, row, a->piece, a->inner, n, to);
        else
            r->ops->window_mean(from, h, row, a->piece, a->inner, n, r->divisor, to);
    }
}

/* The axes to reduce as bits; false: they are not known or not valid. */
static bool read_axes(const lowering *l, unsigned *axes)
{
    int64_t from_input[RUNG_MAX_RANK * 2];
    const int64_t *v = NULL;
    const int rank = l->in[0].rank;
    size_t n = node_ints(l->n, "axes", &v);
    if (has_input(l, 1)) {
        const int count = constant_ints(l, 1, from_input);
        if (count < 0)
            return false;
        n = (size_t)count;
        v = from_input;
    }
    *axes = n == 0 && node_int(l->n, "noop_with_empty_axes", 0) == 0 ? (1u << rank) - 1 : 0;
    for (size_t i = 0; i < n; i++) {
        int axis;
        if (!axis_normal(v[i], rank, &axis))
            return false;
        *axes |= 1u << axis;
    }
    return true;
}

/* What is left keeps its order in memory: the output needs no rearrangement. */
static bool order_is_kept(const lowering *l, unsigned axes)
{
    const operand *x = &l->in[0], *y = &l->out[0];
    int x_order[RUNG_MAX_RANK], y_order[RUNG_MAX_RANK];
    int64_t x_left[RUNG_MAX_RANK], y_left[RUNG_MAX_RANK];
    int n_x = 0, n_y = 0;
    operand_order(x, x_order);
    operand_order(y, y_order);
    for (int i = 0; i < x->rank; i++) {
        if (!(axes >> x_order[i] & 1) && x->dims[x_order[i]] != 1)
            x_left[n_x++] = x->dims[x_order[i]];
    }
    for (int i = 0; i < y->rank; i++) {
        if (y->dims[y_order[i]] != 1)
            y_left[n_y++] = y->dims[y_order[i]];
    }
    if (n_x != n_y || memcmp(x_left, y_left, (size_t)n_x * sizeof *x_left) != 0)
        return false;
    /* Equal extents do not tell their order apart. */
    return n_x < 2 || !operand_channels_last(x) == !operand_channels_last(y);
}

static size_t piece(const operand *x, unsigned axes, size_t n)
{
    int order[RUNG_MAX_RANK];
    operand_order(x, order);
    for (int i = x->rank - 1; i >= 0; i--) {
        if ((axes >> order[i] & 1) && x->dims[order[i]] > 1)
            return (size_t)x->dims[order[i]];
    }
    return n;
}

static bool read_kind(const lowering *l, unsigned *axes)
{
    *axes = ((1u << l->in[0].rank) - 1) & ~3u; /* Global...: all but N and C */
    return strncmp(l->n->op_type, "Global", 6) == 0 || read_axes(l, axes);
}

rung_status reduce_read(const lowering *l, reduced_axes *r, rung_error *err)
{
    unsigned axes;
    if (l->in[0].constant || !read_kind(l, &axes))
        return fail(err, RUNG_EUNSUPPORTED, "a constant input, or axes that are not constant");
    if (!operand_block(&l->in[0], axes, &r->outer, &r->n, &r->inner) || !order_is_kept(l, axes))
        return fail(err, RUNG_EUNSUPPORTED, "axes that do not lie side by side in memory");
    r->piece = piece(&l->in[0], axes, r->n);
    return RUNG_OK;
}

rung_status reduce_row(const lowering *l, step *s, rung_error *err)
{
    reduced_axes axes;
    if (l->epi.add >= 0 || l->epi.clamp)
        return fail(err, RUNG_EUNSUPPORTED, "no fast row with an epilogue");
    const rung_status st = reduce_read(l, &axes, err);
    if (st != RUNG_OK)
        return st;
    reduce *r = arena_zero(l->mem, 1, sizeof *r);
    if (!r)
        return fail_memory(err, "a step", sizeof *r);
    r->axes = axes;
    r->ops = vec_pick();
    r->max = strstr(l->n->op_type, "Max") != NULL;
    r->divisor = r->max || strstr(l->n->op_type, "Sum") ? 1.0f : (float)axes.n;
    r->out_buf = l->n_in;
    s->kernel = r->max ? "reduce_max_f32 vec" : "reduce_sum_f32 vec";
    s->run = reduce_run;
    s->params = r;
    return RUNG_OK;
}
