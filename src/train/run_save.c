/* A run's checkpoint: which file, whose, and what is in it. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/mem.h"
#include "train/checkpoint.h"
#include "train/run_parts.h"

enum { MOST_BLOCKS = 8 + TRAINER_STATES };

/* --- whose ------------------------------------------------------------------------------------ */

static uint64_t hash_graph(uint64_t h, const graph *g)
{
    for (size_t i = 0; g && i < g->n_nodes; i++)
        h = checkpoint_hash(h, g->nodes[i].op_type, strlen(g->nodes[i].op_type));
    for (size_t v = 0; g && v < g->n_values; v++) {
        const tensor *t = g->values[v].constant;
        if (t && t->type != RUNG_STRING)
            h = checkpoint_hash(h, t->data, dtype_bytes(t->type, tensor_count(t)));
    }
    return h;
}

/* How many processes there are does not count, where it does not change more than the rounding. */
static uint64_t hash_options(uint64_t h, const run *r)
{
    char text[1024];
    const train_options *o = r->opt;
    const trainer_options *t = &o->trainer;
    const optimizer_options *p = &t->optimizer;
    const loss_options *l = &t->loss;
    const augment_options *a = &o->augment;
    snprintf(text, sizeof text,
             "%d %a %a %d %a %a %a %a %a %a %d %zu %zu %zu %a %a|%a %a %a %a %a %a|"
             "%zu %zu %d %d %d %a %a %a|%zu %zu %zu %llu|%d %d %d %a|%zu %d %zu %d",
             p->kind, (double)p->rate, (double)p->momentum, p->nesterov, (double)p->beta1,
             (double)p->beta2, (double)p->epsilon, (double)p->weight_decay, (double)p->clip_norm,
             (double)p->scale_rate, p->schedule, p->warmup, p->total, p->step_every,
             (double)p->step_factor, (double)p->ema, (double)l->cross_entropy,
             (double)l->label_smoothing, (double)l->mse, (double)l->distill, (double)l->temperature,
             (double)l->features, r->batch, t->chunk, trainer_scales(r->t), t->batch_stats,
             t->batch_stats ? ranks_count(r->ranks) : 1, (double)t->momentum, (double)t->dampen,
             (double)t->freeze_oscillating, o->epochs, o->freeze_statistics, o->freeze_scales,
             (unsigned long long)o->seed, a->crop, a->flip, a->cutout, (double)a->mixup,
             dataset_size(r->data), dataset_has_labels(r->data),
             r->eval ? dataset_size(r->eval) : 0, o->eval_batch);
    h = checkpoint_hash(h, text, strlen(text));
    for (int i = 0; i < t->n_features; i++)
        h = checkpoint_hash(h, t->features[i], strlen(t->features[i]) + 1);
    return h;
}

/* --- what ------------------------------------------------------------------------------------- */

static int list_blocks(run *r, checkpoint_block *list)
{
    params *p = trainer_params(r->t);
    optimizer *o = trainer_optimizer(r->t);
    const size_t size = p->total * sizeof(float);
    float **parts[3];
    const size_t n_parts = optimizer_state(o, parts);
    int n = 0;
    list[n++] = (checkpoint_block){ &r->at, sizeof r->at };
    list[n++] = (checkpoint_block){ &o->step, sizeof o->step };
    list[n++] = (checkpoint_block){ p->data, size };
    list[n++] = (checkpoint_block){ r->best, size };
    for (size_t i = 0; i < n_parts; i++)
        list[n++] = (checkpoint_block){ *parts[i], size };
    list[n++] = (checkpoint_block){ r->record->epochs,
                                    (r->opt->epochs + 1) * sizeof *r->record->epochs };
    for (int i = 0; i < TRAINER_STATES; i++) {
        checkpoint_block *more = &list[n];
        trainer_state(r->t, i, &more->data, &more->size);
        n += more->size > 0;
    }
    return n;
}

static rung_status path_of(const run *r, char *path, size_t size, rung_error *err)
{
    const int n = snprintf(path, size, "%s/checkpoint.bin", r->opt->checkpoint);
    if (n > 0 && (size_t)n < size)
        return RUNG_OK;
    return fail(err, RUNG_EARGUMENT, "the checkpoint's path is too long");
}

rung_status run_save(run *r, rung_error *err)
{
    checkpoint_block list[MOST_BLOCKS];
    char path[4096];
    const double now = clock_seconds();
    const bool wanted = r->opt->checkpoint && ranks_index(r->ranks) == 0;
    rung_status st = wanted ? metrics_flush(r, err) : RUNG_OK;
    if (!wanted || st != RUNG_OK)
        return st;
    r->at.seconds += now - r->started;
    r->started = r->saved = now;
    const int n = list_blocks(r, list);
    st = path_of(r, path, sizeof path, err);
    return st == RUNG_OK ? checkpoint_write(path, r->key, list, n, err) : st;
}

static rung_status resume_here(run *r, bool *found, rung_error *err)
{
    checkpoint_block list[MOST_BLOCKS];
    char path[4096];
    if (!r->opt->checkpoint)
        return r->opt->resume ? fail(err, RUNG_EARGUMENT, "resuming needs the folder of the "
                                     "checkpoint") : RUNG_OK;
    if (mkdir(r->opt->checkpoint, 0777) != 0 && errno != EEXIST)
        return fail(err, RUNG_EIO, "%s: %s", r->opt->checkpoint, strerror(errno));
    if (!path_is_directory(r->opt->checkpoint))
        return fail(err, RUNG_EIO, "%s: a folder is wanted for checkpoints", r->opt->checkpoint);
    if (!r->opt->resume)
        return RUNG_OK;
    const int n = list_blocks(r, list);
    const rung_status st = path_of(r, path, sizeof path, err);
    return st == RUNG_OK ? checkpoint_read(path, r->key, list, n, found, err) : st;
}

/* Processes with another model would add up gradients of other parameters. */
static rung_status check_others(const run *r, rung_error *err)
{
    uint64_t first = r->key;
    const rung_status st = ranks_share(r->ranks, 0, &first, sizeof first, err);
    if (st == RUNG_OK && first != r->key)
        return fail(err, RUNG_EARGUMENT, "it has another model, other data or other options than "
                    "rank 0: all are wanted with the same, on machines of one kind");
    return st;
}

/* What the first process has read becomes everyone's. */
static rung_status share_state(run *r, bool *found, rung_error *err)
{
    checkpoint_block list[MOST_BLOCKS];
    rung_status st = ranks_share(r->ranks, 0, found, sizeof *found, err);
    const int n = st == RUNG_OK && *found ? list_blocks(r, list) : 0;
    for (int i = 0; i < n && st == RUNG_OK; i++)
        st = ranks_share(r->ranks, 0, list[i].data, list[i].size, err);
    return st;
}

rung_status run_resume(run *r, bool *found, rung_error *err)
{
    *found = false;
    r->key = hash_options(hash_graph(hash_graph(CHECKPOINT_HASH, r->g), r->teacher), r);
    rung_status st = check_others(r, err);
    if (st == RUNG_OK && ranks_index(r->ranks) == 0)
        st = resume_here(r, found, err);
    return st == RUNG_OK ? share_state(r, found, err) : st;
}
