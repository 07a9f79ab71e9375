/* What a trial depends on, as one number: the name under which it is kept. */
#ifndef RUNG_TUNE_KEY_H
#define RUNG_TUNE_KEY_H

#include <stdint.h>

#include "tune/tune.h"

/* The model's bytes, the machine, how data sets are called, how large they are and some of their
 * samples as they come. size: of the model as a file. */
rung_status key_begin(const graph *g, dataset *data, dataset *eval, const tune_options *opt,
                      uint64_t *key, size_t *size, rung_error *err);
/* With what this trial is made by; the content of a qconfig file, not its name, counts. */
uint64_t key_quant(uint64_t key, const rung_quant_options *o);
uint64_t key_train(uint64_t key, const train_options *o);
uint64_t key_number(uint64_t key, double v);

#endif
