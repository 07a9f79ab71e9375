#include "rung.h"

#include <string.h>

#include "base/arena.h"
#include "base/mem.h"
#include "data/npy.h"
#include "graph/graph.h"

size_t rung_tensor_bytes(const rung_tensor *t)
{
    if (!t || t->rank < 0 || t->rank > RUNG_MAX_RANK)
        return SIZE_MAX;
    const size_t count = tensor_count(t);
    /* Types without a fixed size have no bytes for one element. */
    return count == SIZE_MAX || dtype_bytes(t->type, 1) == 0 ? SIZE_MAX
                                                             : dtype_bytes(t->type, count);
}

rung_status rung_npy_load(const char *path, rung_tensor *t, rung_error *err)
{
    if (!path || !t)
        return fail(err, RUNG_EARGUMENT, "rung_npy_load: path and t must not be NULL");
    arena *mem = arena_new();
    rung_tensor read;
    rung_status st = mem ? npy_read_file(path, mem, &read, err) : fail_memory(err, path, 0);
    if (st == RUNG_OK) {
        const size_t size = rung_tensor_bytes(&read);
        void *data = mem_alloc(size);
        if (data) {
            memcpy(data, read.data, size);
            *t = read;
            t->data = data;
        } else {
            st = fail_memory(err, path, size);
        }
    }
    arena_free(mem);
    return st;
}

rung_status rung_npy_save(const char *path, const rung_tensor *t, rung_error *err)
{
    if (!path || !t)
        return fail(err, RUNG_EARGUMENT, "rung_npy_save: path and t must not be NULL");
    return npy_write_file(path, t, err);
}

void rung_npy_free(rung_tensor *t)
{
    if (!t)
        return;
    mem_free(t->data);
    t->data = NULL;
}
