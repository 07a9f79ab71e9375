/* The pair behind a Conv, Gemm or MatMul: what it quantizes are exact sums, which the engine's
 * kernel gives again at a fraction of the cost of a float convolution, one image at a time: they
 * are used up before the next. */
#include <math.h>
#include <string.h>

#include "graph/pass.h"
#include "ops/lower.h"
#include "train/fake_vec.h"
#include "train/tape_parts.h"

/* --- finding them ----------------------------------------------------------------------------- */

static bool bound_of(const tape *t, const node *n, int i, float *bound)
{
    const int v = node_input(n, i);
    if (v < 0)
        return true;
    const tensor *c = t->constant[v];
    if (!c || c->type != RUNG_F32 || tensor_count(c) != 1)
        return false;
    *bound = (float)tensor_get(c, 0);
    return true;
}

static const node *maker_of(const tape *t, int v)
{
    return t->g->values[v].producer < 0 ? NULL : &t->g->nodes[t->g->values[v].producer];
}

/* Takes the Relu or Clip that makes q->x; false: a Clip whose bounds are not known. */
static bool take_clamp(const tape *t, const pair *q, product *p)
{
    const node *n = maker_of(t, q->x);
    const bool relu = n && node_is(n, "Relu"), clip = n && node_is(n, "Clip");
    p->y = relu || clip ? n->inputs[0] : q->x;
    p->floor = relu ? 0 : -INFINITY;
    p->ceiling = INFINITY;
    return !clip || (bound_of(t, n, 1, &p->floor) && bound_of(t, n, 2, &p->ceiling));
}

rung_status tape_find_product(tape *t, pair *q, rung_error *err)
{
    product p = {.codes = q->codes};
    if (!engine_product_of(t->e, q->codes, &p.now) || !take_clamp(t, q, &p))
        return RUNG_OK;
    const node *n = maker_of(t, p.y);
    if (!n || !(node_is(n, "Conv") || node_is(n, "ConvTranspose") || node_is(n, "Gemm") ||
                node_is(n, "MatMul")))
        return RUNG_OK;
    p.first = *p.now.step;
    q->product = arena_copy(t->mem, &p, sizeof p);
    return q->product ? RUNG_OK : tape_out_of_memory(err);
}

rung_status tape_renew_product(const tape *t, product *p, rung_error *err)
{
    engine_product now;
    if (!engine_product_of(t->e, p->codes, &now) || now.step->kernel != p->first.kernel ||
        memcmp(&now.step->shape, &p->first.shape, sizeof p->first.shape) != 0)
        return fail(err, RUNG_EMODEL, "the product that makes '%s' is another than before",
                    t->g->values[p->codes].name);
    p->now = now;
    return RUNG_OK;
}

/* --- the step --------------------------------------------------------------------------------- */
typedef struct product_step {
    const product *p;
    fake_ends      ends;
    float          grad_scale;
    float         *seen; /* NULL: not observed */
    size_t         kernel_bytes; /* of scratch: the kernel's own; the sums of an image follow */
} product_step;

/* Buffers: dy, scale, dx, dscale (NULL: not wanted), zero point (NULL: does not move). */
static void run_product(const step *s, void *const *bufs, void *scratch, int thread, int n_threads)
{
    const product_step *f = s->params;
    const conv_step *c = f->p->now.step;
    conv_shape image = c->shape;
    image.batch = 1;
    const size_t channels = (size_t)image.out_c, pixels = (size_t)image.out_h * image.out_w;
    const size_t in = (size_t)image.in_h * image.in_w * image.in_c, out = pixels * channels;
    const float scale = *(const float *)bufs[1];
    const fake_sums k = {.channels = channels, .mult = c->q.mult, .floor = f->p->floor / scale,
                         .ceiling = f->p->ceiling / scale};
    const float zero = bufs[4] ? *(const float *)bufs[4] : 0;
    const fake_ends ends = {f->ends.lo - zero, f->ends.hi - zero};
    int32_t *sums = (int32_t *)((unsigned char *)scratch + f->kernel_bytes);
    double sum = 0;
    for (size_t i = 0; i < (size_t)c->shape.batch; i++) {
        c->kernel->run_sums(&image, c->packed, f->p->now.x + i * in, c->x_zero, sums, scratch, 0,
                            1);
        sum += fake_vec_pick()->grad_sums(&k, sums, (const float *)bufs[0] + i * out, pixels,
                                           ends, (float *)bufs[2] + i * out);
        if (f->seen)
            fake_vec_pick()->range_sums(&k, sums, pixels, scale, f->seen);
    }
    if (bufs[3])
        *(float *)bufs[3] += (float)sum * f->grad_scale;
}

static rung_status make_step(tape *t, pair *q, step *s, rung_error *err)
{
    const conv_step *c = q->product->now.step;
    const size_t pixels = (size_t)c->shape.out_h * (size_t)c->shape.out_w;
    product_step *f = arena_zero(t->mem, 1, sizeof *f);
    if (!f)
        return tape_out_of_memory(err);
    *f = (product_step){.p = q->product,
                        .ends = {(float)q->lo, (float)q->hi},
                        .grad_scale = q->grad_scale,
                        .seen = tape_watch(t, q),
                        .kernel_bytes = (c->kernel->scratch_size(&c->shape) + 63) / 64 * 64};
    *s = (step){.kernel = "fake_quantize_grad sums",
                .run = run_product,
                .params = f,
                .library = true,
                .in_place = true,
                .scratch_bytes =
                    f->kernel_bytes + pixels * (size_t)c->shape.out_c * sizeof(int32_t)};
    return RUNG_OK;
}

rung_status tape_product_backward(tape *t, pair *q, rung_error *err)
{
    const bool last = t->home[q->codes];
    step s;
    int cells[5];
    rung_status st = make_step(t, q, &s, err);
    if (st == RUNG_OK)
        st = tape_grad(t, q->y, last, &cells[0], err);
    if (st == RUNG_OK)
        st = tape_need(t, q->scale, false, &cells[1], err);
    if (st == RUNG_OK)
        st = cell_new(t, q->product->y, &cells[2], err);
    if (st == RUNG_OK)
        st = tape_scale_grad(t, q, &cells[3], err);
    if (st == RUNG_OK)
        st = tape_moving_zero(t, q, &cells[4], err);
    if (st == RUNG_OK)
        st = tape_add(t, &s, NULL, cells, 5, 2, NULL, err);
    return st == RUNG_OK ? tape_contribute(t, q->product->y, cells[2], last, err) : st;
}
