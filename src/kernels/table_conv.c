/* The rows of convolution, slowest first. */
#include "base/cpu.h"
#include "kernels/ref/ref.h"
#include "kernels/x86/x86.h"

const conv_kernel conv_u8s8[] = {
    {"ref", 0, conv_fits_ref, conv_packed_size_ref, conv_pack_ref, conv_scratch_size_ref,
     conv_run_ref, conv_sums_ref},
#if defined(__x86_64__)
    {"avx2", CPU_AVX2, gemm_fits_avx2, gemm_packed_size_avx2, gemm_pack_avx2,
     gemm_scratch_size_avx2, gemm_run_avx2, gemm_sums_avx2},
    {"avx2 depthwise", CPU_AVX2, depthwise_fits_avx2, depthwise_packed_size_avx2,
     depthwise_pack_avx2, depthwise_scratch_size_avx2, depthwise_run_avx2, depthwise_sums_avx2},
    {"avxvnni", CPU_AVX_VNNI, gemm_fits_avxvnni, gemm_packed_size_avxvnni, gemm_pack_avxvnni,
     gemm_scratch_size_avxvnni, gemm_run_avxvnni, gemm_sums_avxvnni},
    {"avxvnni depthwise", CPU_AVX_VNNI, depthwise_fits_avxvnni, depthwise_packed_size_avxvnni,
     depthwise_pack_avxvnni, depthwise_scratch_size_avxvnni, depthwise_run_avxvnni,
     depthwise_sums_avxvnni},
    {"avx512vnni", CPU_AVX512_VNNI, gemm_fits_avx512vnni, gemm_packed_size_avx512vnni,
     gemm_pack_avx512vnni, gemm_scratch_size_avx512vnni, gemm_run_avx512vnni, gemm_sums_avx512vnni},
    {"avx512vnni depthwise", CPU_AVX512_VNNI, depthwise_fits_avx512vnni,
     depthwise_packed_size_avx512vnni, depthwise_pack_avx512vnni, depthwise_scratch_size_avx512vnni,
     depthwise_run_avx512vnni, depthwise_sums_avx512vnni},
    {"avx512vnni depthwise3", CPU_AVX512_VNNI, depthwise3_fits_avx512vnni,
     depthwise3_packed_size_avx512vnni, depthwise3_pack_avx512vnni,
     depthwise3_scratch_size_avx512vnni, depthwise3_run_avx512vnni, depthwise3_sums_avx512vnni},
    {"avx512vnni depthwise5", CPU_AVX512_VNNI, depthwise5_fits_avx512vnni,
     depthwise5_packed_size_avx512vnni, depthwise5_pack_avx512vnni,
     depthwise5_scratch_size_avx512vnni, depthwise5_run_avx512vnni, depthwise5_sums_avx512vnni},
    {"amx", CPU_AMX_INT8 | CPU_AVX512 | CPU_AVX512_VNNI, gemm_fits_amx, gemm_packed_size_amx,
     gemm_pack_amx, gemm_scratch_size_amx, gemm_run_amx, gemm_sums_amx},
#endif
    {0},
};

const conv_kernel conv_transpose_u8s8[] = {
    {"ref", 0, conv_fits_ref, conv_packed_size_ref, conv_transpose_pack_ref, conv_scratch_size_ref,
     conv_transpose_run_ref, conv_transpose_sums_ref},
    {0},
};
