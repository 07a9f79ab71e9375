/* Placing buffers of known size and life in one block of memory. */
#ifndef RUNG_BASE_PLACE_H
#define RUNG_BASE_PLACE_H

#include <stddef.h>

#include "base/status.h"

/* Two pieces whose lives, first to last (inclusive), have a moment in common do not overlap. */
typedef struct place_piece {
    size_t bytes;
    int    first, last;
    size_t offset; /* the result: a multiple of 64 */
} place_piece;

/* Largest first, each in the smallest gap left by those that live at the same time. *total: bytes
 * of the block. RUNG_EMEMORY: more than the machine has. */
rung_status place_pieces(place_piece *pieces, size_t n, size_t *total, rung_error *err);

#endif
