#include "report/text.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/mem.h"

static bool text_reserve(text *t, size_t more)
{
    if (t->n + more + 1 <= t->cap)
        return true;
    const size_t cap = (t->cap + more + 64) * 2;
    char *s = t->failed ? NULL : mem_resize(t->s, t->cap, cap);
    if (!s) {
        t->failed = true;
        return false;
    }
    t->s = s;
    t->cap = cap;
    return true;
}

void text_add(text *t, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    const int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    if (n < 0 || !text_reserve(t, (size_t)n))
        return;
    va_start(args, fmt);
    vsnprintf(t->s + t->n, t->cap - t->n, fmt, args);
    va_end(args);
    t->n += (size_t)n;
}

rung_status text_take(text *t, char **out, rung_error *err)
{
    text_add(t, "%s", "");
    if (t->failed) {
        mem_free(t->s);
        *t = (text){ 0 };
        return fail_memory(err, "a report", 0);
    }
    *out = t->s;
    *t = (text){ 0 };
    return RUNG_OK;
}
