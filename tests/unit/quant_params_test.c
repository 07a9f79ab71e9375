/* Scales, zero points, weights and biases. */
#include <float.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>

#include "unit.h"

#include "base/rng.h"
#include "quant/quant.h"

static const dtype types[] = { RUNG_U8, RUNG_I8 };

static int code_of(const qparams *p, float x)
{
    const uint8_t q = qparams_quantize(p, x);
    return p->type == RUNG_I8 ? (int8_t)q : q;
}

static float value_of(const qparams *p, int q)
{
    return p->scale * (float)(q - p->zero);
}

/* 0 is exact, and both ends are within half a step of what can be represented. */
static void check_params(float lo, float hi, dtype type, bool symmetric)
{
    bool repaired;
    const qparams p = qparams_from_range(lo, hi, type, 8, symmetric, &repaired);
    const int least = type == RUNG_I8 ? -128 : 0;
    assert_false(repaired);
    assert_true(p.type == type && isfinite(p.scale) && p.scale >= FLT_MIN);
    assert_in_range(p.zero - least, 0, 255);
    assert_int_equal(code_of(&p, 0), p.zero);
    assert_true(value_of(&p, code_of(&p, 0)) == 0);
    const float ends[] = { lo < 0 ? lo : 0, hi > 0 ? hi : 0 };
    for (int i = 0; i < 2; i++)
        assert_true(fabsf(value_of(&p, code_of(&p, ends[i])) - ends[i]) <= 0.501f * p.scale);
    if (symmetric)
        assert_int_equal(p.zero, type == RUNG_I8 ? 0 : 128);
}

static void params_hold_their_range(void **state)
{
    rng r;
    (void)state;
    rng_seed(&r, 1);
    for (int i = 0; i < 4000; i++) {
        const float a = rng_normal(&r) * ldexpf(1, (int)rng_below(&r, 200) - 90);
        const float b = rng_normal(&r) * ldexpf(1, (int)rng_below(&r, 200) - 90);
        check_params(fminf(a, b), fmaxf(a, b), types[i % 2], i % 4 >= 2);
    }
    check_params(-0.9f * FLT_MAX, 0.9f * FLT_MAX, RUNG_U8, false); /* hi - lo overflows */
    check_params(-0.9f * FLT_MAX, 0.9f * FLT_MAX, RUNG_I8, true);
}

/* What ONNX Runtime 1.32's compute_scale_zp gives. */
static void known_params(void **state)
{
    (void)state;
    bool repaired;
    qparams p = qparams_from_range(-1, 3, RUNG_U8, 8, false, &repaired);
    assert_true(p.scale == 4.0f / 255 && p.zero == 64);
    p = qparams_from_range(0.5f, 6, RUNG_U8, 8, false, &repaired);
    assert_true(p.scale == 6.0f / 255 && p.zero == 0);
    p = qparams_from_range(-1, 3, RUNG_I8, 8, false, &repaired);
    assert_true(p.scale == 4.0f / 255 && p.zero == -64);
    p = qparams_from_range(-1, 3, RUNG_I8, 8, true, &repaired);
    assert_true(p.scale == 3.0f / 127 && p.zero == 0);
    p = qparams_from_range(-1, 3, RUNG_U8, 8, true, &repaired);
    assert_true(p.scale == 6.0f / 255 && p.zero == 128);
}

static void narrow_ranges_are_repaired(void **state)
{
    (void)state;
    static const float ranges[][2] = { { 0, 0 }, { 0, 1e-40f }, { -1e-38f, 0 }, { NAN, NAN } };
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < 4; k++) {
            bool repaired = false;
            const qparams p = qparams_from_range(ranges[i][0], ranges[i][1], types[k % 2], 8, k > 1,
                                                 &repaired);
            assert_true(repaired && p.scale >= FLT_MIN && isfinite(p.scale));
            assert_true(value_of(&p, code_of(&p, 0)) == 0);
        }
}

static void codes_saturate_and_round_to_even(void **state)
{
    (void)state;
    const qparams u = { 0.5f, 3, RUNG_U8, 8 }, s = { 2, -1, RUNG_I8, 8 };
    assert_int_equal(code_of(&u, 0.25f), 3);
    assert_int_equal(code_of(&u, 0.75f), 5);
    assert_int_equal(code_of(&u, INFINITY), 255);
    assert_int_equal(code_of(&u, -1e30f), 0);
    assert_int_equal(code_of(&u, NAN), 3);
    assert_int_equal(code_of(&s, 1e30f), 127);
    assert_int_equal(code_of(&s, -INFINITY), -128);
    assert_int_equal(code_of(&s, -5), -3);
}

