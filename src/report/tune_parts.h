/* What the text, the object and the page of a tune share. */
#ifndef RUNG_REPORT_TUNE_PARTS_H
#define RUNG_REPORT_TUNE_PARTS_H

#include "report/tune.h"

/* Trials before training (dynamic, weight-only, static), or those that train. */
typedef struct tune_family {
    int        n; /* done */
    double     seconds;
    size_t     epochs;
    trial_kind best; /* of least drop among the answers; TRIAL_FLOAT: none */
} tune_family;
tune_family tune_family_of(const tune_record *r, bool trains);

const char *tune_metric(const tune_record *r);

#endif
