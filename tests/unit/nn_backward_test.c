/* The training rows against the plain evaluation and the plain gradients: random shapes, attributes
 * and layouts, one and two threads and inside a parallel region. */
#include "nn_case.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "nn/backward.h"
#include "unit.h"

#define ROUNDS 60

static const nn_bound exact = {NN_EXACT, 0, 0};

static unsigned some_of(rng *r, unsigned all)
{
    unsigned v = 0;
    while (v == 0)
        v = (unsigned)rng_below(r, 8) & all;
    return v;
}

/* --- convolutions ----------------------------------------------------------------------------- */
typedef struct conv_random {
    int     n;
    int64_t group, in, out, kernel[3], strides[3], dilations[3], pads[6], dims[5];
} conv_random;

static void random_channels(rng *r, conv_random *v)
{
    v->group = 1;
    v->in = nn_between(r, 1, 40);
    v->out = nn_between(r, 1, 40);
    switch (rng_below(r, 6)) {
    case 0: /* grouped */
        v->group = nn_between(r, 2, 4);
        v->in = v->group * nn_between(r, 1, 9);
        v->out = v->group * nn_between(r, 1, 9);
        return;
    case 1: /* depthwise */
    case 2:
        v->group = v->out = v->in = nn_between(r, 2, 100);
        return;
    case 3: /* a first layer */
        v->in = nn_between(r, 1, 3);
        v->out = 16;
        return;
    default:
        return;
    }
}

static conv_random random_conv(rng *r)
{
    conv_random v = {.n = (int)nn_between(r, 1, 3)};
    random_channels(r, &v);
    v.dims[0] = nn_between(r, 1, 3);
    v.dims[1] = v.in;
    for (int i = 0; i < v.n; i++) {
        v.kernel[i] = nn_chance(r, 3) ? 1 : nn_between(r, 1, 4);
        v.strides[i] = nn_between(r, 1, 3);
        v.dilations[i] = nn_chance(r, 3) ? nn_between(r, 2, 3) : 1;
        v.pads[i] = nn_between(r, 0, 2);
        v.pads[v.n + i] = nn_between(r, 0, 2);
        const int64_t reach = (v.kernel[i] - 1) * v.dilations[i] + 1;
        v.dims[2 + i] = reach + nn_between(r, 0, v.n == 3 ? 3 : 14);
    }
    return v;
}

static double conv_terms(const conv_random *v)
{
    double taps = 1, positions = (double)v->dims[0];
    for (int i = 0; i < v->n; i++) {
        taps *= (double)v->kernel[i];
        positions *= (double)(v->dims[2 + i] + 4);
    }
    const double channels = (double)(v->in > v->out ? v->in : v->out);
    return taps * channels > positions ? taps * channels : positions;
}

static void conv_case(nn_case *c, rng *r, const conv_random *v, bool channels_last)
{
    int64_t w[5] = {v->out, v->in / v->group};
    memcpy(w + 2, v->kernel, sizeof v->kernel);
    nn_begin(c, r, channels_last);
    c->training = true;
    c->plain[1] = true;
    c->plain[0] = v->in <= 3 && nn_chance(r, 2);
    nn_input(c, false, v->n + 2, v->dims);
    nn_input(c, nn_chance(r, 8), v->n + 2, w);
    if (nn_chance(r, 2))
        nn_input(c, false, 1, &v->out);
    nn_node(c, "Conv", 1);
    nn_set_int(c, "group", v->group);
    nn_set_ints(c, "strides", v->n, v->strides);
    nn_set_ints(c, "dilations", v->n, v->dilations);
    if (nn_chance(r, 5) && v->dilations[0] == 1)
        nn_set_string(c, "auto_pad", nn_chance(r, 2) ? "SAME_UPPER" : "SAME_LOWER");
    else
        nn_set_ints(c, "pads", 2 * v->n, v->pads);
}

static void test_conv(void **state)
{
    rng *r = *state;
    for (int i = 0; i < 4 * ROUNDS; i++) {
        nn_case c;
        const conv_random v = random_conv(r);
        conv_case(&c, r, &v, !nn_chance(r, 4));
        const unsigned wanted = some_of(r, c.n_in == 3 ? 7 : 3);
        const nn_bound bound = {NN_SUM, conv_terms(&v) + 2, 0};
        nn_check(&c, bound);
        nn_check_backward(&c, wanted, bound);
        nn_end(&c);
    }
}

