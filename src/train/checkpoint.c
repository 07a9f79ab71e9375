#include "train/checkpoint.h"

#include <string.h>
#include <unistd.h>

#include "base/file.h"

/* All numbers in the machine's own order: a checkpoint does not travel. */
typedef struct header {
    char     magic[8];
    uint64_t key, check, size; /* check: hash of the blocks; size: of all of them */
} header;

static const char magic[8] = "rungck01";

uint64_t checkpoint_hash(uint64_t hash, const void *data, size_t n)
{
    const unsigned char *at = data;
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ at[i]) * UINT64_C(0x100000001b3);
    return hash;
}

static header describe(uint64_t key, const checkpoint_block *blocks, int n)
{
    header h = { .key = key, .check = CHECKPOINT_HASH };
    memcpy(h.magic, magic, sizeof magic);
    for (int i = 0; i < n; i++) {
        h.size += blocks[i].size;
        h.check = checkpoint_hash(h.check, blocks[i].data, blocks[i].size);
    }
    return h;
}

rung_status checkpoint_write(const char *path, uint64_t key, const checkpoint_block *blocks, int n,
                             rung_error *err)
{
    const header h = describe(key, blocks, n);
    file_writer *w;
    rung_status st = file_writer_open(path, &w, err);
    if (st != RUNG_OK)
        return st;
    st = file_write(w, &h, sizeof h, err);
    for (int i = 0; i < n && st == RUNG_OK; i++)
        st = file_write(w, blocks[i].data, blocks[i].size, err);
    if (st == RUNG_OK)
        return file_writer_commit(w, err);
    file_writer_abort(w);
    return st;
}

static rung_status check(const char *path, const file_map *m, uint64_t key,
                         const checkpoint_block *blocks, int n, rung_error *err)
{
    header h;
    uint64_t size = 0;
    if (m->size < sizeof h)
        return fail(err, RUNG_EFORMAT, "%s: %zu bytes are no checkpoint", path, m->size);
    memcpy(&h, m->data, sizeof h);
    if (memcmp(h.magic, magic, sizeof magic) != 0)
        return fail(err, RUNG_EFORMAT, "%s: it is no checkpoint of this version", path);
    if (h.key != key)
        return fail(err, RUNG_EARGUMENT, "%s: it is of a run with other options, another model or "
                    "other data; give the same ones, or begin anew without --resume", path);
    for (int i = 0; i < n; i++)
        size += blocks[i].size;
    if (h.size != size || m->size - sizeof h != size ||
        checkpoint_hash(CHECKPOINT_HASH, m->data + sizeof h, size) != h.check)
        return fail(err, RUNG_EFORMAT, "%s: it is damaged; begin anew without --resume", path);
    return RUNG_OK;
}

rung_status checkpoint_read(const char *path, uint64_t key, const checkpoint_block *blocks, int n,
                            bool *found, rung_error *err)
{
    file_map m;
    *found = access(path, F_OK) == 0;
    if (!*found)
        return RUNG_OK;
    rung_status st = file_map_open(path, &m, err);
    if (st != RUNG_OK)
        return st;
    st = check(path, &m, key, blocks, n, err);
    const unsigned char *at = m.data ? m.data + sizeof(header) : NULL;
    for (int i = 0; i < n && st == RUNG_OK; i++) {
        memcpy(blocks[i].data, at, blocks[i].size);
        at += blocks[i].size;
    }
    file_map_close(&m);
    return st;
}
