/* Tensors: sizes and elements of all types. */
#include "graph_kit.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "graph/pass.h"

static void sizes(void **state)
{
    assert_int_equal(dtype_bytes(RUNG_F32, 3), 12);
    assert_int_equal(dtype_bytes(RUNG_I4, 3), 2);
    assert_int_equal(dtype_bytes(RUNG_U4, 4), 2);
    assert_int_equal(dtype_bytes(RUNG_U2, 5), 2);
    assert_int_equal(dtype_bytes(RUNG_U4, SIZE_MAX), SIZE_MAX / 2 + 1);
    assert_int_equal(dtype_bytes(RUNG_COMPLEX128, 2), 32);
    assert_int_equal(dtype_bytes(RUNG_STRING, 5), 0);
    assert_int_equal(dtype_bytes((dtype)99, 5), 0);
    assert_int_equal(dtype_bytes(RUNG_F64, SIZE_MAX / 4), SIZE_MAX);
    assert_string_equal(dtype_name(RUNG_U8), "uint8");
    assert_string_equal(dtype_name((dtype)-1), "an unknown type");
    assert_true(dtype_is_float(RUNG_BF16) && !dtype_is_float(RUNG_I64));
}

static void counts(void **state)
{
    assert_int_equal(dims_count(0, NULL), 1);
    assert_int_equal(dims_count(3, DIMS(2, 3, 4)), 24);
    assert_int_equal(dims_count(2, DIMS(0, INT64_MAX)), 0);
    assert_int_equal(dims_count(2, DIMS(2, -1)), SIZE_MAX);
    assert_int_equal(dims_count(2, DIMS(INT64_MAX, 4)), SIZE_MAX);
    assert_int_equal(dims_count(-1, NULL), SIZE_MAX);
    arena *mem = arena_new();
    assert_null(tensor_new(mem, RUNG_F32, 2, DIMS(INT64_MAX, 4)));
    assert_null(tensor_new(mem, RUNG_F32, RUNG_MAX_RANK + 1, NULL));
    assert_null(tensor_new(mem, RUNG_F32, 1, DIMS(-1)));
    arena_free(mem);
}

static void elements(void **state)
{
    const uint8_t nibbles[] = { 0x8f, 0x07 }, pairs[] = { 0xe4 };
    const tensor i4 = { RUNG_I4, 1, { 3 }, (void *)nibbles };
    const tensor u4 = { RUNG_U4, 1, { 3 }, (void *)nibbles };
    const tensor u2 = { RUNG_U2, 1, { 4 }, (void *)pairs };
    const tensor i2 = { RUNG_I2, 1, { 4 }, (void *)pairs };
    const int64_t i4_is[] = { -1, -8, 7 }, u4_is[] = { 15, 8, 7 }, i2_is[] = { 0, 1, -2, -1 };
    for (int i = 0; i < 3; i++) {
        assert_int_equal(tensor_get_int(&i4, i), i4_is[i]);
        assert_int_equal(tensor_get_int(&u4, i), u4_is[i]);
    }
    for (int i = 0; i < 4; i++) {
        assert_int_equal(tensor_get_int(&u2, i), i);
        assert_int_equal(tensor_get_int(&i2, i), i2_is[i]);
    }
    const double doubles[] = { 1e300, -1e300, NAN, -2.7 };
    const tensor f64 = { RUNG_F64, 1, { 4 }, (void *)doubles };
    assert_int_equal(tensor_get_int(&f64, 0), INT64_MAX);
    assert_int_equal(tensor_get_int(&f64, 1), INT64_MIN);
    assert_int_equal(tensor_get_int(&f64, 2), 0);
    assert_int_equal(tensor_get_int(&f64, 3), -2);
    const uint64_t large = UINT64_MAX;
    const tensor u64 = { RUNG_U64, 0, { 0 }, (void *)&large };
    assert_true(tensor_get(&u64, 0) == 18446744073709551615.0);
    const int8_t byte = -5;
    const tensor i8 = { RUNG_I8, 0, { 0 }, (void *)&byte };
    assert_true(tensor_get(&i8, 0) == -5);
}

/* Every float16 is read, and written again as the same bits. */
static void halves_round_trip(void **state)
{
    graph *g = kit_graph(NULL);
    for (uint32_t h = 0; h < 65536; h += h < 0x500 || h > 0xfb00 ? 1 : 97) {
        const uint16_t bits = (uint16_t)h;
        const tensor t = { RUNG_F16, 0, { 0 }, (void *)&bits };
        const double v = tensor_get(&t, 0);
        if (isnan(v))
            continue;
        const int id = pass_add_scalar(g, "h", "", RUNG_F16, (float)v);
        assert_int_equal(*(const uint16_t *)g->values[id].constant->data, bits);
        strmap_remove(g->by_name, g->values[id].name);
    }
    graph_free(g);
}

static uint16_t half_of(float v)
{
    graph *g = kit_graph(NULL);
    const int id = pass_add_scalar(g, "h", "", RUNG_F16, v);
    const uint16_t h = *(const uint16_t *)g->values[id].constant->data;
    graph_free(g);
    return h;
}

static void halves_round_to_even(void **state)
{
    assert_int_equal(half_of(1 + 0x1p-11f), 0x3c00);           /* a tie: to even, down */
    assert_int_equal(half_of(1 + 3 * 0x1p-11f), 0x3c02);       /* a tie: to even, up */
    assert_int_equal(half_of(1 + 0x1p-11f + 0x1p-20f), 0x3c01);
    assert_int_equal(half_of(65519.99f), 0x7bff);
    assert_int_equal(half_of(65520), 0x7c00);
    assert_int_equal(half_of(-1e30f), 0xfc00);
    assert_int_equal(half_of(0x1p-25f), 0);
    assert_int_equal(half_of(0x1.8p-25f), 1);
    assert_int_equal(half_of(0x1.ffep-15f), 0x0400); /* rounds up into the normal numbers */
}

static void bfloat16(void **state)
{
    const uint16_t bits = 0xc040;
    const tensor t = { RUNG_BF16, 0, { 0 }, (void *)&bits };
    assert_true(tensor_get(&t, 0) == -3);
    assert_int_equal(tensor_get_int(&t, 0), -3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes),
        cmocka_unit_test(counts),
        cmocka_unit_test(elements),
        cmocka_unit_test(halves_round_trip),
        cmocka_unit_test(halves_round_to_even),
        cmocka_unit_test(bfloat16),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
