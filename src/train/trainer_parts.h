/* What the files of the trainer share. */
#ifndef RUNG_TRAIN_TRAINER_PARTS_H
#define RUNG_TRAIN_TRAINER_PARTS_H

#include "engine/engine.h"
#include "train/observe.h"
#include "train/tape.h"
#include "train/trainer.h"

/* An output that the loss looks at: its place among the tape's and the teacher's outputs. */
typedef struct watched {
    int tape, teacher; /* teacher -1: none */
} watched;

/* What is to be an output beside the graphs' own, and what the loss looks at. */
typedef struct watch_list {
    int     *extra; /* value ids in g */
    int      n_extra;
    watched *list; /* the graph's outputs, then features */
    int      n_outputs, n_features;
    graph   *teacher; /* a copy with extra outputs; owned; NULL: none */
} watch_list;

/* In mem, but for the teacher. RUNG_EARGUMENT names a feature or an output that does not fit. */
rung_status watch_outputs(const graph *g, const graph *teacher, const trainer_options *opt,
                          arena *mem, watch_list *out, rung_error *err);

typedef struct lane {
    tape        *t;
    engine      *teacher; /* NULL: none */
    float       *grad;    /* [p->total] of the chunk at hand */
    float       *state;   /* [p->total]: its running statistics; NULL: those of the batch are not
                           * used */
    loss_output *out;
    bool         stale; /* the parameters moved since its last run */
} lane;

/* How the code of a weight moved. */
typedef struct swing {
    float code;      /* of the last step; of a frozen weight for good */
    float mean;      /* a moving average of codes */
    float often;     /* that of turns: 1 in a step whose change goes against the last change */
    float direction; /* of the last change: -1, 1; 0: there was none */
    float frozen;    /* 0, 1: floats alone, so that a checkpoint has no padding */
} swing;
/* The code of one more step. True: the weight is frozen, at s->code. */
bool swing_see(swing *s, float code, float threshold);

typedef struct freezer freezer;
/* Of the weights of g that have codes, as they are in p. g and p are read during its life. */
rung_status freezer_create(const graph *g, const params *p, float threshold, freezer **out,
                           rung_error *err);
void        freezer_free(freezer *z);
void        freezer_state(freezer *z, void **data, size_t *size); /* for checkpoints */
/* After each step: weights that are frozen are put back on their codes, in average (NULL: none) as
 * well. */
void freezer_step(freezer *z, const params *p, float *average);

struct trainer {
    arena          *mem;
    const graph    *g;
    trainer_options opt;
    bool            prepared;
    observers      *observers; /* NULL: scales are not observed */
    bool            frozen;    /* observed scales stay */
    params         *p;
    optimizer      *o;
    watch_list      watch;
    lane           *lanes;
    int             n_lanes;
    float          *grad;  /* [p->total]: the sum */
    float          *state; /* [p->total]: running statistics of the step; NULL: none */
    float          *seen;  /* [2 p->n]: ranges of the batch (tape_seen); NULL: none */
    float          *before; /* [p->total]: parameters before the step */
    freezer        *freezer; /* NULL: weights that swing do not freeze */
    int            *codes;  /* by parameter: of a scale, how many codes its pairs have at most */
};

/* Samples a chunk: see trainer_options.chunk. */
rung_status chunk_size(const graph *g, const trainer_options *opt, size_t *out, rung_error *err);
/* Runs g (float, or the prepared one's integer model) on b and says in the error which node made a
 * number that is not finite first; without one, *err stays. Of several processes the first that
 * finds a node has its say in all. */
void blame_layer(const trainer *t, const batch *b, rung_error *err);
/* Fills t->codes. */
rung_status count_codes(trainer *t, rung_error *err);
/* A step changes the width of a range by one code at most: scales stay positive, and a leap (of a
 * rate that is too large at first) is no collapse. */
void keep_scales(const trainer *t);
/* Adds the gradient of the dampening term. */
rung_status dampen(const trainer *t, float *grad, rung_error *err);

#endif
