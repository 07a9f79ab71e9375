/* Memory that is freed together. An arena belongs to one object (a graph, a plan); what is
 * allocated in it lives as long as the object and is not freed singly. One thread at a time. */
#ifndef RUNG_BASE_ARENA_H
#define RUNG_BASE_ARENA_H

#include <stddef.h>

typedef struct arena arena;

arena *arena_new(void);        /* NULL when memory is out */
void   arena_free(arena *a);   /* runs the deferred functions, last first; NULL is fine */

/* n bytes aligned to 64, or NULL when memory is out. n = 0 gives a valid pointer. */
void *arena_alloc(arena *a, size_t n);
/* count * size bytes, zeroed; NULL on overflow too. */
void *arena_zero(arena *a, size_t count, size_t size);
void *arena_copy(arena *a, const void *src, size_t n);
char *arena_strdup(arena *a, const char *s);
char *arena_strndup(arena *a, const char *s, size_t n); /* stops at a NUL, terminates */
char *arena_printf(arena *a, const char *fmt, ...);

/* Grows an array that holds *cap items of `size` bytes so that `need` fit, doubling; the old block
 * stays in the arena. Returns the (possibly moved) array, new items zeroed, or NULL: *cap is then
 * unchanged and the old array still valid. */
void *arena_grow(arena *a, void *items, size_t *cap, size_t need, size_t size);

/* fn(ctx) runs when the arena is freed: unmaps a file, destroys a library object. Returns 0, or -1
 * when memory is out (fn has not run). */
int arena_defer(arena *a, void (*fn)(void *), void *ctx);

/* Bytes handed out so far: the figure for memory bounds. */
size_t arena_bytes(const arena *a);

#endif
