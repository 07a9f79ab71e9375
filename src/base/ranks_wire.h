/* How processes reach each other: by MPI, or, in a build without it, not at all. */
#ifndef RUNG_BASE_RANKS_WIRE_H
#define RUNG_BASE_RANKS_WIRE_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef struct wire {
    int  index, count; /* count < 2: alone, and none of the calls below is made */
    bool ours;         /* opened here, not by the program around */
} wire;

/* started: how many processes the launcher says it has started. */
rung_status wire_open(int started, wire *w, rung_error *err);
void        wire_close(const wire *w);

/* Over all processes, in every one. What fails here ends them: MPI's default. */
void wire_min(int64_t *data, size_t n);
void wire_sum(double *data, size_t n);
void wire_sum_floats(float *data, size_t n);
void wire_max_floats(float *data, size_t n);
void wire_share(int from, void *data, size_t bytes);

#endif
