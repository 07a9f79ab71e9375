/* Writes what the loader gives as .npy files, for comparison with the Python oracle:
 *     data_dump [-p PREPROCESS] [-b BATCH] [-w WORKERS] [-s SEED] SPEC FOLDER
 * gives FOLDER/B.INPUT.npy for batch B and, for a set with labels, FOLDER/B.labels.npy. With -s the
 * set is shuffled. `random` has one input "x" of 3x4x5 floats. */
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "data/data.h"
#include "data/npy.h"

typedef struct arguments {
    const char *spec, *folder, *preprocess, *seed;
    size_t batch;
    dataset_options options;
} arguments;

static rung_status write_array(const arguments *a, size_t b, const char *name, const rung_tensor *t,
                               rung_error *err)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%zu.%s.npy", a->folder, b, *name ? name : "input");
    return npy_write_file(path, t, err);
}

static rung_status write_batch(const arguments *a, size_t b, const batch *data, rung_error *err)
{
    rung_status st = RUNG_OK;
    for (int k = 0; st == RUNG_OK && k < data->n_inputs; k++)
        st = write_array(a, b, data->inputs[k].name, &data->inputs[k].t, err);
    if (st != RUNG_OK || !data->labels)
        return st;
    const rung_tensor labels = {RUNG_I64, 1, {(int64_t)data->n}, (void *)(uintptr_t)data->labels};
    return write_array(a, b, "labels", &labels, err);
}

static rung_status write_batches(const arguments *a, loader *l, rung_error *err)
{
    for (size_t b = 0;; b++) {
        const batch *data;
        rung_status st = loader_next(l, &data, err);
        if (st == RUNG_OK && data)
            st = write_batch(a, b, data, err);
        if (st != RUNG_OK || !data)
            return st;
    }
}

static rung_status dump(arguments *a, rung_error *err)
{
    dataset *d = NULL;
    loader *l = NULL;
    size_t *order = NULL, n = 0;
    rung_status st = preprocess_parse(a->preprocess, &a->options.pre, err);
    if (st == RUNG_OK)
        st = dataset_open(a->spec, &a->options, &d, err);
    if (st == RUNG_OK && a->seed) {
        n = dataset_size(d);
        order = mem_zero(n, sizeof *order);
        st = order ? sample_order(n, n, strtoull(a->seed, NULL, 10), order, err) : RUNG_EMEMORY;
    }
    if (st == RUNG_OK)
        st = loader_open(d, order, n, a->batch, &l, err);
    if (st == RUNG_OK)
        st = write_batches(a, l, err);
    loader_free(l);
    mem_free(order);
    dataset_free(d);
    return st;
}

int main(int argc, char **argv)
{
    static const rung_tensor like = {RUNG_F32, 4, {1, 3, 4, 5}, NULL};
    static const char *const names[] = {"x"};
    arguments a = {.batch = 1,
                   .options = {.random_like = &like, .random_names = names, .n_random = 1}};
    rung_error err = {""};
    for (int c; (c = getopt(argc, argv, "p:b:w:s:")) != -1;) {
        a.preprocess = c == 'p' ? optarg : a.preprocess;
        a.seed = c == 's' ? optarg : a.seed;
        a.batch = c == 'b' ? strtoull(optarg, NULL, 10) : a.batch;
        a.options.n_workers = c == 'w' ? atoi(optarg) : a.options.n_workers;
    }
    if (argc - optind != 2) {
        fprintf(stderr, "usage: data_dump [-p TEXT] [-b N] [-w N] [-s SEED] SPEC FOLDER\n");
        return 2;
    }
    a.spec = argv[optind];
    a.folder = argv[optind + 1];
    if (dump(&a, &err) == RUNG_OK)
        return 0;
    fprintf(stderr, "data_dump: %s\n", err.message);
    return 1;
}
