/* The fast float32 rows that work element by element, and the movers of ops on float32, against the
 * plain evaluation of the operators: random shapes and attributes, both layouts, one and two
 * threads. */
#include "nn_case.h"

#include <math.h>
#include <string.h>

#include "base/cpu.h"
#include "unit.h"

#define ROUNDS 60

static const nn_bound exact = {NN_EXACT, 0, 0};

/* --- elementwise ------------------------------------------------------------------------------ */
static void test_unary(void **state)
{
    static const struct {
        const char *op;
        nn_bound    bound;
    } ops[] = {
        {"Abs", {NN_EXACT, 0, 0}},         {"Neg", {NN_EXACT, 0, 0}},
        {"Relu", {NN_EXACT, 0, 0}},        {"Sqrt", {NN_EXACT, 0, 0}},
        {"LeakyRelu", {NN_EXACT, 0, 0}},   {"Exp", {NN_RELATIVE, 8, 0}},
        {"Sigmoid", {NN_RELATIVE, 8, 0}},  {"Tanh", {NN_RELATIVE, 8, 0}},
        {"Elu", {NN_RELATIVE, 8, 0}},      {"HardSwish", {NN_RELATIVE, 4, 1}},
        {"HardSigmoid", {NN_RELATIVE, 4, 1}}, {"Erf", {NN_RELATIVE, 8, 0}},
    };
    rng *r = *state;
    for (size_t k = 0; k < sizeof ops / sizeof *ops; k++) {
        for (int i = 0; i < ROUNDS / 4; i++) {
            nn_case c;
            const int64_t dims[4] = {nn_between(r, 1, 2), nn_between(r, 1, 9), nn_between(r, 1, 9),
                                     nn_between(r, 1, 30)};
            const float scale = i % 3 == 0 ? 0.05f : i % 3 == 1 ? 3.0f : 40.0f;
            nn_begin(&c, r, nn_chance(r, 2));
            nn_input(&c, false, 4, dims);
            float *x = c.in[0].data;
            for (size_t e = 0; e < tensor_count(&c.in[0]); e++)
                x[e] = (strcmp(ops[k].op, "Sqrt") == 0 ? fabsf(x[e]) : x[e]) * scale;
            nn_node(&c, ops[k].op, 1);
            if (strcmp(ops[k].op, "LeakyRelu") == 0 || strcmp(ops[k].op, "Elu") == 0)
                nn_set_float(&c, "alpha", 0.3f);
            nn_random_epilogue(&c, false);
            nn_check(&c, ops[k].bound);
            nn_end(&c);
        }
    }
}

static void test_square(void **state)
{
    rng *r = *state;
    for (int i = 0; i < ROUNDS / 4; i++) {
        nn_case c;
        const int64_t dims[3] = {1, nn_between(r, 1, 40), nn_between(r, 1, 40)};
        const float two = 2;
        nn_begin(&c, r, nn_chance(r, 2));
        nn_input(&c, false, 3, dims);
        nn_floats_input(&c, 1, &two);
        nn_node(&c, "Pow", 1);
        nn_random_epilogue(&c, false);
        nn_check(&c, exact);
        nn_end(&c);
    }
}

static void test_clip(void **state)
{
    rng *r = *state;
    for (int i = 0; i < ROUNDS; i++) {
        nn_case c;
        const int64_t dims[3] = {1, nn_between(r, 1, 40), nn_between(r, 1, 40)};
        const float lo = -0.5f, hi = 0.75f;
        nn_begin(&c, r, nn_chance(r, 2));
        nn_input(&c, false, 3, dims);
        if (nn_chance(r, 4))
            nn_absent(&c);
        else
            nn_floats_input(&c, 1, &lo);
        if (nn_chance(r, 2))
            nn_floats_input(&c, 1, &hi);
        nn_node(&c, "Clip", 1);
        nn_check(&c, exact);
        nn_end(&c);
    }
}

