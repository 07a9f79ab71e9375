#include "base/relay.h"

#include <assert.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "base/mem.h"

#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

enum {
    LINE = 64,               /* bytes of a cache line */
    SPINS_BEFORE_HELP = 200, /* about what a thread is late by when a round begins */
    SPINS = 2000,            /* some ten microseconds; then the processor may be somebody else's */
    YIELDS = 20,
    IDLE_SPINS = 10000, /* of a helper between jobs: longer than a caller needs for small inputs */
    SHARE_BITS = 11,    /* of `done`: more than there are threads */
};

/* A word on which threads sleep until it changes. */
typedef struct bell {
    _Alignas(LINE) atomic_uint rings;
    atomic_int sleepers;
} bell;

/* How much of a step is done: the round, and its shares done in it. Alone on its cache line. */
typedef struct step_line {
    _Alignas(LINE) atomic_uint_fast64_t done;
} step_line;

struct relay {
    int size;
    size_t n_steps, stride; /* claims of a share, rounded up to whole lines */
    uint64_t round;
    atomic_uint_fast64_t *claims; /* [share][stride]: the last round in which somebody took it */
    step_line *steps;
    bell bell;
};

typedef struct helper {
    crew *c;
    int number;
    pthread_t thread;
} helper;

struct crew {
    void (*work)(void *ctx, const crew_job *job, int thread);
    void *ctx;
    helper *helpers;
    int n_started;
    bell bell;            /* rings with each job */
    pthread_mutex_t lock; /* of job and stop */
    crew_job job;
    bool stop;
};

static void cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Between `sleepers` being raised and lowered, the sleeper looks at what it waits for once more;
 * who rings has changed that before it looks at `sleepers`: one of the two sees the other. */
static void bell_ring(bell *b)
{
    atomic_fetch_add(&b->rings, 1);
    if (atomic_load(&b->sleepers) == 0)
        return;
#if defined(__linux__)
    syscall(SYS_futex, &b->rings, FUTEX_WAKE_PRIVATE, 1 << 30, NULL, NULL, 0);
#endif
}

