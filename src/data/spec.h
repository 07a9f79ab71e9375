/* The text that names a data set: FORMAT:PATH[,PATH][@A:B] or a plain path. Internal to data. */
#ifndef RUNG_DATA_SPEC_H
#define RUNG_DATA_SPEC_H

#include "base/arena.h"
#include "base/status.h"

typedef enum data_format {
    DATA_UNKNOWN,
    DATA_IMAGES,
    DATA_NPZ,
    DATA_NPY,
    DATA_IDX,
    DATA_CIFAR10,
    DATA_RANDOM,
} data_format;

#define SPEC_TO_THE_END SIZE_MAX

typedef struct data_spec {
    data_format format;
    const char *path;        /* "" for DATA_RANDOM */
    const char *labels_path; /* DATA_IDX only, or NULL */
    size_t first, last;      /* @A:B; last may be SPEC_TO_THE_END */
} data_spec;

/* A plain path is looked at: a folder is images, then the ends of names count. Strings in mem. */
rung_status spec_parse(const char *text, arena *mem, data_spec *out, rung_error *err);

#endif
