/* Options that several functions of the library take: checked, and in the modules' own form. */
#ifndef RUNG_API_CHECKS_H
#define RUNG_API_CHECKS_H

#include "train/run.h"

/* Those of static quantization. */
rung_status quant_options_check(const rung_quant_options *o, rung_error *err);
/* prepared: training of a prepared model, otherwise of a float one. */
rung_status train_options_take(const rung_train_options *o, bool prepared, bool labels,
                               bool teacher, train_options *r, rung_error *err);

#endif