/* --- matrices --------------------------------------------------------------------------------- */
static void test_gemm(void **state)
{
    rng *r = *state;
    for (int i = 0; i < 3 * ROUNDS; i++) {
        nn_case c;
        const int64_t m = nn_chance(r, 4) ? 1 : nn_between(r, 1, 40), k = nn_between(r, 1, 150);
        const int64_t n = nn_chance(r, 6) ? 1 : nn_between(r, 1, 150);
        const bool ta = nn_chance(r, 3), tb = nn_chance(r, 2);
        const int64_t a[2] = {ta ? k : m, ta ? m : k}, b[2] = {tb ? n : k, tb ? k : n};
        const int64_t row[2] = {1, n};
        nn_begin(&c, r, false);
        c.training = true;
        nn_input(&c, false, 2, a);
        nn_input(&c, false, 2, b);
        const bool biased = nn_chance(r, 2);
        const int c_rank = nn_chance(r, 2) ? 2 : 1;
        if (biased)
            nn_input(&c, false, c_rank, row + 2 - c_rank);
        nn_node(&c, "Gemm", 1);
        nn_set_int(&c, "transA", ta);
        nn_set_int(&c, "transB", tb);
        if (!biased && nn_chance(r, 2))
            nn_set_float(&c, "alpha", 0.75f);
        const double terms = (double)(m + k + n) + 4;
        nn_check(&c, (nn_bound){NN_SUM, terms, 0});
        nn_check_backward(&c, some_of(r, biased ? 7 : 3), (nn_bound){NN_SUM, terms, 0});
        nn_end(&c);
    }
}

/* C as one number and a beta, which only the gradient takes. */
static void test_gemm_scalar(void **state)
{
    rng *r = *state;
    for (int i = 0; i < ROUNDS; i++) {
        nn_case c;
        const int64_t a[2] = {nn_between(r, 1, 20), nn_between(r, 1, 20)};
        const int64_t b[2] = {a[1], nn_between(r, 1, 20)}, one = 1;
        nn_begin(&c, r, false);
        nn_input(&c, false, 2, a);
        nn_input(&c, false, 2, b);
        nn_input(&c, false, 1, nn_chance(r, 2) ? &one : &b[1]);
        nn_node(&c, "Gemm", 1);
        nn_set_float(&c, "beta", 1.25f);
        nn_set_float(&c, "alpha", 0.5f);
        nn_check_backward(&c, 7, (nn_bound){NN_SUM, (double)(a[0] * b[1] + a[1]), 0});
        nn_end(&c);
    }
}

static void test_matmul(void **state)
{
    rng *r = *state;
    for (int i = 0; i < 3 * ROUNDS; i++) {
        nn_case c;
        const int rank = (int)nn_between(r, 2, 4), flat = nn_chance(r, 2);
        int64_t a[4] = {nn_between(r, 1, 3), nn_between(r, 1, 3)}, b[4];
        const int64_t m = nn_chance(r, 3) ? 1 : nn_between(r, 1, 12), k = nn_between(r, 1, 70);
        const int64_t n = nn_between(r, 1, 70);
        memcpy(b, a, sizeof b);
        a[rank - 2] = m;
        a[rank - 1] = b[rank - 2] = k;
        b[rank - 1] = n;
        nn_begin(&c, r, false);
        c.training = true;
        nn_input(&c, false, rank, a);
        if (flat) /* a matrix for the whole batch */
            nn_input(&c, false, 2, b + rank - 2);
        else
            nn_input(&c, false, rank, b);
        nn_node(&c, "MatMul", 1);
        const nn_bound bound = {NN_SUM, (double)(9 * m + k + n), 0};
        nn_check(&c, bound);
        nn_check_backward(&c, some_of(r, 3), bound);
        nn_end(&c);
    }
}

/* --- elementwise ------------------------------------------------------------------------------ */
typedef struct function {
    const char *op;
    double      terms, slack; /* of NN_RELATIVE; terms = 0: exact */
} function;

/* e^x is good to 2 ulp and an error of x there is one of x ulp; 1 - y^2 and the like cancel, which
 * an absolute error of dy's size bounds. */
