#include "data/resize.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"

/* Weights are integers of this many fractional bits: 8 bits of pixel and 2 of headroom remain. */
#define WEIGHT_BITS 22

/* How the outputs [0, n) of one axis are made: output i is the sum over j in [0, count[i]) of
 * weight[i * taps + j] * input[start[i] + j]. */
typedef struct axis {
    int n, taps;
    int *start, *count;
    int32_t *weight;
    void *memory;
} axis;

static rung_status axis_alloc(axis *a, int n, double support, rung_error *err)
{
    a->n = n;
    a->taps = (int)ceil(support) * 2 + 1;
    size_t bytes;
    if (!mul_fits((size_t)n, sizeof(int) * (2 + (size_t)a->taps), &bytes) ||
        !(a->memory = mem_alloc(bytes)))
        return fail_memory(err, "the weights of a resize", bytes);
    a->start = a->memory;
    a->count = a->start + n;
    a->weight = (int32_t *)(a->count + n);
    return RUNG_OK;
}

static double triangle(double x)
{
    x = fabs(x);
    return x < 1.0 ? 1.0 - x : 0.0;
}

/* The weights of the output pixel whose centre is `center` in input pixels: a triangle of half
 * width `support` (1 or, shrinking, the scale), cut at the border, of sum 1. */
static void axis_weights(axis *a, int i, double center, double support, int in)
{
    int first = (int)(center - support + 0.5), last = (int)(center + support + 0.5);
    first = first < 0 ? 0 : first;
    last = last > in ? in : last;
    const double step = 1.0 / support;
    double sum = 0.0;
    for (int x = first; x < last; x++)
        sum += triangle((x - center + 0.5) * step);
    for (int x = first; x < last; x++) {
        double w = triangle((x - center + 0.5) * step);
        if (sum != 0.0)
            w /= sum;
        a->weight[(size_t)i * (size_t)a->taps + (size_t)(x - first)] =
            (int32_t)(0.5 + w * (1 << WEIGHT_BITS));
    }
    a->start[i] = first;
    a->count[i] = last - first;
}

/* Outputs [first, first + n) of an axis resized from `in` to `out` pixels. */
static rung_status axis_make(axis *a, int in, int out, int first, int n, rung_error *err)
{
    const double scale = (double)in / out;
    const double support = scale < 1.0 ? 1.0 : scale;
    rung_status st = axis_alloc(a, n, support, err);
    if (st != RUNG_OK)
        return st;
    for (int i = 0; i < n; i++)
        axis_weights(a, i, (first + i + 0.5) * scale, support, in);
    return RUNG_OK;
}

/* Weights are not negative and sum to 1 within their rounding, so only the top can overflow. */
static uint8_t to_byte(int32_t sum)
{
    sum >>= WEIGHT_BITS;
    return (uint8_t)(sum > 255 ? 255 : sum);
}

static void row_gray(const axis *a, const uint8_t *in, uint8_t *out)
{
    for (int i = 0; i < a->n; i++) {
        const int32_t *w = a->weight + (size_t)i * (size_t)a->taps;
        const uint8_t *p = in + a->start[i];
        int32_t sum = 1 << (WEIGHT_BITS - 1);
        for (int j = 0; j < a->count[i]; j++)
            sum += p[j] * w[j];
        out[i] = to_byte(sum);
    }
}

static void row_rgb(const axis *a, const uint8_t *in, uint8_t *out)
{
    for (int i = 0; i < a->n; i++, out += 3) {
        const int32_t *w = a->weight + (size_t)i * (size_t)a->taps;
        const uint8_t *p = in + 3 * (size_t)a->start[i];
        int32_t r = 1 << (WEIGHT_BITS - 1), g = r, b = r;
        for (int j = 0; j < a->count[i]; j++, p += 3) {
            r += p[0] * w[j];
            g += p[1] * w[j];
            b += p[2] * w[j];
        }
        out[0] = to_byte(r);
        out[1] = to_byte(g);
        out[2] = to_byte(b);
    }
}

/* One output row of the vertical pass from `in`, the row that a->start[i] names; a block of columns
 * at a time, so that the sums stay in the cache. */
