/* FakeQuantize on the tape: real values from the codes that the engine kept, or from what is
 * quantized; the straight-through gradient and that of the step size. */
#include <math.h>

#include "kernels/kernels.h"
#include "quant/fake.h"
#include "train/fake_vec.h"
#include "train/tape_parts.h"

/* --- finding them ----------------------------------------------------------------------------- */

/* The gradient of a scale is a sum over all elements: this keeps its step in proportion to the
 * others' (Esser 2020, section 2.2). Samples do not count: the loss is their mean. */
static float grad_scale_of(const tape *t, const pair *q)
{
    size_t n = tape_count(t, q->x) / q->channels;
    if (!q->weight && t->info[q->x].rank > 0 && t->info[q->x].dims[0] > 0)
        n /= (size_t)t->info[q->x].dims[0];
    const float most = (float)(q->hi > -q->lo ? q->hi : -q->lo);
    return 1 / sqrtf((float)(n ? n : 1) * (most > 0 ? most : 1));
}

static bool one_zero(const tensor *zero, int *out)
{
    *out = zero && tensor_count(zero) ? (int)tensor_get_int(zero, 0) : 0;
    for (size_t i = 1; zero && i < tensor_count(zero); i++)
        if (tensor_get_int(zero, i) != *out)
            return false;
    return true;
}

/* False: x has no dims that the scales fit. */
static bool shape_pair(const tape *t, const fake_quantizer *f, pair *q)
{
    const value_info *x = &t->info[q->x];
    const size_t scales = tensor_count(f->scale), count = x->rank < 0 ? 0 : tape_count(t, q->x);
    if (count == 0 || count == SIZE_MAX || scales == 0)
        return false;
    q->outer = q->channels = 1;
    q->inner = count;
    if (scales == 1)
        return true;
    if (f->axis < 0 || f->axis >= x->rank || (size_t)x->dims[f->axis] != scales)
        return false;
    q->channels = scales;
    q->outer = dims_count(f->axis, x->dims);
    q->inner = count / scales / q->outer;
    return true;
}

static bool watches(const tape *t, const pair *q)
{
    return t->opt.observe && tape_is_param(t, q->scale) && t->opt.observe[t->p->at[q->scale]];
}

static rung_status note_pair(tape *t, const fake_quantizer *f, const fake_nodes *at,
                             rung_error *err)
{
    pair *q = arena_zero(t->mem, 1, sizeof *q);
    int zero;
    if (!q)
        return tape_out_of_memory(err);
    *q = (pair){.x = at->in, .y = at->out, .codes = at->codes, .scale = at->scale,
                .weight = tape_is_param(t, at->in)};
    q->moving = tape_is_param(t, at->zero) ? at->zero : -1;
    if (!shape_pair(t, f, q) || !one_zero(f->zero, &zero)) {
        if (watches(t, q))
            return fail(err, RUNG_EUNSUPPORTED, "the range of '%s' cannot be observed: its shape "
                        "is known only when the model runs, or it has several zero points",
                        t->g->values[q->x].name);
        return RUNG_OK; /* evaluated node by node, without a gradient */
    }
    if (q->moving >= 0)
        zero = 0;
    q->lo = f->lo - zero;
    q->hi = f->hi - zero;
    q->zero = zero + (fake_type(f) == RUNG_I8 ? 128 : 0);
    q->grad_scale = grad_scale_of(t, q);
    q->kept = !q->weight && !t->constant[q->x] && q->channels == 1;
    t->pair_at[at->q] = t->pair_at[at->dq] = q;
    if (at->clip >= 0)
        t->pair_at[at->clip] = q;
    return RUNG_OK;
}

rung_status tape_find_pairs(tape *t, rung_error *err)
{
    rung_status st = RUNG_OK;
    for (size_t i = 0; i < t->g->n_nodes && st == RUNG_OK; i++) {
        fake_quantizer f;
        fake_nodes at;
        if (!t->g->nodes[i].dead && fake_read(t->g, &t->use, (int)i, &f, &at))
            st = note_pair(t, &f, &at, err);
    }
    return st;
}

pair *tape_pair_of(const tape *t, const node *n)
{
    return t->pair_at[n - t->g->nodes];
}

pair *tape_pair_behind(const tape *t, int v)
{
    const int producer = t->g->values[v].producer;
    pair *q = producer < 0 ? NULL : t->pair_at[producer];
    return q && q->y == v ? q : NULL;
}

