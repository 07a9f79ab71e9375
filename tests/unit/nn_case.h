/* One operator with random operands: lowered by nn_lower (by the movers of ops where it only moves
 * elements), run, compared with op_def.eval. */
#ifndef RUNG_TESTS_NN_CASE_H
#define RUNG_TESTS_NN_CASE_H

#include "base/rng.h"
#include "nn/nn.h"

#define NN_MAX 8

typedef struct nn_case {
    arena  *mem;
    graph  *g;
    rng    *random;
    int64_t opset;
    bool    channels_last; /* the layout of every activation of rank >= 3 */
    node   *n;
    int     n_in, n_out;
    tensor  in[NN_MAX], out[NN_MAX];
    bool    constant[NN_MAX], absent[NN_MAX];
    bool    plain[NN_MAX]; /* inputs that are not in that layout */
    bool    training;      /* lowered by nn_lower_training */
    bool    add; /* the epilogue: a random operand; a clamp */
    bool    clamp;
    float   lo, hi;
} nn_case;

/* How far a row may be from eval. In a sum of `terms` products, in any order, |y - eval| is at most
 * (terms + 8) * FLT_EPSILON * S, where S is eval of the operands' magnitudes. */
typedef struct nn_bound {
    enum {
        NN_EXACT,    /* equal */
        NN_SUM,
        NN_RELATIVE, /* terms * FLT_EPSILON * (|eval| + slack * |x|) */
        NN_ABSOLUTE, /* terms * FLT_EPSILON * slack; of gradients only */
    } kind;
    double terms, slack;
} nn_bound;

void nn_begin(nn_case *c, rng *r, bool channels_last);
void nn_end(nn_case *c);
/* Operands, in order: normal random numbers; integers (constant); one absent. */
void nn_input(nn_case *c, bool constant, int rank, const int64_t *dims);
void nn_ints_input(nn_case *c, int n, const int64_t *v);
void nn_floats_input(nn_case *c, int n, const float *v);
void nn_absent(nn_case *c);
/* The node behind the operands, with n_out outputs; attributes follow. */
void nn_node(nn_case *c, const char *op, int n_out);
void nn_set_int(nn_case *c, const char *name, int64_t v);
void nn_set_ints(nn_case *c, const char *name, int n, const int64_t *v);
void nn_set_float(nn_case *c, const char *name, float v);
void nn_set_string(nn_case *c, const char *name, const char *v);

/* Fills the lowering's operands from the case (their types, dims, layout; outputs inferred). */
void nn_operands(nn_case *c, lowering *l, operand *in, operand *out, arena *mem);

/* Where element i of the row-major tensor is in memory; its elements as the operand stores them. */
size_t nn_place(const operand *o, size_t i);
float *nn_stored(nn_case *c, const operand *o, const tensor *t);

/* Lowers for 1 and 2 threads, runs, compares. Fails the test when it is too far away, when memory
 * outside the outputs changed, or when there is no row. */
void nn_check(nn_case *c, nn_bound bound);
/* Lowers the backward step for 1 and 2 threads and inside a parallel region, runs it with nothing
 * in the buffers that the operator's grad_reads do not name, compares with op_def.grad. NN_SUM: the
 * gradient of the magnitudes bounds the error; with slack = 1, where the operands choose the way
 * (a maximum), only dL/doutput's are taken. NN_RELATIVE: x is dL/doutput 0. */
void nn_check_backward(nn_case *c, unsigned wanted, nn_bound bound);
/* The lowering gives this status. */
void nn_check_status(nn_case *c, rung_status want);
/* Every allocation of the lowering failed in turn gives RUNG_EMEMORY. */
void nn_check_memory(nn_case *c);

/* Random numbers: lo to hi, both included; true once in `one_in`; an epilogue for c. */
int64_t nn_between(rng *r, int64_t lo, int64_t hi);
bool nn_chance(rng *r, int one_in);
void nn_random_epilogue(nn_case *c, bool add);

/* Set-up of a group of tests: *state is an rng, its seed 1 or RUNG_TEST_SEED, printed. */
int nn_seed(void **state);

#endif
