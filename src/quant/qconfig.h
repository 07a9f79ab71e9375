/* How activations and weights are quantized, node by node and tensor by tensor: a preset, then the
 * rules of a JSON file (later ones win), then the options that the caller gave: docs/qconfig.md. */
#ifndef RUNG_QUANT_QCONFIG_H
#define RUNG_QUANT_QCONFIG_H

#include "graph/diagnostic.h"
#include "graph/op.h"

/* Resolved: no defaults are left. */
typedef struct qsettings {
    dtype      act_type; /* RUNG_U8, RUNG_I8, RUNG_U16 or RUNG_I16 */
    int        act_bits; /* of 8-bit types, 2 to 8; under 8 a Clip keeps values within them */
    bool       act_symmetric;
    bool       reduce_range; /* parameters for 7 bits, the type's other half is for outliers */
    rung_range range;        /* not RUNG_RANGE_DEFAULT */
    double     percentile;
    bool       per_tensor; /* weights */
    int        weight_bits; /* 2 to 8 */
    bool       full_weights; /* with the lowest code too, -128: steps of 1/127.5 of the largest */
    bool       exclude;     /* the node stays float */
} qsettings;

/* Whether activations have 16 bits. */
bool qsettings_wide(const qsettings *s);
/* Bits that the parameters of an activation are chosen for. */
int qsettings_bits(const qsettings *s);

typedef struct qconfig qconfig;

/* A preset's name, else a JSON file; NULL: rung's defaults. A mistake in a file is RUNG_EFORMAT
 * with file, line and key. *out is the caller's. */
rung_status qconfig_load(const char *name_or_file, qconfig **out, rung_error *err);
/* text: [n], the content of a file that messages call `file`. */
rung_status qconfig_parse(const char *text, size_t n, const char *file, qconfig **out,
                          rung_error *err);
void        qconfig_free(qconfig *c);
/* From now on c is what its preset means in training, where that differs. */
void        qconfig_for_training(qconfig *c);

/* How scales are trained: not RUNG_SCALES_DEFAULT. */
rung_scales qconfig_scales(const qconfig *c);

/* Whether its numbers are those of another tool: then nothing is improved on unasked. */
bool qconfig_is_preset(const qconfig *c);

/* What rules are matched against. */
typedef struct qsubject {
    const node *makers[2]; /* the node, and the Relu or Clip absorbed behind it; NULL: none */
    const char *tensor;    /* NULL: the node itself is meant */
} qsubject;

/* c = NULL: rung's defaults. opt: what it gives wins. s = NULL: no rule is looked at. */
qsettings qconfig_resolve(const qconfig *c, const rung_quant_options *opt, const qsubject *s);

/* The range that c prescribes for the output of an operator. False: none. */
bool qconfig_fixed_range(const qconfig *c, const node *n, float *lo, float *hi);
/* Whether c wants one set of parameters for the inputs and the output of n. */
bool qconfig_ties(const qconfig *c, const node *n);

/* A remark for every rule that matches nothing in g. */
void qconfig_report_unused(const qconfig *c, const graph *g, diagnostics *diag);

#endif
