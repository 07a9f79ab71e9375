/* Execution: the steps one by one. A tape of one thread may run inside a parallel region. */
#include <omp.h>

#include "train/tape_parts.h"

typedef struct share_of_step {
    const tape      *t;
    const tape_step *s;
} share_of_step;

static void run_share(void *ctx, int thread, int n_threads)
{
    const share_of_step *r = ctx;
    unsigned char *scratch = r->t->scratch + (size_t)thread * r->t->scratch_bytes;
    r->s->s.run(&r->s->s, r->s->bufs, scratch, thread, n_threads);
}

static rung_status run_step(const tape *t, const tape_step *s, rung_error *err)
{
    share_of_step r = {t, s};
    if (s->s.library || team_size(t->threads) == 1) {
        const int before = omp_get_max_threads();
        omp_set_num_threads(team_size(t->threads));
        run_share(&r, 0, 1);
        omp_set_num_threads(before);
    } else {
        team_run(t->threads, run_share, &r);
    }
    if (!s->failure || s->failure->status == RUNG_OK)
        return RUNG_OK;
    return tape_label(t, s->n, fail(err, s->failure->status, "%s", s->failure->error.message), err);
}

rung_status tape_run_steps(const tape *t, size_t first, size_t end, rung_error *err)
{
    rung_status st = RUNG_OK;
    for (size_t i = first; i < end && st == RUNG_OK; i++)
        st = run_step(t, &t->steps[i], err);
    return st;
}
