#include "ops/packs.h"

#include <pthread.h>
#include <string.h>

#include "base/mem.h"

/* An entry lies in its own arena, with what was made for it. */
typedef struct entry {
    struct entry *next;
    pack_store *store;
    arena *mem;
    pack_key key;
    size_t users;
    const void *packed;
} entry;

struct pack_store {
    pthread_mutex_t lock; /* over all below and the users of the entries */
    entry *list;
    bool owned; /* by its creator; afterwards the last entry takes it along */
};

rung_status pack_store_create(pack_store **out, rung_error *err)
{
    pack_store *s = *out = mem_zero(1, sizeof *s);
    if (!s)
        return fail_memory(err, "a store of packed weights", sizeof *s);
    if (pthread_mutex_init(&s->lock, NULL) == 0) {
        s->owned = true;
        return RUNG_OK;
    }
    mem_free(s);
    *out = NULL;
    return fail_memory(err, "a lock", sizeof s->lock);
}

/* Nobody else knows a store without owner and entries. */
static void unlock(pack_store *s)
{
    const bool over = !s->owned && !s->list;
    pthread_mutex_unlock(&s->lock);
    if (!over)
        return;
    pthread_mutex_destroy(&s->lock);
    mem_free(s);
}

void pack_store_free(pack_store *s)
{
    if (!s)
        return;
    pthread_mutex_lock(&s->lock);
    s->owned = false;
    unlock(s);
}

size_t pack_store_bytes(pack_store *s)
{
    size_t all = 0;
    pthread_mutex_lock(&s->lock);
    for (const entry *e = s->list; e; e = e->next)
        all += arena_bytes(e->mem);
    pthread_mutex_unlock(&s->lock);
    return all;
}

static bool same_bytes(const void *a, size_t n_a, const void *b, size_t n_b)
{
    return n_a == n_b && (n_a == 0 || memcmp(a, b, n_a) == 0);
}

static bool same_key(const pack_key *a, const pack_key *b)
{
    return a->source == b->source && strcmp(a->kind, b->kind) == 0 &&
           same_bytes(a->params, a->n_params, b->params, b->n_params) &&
           same_bytes(a->more, a->n_more, b->more, b->n_more);
}

static entry *find(const pack_store *s, const pack_key *key)
{
    entry *e = s->list;
    while (e && !same_key(&e->key, key))
        e = e->next;
    return e;
}

static bool copy_key(arena *mem, const pack_key *key, pack_key *own)
{
    *own = *key;
    own->kind = arena_strdup(mem, key->kind);
    own->params = arena_copy(mem, key->params, key->n_params);
    own->more = arena_copy(mem, key->more, key->n_more);
    return own->kind && own->params && own->more;
}

static rung_status add(pack_store *s, const pack_key *key, pack_make make, const void *ctx,
                       entry **out, rung_error *err)
{
    arena *mem = arena_new();
    entry *e = mem ? arena_zero(mem, 1, sizeof *e) : NULL;
    rung_status st = e && copy_key(mem, key, &e->key)
                         ? make(ctx, mem, &e->packed, err)
                         : fail_memory(err, "packed weights", sizeof *e);
    if (st != RUNG_OK) {
        arena_free(mem);
        return st;
    }
    e->store = s;
    e->mem = mem;
    e->next = s->list;
    s->list = *out = e;
    return RUNG_OK;
}

static void release(void *ctx)
{
    entry *e = ctx;
    pack_store *s = e->store;
    pthread_mutex_lock(&s->lock);
    if (--e->users == 0) {
        entry **at = &s->list;
        while (*at != e)
            at = &(*at)->next;
        *at = e->next;
        arena_free(e->mem);
    }
    unlock(s);
}

/* Packing holds the lock: of two threads that need the same, the second finds it made. */
rung_status pack_take(const lowering *l, const pack_key *key, pack_make make, const void *ctx,
                      const void **packed, rung_error *err)
{
    pack_store *s = l->packs;
    if (!s || !key->source)
        return make(ctx, l->mem, packed, err);
    pthread_mutex_lock(&s->lock);
    entry *e = find(s, key);
    const rung_status st = e ? RUNG_OK : add(s, key, make, ctx, &e, err);
    if (st == RUNG_OK)
        e->users++;
    pthread_mutex_unlock(&s->lock);
    if (st != RUNG_OK)
        return st;
    if (arena_defer(l->mem, release, e) != 0) {
        release(e);
        return fail_memory(err, "the plan", sizeof *e);
    }
    *packed = e->packed;
    return RUNG_OK;
}
