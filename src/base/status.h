/* How a failure is said: a status to act on, a sentence for the person. */
#ifndef RUNG_BASE_STATUS_H
#define RUNG_BASE_STATUS_H

#include "rung.h"

#if defined(__GNUC__)
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define PRINTF_LIKE(fmt, args)
#endif

/* Writes the sentence to *err (may be NULL) and returns code, so that a check is one line:
 *     return fail(err, RUNG_EMODEL, "%s: group = %d does not divide %d channels", ...); */
rung_status fail(rung_error *err, rung_status code, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* Puts "where: " before the sentence that is in *err, and returns code. */
rung_status fail_at(rung_error *err, rung_status code, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* The sentence for an allocation of `bytes` for `what` that failed. */
rung_status fail_memory(rung_error *err, const char *what, size_t bytes);

#endif
