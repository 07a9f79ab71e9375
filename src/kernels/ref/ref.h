/* The plain-C kernels: the truth that every other row is held to. Free-standing: they need arith.h,
 * the C library's math.h and string.h, and the types of kernels.h. */
#ifndef RUNG_KERNELS_REF_REF_H
#define RUNG_KERNELS_REF_REF_H

#include "kernels/kernels.h"

bool conv_fits_ref(const conv_shape *s);
size_t conv_packed_size_ref(const conv_shape *s);
void conv_pack_ref(const conv_shape *s, const int8_t *w, const int32_t *bias, int x_zero,
                   void *packed);
size_t conv_scratch_size_ref(const conv_shape *s);
void conv_run_ref(const conv_shape *s, const void *packed, const uint8_t *x, int x_zero,
                  const requant *q, uint8_t *y, void *scratch, int thread, int n_threads);
void conv_sums_ref(const conv_shape *s, const void *packed, const uint8_t *x, int x_zero,
                   int32_t *y, void *scratch, int thread, int n_threads);

void conv_transpose_pack_ref(const conv_shape *s, const int8_t *w, const int32_t *bias, int x_zero,
                             void *packed);
void conv_transpose_run_ref(const conv_shape *s, const void *packed, const uint8_t *x, int x_zero,
                            const requant *q, uint8_t *y, void *scratch, int thread, int n_threads);
void conv_transpose_sums_ref(const conv_shape *s, const void *packed, const uint8_t *x, int x_zero,
                             int32_t *y, void *scratch, int thread, int n_threads);

size_t product_packed_size_ref(int k, int n);
void product_pack_ref(int k, int n, const int8_t *w, void *packed);
size_t product_scratch_size_ref(int k);
void product_run_ref(const product_shape *s, const void *packed, const uint8_t *x,
                     const product_q *q, float *y, void *scratch, int thread, int n_threads);
void range_f32_ref(const float *x, size_t n, float *lo, float *hi);

void add_u8_ref(const uint8_t *a, const uint8_t *b, int b_step, size_t n, const binary_q *q,
                uint8_t *y);
void mul_u8_ref(const uint8_t *a, const uint8_t *b, int b_step, size_t n, const binary_q *q,
                uint8_t *y);
void table_u8_ref(const uint8_t *x, size_t n, const uint8_t table[256], uint8_t *y);
void quantize_u8_ref(const float *x, size_t n, float scale, int zero, int lo, int hi, uint8_t *y);
void quantize_planes_u8_ref(const float *x, size_t plane, size_t n, int channels, float scale,
                            int zero, int lo, int hi, uint8_t *y);
void dequantize_u8_ref(const uint8_t *x, size_t n, float scale, int zero, float *y);

void max_pool_u8_ref(const pool_shape *s, const uint8_t *x, const pool_q *q, uint8_t *y, int thread,
                     int n_threads);
void avg_pool_u8_ref(const pool_shape *s, const uint8_t *x, const pool_q *q, uint8_t *y, int thread,
                     int n_threads);
void global_avg_pool_u8_ref(const pool_shape *s, const uint8_t *x, const pool_q *q, uint8_t *y,
                            int thread, int n_threads);

#endif
