/* Crop, flip, cutout, mixup. */
#include "train/augment.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/mem.h"
#include "base/rng.h"
#include "graph/graph.h"

struct augmenter {
    augment_options opt;
    uint64_t        seed;
    arena          *mem; /* of the last batch */
    batch           b;
};

/* --- options ---------------------------------------------------------------------------------- */

static bool take_word(const char *name, size_t n, const char *number, augment_options *out)
{
    char *end = NULL;
    const double v = number ? strtod(number, &end) : 0;
    const bool whole = number && end != number && (*end == '\0' || *end == ',') && isfinite(v);
    if (n == 4 && !strncmp(name, "flip", n)) {
        out->flip = true;
        return !number;
    }
    if (n == 5 && !strncmp(name, "mixup", n)) {
        out->mixup = (float)v;
        return whole && v > 0 && v <= 16;
    }
    if (!whole || v < 1 || v > 4096 || v != floor(v))
        return false;
    if (n == 4 && !strncmp(name, "crop", n))
        out->crop = (int)v;
    else if (n == 6 && !strncmp(name, "cutout", n))
        out->cutout = (int)v;
    else
        return false;
    return true;
}

rung_status augment_parse(const char *text, augment_options *out, rung_error *err)
{
    *out = (augment_options){ 0 };
    while (text && *text) {
        const size_t n = strcspn(text, ",");
        const char *equal = memchr(text, '=', n);
        const size_t name = equal ? (size_t)(equal - text) : n;
        if (!take_word(text, name, equal ? equal + 1 : NULL, out))
            return fail(err, RUNG_EARGUMENT, "augmentation '%.*s': crop=PIXELS, flip, "
                        "cutout=PIXELS and mixup=ALPHA are possible", (int)n, text);
        text += n + (text[n] == ',');
    }
    return RUNG_OK;
}

static rung_status not_images(rung_error *err)
{
    return fail(err, RUNG_EARGUMENT, "crop, flip and cutout want float32 images [N,C,H,W] or "
                "[N,H,W,C] with up to 4 channels");
}

static rung_status not_mixed(const char *input, dtype type, rung_error *err)
{
    return fail(err, RUNG_EARGUMENT, "mixup wants float32 inputs, '%s' is %s", input,
                dtype_name(type));
}

rung_status augmenter_create(const augment_options *opt, uint64_t seed, augmenter **out,
                             rung_error *err)
{
    *out = mem_zero(1, sizeof **out);
    if (!*out)
        return fail_memory(err, "augmentation", sizeof **out);
    (*out)->opt = *opt;
    (*out)->seed = seed;
    return RUNG_OK;
}

void augmenter_free(augmenter *a)
{
    if (!a)
        return;
    arena_free(a->mem);
    mem_free(a);
}

static rung_status check_images(const augment_options *opt, const value *v, rung_error *err)
{
    enum { MOST_CHANNELS = 4 };
    if (v->type != RUNG_UNDEFINED && v->type != RUNG_F32)
        return not_images(err);
    if (v->rank < 0)
        return RUNG_OK;
    if (v->rank != 4 || (v->dims[1] > MOST_CHANNELS && v->dims[3] > MOST_CHANNELS))
        return not_images(err);
    const bool first = v->dims[1] <= MOST_CHANNELS;
    const int64_t h = v->dims[first ? 2 : 1], w = v->dims[first ? 3 : 2];
    const int64_t side = h > 0 && (h < w || w < 1) ? h : w;
    if (side > 0 && (opt->crop >= side || opt->cutout >= side))
        return fail(err, RUNG_EARGUMENT, "%s=%d: nothing would be left of images of %lld x %lld",
                    opt->crop >= side ? "crop" : "cutout",
                    opt->crop >= side ? opt->crop : opt->cutout, (long long)h, (long long)w);
    return RUNG_OK;
}

rung_status augment_check(const augment_options *opt, const graph *g, rung_error *err)
{
    for (int i = 0; i < g->n_inputs && opt->mixup > 0; i++) {
        const value *v = &g->values[g->inputs[i]];
        if (v->type != RUNG_UNDEFINED && v->type != RUNG_F32)
            return not_mixed(v->name, v->type, err);
    }
    if (g->n_inputs < 1 || (!opt->crop && !opt->flip && !opt->cutout))
        return RUNG_OK;
    return check_images(opt, &g->values[g->inputs[0]], err);
}

/* --- images ----------------------------------------------------------------------------------- */

/* Strides of pixel (channel, y, x). */
typedef struct image_shape {
    size_t channels, h, w, of_channel, of_y, of_x, count;
} image_shape;

static bool shape_of(const tensor *t, image_shape *s)
{
    enum { MOST_CHANNELS = 4 };
    if (t->type != RUNG_F32 || t->rank != 4)
        return false;
    const size_t a = (size_t)t->dims[1], b = (size_t)t->dims[2], c = (size_t)t->dims[3];
    if (a <= MOST_CHANNELS)
        *s = (image_shape){ a, b, c, b * c, c, 1, a * b * c };
    else if (c <= MOST_CHANNELS)
        *s = (image_shape){ c, a, b, 1, b * c, c, a * b * c };
    else
        return false;
    return true;
}

/* y[., row, column] = x[., row + down, column + right], mirrored where asked; 0 from outside. */
static void move_image(const image_shape *s, const float *x, long down, long right, bool mirror,
                       float *y)
{
    for (size_t row = 0; row < s->h; row++)
        for (size_t column = 0; column < s->w; column++) {
            const long from_y = (long)row + down;
            const long from_x = (long)(mirror ? s->w - 1 - column : column) + right;
            const bool inside = from_y >= 0 && from_y < (long)s->h && from_x >= 0 &&
                                from_x < (long)s->w;
            for (size_t c = 0; c < s->channels; c++)
                y[c * s->of_channel + row * s->of_y + column * s->of_x] =
                    inside ? x[c * s->of_channel + (size_t)from_y * s->of_y +
                               (size_t)from_x * s->of_x] : 0;
        }
}

