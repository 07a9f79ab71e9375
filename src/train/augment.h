/* Images changed at random before a step. What becomes of a sample depends on the seed, the epoch
 * and the sample only, not on threads or on where a run was resumed. */
#ifndef RUNG_TRAIN_AUGMENT_H
#define RUNG_TRAIN_AUGMENT_H

#include "data/data.h"
#include "graph/graph.h"

/* Zero everywhere: nothing. Pixels are as preprocessing left them; those that crop and cutout make
 * are 0, the mean where a mean was subtracted. */
typedef struct augment_options {
    int   crop;   /* so many pixels are put around the image, and a part of its size cut out */
    bool  flip;   /* left and right, every second time */
    int   cutout; /* a square of that side is blanked (DeVries 2017) */
    float mixup;  /* two samples are mixed, the second by a share <= 1/2 from Beta(mixup, mixup)
                   * folded there (Zhang 2018) */
} augment_options;

/* "crop=4,flip,cutout=8,mixup=0.2"; NULL or "": nothing. The error names the word. */
rung_status augment_parse(const char *text, augment_options *out, rung_error *err);

/* Whether the inputs of g, as it declares them, are images that can be changed so. */
rung_status augment_check(const augment_options *opt, const graph *g, rung_error *err);

typedef struct augmenter augmenter;

rung_status augmenter_create(const augment_options *opt, uint64_t seed, augmenter **out,
                             rung_error *err);
void        augmenter_free(augmenter *a);

/* b as changed: samples[i] is the number of its sample i in the data set. *out, *mixed and *share
 * (NULL without mixup or labels; as in loss.h) are valid until the next call. RUNG_EARGUMENT: the
 * first input holds no float32 images [N,C,H,W] or [N,H,W,C]; mixup wants float32 inputs only. */
rung_status augmenter_run(augmenter *a, const batch *b, const size_t *samples, size_t epoch,
                          const batch **out, const int64_t **mixed, const float **share,
                          rung_error *err);

#endif
