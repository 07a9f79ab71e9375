/* Bilinear resizing with antialias, to the byte as Pillow's Image.resize(..., BILINEAR): columns,
 * then rows. Pillow 13 takes the rows first where the height shrinks much more than the width, and
 * then differs by at most one level. */
#ifndef RUNG_DATA_RESIZE_H
#define RUNG_DATA_RESIZE_H

#include "data/image.h"

/* A part of the resized image: only this is computed. */
typedef struct window {
    int x, y, w, h;
} window;

/* Resizes im to w x h and gives the window `part` of the result, which lies within it. temp and
 * memory: buffers that im's pixels are not in; the result is in memory. */
rung_status resize_bilinear(const image *im, int w, int h, window part, buffer *temp,
                            buffer *memory, image *out, rung_error *err);

#endif
