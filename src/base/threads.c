#include "base/threads.h"

#include <assert.h>
#include <omp.h>
#include <sched.h>
#include <stdatomic.h>

#include "base/mem.h"

enum {
    MOST_THREADS = 1024,
    SPINS = 2000, /* a few microseconds; then the processor may be somebody else's: yield */
};

/* Sense-reversing barrier: the last to arrive changes `phase`, on which the others wait. Each
 * counter has a cache line of its own. */
struct team {
    int size;
    _Alignas(64) atomic_int running; /* threads of the present region: OpenMP may give fewer */
    _Alignas(64) atomic_int arrived;
    _Alignas(64) atomic_uint phase;
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
    atomic_init(&t->running, 1);
    atomic_init(&t->arrived, 0);
    atomic_init(&t->phase, 0);
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
    {
        const int n = omp_get_num_threads();
        /* Each thread stores the same number before its first barrier: no need to wait here. */
        atomic_store_explicit(&t->running, n, memory_order_relaxed);
        fn(ctx, omp_get_thread_num(), n);
    }
}

static void cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

void team_barrier(team *t)
{
    const int n = atomic_load_explicit(&t->running, memory_order_relaxed);

    if (n == 1)
        return;
    const unsigned phase = atomic_load_explicit(&t->phase, memory_order_acquire);
    if (atomic_fetch_add_explicit(&t->arrived, 1, memory_order_acq_rel) == n - 1) {
        atomic_store_explicit(&t->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&t->phase, phase + 1, memory_order_release);
        return;
    }
    for (int spins = 0; atomic_load_explicit(&t->phase, memory_order_acquire) == phase; spins++) {
        if (spins < SPINS) {
            cpu_relax();
        } else {
            sched_yield();
            spins = SPINS;
        }
    }
}

void share(size_t n, size_t unit, int thread, int n_threads, size_t *first, size_t *last)
{
    assert(unit > 0 && thread >= 0 && thread < n_threads);
    const size_t units = n / unit, i = (size_t)thread;
    const size_t each = units / (size_t)n_threads, more = units % (size_t)n_threads;

    *first = (i * each + (i < more ? i : more)) * unit;
    *last = thread == n_threads - 1 ? n : *first + (each + (i < more)) * unit;
}
