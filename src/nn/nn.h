/* Float32 execution: fast rows for the operators that matter (oneDNN, channels-last, or plain C
 * loops that the compiler vectorises); the others run through op_def.eval. Each row is tested
 * against eval. */
#ifndef RUNG_NN_NN_H
#define RUNG_NN_NN_H

#include "ops/step.h"

/* Fills s with a float32 step for l (epilogue included). RUNG_EUNSUPPORTED: no fast row for this
 * case, the engine uses eval. Constants are packed here, library objects are destroyed with l->mem
 * (arena_defer). */
rung_status nn_lower(const lowering *l, step *s, rung_error *err);

/* Whether the fast row of n would take this epilogue (a residual add; a clamp). */
bool nn_takes_add(const node *n);
bool nn_takes_clamp(const node *n);

#endif
