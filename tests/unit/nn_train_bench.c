/* Times the training rows on the layers of two small networks, channels-last, one thread: forward
 * and backward, microseconds, GMAC/s and the share of this machine's peak, which is measured first.
 * The first argument is the batch (32), a second limits the layers to names that hold it. The same
 * layers with PyTorch: bench/training_rows.py. */
#include "nn_case.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/progress.h"
#include "nn/backward.h"
#include "unit.h"

#define RUNS 101

typedef struct layer {
    const char *name, *op;
    int         in, h, out, kernel, stride, group, pad;
    unsigned    wanted;
} layer;

/* fashion: the small network of the QAT comparison; resnet20 at 32x32. */
static const layer layers[] = {
    {"fashion conv 1-16", "Conv", 1, 28, 16, 3, 1, 1, 1, 6},
    {"fashion conv 16-32 s2", "Conv", 16, 28, 32, 3, 2, 1, 1, 7},
    {"fashion depthwise 32 s2", "Conv", 32, 14, 32, 3, 2, 32, 1, 7},
    {"fashion pointwise 32-64", "Conv", 32, 7, 64, 1, 1, 1, 0, 7},
    {"fashion norm 16", "BatchNorm", 16, 28, 16, 0, 0, 0, 0, 7},
    {"fashion norm 32", "BatchNorm", 32, 14, 32, 0, 0, 0, 0, 7},
    {"fashion relu 16", "Relu", 16, 28, 16, 0, 0, 0, 0, 1},
    {"fashion pool 64", "GlobalAveragePool", 64, 7, 64, 0, 0, 0, 0, 1},
    {"fashion linear 64-10", "Gemm", 64, 1, 10, 0, 0, 0, 0, 7},
    {"resnet20 conv 3-16", "Conv", 3, 32, 16, 3, 1, 1, 1, 6},
    {"resnet20 conv 16", "Conv", 16, 32, 16, 3, 1, 1, 1, 7},
    {"resnet20 conv 16-32 s2", "Conv", 16, 32, 32, 3, 2, 1, 1, 7},
    {"resnet20 short 16-32 s2", "Conv", 16, 32, 32, 1, 2, 1, 0, 7},
    {"resnet20 conv 32", "Conv", 32, 16, 32, 3, 1, 1, 1, 7},
    {"resnet20 conv 64", "Conv", 64, 8, 64, 3, 1, 1, 1, 7},
    {"resnet20 norm 16", "BatchNorm", 16, 32, 16, 0, 0, 0, 0, 7},
    {"resnet20 relu 16", "Relu", 16, 32, 16, 0, 0, 0, 0, 1},
    {"resnet20 add 16", "Add", 16, 32, 16, 0, 0, 0, 0, 3},
    {"mobile depthwise 96", "Conv", 96, 28, 96, 3, 1, 96, 1, 7},
    {"mobile depthwise 144 s2", "Conv", 144, 28, 144, 3, 2, 144, 1, 7},
    {"mobile pointwise 24-144", "Conv", 24, 28, 144, 1, 1, 1, 0, 7},
    {"mobile pointwise 144-24", "Conv", 144, 28, 24, 1, 1, 1, 0, 7},
    {"pool max 2", "MaxPool", 32, 28, 32, 2, 2, 1, 0, 1},
    {"pool average 2", "AveragePool", 32, 28, 32, 2, 2, 1, 0, 1},
};

static void add_inputs(nn_case *c, const layer *v, int64_t batch)
{
    const int64_t x[4] = {batch, v->in, v->h, v->h}, rows[2] = {batch, v->in}, n = v->out;
    const int64_t matrix[2] = {v->out, v->in};
    const int64_t w[4] = {v->out, v->group ? v->in / v->group : 1, v->kernel, v->kernel};
    const bool gemm = strcmp(v->op, "Gemm") == 0;
    nn_input(c, false, gemm ? 2 : 4, gemm ? rows : x);
    if (strcmp(v->op, "Conv") == 0)
        nn_input(c, false, 4, w);
    if (gemm)
        nn_input(c, false, 2, matrix);
    if (strcmp(v->op, "Add") == 0)
        nn_input(c, false, 4, x);
    else if (v->wanted & 4)
        nn_input(c, false, 1, &n);
}

static void build(nn_case *c, rng *r, const layer *v, int64_t batch)
{
    const int64_t strides[2] = {v->stride, v->stride}, kernel[2] = {v->kernel, v->kernel};
    const int64_t pads[4] = {v->pad, v->pad, v->pad, v->pad}, n = v->out;
    const bool norm = strcmp(v->op, "BatchNorm") == 0;
    nn_begin(c, r, true);
    add_inputs(c, v, batch);
    for (int i = 0; norm && i < 3; i++)
        nn_input(c, false, 1, &n);
    c->plain[0] = v->in <= 3;
    c->plain[1] = strcmp(v->op, "Add") != 0;
    nn_node(c, norm ? "BatchNormalization" : v->op, 1);
    if (v->kernel) {
        nn_set_ints(c, "strides", 2, strides);
        nn_set_ints(c, "pads", 4, pads);
        nn_set_ints(c, "kernel_shape", 2, kernel);
    }
    if (strcmp(v->op, "Conv") == 0)
        nn_set_int(c, "group", v->group);
    if (strcmp(v->op, "Gemm") == 0)
        nn_set_int(c, "transB", 1);
}

