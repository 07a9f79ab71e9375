/* Which input elements one output position of a window sees: for the plain evaluations of
 * convolutions and pools of any rank. */
#ifndef RUNG_OPS_TAPS_H
#define RUNG_OPS_TAPS_H

#include "ops/window.h"

/* Along one axis: kernel position k meets input position x. */
typedef struct axis_taps {
    int64_t  n;
    int64_t *k, *x;
} axis_taps;

typedef struct taps {
    const window  *w;
    const int64_t *in; /* spatial dims of the input */
    bool           transposed;
    axis_taps      axis[WINDOW_MAX];
    size_t         n; /* of the current position: kernel offset k[i] meets input offset x[i] */
    size_t        *k, *x;
} taps;

/* Room for every tap; in: [w->n], borrowed, as w is. RUNG_EMEMORY. */
rung_status taps_init(taps *t, const window *w, const int64_t *in, bool transposed, arena *mem,
                      rung_error *err);
/* The taps of output position `at`, in the kernel's row-major order. */
void taps_at(taps *t, const int64_t *at);

/* The next position in row-major order; false (and all zero) after the last. */
bool next_position(int n, const int64_t *dims, int64_t *at);

#endif
