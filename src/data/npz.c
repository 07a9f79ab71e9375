#include "data/npy.h"

#include <stdint.h>
#include <string.h>

#include <zlib.h>

#include "base/file.h"
#include "data/inflate.h"

/* A .npz is a zip archive of .npy files. The central directory is believed; of the local headers
 * only their lengths are used. */
enum {
    END_BYTES = 22,
    END64_BYTES = 56,
    LOCATOR_BYTES = 20,
    CENTRAL_BYTES = 46,
    LOCAL_BYTES = 30,
    MOST_COMMENT = 65535,
    STORED = 0,
    DEFLATED = 8,
    ENCRYPTED = 1,
    ZIP64_FIELD = 1,
};
#define IN_ZIP64 UINT32_MAX /* in place of a size: it is in the zip64 field */

typedef struct archive {
    const unsigned char *bytes;
    size_t n;
    size_t directory, directory_end; /* central headers lie in [.., ..) */
    size_t n_entries;
    size_t inflated; /* bytes that entries have taken so far */
    arena *mem;
    rung_error *err;
} archive;

typedef struct member {
    const char *name; /* in mem */
    unsigned flags, method;
    uint32_t crc;
    uint64_t packed, size, offset;
} member;

static uint64_t little(const unsigned char *p, int n)
{
    uint64_t v = 0;
    while (n--)
        v = v << 8 | p[n];
    return v;
}

static bool has_magic(const unsigned char *p, const char *two)
{
    return p[0] == 'P' && p[1] == 'K' && p[2] == (unsigned char)two[0] &&
           p[3] == (unsigned char)two[1];
}

static rung_status damaged(const archive *a, const char *what)
{
    return fail(a->err, RUNG_EFORMAT, "the zip archive is damaged or truncated: %s", what);
}

/* The end record is at the end, before a comment. */
static const unsigned char *find_end(const archive *a)
{
    for (size_t back = END_BYTES; back <= a->n && back <= END_BYTES + MOST_COMMENT; back++) {
        const unsigned char *p = a->bytes + a->n - back;
        if (has_magic(p, "\5\6") && little(p + 20, 2) + END_BYTES == back)
            return p;
    }
    return NULL;
}

static rung_status find_directory(archive *a)
{
    const unsigned char *end = find_end(a);
    if (!end)
        return damaged(a, "it has no end record");
    const size_t at = (size_t)(end - a->bytes);
    uint64_t n = little(end + 10, 2), size = little(end + 12, 4), offset = little(end + 16, 4);
    if (at >= LOCATOR_BYTES && has_magic(end - LOCATOR_BYTES, "\6\7")) {
        const uint64_t at64 = little(end - LOCATOR_BYTES + 8, 8);
        if (a->n < END64_BYTES || at64 > a->n - END64_BYTES || !has_magic(a->bytes + at64, "\6\6"))
            return damaged(a, "its zip64 record is not where it should be");
        n = little(a->bytes + at64 + 32, 8);
        size = little(a->bytes + at64 + 40, 8);
        offset = little(a->bytes + at64 + 48, 8);
    }
    if (offset > at || size > at - offset || n > size / CENTRAL_BYTES)
        return damaged(a, "its directory is not where it should be");
    a->directory = (size_t)offset;
    a->directory_end = (size_t)(offset + size);
    a->n_entries = (size_t)n;
    return RUNG_OK;
}

/* The zip64 field holds, in this order, those of the three that did not fit. */
static bool read_zip64(member *m, const unsigned char *extra, size_t n)
{
    uint64_t *const fields[] = {&m->size, &m->packed, &m->offset};
    size_t length = 0;
    for (; n >= 4; extra += length, n -= length) {
        length = 4 + (size_t)little(extra + 2, 2);
        if (length > n)
            return false;
        if (little(extra, 2) != ZIP64_FIELD)
            continue;
        size_t at = 4;
        for (int i = 0; i < 3; i++) {
            if (*fields[i] != IN_ZIP64)
                continue;
            if (at + 8 > length)
                return false;
            *fields[i] = little(extra + at, 8);
            at += 8;
        }
        return true;
    }
    return m->size != IN_ZIP64 && m->packed != IN_ZIP64 && m->offset != IN_ZIP64;
}