/* Sleeps while the bell has not rung since `seen`; may return early. */
static void bell_wait(bell *b, unsigned seen)
{
#if defined(__linux__)
    syscall(SYS_futex, &b->rings, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
#else
    sched_yield();
#endif
}

/* --- relay ------------------------------------------------------------------------------------ */

rung_status relay_create(int n_threads, size_t n_steps, relay **out, rung_error *err)
{
    *out = NULL;
    rung_status st = RUNG_OK;
    relay *r = mem_zero(1, sizeof *r);
    if (!r)
        return fail_memory(err, "the threads' steps", sizeof *r);
    const size_t per_line = LINE / sizeof *r->claims;
    r->size = n_threads;
    r->n_steps = n_steps;
    r->stride = (n_steps / per_line + 1) * per_line;
    r->claims = mem_zero(r->stride * (size_t)n_threads, sizeof *r->claims);
    r->steps = mem_zero(n_steps + 1, sizeof *r->steps);
    if (!r->claims || !r->steps) {
        st = fail_memory(err, "the threads' steps", n_steps * sizeof *r->steps);
        goto done;
    }
    *out = r;
    r = NULL;
done:
    relay_free(r);
    return st;
}

void relay_free(relay *r)
{
    if (!r)
        return;
    mem_free(r->claims);
    mem_free(r->steps);
    mem_free(r);
}

uint64_t relay_begin(relay *r)
{
    return ++r->round;
}

/* A late thread finds the claims of its own round or of later ones. */
static bool take(relay *r, uint64_t round, size_t step, int s)
{
    atomic_uint_fast64_t *claim = &r->claims[(size_t)s * r->stride + step];
    uint_fast64_t last = atomic_load_explicit(claim, memory_order_relaxed);
    return last < round && atomic_compare_exchange_strong(claim, &last, round);
}

static bool is_complete(const relay *r, size_t step, uint64_t complete)
{
    return atomic_load_explicit(&r->steps[step].done, memory_order_acquire) >= complete;
}

/* One more share of the step is done. */
static void count_share(relay *r, uint64_t round, size_t step, uint64_t complete)
{
    atomic_uint_fast64_t *done = &r->steps[step].done;
    uint_fast64_t seen = atomic_load(done), next;
    do
        next = seen >> SHARE_BITS == round ? seen + 1 : (round << SHARE_BITS) + 1;
    while (!atomic_compare_exchange_weak(done, &seen, next));
    if (next == complete && atomic_load(&r->bell.sleepers) > 0)
        bell_ring(&r->bell);
}

/* A little patience: false, the step is not complete after it. */
static bool spin_for(const relay *r, size_t step, uint64_t complete, int spins)
{
    for (int i = 0; i < spins; i++) {
        if (is_complete(r, step, complete))
            return true;
        cpu_relax();
    }
    return false;
}

static void wait_for(relay *r, size_t step, uint64_t complete)
{
    if (spin_for(r, step, complete, SPINS))
        return;
    for (int i = 0; i < YIELDS; i++) {
        if (is_complete(r, step, complete))
            return;
        sched_yield();
    }
    atomic_fetch_add(&r->bell.sleepers, 1);
    for (;;) {
        const unsigned seen = atomic_load(&r->bell.rings);
        if (atomic_load(&r->steps[step].done) >= complete)
            break;
        bell_wait(&r->bell, seen);
    }
    atomic_fetch_sub(&r->bell.sleepers, 1);
}

void relay_step(relay *r, uint64_t round, size_t step, int n_shares, int thread,
                void (*fn)(void *ctx, int share, int thread), void *ctx)
{
    assert(step < r->n_steps && n_shares >= 1 && n_shares <= r->size);
    const uint64_t complete = (round << SHARE_BITS) + (uint64_t)n_shares;
    if (thread < n_shares && take(r, round, step, thread)) {
        fn(ctx, thread, thread);
        count_share(r, round, step, complete);
    }
    if (spin_for(r, step, complete, SPINS_BEFORE_HELP))
        return;
    for (int s = 0; s < n_shares; s++)
        if (take(r, round, step, s)) {
            fn(ctx, s, thread);
            count_share(r, round, step, complete);
        }
    wait_for(r, step, complete);
}

/* --- crew ------------------------------------------------------------------------------------- */

/* The next job after `seen` rings; false: the crew ends. */
static bool next_job(crew *c, unsigned *seen, crew_job *job)
{
    bell *b = &c->bell;
    for (int i = 0; i < IDLE_SPINS && atomic_load(&b->rings) == *seen; i++)
        cpu_relax();
    if (atomic_load(&b->rings) == *seen) {
        atomic_fetch_add(&b->sleepers, 1);
        while (atomic_load(&b->rings) == *seen)
            bell_wait(b, *seen);
        atomic_fetch_sub(&b->sleepers, 1);
    }
    *seen = atomic_load(&b->rings);
    pthread_mutex_lock(&c->lock);
    *job = c->job;
    const bool stop = c->stop;
    pthread_mutex_unlock(&c->lock);
    return !stop;
}

static void *run_helper(void *arg)
{
    const helper *h = arg;
    unsigned seen = 0;
    crew_job job;
    while (next_job(h->c, &seen, &job))
        h->c->work(h->c->ctx, &job, h->number);
    return NULL;
}

static rung_status start_helper(crew *c, rung_error *err)
{
    helper *h = &c->helpers[c->n_started];
    *h = (helper){.c = c, .number = c->n_started + 1};
    if (pthread_create(&h->thread, NULL, run_helper, h) != 0)
        return fail(err, RUNG_EMEMORY, "thread %d could not be started: use fewer threads",
                    h->number);
    c->n_started++;
    return RUNG_OK;
}

rung_status crew_create(int n_helpers, void (*work)(void *ctx, const crew_job *job, int thread),
                        void *ctx, crew **out, rung_error *err)
{
    *out = NULL;
    rung_status st = RUNG_OK;
    crew *c = mem_zero(1, sizeof *c);
    if (!c)
        return fail_memory(err, "threads", sizeof *c);
    pthread_mutex_init(&c->lock, NULL);
    c->work = work;
    c->ctx = ctx;
    c->helpers = mem_zero((size_t)n_helpers + 1, sizeof *c->helpers);
    if (!c->helpers) {
        st = fail_memory(err, "threads", (size_t)n_helpers * sizeof *c->helpers);
        goto done;
    }
    while (c->n_started < n_helpers && st == RUNG_OK)
        st = start_helper(c, err);
    if (st != RUNG_OK)
        goto done;
    *out = c;
    c = NULL;
done:
    crew_free(c);
    return st;
}

void crew_free(crew *c)
{
    if (!c)
        return;
    pthread_mutex_lock(&c->lock);
    c->stop = true;
    pthread_mutex_unlock(&c->lock);
    bell_ring(&c->bell);
    for (int i = 0; i < c->n_started; i++)
        pthread_join(c->helpers[i].thread, NULL);
    pthread_mutex_destroy(&c->lock);
    mem_free(c->helpers);
    mem_free(c);
}

void crew_offer(crew *c, const crew_job *job)
{
    pthread_mutex_lock(&c->lock);
    c->job = *job;
    pthread_mutex_unlock(&c->lock);
    bell_ring(&c->bell);
}