/* Seconds of one run: the best of RUNS, each repeated to at least 0.1 ms; a busy machine makes all
 * but a few of them longer. */
static double measure(const step *s, void *const *bufs, void *scratch)
{
    double best = 1e9;
    int repeat = 1;
    for (double t = 0; t < 1e-4; repeat *= 2) {
        const double begun = clock_seconds();
        for (int i = 0; i < repeat; i++)
            s->run(s, bufs, scratch, 0, 1);
        t = clock_seconds() - begun;
    }
    for (int k = 0; k < RUNS; k++) {
        const double begun = clock_seconds();
        for (int i = 0; i < repeat; i++)
            s->run(s, bufs, scratch, 0, 1);
        const double t = (clock_seconds() - begun) / repeat;
        best = t < best ? t : best;
    }
    return best;
}

/* Multiply-accumulates a second that a product of matrices in the first cache reaches. */
static double peak(rng *r)
{
    nn_case c;
    lowering l;
    step s;
    rung_error err;
    operand in[NN_MAX], out[NN_MAX];
    const int64_t a[2] = {64, 256}, b[2] = {256, 64};
    nn_begin(&c, r, false);
    nn_input(&c, false, 2, a);
    nn_input(&c, false, 2, b);
    nn_node(&c, "MatMul", 1);
    nn_operands(&c, &l, in, out, c.mem);
    if (nn_lower_training(&l, &s, &err) != RUNG_OK)
        return 1;
    void *bufs[] = {c.in[0].data, c.in[1].data, c.out[0].data};
    bufs[2] = arena_zero(c.mem, 64 * 64, sizeof(float));
    const double t = measure(&s, bufs, arena_alloc(c.mem, s.scratch_bytes));
    nn_end(&c);
    return 64.0 * 256 * 64 / t;
}

static void report(const char *name, const step *s, double t, double top)
{
    printf("%-24s %-34s %9.1f us", name, s->kernel, t * 1e6);
    if (s->macs)
        printf(" %6.1f GMAC/s %3.0f %%", (double)s->macs / t * 1e-9,
               100 * (double)s->macs / t / top);
    printf("\n");
    fflush(stdout);
}

static float *random_buffer(nn_case *c, const operand *o)
{
    const size_t n = dims_count(o->rank, o->dims);
    float *v = arena_alloc(c->mem, n * sizeof *v);
    for (size_t i = 0; v && i < n; i++)
        v[i] = (float)rng_uniform(c->random); /* a variance is positive */
    return v;
}

/* The order that nn_lower_batchnorm_... have. */
static void norm_steps(const lowering *l, void *const *b, step *forward, void **bufs, step *back,
                       void **back_bufs)
{
    rung_error err;
    void *const first[] = {b[0], b[1], b[2], b[5], b[3], b[4]};
    void *const second[] = {b[0], b[1], b[3], b[4], b[6], b[7], b[8], b[9]};
    assert_int_equal(nn_lower_batchnorm_training(l, forward, &err), RUNG_OK);
    assert_int_equal(nn_lower_batchnorm_backward(l, back, &err), RUNG_OK);
    memcpy(bufs, first, sizeof first);
    memcpy(back_bufs, second, sizeof second);
}

static void bench(rng *r, const layer *v, int64_t batch, double top)
{
    nn_case c;
    lowering l;
    step forward, back;
    rung_error err = {0};
    operand in[NN_MAX], out[NN_MAX];
    void *bufs[4 * NN_MAX] = {NULL}, *back_bufs[4 * NN_MAX];
    build(&c, r, v, batch);
    nn_operands(&c, &l, in, out, c.mem);
    for (int i = 0; i < l.n_in; i++) {
        bufs[i] = random_buffer(&c, &in[i]);
        bufs[l.n_in + 2 + i] = random_buffer(&c, &in[i]);
    }
    bufs[l.n_in] = random_buffer(&c, &out[0]);
    bufs[l.n_in + 1] = random_buffer(&c, &out[0]);
    memcpy(back_bufs, bufs, sizeof bufs);
    if (strcmp(v->op, "BatchNorm") == 0)
        norm_steps(&l, bufs, &forward, bufs, &back, back_bufs);
    else if (nn_lower_training(&l, &forward, &err) != RUNG_OK ||
             nn_lower_backward(&l, v->wanted, &back, &err) != RUNG_OK)
        fail_msg("%s: %s", v->name, err.message);
    report(v->name, &forward, measure(&forward, bufs, arena_alloc(c.mem, forward.scratch_bytes)),
           top);
    report("", &back, measure(&back, back_bufs, arena_alloc(c.mem, back.scratch_bytes)), top);
    nn_end(&c);
}

int main(int argc, char **argv)
{
    const int64_t batch = argc > 1 ? atoi(argv[1]) : 32;
    rng r;
    rng_seed(&r, 1);
    omp_set_num_threads(1);
    const double top = peak(&r);
    printf("batch %lld, peak %.1f GMAC/s\n", (long long)batch, top * 1e-9);
    for (size_t i = 0; i < sizeof layers / sizeof *layers; i++) {
        if (argc < 3 || strstr(layers[i].name, argv[2]))
            bench(&r, &layers[i], batch, top);
    }
    return 0;
}
