/* Sliding windows: what kernel_shape, strides, dilations, pads, auto_pad, ceil_mode, output_padding
 * and output_shape of a node come to, for the input at hand. Used by infer, eval and lowering. */
#ifndef RUNG_OPS_WINDOW_H
#define RUNG_OPS_WINDOW_H

#include "graph/graph.h"

#define WINDOW_MAX (RUNG_MAX_RANK - 2)

/* One entry a spatial axis. All known entries are checked: kernel, strides, dilations >= 1, pads
 * >= 0, out >= 1, everything below 2^30 except out of a transposed convolution. An input or kernel
 * dimension that is DIM_UNKNOWN makes out DIM_UNKNOWN (and pads 0 where auto_pad chooses them). */
typedef struct window {
    int     n; /* spatial axes: rank - 2, at least 1 */
    int64_t kernel[WINDOW_MAX], strides[WINDOW_MAX], dilations[WINDOW_MAX];
    int64_t begin[WINDOW_MAX], end[WINDOW_MAX]; /* padding */
    int64_t out[WINDOW_MAX];
} window;

/* rank, dims: of the input (N, C, spatial...). Conv: w_dims are the weight's (same rank), NULL when
 * not known. Refusals (RUNG_EMODEL) do not name the node. */
rung_status window_conv(const node *n, int rank, const int64_t *dims, const int64_t *w_dims,
                        window *w, rung_error *err);
/* ConvTranspose: out covers output_padding; begin and end are cut from the full result. */
rung_status window_conv_transpose(const node *n, int rank, const int64_t *dims,
                                  const int64_t *w_dims, window *w, rung_error *err);
/* MaxPool, AveragePool, LpPool. With ceil_mode the last window may pass the padded end; a window
 * that would begin there is dropped. */
rung_status window_pool(const node *n, int rank, const int64_t *dims, window *w, rung_error *err);

#endif
