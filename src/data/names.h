/* A list of many short strings, packed: an image set keeps one per file. */
#ifndef RUNG_DATA_NAMES_H
#define RUNG_DATA_NAMES_H

#include "base/status.h"

typedef struct name_list {
    char *text; /* the names, each terminated */
    size_t text_n, text_cap;
    size_t *at; /* [n] where each begins in text */
    size_t n, cap;
} name_list; /* zeroed: empty */

rung_status name_list_add(name_list *l, const char *name, rung_error *err);
void name_list_free(name_list *l);
const char *name_list_get(const name_list *l, size_t i); /* valid until the next add */

/* Sorts names [first, n) by their bytes. */
void name_list_sort(name_list *l, size_t first);
/* The position of name in a list that is sorted as a whole; l->n when it is not there. */
size_t name_list_find(const name_list *l, const char *name, size_t length);

#endif
