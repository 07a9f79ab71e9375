/* Max, average and global pools, and ReduceMean over the image. */
#include "ops/lower.h"

#include <string.h>

#include "ops/lower_wide.h"
#include "ops/window.h"

static void run_pool(const step *s, void *const *bufs, void *scratch, int thread, int n_threads)
{
    const pool_step *p = s->params;
    p->kernel->run(&p->shape, bufs[0], &p->q, bufs[p->out], thread, n_threads);
}

static bool is_op(const lowering *l, const char *op_type)
{
    return strcmp(l->n->op_type, op_type) == 0;
}

/* A window as large as the image; its axes count as one. */
static rung_status global_shape(const lowering *l, pool_shape *s, rung_error *err)
{
    const operand *x = &l->in[0];
    size_t image = 1;
    for (int i = 2; i < x->rank; i++)
        if (!x->dims[i] || (image *= (size_t)x->dims[i]) > (1u << 23))
            return fail(err, RUNG_EUNSUPPORTED, "its image has no or more than 2^23 positions");
    *s = (pool_shape){.batch = (int)x->dims[0],
                      .in_h = (int)image,
                      .in_w = 1,
                      .channels = (int)x->dims[1],
                      .out_h = 1,
                      .out_w = 1,
                      .kernel_h = (int)image,
                      .kernel_w = 1,
                      .stride_h = 1,
                      .stride_w = 1,
                      .dilation_h = 1,
                      .dilation_w = 1};
    return RUNG_OK;
}

static rung_status window_shape(const lowering *l, pool_shape *s, rung_error *err)
{
    const operand *x = &l->in[0], *y = &l->out[0];
    window w;
    const rung_status st = window_pool(l->n, x->rank, x->dims, &w, err);
    if (st != RUNG_OK)
        return st;
    if (w.n > 2)
        return fail(err, RUNG_EUNSUPPORTED, "there is no integer kernel for %d spatial axes", w.n);
    const int a = w.n - 1;
    *s = (pool_shape){.batch = (int)x->dims[0],
                      .in_h = 1,
                      .in_w = (int)x->dims[w.n + 1],
                      .channels = (int)x->dims[1],
                      .out_h = 1,
                      .out_w = (int)y->dims[w.n + 1],
                      .kernel_h = 1,
                      .kernel_w = (int)w.kernel[a],
                      .stride_h = 1,
                      .stride_w = (int)w.strides[a],
                      .dilation_h = 1,
                      .dilation_w = (int)w.dilations[a],
                      .pad_left = (int)w.begin[a],
                      .count_pad = node_int(l->n, "count_include_pad", 0) != 0};
    if (w.n == 2) {
        s->in_h = (int)x->dims[2];
        s->out_h = (int)y->dims[2];
        s->kernel_h = (int)w.kernel[0];
        s->stride_h = (int)w.strides[0];
        s->dilation_h = (int)w.dilations[0];
        s->pad_top = (int)w.begin[0];
    }
    return RUNG_OK;
}

bool reduces_image(const node *n, const tensor *axes, int rank)
{
    const int64_t *v = NULL;
    const size_t count = axes ? tensor_count(axes) : node_ints(n, "axes", &v);
    unsigned seen = 0;
    for (size_t i = 0; i < count; i++) {
        const int64_t axis = axes ? tensor_get_int(axes, i) : v[i];
        const int64_t a = axis < 0 ? axis + rank : axis;
        if (a < 2 || a >= rank)
            return false;
        seen |= 1u << a;
    }
    return rank >= 3 && seen == (1u << rank) - 4;
}

static rung_status check_image(const lowering *l, rung_error *err)
{
    const operand *x = &l->in[0];
    if (!x->quantized || x->constant || x->rank < 3 || !x->channels_last)
        return fail(err, RUNG_EUNSUPPORTED, "its input is not a quantized image");
    for (int i = 0; i < x->rank; i++)
        if (x->dims[i] > INT32_MAX)
            return fail(err, RUNG_EUNSUPPORTED, "a dimension does not fit int32");
    const tensor *axes = l->n_in > 1 && !operand_absent(&l->in[1]) ? l->in[1].constant : NULL;
    if (is_op(l, "ReduceMean") && !reduces_image(l->n, axes, x->rank))
        return fail(err, RUNG_EUNSUPPORTED, "its axes are not those of the image");
    return RUNG_OK;
}

rung_status lower_pool(const lowering *l, step *s, rung_error *err)
{
    const operand *x = &l->in[0], *y = &l->out[0];
    const bool max = is_op(l, "MaxPool") || is_op(l, "GlobalMaxPool");
    const bool windowed = is_op(l, "MaxPool") || is_op(l, "AveragePool");
    rung_status st = check_image(l, err);
    if (st != RUNG_OK)
        return st;
    if (max && !operand_same_params(x, y))
        return fail(err, RUNG_EUNSUPPORTED, "its output has other parameters than its input");
    pool_step *p = arena_zero(l->mem, 1, sizeof *p);
    if (!p)
        return fail_memory(err, "a step", sizeof *p);
    st = windowed ? window_shape(l, &p->shape, err) : global_shape(l, &p->shape, err);
    if (st != RUNG_OK || lowering_is_wide(l)) {
        const wide_pool_step wide = {.shape = p->shape,
                                     .kind = max        ? WIDE_MAX
                                             : windowed ? WIDE_AVERAGE
                                                        : WIDE_GLOBAL};
        return st == RUNG_OK ? lower_wide_pool(l, &wide, s, err) : st;
    }
    p->q = (pool_q){.x_scale = x->scale,
                    .y_scale = y->scale,
                    .x_zero = x->zero,
                    .y_zero = y->zero,
                    .lo = l->q_lo,
                    .hi = l->q_hi};
    p->out = l->n_in;
    p->kernel = max        ? KERNEL_PICK(max_pool_u8)
                : windowed ? KERNEL_PICK(avg_pool_u8)
                           : KERNEL_PICK(global_avg_pool_u8);
    const char *kind = max ? "max_pool_u8" : windowed ? "avg_pool_u8" : "global_avg_pool_u8";
    const char *name = arena_printf(l->mem, "%s %s", kind, p->kernel->name);
    if (!name)
        return fail_memory(err, "a name", 1);
    *s = (step){.kernel = name, .run = run_pool, .params = p};
    return RUNG_OK;
}
