/* Remarks about nodes and tensors, collected while a model is worked on. */
#ifndef RUNG_GRAPH_DIAGNOSTIC_H
#define RUNG_GRAPH_DIAGNOSTIC_H

#include "base/arena.h"
#include "base/status.h"

struct rung_diagnostics {
    arena           *mem;
    rung_diagnostic *list;
    size_t           n, cap;
};
typedef struct rung_diagnostics diagnostics;

diagnostics *diagnostics_new(void); /* NULL: memory is out */
void         diagnostics_free(diagnostics *d);

/* Adds a remark; code is a literal, where is copied. d = NULL: nothing is kept. A remark that finds
 * no memory is lost. */
void diagnose(diagnostics *d, const char *code, const char *where, const char *fmt, ...)
    PRINTF_LIKE(4, 5);

#endif
