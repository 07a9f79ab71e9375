/* What convolutions share: their shape rules, for float and integer operators. */
#ifndef RUNG_OPS_CONV_H
#define RUNG_OPS_CONV_H

#include "ops/args.h"
#include "ops/window.h"

/* Shape of Conv and ConvInteger: [N, M, out...] of this type; checks group, channels and window. */
rung_status conv_shape_infer(const infer_args *a, dtype type, rung_error *err);

#endif
