/* Progress on standard error: on a terminal a bar with rate and remaining time, redrawn at most ten
 * times a second; otherwise a plain line at the beginning, every ten seconds and at the end. */
#ifndef RUNG_BASE_PROGRESS_H
#define RUNG_BASE_PROGRESS_H

#include "base/status.h"

typedef struct progress {
    const char *what; /* "calibrating" */
    const char *unit; /* "samples" */
    size_t      total, done;
    double      started, drawn; /* seconds, monotonic */
    bool        quiet, terminal;
} progress;

void progress_begin(progress *p, const char *what, const char *unit, size_t total, bool quiet);
void progress_step(progress *p, size_t n);
void progress_end(progress *p); /* leaves a final line; after a failure too */

double clock_seconds(void); /* monotonic */

#endif
