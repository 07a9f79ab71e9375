/* Observers against all the data kept: bins, order, merging, and the ranges chosen. */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "unit.h"

#include "base/mem.h"
#include "base/rng.h"
#include "quant/histogram.h"

enum { MANY = 200000 };

static float *normal_data(uint64_t seed, size_t n, float scale)
{
    rng r;
    float *x = malloc(n * sizeof *x);
    assert_non_null(x);
    rng_seed(&r, seed);
    for (size_t i = 0; i < n; i++)
        x[i] = scale * rng_normal(&r);
    return x;
}

static observer *see_in_pieces(const float *x, size_t n, size_t piece, int n_threads)
{
    observer *o = observer_new(true);
    assert_non_null(o);
    for (size_t at = 0; at < n; at += piece)
        observer_see(o, x + at, n - at < piece ? n - at : piece, n_threads);
    return o;
}

static void assert_same(const observer *a, const observer *b)
{
    assert_int_equal(a->seen, b->seen);
    assert_int_equal(a->not_finite, b->not_finite);
    assert_int_equal(a->exponent, b->exponent);
    assert_memory_equal(&a->lo, &b->lo, sizeof a->lo);
    assert_memory_equal(&a->hi, &b->hi, sizeof a->hi);
    assert_memory_equal(a->bins, b->bins, HIST_ZERO * sizeof *a->bins);
    assert_int_equal(a->bins[HIST_ZERO], b->bins[HIST_ZERO]);
    for (rung_range m = RUNG_RANGE_PERCENTILE; m <= RUNG_RANGE_MSE; m++) {
        const range x = observer_range(a, m, 0, 8, false), y = observer_range(b, m, 0, 8, false);
        assert_memory_equal(&x, &y, sizeof x);
    }
}

/* Every value is in the bin that its definition says. */
static void bins_hold_what_they_say(void **state)
{
    (void)state;
    float *x = normal_data(1, MANY, 3);
    for (size_t i = 0; i < MANY; i += 3)
        x[i] = 0;
    x[4] = -0.0f;
    x[5] = 0x1p-140f;
    observer *o = see_in_pieces(x, MANY, MANY, 2);
    uint64_t *bins = calloc(HIST_SLOTS, sizeof *bins);
    const double width = ldexp(1, o->exponent);
    for (size_t i = 0; i < MANY; i++) {
        const int k = (int)(fabs(x[i]) / width);
        bins[x[i] == 0 ? HIST_ZERO : x[i] < 0 ? HIST_SIDE - 1 - k : HIST_SIDE + k]++;
    }
    assert_memory_equal(bins, o->bins, (HIST_ZERO + 1) * sizeof *bins);
    /* The bins are as fine as they can be. */
    assert_true(fmaxf(-o->lo, o->hi) >= HIST_SIDE / 2 * width);
    assert_true(fmaxf(-o->lo, o->hi) < HIST_SIDE * width);
    free(bins);
    observer_free(o);
    free(x);
}

/* Growing magnitudes, falling ones, pieces of all sizes, one thread or more: the same bits. */
static void order_does_not_matter(void **state)
{
    (void)state;
    float *x = normal_data(2, MANY, 1), *y = malloc(MANY * sizeof *y);
    for (size_t i = 0; i < MANY; i++)
        x[i] *= ldexpf(1, (int)(i * 40 / MANY) - 30);
    x[7] = -0x1p-149f;
    x[8] = -0.0f;
    for (size_t i = 0; i < MANY; i++)
        y[i] = x[MANY - 1 - i];
    observer *whole = see_in_pieces(x, MANY, MANY, 1);
    static const size_t pieces[] = { 1000, 40000, 77777, MANY };
    for (int i = 0; i < 4; i++) {
        observer *o = see_in_pieces(i % 2 ? x : y, MANY, pieces[i], i + 1);
        assert_same(whole, o);
        observer_free(o);
    }
    observer_free(whole);
    free(x);
    free(y);
}

