/* The rows of the pools, slowest first. */
#include "base/cpu.h"
#include "kernels/ref/ref.h"
#include "kernels/x86/x86.h"

const pool_kernel max_pool_u8[] = {
    {"ref", 0, max_pool_u8_ref},
#if defined(__x86_64__)
    {"avx2", CPU_AVX2, max_pool_u8_avx2},
    {"avx512", CPU_AVX512, max_pool_u8_avx512},
#endif
    {0},
};

const pool_kernel avg_pool_u8[] = {
    {"ref", 0, avg_pool_u8_ref},
#if defined(__x86_64__)
    {"avx2", CPU_AVX2, avg_pool_u8_avx2},
    {"avx512", CPU_AVX512, avg_pool_u8_avx512},
#endif
    {0},
};

const pool_kernel global_avg_pool_u8[] = {
    {"ref", 0, global_avg_pool_u8_ref},
#if defined(__x86_64__)
    {"avx2", CPU_AVX2, global_avg_pool_u8_avx2},
    {"avx512", CPU_AVX512, global_avg_pool_u8_avx512},
#endif
    {0},
};
