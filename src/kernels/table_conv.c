/* The rows of convolution, slowest first. */
#include "kernels/ref/ref.h"

const conv_kernel conv_u8s8[] = {
    {"ref", 0, conv_fits_ref, conv_packed_size_ref, conv_pack_ref, conv_scratch_size_ref,
     conv_run_ref},
    {0},
};

const conv_kernel conv_transpose_u8s8[] = {
    {"ref", 0, conv_fits_ref, conv_packed_size_ref, conv_transpose_pack_ref, conv_scratch_size_ref,
     conv_transpose_run_ref},
    {0},
};