/* Reads the central header at a->directory and moves on to the next. */
static rung_status next_member(archive *a, member *m)
{
    const unsigned char *p = a->bytes + a->directory;
    const size_t left = a->directory_end - a->directory;
    if (left < CENTRAL_BYTES || !has_magic(p, "\1\2"))
        return damaged(a, "its directory ends early");
    const size_t name = (size_t)little(p + 28, 2), extra = (size_t)little(p + 30, 2);
    const size_t length = CENTRAL_BYTES + name + extra + (size_t)little(p + 32, 2);
    if (length > left)
        return damaged(a, "its directory ends early");
    *m = (member){.flags = (unsigned)little(p + 8, 2),
                  .method = (unsigned)little(p + 10, 2),
                  .crc = (uint32_t)little(p + 16, 4),
                  .packed = little(p + 20, 4),
                  .size = little(p + 24, 4),
                  .offset = little(p + 42, 4)};
    if (!read_zip64(m, p + CENTRAL_BYTES + name, extra))
        return damaged(a, "a zip64 field is missing");
    m->name = arena_strndup(a->mem, (const char *)p + CENTRAL_BYTES, name);
    if (!m->name)
        return fail_memory(a->err, "the name of an array", name);
    a->directory += length;
    return RUNG_OK;
}

/* Where the member's bytes lie, [*at, *at + packed). */
static rung_status locate(const archive *a, const member *m, size_t *at)
{
    if (a->n < LOCAL_BYTES || m->offset > a->n - LOCAL_BYTES)
        return damaged(a, "an array lies behind its end");
    const unsigned char *p = a->bytes + m->offset;
    const uint64_t start = m->offset + LOCAL_BYTES + little(p + 26, 2) + little(p + 28, 2);
    if (!has_magic(p, "\3\4") || start > a->n || m->packed > a->n - start)
        return damaged(a, "an array is not where it should be");
    *at = (size_t)start;
    return RUNG_OK;
}

/* The members together cannot be larger than deflate makes of the whole file: overlapping ones,
 * each of a plausible size, would be a bomb. */
static rung_status unpack(archive *a, const member *m, const unsigned char *packed,
                          const unsigned char **out)
{
    if (m->size / INFLATE_MOST_RATIO > m->packed ||
        m->size > (uint64_t)a->n * INFLATE_MOST_RATIO - a->inflated)
        return damaged(a, "a compressed array claims to be larger than it can be");
    a->inflated += (size_t)m->size;
    unsigned char *bytes = arena_alloc(a->mem, (size_t)m->size);
    if (!bytes)
        return fail_memory(a->err, "an array", (size_t)m->size);
    *out = bytes;
    return inflate_whole(INFLATE_RAW, packed, (size_t)m->packed, bytes, (size_t)m->size, a->err);
}

/* zlib's crc32 counts in 32 bits. */
static uint32_t crc_of(const unsigned char *p, size_t n)
{
    uLong crc = crc32(0, NULL, 0);
    for (size_t at = 0; at < n;) {
        const size_t part = n - at < (1u << 30) ? n - at : 1u << 30;
        crc = crc32(crc, p + at, (uInt)part);
        at += part;
    }
    return (uint32_t)crc;
}

