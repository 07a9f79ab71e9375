/* Which samples of a step are this process's. All have the same order of samples; a step takes the
 * next ones, and each process its contiguous share of them. */
#include <string.h>

#include "base/mem.h"
#include "train/run_parts.h"

/* Of the step that is `step`th in the epoch: its samples, [*first, *end) of the order. */
static void span_of(const run *r, size_t step, bool whole, size_t *first, size_t *end)
{
    const size_t all = dataset_size(r->data), from = step * r->batch;
    const size_t rest = all - from, n = rest < r->batch ? rest : r->batch;
    *first = 0;
    *end = n;
    if (!whole)
        ranks_part(r->ranks, n, first, end);
    *first += from;
    *end += from;
}

/* The loader cuts what it is given in batches of one size. A process's shares have one, but for the
 * last, which is not larger. */
rung_status feeder_open(run *r, feeder *f, rung_error *err)
{
    size_t n = 0, first, end;
    rung_status st = RUNG_OK;
    *f = (feeder){ .r = r, .whole = !r->ranks || r->opt->augment.mixup > 0 };
    size_t *mine = mem_alloc((dataset_size(r->data) + 1) * sizeof *mine);
    if (!mine)
        return fail_memory(err, "the order of samples", dataset_size(r->data) * sizeof *mine);
    for (size_t step = r->at.done; step < r->per_epoch; step++) {
        span_of(r, step, f->whole, &first, &end);
        memcpy(mine + n, r->order + first, (end - first) * sizeof *mine);
        n += end - first;
    }
    if (n)
        st = loader_open(r->data, mine, n, f->whole ? r->batch : r->own_batch, &f->l, err);
    mem_free(mine);
    return st;
}

/* Of the samples of all processes those of this one. */
static rung_status cut(feeder *f, const batch **b, const int64_t **mixed, const float **share,
                       rung_error *err)
{
    const batch *all = *b;
    size_t first, end;
    ranks_part(f->r->ranks, all->n, &first, &end);
    mem_free(f->inputs);
    f->inputs = mem_alloc(((size_t)all->n_inputs + 1) * sizeof *f->inputs);
    if (!f->inputs)
        return fail_memory(err, "a batch", (size_t)all->n_inputs * sizeof *f->inputs);
    f->b = batch_part(all, first, end - first, f->inputs);
    *b = &f->b;
    *mixed = *mixed ? *mixed + first : NULL;
    *share = *share ? *share + first : NULL;
    return RUNG_OK;
}

rung_status feeder_next(feeder *f, const batch **b, const int64_t **mixed, const float **share,
                        rung_error *err)
{
    const run *r = f->r;
    const batch *read;
    size_t first, end;
    rung_status st;
    span_of(r, r->at.done, f->whole, &first, &end);
    f->b = (batch){ 0 };
    *b = &f->b;
    *mixed = NULL;
    *share = NULL;
    if (first == end)
        return RUNG_OK;
    if ((st = loader_next(f->l, &read, err)) != RUNG_OK ||
        (st = augmenter_run(r->a, read, r->order + first, r->at.epoch, b, mixed, share, err)) !=
            RUNG_OK)
        return st;
    return f->whole && r->ranks ? cut(f, b, mixed, share, err) : RUNG_OK;
}

void feeder_close(feeder *f)
{
    loader_free(f->l);
    mem_free(f->inputs);
    *f = (feeder){ 0 };
}
