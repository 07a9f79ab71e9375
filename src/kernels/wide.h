/* The kernels of 16-bit activations: contracts and dispatch tables, as in kernels.h.
 *
 * A code is uint16, or uint8 where an operand is not `wide`; int16 tensors come as q + 32768. Zero
 * points and bounds are in the same range. A convolution of 16-bit codes is two of 8-bit codes, of
 * the high and of the low bytes, whose exact sums (conv_kernel.run_sums) are put together here. */
#ifndef RUNG_KERNELS_WIDE_H
#define RUNG_KERNELS_WIDE_H

#include "kernels/kernels.h"

/* hi[i] = x[i] >> 8, lo[i] = x[i] & 255. */
typedef struct split_kernel {
    const char *name;
    unsigned    needs;
    void (*run)(const uint16_t *x, size_t n, uint8_t *hi, uint8_t *lo);
} split_kernel;
extern const split_kernel split_u16[];

/* acc = 256 (hi + hi_fixed[c]) + lo + lo_fixed[c], exact, then y = clamp(rne(wide_f32(acc) *
 * mult[c]) + zero, lo, hi): arith.h. Both sums and what is fixed stay within int32. */
typedef struct wide_requant {
    const float   *mult; /* [channels]: (s_x * s_w[c]) / s_y in float32, in that order */
    const int32_t *hi_fixed, *lo_fixed; /* [channels] */
    int            zero, lo, hi;
    bool           y_wide;
} wide_requant;
typedef struct wide_requant_kernel {
    const char *name;
    unsigned    needs;
    /* hi, lo: [rows][channels]; hi NULL: all 0. */
    void (*run)(const int32_t *hi, const int32_t *lo, size_t rows, size_t channels,
                const wide_requant *q, void *y);
} wide_requant_kernel;
extern const wide_requant_kernel wide_requants[];

/* Add (or Sub: a scale may be negative) and Mul, as add_u8 and mul_u8; Mul's product is rounded to
 * float32 where it does not fit. b_step = 0: b is one element. y may be a or b of its width. */
typedef struct wide_binary_q {
    binary_q q;
    bool     a_wide, b_wide, y_wide;
} wide_binary_q;
typedef struct wide_binary_kernel {
    const char *name;
    unsigned    needs;
    void (*run)(const void *a, const void *b, int b_step, size_t n, const wide_binary_q *q,
                void *y);
} wide_binary_kernel;
extern const wide_binary_kernel add_wide[], mul_wide[];

/* QuantizeLinear and DequantizeLinear, as quantize_u8 and dequantize_u8. */
typedef struct quantize_wide_kernel {
    const char *name;
    unsigned    needs;
    void (*run)(const float *x, size_t n, float scale, int zero, int lo, int hi, uint16_t *y);
} quantize_wide_kernel;
extern const quantize_wide_kernel quantize_u16[];
typedef struct dequantize_wide_kernel {
    const char *name;
    unsigned    needs;
    void (*run)(const uint16_t *x, size_t n, float scale, int zero, float *y);
} dequantize_wide_kernel;
extern const dequantize_wide_kernel dequantize_u16[];

/* A DequantizeLinear and the QuantizeLinear behind it: codes of other parameters, or width. */
typedef struct rescale_q {
    float x_scale, y_scale;
    int   x_zero, y_zero, lo, hi;
    bool  x_wide, y_wide;
} rescale_q;
typedef struct rescale_kernel {
    const char *name;
    unsigned    needs;
    void (*run)(const void *x, size_t n, const rescale_q *q, void *y);
} rescale_kernel;
extern const rescale_kernel rescale_wide[];

/* y[i] = table[x[i]]; the table has an entry for each code of x. Plain C. */
void table_wide_run(const void *x, bool x_wide, size_t n, const uint16_t *table, bool y_wide,
                    void *y);
/* As table_make. */
void table_wide_make(double (*f)(double x, const void *ctx), const void *ctx, const rescale_q *q,
                     uint16_t *table);

/* Pools, as those of kernels.h; max pools move codes, the others may change their width. Plain C
 * that compilers vectorise over channels. */
void max_pool_u16(const pool_shape *s, const uint16_t *x, int lo, int hi, uint16_t *y, int thread,
                  int n_threads);
void avg_pool_wide(const pool_shape *s, const void *x, const rescale_q *q, void *y, int thread,
                   int n_threads);
void global_avg_pool_wide(const pool_shape *s, const void *x, const rescale_q *q, void *y,
                          int thread, int n_threads);

/* Linear Resize, as resize_linear_u8. */
void resize_linear_wide(const void *x, int batch, int in_h, int in_w, int channels,
                        const resize_tap *rows, int out_h, const resize_tap *cols, int out_w,
                        const rescale_q *q, void *y, int thread, int n_threads);

#endif