static const function functions[] = {
    {"Abs", 0, 0},       {"Elu", 40, 1},     {"Erf", 40, 1},       {"Exp", 4, 0},
    {"HardSigmoid", 2, 0}, {"HardSwish", 4, 1}, {"LeakyRelu", 2, 0}, {"Relu", 0, 0},
    {"Sigmoid", 8, 1},   {"Sqrt", 4, 0},     {"Tanh", 8, 1},
};

static void test_unary(void **state)
{
    rng *r = *state;
    for (size_t k = 0; k < sizeof functions / sizeof *functions; k++) {
        for (int i = 0; i < 6; i++) {
            nn_case c;
            const function *f = &functions[k];
            const int64_t dims[4] = {nn_between(r, 1, 3), nn_between(r, 1, 20),
                                     nn_between(r, 1, 9), nn_between(r, 1, 9)};
            nn_begin(&c, r, nn_chance(r, 2));
            nn_input(&c, false, 4, dims);
            for (size_t e = 0; strcmp(f->op, "Sqrt") == 0 && e < tensor_count(&c.in[0]); e++)
                ((float *)c.in[0].data)[e] = 0.01f + rng_uniform(r);
            nn_node(&c, f->op, 1);
            nn_check_backward(&c, 1, f->terms == 0 ? exact
                                                   : (nn_bound){NN_RELATIVE, f->terms, f->slack});
            nn_end(&c);
        }
    }
}

static void test_clip(void **state)
{
    static const float bounds[2] = {-0.5f, 0.75f};
    rng *r = *state;
    for (int i = 0; i < ROUNDS; i++) {
        nn_case c;
        const int64_t dims[3] = {nn_between(r, 1, 3), nn_between(r, 1, 20), nn_between(r, 1, 9)};
        nn_begin(&c, r, nn_chance(r, 2));
        nn_input(&c, false, 3, dims);
        ((float *)c.in[0].data)[0] = bounds[i % 2];
        if (nn_chance(r, 3))
            nn_absent(&c);
        else
            nn_floats_input(&c, 1, bounds);
        if (!nn_chance(r, 3))
            nn_floats_input(&c, 1, bounds + 1);
        nn_node(&c, "Clip", 1);
        nn_check_backward(&c, 1, exact);
        nn_end(&c);
    }
}

static void test_square(void **state)
{
    static const float two = 2.0f;
    rng *r = *state;
    nn_case c;
    const int64_t dims[2] = {7, 33};
    nn_begin(&c, r, false);
    nn_input(&c, false, 2, dims);
    nn_floats_input(&c, 1, &two);
    nn_node(&c, "Pow", 1);
    nn_check_backward(&c, 1, (nn_bound){NN_RELATIVE, 4, 0});
    nn_end(&c);
}

static void test_binary(void **state)
{
    static const char *const ops[] = {"Add", "Sub", "Mul", "Div"};
    rng *r = *state;
    for (int i = 0; i < 6 * ROUNDS; i++) {
        nn_case c;
        const char *op = ops[i % 4];
        int64_t dims[4] = {nn_between(r, 1, 3), nn_between(r, 1, 40), nn_between(r, 1, 7),
                           nn_between(r, 1, 7)}, a[4], b[4];
        const unsigned repeated = nn_chance(r, 3) ? 0 : (unsigned)rng_below(r, 16);
        const bool left = nn_chance(r, 3);
        double count = 1;
        for (int d = 0; d < 4; d++) {
            a[d] = b[d] = dims[d];
            *(left ? &a[d] : &b[d]) = repeated >> d & 1 ? 1 : dims[d];
            count *= (double)dims[d];
        }
        nn_begin(&c, r, nn_chance(r, 2));
        c.training = true;
        nn_input(&c, false, 4, a);
        nn_input(&c, false, 4, b);
        nn_node(&c, op, 1);
        nn_check_backward(&c, some_of(r, 3), (nn_bound){NN_SUM, count, 0});
        nn_end(&c);
    }
}

