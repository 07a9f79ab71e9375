/* One node with operands whose gradient (op_def.grad) is checked: against central differences of
 * its eval, and that it reads what op_def.reads name and nothing else. Failures end the test. */
#ifndef RUNG_TESTS_GRAD_CASE_H
#define RUNG_TESTS_GRAD_CASE_H

#include "base/rng.h"
#include "graph/op.h"
#include "unit.h"

/* rank, dims */
#define DIMS(...)                                                                                  \
    (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (int64_t[]){__VA_ARGS__}

enum { CASE_IN = 8, CASE_OUT = 4, CASE_ATTRS = 8 };

typedef struct grad_case {
    node     n;
    attr     attrs[CASE_ATTRS];
    int      ids[CASE_IN], out_ids[CASE_OUT];
    int64_t  opset;
    tensor   in[CASE_IN], out[CASE_OUT], dout[CASE_OUT];
    bool     wanted[CASE_IN]; /* inputs whose gradient is checked */
    bool     exact;
    double   step; /* of the differences; a power of two */
    arena   *mem;
    rng      r;
} grad_case;

/* n_out: outputs of the node. */
void case_begin(grad_case *c, const char *op, int64_t version, int n_out);

/* The next input. Uniform in [-2, 2); case_between: in [lo, hi). */
void case_input(grad_case *c, int rank, const int64_t *dims);
void case_between(grad_case *c, double lo, double hi, int rank, const int64_t *dims);
/* Small multiples of 1/8, for operators that are linear in each operand and are evaluated in
 * float32: sums and products are exact, and so are differences with a step of 1. */
void case_exact(grad_case *c, int rank, const int64_t *dims);
/* These numbers; the gradient is checked. */
void case_values(grad_case *c, int rank, const int64_t *dims, const float *v);
/* Operands that have no gradient: integers, booleans, float parameters; an absent one. */
void case_ints(grad_case *c, int rank, const int64_t *dims, const int64_t *v);
void case_bools(grad_case *c, int rank, const int64_t *dims, const uint8_t *v);
void case_parameters(grad_case *c, int rank, const int64_t *dims, const float *v);
void case_absent(grad_case *c);
/* Results are float32 whatever the input's type: differences take a larger step. */
void case_coarse(grad_case *c);

void case_int_attr(grad_case *c, const char *name, int64_t v);
void case_ints_attr(grad_case *c, const char *name, int n, const int64_t *v);
void case_float_attr(grad_case *c, const char *name, float v);
void case_string_attr(grad_case *c, const char *name, const char *v);

/* Every check; the case is over and its memory freed. */
void case_check(grad_case *c);
/* Not a difference, but these gradients for dL/dy = 1 everywhere: din[i] has the numbers v (for
 * kinks). The case goes on. */
void case_expect(grad_case *c, int i, const float *v);
void case_end(grad_case *c);

/* --- what all cases so far have shown --- */
/* Whether the operator was checked; the bits of reads that made a difference. */
bool case_seen(const op_def *op, grad_reads *needed);

#endif
