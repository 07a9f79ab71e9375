/* Steps that several threads do one after the other, each step in shares.
 *
 * What ends a step is that its shares are done, not that all threads have come: a thread that the
 * operating system has put aside holds nobody up unless it is in the middle of a share. A share is
 * first offered to the thread of its number; who has waited a little for it does it himself.
 * Waiting spins, then yields, then sleeps. */
#ifndef RUNG_BASE_RELAY_H
#define RUNG_BASE_RELAY_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef struct relay relay;

rung_status relay_create(int n_threads, size_t n_steps, relay **out, rung_error *err);
void        relay_free(relay *r); /* no thread may be in a step */

/* Begins a round, in which each step is done at most once more; by one thread, when the steps of
 * the round before that it has asked for have ended. Returns the round's number, 1 or more. */
uint64_t relay_begin(relay *r);

/* Returns when all n_shares shares of the step are done in this round; those that this thread took,
 * by fn(ctx, share, thread). What they wrote is seen. The threads of a round go through the same
 * steps in the same order, each with the same n_shares, 1 to n_threads. A thread may come when the
 * round is over, or another has begun: it finds nothing to do. */
void relay_step(relay *r, uint64_t round, size_t step, int n_shares, int thread,
                void (*fn)(void *ctx, int share, int thread), void *ctx);

/* Threads that take part in rounds when they can. */
typedef struct crew crew;
typedef struct crew_job {
    uint64_t round;
    size_t   first, end; /* steps */
} crew_job;

/* The helpers are threads 1 to n_helpers. */
rung_status crew_create(int n_helpers, void (*work)(void *ctx, const crew_job *job, int thread),
                        void *ctx, crew **out, rung_error *err);
void        crew_free(crew *c); /* waits for the helpers */

/* Offers a job and returns at once. A helper that is late misses jobs. */
void crew_offer(crew *c, const crew_job *job);

#endif
