/* ranks_run MODEL OUT [N]: under mpirun, each process prepares MODEL, an image network of 28 x 28,
 * on random data and makes three steps of training on its share of 15 samples, through rung.h.
 * The first prints the losses and writes OUT. In the last process all allocations fail from the
 * N-th on. Exit status 1, and one sentence: that of the failure. */
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "base/rng.h"
#include "rung.h"

enum { SAMPLES = 15, PIXELS = 28 * 28, STEPS = 3 };

typedef struct work {
    rung_ranks   *ranks;
    rung_model   *model, *prepared, *trained;
    rung_dataset *data;
    rung_trainer *trainer;
    float         x[SAMPLES][PIXELS];
    int64_t       labels[SAMPLES];
    double        losses[STEPS];
} work;

/* Everyone's samples, of which each takes its own. */
static void draw_samples(work *w)
{
    rng r;
    rng_seed(&r, 1);
    for (size_t i = 0; i < SAMPLES; i++) {
        w->labels[i] = (int64_t)rng_below(&r, 10);
        for (size_t k = 0; k < PIXELS; k++)
            w->x[i][k] = (float)rng_uniform(&r);
    }
}

static rung_status prepare(work *w, const char *path, rung_error *err)
{
    rung_quant_options quant = RUNG_QUANT_OPTIONS;
    rung_train_options train = RUNG_TRAIN_OPTIONS;
    rung_status st;
    quant.ranks = train.ranks = w->ranks;
    quant.n_threads = train.n_threads = 1;
    quant.quiet = true;
    quant.methods = RUNG_METHOD_NONE;
    train.batch = SAMPLES;
    if ((st = rung_model_load(path, &w->model, err)) != RUNG_OK ||
        (st = rung_dataset_open("random", NULL, w->model, 1, &w->data, err)) != RUNG_OK ||
        (st = rung_prepare_qat(w->model, w->data, &quant, &w->prepared, NULL, err)) != RUNG_OK)
        return st;
    return rung_trainer_create(w->prepared, w->model, &train, &w->trainer, err);
}

static rung_status run(work *w, const char *path, rung_error *err)
{
    const int at = rung_ranks_index(w->ranks), of = rung_ranks_count(w->ranks);
    const int first = SAMPLES * at / of, end = SAMPLES * (at + 1) / of;
    const rung_tensor x = { .type = RUNG_F32, .rank = 4, .dims = { end - first, 1, 28, 28 },
                            .data = w->x[first] };
    rung_status st = prepare(w, path, err);
    for (int i = 0; i < STEPS && st == RUNG_OK; i++) {
        rung_step_result result;
        st = rung_trainer_step(w->trainer, &x, w->labels + first, &result, err);
        w->losses[i] = st == RUNG_OK ? result.loss : 0;
    }
    return st == RUNG_OK ? rung_trainer_save(w->trainer, &w->trained, err) : st;
}

static void release(work *w)
{
    rung_trainer_free(w->trainer);
    rung_dataset_free(w->data);
    rung_model_free(w->trained);
    rung_model_free(w->prepared);
    rung_model_free(w->model);
    rung_ranks_free(w->ranks);
}

int main(int argc, char **argv)
{
    static work w;
    rung_error err = { "" };
    rung_status st = argc < 3 ? RUNG_EARGUMENT : rung_ranks_create(&w.ranks, &err);
    if (st == RUNG_OK) {
        draw_samples(&w);
        if (argc > 3 && rung_ranks_index(w.ranks) == rung_ranks_count(w.ranks) - 1)
            mem_fail_after(atol(argv[3]));
        st = run(&w, argv[1], &err);
        mem_fail_after(-1);
        st = rung_ranks_agree(w.ranks, st, &err);
    }
    const bool speaks = rung_ranks_index(w.ranks) == 0;
    if (st == RUNG_OK && speaks)
        st = rung_model_save(w.trained, argv[2], &err);
    for (int i = 0; i < STEPS && st == RUNG_OK && speaks; i++)
        printf("%.9g\n", w.losses[i]);
    if (st != RUNG_OK && speaks)
        fprintf(stderr, "ranks_run: %s\n", err.message);
    release(&w);
    return st == RUNG_OK ? 0 : 1;
}
