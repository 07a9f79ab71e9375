/* Heap allocation of all modules, in one place so that a test can fail each allocation in turn. */
#ifndef RUNG_BASE_MEM_H
#define RUNG_BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>

void *mem_alloc(size_t n);                 /* aligned to 64; NULL when memory is out */
void *mem_zero(size_t count, size_t size); /* zeroed; NULL on overflow too */
void *mem_resize(void *p, size_t old_n, size_t n); /* like realloc; p stays valid when NULL */
void  mem_free(void *p);                   /* NULL is fine */

/* a * b, or false when it does not fit: sizes that come from files go through here. */
bool mul_fits(size_t a, size_t b, size_t *product);

/* Test hook: the n-th allocation from now (0 = the next) and all after it fail; -1 = never. */
void mem_fail_after(long n);

#endif
