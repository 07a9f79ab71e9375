#include "data/buffer.h"

#include "base/mem.h"

void *buffer_need(buffer *b, size_t n)
{
    if (b->data && n <= b->cap)
        return b->data;
    buffer_free(b);
    b->data = mem_alloc(n ? n : 1);
    b->cap = b->data ? n : 0;
    return b->data;
}

void buffer_free(buffer *b)
{
    mem_free(b->data);
    *b = (buffer){0};
}
