/* What a run needs to go on as if nothing had happened, in one file that is whole or not there. */
#ifndef RUNG_TRAIN_CHECKPOINT_H
#define RUNG_TRAIN_CHECKPOINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef struct checkpoint_block {
    void  *data;
    size_t size;
} checkpoint_block;

/* FNV-1a of n bytes, continuing from `hash` (first: CHECKPOINT_HASH). */
#define CHECKPOINT_HASH UINT64_C(0xcbf29ce484222325)
uint64_t checkpoint_hash(uint64_t hash, const void *data, size_t n);

/* key: of everything that the run depends on: options, model, data. Atomic. */
rung_status checkpoint_write(const char *path, uint64_t key, const checkpoint_block *blocks, int n,
                             rung_error *err);
/* Fills the blocks, whose sizes must be those in the file. *found = false and RUNG_OK: there is no
 * such file. RUNG_EFORMAT: it is damaged; RUNG_EARGUMENT: it is of another run. */
rung_status checkpoint_read(const char *path, uint64_t key, const checkpoint_block *blocks, int n,
                            bool *found, rung_error *err);

#endif
