#include "data/image.h"

#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <jpeglib.h>
#include <jerror.h>

/* libjpeg reports through callbacks and must not return from an error: we jump. */
typedef struct jpeg_reader {
    struct jpeg_decompress_struct info;
    struct jpeg_error_mgr errors;
    jmp_buf failed;
    bool jumped_memory;
    char message[JMSG_LENGTH_MAX];
} jpeg_reader;

static void on_error(j_common_ptr info)
{
    jpeg_reader *r = info->client_data;
    r->jumped_memory = info->err->msg_code == JERR_OUT_OF_MEMORY;
    info->err->format_message(info, r->message);
    longjmp(r->failed, 1);
}

/* Warnings are survivable noise (extra bytes before a marker), except the one that says the file
 * ends early: libjpeg would fill the rest with gray. */
static void on_message(j_common_ptr info, int level)
{
    if (level == -1 && info->err->msg_code == JWRN_JPEG_EOF)
        on_error(info);
}

static void on_output(j_common_ptr info)
{
    (void)info;
}

/* a * b / 255, rounded. */
static unsigned scale255(unsigned a, unsigned b)
{
    const unsigned t = a * b + 128;
    return ((t >> 8) + t) >> 8;
}

/* CMYK as JPEG files hold it: inverted, as Adobe writes it. Pillow takes all of them so. */
static void cmyk_to_rgb(const uint8_t *cmyk, int w, uint8_t *rgb)
{
    for (int x = 0; x < w; x++, cmyk += 4, rgb += 3)
        for (int c = 0; c < 3; c++)
            rgb[c] = (uint8_t)(cmyk[3] - scale255(255u - cmyk[c], cmyk[3]));
}

static void read_rows(jpeg_reader *r, const image *im, uint8_t *cmyk)
{
    while (r->info.output_scanline < r->info.output_height) {
        uint8_t *row = (uint8_t *)im->pixels +
                       (size_t)r->info.output_scanline * (size_t)im->w * (size_t)im->channels;
        uint8_t *target = cmyk ? cmyk : row;
        jpeg_read_scanlines(&r->info, &target, 1);
        if (cmyk)
            cmyk_to_rgb(cmyk, im->w, row);
    }
}

static rung_status decode(jpeg_reader *r, buffer *memory, image *out, rung_error *err)
{
    jpeg_read_header(&r->info, TRUE);
    const int components = r->info.num_components;
    if (components != 1 && components != 3 && components != 4)
        return fail(err, RUNG_EUNSUPPORTED, "a JPEG of %d components: 1, 3 and 4 are read",
                    components);
    rung_status st = image_place(out, r->info.image_width, r->info.image_height,
                                 components == 1 ? 1 : 3, memory, err);
    if (st != RUNG_OK)
        return st;
    r->info.out_color_space = components == 1   ? JCS_GRAYSCALE
                              : components == 3 ? JCS_RGB
                                                : JCS_CMYK;
    jpeg_start_decompress(&r->info);
    uint8_t *cmyk = NULL;
    if (components == 4) /* freed with the decoder */
        cmyk = r->info.mem->alloc_large((j_common_ptr)&r->info, JPOOL_IMAGE, (size_t)out->w * 4);
    read_rows(r, out, cmyk);
    jpeg_finish_decompress(&r->info);
    return RUNG_OK;
}

rung_status jpeg_decode(const unsigned char *bytes, size_t n, buffer *memory, image *out,
                        rung_error *err)
{
    jpeg_reader r;
    memset(&r, 0, sizeof r);
    r.info.err = jpeg_std_error(&r.errors);
    r.info.client_data = &r;
    r.errors.error_exit = on_error;
    r.errors.emit_message = on_message;
    r.errors.output_message = on_output;
    rung_status st;
    if (setjmp(r.failed) == 0) {
        jpeg_create_decompress(&r.info);
        jpeg_mem_src(&r.info, bytes, n);
        st = decode(&r, memory, out, err);
    } else {
        st = fail(err, r.jumped_memory ? RUNG_EMEMORY : RUNG_EFORMAT, "JPEG: %s", r.message);
    }
    jpeg_destroy_decompress(&r.info);
    return st;
}
