/* Functions of one element. Their formulas stand here once: eval uses them, and so do the 256-entry
 * tables of quantized inputs. */
#ifndef RUNG_OPS_UNARY_H
#define RUNG_OPS_UNARY_H

#include "graph/op.h"

typedef struct unary {
    double (*f)(double x, double a, double b);
    double a, b; /* from the node's attributes */
} unary;

/* The function that a node computes: false when its operator is none of one element (Clip, whose
 * bounds are inputs, is not). */
bool unary_of(const node *n, unary *out);

static inline double unary_apply(const unary *u, double x)
{
    return u->f(x, u->a, u->b);
}

#endif
