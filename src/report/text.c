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

/* Bytes of the UTF-8 character at s (RFC 3629); 0: it is none. */
static size_t utf8_length(const unsigned char *s)
{
    const size_t n = s[0] < 0x80   ? 1
                     : s[0] < 0xc2 ? 0
                     : s[0] < 0xe0 ? 2
                     : s[0] < 0xf0 ? 3
                     : s[0] < 0xf5 ? 4
                                   : 0;
    for (size_t i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    const bool overlong = (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xf0 && s[1] < 0x90);
    const bool surrogate = s[0] == 0xed && s[1] >= 0xa0, beyond = s[0] == 0xf4 && s[1] >= 0x90;
    return overlong || surrogate || beyond ? 0 : n;
}

static void text_clean(text *t)
{
    unsigned char *s = (unsigned char *)t->s, *end = s + t->n;
    while (s < end) { /* the text is terminated: a character cut short ends before the end */
        const size_t n = utf8_length(s);
        if (n == 0 || (*s < ' ' && *s != '\n') || *s == 0x7f)
            *s = '?';
        s += n ? n : 1;
    }
}

rung_status text_take(text *t, char **out, rung_error *err)
{
    text_add(t, "%s", "");
    if (t->failed) {
        mem_free(t->s);
        *t = (text){0};
        return fail_memory(err, "a report", 0);
    }
    text_clean(t);
    *out = t->s;
    *t = (text){0};
    return RUNG_OK;
}
