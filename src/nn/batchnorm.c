/* BatchNormalization: with the batch's own statistics, and with those of its operands. */
#include <math.h>
#include <string.h>

#include "base/threads.h"
#include "nn/backward.h"
#include "nn/backward_rows.h"
#include "nn/rows.h"
#include "nn/vec_train.h"

/* Elements of a block, whose passes follow each other in the first cache. */
#define BLOCK 4096
#define PART  16 /* a plain image's elements, beside each other as if they were channels */

typedef struct norm {
    const vec_train *ops;
    size_t           outer, channels, inner; /* as they lie: inner = 1, or planes of one channel */
    float            epsilon;
    /* Buffers; -1: not there, not wanted. */
    int x, scale, bias, mean, variance, y, dy, dx, dscale, dbias;
    bool batch; /* the statistics are the batch's: they depend on x */
} norm;

/* What one channel's elements are mapped by: y = a u + b (v - m) + d. */
typedef struct channel_map {
    float *a, *b, *m, *d; /* [channels] */
} channel_map;

static channel_map make_map(const norm *k, void *scratch)
{
    float *v = scratch;
    const size_t n = k->channels;
    return (channel_map){v, v + n, v + 2 * n, v + 3 * n};
}

/* --- walks over the elements of channels [first, last) ---------------------------------------- */
typedef enum pass {
    PASS_SUM,    /* s += x */
    PASS_SPREAD, /* q += (x - mean)^2 */
    PASS_PAIR,   /* s += dy, q += dy (x - mean) */
} pass;

/* n rows of `stride`, of which c columns count. */
static void sum_rows(const norm *k, pass p, const float *x, const float *mean, const float *dy,
                     size_t n, size_t stride, size_t c, float *s, float *q)
{
    if (p == PASS_SUM)
        k->ops->column_sum(x, n, stride, c, s);
    else if (p == PASS_SPREAD)
        k->ops->column_spread(x, mean, n, stride, c, q);
    else
        k->ops->column_pair(x, mean, dy, n, stride, c, s, q);
}

/* A plane of `inner` elements of one channel: in columns of PART, which are joined. */
static void sum_plane(const norm *k, pass p, const float *x, float mean, const float *dy, float *s,
                      float *q)
{
    float sums[PART] = {0}, squares[PART] = {0}, means[PART];
    const size_t rows = k->inner / PART, whole = rows * PART, rest = k->inner - whole;
    for (int i = 0; i < PART; i++)
        means[i] = mean;
    if (rows > 0)
        sum_rows(k, p, x, means, dy, rows, PART, PART, sums, squares);
    if (rest > 0)
        sum_rows(k, p, x + whole, means, dy ? dy + whole : NULL, 1, PART, rest, sums, squares);
    for (int i = 0; i < PART; i++) {
        if (s)
            *s += sums[i];
        if (q)
            *q += squares[i];
    }
}

static size_t block_rows(const norm *k)
{
    return k->channels < BLOCK ? BLOCK / k->channels : 1;
}

/* s, q: [channels], from 0 on; of channels [first, last). */
static void sum_channels(const norm *k, pass p, const float *x, const float *mean, const float *dy,
                         size_t first, size_t last, float *s, float *q)
{
    const size_t rows = block_rows(k), c = k->channels;
    for (size_t i = first; i < last; i++) {
        if (s)
            s[i] = 0.0f;
        if (q)
            q[i] = 0.0f;
    }
    for (size_t r = 0; k->inner == 1 && r < k->outer; r += rows) {
        const size_t n = k->outer - r < rows ? k->outer - r : rows, at = r * c + first;
        sum_rows(k, p, x + at, mean ? mean + first : NULL, dy ? dy + at : NULL, n, c,
                 last - first, s ? s + first : NULL, q ? q + first : NULL);
    }
    for (size_t r = 0; k->inner > 1 && r < k->outer; r++) {
        for (size_t i = first; i < last; i++) {
            const size_t at = (r * c + i) * k->inner;
            sum_plane(k, p, x + at, mean ? mean[i] : 0.0f, dy ? dy + at : NULL, s ? s + i : NULL,
                      q ? q + i : NULL);
        }
    }
}

