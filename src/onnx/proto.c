#include "onnx/proto.h"

enum { MEMORY_BASE = 256 << 20, MEMORY_PER_BYTE = 8 };

/* The allocator that protobuf-c is given: nothing is freed singly. */
typedef struct budget {
    arena *mem;
    size_t limit; /* for arena_bytes(mem) */
    bool   exhausted;
} budget;

static void *budget_alloc(void *ctx, size_t n)
{
    budget *b = ctx;
    const size_t used = arena_bytes(b->mem);
    void *p = used <= b->limit && n <= b->limit - used ? arena_alloc(b->mem, n) : NULL;
    if (!p)
        b->exhausted = true;
    return p;
}

static void budget_free(void *ctx, void *p)
{
}

void *proto_unpack(const descriptor *d, bytes b, arena *mem, rung_status *st, rung_error *err)
{
    static const unsigned char nothing;
    const size_t bound = MEMORY_BASE + b.size * MEMORY_PER_BYTE;
    budget ctx = { mem, arena_bytes(mem) + bound, false };
    ProtobufCAllocator allocator = { budget_alloc, budget_free, &ctx };
    void *message = protobuf_c_message_unpack(d, &allocator, b.size, b.data ? b.data : &nothing);

    *st = RUNG_OK;
    if (!message && ctx.exhausted)
        *st = fail(err, RUNG_EMEMORY, "unpacking %zu bytes takes more than %zu bytes of memory",
                   b.size, bound);
    else if (!message)
        *st = fail(err, RUNG_EFORMAT,
                   "%zu bytes that are no ONNX message: another format, damaged or cut off",
                   b.size);
    return message;
}

bytes proto_pack(const void *message, arena *mem)
{
    const size_t size = protobuf_c_message_get_packed_size(message);
    unsigned char *data = arena_alloc(mem, size);

    if (data)
        protobuf_c_message_pack(message, data);
    return (bytes){ data, data ? size : 0 };
}

rung_status proto_keep(const void *message, arena *mem, bytes *out, rung_error *err)
{
    const descriptor *d = ((const ProtobufCMessage *)message)->descriptor;
    arena *scratch = arena_new();
    rung_status st = RUNG_OK;

    *out = proto_pack(message, mem);
    if (!scratch || !out->data)
        st = fail_memory(err, "fields to keep", protobuf_c_message_get_packed_size(message));
    else
        proto_unpack(d, *out, scratch, &st, err);
    arena_free(scratch);
    return st;
}

void *proto_new(const descriptor *d, arena *mem)
{
    void *message = arena_alloc(mem, d->sizeof_message);

    if (message)
        protobuf_c_message_init(d, message);
    return message;
}

void *proto_restore(const descriptor *d, bytes extra, arena *mem)
{
    rung_status st;

    return extra.size ? proto_unpack(d, extra, mem, &st, NULL) : proto_new(d, mem);
}

bool proto_has_unknown(const void *message)
{
    return ((const ProtobufCMessage *)message)->n_unknown_fields > 0;
}
