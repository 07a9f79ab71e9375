/* What the rewrites share. */
#ifndef RUNG_GRAPH_PASS_H
#define RUNG_GRAPH_PASS_H

#include "graph/op.h"

/* A pass's own notes, freed by pass_end; sized for the values there were at pass_begin. */
typedef struct pass {
    graph      *g;
    arena      *mem;      /* scratch */
    size_t      n_values; /* when the pass began */
    bool       *kept;     /* [n_values]: a graph output, or captured: keeps its name and meaning */
    uses        uses;
    value_info *info; /* [n_values]; NULL before pass_infer */
} pass;

/* pass_end is due also when pass_begin fails. */
rung_status pass_begin(pass *p, graph *g, rung_error *err);
rung_status pass_infer(pass *p, rung_error *err);
void        pass_end(pass *p);

/* The node that alone uses value v, as it was at pass_begin; -1: none or several. */
int pass_only_user(const pass *p, int v);
/* The node that makes v and nothing else, where its operator is op_type and v has one use and need
 * not be kept: it may be changed together with v's user. NULL otherwise. */
node *pass_private_maker(const pass *p, int v, const char *op_type);
/* What is known of v; of values made since pass_begin nothing. */
const value_info *pass_info(const pass *p, int v);

bool node_is(const node *n, const char *op_type); /* an operator of ONNX's own domain */
int  node_input(const node *n, int i);            /* a value id, -1: absent */
/* The constant that is input i, NULL: absent or not constant. */
const tensor *node_constant(const graph *g, const node *n, int i);
bool          node_has_subgraph(const node *n);
/* Output i is there: somebody uses it, or it is kept. */
bool pass_output_used(const pass *p, const node *n, int i);

rung_status node_set_inputs(graph *g, node *n, const int *in, int n_in, rung_error *err);
/* Operand i becomes value v; absent operands fill the gap before it. */
rung_status node_set_input(graph *g, node *n, int i, int v, rung_error *err);

/* Constants, named `hint` and `suffix`; -1: memory is out. t is in g->mem already. */
int pass_add_tensor(graph *g, const char *hint, const char *suffix, const tensor *t);
/* int64 [n], and a scalar of a float type (F32 unless type is F16 or F64). */
int pass_add_ints(graph *g, const char *hint, const char *suffix, const int64_t *v, size_t n);
int pass_add_scalar(graph *g, const char *hint, const char *suffix, dtype type, float v);
/* The int64 or int32 constant t as numbers in mem; NULL: no such constant, or memory is out. */
const int64_t *tensor_ints(const tensor *t, arena *mem, size_t *n);

/* Whether evaluating n once and for all is right: not random, no Q/DQ (the model's weights), no
 * subgraph, an eval is there. */
bool node_is_pure(const node *n);
/* Runs n's eval. in: [n_inputs], NULL: absent. known: [n_outputs], types and dims all known; absent
 * outputs may be unknown. out: [n_outputs], their data in mem. Failures name the node. */
rung_status node_eval(const graph *g, const node *n, const tensor *const *in,
                      const value_info *known, arena *mem, tensor **out, rung_error *err);

/* "[1,3,?,224]", or "?" when the rank is not known. */
const char *dims_text(int rank, const int64_t *dims, char *buf, size_t size);
#define DIMS_TEXT_SIZE 200

#endif
