/* The rows of products with float32 results, and of ranges; slowest first. */
#include "base/cpu.h"
#include "kernels/ref/ref.h"
#include "kernels/x86/x86.h"

const product_kernel product_u8s8[] = {
    {"ref", 0, product_packed_size_ref, product_pack_ref, product_scratch_size_ref,
     product_run_ref},
#if defined(__x86_64__)
    {"avx2", CPU_AVX2, product_packed_size_avx2, product_pack_avx2, product_scratch_size_avx2,
     product_run_avx2},
    {"avxvnni", CPU_AVX_VNNI, product_packed_size_avxvnni, product_pack_avxvnni,
     product_scratch_size_avxvnni, product_run_avxvnni},
    {"avx512vnni", CPU_AVX512_VNNI, product_packed_size_avx512vnni, product_pack_avx512vnni,
     product_scratch_size_avx512vnni, product_run_avx512vnni},
#endif
    {0},
};

const range_kernel range_f32[] = {
    {"ref", 0, range_f32_ref},
#if defined(__x86_64__)
    {"avx2", CPU_AVX2, range_f32_avx2},
    {"avx512vnni", CPU_AVX512_VNNI, range_f32_avx512vnni},
#endif
    {0},
};
