/* The rows of the pools, slowest first. */
#include "kernels/ref/ref.h"

const pool_kernel max_pool_u8[] = {
    {"ref", 0, max_pool_u8_ref},
    {0},
};

const pool_kernel avg_pool_u8[] = {
    {"ref", 0, avg_pool_u8_ref},
    {0},
};

const pool_kernel global_avg_pool_u8[] = {
    {"ref", 0, global_avg_pool_u8_ref},
    {0},
};
