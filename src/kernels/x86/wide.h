/* The x86 kernels of 16-bit activations, for the dispatch tables. */
#ifndef RUNG_KERNELS_X86_WIDE_H
#define RUNG_KERNELS_X86_WIDE_H

#include "kernels/wide.h"

void split_u16_avx2(const uint16_t *x, size_t n, uint8_t *hi, uint8_t *lo);
void wide_requant_avx2(const int32_t *hi, const int32_t *lo, size_t rows, size_t channels,
                       const wide_requant *q, void *y);
void add_wide_avx2(const void *a, const void *b, int b_step, size_t n, const wide_binary_q *w,
                   void *y);
void mul_wide_avx2(const void *a, const void *b, int b_step, size_t n, const wide_binary_q *w,
                   void *y);
void quantize_u16_avx2(const float *x, size_t n, float scale, int zero, int lo, int hi,
                       uint16_t *y);
void dequantize_u16_avx2(const uint16_t *x, size_t n, float scale, int zero, float *y);
void rescale_wide_avx2(const void *x, size_t n, const rescale_q *q, void *y);

void split_u16_avx512(const uint16_t *x, size_t n, uint8_t *hi, uint8_t *lo);
void wide_requant_avx512(const int32_t *hi, const int32_t *lo, size_t rows, size_t channels,
                         const wide_requant *q, void *y);
void add_wide_avx512(const void *a, const void *b, int b_step, size_t n, const wide_binary_q *w,
                     void *y);
void mul_wide_avx512(const void *a, const void *b, int b_step, size_t n, const wide_binary_q *w,
                     void *y);
void quantize_u16_avx512(const float *x, size_t n, float scale, int zero, int lo, int hi,
                         uint16_t *y);
void dequantize_u16_avx512(const uint16_t *x, size_t n, float scale, int zero, float *y);
void rescale_wide_avx512(const void *x, size_t n, const rescale_q *q, void *y);

#endif
