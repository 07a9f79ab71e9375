#include "base/mem.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 64 }; /* a cache line, and the widest vector register */

/* Allocations that still succeed; -1 = all. Only tests set it. */
static atomic_long budget = -1;

void mem_fail_after(long n)
{
    atomic_store(&budget, n);
}

static bool may_allocate(void)
{
    long left = atomic_load_explicit(&budget, memory_order_relaxed);

    while (left > 0 && !atomic_compare_exchange_weak(&budget, &left, left - 1))
        continue;
    return left != 0;
}

bool mul_fits(size_t a, size_t b, size_t *product)
{
    if (b && a > SIZE_MAX / b)
        return false;
    *product = a * b;
    return true;
}

void *mem_alloc(size_t n)
{
    void *p = NULL;

    if (n > PTRDIFF_MAX || !may_allocate())
        return NULL;
    return posix_memalign(&p, ALIGNMENT, n ? n : 1) == 0 ? p : NULL;
}

void *mem_zero(size_t count, size_t size)
{
    size_t n;
    void *p = mul_fits(count, size, &n) ? mem_alloc(n) : NULL;

    if (p)
        memset(p, 0, n);
    return p;
}

void *mem_resize(void *p, size_t old_n, size_t n)
{
    void *moved = mem_alloc(n); /* realloc would lose the alignment */

    if (moved && p) {
        memcpy(moved, p, old_n < n ? old_n : n);
        mem_free(p);
    }
    return moved;
}

void mem_free(void *p)
{
    free(p);
}