/* --- real values ------------------------------------------------------------------------------ */
typedef struct fake_step {
    size_t    outer, channels, inner;
    fake_ends ends;
    int       zero; /* as the engine stores it */
    float     grad_scale;
    float    *seen; /* NULL: not observed */
} fake_step;

/* zero: where the zero point is that moves; NULL: it does not. */
static fake_ends ends_of(const fake_step *f, const float *zero)
{
    const float z = zero ? *zero : 0;
    return (fake_ends){f->ends.lo - z, f->ends.hi - z};
}

static rung_status step_of_pair(tape *t, const pair *q, step_run run, const char *kernel,
                                float *seen, step *s, rung_error *err)
{
    fake_step *f = arena_zero(t->mem, 1, sizeof *f);
    if (!f)
        return tape_out_of_memory(err);
    *f = (fake_step){q->outer, q->channels, q->inner, {(float)q->lo, (float)q->hi},
                     q->zero, q->grad_scale, seen};
    /* Sums over all elements: one thread. */
    *s = (step){.kernel = kernel, .run = run, .params = f, .library = true};
    return RUNG_OK;
}

/* Buffers: codes, scale, y, zero point (NULL: does not move). */
static void run_dequantize(const step *s, void *const *bufs, void *scratch, int thread,
                           int n_threads)
{
    const fake_step *f = s->params;
    const float *scale = bufs[1], *zero = bufs[3];
    size_t first, last;
    kernel_share(f->inner, 64, thread, n_threads, &first, &last);
    KERNEL_PICK(dequantize_u8)->run((const uint8_t *)bufs[0] + first, last - first, scale[0],
                                    f->zero + (zero ? (int)*zero : 0), (float *)bufs[2] + first);
}

/* Buffers: x, scale, y, zero point. */
static void run_quantize(const step *s, void *const *bufs, void *scratch, int thread, int n_threads)
{
    const fake_step *f = s->params;
    const fake_vec *vec = fake_vec_pick();
    const fake_ends ends = ends_of(f, bufs[3]);
    const float *x = bufs[0], *scale = bufs[1];
    float *y = bufs[2];
    for (size_t o = 0, at = 0; o < f->outer; o++) {
        if (f->inner == 1) {
            vec->quantize_row(x + at, scale, f->channels, ends, y + at);
            at += f->channels;
            continue;
        }
        for (size_t c = 0; c < f->channels; c++, at += f->inner)
            vec->quantize(x + at, f->inner, scale[c], ends, y + at);
    }
}

rung_status tape_moving_zero(tape *t, const pair *q, int *out, rung_error *err)
{
    *out = NO_CELL;
    return q->moving < 0 ? RUNG_OK : tape_need(t, q->moving, false, out, err);
}

rung_status tape_dequantize(tape *t, const pair *q, rung_error *err)
{
    const bool last = t->home[q->y];
    step s;
    int cells[4];
    rung_status st = step_of_pair(t, q, q->kept ? run_dequantize : run_quantize,
                                  q->kept ? "dequantize_u8" : "fake_quantize", NULL, &s, err);
    s.library = !q->kept;
    if (st == RUNG_OK && q->kept)
        st = cell_at(t, CELL_CODES, q->codes, 0, q->inner, NULL, &cells[0], err);
    else if (st == RUNG_OK)
        st = tape_need(t, q->x, last, &cells[0], err);
    if (st == RUNG_OK)
        st = tape_need(t, q->scale, false, &cells[1], err);
    if (st == RUNG_OK)
        st = cell_new(t, q->y, &cells[2], err);
    if (st == RUNG_OK)
        st = tape_moving_zero(t, q, &cells[3], err);
    if (st != RUNG_OK)
        return st;
    t->cell_of[q->y][last] = cells[2];
    return tape_add(t, &s, NULL, cells, 4, -1, NULL, err);
}

/* --- ranges ----------------------------------------------------------------------------------- */

float *tape_watch(const tape *t, pair *q)
{
    if (!watches(t, q))
        return NULL;
    q->watched = true;
    return &t->seen[2 * t->p->at[q->scale]];
}

/* Buffers: x. */
static void run_watch(const step *s, void *const *bufs, void *scratch, int thread, int n_threads)
{
    const fake_step *f = s->params;
    fake_vec_pick()->range(bufs[0], f->outer * f->channels * f->inner, f->seen);
}