static void merged_is_seen_together(void **state)
{
    (void)state;
    for (int swap = 0; swap < 2; swap++) {
        float *x = normal_data(3, MANY, 1);
        for (size_t i = 0; i < MANY / 2; i++)
            x[i] *= swap ? 1000.0f : 1e-9f;
        observer *all = see_in_pieces(x, MANY, MANY, 1);
        observer *a = see_in_pieces(x, MANY / 2, MANY, 1), *none = observer_new(true);
        observer *b = see_in_pieces(x + MANY / 2, MANY / 2, MANY, 1);
        observer_merge(none, a);
        assert_same(none, a);
        observer_merge(a, b);
        assert_same(all, a);
        observer_free(all);
        observer_free(a);
        observer_free(b);
        observer_free(none);
        free(x);
    }
}

/* As if one observer had seen the batches of all, one after another. */
static void appended_is_seen_one_after_another(void **state)
{
    (void)state;
    enum { PIECE = 997 };
    const size_t parts[] = { 0, 3 * PIECE, 4 * PIECE, 4 * PIECE, 40 * PIECE, 61 * PIECE + 5 };
    const size_t n = parts[5];
    float *x = normal_data(8, n, 1);
    for (size_t i = 0; i < n; i++)
        x[i] *= 1 + (float)i / (float)n;
    observer *all = see_in_pieces(x, n, PIECE, 1), *joined = observer_new(true);
    for (int i = 0; i < 5; i++) {
        observer *part = observer_new(true);
        assert_non_null(part);
        assert_int_equal(observer_keep_trail(part, n / PIECE + 1, NULL), RUNG_OK);
        for (size_t at = parts[i]; at < parts[i + 1]; at += PIECE)
            observer_see(part, x + at, parts[i + 1] - at < PIECE ? parts[i + 1] - at : PIECE, 1);
        observer_append(joined, part);
        observer_free(part);
    }
    assert_same(all, joined);
    assert_memory_equal(&all->ema_lo, &joined->ema_lo, sizeof all->ema_lo);
    assert_memory_equal(&all->ema_hi, &joined->ema_hi, sizeof all->ema_hi);
    observer_free(all);
    observer_free(joined);
    free(x);
}

static void not_finite_is_counted_apart(void **state)
{
    (void)state;
    for (size_t n = 5; n <= 50000; n *= 10) {
        float *x = normal_data(4, n, 1), *clean = malloc(n * sizeof *x);
        size_t kept = 0;
        x[0] = NAN;
        x[n / 2] = INFINITY;
        x[n - 1] = -INFINITY;
        for (size_t i = 0; i < n; i++)
            if (isfinite(x[i]))
                clean[kept++] = x[i];
        observer *o = see_in_pieces(x, n, n, 2), *want = see_in_pieces(clean, kept, kept, 1);
        assert_int_equal(observer_not_finite(o), 3);
        assert_int_equal(observer_seen(o), n - 3);
        want->not_finite = 3;
        assert_same(want, o);
        observer_free(o);
        observer_free(want);
        free(x);
        free(clean);
    }
}

static void extremes(void **state)
{
    (void)state;
    const float huge[] = { FLT_MAX, -FLT_MAX, 1, 0 }, tiny[] = { 0x1p-149f, 0, -0x1p-149f };
    const float nothing[] = { NAN, NAN }, zeros[] = { 0, -0.0f };
    observer *o = see_in_pieces(huge, 4, 4, 1);
    range r = observer_range(o, RUNG_RANGE_MINMAX, 0, 8, false);
    assert_true(r.lo == -FLT_MAX && r.hi == FLT_MAX);
    observer_free(o);
    o = see_in_pieces(tiny, 3, 3, 1);
    r = observer_range(o, RUNG_RANGE_MINMAX, 0, 8, false);
    assert_true(r.lo == -0x1p-149f && r.hi == 0x1p-149f);
    observer_free(o);
    for (rung_range m = 0; m <= RUNG_RANGE_MSE; m++) {
        o = see_in_pieces(nothing, 2, 2, 1);
        r = observer_range(o, m, 0, 8, false);
        assert_true(r.lo == 0 && r.hi == 0 && observer_seen(o) == 0);
        observer_free(o);
        o = see_in_pieces(zeros, 2, 2, 1);
        r = observer_range(o, m, 0, 8, false);
        assert_true(r.lo == 0 && r.hi == 0 && !signbit(r.lo));
        observer_free(o);
    }
}

