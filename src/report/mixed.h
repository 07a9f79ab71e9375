/* The layers that a quantized network leaves in more than 8 bits. Texts are mem_alloc'ed, the
 * caller's. */
#ifndef RUNG_REPORT_MIXED_H
#define RUNG_REPORT_MIXED_H

#include "measure/mixed_record.h"

rung_status report_mixed_text(const mixed_record *m, char **text, rung_error *err);
/* One object: docs/cli.md lists its keys. */
rung_status report_mixed_json(const mixed_record *m, char **text, rung_error *err);

#endif