/* The square's middle is anywhere: at the border less of it is inside. */
static void blank(const image_shape *s, int side, rng *r, float *y)
{
    const long top = (long)rng_below(r, s->h) - side / 2;
    const long left = (long)rng_below(r, s->w) - side / 2;
    for (long row = top < 0 ? 0 : top; row < top + side && row < (long)s->h; row++)
        for (long column = left < 0 ? 0 : left; column < left + side && column < (long)s->w;
             column++)
            for (size_t c = 0; c < s->channels; c++)
                y[c * s->of_channel + (size_t)row * s->of_y + (size_t)column * s->of_x] = 0;
}

/* Numbers of one sample in one epoch. */
static rng numbers_of(const augmenter *a, size_t epoch, size_t sample)
{
    rng r;
    rng_seed(&r, a->seed);
    rng_seed(&r, rng_next(&r) ^ (uint64_t)epoch);
    rng_seed(&r, rng_next(&r) ^ (uint64_t)sample);
    return r;
}

static void change_image(const augmenter *a, const image_shape *s, const float *x, rng *r, float *y)
{
    const int crop = a->opt.crop;
    const uint64_t places = (uint64_t)(2 * crop + 1);
    const long down = (long)rng_below(r, places) - crop, right = (long)rng_below(r, places) - crop;
    const bool mirror = a->opt.flip && rng_below(r, 2);
    move_image(s, x, down, right, mirror, y);
    if (a->opt.cutout)
        blank(s, a->opt.cutout, r, y);
}

/* --- mixup ------------------------------------------------------------------------------------ */

/* Beta(a, a) by Joehnk's method, folded to [0, 1/2]. */
static float draw_share(rng *r, double a)
{
    for (;;) {
        const double x = pow(rng_uniform(r), 1 / a), y = pow(rng_uniform(r), 1 / a);
        if (x + y > 1 || x + y == 0)
            continue;
        const double share = x / (x + y);
        return (float)(share < 0.5 ? share : 1 - share);
    }
}

/* Every input of sample i takes its share of the one that follows at random. */
static rung_status mix(augmenter *a, const size_t *samples, size_t epoch, const int64_t **mixed,
                       const float **share, rung_error *err)
{
    const size_t n = a->b.n;
    float *shares = arena_zero(a->mem, n, sizeof *shares);
    size_t *with = arena_zero(a->mem, n, sizeof *with);
    int64_t *labels = arena_zero(a->mem, n, sizeof *labels);
    if (!shares || !with || !labels)
        return fail_memory(err, "mixup", n * sizeof *with);
    for (size_t i = 0; i < n; i++) {
        rng r = numbers_of(a, epoch, samples[i] ^ (size_t)1 << 62);
        shares[i] = draw_share(&r, a->opt.mixup);
        with[i] = (i + rng_below(&r, n)) % n;
        labels[i] = a->b.labels ? a->b.labels[with[i]] : -1;
    }
    for (int k = 0; k < a->b.n_inputs; k++) {
        tensor *t = &a->b.inputs[k].t;
        const size_t per = dims_count(t->rank - 1, t->dims + 1);
        if (t->type != RUNG_F32)
            return not_mixed(a->b.inputs[k].name, t->type, err);
        float *y = arena_alloc(a->mem, n * per * sizeof *y);
        if (!y)
            return fail_memory(err, "mixup", n * per * sizeof *y);
        const float *x = t->data;
        for (size_t i = 0; i < n; i++)
            for (size_t j = 0; j < per; j++)
                y[i * per + j] = (1 - shares[i]) * x[i * per + j] +
                                 shares[i] * x[with[i] * per + j];
        t->data = y;
    }
    *mixed = a->b.labels ? labels : NULL;
    *share = a->b.labels ? shares : NULL;
    return RUNG_OK;
}

/* ---------------------------------------------------------------------------------------------- */

static rung_status change_images(augmenter *a, const size_t *samples, size_t epoch, rung_error *err)
{
    tensor *t = &a->b.inputs[0].t;
    image_shape s;
    if (!a->opt.crop && !a->opt.flip && !a->opt.cutout)
        return RUNG_OK;
    if (!shape_of(t, &s))
        return not_images(err);
    float *y = arena_alloc(a->mem, a->b.n * s.count * sizeof *y);
    if (!y)
        return fail_memory(err, "augmentation", a->b.n * s.count * sizeof *y);
    for (size_t i = 0; i < a->b.n; i++) {
        rng r = numbers_of(a, epoch, samples[i]);
        change_image(a, &s, (const float *)t->data + i * s.count, &r, y + i * s.count);
    }
    t->data = y;
    return RUNG_OK;
}

rung_status augmenter_run(augmenter *a, const batch *b, const size_t *samples, size_t epoch,
                          const batch **out, const int64_t **mixed, const float **share,
                          rung_error *err)
{
    *mixed = NULL;
    *share = NULL;
    arena_free(a->mem);
    a->mem = arena_new();
    a->b = *b;
    a->b.inputs = a->mem ? arena_copy(a->mem, b->inputs, (size_t)b->n_inputs * sizeof *b->inputs)
                         : NULL;
    if (!a->b.inputs)
        return fail_memory(err, "augmentation", sizeof *b->inputs);
    rung_status st = change_images(a, samples, epoch, err);
    if (st == RUNG_OK && a->opt.mixup > 0)
        st = mix(a, samples, epoch, mixed, share, err);
    *out = &a->b;
    return st;
}
