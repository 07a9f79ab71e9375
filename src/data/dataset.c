#include "data/source.h"

#include <string.h>
#include <sys/mman.h>

#include "base/mem.h"
#include "base/rng.h"
#include "data/spec.h"

void scratch_free(scratch *s)
{
    buffer_free(&s->decoded);
    buffer_free(&s->rows);
    buffer_free(&s->resized);
    buffer_free(&s->values);
}

void source_one_input(dataset *d)
{
    static const char *const unnamed[] = {""};
    d->names = unnamed;
    d->n_inputs = 1;
}

static void close_file(void *file)
{
    file_map_close(&((source_file *)file)->map);
}

rung_status source_map(const char *path, arena *mem, source_file **out, rung_error *err)
{
    source_file *file = arena_zero(mem, 1, sizeof *file);
    if (!file)
        return fail_memory(err, "a mapping", sizeof *file);
    rung_status st = file_map_open(path, &file->map, err);
    if (st != RUNG_OK)
        return st;
    *out = file;
    if (arena_defer(mem, close_file, file) == 0)
        return RUNG_OK;
    file_map_close(&file->map);
    return fail_memory(err, "a mapping", sizeof *file);
}

void source_was_read(const dataset *d, size_t bytes)
{
    enum { KEPT = 16 << 20 };
    if (!d->file)
        return;
    const size_t before = atomic_fetch_add(&d->file->n_read, bytes);
    if (before / KEPT != (before + bytes) / KEPT)
        /* Whoever still reads a page gets it again from the system's cache. */
        madvise((void *)(uintptr_t)d->file->map.data, d->file->map.size, MADV_DONTNEED);
}

static rung_status open_source(dataset *d, const data_spec *s, const dataset_options *opt,
                               rung_error *err)
{
    switch (s->format) {
    case DATA_IMAGES:
        return source_images(d, s->path, &opt->pre, err);
    case DATA_NPZ:
        return source_npz(d, s->path, err);
    case DATA_NPY:
        return source_npy(d, s->path, err);
    case DATA_IDX:
        return source_idx(d, s->path, s->labels_path, &opt->pre, err);
    case DATA_CIFAR10:
        return source_cifar10(d, s->path, &opt->pre, err);
    case DATA_RANDOM:
        return source_random(d, opt, err);
    case DATA_UNKNOWN:
        break;
    }
    return fail(err, RUNG_EARGUMENT, "data format %d", (int)s->format);
}

static rung_status set_range(dataset *d, const data_spec *s, rung_error *err)
{
    enum { RANDOM_SAMPLES = 256 }; /* where the range does not say how many */
    const bool is_open = s->last == SPEC_TO_THE_END;
    size_t last = s->last;
    if (is_open)
        last = d->is_random ? s->first + RANDOM_SAMPLES : d->total;
    if (s->first >= d->total || last > d->total)
        return is_open ? fail(err, RUNG_EARGUMENT, "range @%zu: of a set of %zu samples", s->first,
                              d->total)
                       : fail(err, RUNG_EARGUMENT, "range @%zu:%zu of a set of %zu samples",
                              s->first, last, d->total);
    d->first = s->first;
    d->n = last - s->first;
    return RUNG_OK;
}

rung_status dataset_open(const char *spec, const dataset_options *opt, dataset **out,
                         rung_error *err)
{
    data_spec s;
    *out = NULL;
    dataset *d = mem_zero(1, sizeof *d);
    if (!d || !(d->mem = arena_new())) {
        mem_free(d);
        return fail_memory(err, "a data set", sizeof *d);
    }
    d->n_workers = opt->n_workers > 0 ? opt->n_workers : 1;
    rung_status st = spec_parse(spec, d->mem, &s, err);
    if (st == RUNG_OK)
        st = open_source(d, &s, opt, err);
    if (st == RUNG_OK && (st = set_range(d, &s, err)) != RUNG_OK)
        fail_at(err, st, "data \"%s\"", spec);
    if (st == RUNG_OK)
        *out = d;
    else
        dataset_free(d);
    return st;
}

void dataset_free(dataset *d)
{
    if (!d)
        return;
    arena_free(d->mem);
    mem_free(d);
}

size_t dataset_size(const dataset *d)
{
    return d->n;
}

bool dataset_has_labels(const dataset *d)
{
    return d->labels != NULL;
}

bool dataset_is_random(const dataset *d)
{
    return d->is_random;
}

rung_status sample_order(size_t total, size_t n, uint64_t seed, size_t *order, rung_error *err)
{
    if (n > total)
        return fail(err, RUNG_EARGUMENT, "%zu samples of a set of %zu", n, total);
    size_t *all = mem_zero(total, sizeof *all);
    if (!all)
        return fail_memory(err, "an order of samples", total * sizeof *all);
    for (size_t i = 0; i < total; i++)
        all[i] = i;
    rng r;
    rng_seed(&r, seed);
    rng_shuffle(&r, all, total);
    if (n)
        memcpy(order, all, n * sizeof *all);
    mem_free(all);
    return RUNG_OK;
}
