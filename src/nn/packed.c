#include "nn/packed.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/threads.h"
#include "nn/layout.h"
#include "nn/vec.h"
#include "ops/packs.h"
#include "ops/quantize.h"

/* Which scale belongs to which element, in a form the kernels have. */
static rung_status map_of(const packed_weight *w, scale_map *map, rung_error *err)
{
    const tensor *c = w->codes, *z = w->zero;
    if (c->rank != 2 || c->dims[0] < 1 || c->dims[1] < 1 || w->scale->type != RUNG_F32 ||
        (z && (z->type != c->type || tensor_count(z) != tensor_count(w->scale))) ||
        (c->type != RUNG_I8 && c->type != RUNG_U8 && c->type != RUNG_I4 && c->type != RUNG_U4))
        return fail(err, RUNG_EUNSUPPORTED, "its weight is not a matrix of 4 or 8 bits");
    return scale_map_of(w->dq, c->rank, c->dims, w->scale->rank, w->scale->dims, map, err);
}

/* --- products --------------------------------------------------------------------------------- */
typedef struct packed_step {
    const vec_ops *ops;
    const vec_packed *w;
    const float *bias; /* [n padded to panels] */
    size_t rows, panels;
    float lo, hi;
    int add, out; /* buffers; add = -1: none */
} packed_step;

static void run_product(const step *s, void *const *bufs, void *scratch, int thread, int n_threads)
{
    const packed_step *p = s->params;
    const vec_packed_out o = {p->bias, p->add >= 0 ? bufs[p->add] : NULL, p->lo, p->hi};
    size_t first, last;
    share(p->panels, 1, thread, n_threads, &first, &last);
    p->ops->packed_product(p->w, bufs[0], p->rows, first, last, &o, scratch, bufs[p->out]);
}

/* How many steps of k share a scale; 0: they do not along k. */
static size_t block_along_k(const packed_weight *w, const scale_map *map, size_t k)
{
    const int64_t given = node_int(w->dq, "axis", 1);
    const int axis = (int)(given < 0 ? given + 2 : given), k_axis = w->transposed ? 1 : 0;
    if (map->kind == SCALE_TENSOR)
        return k;
    if (map->kind == SCALE_AXIS)
        return axis == k_axis ? 0 : k;
    return axis == k_axis ? map->block : 0;
}

/* Codes as unsigned numbers: signed ones are moved up by half their range. */
static int offset_of(dtype type)
{
    return type == RUNG_I8 ? 128 : type == RUNG_I4 ? 8 : 0;
}

typedef struct packed_parts {
    uint8_t *codes, *zeros;
    float *scales;
    size_t width, blocks;
} packed_parts;

/* Column c of the matrix to its place. */
static void pack_column(const packed_weight *w, const scale_map *map, const vec_packed *v,
                        const packed_parts *to, size_t c)
{
    const size_t panel = c / to->width, j = c % to->width, lanes = to->width / 2;
    const int offset = offset_of(w->codes->type);
    for (size_t i = 0; i < v->k; i++) {
        const size_t at = w->transposed ? c * v->k + i : i * v->n + c, s = scale_at(map, at);
        const unsigned q = (unsigned)(tensor_get_int(w->codes, at) + offset);
        const size_t row = panel * v->k + i;
        if (v->half)
            to->codes[row * lanes + j % lanes] |= (uint8_t)(j < lanes ? q : q << 4);
        else
            to->codes[row * to->width + j] = (uint8_t)q;
        if (i % v->block)
            continue;
        const size_t b = (panel * to->blocks + i / v->block) * to->width + j;
        to->scales[b] = ((const float *)w->scale->data)[s];
        if (to->zeros)
            to->zeros[b] = (uint8_t)(tensor_get_int(w->zero, s) + offset);
    }
}

static bool all_equal(const tensor *z)
{
    for (size_t i = 1; z && i < tensor_count(z); i++)
        if (tensor_get_int(z, i) != tensor_get_int(z, 0))
            return false;
    return true;
}