static rung_status watch(tape *t, pair *q, rung_error *err)
{
    step s;
    int x;
    rung_status st = step_of_pair(t, q, run_watch, "range", tape_watch(t, q), &s, err);
    if (st == RUNG_OK)
        st = tape_need(t, q->x, t->home[q->x], &x, err);
    return st == RUNG_OK ? tape_add(t, &s, NULL, &x, 1, -1, NULL, err) : st;
}

rung_status tape_watch_rest(tape *t, rung_error *err)
{
    rung_status st = RUNG_OK;
    for (size_t i = 0; i < t->g->n_nodes && st == RUNG_OK; i++) {
        pair *q = t->pair_at[i];
        if (q && !q->watched && watches(t, q))
            st = tape_label(t, &t->g->nodes[i], watch(t, q, err), err);
    }
    return st;
}

/* --- gradients -------------------------------------------------------------------------------- */

/* Buffers: dy, x, scale, dx, dscale (NULL: not wanted), zero point (NULL: does not move). */
static void run_grad(const step *s, void *const *bufs, void *scratch, int thread, int n_threads)
{
    const fake_step *f = s->params;
    const fake_vec *vec = fake_vec_pick();
    const fake_ends ends = ends_of(f, bufs[5]);
    const float *dy = bufs[0], *x = bufs[1], *scale = bufs[2];
    float *dx = bufs[3], *dscale = bufs[4];
    if (f->seen)
        vec->range(x, f->outer * f->channels * f->inner, f->seen);
    for (size_t o = 0, at = 0; o < f->outer; o++) {
        for (size_t c = 0; c < f->channels; c++, at += f->inner) {
            const double sum = vec->grad(x + at, dy + at, f->inner, scale[c], ends, dx + at);
            if (dscale)
                dscale[c] += (float)sum * f->grad_scale;
        }
    }
}

/* The same, adding to dx. */
static void run_grad_add(const step *s, void *const *bufs, void *scratch, int thread, int n_threads)
{
    const fake_step *f = s->params;
    const fake_vec *vec = fake_vec_pick();
    const fake_ends ends = ends_of(f, bufs[5]);
    const float *dy = bufs[0], *x = bufs[1], *scale = bufs[2];
    float *dx = bufs[3], *dscale = bufs[4] ? bufs[4] : scratch;
    if (f->seen)
        vec->range(x, f->outer * f->channels * f->inner, f->seen);
    for (size_t o = 0, at = 0; o < f->outer; o++) {
        if (f->inner == 1) {
            vec->grad_row(x + at, dy + at, scale, f->channels, ends, f->grad_scale, dx + at,
                          dscale);
            at += f->channels;
            continue;
        }
        for (size_t c = 0; c < f->channels; c++, at += f->inner)
            dscale[c] += (float)vec->grad_add(x + at, dy + at, f->inner, scale[c], ends,
                                              dx + at) * f->grad_scale;
    }
}

rung_status tape_scale_grad(tape *t, const pair *q, int *out, rung_error *err)
{
    *out = NO_CELL;
    return t->active[q->scale] ? tape_param_grad(t, q->scale, out, err) : RUNG_OK;
}

rung_status tape_pair_backward(tape *t, pair *q, rung_error *err)
{
    if (q->product && t->grad[q->x] == NO_CELL && t->grad[q->product->y] == NO_CELL)
        return tape_product_backward(t, q, err);
    const bool last = !q->weight && t->home[q->x];
    step s;
    int cells[6];
    rung_status st = step_of_pair(t, q, q->weight ? run_grad_add : run_grad, "fake_quantize_grad",
                                  tape_watch(t, q), &s, err);
    s.scratch_bytes = q->channels * sizeof(float);
    if (st == RUNG_OK)
        st = tape_grad(t, q->y, last, &cells[0], err);
    if (st == RUNG_OK)
        st = tape_need(t, q->x, last, &cells[1], err);
    if (st == RUNG_OK)
        st = tape_need(t, q->scale, false, &cells[2], err);
    if (st == RUNG_OK)
        st = q->weight ? tape_param_grad(t, q->x, &cells[3], err)
                       : cell_new(t, q->x, &cells[3], err);
    if (st == RUNG_OK)
        st = tape_scale_grad(t, q, &cells[4], err);
    if (st == RUNG_OK)
        st = tape_moving_zero(t, q, &cells[5], err);
    s.in_place = !q->weight;
    if (st == RUNG_OK)
        st = tape_add(t, &s, NULL, cells, 6, q->weight ? -1 : 3, NULL, err);
    return st == RUNG_OK && !q->weight ? tape_contribute(t, q->x, cells[3], last, err) : st;
}
