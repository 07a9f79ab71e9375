/* What the formats have in common: how a set gives one sample. Internal to data. */
#ifndef RUNG_DATA_SOURCE_H
#define RUNG_DATA_SOURCE_H

#include <stdatomic.h>

#include "base/arena.h"
#include "base/file.h"
#include "data/buffer.h"
#include "data/data.h"
#include "data/names.h"

/* One reading thread's memory, used again for each sample. */
typedef struct scratch {
    buffer decoded, rows, resized, values;
} scratch;

void scratch_free(scratch *s);

/* A mapped file that samples are read from. */
typedef struct source_file {
    file_map map;
    atomic_size_t n_read; /* bytes so far */
} source_file;

/* The set has one input, the model's only one. */
void source_one_input(dataset *d);

/* Maps a file; the mapping lives as long as mem. */
rung_status source_map(const char *path, arena *mem, source_file **out, rung_error *err);

/* Says that `bytes` of d->file were read: now and then the pages leave the process again, since a
 * mapping counts as its memory however large the file is. */
void source_was_read(const dataset *d, size_t bytes);

struct dataset {
    arena *mem;        /* owns all that the set points to */
    source_file *file; /* where the samples lie uncompressed, or NULL */
    size_t total;      /* samples in the file or folder */
    size_t first, n;   /* the range in use: [first, first + n) of total */
    int n_inputs;
    const char *const *names; /* [n_inputs]; "" is the model's only input */
    const int64_t *labels;    /* [total], or NULL */
    bool is_random;
    int n_workers;
    void *state; /* the format's own, in mem */

    /* Sample i of total. inputs: [n_inputs], shapes without the batch dimension; their data is in s
     * or in the set's own memory, valid until the next call with s. Any thread, each its own s. */
    rung_status (*read)(const dataset *d, size_t i, scratch *s, rung_tensor *inputs,
                        rung_error *err);
    /* What messages call sample i; NULL where samples have no name. */
    void (*describe)(const dataset *d, size_t i, char *text, size_t size);
};

/* Each fills all of *d but mem, the range and n_workers; what it maps or allocates it leaves to
 * d->mem, so that a failure needs no cleaning. labels_path may be NULL. */
rung_status source_images(dataset *d, const char *dir, const preprocess *pre, rung_error *err);
rung_status source_idx(dataset *d, const char *images_path, const char *labels_path,
                       const preprocess *pre, rung_error *err);
rung_status source_cifar10(dataset *d, const char *path, const preprocess *pre, rung_error *err);
rung_status source_npy(dataset *d, const char *path, rung_error *err);
rung_status source_npz(dataset *d, const char *path, rung_error *err);
rung_status source_random(dataset *d, const dataset_options *opt, rung_error *err);

/* Reads labels.csv, "filename,label" lines under an optional header. names: sorted; labels:
 * [names->n], all filled: every name needs its line, and every line its name. */
rung_status labels_read_csv(const char *path, const name_list *names, int64_t *labels,
                            rung_error *err);

#endif
