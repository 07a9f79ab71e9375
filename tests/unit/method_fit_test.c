/* One layer at a time: the linear algebra, and each method's promise on a layer made for it. */
#include "unit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "quant/method.h"

enum { IN = 37, OUT = 11, ROWS = 600, FIT = 480 };

/* --- linear algebra --------------------------------------------------------------------------- */

static void products_are_sums(void **state)
{
    float a[19 * 5], b[19 * 7], c[5 * 7], again[5 * 7];
    rng r;
    (void)state;
    rng_seed(&r, 1);
    for (int i = 0; i < 19 * 5; i++)
        a[i] = rng_normal(&r);
    for (int i = 0; i < 19 * 7; i++)
        b[i] = rng_normal(&r);
    matrix_products(a, 5, 5, b, 7, 7, 19, 1, c);
    matrix_products(a, 5, 5, b, 7, 7, 19, 2, again);
    assert_memory_equal(c, again, sizeof c);
    for (int i = 0; i < 5; i++)
        for (int j = 0; j < 7; j++) {
            double sum = 0;
            for (int k = 0; k < 19; k++)
                sum += (double)a[k * 5 + i] * b[k * 7 + j];
            assert_true(fabs(sum - c[i * 7 + j]) < 1e-4);
        }
}

/* n on both sides of a panel's width. */
static void solving_gives_back(void **state)
{
    enum { MOST = 27, COLUMNS = 3 };
    rng r;
    (void)state;
    rng_seed(&r, 2);
    for (size_t n = 1; n <= MOST; n++) {
        double g[MOST * MOST], a[MOST * MOST], x[MOST * COLUMNS], b[MOST * COLUMNS] = { 0 };
        for (size_t i = 0; i < n * n; i++)
            g[i] = (double)rng_normal(&r);
        for (size_t i = 0; i < n; i++)
            for (size_t j = 0; j < n; j++) {
                a[i * n + j] = i == j;
                for (size_t k = 0; k < n; k++)
                    a[i * n + j] += g[i * n + k] * g[j * n + k];
            }
        for (size_t i = 0; i < n * COLUMNS; i++)
            x[i] = (double)rng_normal(&r);
        for (size_t i = 0; i < n; i++)
            for (size_t k = 0; k < n; k++)
                for (size_t c = 0; c < COLUMNS; c++)
                    b[i * COLUMNS + c] += a[i * n + k] * x[k * COLUMNS + c];
        assert_true(matrix_cholesky(a, n, 2));
        matrix_solve(a, n, b, COLUMNS, 2);
        for (size_t i = 0; i < n * COLUMNS; i++)
            assert_true(fabs(b[i] - x[i]) < 1e-8);
    }
}

static void indefinite_is_refused(void **state)
{
    double a[] = { 1, 0, 2, 1 };
    (void)state;
    assert_false(matrix_cholesky(a, 2, 1));
}

/* --- a layer ---------------------------------------------------------------------------------- */

typedef struct made {
    layer    l;
    evidence e;
    fit      f;
    rounding now, best;
    float    w[IN * OUT], x[ROWS * IN], y[ROWS * OUT], least[OUT];
    double   x_mean[IN], y_mean[OUT];
} made;

static void centre(float *x, size_t columns, double *mean)
{
    for (size_t c = 0; c < columns; c++) {
        for (size_t r = 0; r < FIT; r++)
            mean[c] += x[r * columns + c] / FIT;
        for (size_t r = 0; r < ROWS; r++)
            x[r * columns + c] = (float)(x[r * columns + c] - mean[c]);
    }
}

static rounding rounding_new(arena *mem)
{
    const rounding r = { arena_zero(mem, IN * OUT, 1), arena_zero(mem, OUT, sizeof(float)),
                         arena_zero(mem, OUT, sizeof(float)) };
    return r;
}

/* Neighbouring inputs go together, as pixels do, and have a mean; the quantized model's inputs
 * carry noise, the outputs are those of the float model, before a Relu. */
static made *make(int top, float noise, unsigned methods)
{
    made *m = calloc(1, sizeof *m);
    rng r;
    assert_non_null(m);
    rng_seed(&r, 7);
    for (int i = 0; i < IN * OUT; i++)
        m->w[i] = rng_normal(&r);
    for (int k = 0; k < ROWS; k++) {
        float x[IN], before = 0;
        for (int i = 0; i < IN; i++)
            x[i] = before = 0.9f * before + 0.4f * rng_normal(&r) + 0.1f;
        for (int o = 0; o < OUT; o++)
            for (int i = 0; i < IN; i++)
                m->y[k * OUT + o] += m->w[o * IN + i] * x[i];
        for (int i = 0; i < IN; i++)
            m->x[k * IN + i] = x[i] + noise * rng_normal(&r);
    }
    centre(m->x, IN, m->x_mean);
    centre(m->y, OUT, m->y_mean);
    m->l = (layer){ .groups = 1, .in = IN, .out = OUT, .lo = 0, .hi = INFINITY };
    m->e = (evidence){ ROWS, FIT, m->x, m->y, m->x_mean, m->y_mean };
    m->f = (fit){ .l = &m->l, .e = &m->e, .w = m->w, .now = &m->now, .least = m->least,
                  .has_bias = true, .top = top, .methods = methods, .seed = 3, .n_threads = 1,
                  .mem = arena_new() };
    assert_non_null(m->f.mem);
    m->now = rounding_new(m->f.mem);
    m->best = rounding_new(m->f.mem);
    for (int o = 0; o < OUT; o++) {
        float most = 0;
        for (int i = 0; i < IN; i++)
            most = fmaxf(most, fabsf(m->w[o * IN + i]));
        m->now.scales[o] = most / (float)top;
        for (int i = 0; i < IN; i++)
            m->now.codes[o * IN + i] = (int8_t)rintf(m->w[o * IN + i] / m->now.scales[o]);
    }
    return m;
}