static void test_binary(void **state)
{
    static const char *const ops[] = {"Add", "Sub", "Mul", "Div", "Min", "Max", "PRelu"};
    rng *r = *state;
    for (int i = 0; i < 4 * ROUNDS; i++) {
        nn_case c;
        const int op = i % 7;
        const int64_t full[4] = {nn_between(r, 1, 3), nn_between(r, 1, 40), nn_between(r, 1, 9),
                                 nn_between(r, 1, 9)};
        int64_t part[4];
        const int drop = (int)rng_below(r, 5); /* leading dims that the small operand lacks */
        const bool fixed = drop > 0 ? true : nn_chance(r, 2), swap = op != 6 && nn_chance(r, 3);
        for (int d = 0; d < 4; d++)
            part[d] = nn_chance(r, 2) ? 1 : full[d];
        nn_begin(&c, r, nn_chance(r, 2));
        if (!swap)
            nn_input(&c, false, 4, full);
        nn_input(&c, fixed, 4 - drop, part + drop);
        if (swap)
            nn_input(&c, false, 4, full);
        nn_node(&c, ops[op], 1);
        nn_random_epilogue(&c, false);
        nn_check(&c, exact);
        nn_end(&c);
    }
}

/* --- movement --------------------------------------------------------------------------------- */
static void random_dims(rng *r, int64_t dims[4])
{
    for (int d = 0; d < 4; d++)
        dims[d] = nn_between(r, 1, d == 1 ? 20 : 8);
}

static void test_concat_split(void **state)
{
    rng *r = *state;
    for (int i = 0; i < ROUNDS; i++) {
        nn_case c;
        int64_t dims[4], sizes[3];
        const int axis = (int)rng_below(r, 4);
        random_dims(r, dims);
        nn_begin(&c, r, nn_chance(r, 2));
        for (int k = 0; k < 3; k++) {
            dims[axis] = sizes[k] = nn_between(r, 1, 9);
            nn_input(&c, k > 0 && nn_chance(r, 4), 4, dims);
        }
        nn_node(&c, "Concat", 1);
        nn_set_int(&c, "axis", axis - 4);
        nn_check(&c, exact);
        nn_end(&c);

        nn_begin(&c, r, nn_chance(r, 2));
        dims[axis] = sizes[0] + sizes[1] + sizes[2];
        nn_input(&c, false, 4, dims);
        nn_ints_input(&c, 3, sizes);
        nn_node(&c, "Split", 3);
        nn_set_int(&c, "axis", axis);
        nn_check(&c, exact);
        nn_end(&c);
    }
}

static void test_slice(void **state)
{
    rng *r = *state;
    for (int i = 0; i < 2 * ROUNDS; i++) {
        nn_case c;
        int64_t dims[4], starts[2], ends[2], axes[2], steps[2];
        random_dims(r, dims);
        for (int k = 0; k < 2; k++) {
            axes[k] = k == 0 ? nn_between(r, 0, 1) : nn_between(r, 2, 3);
            const int64_t d = dims[axes[k]];
            starts[k] = nn_between(r, 0, d - 1);
            ends[k] = starts[k] + nn_between(r, 1, d);
            steps[k] = nn_between(r, 1, 3);
            if (nn_chance(r, 3)) { /* backwards, to the beginning */
                steps[k] = -steps[k];
                ends[k] = INT64_MIN;
            } else if (nn_chance(r, 3)) {
                ends[k] = INT64_MAX;
            }
            if (nn_chance(r, 3))
                starts[k] -= d;
            if (nn_chance(r, 3))
                axes[k] -= 4;
        }
        nn_begin(&c, r, nn_chance(r, 2));
        nn_input(&c, false, 4, dims);
        nn_ints_input(&c, 2, starts);
        nn_ints_input(&c, 2, ends);
        nn_ints_input(&c, 2, axes);
        nn_ints_input(&c, 2, steps);
        nn_node(&c, "Slice", 1);
        nn_check(&c, exact);
        nn_end(&c);
    }
}

static void test_pad(void **state)
{
    rng *r = *state;
    for (int i = 0; i < ROUNDS; i++) {
        nn_case c;
        int64_t dims[4], pads[8];
        const float fill = nn_chance(r, 2) ? 0.0f : -3.5f;
        random_dims(r, dims);
        for (int k = 0; k < 8; k++) {
            pads[k] = nn_between(r, 0, 2);
            if (k < 4 && dims[k] > 2 && nn_chance(r, 4))
                pads[k] = -1;
        }
        nn_begin(&c, r, nn_chance(r, 2));
        nn_input(&c, false, 4, dims);
        nn_ints_input(&c, 8, pads);
        if (nn_chance(r, 2))
            nn_floats_input(&c, 1, &fill);
        nn_node(&c, "Pad", 1);
        nn_check(&c, exact);
        nn_end(&c);
    }
}

