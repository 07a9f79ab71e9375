#include "base/progress.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { BAR = 20 }; /* columns: the whole line fits in 80 */

double clock_seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int print_time(char *text, size_t size, double seconds)
{
    const unsigned long s = seconds < 1e9 ? (unsigned long)(seconds + 0.5) : 1000000000ul;

    if (s >= 3600)
        return snprintf(text, size, "%lu:%02lu:%02lu", s / 3600, s / 60 % 60, s % 60);
    return snprintf(text, size, "%lu:%02lu", s / 60, s % 60);
}

/* "[#####---------------] " into text, which holds BAR + 4 characters. */
static void print_bar(char *text, size_t done, size_t total)
{
    const size_t full = done >= total ? BAR : (size_t)((double)done / (double)total * BAR);

    *text++ = '[';
    for (size_t i = 0; i < BAR; i++)
        *text++ = i < full ? '#' : '-';
    memcpy(text, "] ", sizeof "] ");
}

/* "calibrating  120/500 samples  45.1/s  0:08 left", on a terminal with a bar before the numbers;
 * at the end the time that was needed. */
static void draw(progress *p, double now, bool ended)
{
    const double elapsed = now - p->started, rate = elapsed > 0 ? (double)p->done / elapsed : 0;
    char count[48], speed[32] = "", time[32] = "", bar[BAR + 4] = "", line[256];

    if (p->total)
        snprintf(count, sizeof count, "%zu/%zu", p->done, p->total);
    else
        snprintf(count, sizeof count, "%zu", p->done);
    if (rate > 0)
        snprintf(speed, sizeof speed, "  %.1f/s", rate);
    if (ended)
        print_time(time, sizeof time, elapsed);
    else if (rate > 0 && p->total >= p->done && p->total)
        print_time(time, sizeof time, (double)(p->total - p->done) / rate);
    if (p->terminal && p->total)
        print_bar(bar, p->done, p->total);
    snprintf(line, sizeof line, "%s  %s%s %s%s%s%s%s", p->what, bar, count, p->unit, speed,
             time[0] ? "  " : "", time, time[0] && !ended ? " left" : "");
    if (p->terminal) /* back to the first column, and what an older line leaves is erased */
        fprintf(stderr, "\r%s\033[K%s", line, ended ? "\n" : "");
    else
        fprintf(stderr, "%s\n", line);
    fflush(stderr);
    p->drawn = now;
}

void progress_begin(progress *p, const char *what, const char *unit, size_t total, bool quiet)
{
    *p = (progress){.what = what, .unit = unit, .total = total, .quiet = quiet};
    p->started = clock_seconds();
    p->terminal = isatty(STDERR_FILENO);
    if (!quiet)
        draw(p, p->started, false);
}

void progress_step(progress *p, size_t n)
{
    p->done += n;
    if (p->quiet)
        return;
    const double now = clock_seconds();
    if (now - p->drawn >= (p->terminal ? 0.1 : 10))
        draw(p, now, false);
}

void progress_end(progress *p)
{
    if (!p->quiet)
        draw(p, clock_seconds(), true);
}
