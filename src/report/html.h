/* The pieces of a page: frame, escaped text, charts as inline SVG. */
#ifndef RUNG_REPORT_HTML_H
#define RUNG_REPORT_HTML_H

#include "report/compare.h"

/* Everything to and from the body's contents; the style sheet is inside. */
void html_begin(text *t, const char *title);
void html_end(text *t);

/* Text that is not ours, escaped for text and for attributes in quotes. */
void html_name(text *t, const char *name);

/* SQNR of every tensor along the network: at its place, and of its layer alone. */
void chart_sqnr(text *t, const comparison *c);
/* The float values of a tensor, and what the codes reach. */
void chart_values(text *t, const tensor_record *of);
/* Two series over 0 .. n - 1, NaN: no point; b NULL: one. words: what and in which unit. a_name and
 * b_name: what a point is called; x_name: the axis. */
void chart_series(text *t, const char *words, const char *x_name, const double *a,
                  const char *a_name, const double *b, const char *b_name, size_t n);
/* The largest weight of every channel. */
void chart_weights(text *t, const weight_record *w);

#endif
