#include "base/threads.h"

#include <assert.h>
#include <omp.h>

#include "base/mem.h"

enum { MOST_THREADS = 1024 };

struct team {
    int size;
};

rung_status team_create(int n_threads, team **out, rung_error *err)
{
    *out = NULL;
    if (n_threads < 0 || n_threads > MOST_THREADS)
        return fail(err, RUNG_EARGUMENT, "%d threads: give 1 to %d, or 0 for all processors",
                    n_threads, MOST_THREADS);
    team *t = mem_zero(1, sizeof *t);
    if (!t)
        return fail_memory(err, "a team of threads", sizeof *t);
    t->size = n_threads ? n_threads : omp_get_num_procs();
    *out = t;
    return RUNG_OK;
}

void team_free(team *t)
{
    mem_free(t);
}

int team_size(const team *t)
{
    return t->size;
}

void team_run(team *t, void (*fn)(void *ctx, int thread, int n_threads), void *ctx)
{
    if (t->size == 1) {
        fn(ctx, 0, 1);
        return;
    }
#pragma omp parallel num_threads(t->size)
    fn(ctx, omp_get_thread_num(), omp_get_num_threads());
}

void share(size_t n, size_t unit, int thread, int n_threads, size_t *first, size_t *last)
{
    assert(unit > 0 && thread >= 0 && thread < n_threads);
    const size_t units = n / unit, i = (size_t)thread;
    const size_t each = units / (size_t)n_threads, more = units % (size_t)n_threads;

    *first = (i * each + (i < more ? i : more)) * unit;
    *last = thread == n_threads - 1 ? n : *first + (each + (i < more)) * unit;
}
