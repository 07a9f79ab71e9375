/* Resize of images: nearest neighbour, or linear with two taps a side. */
#include "ops/lower_wide.h"
#include "ops/resize.h"

static void run_resize(const step *s, void *const *bufs, void *scratch, int thread, int n_threads)
{
    const resize_step *r = s->params;
    if (r->rows) /* moves a pixel's bytes, whatever they are */
        resize_nearest_u8(bufs[0], r->batch, r->in_h, r->in_w, r->channels << r->wide, r->rows,
                          r->out_h, r->cols, r->out_w, bufs[r->out], thread, n_threads);
    else if (r->wide)
        resize_linear_wide(bufs[0], r->batch, r->in_h, r->in_w, r->channels, r->row_taps, r->out_h,
                           r->col_taps, r->out_w, &r->rescale, bufs[r->out], thread, n_threads);
    else
        resize_linear_u8(bufs[0], r->batch, r->in_h, r->in_w, r->channels, r->row_taps, r->out_h,
                         r->col_taps, r->out_w, &r->q, bufs[r->out], thread, n_threads);
}

static const tensor *constant_at(const lowering *l, int i)
{
    if (i >= l->n_in || operand_absent(&l->in[i]) || !l->in[i].constant ||
        stored_count(&l->in[i]) == 0)
        return NULL;
    return l->in[i].constant;
}

/* axis = 1 of an image of one spatial axis stands for its missing rows: extent 1. */
static rung_status nearest_of(const lowering *l, const resize *r, int axis, int n,
                              const int32_t **out, rung_error *err)
{
    int32_t *at = arena_zero(l->mem, (size_t)n, sizeof *at);
    if (!at)
        return fail_memory(err, "a table", (size_t)n * sizeof *at);
    for (int i = 0; i < n && axis > 1; i++)
        at[i] = (int32_t)resize_index(r, axis, i);
    *out = at;
    return RUNG_OK;
}

static rung_status taps_of(const lowering *l, const resize *r, int axis, int n,
                           const resize_tap **out, rung_error *err)
{
    resize_tap *t = arena_zero(l->mem, (size_t)n, sizeof *t);
    if (!t)
        return fail_memory(err, "a table", (size_t)n * sizeof *t);
    for (int i = 0; i < n; i++) {
        int64_t i0 = 0, i1 = 0;
        float w1 = 0;
        if (axis > 1)
            resize_pair(r, axis, i, &i0, &i1, &w1);
        t[i] = (resize_tap){.i0 = (int32_t)i0, .i1 = (int32_t)i1, .w0 = 1 - w1, .w1 = w1};
    }
    *out = t;
    return RUNG_OK;
}

static rung_status check_resize(const lowering *l, const resize *r, rung_error *err)
{
    const operand *x = &l->in[0], *y = &l->out[0];
    if (r->mode == RESIZE_CUBIC || r->antialias || r->coordinates == COORD_TF_CROP_AND_RESIZE)
        return fail(err, RUNG_EUNSUPPORTED, "there is no integer kernel for its mode");
    if (r->mode == RESIZE_NEAREST && !operand_same_params(x, y))
        return fail(err, RUNG_EUNSUPPORTED, "its output has other parameters than its input");
    if (r->mode == RESIZE_NEAREST && (l->q_lo != 0 || l->q_hi != stored_top(y)))
        return fail(err, RUNG_EUNSUPPORTED, "a clamp follows it");
    for (int i = 0; i < x->rank; i++)
        if (x->dims[i] > INT32_MAX || y->dims[i] > INT32_MAX || (i < 2 && x->dims[i] != y->dims[i]))
            return fail(err, RUNG_EUNSUPPORTED, "it resizes more than the image");
    return RUNG_OK;
}

rung_status lower_resize(const lowering *l, step *s, rung_error *err)
{
    const operand *x = &l->in[0], *y = &l->out[0];
    resize r;
    if (!x->quantized || x->constant || !x->channels_last || x->rank < 3 || x->rank > 4)
        return fail(err, RUNG_EUNSUPPORTED, "its input is not a quantized image");
    rung_status st =
        resize_of(l->n, constant_at(l, 2), constant_at(l, 3), x->rank, x->dims, &r, err);
    if (st != RUNG_OK || (st = check_resize(l, &r, err)) != RUNG_OK)
        return st;
    resize_step *p = arena_zero(l->mem, 1, sizeof *p);
    if (!p)
        return fail_memory(err, "a step", sizeof *p);
    const int w = x->rank - 1, h = x->rank == 4 ? 2 : 1;
    p->batch = (int)x->dims[0];
    p->channels = (int)x->dims[1];
    p->in_h = h == 2 ? (int)x->dims[2] : 1;
    p->in_w = (int)x->dims[w];
    p->out_h = h == 2 ? (int)y->dims[2] : 1;
    p->out_w = (int)y->dims[w];
    p->q = (pool_q){.x_scale = x->scale,
                    .y_scale = y->scale,
                    .x_zero = x->zero,
                    .y_zero = y->zero,
                    .lo = l->q_lo,
                    .hi = l->q_hi};
    p->wide = lowering_is_wide(l);
    p->rescale = rescale_of(l, x, y);
    p->out = l->n_in;
    const bool nearest = r.mode == RESIZE_NEAREST;
    if (nearest) {
        if ((st = nearest_of(l, &r, h, p->out_h, &p->rows, err)) == RUNG_OK)
            st = nearest_of(l, &r, w, p->out_w, &p->cols, err);
    } else if ((st = taps_of(l, &r, h, p->out_h, &p->row_taps, err)) == RUNG_OK) {
        st = taps_of(l, &r, w, p->out_w, &p->col_taps, err);
    }
    const char *kernel = p->wide ? nearest ? "resize_nearest_u16" : "resize_linear_u16"
                                 : nearest ? "resize_nearest_u8"
                                           : "resize_linear_u8";
    *s = (step){.kernel = kernel, .run = run_resize, .params = p};
    return st;
}
