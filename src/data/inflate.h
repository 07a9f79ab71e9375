/* zlib on whole buffers. */
#ifndef RUNG_DATA_INFLATE_H
#define RUNG_DATA_INFLATE_H

#include "base/status.h"

/* Deflate cannot shrink more than this: a larger claim is a lie, and known to be one before memory
 * is taken. */
#define INFLATE_MOST_RATIO 1032

typedef enum inflate_format { INFLATE_RAW, INFLATE_GZIP } inflate_format;

/* Inflates all of in, which must give exactly n_out bytes. Checks gzip's CRC. */
rung_status inflate_whole(inflate_format format, const unsigned char *in, size_t n_in,
                          unsigned char *out, size_t n_out, rung_error *err);

/* The first n_out bytes only: to look at a header. */
rung_status inflate_start(inflate_format format, const unsigned char *in, size_t n_in,
                          unsigned char *out, size_t n_out, rung_error *err);

#endif
