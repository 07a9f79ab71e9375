#include <string.h>

#include "base/threads.h"
#include "nn/layout.h"
#include "nn/rows.h"
#include "nn/vec.h"
#include "ops/resize.h"

/* Resize over the spatial axes, channels-last; a single spatial axis is horizontal. */
typedef struct tap {
    int64_t i0, i1;
    float   w0, w1;
} tap;

typedef struct resampling {
    const vec_ops *ops;
    size_t         batch, channels, in_h, in_w, out_h, out_w;
    const tap     *rows, *columns;
    bool           linear;
    int            out_buf;
} resampling;

static void resize_pixel(const resampling *r, const float *image, const tap *v, const tap *h,
                         float *y)
{
    const size_t c = r->channels, line = r->in_w * c;
    const float *top = image + (size_t)v->i0 * line, *bottom = image + (size_t)v->i1 * line;
    if (!r->linear) {
        memcpy(y, top + (size_t)h->i0 * c, c * sizeof *y);
        return;
    }
    const float *const p[4] = {top + (size_t)h->i0 * c, top + (size_t)h->i1 * c,
                               bottom + (size_t)h->i0 * c, bottom + (size_t)h->i1 * c};
    const float wt[4] = {v->w0 * h->w0, v->w0 * h->w1, v->w1 * h->w0, v->w1 * h->w1};
    r->ops->blend(p, wt, c, y);
}

static void resize_run(const step *s, void *const *bufs, void *scratch, int thread, int n_threads)
{
    const resampling *r = s->params;
    size_t first, last;
    share(r->batch * r->out_h, 1, thread, n_threads, &first, &last);
    for (size_t row = first; row < last; row++) {
        const float *x =
            (const float *)bufs[0] + row / r->out_h * r->in_h * r->in_w * r->channels;
        float *y = (float *)bufs[r->out_buf] + row * r->out_w * r->channels;
        for (size_t ow = 0; ow < r->out_w; ow++)
            resize_pixel(r, x, &r->rows[row % r->out_h], &r->columns[ow], y + ow * r->channels);
    }
}

/* The taps of ONNX axis `axis`; 0: an axis that is not there, of one element. */
static tap *make_taps(const lowering *l, const resize *rule, int axis, rung_error *err)
{
    const int64_t out = axis ? rule->out[axis] : 1;
    tap *t = arena_zero(l->mem, (size_t)out, sizeof *t);
    if (!t) {
        fail_memory(err, "a table of Resize", (size_t)out * sizeof *t);
        return NULL;
    }
    for (int64_t i = 0; i < out; i++) {
        if (axis == 0)
            t[i].w1 = 0.0f;
        else if (rule->mode == RESIZE_LINEAR)
            resize_pair(rule, axis, i, &t[i].i0, &t[i].i1, &t[i].w1);
        else
            t[i].i0 = resize_index(rule, axis, i);
        t[i].w0 = 1.0f - t[i].w1;
    }
    return t;
}

static const tensor *constant_of(const lowering *l, int i)
{
    return has_input(l, i) ? l->in[i].constant : NULL;
}

static rung_status read_rule(const lowering *l, resize *rule, rung_error *err)
{
    const operand *x = &l->in[0], *y = &l->out[0];
    for (int i = 2; i < 4; i++) {
        if (has_input(l, i) && !l->in[i].constant)
            return fail(err, RUNG_EUNSUPPORTED, "scales or sizes that are not constant");
    }
    if (l->opset < 11 || (x->rank != 3 && x->rank != 4) || !operand_channels_last(x) ||
        !operand_channels_last(y) || l->epi.add >= 0 || l->epi.clamp)
        return fail(err, RUNG_EUNSUPPORTED, "no fast row for this rank, layout or epilogue");
    const rung_status st = resize_of(l->n, constant_of(l, 2), constant_of(l, 3), x->rank, x->dims,
                                     rule, err);
    if (st != RUNG_OK)
        return st;
    if (rule->mode == RESIZE_CUBIC || rule->antialias ||
        rule->coordinates == COORD_TF_CROP_AND_RESIZE || x->dims[0] != rule->out[0] ||
        x->dims[1] != rule->out[1] || memcmp(rule->out, y->dims, (size_t)y->rank * 8) != 0)
        return fail(err, RUNG_EUNSUPPORTED, "no fast row for this mode or these axes");
    return RUNG_OK;
}

rung_status resize_row(const lowering *l, step *s, rung_error *err)
{
    resize rule;
    const operand *x = &l->in[0], *y = &l->out[0];
    const rung_status st = read_rule(l, &rule, err);
    if (st != RUNG_OK)
        return st;
    resampling *r = arena_zero(l->mem, 1, sizeof *r);
    if (!r)
        return fail_memory(err, "a step", sizeof *r);
    const bool flat = x->rank == 3;
    r->rows = make_taps(l, &rule, flat ? 0 : 2, err);
    r->columns = r->rows ? make_taps(l, &rule, flat ? 2 : 3, err) : NULL;
    if (!r->rows || !r->columns)
        return RUNG_EMEMORY;
    r->ops = vec_pick();
    r->batch = (size_t)x->dims[0];
    r->channels = (size_t)x->dims[1];
    r->in_h = flat ? 1 : (size_t)x->dims[2];
    r->out_h = flat ? 1 : (size_t)y->dims[2];
    r->in_w = (size_t)x->dims[x->rank - 1];
    r->out_w = (size_t)y->dims[x->rank - 1];
    r->linear = rule.mode == RESIZE_LINEAR;
    r->out_buf = l->n_in;
    s->kernel = r->linear ? "resize_linear_f32 vec" : "resize_nearest_f32 vec";
    s->run = resize_run;
    s->params = r;
    return RUNG_OK;
}