typedef struct packed_made {
    const packed_weight *w;
    const scale_map *map;
    size_t block;
} packed_made;

static rung_status make_packed(const void *ctx, arena *mem, const void **packed, rung_error *err)
{
    const packed_weight *w = ((const packed_made *)ctx)->w;
    const scale_map *map = ((const packed_made *)ctx)->map;
    const size_t block = ((const packed_made *)ctx)->block;
    const vec_ops *ops = vec_pick();
    vec_packed *v = arena_zero(mem, 1, sizeof *v);
    packed_parts to = {.width = ops->packed_width};
    if (!v)
        return fail_memory(err, "a step", sizeof *v);
    v->k = (size_t)w->codes->dims[w->transposed];
    v->n = (size_t)w->codes->dims[!w->transposed];
    v->block = block;
    v->half = w->codes->type == RUNG_I4 || w->codes->type == RUNG_U4;
    v->zero = (float)(offset_of(w->codes->type) + (w->zero ? tensor_get_int(w->zero, 0) : 0));
    const size_t panels = (v->n + to.width - 1) / to.width;
    to.blocks = (v->k + block - 1) / block;
    size_t n_codes, n_scales;
    if (!mul_fits(panels * to.width, v->k, &n_codes) ||
        !mul_fits(panels * to.width, to.blocks, &n_scales))
        return fail(err, RUNG_EUNSUPPORTED, "its weight is too large");
    to.codes = arena_zero(mem, v->half ? n_codes / 2 : n_codes, 1);
    to.scales = arena_zero(mem, n_scales, sizeof *to.scales);
    if (w->zero && !all_equal(w->zero))
        to.zeros = arena_zero(mem, n_scales, 1);
    if (!to.codes || !to.scales || (w->zero && !all_equal(w->zero) && !to.zeros))
        return fail_memory(err, "packed weights", n_codes);
    for (size_t c = 0; c < v->n; c++)
        pack_column(w, map, v, &to, c);
    v->codes = to.codes;
    v->scales = to.scales;
    v->zeros = to.zeros;
    *packed = v;
    return RUNG_OK;
}

/* The same in all plans where codes, scales and zero points are. */
static rung_status pack(const lowering *l, packed_weight *w, const scale_map *map, size_t block,
                        rung_error *err)
{
    const packed_made made = {w, map, block};
    const int64_t params[] = {w->sources[1],     w->sources[2],
                              w->transposed,     (int64_t)block,
                              node_int(w->dq, "axis", 1), node_int(w->dq, "block_size", 0)};
    const bool shared = w->sources[1] && (!w->zero || w->sources[2]);
    const vec_ops *ops = vec_pick();
    const pack_key key = {.source = shared ? w->sources[0] : 0,
                          .kind = "packed",
                          .params = params,
                          .n_params = sizeof params,
                          .more = &ops,
                          .n_more = sizeof ops};
    return pack_take(l, &key, make_packed, &made, &w->packed, err);
}

static rung_status take_bias(const lowering *l, const tensor *bias, float beta, size_t n,
                             size_t padded, const float **out, rung_error *err)
{
    float *v = arena_zero(l->mem, padded, sizeof *v);
    if (!v)
        return fail_memory(err, "a bias", padded * sizeof *v);
    const size_t count = bias ? tensor_count(bias) : 0;
    const bool row = bias && bias->rank > 0 && bias->dims[bias->rank - 1] == (int64_t)n;
    if (bias && (bias->type != RUNG_F32 || (count != 1 && (count != n || !row))))
        return fail(err, RUNG_EUNSUPPORTED, "its C is not a constant row");
    for (size_t i = 0; bias && i < n; i++)
        v[i] = beta * ((const float *)bias->data)[count == 1 ? 0 : i];
    *out = v;
    return RUNG_OK;
}