static void column_pass(const axis *a, int i, const uint8_t *in, size_t stride, size_t n,
                        uint8_t *out)
{
    enum { BLOCK = 256 };
    const int32_t *w = a->weight + (size_t)i * (size_t)a->taps;
    for (size_t at = 0; at < n; at += BLOCK) {
        const size_t width = n - at < BLOCK ? n - at : BLOCK;
        int32_t sum[BLOCK];
        for (size_t x = 0; x < width; x++)
            sum[x] = 1 << (WEIGHT_BITS - 1);
        for (int j = 0; j < a->count[i]; j++) {
            const uint8_t *p = in + (size_t)j * stride + at;
            for (size_t x = 0; x < width; x++)
                sum[x] += p[x] * w[j];
        }
        for (size_t x = 0; x < width; x++)
            out[at + x] = to_byte(sum[x]);
    }
}

/* Rows of pixels somewhere in memory: row y begins at first + (y - y0) * stride. */
typedef struct rows {
    const uint8_t *first;
    size_t stride;
    int y0;
} rows;

static const uint8_t *row_at(const rows *r, int y)
{
    return r->first + (size_t)(y - r->y0) * r->stride;
}

/* Rows [y0, y1) of im, their columns resized to those of ax. */
static rung_status horizontal(const image *im, const axis *ax, int y0, int y1, buffer *temp,
                              rows *out, rung_error *err)
{
    const size_t c = (size_t)im->channels, stride = (size_t)ax->n * c;
    const size_t bytes = stride * (size_t)(y1 - y0);
    if (bytes > c * IMAGE_MAX_PIXELS)
        return fail(err, RUNG_EUNSUPPORTED, "resizing %d rows to %d columns needs too much memory",
                    y1 - y0, ax->n);
    uint8_t *to = buffer_need(temp, bytes);
    if (!to)
        return fail_memory(err, "the rows of a resize", bytes);
    for (int y = y0; y < y1; y++) {
        const uint8_t *in = im->pixels + (size_t)y * (size_t)im->w * c;
        (c == 1 ? row_gray : row_rgb)(ax, in, to + (size_t)(y - y0) * stride);
    }
    *out = (rows){to, stride, y0};
    return RUNG_OK;
}

static void vertical(const rows *in, const axis *ay, const image *out)
{
    const size_t width = (size_t)out->w * (size_t)out->channels;
    for (int i = 0; i < ay->n; i++)
        column_pass(ay, i, row_at(in, ay->start[i]), in->stride, width,
                    (uint8_t *)out->pixels + (size_t)i * width);
}

static void copy_rows(const rows *in, int y, const image *out)
{
    const size_t width = (size_t)out->w * (size_t)out->channels;
    for (int i = 0; i < out->h; i++)
        memcpy((uint8_t *)out->pixels + (size_t)i * width, row_at(in, y + i), width);
}

rung_status resize_bilinear(const image *im, int w, int h, window part, buffer *temp,
                            buffer *memory, image *out, rung_error *err)
{
    axis ax = {0}, ay = {0};
    int y0 = part.y, y1 = part.y + part.h;
    const size_t c = (size_t)im->channels;
    rows in = {im->pixels + (size_t)part.x * c, (size_t)im->w * c, 0};
    rung_status st = image_place(out, (size_t)part.w, (size_t)part.h, im->channels, memory, err);
    if (st == RUNG_OK && h != im->h) {
        st = axis_make(&ay, im->h, h, part.y, part.h, err);
        if (st == RUNG_OK) {
            y0 = ay.start[0];
            y1 = ay.start[part.h - 1] + ay.count[part.h - 1];
        }
    }
    if (st == RUNG_OK && w != im->w)
        st = axis_make(&ax, im->w, w, part.x, part.w, err);
    if (st == RUNG_OK && w != im->w)
        st = horizontal(im, &ax, y0, y1, temp, &in, err);
    if (st == RUNG_OK && h != im->h)
        vertical(&in, &ay, out);
    else if (st == RUNG_OK)
        copy_rows(&in, part.y, out);
    mem_free(ax.memory);
    mem_free(ay.memory);
    return st;
}
