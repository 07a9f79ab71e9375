/* The rows of the elementwise kernels, slowest first. */
#include "base/cpu.h"
#include "kernels/ref/ref.h"
#include "kernels/x86/x86.h"

const binary_kernel add_u8[] = {
    {"ref", 0, add_u8_ref},
#if defined(__x86_64__)
    {"avx2", CPU_AVX2, add_u8_avx2},
    {"avx512", CPU_AVX512, add_u8_avx512},
#endif
    {0},
};

const binary_kernel mul_u8[] = {
    {"ref", 0, mul_u8_ref},
#if defined(__x86_64__)
    {"avx2", CPU_AVX2, mul_u8_avx2},
    {"avx512", CPU_AVX512, mul_u8_avx512},
#endif
    {0},
};

const table_kernel table_u8[] = {
    {"ref", 0, table_u8_ref},
#if defined(__x86_64__)
    {"avx2", CPU_AVX2, table_u8_avx2},
    {"avx512", CPU_AVX512, table_u8_avx512},
    {"avx512vbmi", CPU_AVX512 | CPU_AVX512_VBMI, table_u8_avx512vbmi},
#endif
    {0},
};

const quantize_kernel quantize_u8[] = {
    {"ref", 0, quantize_u8_ref},
#if defined(__x86_64__)
    {"avx2", CPU_AVX2, quantize_u8_avx2},
    {"avx512", CPU_AVX512, quantize_u8_avx512},
#endif
    {0},
};

const quantize_planes_kernel quantize_planes_u8[] = {
    {"ref", 0, quantize_planes_u8_ref},
#if defined(__x86_64__)
    {"avx2", CPU_AVX2, quantize_planes_u8_avx2},
    {"avx512", CPU_AVX512, quantize_planes_u8_avx512},
#endif
    {0},
};

const dequantize_kernel dequantize_u8[] = {
    {"ref", 0, dequantize_u8_ref},
#if defined(__x86_64__)
    {"avx2", CPU_AVX2, dequantize_u8_avx2},
    {"avx512", CPU_AVX512, dequantize_u8_avx512},
#endif
    {0},
};