static void ema_follows_the_batches(void **state)
{
    (void)state;
    float *x = normal_data(5, 10000, 1), lo = 0, hi = 0;
    observer *o = observer_new(false);
    for (int b = 0; b < 100; b++) {
        float least = INFINITY, most = -INFINITY;
        for (int i = 0; i < 100; i++) {
            least = fminf(least, x[b * 100 + i]);
            most = fmaxf(most, x[b * 100 + i]);
        }
        lo = b ? 0.99f * lo + 0.01f * least : least;
        hi = b ? 0.99f * hi + 0.01f * most : most;
        observer_see(o, x + (size_t)b * 100, 100, 1);
    }
    const range r = observer_range(o, RUNG_RANGE_EMA, 0, 8, false);
    assert_true(fabsf(r.lo - lo) < 1e-4f && fabsf(r.hi - hi) < 1e-4f);
    observer_free(o);
    free(x);
}

/* --- ranges ----------------------------------------------------------------------------------- */

static int ascending(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void percentile_is_that_of_the_sorted_data(void **state)
{
    (void)state;
    for (int relu = 0; relu < 2; relu++) {
        float *x = normal_data(6, MANY, 2);
        for (size_t i = 0; relu && i < MANY; i++)
            x[i] = fmaxf(x[i], 0);
        observer *o = see_in_pieces(x, MANY, 30000, 2);
        qsort(x, MANY, sizeof *x, ascending);
        static const double percentiles[] = { 100, 99.99, 99.9, 99, 60 };
        for (int i = 0; i < 5; i++) {
            const double p = percentiles[i], width = ldexp(1, o->exponent);
            const range r = observer_range(o, RUNG_RANGE_PERCENTILE, p, 8, false);
            const size_t at = (size_t)((MANY - 1) * p / 100);
            assert_true(fabs(r.hi - x[at]) <= 1.01 * width);
            assert_true(fabs(r.lo - x[MANY - 1 - at]) <= 1.01 * width);
        }
        observer_free(o);
        free(x);
    }
}

/* Squared error of the data itself, by the definition. */
static double exact_error(const float *x, size_t n, double lo, double hi)
{
    const double scale = (hi - lo) / 255, zero = nearbyint(-lo / scale);
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        const double q = fmin(fmax(nearbyint(x[i] / scale) + zero, 0), 255);
        sum += (x[i] - scale * (q - zero)) * (x[i] - scale * (q - zero));
    }
    return sum;
}

/* The range found costs no more than the best of a grid over both ends, and its cost over the
 * histogram is that over the data. */
static void check_mse(const float *x, size_t n, bool two_sided)
{
    observer *o = see_in_pieces(x, n, n, 2);
    const range r = observer_range(o, RUNG_RANGE_MSE, 0, 8, false);
    const double found = exact_error(x, n, r.lo, r.hi);
    double best = INFINITY;
    for (int i = 1; i <= 20; i++)
        for (int j = 1; j <= 20; j++)
            if (two_sided || i == 1)
                best = fmin(best, exact_error(x, n, fmin(o->lo, 0) * i / 20, o->hi * j / 20));
    assert_true(found <= 1.01 * best);
    bar *bars = malloc(HIST_BINS * sizeof *bars);
    const int n_bars = histogram_bars(o, bars);
    const double modelled = mse_cost(bars, n_bars, r.lo, r.hi, 256);
    assert_true(fabs(modelled - found) <= 0.03 * found);
    free(bars);
    observer_free(o);
}