/* --- pools, reductions ------------------------------------------------------------------------ */
static void pool_case(nn_case *c, rng *r, bool max)
{
    const int n = (int)nn_between(r, 1, 2);
    int64_t dims[4] = {nn_between(r, 1, 3), nn_between(r, 1, 40)}, kernel[2], strides[2], pads[4];
    double taps = 1;
    for (int k = 0; k < n; k++) {
        kernel[k] = nn_between(r, 1, 4);
        strides[k] = nn_between(r, 1, 3);
        pads[k] = nn_between(r, 0, kernel[k] - 1);
        pads[n + k] = nn_between(r, 0, kernel[k] - 1);
        dims[2 + k] = kernel[k] + nn_between(r, 0, 12);
        taps *= (double)kernel[k];
    }
    nn_begin(c, r, true);
    nn_input(c, false, n + 2, dims);
    for (size_t i = 0; nn_chance(r, 2) && i < tensor_count(&c->in[0]); i++)
        ((float *)c->in[0].data)[i] = (float)nn_between(r, 0, 3); /* many are equal */
    nn_node(c, max ? "MaxPool" : "AveragePool", 1);
    nn_set_ints(c, "kernel_shape", n, kernel);
    nn_set_ints(c, "strides", n, strides);
    nn_set_ints(c, "pads", 2 * n, pads);
    nn_set_int(c, "ceil_mode", nn_chance(r, 3));
    if (!max)
        nn_set_int(c, "count_include_pad", nn_chance(r, 2));
    nn_check_backward(c, 1, (nn_bound){NN_SUM, taps, 1});
    nn_end(c);
}

static void test_pools(void **state)
{
    nn_case c;
    for (int i = 0; i < 4 * ROUNDS; i++)
        pool_case(&c, *state, i % 2);
}

static void test_reduce(void **state)
{
    static const char *const ops[] = {"ReduceMean", "ReduceSum", "GlobalAveragePool"};
    rng *r = *state;
    for (int i = 0; i < 2 * ROUNDS; i++) {
        nn_case c;
        const char *op = ops[i % 3];
        const bool channels_last = nn_chance(r, 2), global = op[0] == 'G';
        const int64_t dims[4] = {nn_between(r, 1, 3), nn_between(r, 1, 40), nn_between(r, 1, 9),
                                 nn_between(r, 1, 9)};
        const int64_t spatial[2] = {2, 3}, last[1] = {-1};
        const bool both = channels_last || nn_chance(r, 2);
        nn_begin(&c, r, channels_last);
        nn_input(&c, false, 4, dims);
        if (op[6] == 'S')
            nn_ints_input(&c, both ? 2 : 1, both ? spatial : last);
        nn_node(&c, op, 1);
        if (op[6] == 'M')
            nn_set_ints(&c, "axes", both ? 2 : 1, both ? spatial : last);
        if (!global)
            nn_set_int(&c, "keepdims", 1);
        c.opset = 17; /* axes became an input in 18 (ReduceSum: 13) */
        nn_check_backward(&c, 1, (nn_bound){NN_RELATIVE, 2, 0});
        nn_end(&c);
    }
}

static void test_softmax(void **state)
{
    rng *r = *state;
    for (int i = 0; i < ROUNDS; i++) {
        nn_case c;
        const int64_t dims[3] = {nn_between(r, 1, 4), nn_between(r, 1, 9), nn_between(r, 2, 90)};
        nn_begin(&c, r, false);
        nn_input(&c, false, 3, dims);
        nn_node(&c, "Softmax", 1);
        /* y (dy - s) with y <= 1, |s| <= the greatest |dy|, which stays below 6 */
        nn_check_backward(&c, 1, (nn_bound){NN_ABSOLUTE, (double)dims[2] + 8, 12});
        nn_end(&c);
    }
}

/* --- BatchNormalization ----------------------------------------------------------------------- */
static void norm_case(nn_case *c, rng *r, int rank)
{
    int64_t dims[5] = {nn_between(r, 1, 5), nn_between(r, 1, 40)};
    for (int d = 2; d < rank; d++)
        dims[d] = nn_between(r, 1, rank == 5 ? 3 : 9);
    nn_begin(c, r, nn_chance(r, 2));
    c->training = true;
    nn_input(c, false, rank, dims);
    for (int i = 1; i < 5; i++)
        nn_input(c, false, 1, &dims[1]);
    for (int64_t i = 0; i < dims[1]; i++) {
        float *variance = (float *)c->in[4].data + i;
        *variance = 0.5f + *variance * *variance;
    }
    nn_node(c, "BatchNormalization", 1);
    nn_set_float(c, "epsilon", 1e-3f);
}

