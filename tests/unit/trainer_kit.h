/* A small network for tests of the trainer, and images whose class is where a bright spot is. */
#ifndef RUNG_TESTS_TRAINER_KIT_H
#define RUNG_TESTS_TRAINER_KIT_H

#include "graph_kit.h"
#include "train/trainer_parts.h"

enum { SAMPLES = 64, SIDE = 8, SAMPLE = SIDE * SIDE, CLASSES = 4 };

typedef struct spots {
    graph  *g, *prepared;
    float   x[SAMPLES * SAMPLE];
    int64_t labels[SAMPLES];
    batch_input input;
    batch   all;
} spots;

/* In a folder of the test's own. bits 0: not prepared. */
spots *spots_begin(bool softmax, bool batch_norm, int bits);
spots *spots_preset(const char *name); /* prepared by a preset, for 8 bits */
void   spots_end(spots *t);
trainer_options spots_usual(void);
/* n steps; *first (may be NULL): the loss of the first. */
step_result spots_train(trainer *t, const spots *on, int n, double *first);

#endif
