/* External data: files beside the model, mapped once each. */
#include "onnx/parts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

typedef struct place {
    const char *location;
    size_t      offset, length;
    bool        has_length;
} place;

static bool parse_size(const char *text, size_t *out)
{
    char *end;
    if (*text < '0' || *text > '9')
        return false;
    errno = 0;
    const unsigned long long v = strtoull(text, &end, 10);
    *out = (size_t)v;
    return errno == 0 && *end == '\0';
}

static rung_status read_place(const tensor_proto *p, const char *name, place *out, rung_error *err)
{
    *out = (place){ .location = "" };
    for (size_t i = 0; i < p->n_external_data; i++) {
        const char *key = proto_text(p->external_data[i]->key);
        const char *text = proto_text(p->external_data[i]->value);
        bool good = true;
        if (!strcmp(key, "location"))
            out->location = text;
        else if (!strcmp(key, "offset"))
            good = parse_size(text, &out->offset);
        else if (!strcmp(key, "length"))
            good = out->has_length = parse_size(text, &out->length);
        if (!good)
            return fail(err, RUNG_EFORMAT, "tensor '%s': the %s of its external data is '%s'", name,
                        key, text);
    }
    if (!*out->location)
        return fail(err, RUNG_EFORMAT, "tensor '%s': its external data has no location", name);
    return RUNG_OK;
}

/* Relative, and no component is "..". */
static bool stays_inside(const char *location)
{
    if (*location == '/')
        return false;
    for (const char *s = location; s; s = strchr(s, '/')) {
        s += *s == '/';
        if (!strncmp(s, "..", 2) && (s[2] == '/' || s[2] == '\0'))
            return false;
    }
    return true;
}

static void close_map(void *map)
{
    file_map_close(map);
}

/* Maps a file for the life of the graph. */
static rung_status map_file(reader *r, const char *location, file_map *out, rung_error *err)
{
    const char *path = arena_printf(r->scratch, "%s/%s", r->folder, location);
    file_map *map = arena_zero(r->g->mem, 1, sizeof *map);
    if (!path || !map)
        return fail_memory(err, location, sizeof *map);
    const rung_status st = file_map_open(path, map, err);
    if (st != RUNG_OK)
        return st;
    if (arena_defer(r->g->mem, close_map, map) != 0) {
        file_map_close(map);
        return fail_memory(err, location, sizeof *map);
    }
    *out = *map;
    return RUNG_OK;
}

static rung_status find_file(reader *r, const char *location, file_map *out, rung_error *err)
{
    const int known = strmap_get(r->files, location, -1);
    if (known >= 0) {
        *out = r->maps[known];
        return RUNG_OK;
    }
    file_map *maps = arena_grow(r->scratch, r->maps, &r->cap_maps, r->n_maps + 1, sizeof *maps);
    if (!maps)
        return fail_memory(err, location, sizeof *maps);
    r->maps = maps;
    const rung_status st = map_file(r, location, out, err);
    if (st != RUNG_OK)
        return st;
    maps[r->n_maps] = *out;
    if (!strmap_set(r->files, location, (int)r->n_maps))
        return fail_memory(err, location, sizeof *maps);
    r->n_maps++;
    return RUNG_OK;
}

rung_status external_read(reader *r, const tensor_proto *p, const char *name, size_t need,
                          size_t align, const void **data, rung_error *err)
{
    place at;
    file_map map;
    rung_status st = read_place(p, name, &at, err);
    if (st != RUNG_OK)
        return st;
    if (!stays_inside(at.location))
        return fail(err, RUNG_EFORMAT,
                    "tensor '%s': its external data '%s' is not inside the model's folder", name,
                    at.location);
    if (!r->folder)
        return fail(err, RUNG_EARGUMENT,
                    "tensor '%s' is stored in '%s': a model in memory has no folder to find it in",
                    name, at.location);
    if (at.has_length && at.length != need)
        return fail(err, RUNG_EFORMAT,
                    "tensor '%s': its external data is %zu bytes long, its dimensions need %zu",
                    name, at.length, need);
    if ((st = find_file(r, at.location, &map, err)) != RUNG_OK)
        return fail_at(err, st, "tensor '%s'", name);
    if (at.offset > map.size || need > map.size - at.offset)
        return fail(err, RUNG_EFORMAT,
                    "tensor '%s': %zu bytes at %zu of '%s' are wanted, which has %zu", name, need,
                    at.offset, at.location, map.size);
    const unsigned char *start = map.data ? map.data + at.offset : NULL;
    *data = start && (uintptr_t)start % align == 0 ? start : arena_copy(r->g->mem, start, need);
    return *data ? RUNG_OK : fail_memory(err, name, need);
}