static void map_plane(const norm *k, const channel_map *m, size_t c, const float *u,
                      const float *v, float *y)
{
    float all[4][PART];
    const float values[4] = {m->a[c], m->b[c], m->m[c], m->d[c]};
    const size_t rows = k->inner / PART, whole = rows * PART, rest = k->inner - whole;
    for (int i = 0; i < 4 * PART; i++)
        all[i / PART][i % PART] = values[i / PART];
    k->ops->affine(u, v, rows, PART, PART, all[0], all[1], all[2], all[3], y);
    if (rest > 0)
        k->ops->affine(u ? u + whole : NULL, v + whole, 1, PART, rest, all[0], all[1], all[2],
                       all[3], y + whole);
}

/* y = a u + b (v - m) + d of channels [first, last); u may be NULL. */
static void map_channels(const norm *k, const channel_map *m, const float *u, const float *v,
                         size_t first, size_t last, float *y)
{
    const size_t rows = block_rows(k), c = k->channels;
    for (size_t r = 0; k->inner == 1 && r < k->outer; r += rows) {
        const size_t n = k->outer - r < rows ? k->outer - r : rows, at = r * c + first;
        k->ops->affine(u ? u + at : NULL, v + at, n, c, last - first, m->a + first, m->b + first,
                       m->m + first, m->d + first, y + at);
    }
    for (size_t r = 0; k->inner > 1 && r < k->outer; r++) {
        for (size_t i = first; i < last; i++) {
            const size_t at = (r * c + i) * k->inner;
            map_plane(k, m, i, u ? u + at : NULL, v + at, y + at);
        }
    }
}

/* --- forward ---------------------------------------------------------------------------------- */
static float inverse(const norm *k, float variance)
{
    return 1.0f / sqrtf(variance + k->epsilon);
}

static void batch_statistics(const norm *k, const float *x, size_t first, size_t last, float *mean,
                             float *variance)
{
    const float count = (float)(k->outer * k->inner);
    sum_channels(k, PASS_SUM, x, NULL, NULL, first, last, mean, NULL);
    for (size_t c = first; c < last; c++)
        mean[c] /= count;
    sum_channels(k, PASS_SPREAD, x, mean, NULL, first, last, NULL, variance);
    for (size_t c = first; c < last; c++)
        variance[c] /= count;
}

static void norm_run(const step *s, void *const *bufs, void *scratch, int thread, int n_threads)
{
    const norm *k = s->params;
    const channel_map m = make_map(k, scratch);
    const float *x = bufs[k->x], *scale = bufs[k->scale], *bias = bufs[k->bias];
    float *mean = bufs[k->mean], *variance = bufs[k->variance];
    size_t first, last;
    share(k->channels, 16, thread, n_threads, &first, &last);
    if (first == last)
        return;
    if (k->batch)
        batch_statistics(k, x, first, last, mean, variance);
    for (size_t c = first; c < last; c++) {
        m.a[c] = 0.0f;
        m.b[c] = scale[c] * inverse(k, variance[c]);
        m.m[c] = mean[c];
        m.d[c] = bias[c];
    }
    map_channels(k, &m, NULL, x, first, last, bufs[k->y]);
}

/* --- backward --------------------------------------------------------------------------------- */
/* With h = (x - mean) inv: dbias = sum dy, dscale = sum dy h, and, where mean and inv hang on x,
 * dx = scale inv (dy - mean(dy) - h mean(dy h)); otherwise dx = scale inv dy. */
static void norm_backward_run(const step *s, void *const *bufs, void *scratch, int thread,
                              int n_threads)
{
    const norm *k = s->params;
    const channel_map m = make_map(k, scratch);
    const float *x = bufs[k->x], *dy = bufs[k->dy], *scale = bufs[k->scale];
    const float *mean = bufs[k->mean], *variance = bufs[k->variance];
    const float count = (float)(k->outer * k->inner);
    float *dscale = k->dscale >= 0 ? bufs[k->dscale] : NULL;
    float *dbias = k->dbias >= 0 ? bufs[k->dbias] : NULL;
    size_t first, last;
    share(k->channels, 16, thread, n_threads, &first, &last);
    if (first == last)
        return;
    if (k->batch || dscale || dbias)
        sum_channels(k, PASS_PAIR, x, mean, dy, first, last, m.d, m.b);
    for (size_t c = first; c < last; c++) {
        const float inv = inverse(k, variance[c]);
        if (dbias)
            dbias[c] = m.d[c];
        if (dscale)
            dscale[c] = m.b[c] * inv;
        m.a[c] = scale[c] * inv;
        m.m[c] = mean[c];
        m.b[c] = k->batch ? -m.a[c] * m.b[c] * inv * inv / count : 0.0f;
        m.d[c] = k->batch ? -m.a[c] * m.d[c] / count : 0.0f;
    }
    if (k->dx >= 0 && bufs[k->dx])
        map_channels(k, &m, dy, x, first, last, bufs[k->dx]);
}

