/* The fast float32 rows of convolutions, products, pools and reductions against the plain
 * evaluation of the operators: random shapes, attributes and epilogues, one and two threads. */
#include "nn_case.h"

#include <string.h>

#include "base/cpu.h"
#include "unit.h"

#define ROUNDS 60

static const nn_bound exact = {NN_EXACT, 0, 0};

/* --- convolutions ----------------------------------------------------------------------------- */
typedef struct conv_random {
    int     n;
    int64_t group, in, out, kernel[3], strides[3], dilations[3], pads[6], dims[5];
} conv_random;

static conv_random random_conv(rng *r)
{
    conv_random v = {.n = (int)nn_between(r, 1, 3), .group = 1};
    const int kind = (int)rng_below(r, 4);
    v.in = nn_between(r, 1, 40);
    v.out = nn_between(r, 1, 40);
    if (kind == 1) /* grouped */
        v.group = nn_between(r, 2, 4), v.in = v.group * nn_between(r, 1, 9),
        v.out = v.group * nn_between(r, 1, 9);
    if (kind == 2) /* depthwise */
        v.group = v.out = v.in;
    if (kind == 3) /* depthwise, more than one output a channel */
        v.group = v.in, v.out = v.in * nn_between(r, 1, 3);
    v.dims[0] = nn_between(r, 1, 2);
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

static void set_conv(nn_case *c, const conv_random *v)
{
    nn_set_int(c, "group", v->group);
    nn_set_ints(c, "strides", v->n, v->strides);
    nn_set_ints(c, "dilations", v->n, v->dilations);
    if (nn_chance(c->random, 5) && v->dilations[0] == 1)
        nn_set_string(c, "auto_pad", nn_chance(c->random, 2) ? "SAME_UPPER" : "SAME_LOWER");
    else
        nn_set_ints(c, "pads", 2 * v->n, v->pads);
}

static double taps_of(const conv_random *v)
{
    double n = (double)v->in / (double)v->group;
    for (int i = 0; i < v->n; i++)
        n *= (double)v->kernel[i];
    return n;
}

static void conv_case(nn_case *c, rng *r, conv_random *v, bool transposed, bool constant)
{
    nn_begin(c, r, true);
    int64_t w[5] = {v->out, v->in / v->group};
    if (transposed) {
        w[0] = v->in;
        w[1] = v->out / v->group;
    }
    memcpy(w + 2, v->kernel, sizeof v->kernel);
    nn_input(c, false, v->n + 2, v->dims);
    nn_input(c, constant, v->n + 2, w);
    if (nn_chance(r, 2))
        nn_input(c, constant, 1, &v->out);
    nn_node(c, transposed ? "ConvTranspose" : "Conv", 1);
    set_conv(c, v);
    nn_random_epilogue(c, true);
}

static void test_conv(void **state)
{
    rng *r = *state;
    for (int i = 0; i < 4 * ROUNDS; i++) {
        nn_case c;
        conv_random v = random_conv(r);
        conv_case(&c, r, &v, false, !nn_chance(r, 8));
        nn_check(&c, (nn_bound){NN_SUM, taps_of(&v) + 2, 0});
        nn_end(&c);
    }
}

static void test_conv_transpose(void **state)
{
    rng *r = *state;
    for (int i = 0; i < 2 * ROUNDS; i++) {
        nn_case c;
        conv_random v = random_conv(r);
        int64_t extra[3];
        for (int k = 0; k < v.n; k++) {
            const int64_t full = (v.dims[2 + k] - 1) * v.strides[k] +
                                 (v.kernel[k] - 1) * v.dilations[k] + 1;
            if (v.pads[k] + v.pads[v.n + k] >= full)
                v.pads[k] = v.pads[v.n + k] = 0;
            extra[k] = nn_between(r, 0, v.strides[k] - 1);
        }
        conv_case(&c, r, &v, true, !nn_chance(r, 8));
        if (nn_chance(r, 2))
            nn_set_ints(&c, "output_padding", v.n, extra);
        nn_check(&c, (nn_bound){NN_SUM, taps_of(&v) + 2, 0});
        nn_end(&c);
    }
}

/* --- matrices --------------------------------------------------------------------------------- */
static void test_gemm(void **state)
{
    rng *r = *state;
    for (int i = 0; i < 2 * ROUNDS; i++) {
        nn_case c;
        const int64_t m = nn_chance(r, 2) ? 1 : nn_between(r, 1, 20), k = nn_between(r, 1, 150);
        const int64_t n = nn_between(r, 1, 150);
        const bool ta = nn_chance(r, 3), tb = nn_chance(r, 2), fixed = !nn_chance(r, 4);
        const int64_t a[2] = {ta ? k : m, ta ? m : k}, b[2] = {tb ? n : k, tb ? k : n};
        nn_begin(&c, r, false);
        nn_input(&c, false, 2, a);
        nn_input(&c, fixed, 2, b);
        const int64_t row[2] = {1, n}, one = 1;
        if (nn_chance(r, 2))
            nn_input(&c, true, 1, &n);
        else if (nn_chance(r, 2))
            nn_input(&c, true, 2, row);
        else if (nn_chance(r, 2))
            nn_input(&c, true, 1, &one);
        nn_node(&c, "Gemm", 1);
        nn_set_int(&c, "transA", ta);
        nn_set_int(&c, "transB", tb);
        if (fixed && nn_chance(r, 2))
            nn_set_float(&c, "alpha", 0.75f);
        if (nn_chance(r, 3))
            nn_set_float(&c, "beta", 1.25f);
        nn_random_epilogue(&c, true);
        nn_check(&c, (nn_bound){NN_SUM, (double)k + 4, 0});
        nn_end(&c);
    }
}

static void test_matmul(void **state)
{
    rng *r = *state;
    for (int i = 0; i < 2 * ROUNDS; i++) {
        nn_case c;
        const int a_rank = (int)nn_between(r, 1, 4), b_rank = (int)nn_between(r, 1, 4);
        int64_t batch[2] = {nn_between(r, 1, 3), nn_between(r, 1, 3)}, a[4], b[4];
        const int64_t m = nn_chance(r, 3) ? 1 : nn_between(r, 1, 12), k = nn_between(r, 1, 70);
        const int64_t n = nn_between(r, 1, 70);
        for (int d = 0; d < a_rank - 2; d++) /* a batch dim may be 1 on one side */
            a[d] = nn_chance(r, 4) ? 1 : batch[2 - (a_rank - 2) + d];
        for (int d = 0; d < b_rank - 2; d++)
            b[d] = nn_chance(r, 4) ? 1 : batch[2 - (b_rank - 2) + d];
        if (a_rank > 1)
            a[a_rank - 2] = m;
        a[a_rank - 1] = k;
        if (b_rank > 1)
            b[b_rank - 1] = n;
        b[b_rank > 1 ? b_rank - 2 : 0] = k;
        nn_begin(&c, r, false);
        nn_input(&c, false, a_rank, a);
        nn_input(&c, nn_chance(r, 2), b_rank, b);
        nn_node(&c, "MatMul", 1);
        nn_random_epilogue(&c, true);
        nn_check(&c, (nn_bound){NN_SUM, (double)k + 2, 0});
        nn_end(&c);
    }
}

/* --- pools, reductions, softmax --------------------------------------------------------------- */
static void test_pools(void **state)
{
    rng *r = *state;
    for (int i = 0; i < 2 * ROUNDS; i++) {
        nn_case c;
        const bool max = nn_chance(r, 2);
        const int n = (int)nn_between(r, 1, 2);
        int64_t dims[4] = {nn_between(r, 1, 2), nn_between(r, 1, 40)};
        int64_t kernel[2], strides[2], pads[4];
        double taps = 1;
        for (int k = 0; k < n; k++) {
            kernel[k] = nn_between(r, 1, 4);
            strides[k] = nn_between(r, 1, 3);
            pads[k] = nn_between(r, 0, kernel[k] - 1);
            pads[n + k] = nn_between(r, 0, kernel[k] - 1);
            dims[2 + k] = kernel[k] + nn_between(r, 0, 12);
            taps *= (double)kernel[k];
        }
        nn_begin(&c, r, true);
        nn_input(&c, false, n + 2, dims);
        nn_node(&c, max ? "MaxPool" : "AveragePool", 1);
        nn_set_ints(&c, "kernel_shape", n, kernel);
        nn_set_ints(&c, "strides", n, strides);
        nn_set_ints(&c, "pads", 2 * n, pads);
        nn_set_int(&c, "ceil_mode", nn_chance(r, 3));
        if (!max)
            nn_set_int(&c, "count_include_pad", nn_chance(r, 2));
        nn_random_epilogue(&c, false);
        nn_check(&c, max ? exact : (nn_bound){NN_SUM, taps, 0});
        nn_end(&c);
    }
}

static void reduce_case(rng *r, const char *op, unsigned axes, bool channels_last, bool keep)
{
    nn_case c;
    int64_t list[4];
    int n = 0;
    const int64_t dims[4] = {nn_between(r, 1, 2), nn_between(r, 1, 40), nn_between(r, 1, 9),
                             nn_between(r, 1, 9)};
    double terms = 1;
    for (int d = 0; d < 4; d++) {
        if (axes >> d & 1) {
            list[n++] = nn_chance(r, 2) ? d : d - 4;
            terms *= (double)dims[d];
        }
    }
    nn_begin(&c, r, channels_last);
    nn_input(&c, false, 4, dims);
    if (strcmp(op, "ReduceSum") == 0)
        nn_ints_input(&c, n, list);
    nn_node(&c, op, 1);
    if (strncmp(op, "Reduce", 6) == 0) {
        nn_set_int(&c, "keepdims", keep);
        if (strcmp(op, "ReduceSum") != 0)
            nn_set_ints(&c, "axes", n, list);
    }
    c.opset = 17; /* axes became an input in 18 (ReduceSum: 13) */
    nn_check(&c, strstr(op, "Max") ? exact : (nn_bound){NN_SUM, terms, 0});
    nn_end(&c);
}

static void test_reduce(void **state)
{
    static const char *const ops[] = {"ReduceMean", "ReduceSum", "ReduceMax", "GlobalAveragePool",
                                      "GlobalMaxPool"};
    rng *r = *state;
    for (int i = 0; i < ROUNDS; i++) {
        for (int k = 0; k < 5; k++) {
            const unsigned spatial = 1u << 2 | 1u << 3;
            reduce_case(r, ops[k], spatial, nn_chance(r, 2), true);
            if (k < 3) {
                reduce_case(r, ops[k], spatial, false, nn_chance(r, 2));
                reduce_case(r, ops[k], 1u << 1, true, true);
                reduce_case(r, ops[k], 1u << 3, false, nn_chance(r, 2));
                reduce_case(r, ops[k], 1u << 1, false, nn_chance(r, 2));
                reduce_case(r, ops[k], 15u, nn_chance(r, 2), true);
            }
        }
    }
}

static void test_softmax(void **state)
{
    rng *r = *state;
    for (int i = 0; i < ROUNDS; i++) {
        nn_case c;
        const int64_t dims[4] = {nn_between(r, 1, 3), nn_chance(r, 2) ? 2 : nn_between(r, 1, 60),
                                 nn_between(r, 1, 6), nn_between(r, 1, 40)};
        const int rank = (int)nn_between(r, 1, 4), axis = (int)nn_between(r, 0, rank - 1);
        nn_begin(&c, r, nn_chance(r, 2));
        nn_input(&c, false, rank, dims);
        nn_node(&c, "Softmax", 1);
        nn_set_int(&c, "axis", nn_chance(r, 2) ? axis : axis - rank);
        /* e^x carries 2 eps |x - max| of the difference; |x| stays below 6 here */
        nn_check(&c, (nn_bound){NN_RELATIVE, (double)dims[axis] + 24 + 8, 0});
        nn_end(&c);
    }
}

/* --- what has no row, and failures ------------------------------------------------------------ */
static void test_unsupported(void **state)
{
    nn_case c;
    const int64_t dims[4] = {1, 2, 4, 4}, kernel[2] = {2, 2};
    nn_begin(&c, *state, true); /* Indices */
    nn_input(&c, false, 4, dims);
    nn_node(&c, "MaxPool", 2);
    nn_set_ints(&c, "kernel_shape", 2, kernel);
    nn_check_status(&c, RUNG_EUNSUPPORTED);
    nn_end(&c);

    nn_begin(&c, *state, false);
    nn_input(&c, false, 4, dims);
    nn_node(&c, "Floor", 1);
    nn_check_status(&c, RUNG_EUNSUPPORTED);
    nn_end(&c);
}

static void test_memory(void **state)
{
    nn_case c;
    const int64_t x[4] = {1, 8, 6, 6}, w[4] = {4, 8, 3, 3}, d[4] = {8, 1, 3, 3}, m[2] = {288, 5};
    nn_begin(&c, *state, true);
    nn_input(&c, false, 4, x);
    nn_input(&c, true, 4, w);
    nn_node(&c, "Conv", 1);
    nn_check_memory(&c);
    nn_end(&c);

    nn_begin(&c, *state, true);
    nn_input(&c, false, 4, x);
    nn_input(&c, true, 4, d);
    nn_node(&c, "Conv", 1);
    nn_set_int(&c, "group", 8);
    nn_check_memory(&c);
    nn_end(&c);

    nn_begin(&c, *state, false);
    const int64_t row[2] = {1, 288};
    nn_input(&c, false, 2, row);
    nn_input(&c, true, 2, m);
    nn_node(&c, "Gemm", 1);
    nn_set_float(&c, "alpha", 2.0f);
    nn_check_memory(&c);
    nn_end(&c);

    nn_begin(&c, *state, true);
    nn_input(&c, false, 4, x);
    nn_input(&c, true, 4, x);
    nn_node(&c, "Add", 1);
    nn_check_memory(&c);
    nn_end(&c);
}

/* Everything that goes through the vector loops, for each instruction set that the machine has. */
static void test_isa(void **state)
{
    static const unsigned masks[] = {0, CPU_AVX2, ~0u};
    for (size_t i = 0; i < sizeof masks / sizeof *masks; i++) {
        cpu_force(masks[i]);
        test_conv(state);
        test_gemm(state);
        test_pools(state);
        test_reduce(state);
        test_softmax(state);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_isa),
        cmocka_unit_test(test_conv_transpose),
        cmocka_unit_test(test_matmul),
        cmocka_unit_test(test_unsupported),
        cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, nn_seed, NULL);
}
