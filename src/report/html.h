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
/* The largest weight of every channel. */
void chart_weights(text *t, const weight_record *w);

#endif
