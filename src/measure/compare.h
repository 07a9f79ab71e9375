/* A quantized model beside the float model it was made from: sizes, latency, accuracy, and the
 * error of every quantized activation and weight. Memory does not grow with the samples. */
#ifndef RUNG_MEASURE_COMPARE_H
#define RUNG_MEASURE_COMPARE_H

#include "data/data.h"
#include "engine/engine.h"
#include "measure/spread.h"

typedef struct model_record {
    const char *title;      /* of the file, as the caller calls it */
    size_t      file_bytes; /* 0: not known */
    size_t      constant_bytes;
    double      top1, top5; /* percent; -1: no labels, or no class scores */
    double      median_ms, p10_ms, p90_ms;
} model_record;

/* What comes out where one layer alone computes in integers, the rest of the network in float. */
typedef struct effect {
    double *noise;   /* [n outputs]: sums of squares of the errors; NULL: not measured */
    size_t  changed; /* decisions that are not the float model's */
    size_t  right;   /* decisions that are the labels */
} effect;

/* An activation that the int8 model carries as codes: a QuantizeLinear / DequantizeLinear pair
 * whose value has a namesake in the float model. The sums run over all samples. */
typedef struct tensor_record {
    const char *name;    /* in the float model */
    const char *node;    /* who makes it: a label; "input of the model" */
    const char *node_name, *op_type; /* both may be "" */
    bool        moves;   /* its operator only moves or selects values: it adds no error */
    int        *inputs;  /* tensors that it is computed from: indices */
    int         n_inputs;
    int         weights; /* index of its layer's weights; -1: none */
    double      scale;
    int         zero;
    double      clip_lo, clip_hi; /* what the codes can represent */
    size_t      count, n_clipped; /* finite values; those that the codes saturate */
    double      lo, hi;           /* seen in float; lo > hi: none */
    /* Channels that the int8 model carries on another scale (equalization): float values count here
     * times factors[channel]. factors is NULL where n_rescaled = 0. */
    size_t      channels, n_rescaled;
    float      *factors;
    double      signal;      /* sum of squares of the float values */
    double      noise;       /* of the int8 model's errors */
    double      own_noise;   /* the same when its layer is fed what the float model computes */
    double      round_noise; /* of the float values through this pair alone: those inside ... */
    double      clip_noise;  /* ... and those outside what the codes can represent */
    spread     *values;      /* the float values */
    effect      effect;      /* of its layer */
    int64_t     macs;        /* of its layer, one sample; 0 where no effects are measured */
    double      float_ms, int8_ms; /* of its layer in both models; 0: not measured, or no step */
} tensor_record;

/* A weight of 8 bits or fewer behind a DequantizeLinear. */
typedef struct weight_record {
    const char *name, *node, *node_name, *op_type;
    bool        per_channel;
    size_t      channels;
    float      *max;      /* [channels]: largest magnitude; of the float weight where it is known */
    int        *max_code; /* [channels]: largest magnitude of code less zero point */
    size_t      n_coarse; /* channels that use less than 4 bits: no code beyond +-7 */
    float      *steps;    /* scales: [channels], or per tensor the only one */
    bool        known;    /* the float model has this weight: signal and noise are there */
    double      signal, noise;
} weight_record;

typedef struct output_record {
    const char *name;
    double      signal, noise;
} output_record;

/* MAX_CONFUSION: classes beyond which no table is kept (16 MB). */
enum { MAX_CONFUSION = 2048 };

typedef struct comparison {
    arena         *mem;
    const char    *data_title;
    model_record   reference, model;
    double         speedup; /* median of the rounds' ratios, float over int8 */
    int            threads, latency_rounds;
    bool           random_data;
    size_t         samples, labelled;
    double         agreement; /* percent; -1: no class scores */
    output_record *outputs;
    int            n_outputs;
    tensor_record *tensors; /* along the network */
    size_t         n_tensors;
    size_t         n_unmatched; /* pairs without a namesake in the float model */
    weight_record *weights;
    size_t         n_weights;
    size_t         classes;   /* 0: no class scores */
    uint32_t      *confusion; /* [classes][classes], float's decision first; NULL: none kept */
    /* Of the samples that the layers' effects are measured on: 0, and those with a label; what the
     * float model gives on them. */
    size_t         effect_samples, effect_labelled, effect_right;
    double        *effect_signal; /* [n_outputs] */
    int64_t        macs;          /* of one sample */
} comparison;

typedef struct compare_options {
    size_t      samples; /* of the data, chosen by seed; 0: all */
    uint64_t    seed;
    int         n_threads;
    double      seconds; /* for latency; 0: 1 */
    bool        quiet;
    const char *reference_title, *title, *data_title; /* NULL: "" */
    size_t      reference_bytes, model_bytes; /* of the files */
    size_t      sensitivity; /* samples to measure the layers' effects on; 0: they are not */
} compare_options;

/* Samples that the effects are measured on by default: half a network is run for every layer. */
enum { SENSITIVITY_SAMPLES = 64 };

/* Fails where the outputs differ, or no pair has a namesake. *out is the caller's. */
rung_status measure_compare(const graph *reference, const graph *g, dataset *data,
                            const compare_options *opt, comparison **out, rung_error *err);
void        comparison_free(comparison *c);

/* Noise over signal of the worst output where t's layer alone computes in integers. */
double comparison_effect(const comparison *c, const tensor_record *t);
/* Tensors by the error that their layers add, most first: at the outputs of the network where that
 * was measured, else at their own. Those that only move values, or have seen nothing, are left out.
 * index: [n]. Returns how many there are, at most n. */
size_t comparison_worst(const comparison *c, size_t n, size_t *index);

#endif
