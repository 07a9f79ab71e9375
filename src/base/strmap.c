#include "base/strmap.h"

#include <stdint.h>
#include <string.h>

#include "base/mem.h"

typedef struct slot {
    const char *key; /* NULL = empty */
    uint64_t hash;
    int value;
} slot;

struct strmap {
    slot *slots;
    size_t size, used; /* size: a power of two, at most three quarters used */
};

static uint64_t hash_of(const char *key)
{
    uint64_t h = UINT64_C(14695981039346656037); /* FNV-1a */

    for (; *key; key++)
        h = (h ^ (unsigned char)*key) * UINT64_C(1099511628211);
    return h ^ (h >> 32); /* its low bits alone are weak */
}

strmap *strmap_new(void)
{
    enum { FIRST_SIZE = 16 };
    strmap *m = mem_zero(1, sizeof *m);

    if (m && !(m->slots = mem_zero(FIRST_SIZE, sizeof *m->slots))) {
        mem_free(m);
        return NULL;
    }
    if (m)
        m->size = FIRST_SIZE;
    return m;
}

void strmap_free(strmap *m)
{
    if (m)
        mem_free(m->slots);
    mem_free(m);
}

/* The slot of key, or the empty one where it belongs. */
static slot *find(const strmap *m, const char *key, uint64_t hash)
{
    size_t i = hash & (m->size - 1);

    while (m->slots[i].key && (m->slots[i].hash != hash || strcmp(m->slots[i].key, key) != 0))
        i = (i + 1) & (m->size - 1);
    return &m->slots[i];
}

int strmap_get(const strmap *m, const char *key, int missing)
{
    const slot *s = find(m, key, hash_of(key));

    return s->key ? s->value : missing;
}

static bool grow(strmap *m)
{
    strmap larger = {.size = m->size * 2, .used = m->used};

    larger.slots = mem_zero(larger.size, sizeof *larger.slots);
    if (!larger.slots)
        return false;
    for (size_t i = 0; i < m->size; i++)
        if (m->slots[i].key)
            *find(&larger, m->slots[i].key, m->slots[i].hash) = m->slots[i];
    mem_free(m->slots);
    *m = larger;
    return true;
}

bool strmap_set(strmap *m, const char *key, int value)
{
    const uint64_t hash = hash_of(key);
    slot *s = find(m, key, hash);

    if (s->key) {
        s->value = value;
        return true;
    }
    if (m->used + 1 > m->size / 4 * 3) {
        if (!grow(m))
            return false;
        s = find(m, key, hash);
    }
    *s = (slot){key, hash, value};
    m->used++;
    return true;
}

void strmap_remove(strmap *m, const char *key)
{
    slot *s = find(m, key, hash_of(key));
    const size_t mask = m->size - 1;

    if (!s->key)
        return;
    /* Later slots of the run move up where their search would now end too early. */
    size_t hole = (size_t)(s - m->slots);
    for (size_t i = (hole + 1) & mask; m->slots[i].key; i = (i + 1) & mask) {
        const size_t home = m->slots[i].hash & mask;
        if (((i - home) & mask) >= ((i - hole) & mask)) {
            m->slots[hole] = m->slots[i];
            hole = i;
        }
    }
    m->slots[hole] = (slot){0};
    m->used--;
}

bool pattern_matches(const char *pattern, const char *name)
{
    const char *star = NULL, *resume = NULL; /* where to go on when the last * takes one more */

    while (*name) {
        if (*pattern == '*') {
            star = pattern++;
            resume = name;
        } else if (*pattern == '?' || *pattern == *name) {
            pattern++;
            name++;
        } else if (star) {
            pattern = star + 1;
            name = ++resume;
        } else {
            return false;
        }
    }
    while (*pattern == '*')
        pattern++;
    return *pattern == '\0';
}
