/* Small graphs for the engine's tests. */
#ifndef ENGINE_GRAPHS_H
#define ENGINE_GRAPHS_H

#include "base/rng.h"
#include "graph/graph.h"

typedef struct builder {
    graph *g;
    rng r;
} builder;

/* The scale of what a quantized convolution reads, so that its bias has the right scale. */
#define ACTIVATION_SCALE 0.05f

/* Fails the test, printing the sentence. */
void expect_ok(rung_status st, const rung_error *err);

builder build_begin(uint64_t seed);
int build_input(builder *b, const char *name, int rank, const int64_t *dims);
void build_output(builder *b, int v);
/* A float32 constant of random numbers in [-1, 1). */
int build_weights(builder *b, int rank, const int64_t *dims);
int build_scalar(builder *b, float x);
/* A node with one output; in ends with -1. Returns the output. */
int build_node(builder *b, const char *op, const int *in, node **made);
int build_pair(builder *b, int v, float scale, int zero); /* Q, DQ: the DQ's value */
int build_pair_int8(builder *b, int v, float scale, int zero);
/* Conv with padding k / 2; quantized: int8 weights per channel and an int32 bias, behind DQ. */
int build_conv(builder *b, int x, int in_c, int out_c, int k, bool quantized);
graph *build_end(builder *b);

#endif
