#include "data/names.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

/* Makes room for `need` items, at least doubling. */
static bool grow(void **items, size_t *cap, size_t used, size_t need, size_t size)
{
    if (need <= *cap)
        return true;
    size_t to = *cap ? *cap : 64, bytes;
    while (to < need && to <= SIZE_MAX / 2)
        to *= 2;
    if (to < need || !mul_fits(to, size, &bytes))
        return false;
    void *moved = mem_resize(*items, used * size, bytes);
    if (!moved)
        return false;
    *items = moved;
    *cap = to;
    return true;
}

rung_status name_list_add(name_list *l, const char *name, rung_error *err)
{
    const size_t length = strlen(name) + 1;
    void *text = l->text, *at = l->at;
    const bool has_room = grow(&text, &l->text_cap, l->text_n, l->text_n + length, 1) &&
                          grow(&at, &l->cap, l->n, l->n + 1, sizeof *l->at);
    l->text = text;
    l->at = at;
    if (!has_room)
        return fail_memory(err, "a list of names", l->text_n + length);
    l->at[l->n++] = l->text_n;
    memcpy(l->text + l->text_n, name, length);
    l->text_n += length;
    return RUNG_OK;
}

void name_list_free(name_list *l)
{
    mem_free(l->text);
    mem_free(l->at);
    *l = (name_list){0};
}

const char *name_list_get(const name_list *l, size_t i)
{
    return l->text + l->at[i];
}

static int compare(const void *a, const void *b, void *text)
{
    const size_t *at_a = a, *at_b = b;
    return strcmp((const char *)text + *at_a, (const char *)text + *at_b);
}

void name_list_sort(name_list *l, size_t first)
{
    if (l->n - first > 1)
        qsort_r(l->at + first, l->n - first, sizeof *l->at, compare, l->text);
}

size_t name_list_find(const name_list *l, const char *name, size_t length)
{
    size_t low = 0, high = l->n;
    while (low < high) {
        const size_t mid = low + (high - low) / 2;
        const char *at = name_list_get(l, mid);
        int order = strncmp(at, name, length);
        if (order == 0 && at[length])
            order = 1;
        if (order == 0)
            return mid;
        if (order < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return l->n;
}
