/* What the files of equalization share: factors of channels, and what they cost. */
#ifndef RUNG_QUANT_EQUALIZE_H
#define RUNG_QUANT_EQUALIZE_H

#include "quant/method.h"

/* Of one channel of one activation, over all samples. */
typedef struct channel_stats {
    float  lo, hi;
    double sum, squares, count;
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
size_t equalizer_search(equalizer *q, rung_status *st, rung_error *err);

#endif
