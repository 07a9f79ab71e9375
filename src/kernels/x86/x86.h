/* The x86 kernels, for the dispatch tables. */
#ifndef RUNG_KERNELS_X86_X86_H
#define RUNG_KERNELS_X86_X86_H

#include "kernels/kernels.h"

bool gemm_fits_avx2(const conv_shape *s);
size_t gemm_packed_size_avx2(const conv_shape *s);
void gemm_pack_avx2(const conv_shape *s, const int8_t *w, const int32_t *bias, int x_zero,
                    void *packed);
size_t gemm_scratch_size_avx2(const conv_shape *s);
void gemm_run_avx2(const conv_shape *s, const void *packed, const uint8_t *x, int x_zero,
                   const requant *q, uint8_t *y, void *scratch, int thread, int n_threads);
void gemm_sums_avx2(const conv_shape *s, const void *packed, const uint8_t *x, int x_zero,
                    int32_t *y, void *scratch, int thread, int n_threads);

bool depthwise_fits_avx2(const conv_shape *s);
size_t depthwise_packed_size_avx2(const conv_shape *s);
void depthwise_pack_avx2(const conv_shape *s, const int8_t *w, const int32_t *bias, int x_zero,
                         void *packed);
size_t depthwise_scratch_size_avx2(const conv_shape *s);
void depthwise_run_avx2(const conv_shape *s, const void *packed, const uint8_t *x, int x_zero,
                        const requant *q, uint8_t *y, void *scratch, int thread, int n_threads);
void depthwise_sums_avx2(const conv_shape *s, const void *packed, const uint8_t *x, int x_zero,
                         int32_t *y, void *scratch, int thread, int n_threads);

bool gemm_fits_avxvnni(const conv_shape *s);
size_t gemm_packed_size_avxvnni(const conv_shape *s);
void gemm_pack_avxvnni(const conv_shape *s, const int8_t *w, const int32_t *bias, int x_zero,
                       void *packed);
size_t gemm_scratch_size_avxvnni(const conv_shape *s);
void gemm_run_avxvnni(const conv_shape *s, const void *packed, const uint8_t *x, int x_zero,
                      const requant *q, uint8_t *y, void *scratch, int thread, int n_threads);
void gemm_sums_avxvnni(const conv_shape *s, const void *packed, const uint8_t *x, int x_zero,
                       int32_t *y, void *scratch, int thread, int n_threads);

bool depthwise_fits_avxvnni(const conv_shape *s);
size_t depthwise_packed_size_avxvnni(const conv_shape *s);
void depthwise_pack_avxvnni(const conv_shape *s, const int8_t *w, const int32_t *bias, int x_zero,
                            void *packed);
size_t depthwise_scratch_size_avxvnni(const conv_shape *s);
void depthwise_run_avxvnni(const conv_shape *s, const void *packed, const uint8_t *x, int x_zero,
                           const requant *q, uint8_t *y, void *scratch, int thread, int n_threads);
void depthwise_sums_avxvnni(const conv_shape *s, const void *packed, const uint8_t *x, int x_zero,
                            int32_t *y, void *scratch, int thread, int n_threads);

bool gemm_fits_avx512vnni(const conv_shape *s);
size_t gemm_packed_size_avx512vnni(const conv_shape *s);
void gemm_pack_avx512vnni(const conv_shape *s, const int8_t *w, const int32_t *bias, int x_zero,
                          void *packed);
size_t gemm_scratch_size_avx512vnni(const conv_shape *s);
void gemm_run_avx512vnni(const conv_shape *s, const void *packed, const uint8_t *x, int x_zero,
                         const requant *q, uint8_t *y, void *scratch, int thread, int n_threads);
void gemm_sums_avx512vnni(const conv_shape *s, const void *packed, const uint8_t *x, int x_zero,
                          int32_t *y, void *scratch, int thread, int n_threads);

bool depthwise_fits_avx512vnni(const conv_shape *s);
size_t depthwise_packed_size_avx512vnni(const conv_shape *s);
void depthwise_pack_avx512vnni(const conv_shape *s, const int8_t *w, const int32_t *bias,
                               int x_zero, void *packed);
size_t depthwise_scratch_size_avx512vnni(const conv_shape *s);
void depthwise_run_avx512vnni(const conv_shape *s, const void *packed, const uint8_t *x, int x_zero,
                              const requant *q, uint8_t *y, void *scratch, int thread,
                              int n_threads);
void depthwise_sums_avx512vnni(const conv_shape *s, const void *packed, const uint8_t *x,
                               int x_zero, int32_t *y, void *scratch, int thread, int n_threads);

bool depthwise3_fits_avx512vnni(const conv_shape *s);
size_t depthwise3_packed_size_avx512vnni(const conv_shape *s);
void depthwise3_pack_avx512vnni(const conv_shape *s, const int8_t *w, const int32_t *bias,
                                int x_zero, void *packed);
size_t depthwise3_scratch_size_avx512vnni(const conv_shape *s);
void depthwise3_run_avx512vnni(const conv_shape *s, const void *packed, const uint8_t *x,
                               int x_zero, const requant *q, uint8_t *y, void *scratch, int thread,
                               int n_threads);
void depthwise3_sums_avx512vnni(const conv_shape *s, const void *packed, const uint8_t *x,
                                int x_zero, int32_t *y, void *scratch, int thread, int n_threads);
