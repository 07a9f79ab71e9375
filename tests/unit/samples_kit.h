/* Samples that a test made, as a dataset. */
#ifndef RUNG_TESTS_SAMPLES_KIT_H
#define RUNG_TESTS_SAMPLES_KIT_H

#include "graph_kit.h"

#include "data/data.h"
#include "data/npy.h"

/* Through a file in the folder that the test has entered. */
static inline dataset *samples_open(const rung_tensor *all)
{
    const dataset_options opt = { .n_workers = 1 };
    dataset *d;
    assert_ok(npy_write_file("x.npy", all, err));
    assert_ok(dataset_open("npy:x.npy", &opt, &d, err));
    return d;
}

#endif
