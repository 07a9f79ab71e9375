/* Times the fast float32 rows on layers of real networks: kernel, microseconds, GMAC/s. One thread,
 * or as many as the first argument says; the median of many runs. */
#include "nn_case.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/progress.h"
#include "ops/ops.h"

#define RUNS 41

typedef struct layer {
    const char *name, *op;
    int         in, h, w, out, kernel, stride, group, pad;
    bool        add;
} layer;

static const layer layers[] = {
    {"mobilenetv2 first", "Conv", 3, 224, 224, 32, 3, 2, 1, 1, false},
    {"squeezenet first", "Conv", 3, 224, 224, 64, 3, 2, 1, 0, false},
    {"resnet20 first", "Conv", 3, 32, 32, 16, 3, 1, 1, 1, false},
    {"resnet20 16", "Conv", 16, 32, 32, 16, 3, 1, 1, 1, true},
    {"resnet20 32", "Conv", 32, 16, 16, 32, 3, 1, 1, 1, true},
    {"resnet20 64", "Conv", 64, 8, 8, 64, 3, 1, 1, 1, true},
    {"pointwise 32-16", "Conv", 32, 112, 112, 16, 1, 1, 1, 0, false},
    {"pointwise 16-96", "Conv", 16, 112, 112, 96, 1, 1, 1, 0, false},
    {"pointwise 144-24", "Conv", 144, 56, 56, 24, 1, 1, 1, 0, true},
    {"pointwise 384-64", "Conv", 384, 14, 14, 64, 1, 1, 1, 0, true},
    {"pointwise 160-960", "Conv", 160, 7, 7, 960, 1, 1, 1, 0, false},
    {"pointwise 320-1280", "Conv", 320, 7, 7, 1280, 1, 1, 1, 0, false},
    {"depthwise 32", "Conv", 32, 112, 112, 32, 3, 1, 32, 1, false},
    {"depthwise 96 s2", "Conv", 96, 112, 112, 96, 3, 2, 96, 1, false},
    {"depthwise 144", "Conv", 144, 56, 56, 144, 3, 1, 144, 1, false},
    {"depthwise 384", "Conv", 384, 14, 14, 384, 3, 1, 384, 1, false},
    {"depthwise 960", "Conv", 960, 7, 7, 960, 3, 1, 960, 1, false},
    {"dscnn first", "Conv", 1, 49, 10, 64, 4, 2, 1, 1, false},
    {"dscnn depthwise", "Conv", 64, 25, 5, 64, 3, 1, 64, 1, false},
    {"dscnn pointwise", "Conv", 64, 25, 5, 64, 1, 1, 1, 0, false},
    {"vww depthwise 8", "Conv", 8, 48, 48, 8, 3, 1, 8, 1, false},
    {"vww pointwise 8-16", "Conv", 8, 48, 48, 16, 1, 1, 1, 0, false},
    {"fire 16-64 3x3", "Conv", 16, 55, 55, 64, 3, 1, 1, 1, false},
    {"fire 64-256 3x3", "Conv", 64, 13, 13, 256, 3, 1, 1, 1, false},
    {"superres 64-32", "Conv", 64, 224, 224, 32, 3, 1, 1, 1, false},
    {"grouped 32 by 4", "Conv", 32, 28, 28, 32, 3, 1, 4, 1, false},
    {"transposed 32-16", "ConvTranspose", 32, 28, 28, 16, 2, 2, 1, 0, false},
    {"squeezenet pool", "MaxPool", 64, 111, 111, 64, 3, 2, 1, 0, false},
    {"resnet8 pool", "AveragePool", 64, 8, 8, 64, 8, 8, 1, 0, false},
    {"mobilenet pool", "GlobalAveragePool", 1280, 7, 7, 1280, 7, 1, 1, 0, false},
    {"autoencoder 640-128", "Gemm", 640, 1, 1, 128, 0, 0, 0, 0, false},
    {"autoencoder 128-128", "Gemm", 128, 1, 1, 128, 0, 0, 0, 0, false},
    {"mobilenetv2 last", "Gemm", 1280, 1, 1, 1000, 0, 0, 0, 0, false},
    {"gemm of 64 rows", "Gemm", 256, 64, 1, 256, 0, 0, 0, 0, false},
    {"residual", "Add", 96, 56, 56, 96, 0, 0, 0, 0, false},
    {"relu", "Relu", 96, 56, 56, 96, 0, 0, 0, 0, false},
    {"sigmoid", "Sigmoid", 96, 56, 56, 96, 0, 0, 0, 0, false},
    {"tanh", "Tanh", 96, 56, 56, 96, 0, 0, 0, 0, false},
    {"softmax of 1000", "Softmax", 1000, 1, 1, 1000, 0, 0, 0, 0, false},
};

