#include "data/spec.h"

#include <string.h>
#include <sys/stat.h>

#include "base/file.h"

static const char *const format_names[] = {
    [DATA_IMAGES] = "images", [DATA_NPZ] = "npz",         [DATA_NPY] = "npy",
    [DATA_IDX] = "idx",       [DATA_CIFAR10] = "cifar10", [DATA_RANDOM] = "random",
};
enum { N_FORMATS = sizeof format_names / sizeof *format_names };

enum { MOST_DIGITS = 18 };

/* The digits [at, end) as a number, or `absent` when there are none. */
static size_t number(const char *at, const char *end, size_t absent)
{
    size_t v = 0;
    for (const char *p = at; p < end; p++)
        v = v * 10 + (size_t)(*p - '0');
    return at == end ? absent : v;
}

/* Takes a trailing @A:B, @A: or @:B from text. A name that ends otherwise keeps its @. */
static rung_status take_range(char *text, data_spec *out, rung_error *err)
{
    out->first = 0;
    out->last = SPEC_TO_THE_END;
    char *at = strrchr(text, '@');
    if (!at)
        return RUNG_OK;
    const size_t a = strspn(at + 1, "0123456789");
    const char *colon = at + 1 + a;
    const size_t b = *colon == ':' ? strspn(colon + 1, "0123456789") : 0;
    if (*colon != ':' || colon[1 + b] || a + b == 0)
        return RUNG_OK;
    if (a > MOST_DIGITS || b > MOST_DIGITS)
        return fail(err, RUNG_EARGUMENT, "range %s: the number is too large", at);
    out->first = number(at + 1, colon, 0);
    out->last = number(colon + 1, colon + 1 + b, SPEC_TO_THE_END);
    if (out->first >= out->last)
        return fail(err, RUNG_EARGUMENT,
                    "range %s holds no sample; it counts from 0 and ends "
                    "before its second number",
                    at);
    *at = '\0';
    return RUNG_OK;
}

/* Takes "FORMAT:" from *text. "random" stands alone. */
static bool take_format(char **text, data_format *out)
{
    if (strcmp(*text, "random") == 0) {
        *text += strlen(*text);
        *out = DATA_RANDOM;
        return true;
    }
    for (int f = DATA_UNKNOWN + 1; f < N_FORMATS; f++) {
        const size_t n = strlen(format_names[f]);
        if (f == DATA_RANDOM || strncmp(*text, format_names[f], n) != 0 || (*text)[n] != ':')
            continue;
        *text += n + 1;
        *out = (data_format)f;
        return true;
    }
    return false;
}

static bool ends_with(const char *text, const char *end)
{
    const size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/* MNIST's pair of names: X-images-idx3-Y and X-labels-idx1-Y. *out = NULL when there is none. */
static rung_status guess_labels(const char *path, arena *mem, const char **out, rung_error *err)
{
    static const char images[] = "images-idx3", labels[] = "labels-idx1";
    struct stat st;
    *out = NULL;
    const char *slash = strrchr(path, '/');
    const char *at = strstr(slash ? slash : path, images);
    if (!at)
        return RUNG_OK;
    char *guess = arena_strdup(mem, path);
    if (!guess)
        return fail_memory(err, "a path", strlen(path));
    memcpy(guess + (at - path), labels, sizeof labels - 1);
    if (stat(guess, &st) == 0)
        *out = guess;
    return RUNG_OK;
}

static rung_status recognise(data_spec *s, arena *mem, rung_error *err)
{
    enum { CIFAR10_RECORD = 3073 };
    struct stat st;
    const char *problem = "the format is not recognised";
    if (stat(s->path, &st) != 0)
        problem = "no such file or folder";
    else if (S_ISDIR(st.st_mode))
        s->format = DATA_IMAGES;
    else if (ends_with(s->path, ".npz"))
        s->format = DATA_NPZ;
    else if (ends_with(s->path, ".npy"))
        s->format = DATA_NPY;
    else if (ends_with(s->path, "ubyte") || ends_with(s->path, "ubyte.gz"))
        s->format = DATA_IDX;
    else if (ends_with(s->path, ".bin") && st.st_size % CIFAR10_RECORD == 0)
        s->format = DATA_CIFAR10;
    if (s->format == DATA_UNKNOWN)
        return fail(err, RUNG_EIO,
                    "data \"%s\": %s; give a folder of images, a .npz, .npy or idx file, or "
                    "FORMAT:PATH with FORMAT one of images, npz, npy, idx, cifar10, random",
                    s->path, problem);
    return s->format == DATA_IDX ? guess_labels(s->path, mem, &s->labels_path, err) : RUNG_OK;
}

rung_status spec_parse(const char *text, arena *mem, data_spec *out, rung_error *err)
{
    *out = (data_spec){0};
    char *rest = arena_strdup(mem, text);
    if (!rest)
        return fail_memory(err, "a data set's name", strlen(text));
    rung_status st = take_range(rest, out, err);
    if (st != RUNG_OK)
        return fail_at(err, st, "data \"%s\"", text);
    const bool is_named = take_format(&rest, &out->format);
    out->path = rest;
    if (!is_named)
        return recognise(out, mem, err);
    if (out->format != DATA_RANDOM && !*rest)
        return fail(err, RUNG_EARGUMENT, "data \"%s\": a path is missing behind the colon", text);
    char *comma = out->format == DATA_IDX ? strchr(rest, ',') : NULL;
    if (comma) {
        *comma = '\0';
        out->labels_path = comma + 1;
    }
    return RUNG_OK;
}
