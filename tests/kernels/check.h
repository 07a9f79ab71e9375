/* What the kernel tests share: guarded buffers, random fills, the bookkeeping of rows. */
#ifndef RUNG_TESTS_KERNELS_CHECK_H
#define RUNG_TESTS_KERNELS_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/rng.h"

/* A buffer between two pages that trap. AT_END: it ends where the trap begins, so that one byte too
 * many faults; AT_START: it begins there, aligned to a page. Bytes of its pages that do not belong
 * to it hold a pattern that guarded_check looks at. */
typedef enum placing { AT_START, AT_END } placing;
typedef struct guarded {
    uint8_t *data;
    size_t size;
    uint8_t *pages;
    size_t pages_size;
} guarded;

guarded guarded_new(size_t size, placing where); /* ends the program when memory is out */
void guarded_check(const guarded *g, const char *what);
void guarded_free(guarded *g);

/* The state of a run of the test. */
typedef struct check {
    rng random;
    uint64_t seed;
    int cases; /* per row */
    const char *row;
    long failures;
} check;
extern check current;

size_t below(size_t n);      /* uniform in [0, n) */
int between(int lo, int hi); /* uniform in [lo, hi] */
bool one_in(int n);
float spread(float lo, float hi);    /* uniform in its logarithm */
void fill_u8(uint8_t *p, size_t n);  /* random; 1 in 4 only 0 and 255 */
void fill_s8(int8_t *p, size_t n);   /* random in [-127, 127]; 1 in 4 only the ends */
void random_clamp(int *lo, int *hi); /* mostly 0 and 255 */

void expect(bool ok, const char *format, ...) __attribute__((format(printf, 2, 3)));
void expect_same(const uint8_t *want, const uint8_t *got, size_t n, const char *what);

/* Announces a row and says whether this machine has it. */
bool row_begins(const char *table, const char *name, unsigned needs);
void row_ends(void);

void check_conv(void);
void check_emulated_tiles(void);
void check_elementwise(void);
void check_pools(void);
void check_movement(void);
void check_product(void);
void check_wide(void);

/* Times every row on shapes of real networks. */
void bench_all(void);

#endif
