/* Labelled samples as a stream of batches, in constant memory. */
#ifndef RUNG_DATA_DATA_H
#define RUNG_DATA_DATA_H

#include "base/status.h"

/* What is done to an image, in this order: resize, crop, channel order, scale, mean, std.
 * Text: "resize=256,crop=224,scale=255,mean=0.485:0.456:0.406,std=0.229:0.224:0.225,color=rgb".
 *   resize=N     shorter side N, ratio kept;  resize=WxH  exactly (Pillow's bilinear, antialiased)
 *   crop=N|WxH   from the centre; larger than the image is an error
 *   color=rgb|bgr|gray   gray: ITU-R 601-2 luma as Pillow's convert("L"); by default as the file
 *                is: one channel where it is gray, else rgb; three means or stds imply rgb
 *   scale=S      x / S;  mean=M[:M:M]  x - M after scale;  std=D[:D:D]  x / D
 *   layout=nchw|nhwc     nchw by default
 * The result is float32; without scale, mean and std its values are 0 to 255. */
typedef struct preprocess {
    int   resize_w, resize_h; /* 0: none; resize_h = 0: shorter side resize_w */
    int   crop_w, crop_h;     /* 0: none */
    int   channels;           /* 3 or 1 (gray); 0: as the file is */
    bool  bgr, nhwc;
    float scale, mean[3], std[3]; /* scale and std: 0 counts as 1 */
} preprocess;

/* text = NULL gives the identity (scale 1, mean 0, std 1). Errors name the key and its place. */
rung_status preprocess_parse(const char *text, preprocess *out, rung_error *err);

typedef struct dataset dataset;

typedef struct dataset_options {
    preprocess pre;       /* of images (images, idx, cifar10); npz and npy come as they are */
    int        n_workers; /* decoding threads; 0: one */
    /* `random`: the model's inputs; NULL otherwise. Their first dimension is the batch and does
     * not count; the others are known. Floats ~ N(0, 1), bytes uniform, wider integers 0 or 1. */
    const rung_tensor *random_like;
    const char *const *random_names;
    int                n_random;
    uint64_t           seed;
} dataset_options;

/* spec: FORMAT:PATH[,PATH][@A:B] or a plain path:
 *   images:DIR   DIR/CLASS/x.jpg|jpeg|png, the label is the position of CLASS among all folders, by
 *                bytes; or DIR/x.jpg, sorted, with the labels of DIR/labels.csv where there is one
 *   npz:FILE     array y: integer labels; x, when it is alone: the only input; else inputs by name
 *   npy:FILE     the only input      idx:IMAGES[,LABELS]   MNIST's format, gzip or plain
 *   cifar10:FILE binary records      random   256 samples, or as many as the range says
 * Files are checked here (sizes, headers); images are decoded later, a failure naming the file. */
rung_status dataset_open(const char *spec, const dataset_options *opt, dataset **out,
                         rung_error *err);
void        dataset_free(dataset *d);
size_t      dataset_size(const dataset *d); /* samples, after @A:B */
bool        dataset_has_labels(const dataset *d);
bool        dataset_is_random(const dataset *d);

/* One input of a batch: dims[0] is the number of samples. name "" is the model's only input. */
typedef struct batch_input {
    const char *name;
    rung_tensor t;
} batch_input;

typedef struct batch {
    size_t         n; /* samples: the batch size, fewer at the end */
    size_t         first; /* position of its first sample in the reading order */
    int            n_inputs;
    batch_input   *inputs;
    const int64_t *labels; /* [n], -1 unknown; NULL when the set has none */
} batch;

/* Reads samples order[0 .. n_order-1] (NULL: all, in their order; copied) in batches, decoding
 * ahead on worker threads while the caller computes; at most a few batches are in memory. What
 * comes does not depend on the number of workers. The set outlives its loaders. */
typedef struct loader loader;
rung_status loader_open(dataset *d, const size_t *order, size_t n_order, size_t batch_size,
                        loader **out, rung_error *err);
/* The next batch, valid until the next call; *out = NULL at the end. An unreadable sample fails its
 * batch, and each call from then on. Inputs keep the type of the file: images are float32. */
rung_status loader_next(loader *l, const batch **out, rung_error *err);
void        loader_free(loader *l);

/* n of the total samples, chosen and ordered by seed: the first n of a shuffle. order: [n]. */
rung_status sample_order(size_t total, size_t n, uint64_t seed, size_t *order, rung_error *err);

#endif
