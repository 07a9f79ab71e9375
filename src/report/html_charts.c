/* Charts. Sizes are in the units of the SVG: pixels where it is not fitted to its card. */
#include <math.h>

#include "measure/scores.h"
#include "report/html.h"

/* The place of a chart's data inside its drawing. */
typedef struct frame {
    double left, top, right, bottom;
    double x_lo, x_hi, y_lo, y_hi;
} frame;

static double at_x(const frame *f, double x)
{
    return f->left + (x - f->x_lo) / (f->x_hi - f->x_lo) * (f->right - f->left);
}

static double at_y(const frame *f, double y)
{
    return f->bottom - (y - f->y_lo) / (f->y_hi - f->y_lo) * (f->bottom - f->top);
}

/* The 1, 2 or 5 times a power of ten that cuts a range into at most n parts. */
static double nice_step(double span, int n)
{
    const double least = span / n, ten = pow(10, floor(log10(least)));
    return least <= ten ? ten : least <= 2 * ten ? 2 * ten : least <= 5 * ten ? 5 * ten : 10 * ten;
}

static void add_line(text *t, const char *class, double x1, double y1, double x2, double y2)
{
    text_add(t, "<path class=\"%s\" d=\"M%.1f %.1fL%.1f %.1f\"/>", class, x1, y1, x2, y2);
}

static void add_box(text *t, const char *class, double x, double y, double width, double height)
{
    text_add(t, "<rect class=\"%s\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"/>", class,
             x, y, width, height);
}

static void add_label(text *t, double x, double y, const char *anchor, const char *words)
{
    text_add(t, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">%s</text>", x, y, anchor, words);
}

static void add_x_ticks(text *t, const frame *f, int n)
{
    const double step = nice_step(f->x_hi - f->x_lo, n);
    for (double k = ceil(f->x_lo / step); k * step <= f->x_hi; k++) {
        const double x = at_x(f, k * step);
        add_line(t, "axis", x, f->bottom, x, f->bottom + 4);
        text_add(t, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%.4g</text>", x,
                 f->bottom + 16, k * step + 0.0);
    }
}

static void add_y_ticks(text *t, const frame *f, int n)
{
    const double step = nice_step(f->y_hi - f->y_lo, n);
    for (double k = ceil(f->y_lo / step); k * step <= f->y_hi; k++) {
        const double y = at_y(f, k * step);
        add_line(t, "axis", f->left, y, f->right, y);
        text_add(t, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%.4g</text>", f->left - 6,
                 y + 4, k * step + 0.0);
    }
}

/* --- along the network ------------------------------------------------------------------------ */

/* Where a figure is drawn that has none to draw: exact ones at the upper border. */
static double drawn_db(const frame *f, double db)
{
    return db > f->y_hi ? f->y_hi : db < f->y_lo ? f->y_lo : db;
}

static void see_db(double db, double *lo, double *hi)
{
    if (!isfinite(db))
        return;
    *lo = fmin(*lo, db);
    *hi = fmax(*hi, db);
}

static frame sqnr_frame(const comparison *c)
{
    const double width = fmax(1030, 70 + 12.0 * (double)c->n_tensors);
    double lo = INFINITY, hi = -INFINITY;
    for (size_t i = 0; i < c->n_tensors; i++) {
        see_db(decibels(c->tensors[i].signal, c->tensors[i].noise), &lo, &hi);
        see_db(decibels(c->tensors[i].signal, c->tensors[i].own_noise), &lo, &hi);
    }
    if (lo > hi)
        lo = 0, hi = 60;
    return (frame){ 56, 32, width - 16, 280, 0.5, (double)c->n_tensors + 0.5,
                    floor(lo / 10) * 10 - 2, ceil(hi / 10) * 10 + 2 };
}

static void add_point(text *t, const frame *f, const comparison *c, size_t i)
{
    const tensor_record *r = &c->tensors[i];
    const double db = decibels(r->signal, r->noise), own = decibels(r->signal, r->own_noise);
    const double x = at_x(f, (double)i + 1);
    text_add(t, "<g><title>%zu  ", i + 1);
    html_name(t, r->node);
    text_add(t, "\n");
    html_name(t, r->name);
    text_add(t, "\nin the network ");
    text_add_db(t, db);
    text_add(t, ", layer alone ");
    text_add_db(t, own);
    text_add(t, "</title>");
    if (!isnan(own) && !isnan(db))
        add_line(t, "stem", x, at_y(f, drawn_db(f, own)), x, at_y(f, drawn_db(f, db)));
    if (!isnan(own))
        text_add(t, "<circle class=\"ring\" r=\"3\" cx=\"%.1f\" cy=\"%.1f\"/>", x,
                 at_y(f, drawn_db(f, own)));
    if (!isnan(db))
        text_add(t, "<circle class=\"dot\" r=\"3.5\" cx=\"%.1f\" cy=\"%.1f\"/>", x,
                 at_y(f, drawn_db(f, db)));
    const double half = (f->right - f->left) / (f->x_hi - f->x_lo) / 2;
    add_box(t, "hover", x - half, f->top, 2 * half, f->bottom - f->top);
    text_add(t, "</g>\n");
}

