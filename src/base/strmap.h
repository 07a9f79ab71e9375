/* Names to numbers: open addressing, keys not copied (they must outlive the map). */
#ifndef RUNG_BASE_STRMAP_H
#define RUNG_BASE_STRMAP_H

#include <stdbool.h>
#include <stddef.h>

typedef struct strmap strmap;

strmap *strmap_new(void); /* NULL when memory is out */
void    strmap_free(strmap *m);
int     strmap_get(const strmap *m, const char *key, int missing);
bool    strmap_set(strmap *m, const char *key, int value); /* replaces; false: memory is out */
void    strmap_remove(strmap *m, const char *key);

/* Shell pattern with * and ? against the whole of name. */
bool pattern_matches(const char *pattern, const char *name);

#endif
