/* Parallel regions; base/relay.h orders steps inside them. Threads are OpenMP's: the runtime that
 * oneDNN uses, so there is one pool. */
#ifndef RUNG_BASE_THREADS_H
#define RUNG_BASE_THREADS_H

#include <stddef.h>

#include "base/status.h"

typedef struct team team;

/* n_threads = 0: as many as the machine has processors for this process. */
rung_status team_create(int n_threads, team **out, rung_error *err);
void        team_free(team *t);
int         team_size(const team *t);

/* Runs fn(ctx, thread, n_threads) on all threads of the team and returns when all have ended. */
void team_run(team *t, void (*fn)(void *ctx, int thread, int n_threads), void *ctx);

/* The share [*first, *last) of n items of `thread`: contiguous, sizes differ by at most one unit;
 * boundaries are multiples of `unit` (the last share takes the rest). */
void share(size_t n, size_t unit, int thread, int n_threads, size_t *first, size_t *last);

#endif
