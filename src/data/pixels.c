#include "data/pixels.h"

#include "data/resize.h"

void pixel_plan_init(pixel_plan *p, const preprocess *pre)
{
    p->pre = *pre;
    const float scale = pre->scale != 0.0f ? pre->scale : 1.0f;
    for (int c = 0; c < 3; c++) {
        const float std = pre->std[c] != 0.0f ? pre->std[c] : 1.0f;
        for (int v = 0; v < 256; v++)
            p->table[c][v] = ((float)v / scale - pre->mean[c]) / std;
    }
}

/* The size after `resize`; the longer side is rounded down, as torchvision does. */
static rung_status resized_size(const preprocess *pre, const image *im, int *w, int *h,
                                rung_error *err)
{
    int64_t to_w = im->w, to_h = im->h;
    if (pre->resize_w && pre->resize_h) {
        to_w = pre->resize_w;
        to_h = pre->resize_h;
    } else if (pre->resize_w && im->w <= im->h) {
        to_w = pre->resize_w;
        to_h = to_w * im->h / im->w;
    } else if (pre->resize_w) {
        to_h = pre->resize_w;
        to_w = to_h * im->w / im->h;
    }
    if (to_w > IMAGE_MAX_SIDE || to_h > IMAGE_MAX_SIDE)
        return fail(err, RUNG_EUNSUPPORTED,
                    "an image of %dx%d would be resized to %lldx%lld; sides up to %d are possible",
                    im->w, im->h, (long long)to_w, (long long)to_h, IMAGE_MAX_SIDE);
    *w = (int)to_w;
    *h = (int)to_h;
    return RUNG_OK;
}

/* spare / 2 rounded half to even: Python's round, which torchvision's CenterCrop calls. */
static int centered(int spare)
{
    const int half = spare / 2;
    return spare % 2 ? half + half % 2 : half;
}

static rung_status crop_window(const preprocess *pre, int w, int h, window *out, rung_error *err)
{
    *out = (window){0, 0, w, h};
    if (!pre->crop_w)
        return RUNG_OK;
    if (pre->crop_w > w || pre->crop_h > h)
        return fail(err, RUNG_EARGUMENT,
                    "crop=%dx%d is larger than the image, %dx%d%s: choose a larger resize",
                    pre->crop_w, pre->crop_h, w, h, pre->resize_w ? " after resize" : "");
    *out = (window){centered(w - pre->crop_w), centered(h - pre->crop_h), pre->crop_w, pre->crop_h};
    return RUNG_OK;
}

/* ITU-R 601-2 luma in 16-bit fixed point: Pillow's. */
static uint8_t luma(const uint8_t *rgb)
{
    return (uint8_t)((rgb[0] * 19595u + rgb[1] * 38470u + rgb[2] * 7471u + 0x8000u) >> 16);
}

static void values_gray(const pixel_plan *p, const image *im, float *out)
{
    const size_t n = (size_t)im->w * (size_t)im->h;
    for (size_t i = 0; i < n; i++)
        out[i] = p->table[0][im->channels == 1 ? im->pixels[i] : luma(im->pixels + 3 * i)];
}

/* Output channel c to out[0], out[step], ... */
static void values_channel(const pixel_plan *p, const image *im, int c, float *out, size_t step)
{
    const size_t n = (size_t)im->w * (size_t)im->h, in_step = (size_t)im->channels;
    const uint8_t *in = im->pixels + (im->channels == 1 ? 0 : p->pre.bgr ? 2 - c : c);
    const float *table = p->table[c];
    for (size_t i = 0; i < n; i++)
        out[i * step] = table[in[i * in_step]];
}

static rung_status make_values(const pixel_plan *p, const image *im, scratch *s, rung_tensor *out,
                               rung_error *err)
{
    const int channels = p->pre.channels ? p->pre.channels : im->channels;
    const size_t n = (size_t)im->w * (size_t)im->h, bytes = n * (size_t)channels * sizeof(float);
    float *values = buffer_need(&s->values, bytes);
    if (!values)
        return fail_memory(err, "the values of an image", bytes);
    if (channels == 1)
        values_gray(p, im, values);
    for (int c = 0; channels == 3 && c < 3; c++)
        values_channel(p, im, c, p->pre.nhwc ? values + c : values + (size_t)c * n,
                       p->pre.nhwc ? 3 : 1);
    *out = (rung_tensor){RUNG_F32, 3, {channels, im->h, im->w}, values};
    if (p->pre.nhwc)
        *out = (rung_tensor){RUNG_F32, 3, {im->h, im->w, channels}, values};
    return RUNG_OK;
}

rung_status pixel_plan_run(const pixel_plan *p, const image *im, scratch *s, rung_tensor *out,
                           rung_error *err)
{
    int w = 0, h = 0;
    window part = {0};
    image sized = *im;
    rung_status st = resized_size(&p->pre, im, &w, &h, err);
    if (st == RUNG_OK)
        st = crop_window(&p->pre, w, h, &part, err);
    if (st == RUNG_OK && (p->pre.resize_w || p->pre.crop_w))
        st = resize_bilinear(im, w, h, part, &s->rows, &s->resized, &sized, err);
    if (st == RUNG_OK)
        st = make_values(p, &sized, s, out, err);
    return st;
}
