/* Every row of the products with float32 results, and of the ranges, against the first. */
#include "check.h"

#include <math.h>
#include <string.h>

#include "kernels/kernels.h"

static void fill_floats(float *x, size_t n, float lo, float hi)
{
    for (size_t i = 0; i < n; i++)
        x[i] = (one_in(2) ? 1 : -1) * spread(lo, hi);
}

static product_shape random_product(void)
{
    product_shape s = {.rows = 1 + below(one_in(4) ? 200 : 20),
                       .k = between(1, one_in(3) ? 300 : 40),
                       .n = between(1, one_in(3) ? 200 : 70)};
    s.x_stride = (size_t)s.k + below(3);
    s.y_stride = (size_t)s.n + below(3);
    return s;
}

/* The row with its work split over several threads, one after the other. */
static void run_all(const product_kernel *k, const product_shape *s, const int8_t *w,
                    const uint8_t *x, const product_q *q, guarded *y)
{
    const int n_threads = between(1, 4);
    guarded packed = guarded_new(k->packed_size(s->k, s->n), AT_START);
    guarded scratch = guarded_new(k->scratch_size(s->k), AT_START);
    k->pack(s->k, s->n, w, packed.data);
    for (int t = 0; t < n_threads; t++)
        k->run(s, packed.data, x, q, (float *)(void *)y->data, scratch.data, t, n_threads);
    guarded_check(&packed, "packed"), guarded_check(&scratch, "scratch");
    guarded_free(&packed), guarded_free(&scratch);
}

static void check_case(const product_kernel *k)
{
    const product_shape s = random_product();
    const size_t n = (size_t)s.n, x_bytes = (s.rows - 1) * s.x_stride + (size_t)s.k;
    const size_t y_bytes = ((s.rows - 1) * s.y_stride + n) * sizeof(float);
    guarded w = guarded_new(n * (size_t)s.k, AT_END), x = guarded_new(x_bytes, AT_END);
    guarded scale = guarded_new(n * sizeof(float), AT_END);
    guarded bias = guarded_new(n * sizeof(float), AT_END);
    guarded want = guarded_new(y_bytes, AT_END), got = guarded_new(y_bytes, AT_END);
    fill_s8((int8_t *)w.data, w.size);
    fill_u8(x.data, x_bytes);
    fill_floats((float *)(void *)scale.data, n, 1e-5f, 1);
    fill_floats((float *)(void *)bias.data, n, 1e-3f, 100);
    memset(want.data, 0, y_bytes); /* between the rows nothing is written */
    memset(got.data, 0, y_bytes);
    const product_q q = {.x_scale = spread(1e-5f, 10), .x_zero = between(0, 255),
                         .w_scale = (const float *)(const void *)scale.data,
                         .bias = one_in(3) ? NULL : (const float *)(const void *)bias.data};
    run_all(product_u8s8, &s, (const int8_t *)w.data, x.data, &q, &want);
    run_all(k, &s, (const int8_t *)w.data, x.data, &q, &got);
    expect_same(want.data, got.data, y_bytes, "product");
    guarded_check(&got, "output");
    guarded_free(&w), guarded_free(&x), guarded_free(&scale), guarded_free(&bias);
    guarded_free(&want), guarded_free(&got);
}

/* The range of what is not NaN, by another way than the reference's. */
static void check_range(const range_kernel *k)
{
    const size_t n = below(one_in(2) ? 20 : 300);
    guarded g = guarded_new(n * sizeof(float), AT_END);
    float *x = (float *)(void *)g.data, lo, hi, least = 0, most = 0;
    fill_floats(x, n, 1e-3f, 1e3f);
    for (size_t i = 0; i < n; i++) {
        x[i] = one_in(9) ? NAN : one_in(40) ? INFINITY : one_in(40) ? -INFINITY : x[i];
        least = fminf(least, x[i]);
        most = fmaxf(most, x[i]);
    }
    k->run(x, n, &lo, &hi);
    expect(lo == least && hi == most, "range [%g, %g] is not [%g, %g]", lo, hi, least, most);
    guarded_free(&g);
}

void check_product(void)
{
    for (const product_kernel *k = product_u8s8; k->name; k++) {
        if (!row_begins("product_u8s8", k->name, k->needs))
            continue;
        for (int i = 0; i < current.cases; i++)
            check_case(k);
        row_ends();
    }
    for (const range_kernel *k = range_f32; k->name; k++) {
        if (!row_begins("range_f32", k->name, k->needs))
            continue;
        for (int i = 0; i < current.cases; i++)
            check_range(k);
        row_ends();
    }
}
