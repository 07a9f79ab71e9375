/* Class scores (which class a model decides for, where the right one stands) and decibels. */
#ifndef RUNG_MEASURE_SCORES_H
#define RUNG_MEASURE_SCORES_H

#include "graph/graph.h"

/* float32 [n, classes], or with further dimensions of size 1; two classes or more. */
bool is_scores(const tensor *t);
/* Ties go to the lower class. */
size_t arg_max(const float *x, size_t n);
/* How many classes come before the label's. */
size_t rank_of(const float *x, size_t n, size_t label);

/* 10 log10(signal / noise); INFINITY: no noise, NaN: no signal either. */
double decibels(double signal, double noise);

#endif
