#include "data/data.h"

#include <ctype.h>
#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/image.h"

/* Where the parser stands, for messages and for what it reads next. */
typedef struct parser {
    const char *text, *at;
    locale_t locale; /* C: a number's point is a point everywhere */
    preprocess *out;
    int n_mean, n_std;
    rung_error *err;
} parser;

static rung_status complain(const parser *p, const char *at, const char *what)
{
    return fail(p->err, RUNG_EARGUMENT, "preprocess \"%s\", character %zu: %s", p->text,
                (size_t)(at - p->text) + 1, what);
}

static rung_status read_side(parser *p, int *out)
{
    const char *start = p->at;
    long v = 0;
    while (isdigit((unsigned char)*p->at) && v <= IMAGE_MAX_SIDE)
        v = v * 10 + (*p->at++ - '0');
    if (p->at == start || v < 1 || v > IMAGE_MAX_SIDE)
        return complain(p, start, "expected a number of pixels from 1 to 65535");
    *out = (int)v;
    return RUNG_OK;
}

/* N or WxH; *h = 0 for the first. */
static rung_status read_sides(parser *p, int *w, int *h)
{
    *h = 0;
    rung_status st = read_side(p, w);
    if (st != RUNG_OK || *p->at != 'x')
        return st;
    p->at++;
    return read_side(p, h);
}

static rung_status read_float(parser *p, float *out)
{
    const char *start = p->at;
    char *end = (char *)start;
    if (*start && strchr("+-.0123456789", *start))
        *out = strtof_l(start, &end, p->locale);
    if (end == start || !isfinite(*out))
        return complain(p, start, "expected a number");
    p->at = end;
    return RUNG_OK;
}

/* V or V:V:V into v; *count is 1 or 3. */
static rung_status read_channels(parser *p, float *v, int *count)
{
    const char *start = p->at;
    *count = 0;
    do {
        if (*count == 3)
            return complain(p, start, "expected one number or three, as in 0.5:0.5:0.5");
        p->at += *count > 0;
        rung_status st = read_float(p, &v[(*count)++]);
        if (st != RUNG_OK)
            return st;
    } while (*p->at == ':');
    if (*count == 2)
        return complain(p, start, "expected one number or three, as in 0.5:0.5:0.5");
    if (*count == 1)
        v[1] = v[2] = v[0];
    return RUNG_OK;
}

static bool read_word(parser *p, const char *word)
{
    const size_t n = strlen(word);
    if (strncmp(p->at, word, n) != 0 || (p->at[n] && p->at[n] != ','))
        return false;
    p->at += n;
    return true;
}

static rung_status key_resize(parser *p)
{
    return read_sides(p, &p->out->resize_w, &p->out->resize_h);
}

static rung_status key_crop(parser *p)
{
    rung_status st = read_sides(p, &p->out->crop_w, &p->out->crop_h);
    if (st == RUNG_OK && p->out->crop_h == 0)
        p->out->crop_h = p->out->crop_w;
    return st;
}

static rung_status key_color(parser *p)
{
    p->out->channels = 3;
    if (read_word(p, "rgb"))
        return RUNG_OK;
    p->out->bgr = read_word(p, "bgr");
    if (p->out->bgr)
        return RUNG_OK;
    p->out->channels = 1;
    return read_word(p, "gray") ? RUNG_OK : complain(p, p->at, "expected rgb, bgr or gray");
}

static rung_status key_scale(parser *p)
{
    const char *start = p->at;
    rung_status st = read_float(p, &p->out->scale);
    if (st == RUNG_OK && p->out->scale == 0.0f)
        return complain(p, start, "scale is a divisor and must not be 0");
    return st;
}

static rung_status key_mean(parser *p)
{
    return read_channels(p, p->out->mean, &p->n_mean);
}

static rung_status key_std(parser *p)
{
    const char *start = p->at;
    rung_status st = read_channels(p, p->out->std, &p->n_std);
    for (int c = 0; st == RUNG_OK && c < 3; c++)
        if (p->out->std[c] == 0.0f)
            return complain(p, start, "std is a divisor and must not be 0");
    return st;
}

static rung_status key_layout(parser *p)
{
    if (read_word(p, "nchw"))
        return RUNG_OK;
    p->out->nhwc = read_word(p, "nhwc");
    return p->out->nhwc ? RUNG_OK : complain(p, p->at, "expected nchw or nhwc");
}

static const struct {
    const char *name;
    rung_status (*read)(parser *p);
} keys[] = {
    {"resize", key_resize}, {"crop", key_crop}, {"color", key_color},   {"scale", key_scale},
    {"mean", key_mean},     {"std", key_std},   {"layout", key_layout},
};
enum { N_KEYS = sizeof keys / sizeof *keys };

/* KEY=VALUE at p->at; *seen has a bit for each key that was there before. */
static rung_status read_pair(parser *p, unsigned *seen)
{
    const char *start = p->at;
    const size_t n = strcspn(start, "=,");
    for (unsigned k = 0; k < N_KEYS; k++) {
        if (strncmp(start, keys[k].name, n) != 0 || keys[k].name[n])
            continue;
        if (start[n] != '=')
            return complain(p, start + n, "expected = and a value behind the key");
        if (*seen & 1u << k)
            return complain(p, start, "this key is there twice");
        *seen |= 1u << k;
        p->at = start + n + 1;
        rung_status st = keys[k].read(p);
        if (st == RUNG_OK && *p->at && *p->at != ',')
            return complain(p, p->at, "expected a comma or the end");
        return st;
    }
    return fail(
        p->err, RUNG_EARGUMENT,
        "preprocess \"%s\", character %zu: unknown key \"%.*s\"; the keys are resize, crop, "
        "color, scale, mean, std and layout",
        p->text, (size_t)(start - p->text) + 1, (int)(n < 32 ? n : 32), start);
}

/* Three means or deviations say that there are three channels. */
static rung_status settle_channels(parser *p)
{
    if (p->n_mean != 3 && p->n_std != 3)
        return RUNG_OK;
    if (p->out->channels == 1)
        return complain(p, p->text, "three means or stds do not fit color=gray: give one");
    p->out->channels = 3;
    return RUNG_OK;
}

rung_status preprocess_parse(const char *text, preprocess *out, rung_error *err)
{
    *out = (preprocess){.scale = 1.0f, .std = {1.0f, 1.0f, 1.0f}};
    if (!text || !*text)
        return RUNG_OK;
    parser p = {.text = text, .at = text, .out = out, .err = err};
    p.locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (!p.locale)
        return fail_memory(err, "a locale", 0);
    unsigned seen = 0;
    rung_status st = read_pair(&p, &seen);
    while (st == RUNG_OK && *p.at == ',') {
        p.at++;
        st = read_pair(&p, &seen);
    }
    if (st == RUNG_OK)
        st = settle_channels(&p);
    freelocale(p.locale);
    return st;
}
