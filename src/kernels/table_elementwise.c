/* The rows of the elementwise kernels, slowest first. */
#include "kernels/ref/ref.h"

const binary_kernel add_u8[] = {
    {"ref", 0, add_u8_ref},
    {0},
};

const binary_kernel mul_u8[] = {
    {"ref", 0, mul_u8_ref},
    {0},
};

const table_kernel table_u8[] = {
    {"ref", 0, table_u8_ref},
    {0},
};

const quantize_kernel quantize_u8[] = {
    {"ref", 0, quantize_u8_ref},
    {0},
};

const dequantize_kernel dequantize_u8[] = {
    {"ref", 0, dequantize_u8_ref},
    {0},
};
