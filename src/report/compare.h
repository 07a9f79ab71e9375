/* A comparison as text, as JSON and as a page. Texts are mem_alloc'ed, the caller's. */
#ifndef RUNG_REPORT_COMPARE_H
#define RUNG_REPORT_COMPARE_H

#include "measure/compare.h"
#include "report/text.h"

rung_status report_compare_text(const comparison *c, char **text, rung_error *err);
/* One object: docs/cli.md lists its keys. */
rung_status report_compare_json(const comparison *c, char **text, rung_error *err);
/* One self-contained page: no script, nothing from the network. */
rung_status report_compare_html(const comparison *c, char **text, rung_error *err);

/* --- what the three share --------------------------------------------------------------------- */
enum { N_WORST = 10 };

/* Where a layer's own error comes from: noise in relation to its signal. */
typedef struct causes {
    double clipping, rounding; /* of its own values */
    double weights;            /* 0 where the float weight is not known */
    double inputs;             /* codes of what it reads */
} causes;
causes tensor_causes(const comparison *c, const tensor_record *t);
/* One sentence or two: what the figures say, and what to do about it. */
void tensor_advice(text *t, const comparison *c, const tensor_record *of);

/* Of the noisiest tensor that t is computed from; NaN: it has none. */
double tensor_input_db(const comparison *c, const tensor_record *t);
double percent_clipped(const tensor_record *t);
/* Of the worst output of the network where t's layer alone computes in integers; NaN: not measured.
 */
double effect_db(const comparison *c, const tensor_record *t);
/* Percent, in the same runs: decisions that are the float model's, and top-1; -1: not known. */
double effect_agreement(const comparison *c, const tensor_record *t);
double effect_top1(const comparison *c, const tensor_record *t);
double output_db(const comparison *c); /* of the worst output */
size_t rescaled_tensors(const comparison *c);

/* The largest magnitudes of the smallest and of the largest channel; channels below a millionth of
 * the largest are dead and do not count. 1 and 1: all are. */
void weight_span(const weight_record *w, double *least, double *most);

/* A number of decibels for people: "31.2 dB", "exact", or "-". */
void text_add_db(text *t, double db);
void text_add_bytes(text *t, size_t n); /* "1.08 MB" */

/* Decisions that changed, most frequent first; returns how many, at most n. */
typedef struct change {
    size_t from, to, count;
} change;
size_t top_changes(const comparison *c, change *list, size_t n);
/* Samples that the float model decides for a class. */
size_t decided(const comparison *c, size_t from);

#endif
