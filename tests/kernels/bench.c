/* Times every row on layers of real networks, on one thread: the best of several repetitions,
 * beside the peak of VPDPBUSD that was measured in the same way. */
#include "check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpu.h"
#include "base/progress.h"
#include "kernels/kernels.h"

enum { REPETITIONS = 12 };
static const double SHORTEST = 0.01; /* seconds of one repetition */

typedef void (*timed)(const void *ctx);

/* Seconds of one call: the best repetition. */
static double seconds_of(timed fn, const void *ctx)
{
    size_t calls = 1;
    double best = 1e9;
    for (int r = 0; r < REPETITIONS; r++) {
        const double start = clock_seconds();
        for (size_t i = 0; i < calls; i++)
            fn(ctx);
        const double each = (clock_seconds() - start) / calls;
        best = each < best ? each : best;
        if (each * calls < SHORTEST && r < REPETITIONS / 2)
            calls = (size_t)(SHORTEST / (each + 1e-9)) + 1;
    }
    return best;
}

#if defined(__x86_64__)
enum { PEAK_LOOPS = 20000 };

/* Twelve independent chains: enough for every x86 core so far (latency 5, two a cycle). */
__attribute__((target("avx512f,avx512vnni"))) static void vnni_loop(const void *ctx)
{
    __asm__ volatile("mov %0, %%ecx\n"
                     "1:\n"
                     ".irp r,0,1,2,3,4,5,6,7,8,9,10,11\n"
                     "vpdpbusd %%zmm30, %%zmm31, %%zmm\\r\n"
                     ".endr\n"
                     "dec %%ecx\n"
                     "jnz 1b\n"
                     :
                     : "i"(PEAK_LOOPS)
                     : "ecx", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
                       "xmm8", "xmm9", "xmm10", "xmm11");
}

__attribute__((target("avx2,fma"))) static void fma_loop(const void *ctx)
{
    __asm__ volatile("mov %0, %%ecx\n"
                     "vxorps %%ymm14, %%ymm14, %%ymm14\n"
                     "1:\n"
                     ".irp r,0,1,2,3,4,5,6,7,8,9,10,11\n"
                     "vfmadd231ps %%ymm14, %%ymm14, %%ymm\\r\n"
                     ".endr\n"
                     "dec %%ecx\n"
                     "jnz 1b\n"
                     :
                     : "i"(PEAK_LOOPS)
                     : "ecx", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
                       "xmm8", "xmm9", "xmm10", "xmm11", "xmm14");
}

/* Multiply-accumulates a second that VPDPBUSD allows; 0 without it. */
static double print_peaks(void)
{
    double vnni = 0;
    if (cpu_has(CPU_AVX2))
        printf("peak of float32 FMA (AVX2): %.0f GMAC/s\n",
               PEAK_LOOPS * 12 * 8 / seconds_of(fma_loop, NULL) / 1e9);
    if (cpu_has(CPU_AVX512_VNNI)) {
        vnni = PEAK_LOOPS * 12 * 64.0 / seconds_of(vnni_loop, NULL);
        printf("peak of VPDPBUSD: %.0f GMAC/s\n", vnni / 1e9);
    }
    return vnni;
}
#else
static double print_peaks(void)
{
    return 0;
}
#endif

typedef struct layer {
    const char *name;
    conv_shape s;
} layer;

#define SQUARE(in, out, ic, oc, k, stride, pad, groups)                                            \
    {                                                                                              \
        1, in, in, ic, out, out, oc, k, k, stride, stride, 1, 1, pad, pad, groups                  \
    }
#define GEMM(m, k, n)                                                                              \
    {                                                                                              \
        1, 1, m, k, 1, m, n, 1, 1, 1, 1, 1, 1, 0, 0, 1                                             \
    }

