/* cmocka and what it needs to be included first. Its macro fail() would hide base/status.h's
 * function: it goes, and fail_msg(), which is made of it, is made anew. */
#ifndef RUNG_TESTS_UNIT_H
#define RUNG_TESTS_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#undef fail
#undef fail_msg
#define fail_msg(...)                                                                              \
    do {                                                                                           \
        print_error("ERROR: " __VA_ARGS__);                                                        \
        print_error("\n");                                                                         \
        _fail(__FILE__, __LINE__);                                                                 \
    } while (0)

#endif
