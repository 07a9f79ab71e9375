/* Sets whose images lie uncompressed one behind the other: MNIST's idx files, CIFAR-10's records.
 */
#include "data/source.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "data/inflate.h"
#include "data/pixels.h"

typedef struct raw_images {
    pixel_plan plan;
    const uint8_t *first; /* the pixels of image 0 */
    size_t record_bytes;  /* from one image to the next */
    int w, h, channels;   /* a plane behind the other */
} raw_images;

static rung_status read_raw(const dataset *d, size_t i, scratch *s, rung_tensor *inputs,
                            rung_error *err)
{
    const raw_images *r = d->state;
    const uint8_t *planes = r->first + i * r->record_bytes;
    image im = {r->w, r->h, r->channels, planes};
    const size_t n = (size_t)r->w * (size_t)r->h;
    if (r->channels == 3) {
        uint8_t *pixels = buffer_need(&s->decoded, 3 * n);
        if (!pixels)
            return fail_memory(err, "the pixels of an image", 3 * n);
        for (size_t p = 0; p < n; p++)
            for (size_t c = 0; c < 3; c++)
                pixels[3 * p + c] = planes[c * n + p];
        im.pixels = pixels;
    }
    source_was_read(d, r->record_bytes);
    return pixel_plan_run(&r->plan, &im, s, inputs, err);
}

static rung_status use_raw(dataset *d, const raw_images *r, const preprocess *pre, size_t total,
                           rung_error *err)
{
    raw_images *state = arena_copy(d->mem, r, sizeof *r);
    if (!state)
        return fail_memory(err, "a set of images", sizeof *r);
    pixel_plan_init(&state->plan, pre);
    source_one_input(d);
    d->state = state;
    d->total = total;
    d->read = read_raw;
    return RUNG_OK;
}

/* Labels are bytes, `step` apart. */
static rung_status use_byte_labels(dataset *d, const uint8_t *bytes, size_t step, size_t n,
                                   rung_error *err)
{
    int64_t *labels = arena_zero(d->mem, n, sizeof *labels);
    if (!labels)
        return fail_memory(err, "the labels", n * sizeof *labels);
    for (size_t i = 0; i < n; i++)
        labels[i] = bytes[i * step];
    d->labels = labels;
    return RUNG_OK;
}

enum { IDX_MOST_RANK = 3, IDX_UNSIGNED_BYTE = 8 };

typedef struct idx {
    size_t dims[IDX_MOST_RANK];
    const uint8_t *data;
} idx;

static bool is_gzip(const file_map *map)
{
    return map->size >= 2 && map->data[0] == 0x1f && map->data[1] == 0x8b;
}

/* The first n bytes of a file that may be compressed. */
static rung_status peek(const file_map *map, unsigned char *out, size_t n, rung_error *err)
{
    if (is_gzip(map))
        return inflate_start(INFLATE_GZIP, map->data, map->size, out, n, err);
    if (map->size < n)
        return fail(err, RUNG_EFORMAT, "not an idx file, or it is truncated within its header");
    memcpy(out, map->data, n);
    return RUNG_OK;
}

/* The header: two zeros, the element type, the rank, then the dimensions, big-endian. *bytes: of
 * the data behind it. */
static rung_status read_header(const file_map *map, int rank, idx *out, size_t *bytes,
                               rung_error *err)
{
    unsigned char head[4 + 4 * IDX_MOST_RANK];
    rung_status st = peek(map, head, 4, err);
    if (st == RUNG_OK && (head[0] || head[1]))
        return fail(err, RUNG_EFORMAT, "not an idx file");
    if (st == RUNG_OK && (head[2] != IDX_UNSIGNED_BYTE || head[3] != rank))
        return fail(err, RUNG_EFORMAT,
                    "an idx file of type %d and %d dimensions; expected %s: type 8 (bytes) and %d",
                    head[2], head[3], rank == 1 ? "labels" : "images", rank);
    if (st == RUNG_OK)
        st = peek(map, head, 4 + 4 * (size_t)rank, err);
    *bytes = 1;
    for (int i = 0; st == RUNG_OK && i < rank; i++) {
        const unsigned char *p = head + 4 + 4 * i;
        out->dims[i] = (size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];
        if (out->dims[i] == 0 || !mul_fits(*bytes, out->dims[i], bytes))
            return fail(err, RUNG_EFORMAT, "idx dimension %d is %zu", i, out->dims[i]);
    }
    return st;
}

