#include "data/image.h"

#include <string.h>

rung_status image_place(image *out, size_t w, size_t h, int channels, buffer *memory,
                        rung_error *err)
{
    if (w == 0 || h == 0 || w > IMAGE_MAX_SIDE || h > IMAGE_MAX_SIDE || w * h > IMAGE_MAX_PIXELS)
        return fail(err, RUNG_EFORMAT,
                    "the image is %zux%zu; at most %d megapixels of sides up to %d are read", w, h,
                    IMAGE_MAX_PIXELS / 1000000, IMAGE_MAX_SIDE);
    const size_t bytes = w * h * (size_t)channels;
    uint8_t *pixels = buffer_need(memory, bytes);
    if (!pixels)
        return fail_memory(err, "the pixels of an image", bytes);
    *out = (image){(int)w, (int)h, channels, pixels};
    return RUNG_OK;
}

rung_status image_decode(const unsigned char *bytes, size_t n, buffer *memory, image *out,
                         rung_error *err)
{
    if (n == 0)
        return fail(err, RUNG_EFORMAT, "the file is empty");
    if (n >= 3 && memcmp(bytes, "\xff\xd8\xff", 3) == 0)
        return jpeg_decode(bytes, n, memory, out, err);
    if (n >= 8 && memcmp(bytes, "\x89PNG\r\n\x1a\n", 8) == 0)
        return png_decode(bytes, n, memory, out, err);
    return fail(err, RUNG_EFORMAT, "neither a JPEG nor a PNG file");
}