/* --- lowering --------------------------------------------------------------------------------- */
static bool vectors_fit(const lowering *l)
{
    for (int i = 1; i < 5; i++) {
        if (!has_input(l, i) || l->in[i].type != RUNG_F32 || l->in[i].rank != 1 ||
            l->in[i].dims[0] != l->in[0].dims[1])
            return false;
    }
    return true;
}

static rung_status open_norm(const lowering *l, norm **out, rung_error *err)
{
    const operand *x = &l->in[0];
    const rung_status st = rows_check(l, err);
    if (st != RUNG_OK)
        return st;
    if (x->rank < 2 || x->constant || !vectors_fit(l) || !operand_same_storage(x, &l->out[0]))
        return fail(err, RUNG_EUNSUPPORTED, "no fast row for these operands");
    norm *k = arena_zero(l->mem, 1, sizeof *k);
    if (!k)
        return fail_memory(err, "a step", sizeof *k);
    *k = (norm){.ops = vec_train_pick(), .channels = (size_t)x->dims[1]};
    k->epsilon = node_float(l->n, "epsilon", 1e-5f);
    k->inner = operand_channels_last(x) ? 1 : stored_count(x) / k->channels / (size_t)x->dims[0];
    k->outer = stored_count(x) / k->channels / k->inner;
    k->scale = 1;
    k->bias = 2;
    k->dy = k->dx = k->dscale = k->dbias = -1;
    *out = k;
    return RUNG_OK;
}

static void finish(const norm *k, step_run run, const char *kernel, step *s)
{
    *s = (step){.kernel = kernel, .run = run, .params = k};
    s->scratch_bytes = 4 * k->channels * sizeof(float);
}

rung_status nn_lower_batchnorm_training(const lowering *l, step *s, rung_error *err)
{
    norm *k = NULL;
    const rung_status st = open_norm(l, &k, err);
    if (st != RUNG_OK)
        return st;
    k->batch = true;
    k->y = 3;
    k->mean = 4;
    k->variance = 5;
    finish(k, norm_run, "batchnorm_training_f32 vec", s);
    return RUNG_OK;
}

rung_status nn_lower_batchnorm_backward(const lowering *l, step *s, rung_error *err)
{
    norm *k = NULL;
    const rung_status st = open_norm(l, &k, err);
    if (st != RUNG_OK)
        return st;
    k->batch = true;
    k->mean = 2;
    k->variance = 3;
    k->dy = 4;
    k->dx = 5;
    k->dscale = 6;
    k->dbias = 7;
    finish(k, norm_backward_run, "batchnorm_training_backward_f32 vec", s);
    return RUNG_OK;
}

rung_status batchnorm_training(const lowering *l, step *s, rung_error *err)
{
    norm *k = NULL;
    const rung_status st = open_norm(l, &k, err);
    if (st != RUNG_OK)
        return st;
    k->mean = 3;
    k->variance = 4;
    k->y = at_out(l, 0);
    finish(k, norm_run, "batchnorm_f32 vec", s);
    return RUNG_OK;
}

rung_status batchnorm_backward(const lowering *l, unsigned wanted, step *s, rung_error *err)
{
    norm *k = NULL;
    if (wanted > 7)
        return fail(err, RUNG_EUNSUPPORTED, "the gradient of fixed statistics");
    const rung_status st = open_norm(l, &k, err);
    if (st != RUNG_OK)
        return st;
    k->mean = 3;
    k->variance = 4;
    k->dy = at_dout(l, 0);
    k->dx = wants(wanted, 0) ? at_din(l, 0) : -1;
    k->dscale = wants(wanted, 1) ? at_din(l, 1) : -1;
    k->dbias = wants(wanted, 2) ? at_din(l, 2) : -1;
    finish(k, norm_backward_run, "batchnorm_backward_f32 vec", s);
    return RUNG_OK;
}
