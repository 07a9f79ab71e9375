/* Every row of the elementwise tables against the first. */
#include "check.h"

#include <math.h>
#include <string.h>

#include "kernels/kernels.h"

static size_t random_length(void)
{
    return one_in(2) ? below(70) : below(700);
}

/* signs: one of the operands' scales may be negative, as in Sub. */
static binary_q random_binary(bool signs)
{
    binary_q q = {.a_scale = spread(1e-4f, 10), .b_scale = spread(1e-4f, 10)};
    q.y_scale = (one_in(2) ? q.a_scale : q.b_scale) * spread(0.05f, 4);
    if (signs && one_in(2))
        *(one_in(4) ? &q.a_scale : &q.b_scale) *= -1;
    q.a_zero = between(0, 255);
    q.b_zero = between(0, 255);
    q.y_zero = between(0, 255);
    random_clamp(&q.lo, &q.hi);
    return q;
}

static void check_binary(const char *table, const binary_kernel *rows)
{
    for (const binary_kernel *k = rows + 1; k->name; k++) {
        if (!row_begins(table, k->name, k->needs))
            continue;
        for (int i = 0; i < current.cases; i++) {
            const size_t n = random_length();
            const int b_step = one_in(4) ? 0 : 1;
            const binary_q q = random_binary(rows == add_u8);
            guarded a = guarded_new(n, AT_END), b = guarded_new(b_step ? n : 1, AT_END);
            guarded want = guarded_new(n, AT_END), y = guarded_new(n, AT_END);
            fill_u8(a.data, n);
            fill_u8(b.data, b.size);
            rows->run(a.data, b.data, b_step, n, &q, want.data);
            k->run(a.data, b.data, b_step, n, &q, y.data);
            expect_same(want.data, y.data, n, "apart");
            memcpy(y.data, a.data, n);
            k->run(y.data, b.data, b_step, n, &q, y.data);
            expect_same(want.data, y.data, n, "over a");
            if (b_step) {
                k->run(a.data, b.data, b_step, n, &q, b.data);
                expect_same(want.data, b.data, n, "over b");
            }
            guarded_check(&y, "output");
            guarded_free(&a), guarded_free(&b), guarded_free(&want), guarded_free(&y);
        }
        row_ends();
    }
}

static void check_table(void)
{
    for (const table_kernel *k = table_u8; k->name; k++) {
        if (!row_begins("table_u8", k->name, k->needs))
            continue;
        for (int i = 0; i < current.cases; i++) {
            const size_t n = random_length();
            guarded table = guarded_new(256, AT_END), x = guarded_new(n, AT_END);
            guarded want = guarded_new(n, AT_END);
            fill_u8(table.data, 256);
            fill_u8(x.data, n);
            for (size_t j = 0; j < n; j++)
                want.data[j] = table.data[x.data[j]];
            k->run(x.data, n, table.data, x.data); /* in place */
            expect_same(want.data, x.data, n, "in place");
            guarded_check(&x, "output");
            guarded_free(&table), guarded_free(&x), guarded_free(&want);
        }
        row_ends();
    }
}

/* Values on and beside the rounding points, far outside, and no numbers at all. */
static void fill_f32(float *x, size_t n, float scale)
{
    static const float odd[] = {INFINITY, -INFINITY, NAN, -0.0f, 1e-44f, 3e38f, -3e38f, 2.2e9f};
    for (size_t i = 0; i < n; i++) {
        const int steps = between(-300, 300);
        x[i] = (float)(rng_normal(&current.random) * 100 * scale);
        if (one_in(3))
            x[i] = ((float)steps + 0.5f) * scale;
        if (one_in(6))
            x[i] = nextafterf(x[i], one_in(2) ? INFINITY : -INFINITY);
        if (one_in(30))
            x[i] = odd[below(sizeof odd / sizeof odd[0])];
    }
}

static void check_quantize(void)
{
    for (const quantize_kernel *k = quantize_u8 + 1; k->name; k++) {
        if (!row_begins("quantize_u8", k->name, k->needs))
            continue;
        for (int i = 0; i < current.cases; i++) {
            const size_t n = random_length();
            const float scale = spread(1e-6f, 1e3f);
            const int zero = between(0, 255);
            int lo, hi;
            guarded x = guarded_new(n * sizeof(float), AT_END);
            guarded want = guarded_new(n, AT_END), y = guarded_new(n, AT_END);
            random_clamp(&lo, &hi);
            fill_f32((float *)x.data, n, scale);
            quantize_u8->run((const float *)x.data, n, scale, zero, lo, hi, want.data);
            k->run((const float *)x.data, n, scale, zero, lo, hi, y.data);
            expect_same(want.data, y.data, n, "quantize");
            guarded_check(&y, "output");
            guarded_free(&x), guarded_free(&want), guarded_free(&y);
        }
        row_ends();
    }
}