bool depthwise5_fits_avx512vnni(const conv_shape *s);
size_t depthwise5_packed_size_avx512vnni(const conv_shape *s);
void depthwise5_pack_avx512vnni(const conv_shape *s, const int8_t *w, const int32_t *bias,
                                int x_zero, void *packed);
size_t depthwise5_scratch_size_avx512vnni(const conv_shape *s);
void depthwise5_run_avx512vnni(const conv_shape *s, const void *packed, const uint8_t *x,
                               int x_zero, const requant *q, uint8_t *y, void *scratch, int thread,
                               int n_threads);
void depthwise5_sums_avx512vnni(const conv_shape *s, const void *packed, const uint8_t *x,
                                int x_zero, int32_t *y, void *scratch, int thread, int n_threads);

bool gemm_fits_amx(const conv_shape *s);
size_t gemm_packed_size_amx(const conv_shape *s);
void gemm_pack_amx(const conv_shape *s, const int8_t *w, const int32_t *bias, int x_zero,
                   void *packed);
size_t gemm_scratch_size_amx(const conv_shape *s);
void gemm_run_amx(const conv_shape *s, const void *packed, const uint8_t *x, int x_zero,
                  const requant *q, uint8_t *y, void *scratch, int thread, int n_threads);
void gemm_sums_amx(const conv_shape *s, const void *packed, const uint8_t *x, int x_zero,
                   int32_t *y, void *scratch, int thread, int n_threads);

size_t product_packed_size_avx2(int k, int n);
void product_pack_avx2(int k, int n, const int8_t *w, void *packed);
size_t product_scratch_size_avx2(int k);
void product_run_avx2(const product_shape *s, const void *packed, const uint8_t *x,
                      const product_q *q, float *y, void *scratch, int thread, int n_threads);
void range_f32_avx2(const float *x, size_t n, float *lo, float *hi);
size_t product_packed_size_avxvnni(int k, int n);
void product_pack_avxvnni(int k, int n, const int8_t *w, void *packed);
size_t product_scratch_size_avxvnni(int k);
void product_run_avxvnni(const product_shape *s, const void *packed, const uint8_t *x,
                         const product_q *q, float *y, void *scratch, int thread, int n_threads);
size_t product_packed_size_avx512vnni(int k, int n);
void product_pack_avx512vnni(int k, int n, const int8_t *w, void *packed);
size_t product_scratch_size_avx512vnni(int k);
void product_run_avx512vnni(const product_shape *s, const void *packed, const uint8_t *x,
                            const product_q *q, float *y, void *scratch, int thread, int n_threads);
void range_f32_avx512vnni(const float *x, size_t n, float *lo, float *hi);

void add_u8_avx2(const uint8_t *a, const uint8_t *b, int b_step, size_t n, const binary_q *q,
                 uint8_t *y);
void mul_u8_avx2(const uint8_t *a, const uint8_t *b, int b_step, size_t n, const binary_q *q,
                 uint8_t *y);
void table_u8_avx2(const uint8_t *x, size_t n, const uint8_t table[256], uint8_t *y);
void quantize_u8_avx2(const float *x, size_t n, float scale, int zero, int lo, int hi, uint8_t *y);
void quantize_planes_u8_avx2(const float *x, size_t plane, size_t n, int channels, float scale,
                             int zero, int lo, int hi, uint8_t *y);
void dequantize_u8_avx2(const uint8_t *x, size_t n, float scale, int zero, float *y);
void max_pool_u8_avx2(const pool_shape *s, const uint8_t *x, const pool_q *q, uint8_t *y,
                      int thread, int n_threads);
void avg_pool_u8_avx2(const pool_shape *s, const uint8_t *x, const pool_q *q, uint8_t *y,
                      int thread, int n_threads);
void global_avg_pool_u8_avx2(const pool_shape *s, const uint8_t *x, const pool_q *q, uint8_t *y,
                             int thread, int n_threads);
void add_u8_avx512(const uint8_t *a, const uint8_t *b, int b_step, size_t n, const binary_q *q,
                   uint8_t *y);
void mul_u8_avx512(const uint8_t *a, const uint8_t *b, int b_step, size_t n, const binary_q *q,
                   uint8_t *y);
void table_u8_avx512(const uint8_t *x, size_t n, const uint8_t table[256], uint8_t *y);
void table_u8_avx512vbmi(const uint8_t *x, size_t n, const uint8_t table[256], uint8_t *y);
void quantize_u8_avx512(const float *x, size_t n, float scale, int zero, int lo, int hi,
                        uint8_t *y);
void quantize_planes_u8_avx512(const float *x, size_t plane, size_t n, int channels, float scale,
                               int zero, int lo, int hi, uint8_t *y);
void dequantize_u8_avx512(const uint8_t *x, size_t n, float scale, int zero, float *y);
void max_pool_u8_avx512(const pool_shape *s, const uint8_t *x, const pool_q *q, uint8_t *y,
                        int thread, int n_threads);
void avg_pool_u8_avx512(const pool_shape *s, const uint8_t *x, const pool_q *q, uint8_t *y,
                        int thread, int n_threads);
void global_avg_pool_u8_avx512(const pool_shape *s, const uint8_t *x, const pool_q *q, uint8_t *y,
                               int thread, int n_threads);

#endif
