/* Convolutions and products with 16-bit operands. */
#include "ops/lower_wide.h"

#include <stdlib.h>
#include <string.h>

/* What the lines of a chunk take in a thread's scratch: its second-level cache holds them. */
#define CHUNK_BYTES ((int64_t)256 << 10)
/* The most that one line may take. */
#define LINE_BYTES ((int64_t)64 << 20)

static size_t round64(size_t n)
{
    return (n + 63) / 64 * 64;
}

static size_t plane_bytes(const conv_shape *lines)
{
    return round64((size_t)lines->in_h * (size_t)lines->in_w * (size_t)lines->in_c);
}

static size_t sum_bytes(const conv_shape *lines)
{
    return round64((size_t)lines->out_h * (size_t)lines->out_w * (size_t)lines->out_c *
                   sizeof(int32_t));
}

/* --- running ---------------------------------------------------------------------------------- */

/* n codes of the input, or n times the zero point where x is NULL; lo only of 8-bit codes. */
static void put_codes(const wide_conv_step *c, const char *x, size_t n, uint8_t *hi, uint8_t *lo)
{
    if (!x) {
        memset(lo, c->x_zero & 255, n);
        if (c->x_wide)
            memset(hi, c->x_zero >> 8, n);
    } else if (c->x_wide) {
        KERNEL_PICK(split_u16)->run((const uint16_t *)(const void *)x, n, hi, lo);
    } else {
        memcpy(lo, x, n);
    }
}

/* The input lines of n output lines from `oy` on, of the image x, with what is around them. */
static void put_lines(const wide_conv_step *c, const char *x, int oy, const conv_shape *lines,
                      uint8_t *hi, uint8_t *lo)
{
    const conv_shape *s = &c->shape;
    const size_t pixel = (size_t)s->in_c, width = (size_t)lines->in_w * pixel;
    const size_t left = (size_t)(s->pad_left < lines->in_w ? s->pad_left : lines->in_w) * pixel;
    const size_t line = (size_t)s->in_w * pixel;
    const size_t inside = line < width - left ? line : width - left;
    int64_t iy = (int64_t)oy * s->stride_h - s->pad_top;
    if (left == 0 && width == line && iy >= 0 && iy + lines->in_h <= s->in_h) { /* one piece */
        put_codes(c, x + (((size_t)iy * line) << c->x_wide), (size_t)lines->in_h * width, hi, lo);
        return;
    }
    for (int i = 0; i < lines->in_h; i++, iy++, hi += width, lo += width) {
        if (iy < 0 || iy >= s->in_h) {
            put_codes(c, NULL, width, hi, lo);
            continue;
        }
        put_codes(c, NULL, left, hi, lo);
        put_codes(c, x + (((size_t)iy * line) << c->x_wide), inside, hi + left, lo + left);
        put_codes(c, NULL, width - left - inside, hi + left + inside, lo + left + inside);
    }
}

/* n output lines from line `at` on, counted over all images. */
static void run_lines(const wide_conv_step *c, const char *x, char *y, size_t at, int n,
                      char *scratch)
{
    const conv_shape *s = &c->shape;
    conv_shape lines = c->lines;
    lines.out_h = n;
    lines.in_h = c->lines.in_h - (c->chunk - n) * s->stride_h;
    const size_t image = at / (size_t)s->out_h, plane = plane_bytes(&c->lines);
    const size_t image_size = (size_t)s->in_h * (size_t)s->in_w * (size_t)s->in_c;
    const size_t line_size = (size_t)s->out_w * (size_t)s->out_c;
    uint8_t *lo = (uint8_t *)scratch, *hi = lo + (c->x_wide ? plane : 0);
    int32_t *lo_sums = (int32_t *)(void *)(hi + plane);
    int32_t *hi_sums = lo_sums + (c->x_wide ? sum_bytes(&c->lines) / sizeof(int32_t) : 0);
    void *rest = (char *)hi_sums + sum_bytes(&c->lines);
    put_lines(c, x + ((image * image_size) << c->x_wide), (int)(at % (size_t)s->out_h), &lines, hi,
              lo);
    c->kernel->run_sums(&lines, c->packed, lo, 0, lo_sums, rest, 0, 1);
    if (c->x_wide)
        c->kernel->run_sums(&lines, c->packed, hi, 0, hi_sums, rest, 0, 1);
    KERNEL_PICK(wide_requants)
        ->run(c->x_wide ? hi_sums : NULL, lo_sums, (size_t)n * (size_t)s->out_w, (size_t)s->out_c,
              &c->q, y + ((at * line_size) << c->q.y_wide));
}

static void run_conv(const step *s, void *const *bufs, void *scratch, int thread, int n_threads)
{
    const wide_conv_step *c = s->params;
    const size_t out_h = (size_t)c->shape.out_h;
    size_t line, end;
    kernel_share((size_t)c->shape.batch * out_h, 1, thread, n_threads, &line, &end);
    while (line < end) {
        size_t n = out_h - line % out_h; /* of this image */
        n = end - line < n ? end - line : n;
        n = n < (size_t)c->chunk ? n : (size_t)c->chunk;
        run_lines(c, bufs[0], bufs[c->out], line, (int)n, scratch);
        line += n;
    }
}

/* --- building --------------------------------------------------------------------------------- */

