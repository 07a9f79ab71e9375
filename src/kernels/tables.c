#include "kernels/tables.h"

#include "kernels/wide.h"

#define TABLE(name)                                                                                \
    {                                                                                              \
        #name, name, sizeof *name, false                                                           \
    }

const kernel_table kernel_tables[] = {
    {"conv_u8s8", conv_u8s8, sizeof *conv_u8s8, true},
    TABLE(conv_transpose_u8s8),
    TABLE(product_u8s8),
    TABLE(range_f32),
    TABLE(add_u8),
    TABLE(mul_u8),
    TABLE(table_u8),
    TABLE(quantize_u8),
    TABLE(quantize_planes_u8),
    TABLE(dequantize_u8),
    TABLE(max_pool_u8),
    TABLE(avg_pool_u8),
    TABLE(global_avg_pool_u8),
    TABLE(split_u16),
    TABLE(wide_requants),
    TABLE(add_wide),
    TABLE(mul_wide),
    TABLE(quantize_u16),
    TABLE(dequantize_u16),
    TABLE(rescale_wide),
    {0},
};

bool kernel_table_row(const kernel_table *t, size_t i, const char **name, unsigned *needs)
{
    const kernel_head *row = (const void *)((const char *)t->rows + i * t->row_size);
    if (!row->name)
        return false;
    *name = row->name;
    *needs = row->needs;
    return true;
}

/* side x side pixels in and out, kernel k x k, stride 1. */
#define SQUARE(side, in_c, out_c, k, groups)                                                       \
    {                                                                                              \
        1, side, side, in_c, side, side, out_c, k, k, 1, 1, 1, 1, (k) / 2, (k) / 2, groups         \
    }

const kernel_layer kernel_layers[] = {
    {"first 3x3", SQUARE(224, 3, 32, 3, 1)},
    {"3x3", SQUARE(28, 128, 128, 3, 1)},
    {"pointwise", SQUARE(28, 128, 128, 1, 1)},
    {"one row", {1, 1, 1, 1280, 1, 1, 1000, 1, 1, 1, 1, 1, 1, 0, 0, 1}},
    {"grouped 3x3", SQUARE(28, 128, 128, 3, 32)},
    {"depthwise 3x3", SQUARE(28, 128, 128, 3, 128)},
    {"depthwise 5x5", SQUARE(28, 128, 128, 5, 128)},
    {"depthwise 7x7", SQUARE(28, 128, 128, 7, 128)},
    {0},
};