static const layer layers[] = {
    {"ResNet-18 first, 7x7 of 3", SQUARE(224, 112, 3, 64, 7, 2, 3, 1)},
    {"ResNet-18 3x3, 64", SQUARE(56, 56, 64, 64, 3, 1, 1, 1)},
    {"ResNet-18 3x3, 128 stride 2", SQUARE(56, 28, 64, 128, 3, 2, 1, 1)},
    {"ResNet-18 3x3, 128", SQUARE(28, 28, 128, 128, 3, 1, 1, 1)},
    {"ResNet-18 3x3, 256", SQUARE(14, 14, 256, 256, 3, 1, 1, 1)},
    {"ResNet-18 3x3, 512", SQUARE(7, 7, 512, 512, 3, 1, 1, 1)},
    {"ResNet-20 3x3, 16", SQUARE(32, 32, 16, 16, 3, 1, 1, 1)},
    {"ResNet-20 3x3, 32", SQUARE(16, 16, 32, 32, 3, 1, 1, 1)},
    {"MobileNetV2 first, 3x3 of 3", SQUARE(224, 112, 3, 32, 3, 2, 1, 1)},
    {"MobileNetV2 pointwise 32-16", SQUARE(112, 112, 32, 16, 1, 1, 0, 1)},
    {"MobileNetV2 pointwise 16-96", SQUARE(112, 112, 16, 96, 1, 1, 0, 1)},
    {"MobileNetV2 pointwise 144-24", SQUARE(56, 56, 144, 24, 1, 1, 0, 1)},
    {"MobileNetV2 pointwise 24-144", SQUARE(56, 56, 24, 144, 1, 1, 0, 1)},
    {"MobileNetV2 pointwise 64-384", SQUARE(14, 14, 64, 384, 1, 1, 0, 1)},
    {"MobileNetV2 pointwise 384-64", SQUARE(14, 14, 384, 64, 1, 1, 0, 1)},
    {"MobileNetV2 pointwise 160-960", SQUARE(7, 7, 160, 960, 1, 1, 0, 1)},
    {"MobileNetV2 pointwise 320-1280", SQUARE(7, 7, 320, 1280, 1, 1, 0, 1)},
    {"MobileNetV2 depthwise 32", SQUARE(112, 112, 32, 32, 3, 1, 1, 32)},
    {"MobileNetV2 depthwise 96 stride 2", SQUARE(112, 56, 96, 96, 3, 2, 1, 96)},
    {"MobileNetV2 depthwise 144", SQUARE(56, 56, 144, 144, 3, 1, 1, 144)},
    {"MobileNetV2 depthwise 384", SQUARE(14, 14, 384, 384, 3, 1, 1, 384)},
    {"MobileNetV2 depthwise 960", SQUARE(7, 7, 960, 960, 3, 1, 1, 960)},
    {"MobileNetV1 0.25 depthwise 8", SQUARE(112, 112, 8, 8, 3, 1, 1, 8)},
    {"EfficientNet depthwise 5x5, 240", SQUARE(28, 28, 240, 240, 5, 1, 2, 240)},
    {"ResNeXt grouped 3x3, 32 groups of 4", SQUARE(56, 56, 128, 128, 3, 1, 1, 32)},
    {"autoencoder 640-128, one row", GEMM(1, 640, 128)},
    {"classifier 1280-1000, one row", GEMM(1, 1280, 1000)},
    {"Gemm 128 x 768 x 768", GEMM(128, 768, 768)},
};

typedef struct conv_run {
    const conv_kernel *k;
    const conv_shape *s;
    const void *packed;
    const uint8_t *x;
    const requant *q;
    uint8_t *y;
    void *scratch;
} conv_run;

static void run_conv(const void *ctx)
{
    const conv_run *r = ctx;
    r->k->run(r->s, r->packed, r->x, 128, r->q, r->y, r->scratch, 0, 1);
}

static void *room(size_t n)
{
    void *p = aligned_alloc(64, (n + 64) / 64 * 64);
    if (!p) {
        fprintf(stderr, "kernels_test: no memory for %zu bytes\n", n);
        exit(1);
    }
    memset(p, 1, n);
    return p;
}

static void time_conv(const conv_kernel *k, const layer *l, double peak)
{
    const conv_shape *s = &l->s;
    const size_t weights = (size_t)s->out_c * (s->in_c / s->groups) * s->kernel_h * s->kernel_w;
    const double macs = (double)s->batch * s->out_h * s->out_w * weights;
    int8_t *w = room(weights);
    float *mult = room(s->out_c * sizeof *mult);
    void *packed = room(k->packed_size(s)), *scratch = room(k->scratch_size(s));
    uint8_t *x = room((size_t)s->in_h * s->in_w * s->in_c);
    uint8_t *y = room((size_t)s->out_h * s->out_w * s->out_c);
    fill_s8(w, weights);
    for (int i = 0; i < s->out_c; i++)
        mult[i] = 1e-4f;
    const requant q = {mult, 128, 0, 255};
    k->pack(s, w, NULL, 128, packed);
    const conv_run r = {k, s, packed, x, &q, y, scratch};
    const double t = seconds_of(run_conv, &r);
    printf("%-36s %-22s %9.4f ms %7.1f GMAC/s", l->name, k->name, t * 1e3, macs / t / 1e9);
    if (peak > 0)
        printf(" %5.1f %%", 100 * macs / t / peak);
    printf("\n");
    free(w), free(mult), free(packed), free(scratch), free(x), free(y);
}

static const struct product_layer {
    const char *name;
    int rows, k, n;
} products[] = {
    {"dynamic 1 x 768 x 768", 1, 768, 768},
    {"dynamic 128 x 768 x 768", 128, 768, 768},
    {"dynamic 128 x 768 x 3072", 128, 768, 3072},
};

typedef struct product_run {
    const product_kernel *k;
    product_shape s;
    const void *packed;
    const uint8_t *x;
    product_q q;
    float *y;
    void *scratch;
} product_run;

static void run_product(const void *ctx)
{
    const product_run *r = ctx;
    r->k->run(&r->s, r->packed, r->x, &r->q, r->y, r->scratch, 0, 1);
}