static void check_quantize_planes(void)
{
    for (const quantize_planes_kernel *k = quantize_planes_u8; k->name; k++) {
        if (!row_begins("quantize_planes_u8", k->name, k->needs))
            continue;
        for (int i = 0; i < current.cases; i++) {
            const size_t n = random_length(), plane = n + below(5);
            const int channels = between(1, 4), zero = between(0, 255);
            const size_t n_x = plane * (channels - 1) + n;
            const float scale = spread(1e-6f, 1e3f);
            int lo, hi;
            guarded x = guarded_new(n_x * sizeof(float), AT_END);
            guarded want = guarded_new(n_x, AT_END), turned = guarded_new(n * channels, AT_END);
            guarded y = guarded_new(n * channels, AT_END);
            random_clamp(&lo, &hi);
            fill_f32((float *)x.data, n_x, scale);
            quantize_u8->run((const float *)x.data, n_x, scale, zero, lo, hi, want.data);
            for (size_t j = 0; j < n * channels; j++)
                turned.data[j] = want.data[j % channels * plane + j / channels];
            k->run((const float *)x.data, plane, n, channels, scale, zero, lo, hi, y.data);
            expect_same(turned.data, y.data, n * channels, "quantize planes");
            guarded_check(&y, "output");
            guarded_free(&x), guarded_free(&want), guarded_free(&turned), guarded_free(&y);
        }
        row_ends();
    }
}

static void check_dequantize(void)
{
    for (const dequantize_kernel *k = dequantize_u8 + 1; k->name; k++) {
        if (!row_begins("dequantize_u8", k->name, k->needs))
            continue;
        for (int i = 0; i < current.cases; i++) {
            const size_t n = random_length();
            const float scale = spread(1e-6f, 1e3f);
            const int zero = between(0, 255);
            guarded x = guarded_new(n, AT_END);
            guarded want = guarded_new(n * 4, AT_END), y = guarded_new(n * 4, AT_END);
            fill_u8(x.data, n);
            dequantize_u8->run(x.data, n, scale, zero, (float *)want.data);
            k->run(x.data, n, scale, zero, (float *)y.data);
            expect_same(want.data, y.data, n * 4, "dequantize");
            guarded_check(&y, "output");
            guarded_free(&x), guarded_free(&want), guarded_free(&y);
        }
        row_ends();
    }
}

/* The plain-C rows against the formulas of docs/arithmetic.md in double, where no rounding of
 * float32 can matter: half a step and the error of three float32 operations. */
static void check_definitions(void)
{
    row_begins("add_u8, mul_u8, quantize_u8", "definition", 0);
    for (int i = 0; i < current.cases * 20; i++) {
        const binary_q q = random_binary(false);
        binary_q sub = q;
        sub.b_scale *= -1;
        const uint8_t a = (uint8_t)between(0, 255), b = (uint8_t)between(0, 255);
        const double ra = (double)q.a_scale * (a - q.a_zero),
                     rb = (double)q.b_scale * (b - q.b_zero);
        static const char *const names[] = {"mul", "add", "sub"};
        uint8_t y[3];
        mul_u8[0].run(&a, &b, 1, 1, &q, &y[0]);
        add_u8[0].run(&a, &b, 1, 1, &q, &y[1]);
        add_u8[0].run(&a, &b, 1, 1, &sub, &y[2]);
        const double real[3] = {ra * rb / q.y_scale + q.y_zero, (ra + rb) / q.y_scale + q.y_zero,
                                (ra - rb) / q.y_scale + q.y_zero};
        const double size = (255 * (double)q.a_scale + 255 * (double)q.b_scale) / q.y_scale + 255;
        for (int j = 0; j < 3; j++) {
            const double v = real[j] < q.lo ? q.lo : real[j] > q.hi ? q.hi : real[j];
            const double slack = 0.5 + 6e-7 * (j > 0 ? size : fabs(v) + 1);
            expect(fabs(v - y[j]) <= slack, "%s: %g became %d", names[j], v, y[j]);
        }
        uint8_t back;
        const float x = (float)(a - q.a_zero) * q.a_scale;
        quantize_u8[0].run(&x, 1, q.a_scale, q.a_zero, 0, 255, &back);
        expect(back == a, "quantize(dequantize(%d)) is %d", a, back);
    }
    row_ends();
}

static double square(double x, const void *ctx)
{
    return x * x * *(const double *)ctx;
}

static void check_table_make(void)
{
    row_begins("table_make", "definition", 0);
    for (int i = 0; i < current.cases; i++) {
        const float xs = spread(1e-3f, 1), ys = spread(1e-3f, 1);
        const int xz = between(0, 255), yz = between(0, 255);
        const double factor = 0.25;
        uint8_t table[256];
        table_make(square, &factor, xs, xz, ys, yz, 10, 240, table);
        for (int q = 0; q < 256; q++) {
            const double x = (double)((float)(q - xz) * xs);
            double v = (double)(float)(x * x * factor) / ys + yz;
            v = v < 10 ? 10 : v > 240 ? 240 : v;
            expect(fabs(v - table[q]) <= 0.5 + 1e-4, "entry %d: %g became %d", q, v, table[q]);
        }
    }
    row_ends();
}

void check_elementwise(void)
{
    check_binary("add_u8", add_u8);
    check_binary("mul_u8", mul_u8);
    check_table();
    check_quantize();
    check_quantize_planes();
    check_dequantize();
    check_definitions();
    check_table_make();
}
