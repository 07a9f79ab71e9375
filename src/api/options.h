/* Option structs that may grow: a caller's struct of any version, as this version's. */
#ifndef RUNG_API_OPTIONS_H
#define RUNG_API_OPTIONS_H

#include <string.h>

#include "base/status.h"

/* Copies the caller's struct (its first member is its size; NULL: all defaults) over *to, which is
 * `size` bytes and zeroed here. Fields that this version does not know must be zero. */
static inline rung_status options_copy(void *to, size_t size, const void *from, const char *what,
                                       rung_error *err)
{
    size_t given = 0;
    memset(to, 0, size);
    if (!from)
        return RUNG_OK;
    memcpy(&given, from, sizeof given);
    if (given < sizeof given)
        return fail(err, RUNG_EARGUMENT, "%s: size is not set; begin with its initializer macro",
                    what);
    for (size_t i = size; i < given; i++)
        if (((const unsigned char *)from)[i])
            return fail(err, RUNG_EARGUMENT, "%s: set by a newer rung.h than this library's", what);
    memcpy(to, from, given < size ? given : size);
    return RUNG_OK;
}

#endif
