/* base: steps in shares, and the helpers that take part in them. */
#include <omp.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#include "unit.h"

#include "base/mem.h"
#include "base/relay.h"
#include "base/threads.h"

enum { MOST = 4, STEPS = 300 };
typedef struct course {
    team *t;
    relay *r;
    uint64_t round;
    int n_shares, late; /* thread `late` comes when all is done; -1: none does */
    int value[STEPS][MOST]; /* plain memory: the steps alone order it */
    atomic_int calls, wrong, n_threads, ended;
} course;

typedef struct course_step {
    course *c;
    int step;
} course_step;

/* Each share writes its cell, and reads all those of the step before. */
static void run_course_share(void *ctx, int part, int thread)
{
    const course_step *at = ctx;
    course *c = at->c;

    atomic_fetch_add(&c->calls, 1);
    for (int i = 0; at->step > 0 && i < c->n_shares; i++)
        if (c->value[at->step - 1][i] != at->step)
            atomic_fetch_add(&c->wrong, 1);
    c->value[at->step][part] += at->step + 1;
}

static void run_course(void *ctx, int thread, int n_threads)
{
    course *c = ctx;

    atomic_store(&c->n_threads, n_threads);
    while (thread == c->late && atomic_load(&c->ended) == 0)
        sched_yield();
    for (int i = 0; i < STEPS; i++) {
        course_step at = {c, i};
        relay_step(c->r, c->round, (size_t)i, c->n_shares, thread, run_course_share, &at);
    }
    atomic_fetch_add(&c->ended, 1);
}

static void expect_course(course *c, int n_threads)
{
    atomic_store(&c->calls, 0);
    atomic_store(&c->ended, 0);
    memset(c->value, 0, sizeof c->value);
    c->round = relay_begin(c->r);
    team_run(c->t, run_course, c);
    assert_int_equal(atomic_load(&c->calls), STEPS * c->n_shares); /* each share once */
    assert_int_equal(atomic_load(&c->wrong), 0);
    assert_int_equal(atomic_load(&c->n_threads), n_threads);
}

static course *course_new(int n_threads)
{
    course *c = mem_zero(1, sizeof *c);

    assert_non_null(c);
    assert_int_equal(team_create(n_threads, &c->t, NULL), RUNG_OK);
    assert_int_equal(relay_create(n_threads, STEPS, &c->r, NULL), RUNG_OK);
    c->n_shares = n_threads;
    c->late = -1;
    return c;
}

static void course_free(course *c)
{
    relay_free(c->r);
    team_free(c->t);
    mem_free(c);
}

static void test_relay_orders_steps(void **state)
{
    for (int n = 1; n <= MOST; n++) {
        course *c = course_new(n);
        for (int run = 0; run < 5; run++) {
            c->n_shares = run % 2 ? 1 : n;
            expect_course(c, n);
        }
        course_free(c);
    }
}

/* A thread that comes when all is done has held nobody up. */
static void test_relay_does_without_a_thread(void **state)
{
    for (int late = 0; late < 3; late++) {
        course *c = course_new(3);
        c->late = late;
        expect_course(c, 3);
        course_free(c);
    }
}

static void run_inner_course(void *ctx, int thread, int n_threads)
{
    if (thread == 0)
        expect_course(ctx, 1);
}

/* A region inside a region gets one thread, which does all shares. */
static void test_team_gets_fewer_threads(void **state)
{
    team *outer = NULL;
    course *c = course_new(3);

    omp_set_max_active_levels(1);
    assert_int_equal(team_create(2, &outer, NULL), RUNG_OK);
    team_run(outer, run_inner_course, c);
    expect_course(c, 3); /* and the full team afterwards */
    team_free(outer);
    course_free(c);
}

static void test_relay_needs_memory(void **state)
{
    relay *r;
    for (int i = 0; i < 3; i++) {
        mem_fail_after(i);
        assert_int_equal(relay_create(2, 5, &r, NULL), RUNG_EMEMORY);
        assert_null(r);
    }
    mem_fail_after(-1);
    relay_free(NULL);
}

/* --- helpers ---------------------------------------------------------------------------------- */

static void help(void *ctx, const crew_job *job, int thread)
{
    course *c = ctx;

    for (size_t i = job->first; i < job->end; i++) {
        course_step at = {c, (int)i};
        relay_step(c->r, job->round, i, c->n_shares, thread, run_course_share, &at);
    }
}

/* Rounds one after the other, without waiting for late helpers in between. */
static void test_crew_does_rounds(void **state)
{
    for (int n = 1; n <= MOST; n++) {
        course *c = course_new(n);
        crew *helpers = NULL;
        assert_int_equal(crew_create(n - 1, help, c, &helpers, NULL), RUNG_OK);
        for (int run = 1; run <= 50; run++) {
            const crew_job job = {relay_begin(c->r), 0, STEPS};
            memset(c->value, 0, sizeof c->value);
            crew_offer(helpers, &job);
            help(c, &job, 0);
            assert_int_equal(atomic_load(&c->calls), run * STEPS * n); /* each share once */
            assert_int_equal(atomic_load(&c->wrong), 0);
        }
        crew_free(helpers);
        course_free(c);
    }
}

/* A helper that comes when its round is over, and another has begun, finds nothing to do. */
static void test_late_helper_does_nothing(void **state)
{
    course *c = course_new(2);
    const crew_job late = {relay_begin(c->r), 0, STEPS};
    help(c, &late, 0);
    const crew_job next = {relay_begin(c->r), 0, STEPS / 2};
    memset(c->value, 0, sizeof c->value);
    help(c, &next, 0);
    const int calls = atomic_load(&c->calls);
    help(c, &late, 1);
    assert_int_equal(atomic_load(&c->calls), calls);
    assert_int_equal(calls, 2 * STEPS + 2 * (STEPS / 2));
    assert_int_equal(atomic_load(&c->wrong), 0);
    course_free(c);
}

static void test_crew_needs_memory(void **state)
{
    crew *c;
    for (int i = 0; i < 2; i++) {
        mem_fail_after(i);
        assert_int_equal(crew_create(2, help, NULL, &c, NULL), RUNG_EMEMORY);
        assert_null(c);
    }
    mem_fail_after(-1);
    crew_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_relay_orders_steps),
        cmocka_unit_test(test_relay_does_without_a_thread),
        cmocka_unit_test(test_team_gets_fewer_threads),
        cmocka_unit_test(test_relay_needs_memory),
        cmocka_unit_test(test_crew_does_rounds),
        cmocka_unit_test(test_late_helper_does_nothing),
        cmocka_unit_test(test_crew_needs_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
