/* The rows of the kernels of 16-bit activations, slowest first. */
#include "base/cpu.h"
#include "kernels/ref/wide.h"
#include "kernels/x86/wide.h"

#if defined(__x86_64__)
#define ROWS(name)                                                                                 \
    {                                                                                              \
        {"ref", 0, name##_ref}, {"avx2", CPU_AVX2, name##_avx2},                                   \
            {"avx512", CPU_AVX512, name##_avx512}, {0},                                            \
    }
#else
#define ROWS(name)                                                                                 \
    {                                                                                              \
        {"ref", 0, name##_ref}, {0},                                                               \
    }
#endif

const split_kernel split_u16[] = ROWS(split_u16);
const wide_requant_kernel wide_requants[] = ROWS(wide_requant);
const wide_binary_kernel add_wide[] = ROWS(add_wide);
const wide_binary_kernel mul_wide[] = ROWS(mul_wide);
const quantize_wide_kernel quantize_u16[] = ROWS(quantize_u16);
const dequantize_wide_kernel dequantize_u16[] = ROWS(dequantize_u16);
const rescale_kernel rescale_wide[] = ROWS(rescale_wide);
