/* Execution of a plan: segments of steps, each segment one parallel region, in which a step begins
 * when the shares of the one before are done. Library steps run on the caller's thread and bring
 * threads of their own. */
#include "engine/plan.h"

#include <omp.h>

#include "base/progress.h"
#include "kernels/kernels.h"

/* A step with less work than this (bytes and eighths of multiply-accumulates) costs less than
 * waking threads for it. */
#define MIN_PARALLEL_WORK 65536

static segment_kind kind_of(const plan *p, const plan_step *s)
{
    if (s->s.library)
        return SEGMENT_LIBRARY;
    return s->parallel && p->n_threads > 1 ? SEGMENT_PARALLEL : SEGMENT_SERIAL;
}

/* Whether a tap looks at values between step i - 1 and step i. */
static bool tap_before(const plan *p, size_t i)
{
    for (size_t k = 0; k < p->n_taps; k++)
        if (p->taps[k].after == i)
            return true;
    return false;
}

static void take_part(void *ctx, const crew_job *job, int thread);

/* What parallel segments need. */
static rung_status plan_threads(plan *p, rung_error *err)
{
    bool parallel = false, library = false;
    for (size_t i = 0; i < p->n_segments; i++) {
        parallel |= p->segments[i].kind == SEGMENT_PARALLEL;
        library |= p->segments[i].kind == SEGMENT_LIBRARY;
    }
    if (!parallel)
        return RUNG_OK;
    const rung_status st = relay_create(p->n_threads, p->n_steps, &p->relay, err);
    if (st != RUNG_OK || library)
        return st;
    return crew_create(p->n_threads - 1, take_part, p, &p->crew, err);
}

rung_status plan_segments(plan *p, rung_error *err)
{
    p->segments = arena_zero(p->mem, p->n_steps + 1, sizeof *p->segments);
    if (!p->segments)
        return fail_memory(err, "the plan", p->n_steps * sizeof *p->segments);
    for (size_t i = 0; i < p->n_steps; i++) {
        p->steps[i].parallel = p->steps[i].work >= MIN_PARALLEL_WORK;
        const segment_kind kind = kind_of(p, &p->steps[i]);
        segment *last = p->n_segments ? &p->segments[p->n_segments - 1] : NULL;
        if (!last || last->kind == SEGMENT_LIBRARY || kind == SEGMENT_LIBRARY || tap_before(p, i)) {
            last = &p->segments[p->n_segments++];
            *last = (segment){.kind = kind, .first = i};
        }
        if (kind == SEGMENT_PARALLEL)
            last->kind = SEGMENT_PARALLEL; /* one large step makes the segment a region */
        last->end = i + 1;
    }
    return plan_threads(p, err);
}

static void run_step(const plan *p, const plan_step *s, int share, int n_shares, int thread)
{
    void *scratch = p->scratch + (size_t)thread * p->scratch_bytes;
    s->s.run(&s->s, s->bufs, scratch, share, n_shares);
}

/* Steps of a round, done together. */
typedef struct region {
    const plan *p;
    crew_job job;
} region;

/* One step of many shares, or small ones in a row. */
static void run_share(void *ctx, int share, int thread)
{
    const region *r = ctx;
    const plan_step *s = &r->p->steps[r->job.first];
    if (s->parallel)
        run_step(r->p, s, share, r->p->n_threads, thread);
    else
        for (; s < r->p->steps + r->job.end; s++)
            run_step(r->p, s, 0, 1, thread);
}

/* A thread's part of a round; the helpers' too. */
static void take_part(void *ctx, const crew_job *job, int thread)
{
    const plan *p = ctx;
    const bool tiles = kernel_tiles_begin();
    for (size_t i = job->first, end; i < job->end; i = end) {
        end = i + 1;
        while (!p->steps[i].parallel && end < job->end && !p->steps[end].parallel)
            end++;
        region r = {p, {job->round, i, end}};
        relay_step(p->relay, job->round, i, p->steps[i].parallel ? p->n_threads : 1, thread,
                   run_share, &r);
    }
    kernel_tiles_end(tiles);
}

static void run_region(void *ctx, int thread, int n_threads)
{
    region *r = ctx;
    take_part((plan *)(uintptr_t)r->p, &r->job, thread);
}

/* Helpers of the plan's own come when they can, and nobody waits for them in the end. Beside
 * library steps the library's threads do it: two pools would be in each other's way. */
static void run_parallel(plan *p, team *t, segment g)
{
    region r = {p, {relay_begin(p->relay), g.first, g.end}};
    if (!p->crew) {
        team_run(t, run_region, &r);
        return;
    }
    crew_offer(p->crew, &r.job);
    take_part(p, &r.job, 0);
}

static void run_library(const plan *p, const plan_step *s)
{
    const int before = omp_get_max_threads();
    omp_set_num_threads(p->n_threads);
    run_step(p, s, 0, 1, 0);
    omp_set_num_threads(before);
}

static rung_status run_segment(plan *p, team *t, segment g, rung_error *err)
{
    if (g.kind == SEGMENT_LIBRARY) {
        const plan_step *s = &p->steps[g.first];
        run_library(p, s);
        if (s->failure && s->failure->status != RUNG_OK)
            return fail(err, s->failure->status, "%s: %s", s->label, s->failure->error.message);
    } else if (g.kind == SEGMENT_PARALLEL) {
        run_parallel(p, t, g);
    } else {
        const bool tiles = kernel_tiles_begin();
        for (size_t i = g.first; i < g.end; i++)
            run_step(p, &p->steps[i], 0, 1, 0);
        kernel_tiles_end(tiles);
    }
    return RUNG_OK;
}

/* The same, step by step, each timed. */
static rung_status profile_segment(plan *p, team *t, segment g, rung_error *err)
{
    rung_status st = RUNG_OK;
    for (size_t i = g.first; i < g.end && st == RUNG_OK; i++) {
        const segment one = {.kind = kind_of(p, &p->steps[i]), .first = i, .end = i + 1};
        const double begin = clock_seconds();
        st = run_segment(p, t, one, err);
        p->steps[i].seconds = clock_seconds() - begin;
    }
    return st;
}

/* Shows what is due when `done` steps have run; *next counts the points shown. */
static rung_status show_taps(const plan *p, size_t done, size_t *next, engine_tap tap, void *ctx,
                             rung_error *err)
{
    for (; *next < p->n_taps && p->taps[*next].after <= done; ++*next) {
        const tap_point *t = &p->taps[*next];
        const slot *s = &p->slots[t->slot];
        const rung_status st =
            tap ? tap(ctx, t->value, s->data, s->bytes / sizeof(float), err) : RUNG_OK;
        if (st != RUNG_OK)
            return st;
    }
    return RUNG_OK;
}

rung_status plan_run(plan *p, team *t, engine_tap tap, void *tap_ctx, bool profile, rung_error *err)
{
    size_t shown = 0;
    rung_status st = show_taps(p, 0, &shown, tap, tap_ctx, err);
    for (size_t i = 0; i < p->n_segments && st == RUNG_OK; i++) {
        st = profile ? profile_segment(p, t, p->segments[i], err)
                     : run_segment(p, t, p->segments[i], err);
        if (st == RUNG_OK)
            st = show_taps(p, p->segments[i].end, &shown, tap, tap_ctx, err);
    }
    return st;
}