static rung_status truncated_idx(size_t have, size_t need, rung_error *err)
{
    return fail(err, RUNG_EFORMAT, "an idx file of %zu bytes where its header says %zu%s", have,
                need, have < need ? ": it is truncated" : "");
}

static rung_status inflate_idx(const file_map *map, size_t bytes, arena *mem, const uint8_t **out,
                               rung_error *err)
{
    if (bytes / INFLATE_MOST_RATIO > map->size)
        return truncated_idx(map->size, bytes, err);
    uint8_t *data = arena_alloc(mem, bytes);
    if (!data)
        return fail_memory(err, "an idx file", bytes);
    *out = data;
    return inflate_whole(INFLATE_GZIP, map->data, map->size, data, bytes, err);
}

static rung_status load_idx(const file_map *map, int rank, arena *mem, idx *out, rung_error *err)
{
    const size_t n_head = 4 + 4 * (size_t)rank;
    const uint8_t *file = map->data;
    size_t bytes = 0;
    rung_status st = read_header(map, rank, out, &bytes, err);
    if (st != RUNG_OK)
        return st;
    if (bytes > SIZE_MAX - n_head)
        return truncated_idx(map->size, bytes, err);
    if (is_gzip(map))
        st = inflate_idx(map, n_head + bytes, mem, &file, err);
    else if (map->size != n_head + bytes)
        st = truncated_idx(map->size, n_head + bytes, err);
    out->data = file + n_head;
    return st;
}

/* rank 3: images, 1: labels. */
static rung_status open_idx(const char *path, int rank, arena *mem, idx *out, source_file **file,
                            rung_error *err)
{
    rung_status st = source_map(path, mem, file, err);
    if (st != RUNG_OK)
        return st;
    st = load_idx(&(*file)->map, rank, mem, out, err);
    return st == RUNG_OK ? st : fail_at(err, st, "%s", path);
}

rung_status source_idx(dataset *d, const char *images_path, const char *labels_path,
                       const preprocess *pre, rung_error *err)
{
    idx images = {0}, labels = {0};
    source_file *images_file, *labels_file;
    rung_status st = open_idx(images_path, 3, d->mem, &images, &images_file, err);
    if (st != RUNG_OK)
        return st;
    d->file = is_gzip(&images_file->map) ? NULL : images_file;
    const size_t n = images.dims[0], h = images.dims[1], w = images.dims[2];
    if (h > IMAGE_MAX_SIDE || w > IMAGE_MAX_SIDE || h * w > IMAGE_MAX_PIXELS)
        return fail(err, RUNG_EFORMAT, "%s: images of %zux%zu are too large", images_path, w, h);
    if (labels_path) {
        st = open_idx(labels_path, 1, d->mem, &labels, &labels_file, err);
        if (st == RUNG_OK && labels.dims[0] != n)
            return fail(err, RUNG_EFORMAT, "%s: %zu labels for the %zu images of %s", labels_path,
                        labels.dims[0], n, images_path);
        if (st == RUNG_OK)
            st = use_byte_labels(d, labels.data, 1, n, err);
        if (st != RUNG_OK)
            return st;
    }
    const raw_images r = {
        .first = images.data, .record_bytes = w * h, .w = (int)w, .h = (int)h, .channels = 1};
    return use_raw(d, &r, pre, n, err);
}

rung_status source_cifar10(dataset *d, const char *path, const preprocess *pre, rung_error *err)
{
    enum { SIDE = 32, PIXELS = 3 * SIDE * SIDE, RECORD = 1 + PIXELS, CLASSES = 10 };
    rung_status st = source_map(path, d->mem, &d->file, err);
    if (st != RUNG_OK)
        return st;
    const file_map map = d->file->map;
    if (map.size == 0 || map.size % RECORD)
        return fail(
            err, RUNG_EFORMAT,
            "%s: %zu bytes are not whole CIFAR-10 records of %d: it is truncated or another "
            "format",
            path, map.size, (int)RECORD);
    const size_t n = map.size / RECORD;
    for (size_t i = 0; i < n; i++)
        if (map.data[i * RECORD] >= CLASSES)
            return fail(err, RUNG_EFORMAT, "%s: record %zu has the label %d; CIFAR-10 has 0 to 9",
                        path, i, map.data[i * RECORD]);
    st = use_byte_labels(d, map.data, RECORD, n, err);
    const raw_images r = {
        .first = map.data + 1, .record_bytes = RECORD, .w = SIDE, .h = SIDE, .channels = 3};
    return st == RUNG_OK ? use_raw(d, &r, pre, n, err) : st;
}