void chart_sqnr(text *t, const comparison *c)
{
    const frame f = sqnr_frame(c);
    bool begun = false;
    text_add(t, "<div class=\"scroll\" tabindex=\"0\"><svg role=\"img\" aria-label=\"SQNR along "
             "the network\" width=\"%.0f\" height=\"320\" viewBox=\"0 0 %.0f 320\">", f.right + 16,
             f.right + 16);
    add_y_ticks(t, &f, 6);
    add_x_ticks(t, &f, c->n_tensors < 20 ? (int)c->n_tensors : 20);
    add_label(t, f.left, 18, "start", "SQNR in dB, higher is better; at the upper edge: exact");
    add_label(t, f.right, 314, "end", "quantized tensor, in order of execution");
    text_add(t, "<path class=\"curve\" d=\"");
    for (size_t i = 0; i < c->n_tensors; i++) {
        const double db = decibels(c->tensors[i].signal, c->tensors[i].noise);
        if (isnan(db))
            continue;
        text_add(t, "%c%.1f %.1f", begun ? 'L' : 'M', at_x(&f, (double)i + 1),
                 at_y(&f, drawn_db(&f, db)));
        begun = true;
    }
    text_add(t, "\"/>\n");
    for (size_t i = 0; i < c->n_tensors; i++)
        add_point(t, &f, c, i);
    text_add(t, "</svg></div>\n");
}

/* --- series ----------------------------------------------------------------------------------- */

static frame series_frame(const double *a, const double *b, size_t n)
{
    double lo = INFINITY, hi = -INFINITY;
    for (size_t i = 0; i < n; i++) {
        see_db(a[i], &lo, &hi);
        if (b)
            see_db(b[i], &lo, &hi);
    }
    if (lo > hi)
        lo = 0, hi = 1;
    const double more = hi > lo ? (hi - lo) * 0.06 : fabs(hi) * 0.1 + 1e-3;
    return (frame){ 64, 32, 1014, 240, -0.2, (double)(n > 1 ? n - 1 : 1) + 0.2, lo - more,
                    hi + more };
}

static void add_curve(text *t, const frame *f, const char *class, const double *y, size_t n)
{
    bool begun = false;
    text_add(t, "<path class=\"%s\" d=\"", class);
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(y[i]))
            continue;
        text_add(t, "%c%.1f %.1f", begun ? 'L' : 'M', at_x(f, (double)i), at_y(f, y[i]));
        begun = true;
    }
    text_add(t, "\"/>\n");
}

static void add_values(text *t, const frame *f, const double *y, const char *name, bool ring,
                       size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(y[i]))
            continue;
        text_add(t, "<circle class=\"%s\" r=\"3\" cx=\"%.1f\" cy=\"%.1f\"><title>%zu: %s "
                 "%.6g</title></circle>\n", ring ? "ring" : "dot", at_x(f, (double)i),
                 at_y(f, y[i]), i, name, y[i]);
    }
}

void chart_series(text *t, const char *words, const char *x_name, const double *a,
                  const char *a_name, const double *b, const char *b_name, size_t n)
{
    const frame f = series_frame(a, b, n);
    text_add(t, "<div class=\"scroll\" tabindex=\"0\"><svg role=\"img\" aria-label=\"%s\" "
             "width=\"1030\" height=\"280\" viewBox=\"0 0 1030 280\">", words);
    add_y_ticks(t, &f, 6);
    add_x_ticks(t, &f, n < 20 ? (int)(n > 1 ? n - 1 : 1) : 20);
    add_label(t, f.left, 18, "start", words);
    add_label(t, f.right, 274, "end", x_name);
    if (b) {
        add_curve(t, &f, "stem", b, n);
        add_values(t, &f, b, b_name, true, n);
    }
    add_curve(t, &f, "curve", a, n);
    add_values(t, &f, a, a_name, false, n);
    text_add(t, "</svg></div>\n");
}

/* --- values of a tensor ----------------------------------------------------------------------- */

enum { N_BINS = 96 };

/* All that is seen and all that the codes reach, and a little more. */
static frame values_frame(const tensor_record *r)
{
    const double lo = fmin(r->lo, r->clip_lo), hi = fmax(r->hi, r->clip_hi);
    const double more = (hi - lo) * 0.04;
    return (frame){ 12, 6, 348, 120, lo - more, hi + more, 0, 1 };
}

