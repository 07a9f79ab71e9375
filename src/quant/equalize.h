/* What the files of equalization share: factors of channels, and what they cost. */
#ifndef RUNG_QUANT_EQUALIZE_H
#define RUNG_QUANT_EQUALIZE_H

#include "quant/method.h"

enum { FOLDS = 5 }; /* of the samples, for what is judged on those that are left out */

/* Of one channel of one activation, over all samples; lows and highs of each fold, 0 included. */
typedef struct channel_stats {
    float  lo, hi;
    double sum, squares, count;
    float  lows[FOLDS], highs[FOLDS];
} channel_stats;

/* A Conv or Gemm with a constant weight that only it uses. */
typedef struct linear {
    layer  l;
    int    measured;   /* value whose statistics stand for its output: behind an absorbed Relu */
    float *largest;    /* [groups * out][inputs of a group]: magnitude over the kernel's taps */
    size_t taps;
} linear;

typedef struct equalizer {
    graph                    *g;
    const rung_quant_options *opt;
    arena                    *mem;
    uses                      uses;
    value_info               *info;
    placement                *places;
    bool                     *quantized; /* by node index */
    /* Channel c of value v is element base[v] + c; -1: v has no channels to speak of. Elements that
     * must have one factor have one root. */
    int64_t       *base;
    size_t         n_elements;
    int           *parent;
    int           *family; /* by value id: values that share elements have one root */
    bool          *fixed;  /* by root element: its factor must be 1 */
    double        *cap;    /* by root element: largest factor that leaves Clips out of reach */
    channel_stats *stats;  /* by element */
    double        *gain;   /* by element: noise power at what consumes it, for noise power 1 */
    double        *factor; /* by root element */
    double        *use, *column, *row; /* by root element: see method_equalize_search.c */
    double        *width;  /* by value id: scratch */
    size_t        *choice; /* by value id of a family's root: its candidate */
    linear        *linears;
    size_t         n_linears;
} equalizer;

size_t channels_of_value(const equalizer *q, int v);
int    element_root(const equalizer *q, size_t element);
int    family_root(const equalizer *q, int v);
double factor_of(const equalizer *q, int v, size_t c); /* 1 where v has no elements */

/* Which channels belong together (method_equalize_links.c). */
rung_status equalizer_link(equalizer *q, rung_error *err);
/* Factors of least estimated noise; returns the number of families whose factors are not all 1. */
size_t equalizer_search(equalizer *q);
/* Factors as the choice of the search gives them for the statistics as they are. */
void   equalizer_refactor(equalizer *q);
/* How far samples go beyond the range of others (method_equalize_reach.c): reach[v] >= 1 is to
 * stretch the range of v with. plain: of g as it is; equal: with the factors. */
rung_status equalizer_reach(equalizer *q, double *plain, double *equal, rung_error *err);

#endif
