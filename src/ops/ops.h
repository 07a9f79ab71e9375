/* The table of operators. */
#ifndef RUNG_OPS_OPS_H
#define RUNG_OPS_OPS_H

#include "graph/op.h"

/* The entry of an operator, NULL when rung does not know it. domain "ai.onnx" is "". */
const op_def *op_find(const char *op_type, const char *domain);

/* All entries, ended by NULL, sorted by name. */
extern const op_def *const op_table[];

#endif