rung_status packed_product(const lowering *l, packed_weight *w, const tensor *bias, float beta,
                           step *s, rung_error *err)
{
    scale_map map;
    const operand *x = &l->in[0];
    rung_status st = map_of(w, &map, err);
    if (st != RUNG_OK)
        return st;
    const size_t k = (size_t)w->codes->dims[w->transposed], block = block_along_k(w, &map, k);
    const size_t n = (size_t)w->codes->dims[!w->transposed], count = stored_count(x);
    if (!block || x->rank < 1 || x->dims[x->rank - 1] != (int64_t)k || count == SIZE_MAX ||
        operand_channels_last(x) || operand_channels_last(&l->out[0]))
        return fail(err, RUNG_EUNSUPPORTED, "no packed row for these scales or shapes");
    packed_step *p = arena_zero(l->mem, 1, sizeof *p);
    if (!p)
        return fail_memory(err, "a step", sizeof *p);
    p->ops = vec_pick();
    p->panels = (n + p->ops->packed_width - 1) / p->ops->packed_width;
    if ((!w->packed && (st = pack(l, w, &map, block, err)) != RUNG_OK) ||
        (st = take_bias(l, bias, beta, n, p->panels * p->ops->packed_width, &p->bias, err)) !=
            RUNG_OK)
        return st;
    p->w = w->packed;
    p->rows = count / k;
    p->lo = l->epi.clamp ? l->epi.lo : -INFINITY;
    p->hi = l->epi.clamp ? l->epi.hi : INFINITY;
    p->add = l->epi.add;
    p->out = l->n_in;
    *s = (step){.run = run_product, .params = p, .macs = (int64_t)(p->rows * k * n)};
    s->scratch_bytes = VEC_PACKED_STEPS * p->ops->packed_width * sizeof(float);
    s->kernel = arena_printf(l->mem, "packed_%s %s", dtype_name(w->codes->type), p->ops->name);
    return s->kernel ? RUNG_OK : fail_memory(err, "a name", 1);
}

/* --- rows by index ---------------------------------------------------------------------------- */
typedef struct gather_step {
    packed_weight w;
    scale_map map;
    size_t n; /* indices */
    bool wide; /* int64 */
    packed_failure failure;
} gather_step;

static void run_gather(const step *s, void *const *bufs, void *scratch, int thread, int n_threads)
{
    const gather_step *g = s->params;
    const int64_t rows = g->w.codes->dims[0];
    const size_t length = (size_t)g->w.codes->dims[1];
    const float *scales = g->w.scale->data;
    float *y = bufs[1];
    *g->failure.status = RUNG_OK;
    for (size_t i = 0; i < g->n; i++, y += length) {
        int64_t at = g->wide ? ((const int64_t *)bufs[0])[i] : ((const int32_t *)bufs[0])[i];
        if (at < -rows || at >= rows) {
            *g->failure.status =
                fail(g->failure.error, RUNG_EMODEL, "index %lld is not in [-%lld, %lld)",
                     (long long)at, (long long)rows, (long long)rows);
            return;
        }
        const size_t first = (size_t)(at < 0 ? at + rows : at) * length;
        for (size_t j = 0; j < length; j++) {
            const size_t scale = scale_at(&g->map, first + j);
            const int64_t zero = g->w.zero ? tensor_get_int(g->w.zero, scale) : 0;
            y[j] = (float)(tensor_get_int(g->w.codes, first + j) - zero) * scales[scale];
        }
    }
}

rung_status packed_gather(const lowering *l, const packed_weight *w, packed_failure f, step *s,
                          rung_error *err)
{
    gather_step *g = arena_zero(l->mem, 1, sizeof *g);
    if (!g)
        return fail_memory(err, "a step", sizeof *g);
    const rung_status st = map_of(w, &g->map, err);
    if (st != RUNG_OK)
        return st;
    if (l->in[0].type != RUNG_I64 && l->in[0].type != RUNG_I32)
        return fail(err, RUNG_EUNSUPPORTED, "its indices are not int32 or int64");
    g->w = *w;
    g->n = stored_count(&l->in[0]);
    g->wide = l->in[0].type == RUNG_I64;
    g->failure = f;
    *s = (step){.kernel = "packed_gather", .run = run_gather, .params = g, .library = true};
    return RUNG_OK;
}