static void set_sign(tensor *t, float sign)
{
    float *v = t->data;
    for (size_t i = 0; i < tensor_count(t); i++)
        v[i] = copysignf(v[i], sign);
}

static void test_batchnorm_fixed(void **state)
{
    rng *r = *state;
    for (int i = 0; i < 2 * ROUNDS; i++) {
        nn_case c;
        norm_case(&c, r, (int)nn_between(r, 2, 5));
        const double count = (double)(tensor_count(&c.in[0]) / tensor_count(&c.in[1]));
        for (int k = 0; k < 4; k++) /* nothing cancels: mean < 0, the others > 0 */
            set_sign(&c.in[k], k == 3 ? -1.0f : 1.0f);
        nn_check(&c, (nn_bound){NN_RELATIVE, 8, 0});
        nn_check_backward(&c, some_of(r, 7), (nn_bound){NN_SUM, count + 8, 1});
        nn_end(&c);
    }
}

/* One channel, in double. */
typedef struct channel {
    size_t  n;
    double *x, *dy; /* [n] */
    double  mean, variance, inv, scale, bias;
    double  dx_dy, dx_h, dy_size, h_size; /* sums of dy, dy h, |dy|, |dy h| */
} channel;

static void take_channel(nn_case *c, const tensor *dy, size_t at, channel *k)
{
    const tensor *x = &c->in[0];
    const size_t channels = (size_t)x->dims[1], count = tensor_count(x);
    const size_t inner = count / channels / (size_t)x->dims[0];
    *k = (channel){.n = count / channels};
    k->x = arena_alloc(c->mem, k->n * sizeof *k->x);
    k->dy = arena_alloc(c->mem, k->n * sizeof *k->dy);
    for (size_t i = 0; i < k->n; i++) {
        const size_t from = (i / inner * channels + at) * inner + i % inner;
        k->x[i] = ((const float *)x->data)[from];
        k->dy[i] = ((const float *)dy->data)[from];
        k->mean += k->x[i] / (double)k->n;
    }
    for (size_t i = 0; i < k->n; i++)
        k->variance += (k->x[i] - k->mean) * (k->x[i] - k->mean) / (double)k->n;
    k->inv = 1 / sqrt(k->variance + 1e-3f);
    k->scale = ((const float *)c->in[1].data)[at];
    k->bias = ((const float *)c->in[2].data)[at];
    for (size_t i = 0; i < k->n; i++) {
        const double h = (k->x[i] - k->mean) * k->inv;
        k->dx_dy += k->dy[i];
        k->dx_h += k->dy[i] * h;
        k->dy_size += fabs(k->dy[i]);
        k->h_size += fabs(k->dy[i] * h);
    }
}

static void near(const char *what, double got, double want, double size, double terms)
{
    if (!(fabs(got - want) <= (terms + 16) * FLT_EPSILON * (size + fabs(want))))
        fail_msg("%s is %.9g, not %.9g", what, got, want);
}

typedef struct norm_buffers {
    float *y, *mean, *variance, *dx, *dscale, *dbias;
} norm_buffers;

/* h = (x - mean) inv is wrong by n rounding errors of x's size times inv at most. */
static void check_channel(const channel *k, size_t i, size_t memory, size_t c,
                          const norm_buffers *b)
{
    const double n = (double)k->n, h = (k->x[i] - k->mean) * k->inv;
    const double slope = k->scale * k->inv;
    near("mean", b->mean[c], k->mean, 4, n);
    near("variance", b->variance[c], k->variance, 4, n);
    near("y", b->y[memory], k->scale * h + k->bias, (4 + fabs(h)) * fabs(slope) + fabs(k->bias),
         n);
    near("dL/dbias", b->dbias[c], k->dx_dy, k->dy_size, n);
    near("dL/dscale", b->dscale[c], k->dx_h, k->h_size + 4 * k->inv * k->dy_size, n);
    near("dL/dx", b->dx[memory], slope * (k->dy[i] - k->dx_dy / n - h * k->dx_h / n),
         fabs(slope) * (fabs(k->dy[i]) + k->dy_size / n + (fabs(h) + 4 * k->inv) *
         (k->h_size + 4 * k->inv * k->dy_size) / n), n);
}