static void test_transpose(void **state)
{
    rng *r = *state;
    for (int i = 0; i < ROUNDS; i++) {
        nn_case c;
        int64_t dims[4], perm[4] = {0, 1, 2, 3};
        random_dims(r, dims);
        for (int k = 3; k > 0; k--) {
            const int other = (int)rng_below(r, (uint64_t)k + 1);
            const int64_t kept = perm[k];
            perm[k] = perm[other];
            perm[other] = kept;
        }
        nn_begin(&c, r, nn_chance(r, 2));
        nn_input(&c, false, 4, dims);
        nn_node(&c, "Transpose", 1);
        if (!nn_chance(r, 4))
            nn_set_ints(&c, "perm", 4, perm);
        nn_check(&c, exact);
        nn_end(&c);
    }
}

static void test_depth_space(void **state)
{
    rng *r = *state;
    for (int i = 0; i < ROUNDS; i++) {
        nn_case c;
        int64_t dims[4];
        const int64_t b = nn_between(r, 1, 3);
        const bool to_space = nn_chance(r, 2);
        random_dims(r, dims);
        for (int d = to_space ? 1 : 2; d < (to_space ? 2 : 4); d++)
            dims[d] *= to_space ? b * b : b;
        nn_begin(&c, r, nn_chance(r, 2));
        nn_input(&c, false, 4, dims);
        nn_node(&c, to_space ? "DepthToSpace" : "SpaceToDepth", 1);
        nn_set_int(&c, "blocksize", b);
        if (to_space && nn_chance(r, 2))
            nn_set_string(&c, "mode", "CRD");
        nn_check(&c, exact);
        nn_end(&c);
    }
}

static void test_reshape(void **state)
{
    rng *r = *state;
    for (int i = 0; i < ROUNDS; i++) {
        nn_case c;
        int64_t dims[4];
        random_dims(r, dims);
        nn_begin(&c, r, false); /* views take plain tensors only */
        nn_input(&c, false, 4, dims);
        nn_node(&c, "Flatten", 1);
        nn_check(&c, exact);
        nn_end(&c);
    }
}

static void test_resize(void **state)
{
    static const char *const where[] = {"half_pixel", "pytorch_half_pixel", "half_pixel_symmetric",
                                        "align_corners", "asymmetric"};
    static const char *const rounds[] = {"round_prefer_floor", "round_prefer_ceil", "floor",
                                         "ceil"};
    rng *r = *state;
    for (int i = 0; i < 2 * ROUNDS; i++) {
        nn_case c;
        int64_t dims[4], sizes[4];
        const bool linear = nn_chance(r, 2), by_scale = nn_chance(r, 2);
        const float scales[4] = {1, 1, nn_chance(r, 2) ? 1.7f : 0.6f,
                                 nn_chance(r, 2) ? 4.0f : 2.0f};
        random_dims(r, dims);
        dims[2] += 2;
        for (int d = 0; d < 4; d++)
            sizes[d] = d < 2 ? dims[d] : nn_between(r, 1, 20);
        nn_begin(&c, r, true);
        nn_input(&c, false, 4, dims);
        nn_absent(&c);
        if (by_scale) {
            nn_floats_input(&c, 4, scales);
        } else {
            nn_absent(&c);
            nn_ints_input(&c, 4, sizes);
        }
        nn_node(&c, "Resize", 1);
        nn_set_string(&c, "mode", linear ? "linear" : "nearest");
        nn_set_string(&c, "coordinate_transformation_mode", where[rng_below(r, 5)]);
        if (!linear)
            nn_set_string(&c, "nearest_mode", rounds[rng_below(r, 4)]);
        nn_check(&c, linear ? (nn_bound){NN_SUM, 4, 0} : exact);
        nn_end(&c);
    }
}

/* Everything that goes through the vector loops, for each instruction set that the machine has. */
static void test_isa(void **state)
{
    static const unsigned masks[] = {0, CPU_AVX2, ~0u};
    for (size_t i = 0; i < sizeof masks / sizeof *masks; i++) {
        cpu_force(masks[i]);
        test_unary(state);
        test_square(state);
        test_clip(state);
        test_binary(state);
        test_resize(state);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_isa),
        cmocka_unit_test(test_concat_split),
        cmocka_unit_test(test_slice),
        cmocka_unit_test(test_pad),
        cmocka_unit_test(test_transpose),
        cmocka_unit_test(test_depth_space),
        cmocka_unit_test(test_reshape),
    };
    return cmocka_run_group_tests(tests, nn_seed, NULL);
}
