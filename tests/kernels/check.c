#include "check.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cpu.h"

enum { PATTERN = 0xa5 };

check current;

guarded guarded_new(size_t size, placing where)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t inner = (size + page) / page * page;
    guarded g = {.size = size, .pages_size = inner + 2 * page};
    g.pages = mmap(NULL, g.pages_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (g.pages == MAP_FAILED || mprotect(g.pages, page, PROT_NONE) != 0 ||
        mprotect(g.pages + page + inner, page, PROT_NONE) != 0) {
        fprintf(stderr, "kernels_test: no memory for a buffer of %zu bytes\n", size);
        exit(1);
    }
    memset(g.pages + page, PATTERN, inner);
    g.data = g.pages + page + (where == AT_END ? inner - size : 0);
    return g;
}

void guarded_check(const guarded *g, const char *what)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const uint8_t *end = g->pages + g->pages_size - page;
    for (const uint8_t *p = g->pages + page; p < end; p++)
        if ((p < g->data || p >= g->data + g->size) && *p != PATTERN) {
            expect(false, "%s: byte %td is written, the size is %zu", what, p - g->data, g->size);
            return;
        }
}

void guarded_free(guarded *g)
{
    munmap(g->pages, g->pages_size);
}

size_t below(size_t n)
{
    return (size_t)rng_below(&current.random, n);
}

int between(int lo, int hi)
{
    return lo + (int)below((size_t)(hi - lo + 1));
}

bool one_in(int n)
{
    return below((size_t)n) == 0;
}

float spread(float lo, float hi)
{
    return (float)(lo * exp(rng_uniform(&current.random) * log((double)hi / lo)));
}

void fill_u8(uint8_t *p, size_t n)
{
    const bool extreme = one_in(4);
    const int share = between(1, 16); /* of 16: how many are 255 */
    for (size_t i = 0; i < n; i++) {
        const uint64_t r = rng_next(&current.random);
        p[i] = extreme ? ((int)(r % 16) < share ? 255 : 0) : (uint8_t)(r >> 8);
    }
}

void fill_s8(int8_t *p, size_t n)
{
    const bool extreme = one_in(4);
    const int share = between(0, 16);
    for (size_t i = 0; i < n; i++) {
        const uint64_t r = rng_next(&current.random);
        p[i] = (int8_t)(extreme ? ((int)(r % 16) < share ? 127 : -127) : (int)(r % 255) - 127);
    }
}

void random_clamp(int *lo, int *hi)
{
    *lo = 0;
    *hi = 255;
    if (one_in(3)) {
        *lo = between(0, 200);
        *hi = between(*lo, 255);
    }
}

void expect(bool ok, const char *format, ...)
{
    va_list args;
    if (ok)
        return;
    if (current.failures++ < 20) {
        va_start(args, format);
        fprintf(stderr, "FAIL %s: ", current.row);
        vfprintf(stderr, format, args);
        fprintf(stderr, "\n");
        va_end(args);
    }
}

void expect_same(const uint8_t *want, const uint8_t *got, size_t n, const char *what)
{
    for (size_t i = 0; i < n; i++)
        if (want[i] != got[i]) {
            expect(false, "%s: byte %zu of %zu is %d, not %d", what, i, n, got[i], want[i]);
            return;
        }
}

static char row_name[128];
static long failures_before;

bool row_begins(const char *table, const char *name, unsigned needs)
{
    snprintf(row_name, sizeof row_name, "%s %s", table, name);
    current.row = row_name;
    failures_before = current.failures;
    if (cpu_has(needs))
        return true;
    printf("skip %s: this processor lacks it\n", row_name);
    return false;
}

void row_ends(void)
{
    printf("%s %s\n", current.failures == failures_before ? "ok  " : "FAIL", current.row);
}
