/* The x86 kernels, for the dispatch tables. */
#ifndef RUNG_KERNELS_X86_X86_H
#define RUNG_KERNELS_X86_X86_H

#include "kernels/kernels.h"

bool gemm_fits_avx512vnni(const conv_shape *s);
size_t gemm_packed_size_avx512vnni(const conv_shape *s);
void gemm_pack_avx512vnni(const conv_shape *s, const int8_t *w, const int32_t *bias, int x_zero,
                          void *packed);
size_t gemm_scratch_size_avx512vnni(const conv_shape *s);
void gemm_run_avx512vnni(const conv_shape *s, const void *packed, const uint8_t *x, int x_zero,
                         const requant *q, uint8_t *y, void *scratch, int thread, int n_threads);

bool depthwise_fits_avx512vnni(const conv_shape *s);
size_t depthwise_packed_size_avx512vnni(const conv_shape *s);
void depthwise_pack_avx512vnni(const conv_shape *s, const int8_t *w, const int32_t *bias,
                               int x_zero, void *packed);
size_t depthwise_scratch_size_avx512vnni(const conv_shape *s);
void depthwise_run_avx512vnni(const conv_shape *s, const void *packed, const uint8_t *x,
                              int x_zero, const requant *q, uint8_t *y, void *scratch, int thread,
                              int n_threads);

#endif
