/* ModelProto -> bytes or files. */
#include "onnx/onnx.h"

#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "onnx/parts.h"

static const size_t most = INT32_MAX; /* protobuf's own limit on a message */

rung_status onnx_write(const graph *g, unsigned char **out, size_t *size, rung_error *err)
{
    arena *mem = arena_new();
    const model_proto *p = mem ? model_build(g, mem, NULL) : NULL;
    rung_status st = RUNG_OK;
    *out = NULL;
    *size = p ? protobuf_c_message_get_packed_size(&p->base) : 0;
    if (*size > most)
        st = fail(err, RUNG_EUNSUPPORTED,
                  "the model takes %zu bytes, a protobuf at most %zu: write it to a file, with "
                  "external data", *size, most);
    else if (!p || !(*out = mem_alloc(*size)))
        st = fail_memory(err, "the model's bytes", *size);
    else
        protobuf_c_message_pack(&p->base, *out);
    arena_free(mem);
    return st;
}

/* protobuf-c's way to hand out bytes as it packs them: to a file, until the first failure. */
typedef struct file_buffer {
    ProtobufCBuffer base;
    file_writer *to;
    rung_status  status;
    rung_error  *err;
} file_buffer;

static void append(ProtobufCBuffer *buffer, size_t n, const uint8_t *data)
{
    file_buffer *b = (file_buffer *)buffer;
    if (b->status == RUNG_OK)
        b->status = file_write(b->to, data, n, b->err);
}

static rung_status write_message(const model_proto *p, const char *path, rung_error *err)
{
    file_buffer b = { .base = { append }, .status = RUNG_OK, .err = err };
    rung_status st = file_writer_open(path, &b.to, err);
    if (st != RUNG_OK)
        return st;
    protobuf_c_message_pack_to_buffer(&p->base, &b.base);
    if (b.status == RUNG_OK)
        return file_writer_commit(b.to, err);
    file_writer_abort(b.to);
    return b.status;
}

static rung_status write_parts(const external_plan *plan, const char *path, rung_error *err)
{
    static const unsigned char zeros[64];
    file_writer *to;
    uint64_t at = 0;
    rung_status st = file_writer_open(path, &to, err);
    if (st != RUNG_OK)
        return st;
    for (size_t i = 0; st == RUNG_OK && i < plan->n; i++) {
        const external_part *part = &plan->parts[i];
        st = file_write(to, zeros, (size_t)(part->offset - at), err); /* under the alignment, 64 */
        if (st == RUNG_OK)
            st = file_write(to, part->t->data, part->size, err);
        at = part->offset + part->size;
    }
    if (st == RUNG_OK)
        return file_writer_commit(to, err);
    file_writer_abort(to);
    return st;
}

/* The tensors first: a model that names them is never there without them. */
static rung_status write_external(const graph *g, const char *path, arena *mem, rung_error *err)
{
    const char *data_path = arena_printf(mem, "%s.data", path);
    const char *slash = data_path ? strrchr(data_path, '/') : NULL;
    external_plan plan = { .location = slash ? slash + 1 : data_path };
    const model_proto *p = data_path ? model_build(g, mem, &plan) : NULL;
    if (!p)
        return fail_memory(err, path, 0);
    const size_t size = protobuf_c_message_get_packed_size(&p->base);
    if (size > most)
        return fail(err, RUNG_EUNSUPPORTED,
                    "%s: %zu bytes remain without the large tensors, a protobuf has at most %zu",
                    path, size, most);
    const rung_status st = plan.n ? write_parts(&plan, data_path, err) : RUNG_OK;
    return st == RUNG_OK ? write_message(p, path, err) : st;
}

rung_status onnx_write_file(const graph *g, const char *path, bool external, rung_error *err)
{
    arena *mem = arena_new();
    rung_status st;
    const model_proto *p = mem && !external ? model_build(g, mem, NULL) : NULL;
    if (!mem || (!external && !p))
        st = fail_memory(err, path, 0);
    else if (p && protobuf_c_message_get_packed_size(&p->base) <= most)
        st = write_message(p, path, err);
    else
        st = write_external(g, path, mem, err);
    arena_free(mem);
    return st;
}
