/* Graphs for tests: built in a line or two, run by op->eval, compared. Failures end the test. */
#ifndef RUNG_TESTS_GRAPH_KIT_H
#define RUNG_TESTS_GRAPH_KIT_H

#include "graph/op.h"
#include "base/rng.h"
#include "unit.h"

#define DIMS(...) (const int64_t[]){ __VA_ARGS__ }
#define IDS(...) (const int[]){ __VA_ARGS__ }
#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

#define assert_ok(expression)                                                                      \
    do {                                                                                           \
        rung_error err_ = { "" };                                                                  \
        rung_error *err = &err_;                                                                   \
        if ((expression) != RUNG_OK)                                                               \
            fail_msg("%s: %s", #expression, err_.message);                                         \
    } while (0)

/* The expression, which names err, fails with this code; the sentence contains the words. */
#define assert_fails(expression, code, words)                                                      \
    do {                                                                                           \
        rung_error err_ = { "" };                                                                  \
        rung_error *err = &err_;                                                                   \
        assert_int_equal(expression, code);                                                        \
        if (!strstr(err_.message, words))                                                          \
            fail_msg("\"%s\" does not say \"%s\"", err_.message, words);                           \
    } while (0)

/* An empty graph of opset 13. */
graph *kit_graph(op_lookup find_op);
int    kit_input(graph *g, const char *name, int rank, const int64_t *dims); /* float32 */
void   kit_output(graph *g, int id);
int    kit_constant(graph *g, const char *name, dtype type, int rank, const int64_t *dims,
                    const void *data);
int    kit_ints(graph *g, const char *name, int n, const int64_t *v); /* int64 [n] */
/* float32, normally distributed; kit_positive: in [0.5, 1.5). */
int kit_random(graph *g, rng *r, const char *name, int rank, const int64_t *dims);
int kit_positive(graph *g, rng *r, const char *name, int64_t n);
/* A node and its only output, which is returned; the node is the last. */
int   kit_node(graph *g, const char *op_type, const char *name, int n_in, const int *in);
node *kit_last(graph *g);
void  kit_set_int(graph *g, const char *name, int64_t v); /* on the last node */
void  kit_set_ints(graph *g, const char *name, int n, const int64_t *v);
int   kit_find(const graph *g, const char *name); /* a value that must be there */
int   kit_count(const graph *g, const char *op_type);
const node *kit_only(const graph *g, const char *op_type); /* the only such node */

/* Runs g on normally distributed inputs made from seed (unknown dims are 2; the same seed gives the
 * same inputs to every graph with these inputs) and returns the outputs, in mem. */
const tensor **kit_run(const graph *g, uint64_t seed, arena *mem);
/* g's outputs on random inputs equal those of `before`, within tolerance * (1 + magnitude). */
void kit_same_function(const graph *before, const graph *g, uint64_t seed, double tolerance);
/* Applies the rewrite to a copy of g; checks that it is valid, that outputs kept their names, and
 * that it computes the same. Returns the copy. */
typedef rung_status (*kit_rewrite)(graph *g, rung_error *err);
graph *kit_rewritten(const graph *g, kit_rewrite rewrite, uint64_t seed, double tolerance);

#endif
