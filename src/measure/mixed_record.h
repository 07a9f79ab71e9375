/* A network of several precisions: which layers have more than 8 bits, why, and what that
 * costs. */
#ifndef RUNG_MEASURE_MIXED_RECORD_H
#define RUNG_MEASURE_MIXED_RECORD_H

#include "base/arena.h"
#include "base/status.h"

typedef enum level {
    LEVEL_INT8 = 0, /* as the options say */
    LEVEL_WIDE,     /* activations of 16 bits, weights as they are */
    LEVEL_FLOAT,
} level;

/* A layer that can be quantized: an operator with arithmetic of its own. */
typedef struct mixed_layer {
    const char *label;  /* of its node */
    level       level;
    bool        slow;   /* float because it is faster so (--fastest) */
    double      effect; /* noise over signal at the worst output when it alone computes in integers;
                         * NaN: not measured */
    double      top1, agreement; /* percent, in the same runs; -1: cannot be said */
    int64_t     macs;   /* one sample */
    double      float_ms, int8_ms; /* in the whole float and int8 network; 0: it has no step */
} mixed_layer;

typedef struct mixed_record {
    arena       *mem;
    mixed_layer *layers; /* along the network */
    size_t       n_layers;
    int64_t      macs;   /* of one sample */
    bool         budgeted; /* a drop was asked for: what follows is there */
    bool         met;
    bool         labelled; /* the drop is of top-1 accuracy; otherwise of agreement with float */
    size_t       samples, evaluations;
    double       float_top1; /* percent; -1: no labels */
    double       max_drop, int8_drop, drop; /* points: asked for, all in 8 bits, and now */
    /* Latency of one sample, all measured in turns. */
    double       float_ms, int8_ms, ms, slowdown; /* slowdown: median ratio of ms to int8_ms */
    int          threads;
} mixed_record;

void mixed_record_free(mixed_record *m);
/* Layers of that level, and their share of the multiply-accumulates. */
size_t mixed_count(const mixed_record *m, level of, double *macs_share);

#endif
