/* JPEG and PNG files to 8-bit pixels, as Pillow's convert("RGB") gives them. */
#ifndef RUNG_DATA_IMAGE_H
#define RUNG_DATA_IMAGE_H

#include <stdint.h>

#include "base/status.h"
#include "data/buffer.h"

/* What one image may have: a small file can claim to be huge. */
#define IMAGE_MAX_PIXELS 100000000
#define IMAGE_MAX_SIDE 65535

typedef struct image {
    int w, h, channels;    /* channels: 1 (gray) or 3 (R, G, B interleaved) */
    const uint8_t *pixels; /* [h][w][channels] */
} image;

/* Decodes by content, not by name. Alpha is dropped, a palette and CMYK become RGB, 16-bit samples
 * their high byte (Pillow does so in colour, but cuts gray off at 255), EXIF orientation is
 * ignored; a truncated file is an error. The pixels are in `memory`. Messages do not name the file:
 * the caller does. */
rung_status image_decode(const unsigned char *bytes, size_t n, buffer *memory, image *out,
                         rung_error *err);

rung_status jpeg_decode(const unsigned char *bytes, size_t n, buffer *memory, image *out,
                        rung_error *err);
rung_status png_decode(const unsigned char *bytes, size_t n, buffer *memory, image *out,
                       rung_error *err);

/* The memory for out's w, h and channels, or the reason why not. */
rung_status image_place(image *out, size_t w, size_t h, int channels, buffer *memory,
                        rung_error *err);

#endif
