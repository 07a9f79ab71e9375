/* The picked kernels as plain exported functions, for ort_bytes_test.py (ctypes). */
#include <math.h>
#include <stdlib.h>

#include "base/cpu.h"
#include "kernels/kernels.h"

#define EXPORT __attribute__((visibility("default")))

/* Scales and zero points of up to three operands: a (or x), b, y. */
typedef struct params {
    float scale[3];
    int zero[3];
} params;

EXPORT const char *ort_cpu_row(const int *shape);
EXPORT int ort_has_vnni(void);
EXPORT int ort_conv(const int *shape, const int8_t *w, const int32_t *bias, const uint8_t *x,
                    int x_zero, const float *mult, int y_zero, uint8_t *y);
EXPORT void ort_add(const uint8_t *a, const uint8_t *b, int b_step, size_t n, const params *p,
                    uint8_t *y);
EXPORT void ort_mul(const uint8_t *a, const uint8_t *b, int b_step, size_t n, const params *p,
                    uint8_t *y);
EXPORT void ort_pool(int kind, const int *shape, const uint8_t *x, const params *p, uint8_t *y);
EXPORT void ort_unary(int kind, const uint8_t *x, size_t n, const params *p, uint8_t *y);
EXPORT void ort_softmax(const uint8_t *x, size_t outer, size_t n, const params *p, uint8_t *y);
EXPORT void ort_resize(const int *v, const resize_tap *rows, const resize_tap *cols,
                       const uint8_t *x, const params *p, uint8_t *y);
EXPORT void ort_quantize(const float *x, size_t n, const params *p, uint8_t *y);

static conv_shape conv_shape_of(const int *v)
{
    return (conv_shape){v[0], v[1], v[2],  v[3],  v[4],  v[5],  v[6],  v[7],
                        v[8], v[9], v[10], v[11], v[12], v[13], v[14], v[15]};
}

const char *ort_cpu_row(const int *shape)
{
    const conv_shape s = conv_shape_of(shape);
    return conv_pick(&s)->name;
}

int ort_has_vnni(void)
{
    return cpu_has(CPU_AVX512_VNNI);
}

static void *room(size_t n)
{
    return aligned_alloc(64, (n + 64) / 64 * 64);
}

int ort_conv(const int *shape, const int8_t *w, const int32_t *bias, const uint8_t *x, int x_zero,
             const float *mult, int y_zero, uint8_t *y)
{
    const conv_shape s = conv_shape_of(shape);
    const conv_kernel *k = conv_pick(&s);
    const requant q = {mult, y_zero, 0, 255};
    void *packed = room(k->packed_size(&s)), *scratch = room(k->scratch_size(&s));
    const int ok = packed && scratch;
    if (ok) {
        k->pack(&s, w, bias, x_zero, packed);
        k->run(&s, packed, x, x_zero, &q, y, scratch, 0, 1);
    }
    free(packed);
    free(scratch);
    return ok;
}

static binary_q binary_of(const params *p)
{
    return (binary_q){p->scale[0], p->scale[1], p->scale[2], p->zero[0],
                      p->zero[1],  p->zero[2],  0,           255};
}

void ort_add(const uint8_t *a, const uint8_t *b, int b_step, size_t n, const params *p, uint8_t *y)
{
    const binary_q q = binary_of(p);
    KERNEL_PICK(add_u8)->run(a, b, b_step, n, &q, y);
}

void ort_mul(const uint8_t *a, const uint8_t *b, int b_step, size_t n, const params *p, uint8_t *y)
{
    const binary_q q = binary_of(p);
    KERNEL_PICK(mul_u8)->run(a, b, b_step, n, &q, y);
}

/* kind: 0 max, 1 average, 2 global average. */
void ort_pool(int kind, const int *v, const uint8_t *x, const params *p, uint8_t *y)
{
    const pool_shape s = {v[0], v[1], v[2],  v[3],  v[4],  v[5],  v[6],      v[7],
                          v[8], v[9], v[10], v[11], v[12], v[13], v[14] != 0};
    const pool_q q = {p->scale[0], p->scale[2], p->zero[0], p->zero[2], 0, 255};
    const pool_kernel *k = kind == 0   ? KERNEL_PICK(max_pool_u8)
                           : kind == 1 ? KERNEL_PICK(avg_pool_u8)
                                       : KERNEL_PICK(global_avg_pool_u8);
    k->run(&s, x, &q, y, 0, 1);
}

static double sigmoid(double x, const void *ctx)
{
    return 1 / (1 + exp(-x));
}

static double leaky_relu(double x, const void *ctx)
{
    return x >= 0 ? x : x * (double)0.1f;
}

/* kind: 0 Sigmoid, 1 LeakyRelu with alpha 0.1. */
void ort_unary(int kind, const uint8_t *x, size_t n, const params *p, uint8_t *y)
{
    uint8_t table[256];
    table_make(kind == 0 ? sigmoid : leaky_relu, NULL, p->scale[0], p->zero[0], p->scale[2],
               p->zero[2], 0, 255, table);
    KERNEL_PICK(table_u8)->run(x, n, table, y);
}

void ort_softmax(const uint8_t *x, size_t outer, size_t n, const params *p, uint8_t *y)
{
    softmax_u8(x, outer, n, p->scale[0], p->scale[2], p->zero[2], 0, 255, y, 0, 1);
}

void ort_quantize(const float *x, size_t n, const params *p, uint8_t *y)
{
    KERNEL_PICK(quantize_u8)->run(x, n, p->scale[2], p->zero[2], 0, 255, y);
}

/* v: batch, in_h, in_w, channels, out_h, out_w. */
void ort_resize(const int *v, const resize_tap *rows, const resize_tap *cols, const uint8_t *x,
                const params *p, uint8_t *y)
{
    const pool_q q = {p->scale[0], p->scale[2], p->zero[0], p->zero[2], 0, 255};
    resize_linear_u8(x, v[0], v[1], v[2], v[3], rows, v[4], cols, v[5], &q, y, 0, 1);
}