static void build(nn_case *c, rng *r, const layer *v)
{
    const int64_t x[4] = {1, v->in, v->h, v->w}, n = v->out;
    const int64_t w[4] = {v->out, v->group ? v->in / v->group : 1, v->kernel, v->kernel};
    const int64_t w_transposed[4] = {v->in, v->out, v->kernel, v->kernel};
    const int64_t rows[2] = {v->h, v->in}, matrix[2] = {v->in, v->out};
    const int64_t strides[2] = {v->stride, v->stride}, kernel[2] = {v->kernel, v->kernel};
    const int64_t pads[4] = {v->pad, v->pad, v->pad, v->pad};
    const bool gemm = strcmp(v->op, "Gemm") == 0, conv = strncmp(v->op, "Conv", 4) == 0;
    nn_begin(c, r, true);
    nn_input(c, false, gemm ? 2 : 4, gemm ? rows : x);
    if (gemm)
        nn_input(c, true, 2, matrix);
    if (conv)
        nn_input(c, true, 4, strcmp(v->op, "Conv") == 0 ? w : w_transposed);
    if (strcmp(v->op, "Add") == 0)
        nn_input(c, false, 4, x);
    if (gemm || conv)
        nn_input(c, true, 1, &n);
    nn_node(c, v->op, 1);
    if (v->stride && v->op[0] != 'G') {
        nn_set_ints(c, "strides", 2, strides);
        nn_set_ints(c, "pads", 4, pads);
        nn_set_ints(c, "kernel_shape", 2, kernel);
    }
    if (conv)
        nn_set_int(c, "group", v->group);
    if (strcmp(v->op, "Softmax") == 0)
        nn_set_int(c, "axis", 1);
    c->add = v->add;
    c->clamp = conv;
    c->hi = 6.0f;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

typedef struct job {
    const step  *s;
    void *const *bufs;
    void        *scratch;
    int          n_threads;
} job;

static void run(const job *j)
{
    if (j->s->library || j->n_threads == 1) {
        j->s->run(j->s, j->bufs, j->scratch, 0, 1);
        return;
    }
#pragma omp parallel num_threads(j->n_threads)
    j->s->run(j->s, j->bufs, j->scratch, omp_get_thread_num(), j->n_threads);
}

/* Seconds of one run: repeated to at least 0.2 ms, the median of RUNS such times. */
static double measure(const job *j)
{
    double times[RUNS];
    int repeat = 1;
    for (double t = 0; t < 2e-4; repeat *= 2) {
        const double begun = clock_seconds();
        for (int i = 0; i < repeat; i++)
            run(j);
        t = clock_seconds() - begun;
    }
    for (int k = 0; k < RUNS; k++) {
        const double begun = clock_seconds();
        for (int i = 0; i < repeat; i++)
            run(j);
        times[k] = (clock_seconds() - begun) / repeat;
    }
    qsort(times, RUNS, sizeof *times, by_value);
    return times[RUNS / 2];
}

static void *random_buffer(nn_case *c, const operand *o)
{
    tensor *t = tensor_new(c->mem, RUNG_F32, o->rank, o->dims);
    for (size_t i = 0; t && i < tensor_count(t); i++)
        ((float *)t->data)[i] = rng_normal(c->random);
    return t ? t->data : NULL;
}

static int bench(rng *r, const layer *v, int n_threads)
{
    nn_case c;
    lowering l;
    step s;
    rung_error err;
    operand in[NN_MAX], out[NN_MAX];
    void *bufs[2 * NN_MAX] = {NULL};
    build(&c, r, v);
    nn_operands(&c, &l, in, out, c.mem);
    l.n_threads = n_threads;
    if (nn_lower(&l, &s, &err) != RUNG_OK) {
        printf("%-20s %s\n", v->name, err.message);
        nn_end(&c);
        return 1;
    }
    for (int i = 0; i < l.n_in; i++)
        bufs[i] = in[i].constant ? NULL : random_buffer(&c, &in[i]);
    bufs[l.n_in] = random_buffer(&c, &out[0]);
    const job j = {&s, bufs, arena_alloc(c.mem, s.scratch_bytes * n_threads + 1), n_threads};
    const double t = measure(&j);
    printf("%-20s %-28s %9.2f us", v->name, s.kernel, t * 1e6);
    if (s.macs)
        printf("  %6.1f GMAC/s\n", (double)s.macs / t * 1e-9);
    else
        printf("  %6.1f Mout/s\n", (double)tensor_count(&c.out[0]) / t * 1e-6);
    nn_end(&c);
    return 0;
}

int main(int argc, char **argv)
{
    const int n_threads = argc > 1 ? atoi(argv[1]) : 1;
    int failed = 0;
    rng r;
    rng_seed(&r, 1);
    omp_set_num_threads(n_threads > 0 ? n_threads : 1);
    for (size_t i = 0; i < sizeof layers / sizeof *layers; i++)
        failed += bench(&r, &layers[i], n_threads > 0 ? n_threads : 1);
    return failed > 0;
}
