#include "data/image.h"

#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <png.h>

#include "base/mem.h"

typedef struct png_reader {
    png_structp png;
    png_infop info;
    const unsigned char *bytes;
    size_t n, at;
    uint8_t **rows; /* [height] */
    char message[256];
} png_reader;

/* libpng must not return from an error: we jump. */
static void on_error(png_structp png, png_const_charp message)
{
    png_reader *r = png_get_error_ptr(png);
    snprintf(r->message, sizeof r->message, "%s", message);
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp message)
{
    (void)png;
    (void)message;
}

static void on_read(png_structp png, png_bytep out, size_t n)
{
    png_reader *r = png_get_io_ptr(png);
    if (n > r->n - r->at)
        png_error(png, "the file is truncated");
    memcpy(out, r->bytes + r->at, n);
    r->at += n;
}

/* 8 bits, no alpha, no palette: 1 or 3 channels come out. tRNS makes an alpha only with a palette,
 * so it is stripped too. */
static void set_transforms(png_reader *r)
{
    const int type = png_get_color_type(r->png, r->info);
    if (type == PNG_COLOR_TYPE_PALETTE)
        png_set_palette_to_rgb(r->png);
    if (type == PNG_COLOR_TYPE_GRAY && png_get_bit_depth(r->png, r->info) < 8)
        png_set_expand_gray_1_2_4_to_8(r->png);
    png_set_strip_16(r->png);
    png_set_strip_alpha(r->png);
    png_set_interlace_handling(r->png);
    png_read_update_info(r->png, r->info);
}

static rung_status decode(png_reader *r, buffer *memory, image *out, rung_error *err)
{
    png_set_read_fn(r->png, r, on_read);
    png_set_user_limits(r->png, IMAGE_MAX_SIDE, IMAGE_MAX_SIDE);
    png_read_info(r->png, r->info);
    const size_t w = png_get_image_width(r->png, r->info);
    const size_t h = png_get_image_height(r->png, r->info);
    const bool gray = !(png_get_color_type(r->png, r->info) & PNG_COLOR_MASK_COLOR);
    rung_status st = image_place(out, w, h, gray ? 1 : 3, memory, err);
    if (st != RUNG_OK)
        return st;
    set_transforms(r);
    const size_t stride = w * (size_t)out->channels;
    if (png_get_rowbytes(r->png, r->info) != stride)
        return fail(err, RUNG_EUNSUPPORTED, "PNG: rows of an unexpected length");
    r->rows = mem_alloc(h * sizeof *r->rows);
    if (!r->rows)
        return fail_memory(err, "the rows of an image", h * sizeof *r->rows);
    for (size_t y = 0; y < h; y++)
        r->rows[y] = (uint8_t *)out->pixels + y * stride;
    png_read_image(r->png, r->rows);
    png_read_end(r->png, NULL);
    return RUNG_OK;
}

rung_status png_decode(const unsigned char *bytes, size_t n, buffer *memory, image *out,
                       rung_error *err)
{
    png_reader r = {.bytes = bytes, .n = n};
    rung_status st;
    r.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &r, on_error, on_warning);
    r.info = r.png ? png_create_info_struct(r.png) : NULL;
    if (!r.info)
        st = fail_memory(err, "the PNG decoder", 0);
    else if (setjmp(png_jmpbuf(r.png)) == 0)
        st = decode(&r, memory, out, err);
    else
        st = fail(err, RUNG_EFORMAT, "PNG: %s", r.message);
    png_destroy_read_struct(&r.png, &r.info, NULL);
    mem_free(r.rows);
    return st;
}