static void add_bars(text *t, const frame *f, const double *counts)
{
    double most = 1;
    for (int i = 0; i < N_BINS; i++)
        most = fmax(most, counts[i]);
    const double width = (f->right - f->left) / N_BINS;
    text_add(t, "<path class=\"area\" d=\"");
    for (int i = 0; i < N_BINS; i++) {
        const double y = at_y(f, log1p(counts[i]) / log1p(most)), x = f->left + i * width;
        if (counts[i] > 0)
            text_add(t, "M%.2f %.1fV%.1fH%.2fV%.1fZ", x, f->bottom, y, x + width * 0.9, f->bottom);
    }
    text_add(t, "\"/>");
}

static void add_outside(text *t, const frame *f, double from, double to)
{
    if (to > from)
        add_box(t, "outside", from, f->top, to - from, f->bottom - f->top);
}

void chart_values(text *t, const tensor_record *of)
{
    double counts[N_BINS];
    const frame f = values_frame(of);
    spread_fold(of->values, f.x_lo, f.x_hi, N_BINS, counts);
    text_add(t, "<svg class=\"fit\" role=\"img\" aria-label=\"Distribution of the float values\" "
             "viewBox=\"0 0 360 152\">");
    add_outside(t, &f, f.left, at_x(&f, of->clip_lo));
    add_outside(t, &f, at_x(&f, of->clip_hi), f.right);
    add_bars(t, &f, counts);
    add_line(t, "zero", f.left, f.bottom, f.right, f.bottom);
    add_x_ticks(t, &f, 6);
    add_line(t, "clip", at_x(&f, of->clip_lo), f.top, at_x(&f, of->clip_lo), f.bottom);
    add_line(t, "clip", at_x(&f, of->clip_hi), f.top, at_x(&f, of->clip_hi), f.bottom);
    add_label(t, f.right, 148, "end", "value; height: log of the count");
    text_add(t, "</svg>\n");
}

/* --- weights ---------------------------------------------------------------------------------- */

enum { MAX_COLUMNS = 320 };

/* Decades from the smallest to the largest channel. */
static frame weights_frame(const weight_record *w)
{
    double lo, hi;
    weight_span(w, &lo, &hi);
    if (!w->per_channel && w->steps[0] > 0)
        lo = fmin(lo, w->steps[0]);
    const double bottom = floor(log10(lo)), top = ceil(log10(hi));
    return (frame){ 44, 8, 344, 120, 0, (double)w->channels, bottom,
                    top > bottom ? top : bottom + 1 };
}

static void add_decades(text *t, const frame *f)
{
    const int step = (int)ceil((f->y_hi - f->y_lo) / 4);
    for (int k = (int)f->y_lo; k <= (int)f->y_hi; k += step) {
        add_line(t, "axis", f->left, at_y(f, k), f->right, at_y(f, k));
        text_add(t, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%g</text>", f->left - 6,
                 at_y(f, k) + 4, pow(10, k));
    }
}

/* One stroke a channel, from the axis up; where there are too many for that, one for several
 * neighbours, from the smallest of them to the largest. */
static void add_strokes(text *t, const frame *f, const weight_record *w)
{
    const size_t n = w->channels < MAX_COLUMNS ? w->channels : MAX_COLUMNS;
    const double width = (f->right - f->left) / (double)n;
    text_add(t, "<path class=\"strokes\" stroke-width=\"%.2f\" d=\"", fmax(width * 0.75, 0.8));
    for (size_t i = 0; i < n; i++) {
        double lo = INFINITY, hi = 0;
        for (size_t k = i * w->channels / n; k < (i + 1) * w->channels / n; k++) {
            lo = w->max[k] > 0 ? fmin(lo, w->max[k]) : lo;
            hi = fmax(hi, w->max[k]);
        }
        if (!(hi > 0) || log10(hi) <= f->y_lo)
            continue; /* dead */
        const double from =
            n == w->channels ? f->bottom : fmin(at_y(f, log10(lo)) + 1, f->bottom);
        text_add(t, "M%.1f %.1fV%.1f", f->left + ((double)i + 0.5) * width, from,
                 at_y(f, log10(hi)));
    }
    text_add(t, "\"/>");
}

void chart_weights(text *t, const weight_record *w)
{
    const frame f = weights_frame(w);
    text_add(t, "<svg class=\"fit\" role=\"img\" aria-label=\"Largest weight of each channel\" "
             "viewBox=\"0 0 360 152\">");
    add_decades(t, &f);
    add_strokes(t, &f, w);
    if (!w->per_channel && w->steps[0] > 0) {
        const double y = at_y(&f, log10(w->steps[0]));
        add_line(t, "clip", f.left, y, f.right, y);
    }
    add_line(t, "zero", f.left, f.bottom, f.right, f.bottom);
    add_x_ticks(t, &f, 6);
    add_label(t, f.right, 148, "end", "output channel");
    text_add(t, "</svg>\n");
}
