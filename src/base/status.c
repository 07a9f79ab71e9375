#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>

rung_status fail(rung_error *err, rung_status code, const char *fmt, ...)
{
    if (err) {
        rung_error text = {""}; /* aside first: an argument may point into *err */
        va_list args;
        va_start(args, fmt);
        vsnprintf(text.message, sizeof text.message, fmt, args);
        va_end(args);
        *err = text;
    }
    return code;
}

rung_status fail_at(rung_error *err, rung_status code, const char *fmt, ...)
{
    if (err) {
        rung_error where = {""};
        va_list args;
        va_start(args, fmt);
        vsnprintf(where.message, sizeof where.message, fmt, args);
        va_end(args);
        fail(err, code, "%s: %s", where.message, err->message);
    }
    return code;
}

rung_status fail_memory(rung_error *err, const char *what, size_t bytes)
{
    return fail(err, RUNG_EMEMORY, "out of memory: %s needs %zu bytes", what, bytes);
}
