/* The preprocessing of one set of images, made ready to run: see `preprocess` in data/data.h. */
#ifndef RUNG_DATA_PIXELS_H
#define RUNG_DATA_PIXELS_H

#include "data/image.h"
#include "data/source.h"

typedef struct pixel_plan {
    preprocess pre;
    float table[3][256]; /* output channel, byte -> (byte / scale - mean) / std in float32 */
} pixel_plan;

void pixel_plan_init(pixel_plan *p, const preprocess *pre);

/* The preprocessed image as float32 [c][h][w] or [h][w][c]; im's pixels may be in s->decoded, the
 * values are in s->values. */
rung_status pixel_plan_run(const pixel_plan *p, const image *im, scratch *s, rung_tensor *out,
                           rung_error *err);

#endif
