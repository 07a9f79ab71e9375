/* Records to text and JSON. Texts are mem_alloc'ed, the caller's. */
#ifndef RUNG_REPORT_REPORT_H
#define RUNG_REPORT_REPORT_H

#include "engine/engine.h"
#include "graph/diagnostic.h"
#include "measure/measure.h"

/* nodes, ops, parameters, bytes, int_macs_share, float_islands, diagnostics, inputs, outputs. */
rung_status report_inspect(const graph *g, bool json, char **text, rung_error *err);
/* The processor and the integer kernels: processor, level, features, tables. */
rung_status report_cpu(bool json, char **text, rung_error *err);
rung_status report_profile(const engine *e, char **text, rung_error *err);
rung_status report_sqnr(const output_sqnr *sqnr, int n, char **text, rung_error *err);

#endif
