/* The plain-C kernels of 16-bit activations, and how they read and write codes of either width. */
#ifndef RUNG_KERNELS_REF_WIDE_H
#define RUNG_KERNELS_REF_WIDE_H

#include "kernels/wide.h"

static inline int code_at(const void *x, size_t i, bool wide)
{
    return wide ? ((const uint16_t *)x)[i] : ((const uint8_t *)x)[i];
}

static inline void code_put(void *y, size_t i, bool wide, int code)
{
    if (wide)
        ((uint16_t *)y)[i] = (uint16_t)code;
    else
        ((uint8_t *)y)[i] = (uint8_t)code;
}

void split_u16_ref(const uint16_t *x, size_t n, uint8_t *hi, uint8_t *lo);
void wide_requant_ref(const int32_t *hi, const int32_t *lo, size_t rows, size_t channels,
                      const wide_requant *q, void *y);
void add_wide_ref(const void *a, const void *b, int b_step, size_t n, const wide_binary_q *w,
                  void *y);
void mul_wide_ref(const void *a, const void *b, int b_step, size_t n, const wide_binary_q *w,
                  void *y);
void quantize_u16_ref(const float *x, size_t n, float scale, int zero, int lo, int hi, uint16_t *y);
void dequantize_u16_ref(const uint16_t *x, size_t n, float scale, int zero, float *y);
void rescale_wide_ref(const void *x, size_t n, const rescale_q *q, void *y);

#endif
