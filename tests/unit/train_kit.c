#include "train_kit.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "ops/ops.h"

/* --- trials ----------------------------------------------------------------------------------- */

trial trial_begin(const graph *g, const tape_options *opt, uint64_t seed)
{
    trial t = {.g = g, .mem = arena_new()};
    assert_non_null(t.mem);
    rng_seed(&t.r, seed);
    assert_ok(params_create(g, &t.p, err));
    assert_ok(tape_create(g, t.p, opt, &t.t, err));
    t.data = arena_copy(t.mem, t.p->data, t.p->total * sizeof *t.data);
    t.grad = arena_zero(t.mem, t.p->total, sizeof *t.grad);
    for (int i = 0; i < tape_n_inputs(t.t); i++) {
        float *x = tape_input(t.t, i)->data;
        for (size_t k = 0; k < tensor_count(tape_input(t.t, i)); k++)
            x[k] = rng_normal(&t.r);
    }
    return t;
}

void trial_end(trial *t)
{
    tape_free(t->t);
    params_free(t->p);
    arena_free(t->mem);
}

/* The fixed number that element k of output i counts. */
static float share_of(int i, size_t k)
{
    rng r;
    rng_seed(&r, (uint64_t)i * 1000003 + k);
    return rng_normal(&r);
}

double trial_loss(trial *t, const float *data, double *rounding)
{
    double loss = 0, magnitude = 0;
    assert_ok(tape_forward(t->t, data, true, NULL, err));
    for (int i = 0; i < tape_n_outputs(t->t); i++) {
        const tensor *y = tape_output(t->t, i);
        for (size_t k = 0; k < tensor_count(y); k++) {
            const double part = (double)((const float *)y->data)[k] * share_of(i, k);
            loss += part;
            magnitude += fabs(part);
        }
    }
    if (rounding)
        *rounding = magnitude * FLT_EPSILON;
    return loss;
}

void trial_gradient(trial *t)
{
    memset(t->grad, 0, t->p->total * sizeof *t->grad);
    trial_loss(t, t->data, NULL);
    for (int i = 0; i < tape_n_outputs(t->t); i++)
        for (size_t k = 0; k < tensor_count(tape_output(t->t, i)); k++)
            tape_output_grad(t->t, i)[k] = share_of(i, k);
    assert_ok(tape_backward(t->t, t->data, t->grad, err));
}

/* (L(x + h d) - L(x - h d)) / 2h; *rounding: what it may be off by through float32. */
static double slope(trial *t, const param *p, const float *direction, double h, double *rounding)
{
    double loss[2], off[2];
    float *moved = arena_copy(t->mem, t->data, t->p->total * sizeof *moved);
    for (int side = 0; side < 2; side++) {
        const double step = side ? h : -h;
        for (size_t i = 0; i < p->count; i++)
            moved[p->first + i] = (float)(t->data[p->first + i] + step * direction[i]);
        loss[side] = trial_loss(t, moved, &off[side]);
    }
    *rounding = (off[0] + off[1]) / h;
    return (loss[1] - loss[0]) / (2 * h);
}

static void check_param(trial *t, const param *p)
{
    float *direction = arena_zero(t->mem, p->count, sizeof *direction);
    double length = 0, got = 0, wide_off, off;
    for (size_t i = 0; i < p->count; i++) {
        direction[i] = rng_normal(&t->r);
        length += (double)direction[i] * direction[i];
    }
    for (size_t i = 0; i < p->count; i++) {
        direction[i] /= (float)sqrt(length);
        got += (double)direction[i] * t->grad[p->first + i];
    }
    /* The error of a slope is of the order of h^2: that of half the h is a third of how much the
     * two differ. A kink between makes it of the order of h. */
    const double h = 1.0 / 256;
    const double wide = slope(t, p, direction, h, &wide_off);
    const double want = slope(t, p, direction, h / 2, &off);
    const double bound = 2 * fabs(want - wide) + 8 * off;
    if (!(fabs(got - want) <= bound))
        fail_msg("%s: slope %g by the tape, %g by differences, bound %g", p->name, got, want,
                 bound);
}

void trial_check(trial *t)
{
    trial_gradient(t);
    for (size_t i = 0; i < t->p->n; i++)
        if (t->p->list[i].kind != PARAM_STATE)
            check_param(t, &t->p->list[i]);
}

/* --- networks --------------------------------------------------------------------------------- */

static int conv(graph *g, rng *r, const char *name, int x, int out, int in, int k, int stride,
                int groups)
{
    char w[64], b[64];
    snprintf(w, sizeof w, "%s_w", name);
    snprintf(b, sizeof b, "%s_b", name);
    const int ids[] = {x, kit_random(g, r, w, 4, DIMS(out, in / groups, k, k)),
                       kit_random(g, r, b, 1, DIMS(out))};
    const int y = kit_node(g, "Conv", name, 3, ids);
    kit_set_ints(g, "strides", 2, DIMS(stride, stride));
    kit_set_ints(g, "pads", 4, DIMS(k / 2, k / 2, k / 2, k / 2));
    kit_set_int(g, "group", groups);
    return y;
}

