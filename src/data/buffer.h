/* Memory that is used again and again and only grows. */
#ifndef RUNG_DATA_BUFFER_H
#define RUNG_DATA_BUFFER_H

#include <stddef.h>

typedef struct buffer {
    void *data;
    size_t cap;
} buffer;

/* At least n bytes, aligned to 64; what was in them is lost. NULL when memory is out. */
void *buffer_need(buffer *b, size_t n);
void buffer_free(buffer *b);

#endif
