/* What the files of quant share. */
#ifndef RUNG_QUANT_PARTS_H
#define RUNG_QUANT_PARTS_H

#include "quant/quant.h"

/* A quantization in the making. All arrays are in mem; by value id where not said otherwise. */
typedef struct recipe {
    graph                    *g; /* prepared; the pairs go in here */
    const rung_quant_options *opt;
    diagnostics              *diag;
    arena                    *mem;
    size_t                    n_values, n_nodes; /* before anything is inserted */
    value_info               *info;
    placement                *places;
    bool                     *skip, *quantized; /* by node index */
    observer                **observers;
    qparams                  *params; /* of activations and constants that have a pair */
    float                   **scales; /* of weights: one per channel, or one */
} recipe;

/* ranges to parameters; reports constant tensors and tiny scales. */
rung_status choose_params(recipe *r, rung_error *err);
/* Scales of weights, raised where biases or sums would not fit int32. Reports what is not finite;
 * RUNG_EMODEL when nothing else is in a weight. */
rung_status choose_scales(recipe *r, rung_error *err);
/* Reports what was not finite or not seen. RUNG_EMODEL when an activation was never finite. */
rung_status check_observations(const recipe *r, rung_error *err);
/* Marks the nodes at tensors that have a pair but no observation in r->skip. False: there are none;
 * otherwise the pairs must be placed again. */
bool skip_unobserved(recipe *r);
/* Writes pairs and constants into r->g, sorted and verified. */
rung_status insert_pairs(recipe *r, rung_error *err);

/* Operand i of a node as a weight whose role (rule) it has: its output-channel axis; -1: input i is
 * no weight, not constant, or of no use as one. */
int weight_axis_of(const graph *g, const node *n, int i);
/* Value ids, -1: none. bias_of gives constants only. */
int weight_of(const graph *g, const node *n);
int bias_of(const graph *g, const node *n);
bool is_activation(const node *n, int i); /* by the rule's mask */

#endif