static int batch_norm(graph *g, rng *r, const char *name, int x, int channels)
{
    char label[4][64];
    static const char *const parts[] = {"scale", "shift", "mean", "variance"};
    int ids[5] = {x};
    for (int i = 0; i < 4; i++) {
        snprintf(label[i], sizeof label[i], "%s_%s", name, parts[i]);
        ids[i + 1] = i == 1 || i == 2 ? kit_random(g, r, label[i], 1, DIMS(channels))
                                      : kit_positive(g, r, label[i], channels);
    }
    return kit_node(g, "BatchNormalization", name, 5, ids);
}

static int one(graph *g, const char *op, const char *name, int x)
{
    return kit_node(g, op, name, 1, IDS(x));
}

static graph *begin(int *x, int rank, const int64_t *dims)
{
    graph *g = kit_graph(op_find);
    *x = kit_input(g, "x", rank, dims);
    return g;
}

static graph *end(graph *g, int y)
{
    kit_output(g, y);
    assert_ok(graph_sort(g, err));
    assert_ok(graph_verify(g, err));
    return g;
}

static int gemm(graph *g, rng *r, const char *name, int x, int out, int in)
{
    char w[64], b[64];
    snprintf(w, sizeof w, "%s_w", name);
    snprintf(b, sizeof b, "%s_b", name);
    const int y = kit_node(g, "Gemm", name, 3,
                           IDS(x, kit_random(g, r, w, 2, DIMS(out, in)),
                               kit_random(g, r, b, 1, DIMS(out))));
    kit_set_int(g, "transB", 1);
    return y;
}

graph *net_residual(rng *r)
{
    int x;
    graph *g = begin(&x, 4, DIMS(DIM_UNKNOWN, 3, 8, 8));
    const int a = one(g, "Relu", "relu1", batch_norm(g, r, "norm1",
                                                     conv(g, r, "conv1", x, 8, 3, 3, 1, 1), 8));
    const int b = batch_norm(g, r, "norm2", conv(g, r, "conv2", a, 8, 8, 3, 1, 8), 8);
    const int c = one(g, "Relu", "relu2", kit_node(g, "Add", "add", 2, IDS(a, b)));
    const int pooled = one(g, "MaxPool", "pool", conv(g, r, "conv3", c, 16, 8, 1, 1, 1));
    kit_set_ints(g, "kernel_shape", 2, DIMS(2, 2));
    kit_set_ints(g, "strides", 2, DIMS(2, 2));
    const int mean = one(g, "GlobalAveragePool", "mean", pooled);
    const int flat = one(g, "Flatten", "flat", mean);
    return end(g, gemm(g, r, "fc", flat, 5, 16));
}

graph *net_branches(rng *r)
{
    int x;
    graph *g = begin(&x, 4, DIMS(DIM_UNKNOWN, 3, 8, 8));
    const int w = kit_random(g, r, "shared", 4, DIMS(3, 3, 3, 3));
    const int a = kit_node(g, "Conv", "first", 2, IDS(x, w));
    kit_set_ints(g, "pads", 4, DIMS(1, 1, 1, 1));
    const int b = kit_node(g, "Conv", "second", 2, IDS(one(g, "Tanh", "tanh", a), w));
    kit_set_ints(g, "pads", 4, DIMS(1, 1, 1, 1));
    const int squared = kit_node(g, "Mul", "square", 2, IDS(a, a));
    const int joined = kit_node(g, "Concat", "concat", 3, IDS(a, b, squared));
    kit_set_int(g, "axis", 1);
    const int c = conv(g, r, "conv", joined, 4, 9, 1, 1, 1);
    const int d = one(g, "Sigmoid", "sigmoid", c);
    const int sum = kit_node(g, "Add", "sum", 2, IDS(c, kit_node(g, "Mul", "gate", 2, IDS(c, d))));
    kit_output(g, a);
    return end(g, sum);
}

graph *net_attention(rng *r)
{
    int x;
    graph *g = begin(&x, 3, DIMS(DIM_UNKNOWN, 5, 6));
    const int q = kit_node(g, "MatMul", "query", 2,
                           IDS(x, kit_random(g, r, "query_w", 2, DIMS(6, 6))));
    const int k = kit_node(g, "MatMul", "key", 2,
                           IDS(x, kit_random(g, r, "key_w", 2, DIMS(6, 6))));
    const int turned = one(g, "Transpose", "turn", k);
    kit_set_ints(g, "perm", 3, DIMS(0, 2, 1));
    const int scores = kit_node(g, "MatMul", "scores", 2, IDS(q, turned));
    const int weights = one(g, "Softmax", "softmax", scores);
    const int mixed = kit_node(g, "MatMul", "mix", 2, IDS(weights, x));
    const int shift = kit_random(g, r, "shift", 1, DIMS(6));
    const int biased = kit_node(g, "Add", "bias", 2, IDS(mixed, shift));
    const int half = one(g, "Erf", "erf", biased);
    const int sum = kit_node(g, "Add", "residual", 2, IDS(half, x));
    const int flat = kit_node(g, "Reshape", "flat", 2,
                              IDS(sum, kit_ints(g, "shape", 2, DIMS(-1, 30))));
    return end(g, gemm(g, r, "fc", flat, 4, 30));
}