static void check_norm(nn_case *c, const operand *o, const tensor *dy, const norm_buffers *b)
{
    const size_t channels = (size_t)c->in[0].dims[1];
    const size_t inner = tensor_count(&c->in[0]) / channels / (size_t)c->in[0].dims[0];
    for (size_t at = 0; at < channels; at++) {
        channel k;
        take_channel(c, dy, at, &k);
        for (size_t i = 0; i < k.n; i++) {
            const size_t element = (i / inner * channels + at) * inner + i % inner;
            check_channel(&k, i, nn_place(o, element), at, b);
        }
    }
}

static void run_step(nn_case *c, const step *s, void *const *bufs, int n_threads)
{
    for (int t = 0; t < n_threads; t++)
        s->run(s, bufs, arena_alloc(c->mem, s->scratch_bytes), t, n_threads);
}

static void batch_case(nn_case *c, int n_threads)
{
    lowering l;
    step forward, backward;
    rung_error err;
    operand in[NN_MAX], out[NN_MAX];
    nn_operands(c, &l, in, out, c->mem);
    l.n_threads = n_threads;
    const size_t n = tensor_count(&c->in[0]), channels = tensor_count(&c->in[1]);
    tensor *dy = tensor_new(c->mem, RUNG_F32, c->in[0].rank, c->in[0].dims);
    for (size_t i = 0; i < n; i++)
        ((float *)dy->data)[i] = rng_normal(c->random);
    norm_buffers b = {arena_alloc(c->mem, n * 4), arena_alloc(c->mem, channels * 4),
                      arena_alloc(c->mem, channels * 4), arena_alloc(c->mem, n * 4),
                      arena_alloc(c->mem, channels * 4), arena_alloc(c->mem, channels * 4)};
    void *x = nn_stored(c, &in[0], &c->in[0]), *stored_dy = nn_stored(c, &out[0], dy);
    void *const bufs[] = {x, c->in[1].data, c->in[2].data, b.y, b.mean, b.variance};
    void *const back[] = {x,         c->in[1].data, b.mean,   b.variance,
                          stored_dy, b.dx,          b.dscale, b.dbias};
    assert_int_equal(nn_lower_batchnorm_training(&l, &forward, &err), RUNG_OK);
    assert_int_equal(nn_lower_batchnorm_backward(&l, &backward, &err), RUNG_OK);
    run_step(c, &forward, bufs, n_threads);
    run_step(c, &backward, back, n_threads);
    check_norm(c, &out[0], dy, &b);
}

static void test_batchnorm(void **state)
{
    rng *r = *state;
    for (int i = 0; i < ROUNDS; i++) {
        nn_case c;
        norm_case(&c, r, (int)nn_between(r, 2, 5));
        batch_case(&c, 1 + i % 2);
        nn_end(&c);
    }
}

/* --- borders ---------------------------------------------------------------------------------- */
static void test_memory(void **state)
{
    nn_case c;
    conv_random v = {2, 1, 3, 5, {3, 3}, {1, 1}, {1, 1}, {1, 1, 1, 1}, {1, 3, 6, 6}};
    conv_case(&c, *state, &v, true);
    nn_check_memory(&c);
    nn_end(&c);
    v = (conv_random){2, 5, 5, 5, {3, 3}, {1, 1}, {1, 1}, {1, 1, 1, 1}, {1, 5, 6, 6}};
    conv_case(&c, *state, &v, true);
    nn_check_memory(&c);
    nn_end(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conv),   cmocka_unit_test(test_gemm),
        cmocka_unit_test(test_gemm_scalar), cmocka_unit_test(test_matmul),
        cmocka_unit_test(test_unary),  cmocka_unit_test(test_clip),
        cmocka_unit_test(test_square), cmocka_unit_test(test_binary),
        cmocka_unit_test(test_pools),  cmocka_unit_test(test_reduce),
        cmocka_unit_test(test_softmax),
        cmocka_unit_test(test_batchnorm_fixed), cmocka_unit_test(test_batchnorm),
        cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, nn_seed, NULL);
}
