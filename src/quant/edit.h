/* What the modes without calibration share: which nodes they take, and the making of nodes. */
#ifndef RUNG_QUANT_EDIT_H
#define RUNG_QUANT_EDIT_H

#include "quant/quant.h"

/* A graph being edited. Values made after `n_values` have no info. */
typedef struct edit {
    graph                    *g; /* prepared */
    const rung_quant_options *opt;
    diagnostics              *diag;
    arena                    *mem;
    value_info               *info;
    size_t                    n_values, n_nodes;
    bool                      failed; /* memory was out on the way: ids of -1 followed */
} edit;

/* A copy of g, prepared and with its shapes. RUNG_EARGUMENT: it is quantized already. edit_end is
 * due in every case. */
rung_status edit_begin(edit *e, const graph *g, const rung_quant_options *opt, diagnostics *diag,
                       rung_error *err);
/* Sorts, drops what is not used any more, verifies, and hands the graph over. `text` becomes the
 * metadata rung.quantized. */
rung_status edit_end(edit *e, rung_status st, const char *text, graph **out, rung_error *err);

/* Whether n is to be quantized: its operator is named in opt->ops ("Linear" stands for MatMul and
 * Gemm), or, where none is, in `defaults`, and it is not excluded. */
bool edit_selects(const edit *e, const node *n, const char *const *defaults);

/* Value ids and node indices; -1, and e->failed: memory was out, now or for an id that is given. */
int edit_constant(edit *e, const char *base, const char *suffix, const tensor *t);
int edit_value(edit *e, const char *base, const char *suffix, dtype type);
/* A node with one output `out` (-1: a new value named base_suffix); returns that output. */
int edit_node(edit *e, const char *op, const int *in, int n_in, int out, const char *base,
              const char *suffix, dtype type);
node *edit_last(edit *e); /* the node made last */

/* The float32 constant that is operand i, NULL: another thing. */
const tensor *edit_weight(const edit *e, const node *n, int i);
/* A matrix [k, n] of t, which is that or, transposed, [n, k]; times factor. NULL: memory is out. */
tensor *edit_matrix(edit *e, const tensor *t, bool transposed, float factor);
/* Weights that are not finite count as 0: says so. */
void edit_report_bad(const edit *e, int v, size_t bad);
void edit_stays_float(const edit *e, const node *n, const char *why);

#endif
