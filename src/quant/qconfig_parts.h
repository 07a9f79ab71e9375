/* What the files of qconfig share. */
#ifndef RUNG_QUANT_QCONFIG_PARTS_H
#define RUNG_QUANT_QCONFIG_PARTS_H

#include "quant/qconfig.h"

enum qkey {
    QKEY_WEIGHT_BITS,
    QKEY_ACT_BITS,
    QKEY_ACT_TYPE,
    QKEY_ACT_SYMMETRIC,
    QKEY_WEIGHT_SCHEME,
    QKEY_RANGE,
    QKEY_PERCENTILE,
    QKEY_REDUCE_RANGE,
    QKEY_EXCLUDE,
    N_QKEYS,
};

/* Patterns that are given (not NULL) must all match. */
typedef struct qrule {
    const char *name, *op, *tensor;
    unsigned    keys; /* bit k: settings hold key k */
    qsettings   settings;
} qrule;

typedef struct fixed_range {
    const char *op_type;
    float       lo, hi;
} fixed_range;

typedef struct preset {
    const char        *name;
    qsettings          settings;
    const fixed_range *fixed; /* ends with op_type = NULL; NULL: none */
    const char *const *ties;  /* operator types, ends with NULL; NULL: none */
    const qsettings   *training; /* NULL: the same */
} preset;

struct qconfig {
    arena        *mem;
    const preset *base;
    qrule        *rules;
    size_t        n_rules;
    bool          training;
    rung_scales   scales; /* RUNG_SCALES_DEFAULT: by the base */
};

/* NULL: there is none of that name. The first is rung's own, called "default". */
const preset *preset_find(const char *name);
/* "default, x86, ..." in buf. */
const char *preset_names(char *buf, size_t size);

#endif
