/* A text that grows. */
#ifndef RUNG_REPORT_TEXT_H
#define RUNG_REPORT_TEXT_H

#include "base/status.h"

typedef struct text {
    char  *s; /* mem_alloc'ed, terminated */
    size_t n, cap;
    bool   failed; /* memory ran out: what follows is not added */
} text;

void text_add(text *t, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Hands the text over: *out is the caller's. RUNG_EMEMORY when it failed on the way. Control
 * characters but '\n', and bytes that are no UTF-8, which names in a hostile file may hold, are '?'
 * in it. */
rung_status text_take(text *t, char **out, rung_error *err);

#endif