static void time_product(const product_kernel *k, const struct product_layer *l, double peak)
{
    const size_t weights = (size_t)l->k * l->n, outputs = (size_t)l->rows * l->n;
    const double macs = (double)l->rows * weights;
    int8_t *w = room(weights);
    float *scale = room(l->n * sizeof *scale), *y = room(outputs * sizeof *y);
    void *packed = room(k->packed_size(l->k, l->n)), *scratch = room(k->scratch_size(l->k));
    uint8_t *x = room((size_t)l->rows * l->k);
    fill_s8(w, weights);
    for (int i = 0; i < l->n; i++)
        scale[i] = 1e-4f;
    k->pack(l->k, l->n, w, packed);
    const product_run r = {.k = k,
                           .s = {l->rows, l->k, l->n, (size_t)l->k, (size_t)l->n},
                           .packed = packed,
                           .x = x,
                           .q = {.x_scale = 0.02f, .x_zero = 128, .w_scale = scale},
                           .y = y,
                           .scratch = scratch};
    const double t = seconds_of(run_product, &r);
    printf("%-36s %-22s %9.4f ms %7.1f GMAC/s", l->name, k->name, t * 1e3, macs / t / 1e9);
    if (peak > 0)
        printf(" %5.1f %%", 100 * macs / t / peak);
    printf("\n");
    free(w), free(scale), free(y), free(packed), free(scratch), free(x);
}

enum { ELEMENTS = 56 * 56 * 64 };

typedef struct plain_run {
    const void *row;
    uint8_t *a, *b, *y;
    float *f;
} plain_run;

static const binary_q some_binary = {0.02f, 0.03f, 0.04f, 120, 130, 125, 0, 255};
static const pool_q some_pool = {0.02f, 0.021f, 120, 130, 0, 255};
static const pool_shape window = {1, 56, 56, 64, 28, 28, 3, 3, 2, 2, 1, 1, 1, 1, false};

static void run_binary(const void *ctx)
{
    const plain_run *r = ctx;
    ((const binary_kernel *)r->row)->run(r->a, r->b, 1, ELEMENTS, &some_binary, r->y);
}

static void run_table(const void *ctx)
{
    const plain_run *r = ctx;
    ((const table_kernel *)r->row)->run(r->a, ELEMENTS, r->b, r->y);
}

static void run_quantize(const void *ctx)
{
    const plain_run *r = ctx;
    ((const quantize_kernel *)r->row)->run(r->f, ELEMENTS, 0.02f, 128, 0, 255, r->y);
}

static void run_dequantize(const void *ctx)
{
    const plain_run *r = ctx;
    ((const dequantize_kernel *)r->row)->run(r->a, ELEMENTS, 0.02f, 128, r->f);
}

static void run_pool(const void *ctx)
{
    const plain_run *r = ctx;
    ((const pool_kernel *)r->row)->run(&window, r->a, &some_pool, r->y, 0, 1);
}

/* All rows of a table that are not convolutions; each begins with name and needs. */
static void time_table(const char *what, const void *table, size_t row_size, timed fn, plain_run *r)
{
    struct {
        const char *name;
        unsigned needs;
    } head;
    for (const char *row = table; memcpy(&head, row, sizeof head), head.name; row += row_size) {
        if (!cpu_has(head.needs))
            continue;
        r->row = row;
        const double t = seconds_of(fn, r);
        printf("%-36s %-22s %9.4f ms %7.2f G inputs/s\n", what, head.name, t * 1e3,
               ELEMENTS / t / 1e9);
    }
}

void bench_all(void)
{
    printf("%s\n", cpu_name());
    const double peak = print_peaks();
    for (size_t i = 0; i < sizeof layers / sizeof layers[0]; i++)
        for (const conv_kernel *k = conv_u8s8 + 1; k->name; k++)
            if (cpu_has(k->needs) && k->fits(&layers[i].s))
                time_conv(k, &layers[i], peak);
    for (size_t i = 0; i < sizeof products / sizeof products[0]; i++)
        for (const product_kernel *k = product_u8s8 + 1; k->name; k++)
            if (cpu_has(k->needs))
                time_product(k, &products[i], peak);
    plain_run r = {NULL, room(ELEMENTS), room(ELEMENTS), room(ELEMENTS), room(4 * ELEMENTS)};
    for (size_t i = 0; i < ELEMENTS; i++)
        r.f[i] = (float)(int)(i % 500) * 0.01f - 2.5f;
    fill_u8(r.a, ELEMENTS);
    time_table("Add 56x56x64", add_u8, sizeof *add_u8, run_binary, &r);
    time_table("Mul 56x56x64", mul_u8, sizeof *mul_u8, run_binary, &r);
    time_table("table 56x56x64", table_u8, sizeof *table_u8, run_table, &r);
    time_table("QuantizeLinear 56x56x64", quantize_u8, sizeof *quantize_u8, run_quantize, &r);
    time_table("DequantizeLinear 56x56x64", dequantize_u8, sizeof *dequantize_u8, run_dequantize,
               &r);
    time_table("MaxPool 3x3 stride 2", max_pool_u8, sizeof *max_pool_u8, run_pool, &r);
    time_table("AveragePool 3x3 stride 2", avg_pool_u8, sizeof *avg_pool_u8, run_pool, &r);
    time_table("GlobalAveragePool", global_avg_pool_u8, sizeof *global_avg_pool_u8, run_pool, &r);
    free(r.a), free(r.b), free(r.y), free(r.f);
}