static void mse_is_the_best_of_all(void **state)
{
    (void)state;
    enum { N = 20000 };
    float *x = normal_data(7, N, 1);
    check_mse(x, N, true);
    for (int i = 0; i < N; i++) /* heavy tails */
        x[i] = x[i] * x[i] * x[i];
    check_mse(x, N, true);
    for (int i = 0; i < N; i++) /* one-sided, half zeros */
        x[i] = fmaxf(x[i], 0);
    check_mse(x, N, false);
    free(x);
}

static void entropy_drops_outliers_only(void **state)
{
    (void)state;
    float *x = normal_data(8, MANY, 1);
    rng g;
    rng_seed(&g, 9);
    x[0] = 60; /* far from the rest */
    observer *o = see_in_pieces(x, MANY, MANY, 2);
    range r = observer_range(o, RUNG_RANGE_ENTROPY, 0, 8, false);
    assert_true(r.hi > 2.5f && r.hi < 12);
    assert_true(r.lo < -2.5f);
    observer_free(o);
    for (size_t i = 0; i < MANY; i++) /* uniform behind a Relu: nothing to drop */
        x[i] = fmaxf(0, (float)rng_uniform(&g) * 2 - 1);
    o = see_in_pieces(x, MANY, MANY, 2);
    r = observer_range(o, RUNG_RANGE_ENTROPY, 0, 8, false);
    assert_true(r.lo == 0 && r.hi > 0.95f && r.hi <= 1);
    observer_free(o);
    free(x);
}

/* With 256 bars on 256 levels nothing is lost; with half the range the other half is. */
static void entropy_of_a_known_case(void **state)
{
    (void)state;
    bar bars[256];
    for (int i = 0; i < 256; i++)
        bars[i] = (bar){ i, i + 1, 1, 1 };
    assert_true(fabs(entropy_cost(bars, 256, 0, 256, 256)) < 1e-12);
    /* p: 127 bars of 1/256 and one of 129/256; q: 1/256 each. */
    const double want = 129.0 / 256 * log(129);
    assert_true(fabs(entropy_cost(bars, 256, 0, 128, 256) - want) < 1e-12);
}

static void symmetric_ranges_are_symmetric(void **state)
{
    (void)state;
    float *x = normal_data(10, MANY, 1);
    for (size_t i = 0; i < MANY; i++)
        x[i] = fmaxf(x[i], -0.5f);
    observer *o = see_in_pieces(x, MANY, MANY, 2);
    for (rung_range m = RUNG_RANGE_ENTROPY; m <= RUNG_RANGE_MSE; m++) {
        const range r = observer_range(o, m, 0, 8, true);
        assert_true(r.lo == -r.hi && r.hi > 2);
    }
    observer_free(o);
    free(x);
}

static void memory_may_be_out(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        mem_fail_after(i);
        observer *o = observer_new(true);
        mem_fail_after(-1);
        assert_null(o);
    }
    const float x[] = { -1, 2 };
    observer *o = see_in_pieces(x, 2, 2, 1);
    mem_fail_after(0);
    const range r = observer_range(o, RUNG_RANGE_MSE, 0, 8, false);
    mem_fail_after(-1);
    assert_true(r.lo == -1 && r.hi == 2);
    observer_free(o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bins_hold_what_they_say),
        cmocka_unit_test(order_does_not_matter),
        cmocka_unit_test(merged_is_seen_together),
        cmocka_unit_test(appended_is_seen_one_after_another),
        cmocka_unit_test(not_finite_is_counted_apart),
        cmocka_unit_test(extremes),
        cmocka_unit_test(ema_follows_the_batches),
        cmocka_unit_test(percentile_is_that_of_the_sorted_data),
        cmocka_unit_test(mse_is_the_best_of_all),
        cmocka_unit_test(entropy_drops_outliers_only),
        cmocka_unit_test(entropy_of_a_known_case),
        cmocka_unit_test(symmetric_ranges_are_symmetric),
        cmocka_unit_test(memory_may_be_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