static void end(made *m)
{
    arena_free(m->f.mem);
    free(m);
}

/* Error before over error after. */
static double gain(made *m, const char **name)
{
    double before, after;
    rung_error err;
    assert_int_equal(fit_layer(&m->f, &m->best, name, &before, &after, &err), RUNG_OK);
    if (*name)
        assert_true(fabs(fit_error(&m->f, &m->best) - after) <= 1e-9 * after);
    return before / after;
}

static void check_method(unsigned methods, const char *expected, double at_least)
{
    made *m = make(3, 0.05f, methods);
    const char *name;
    const double g = gain(m, &name);
    assert_non_null(name);
    assert_string_equal(name, expected);
    assert_true(g > at_least);
    for (int i = 0; i < IN * OUT; i++)
        assert_in_range(m->best.codes[i] + 3, 0, 6);
    end(m);
}

static void each_method_lowers_the_error(void **state)
{
    (void)state;
    check_method(RUNG_METHOD_BIAS, "bias", 1.05);
    check_method(RUNG_METHOD_CLIP | RUNG_METHOD_BIAS, "clip", 1.1);
    check_method(RUNG_METHOD_ADAROUND | RUNG_METHOD_BIAS, "adaround", 3);
    check_method(RUNG_METHOD_GPTQ | RUNG_METHOD_CLIP, "gptq, refitted", 3);
}

/* Empirical bias correction: no mean error over the rows it saw. */
static void corrected_outputs_have_no_mean_error(void **state)
{
    made *m = make(3, 0.05f, RUNG_METHOD_BIAS);
    const char *name;
    (void)state;
    gain(m, &name);
    for (int o = 0; o < OUT; o++) {
        double mean = 0;
        for (int k = 0; k < FIT; k++) {
            double y = m->best.bias[o];
            for (int i = 0; i < IN; i++)
                y += (double)m->best.codes[o * IN + i] * m->best.scales[o] *
                     (m->x[k * IN + i] + m->x_mean[i]);
            mean += (y - m->y[k * OUT + o] - m->y_mean[o]) / FIT;
        }
        assert_true(fabs(mean) < 1e-4);
    }
    end(m);
}

/* Weights that are codes times scales, exact inputs: nothing is to be gained, nothing is taken. */
static void what_does_not_help_is_left(void **state)
{
    made *m = make(7, 0, RUNG_METHOD_CLIP);
    const char *name;
    (void)state;
    for (int o = 0; o < OUT; o++)
        for (int i = 0; i < IN; i++)
            m->w[o * IN + i] = (float)m->now.codes[o * IN + i] * m->now.scales[o];
    for (int o = 0; o < OUT; o++) {
        double at_mean = 0;
        for (int i = 0; i < IN; i++)
            at_mean += (double)m->w[o * IN + i] * m->x_mean[i];
        m->y_mean[o] = at_mean;
        for (int k = 0; k < ROWS; k++) {
            m->y[k * OUT + o] = 0;
            for (int i = 0; i < IN; i++)
                m->y[k * OUT + o] += m->w[o * IN + i] * m->x[k * IN + i];
        }
    }
    gain(m, &name);
    assert_null(name);
    end(m);
}

static void threads_change_nothing(void **state)
{
    const unsigned all = RUNG_METHOD_BIAS | RUNG_METHOD_CLIP | RUNG_METHOD_GPTQ |
                         RUNG_METHOD_ADAROUND;
    made *one = make(3, 0.05f, all), *two = make(3, 0.05f, all);
    const char *name;
    (void)state;
    two->f.n_threads = 2;
    gain(one, &name);
    gain(two, &name);
    assert_memory_equal(one->best.codes, two->best.codes, IN * OUT);
    assert_memory_equal(one->best.scales, two->best.scales, OUT * sizeof(float));
    assert_memory_equal(one->best.bias, two->best.bias, OUT * sizeof(float));
    end(one);
    end(two);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_are_sums),
        cmocka_unit_test(solving_gives_back),
        cmocka_unit_test(indefinite_is_refused),
        cmocka_unit_test(each_method_lowers_the_error),
        cmocka_unit_test(corrected_outputs_have_no_mean_error),
        cmocka_unit_test(what_does_not_help_is_left),
        cmocka_unit_test(threads_change_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
