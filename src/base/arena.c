#include "base/arena.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

enum {
    ALIGNMENT = 64,
    FIRST_BLOCK = 4 << 10, /* small, because a program makes many small arenas; each next doubles */
    LARGEST_BLOCK = 1 << 20,
};

/* The header fills one alignment unit, so that the data behind it is aligned as the block is. */
typedef struct block {
    struct block *next;
    size_t used, size; /* of the data */
} block;

typedef struct deferred {
    struct deferred *next;
    void (*fn)(void *);
    void *ctx;
} deferred;

struct arena {
    block *blocks; /* the first is the one that is being filled */
    deferred *deferred;
    size_t next_size, bytes;
};

_Static_assert(sizeof(block) <= ALIGNMENT, "the header fits its unit");

arena *arena_new(void)
{
    arena *a = mem_zero(1, sizeof *a);

    if (a)
        a->next_size = FIRST_BLOCK;
    return a;
}

void arena_free(arena *a)
{
    if (!a)
        return;
    for (const deferred *d = a->deferred; d; d = d->next)
        d->fn(d->ctx);
    for (block *b = a->blocks; b;) {
        block *next = b->next;
        mem_free(b);
        b = next;
    }
    mem_free(a);
}

/* A new block of `size` bytes of data. One made for a single large item goes behind the block that
 * is being filled, whose room stays in use. */
static block *add_block(arena *a, size_t size, bool single)
{
    block *b = mem_alloc(ALIGNMENT + size);

    if (!b)
        return NULL;
    b->used = 0;
    b->size = size;
    block **place = single && a->blocks ? &a->blocks->next : &a->blocks;
    b->next = *place;
    *place = b;
    return b;
}

static block *block_with_room(arena *a, size_t n)
{
    block *b = a->blocks;

    if (b && b->size - b->used >= n)
        return b;
    if (n > a->next_size / 4)
        return add_block(a, n, true);
    b = add_block(a, a->next_size, false);
    if (b && a->next_size < LARGEST_BLOCK)
        a->next_size *= 2;
    return b;
}

void *arena_alloc(arena *a, size_t n)
{
    if (n > PTRDIFF_MAX - 2 * ALIGNMENT)
        return NULL;
    n = n ? (n + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT : ALIGNMENT;
    block *b = block_with_room(a, n);
    if (!b)
        return NULL;
    unsigned char *p = (unsigned char *)b + ALIGNMENT + b->used;
    b->used += n;
    a->bytes += n;
    return p;
}

void *arena_zero(arena *a, size_t count, size_t size)
{
    size_t n;
    void *p = mul_fits(count, size, &n) ? arena_alloc(a, n) : NULL;

    if (p)
        memset(p, 0, n);
    return p;
}

void *arena_copy(arena *a, const void *src, size_t n)
{
    void *p = arena_alloc(a, n);

    if (p && n)
        memcpy(p, src, n);
    return p;
}

char *arena_strdup(arena *a, const char *s)
{
    return arena_copy(a, s, strlen(s) + 1);
}

char *arena_strndup(arena *a, const char *s, size_t n)
{
    const size_t length = strnlen(s, n);
    char *p = length < PTRDIFF_MAX ? arena_alloc(a, length + 1) : NULL;

    if (p) {
        memcpy(p, s, length);
        p[length] = '\0';
    }
    return p;
}

char *arena_printf(arena *a, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    const int length = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    char *p = length < 0 ? NULL : arena_alloc(a, (size_t)length + 1);
    if (p) {
        va_start(args, fmt);
        vsnprintf(p, (size_t)length + 1, fmt, args);
        va_end(args);
    }
    return p;
}

void *arena_grow(arena *a, void *items, size_t *cap, size_t need, size_t size)
{
    if (items && need <= *cap)
        return items;
    size_t n = *cap < 8 ? 8 : *cap > SIZE_MAX / 2 ? SIZE_MAX : *cap * 2;
    if (n < need)
        n = need;
    void *grown = arena_zero(a, n, size);
    if (!grown)
        return NULL;
    if (*cap && items)
        memcpy(grown, items, *cap * size);
    *cap = n;
    return grown;
}

int arena_defer(arena *a, void (*fn)(void *), void *ctx)
{
    deferred *d = arena_alloc(a, sizeof *d);

    if (!d)
        return -1;
    *d = (deferred){a->deferred, fn, ctx};
    a->deferred = d;
    return 0;
}

size_t arena_bytes(const arena *a)
{
    return a->bytes;
}
