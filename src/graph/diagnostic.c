#include "graph/diagnostic.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/mem.h"

diagnostics *diagnostics_new(void)
{
    diagnostics *d = mem_zero(1, sizeof *d);
    if (d && !(d->mem = arena_new())) {
        mem_free(d);
        return NULL;
    }
    return d;
}

void diagnostics_free(diagnostics *d)
{
    if (!d)
        return;
    arena_free(d->mem);
    mem_free(d);
}

void diagnose(diagnostics *d, const char *code, const char *where, const char *fmt, ...)
{
    char text[1024];
    va_list args;
    if (!d)
        return;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    rung_diagnostic *list = arena_grow(d->mem, d->list, &d->cap, d->n + 1, sizeof *list);
    if (!list)
        return;
    d->list = list;
    const char *copied = arena_strdup(d->mem, where), *message = arena_strdup(d->mem, text);
    if (copied && message)
        d->list[d->n++] = (rung_diagnostic){ code, copied, message };
}
