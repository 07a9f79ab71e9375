/* Processes that work on one thing together (mpirun), each with its share of it: what they add up
 * and tell each other.
 *
 * All make the same calls in the same order. Each call first asks whether all are well, so that
 * none waits for one that has failed: what fails in one process alone is just returned, up to a
 * ranks_agree at the latest, and there, or in whatever call the others come to first, all get its
 * sentence. The group is over then, and every later call gives the same failure. That processes
 * have come to different calls is found, and is such a failure.
 *
 * ranks = NULL is a process alone: calls give RUNG_OK and change nothing. One thread. */
#ifndef RUNG_BASE_RANKS_H
#define RUNG_BASE_RANKS_H

#include <stddef.h>

#include "base/status.h"

typedef struct rung_ranks ranks;

/* *out = NULL: mpirun has not started this process, or no other. RUNG_EUNSUPPORTED: it started
 * several, and they cannot meet. */
rung_status ranks_create(ranks **out, rung_error *err);
/* Waits for the others. */
void        ranks_free(ranks *r);

int ranks_index(const ranks *r); /* 0 is the one that speaks and writes */
int ranks_count(const ranks *r);
/* This process's share [*first, *end) of n items: sizes differ by one at most, the first ones have
 * more. */
void ranks_part(const ranks *r, size_t n, size_t *first, size_t *end);

/* RUNG_OK where every process gives it; otherwise all get the failure of the first that has one. */
rung_status ranks_agree(ranks *r, rung_status st, rung_error *err);
/* The sum over all, the same bits in every process. */
rung_status ranks_sum(ranks *r, double *data, size_t n, rung_error *err);
rung_status ranks_sum_floats(ranks *r, float *data, size_t n, rung_error *err);
/* The largest of all. */
rung_status ranks_max_floats(ranks *r, float *data, size_t n, rung_error *err);
/* What process `from` has becomes everyone's. */
rung_status ranks_share(ranks *r, int from, void *data, size_t bytes, rung_error *err);
/* *index: the first process for which `mine` is set; their number: there is none. */
rung_status ranks_first(ranks *r, bool mine, int *index, rung_error *err);

#endif