static rung_status member_view(archive *a, const member *m, rung_tensor *out)
{
    size_t at = 0;
    rung_status st = locate(a, m, &at);
    if (st != RUNG_OK)
        return st;
    const unsigned char *bytes = a->bytes + at;
    if (m->flags & ENCRYPTED)
        return fail(a->err, RUNG_EUNSUPPORTED, "the archive is encrypted");
    if (m->method == DEFLATED)
        st = unpack(a, m, bytes, &bytes);
    else if (m->method != STORED)
        st = fail(a->err, RUNG_EUNSUPPORTED,
                  "compressed by method %u; stored and deflated arrays "
                  "are read",
                  m->method);
    else if (m->size != m->packed)
        st = damaged(a, "a stored array has two sizes");
    if (st == RUNG_OK && crc_of(bytes, (size_t)m->size) != m->crc)
        st = damaged(a, "an array has the wrong checksum");
    return st == RUNG_OK ? npy_view(bytes, (size_t)m->size, out, a->err) : st;
}

/* Takes ".npy" from the name; an archive of other things is not a .npz. */
static rung_status entry_name(archive *a, const member *m, npz_entry *entries, size_t n)
{
    char *name = (char *)(uintptr_t)m->name;
    const size_t length = strlen(name);
    if (length < 5 || strcmp(name + length - 4, ".npy") != 0)
        return fail(a->err, RUNG_EFORMAT, "the archive holds \"%s\", which is not an array (.npy)",
                    name);
    name[length - 4] = '\0';
    for (size_t i = 0; i < n; i++)
        if (strcmp(entries[i].name, name) == 0)
            return fail(a->err, RUNG_EFORMAT, "the array \"%s\" is there twice", name);
    entries[n].name = name;
    return RUNG_OK;
}

rung_status npz_view(const unsigned char *bytes, size_t n, arena *mem, npz_entry **out,
                     int *n_entries, rung_error *err)
{
    enum { MOST_ARRAYS = 4096 }; /* an input each: more is not a data set */
    archive a = {.bytes = bytes, .n = n, .mem = mem, .err = err};
    rung_status st = find_directory(&a);
    if (st != RUNG_OK)
        return st;
    if (a.n_entries > MOST_ARRAYS)
        return fail(err, RUNG_EUNSUPPORTED, "%zu arrays; at most %d are read", a.n_entries,
                    (int)MOST_ARRAYS);
    npz_entry *entries = arena_zero(mem, a.n_entries, sizeof *entries);
    if (!entries)
        return fail_memory(err, "the list of arrays", a.n_entries * sizeof *entries);
    for (size_t i = 0; i < a.n_entries && st == RUNG_OK; i++) {
        member m = {0};
        st = next_member(&a, &m);
        if (st == RUNG_OK)
            st = entry_name(&a, &m, entries, i);
        if (st == RUNG_OK && (st = member_view(&a, &m, &entries[i].t)) != RUNG_OK)
            fail_at(err, st, "array \"%s\"", entries[i].name);
    }
    *out = entries;
    *n_entries = (int)a.n_entries;
    return st;
}

/* Moves what lies in the mapping to mem. */
static rung_status copy_in(npz_entry *e, const file_map *map, arena *mem, rung_error *err)
{
    const uintptr_t at = (uintptr_t)e->t.data, start = (uintptr_t)map->data;
    const bool is_mapped = at >= start && at <= start + map->size;
    size_t bytes = npy_item_bytes(e->t.type); /* npy_view has checked the product */
    for (int i = 0; i < e->t.rank; i++)
        bytes *= (size_t)e->t.dims[i];
    if (is_mapped || at % 8)
        e->t.data = arena_copy(mem, e->t.data, bytes);
    return e->t.data ? RUNG_OK : fail_memory(err, "an array", bytes);
}

rung_status npz_read_file(const char *path, arena *mem, npz_entry **out, int *n, rung_error *err)
{
    file_map map;
    rung_status st = file_map_open(path, &map, err);
    if (st != RUNG_OK)
        return st;
    st = npz_view(map.data, map.size, mem, out, n, err);
    for (int i = 0; st == RUNG_OK && i < *n; i++)
        st = copy_in(&(*out)[i], &map, mem, err);
    file_map_close(&map);
    return st == RUNG_OK ? st : fail_at(err, st, "%s", path);
}