static void fewer_bits(void **state)
{
    (void)state;
    bool repaired;
    qparams p = qparams_from_range(-1, 14, RUNG_U8, 4, false, &repaired);
    assert_true(p.scale == 1 && p.zero == 1 && p.type == RUNG_U8);
    assert_int_equal(code_of(&p, 99), 15);
    assert_int_equal(code_of(&p, -99), 0);
    p = qparams_from_range(-1, 14, RUNG_I8, 4, false, &repaired);
    assert_true(p.scale == 1 && p.zero == -7);
    assert_int_equal(code_of(&p, 99), 7);
    assert_int_equal(code_of(&p, -99), -8);
    p = qparams_from_range(-7, 3, RUNG_I8, 4, true, &repaired);
    assert_true(p.scale == 1 && p.zero == 0);
    p = qparams_from_range(-3, 7.5f, RUNG_U8, 4, true, &repaired);
    assert_true(p.scale == 1 && p.zero == 8);
    p = qparams_from_range(0, 127, RUNG_U8, 7, false, &repaired); /* PyTorch's reduce_range */
    assert_true(p.scale == 1 && p.zero == 0);
}

/* --- weights ---------------------------------------------------------------------------------- */

enum { D0 = 3, D1 = 4, D2 = 5, ALL = D0 * D1 * D2 };

static int channel_of(size_t i, int axis)
{
    return axis < 0 ? 0 : (int)(axis == 0 ? i / (D1 * D2) : axis == 1 ? i / D2 % D1 : i % D2);
}

static void weights_per_channel(void **state)
{
    (void)state;
    rng r;
    float x[ALL], scales[ALL];
    int8_t q[ALL];
    tensor w = { RUNG_F32, 3, { D0, D1, D2 }, x };
    rng_seed(&r, 2);
    for (int axis = -1; axis < 3; axis++) {
        float most[ALL] = { 0 };
        for (size_t i = 0; i < ALL; i++) {
            x[i] = rng_normal(&r) * (float)(i + 1);
            most[channel_of(i, axis)] = fmaxf(most[channel_of(i, axis)], fabsf(x[i]));
        }
        assert_int_equal(weight_quantize(&w, axis, scales, q), 0);
        assert_int_equal(weight_channels(&w, axis), axis < 0 ? 1 : w.dims[axis]);
        double sums[ALL] = { 0 };
        for (size_t i = 0; i < ALL; i++) {
            const int c = channel_of(i, axis);
            assert_true(scales[c] == most[c] / 127);
            assert_int_equal(q[i], (int)nearbyintf(x[i] / scales[c]));
            assert_in_range(q[i] + 127, 0, 254);
            sums[c] += abs(q[i]);
        }
        for (size_t c = 0; c < weight_channels(&w, axis); c++)
            assert_true(weight_code_sum(&w, axis, c, scales[c]) == sums[c]);
    }
}

static void odd_weights(void **state)
{
    (void)state;
    float x[] = { 1, -2, 0, 0, NAN, 4, INFINITY, 1, 1e-42f, 0 }, scales[5];
    int8_t q[10];
    const tensor w = { RUNG_F32, 2, { 5, 2 }, x };
    assert_int_equal(weight_quantize(&w, 0, scales, q), 2);
    assert_true(scales[0] == 2.0f / 127);
    assert_true(scales[1] == 4.0f / 127); /* zeros: the tensor's largest */
    assert_true(scales[2] == 4.0f / 127 && q[4] == 0 && q[5] == 127);
    assert_true(scales[3] == 1.0f / 127 && q[6] == 0);
    assert_true(scales[4] == FLT_MIN && q[8] == 0);
    float zeros[] = { 0, 0 };
    const tensor none = { RUNG_F32, 2, { 1, 2 }, zeros };
    assert_int_equal(weight_quantize(&none, 0, scales, q), 0);
    assert_true(scales[0] == 1.0f / 127 && q[0] == 0 && q[1] == 0);
}

static void biases(void **state)
{
    (void)state;
    assert_int_equal(bias_code(2.5f, 1), 2);
    assert_int_equal(bias_code(-3.5f, 1), -4);
    assert_int_equal(bias_code(1e30f, 1e-5f), INT32_MAX);
    assert_int_equal(bias_code(-1e30f, 1e-5f), -INT32_MAX);
    assert_int_equal(bias_code(NAN, 1), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(params_hold_their_range),
        cmocka_unit_test(known_params),
        cmocka_unit_test(narrow_ranges_are_repaired),
        cmocka_unit_test(codes_saturate_and_round_to_even),
        cmocka_unit_test(fewer_bits),
        cmocka_unit_test(weights_per_channel),
        cmocka_unit_test(odd_weights),
        cmocka_unit_test(biases),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
