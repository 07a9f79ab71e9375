#include "ops/ops.h"

#include <string.h>

#include "ops/entries.h"

const op_def *const op_table[] = {
    &op_abs,
    &op_acos,
    &op_acosh,
    &op_add,
    &op_and,
    &op_arg_max,
    &op_arg_min,
    &op_asin,
    &op_asinh,
    &op_atan,
    &op_atanh,
    &op_average_pool,
    &op_batch_normalization,
    &op_cast,
    &op_cast_like,
    &op_ceil,
    &op_celu,
    &op_clip,
    &op_concat,
    &op_constant,
    &op_constant_of_shape,
    &op_conv,
    &op_conv_integer,
    &op_conv_transpose,
    &op_cos,
    &op_cosh,
    &op_cum_sum,
    &op_depth_to_space,
    &op_dequantize_linear,
    &op_div,
    &op_dropout,
    &op_dynamic_quantize_linear,
    &op_elu,
    &op_equal,
    &op_erf,
    &op_exp,
    &op_expand,
    &op_flatten,
    &op_floor,
    &op_gather,
    &op_gather_elements,
    &op_gelu,
    &op_gemm,
    &op_global_average_pool,
    &op_global_max_pool,
    &op_greater,
    &op_greater_or_equal,
    &op_group_normalization,
    &op_hard_sigmoid,
    &op_hard_swish,
    &op_hardmax,
    &op_identity,
    &op_instance_normalization,
    &op_is_inf,
    &op_is_nan,
    &op_lrn,
    &op_layer_normalization,
    &op_leaky_relu,
    &op_less,
    &op_less_or_equal,
    &op_log,
    &op_log_softmax,
    &op_lp_normalization,
    &op_lp_pool,
    &op_matmul,
    &op_matmul_integer,
    &op_max,
    &op_max_pool,
    &op_mean,
    &op_min,
    &op_mish,
    &op_mod,
    &op_mul,
    &op_neg,
    &op_not,
    &op_or,
    &op_prelu,
    &op_pad,
    &op_pow,
    &op_quantize_linear,
    &op_rms_normalization,
    &op_range,
    &op_reciprocal,
    &op_reduce_l1,
    &op_reduce_l2,
    &op_reduce_log_sum,
    &op_reduce_log_sum_exp,
    &op_reduce_max,
    &op_reduce_mean,
    &op_reduce_min,
    &op_reduce_prod,
    &op_reduce_sum,
    &op_reduce_sum_square,
    &op_relu,
    &op_reshape,
    &op_resize,
    &op_round,
    &op_selu,
    &op_shape_of,
    &op_sigmoid,
    &op_sign,
    &op_sin,
    &op_sinh,
    &op_size,
    &op_slice,
    &op_softmax,
    &op_softplus,
    &op_softsign,
    &op_space_to_depth,
    &op_split,
    &op_sqrt,
    &op_squeeze,
    &op_sub,
    &op_sum,
    &op_swish,
    &op_tan,
    &op_tanh,
    &op_thresholded_relu,
    &op_tile,
    &op_top_k,
    &op_transpose,
    &op_unsqueeze,
    &op_where,
    &op_xor,
    NULL,
};

/* Domain "ai.onnx" is ONNX's own, written out. */
static const char *plain_domain(const char *domain)
{
    return strcmp(domain, "ai.onnx") == 0 ? "" : domain;
}

const op_def *op_find(const char *op_type, const char *domain)
{
    size_t first = 0, last = sizeof op_table / sizeof *op_table - 1;
    while (first < last) {
        const size_t middle = first + (last - first) / 2;
        const op_def *op = op_table[middle];
        const int order = strcmp(op_type, op->name);
        if (order == 0)
            return strcmp(plain_domain(domain), op->domain) == 0 ? op : NULL;
        if (order < 0)
            last = middle;
        else
            first = middle + 1;
    }
    return NULL;
}