/* A pointwise convolution whose pixels are those of its input: each is a line, which cuts evenly.
 */
static conv_shape as_lines(conv_shape s)
{
    if (s.kernel_h != 1 || s.kernel_w != 1 || s.stride_h != 1 || s.stride_w != 1 ||
        s.pad_top != 0 || s.pad_left != 0 || s.in_h != s.out_h || s.in_w != s.out_w ||
        (int64_t)s.in_h * s.in_w > INT32_MAX)
        return s;
    s.in_h = s.out_h = s.in_h * s.in_w;
    s.in_w = s.out_w = 1;
    return s;
}

static int64_t span(int64_t n, int stride, int kernel, int dilation)
{
    return (n - 1) * stride + (int64_t)(kernel - 1) * dilation + 1;
}

/* Bytes of codes and sums of n output lines; all factors are below 2^31, the products are checked
 * against LINE_BYTES one after the other. */
static int64_t lines_bytes(const conv_shape *s, int64_t n, int64_t width, bool x_wide)
{
    const int64_t in_h = span(n, s->stride_h, s->kernel_h, s->dilation_h);
    const int64_t planes = x_wide ? 2 : 1;
    if (width > LINE_BYTES / s->in_c || in_h > LINE_BYTES / (width * s->in_c))
        return LINE_BYTES + 1;
    return planes * (in_h * width * s->in_c + 4 * n * s->out_w * s->out_c);
}

/* As many lines as CHUNK_BYTES hold; fours, as some kernels make that many at once. */
static rung_status choose_lines(wide_conv_step *c, rung_error *err)
{
    const conv_shape *s = &c->shape;
    const int64_t width = span(s->out_w, s->stride_w, s->kernel_w, s->dilation_w);
    int64_t n = 1;
    if (lines_bytes(s, 1, width, c->x_wide) > LINE_BYTES)
        return fail(err, RUNG_EUNSUPPORTED, "a line of it is too long for its kernel of 16 bits");
    while (n < s->out_h && lines_bytes(s, n + 1, width, c->x_wide) <= CHUNK_BYTES)
        n++;
    if (n > 4 && n < s->out_h)
        n = n / 4 * 4;
    c->chunk = (int)n;
    c->lines = *s;
    c->lines.batch = 1;
    c->lines.pad_top = c->lines.pad_left = 0;
    c->lines.out_h = (int)n;
    c->lines.in_h = (int)span(n, s->stride_h, s->kernel_h, s->dilation_h);
    c->lines.in_w = (int)width;
    return RUNG_OK;
}

/* What each channel's sum begins with: its bias, less the zero point's part. */
static rung_status fix_sums(const lowering *l, wide_conv_step *c, const int8_t *w,
                            const int32_t *bias, rung_error *err)
{
    const size_t n = (size_t)c->shape.out_c;
    const size_t per = stored_count(&l->in[1]) / n;
    int32_t *hi = arena_zero(l->mem, n, sizeof *hi), *lo = arena_zero(l->mem, n, sizeof *lo);
    if (!hi || !lo)
        return fail_memory(err, "sums", n * sizeof *hi);
    for (size_t o = 0; o < n; o++) {
        int32_t sum = 0;
        for (size_t i = 0; i < per; i++)
            sum += w[o * per + i];
        const int32_t b = bias ? bias[o] : 0, low = b & 255;
        hi[o] = (b - low) / 256 - (c->x_zero >> 8) * sum;
        lo[o] = low - (c->x_zero & 255) * sum;
    }
    c->q.hi_fixed = hi;
    c->q.lo_fixed = lo;
    return RUNG_OK;
}

rung_status lower_wide_conv(const lowering *l, const conv_shape *shape, const int8_t *w,
                            const int32_t *bias, const float *mult, step *s, rung_error *err)
{
    const operand *x = &l->in[0], *y = &l->out[0];
    wide_conv_step *c = arena_zero(l->mem, 1, sizeof *c);
    if (!c)
        return fail_memory(err, "a step", sizeof *c);
    *c = (wide_conv_step){
        .shape = as_lines(*shape), .x_wide = operand_is_wide(x), .x_zero = x->zero, .out = l->n_in};
    c->q = (wide_requant){
        .mult = mult, .zero = y->zero, .lo = l->q_lo, .hi = l->q_hi, .y_wide = operand_is_wide(y)};
    rung_status st = choose_lines(c, err);
    if (st != RUNG_OK || (st = fix_sums(l, c, w, bias, err)) != RUNG_OK)
        return st;
    c->kernel = conv_pick(&c->lines);
    const size_t planes = c->x_wide ? 2 : 1;
    const char *name =
        arena_printf(l->mem, "conv_%ss8 %s%s", c->x_wide ? "u16" : "u8", c->kernel->name,
                     c->x_wide == c->q.y_wide ? ""
                     : c->q.y_wide            ? " to u16"
                                              : " to u8");
    if (!name)
        return fail_memory(err, "a name", 1);
    st = lower_conv_packed(l, c->kernel, &c->lines, w, NULL, 0, &c->packed, err);
    *s = (step){.kernel = name,
                .run = run_conv,
                .params = c,
                .scratch_bytes = planes * (plane_bytes(&c->lines) + sum_bytes(&c->lines)) +
                                 c->kernel->scratch_size(&c->lines)};
    return st;
}
