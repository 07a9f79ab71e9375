/* The loops of a FakeQuantize on every instruction set, against the formulas in double. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "base/cpu.h"
#include "base/rng.h"
#include "train/fake_vec.h"
#include "unit.h"

enum { MOST = 3000, CHANNELS = 40 };

typedef struct problem {
    rng       r;
    size_t    n;
    fake_ends ends;
    float     scale[CHANNELS], x[MOST], dy[MOST], dx[MOST], want[MOST];
} problem;

/* In units of the scale: within the ends, at and about their halves, far out, infinite. */
static float random_value(problem *p, float scale)
{
    const float ends[] = {p->ends.lo, p->ends.hi};
    switch (rng_below(&p->r, 8)) {
    case 0: return scale * (ends[rng_below(&p->r, 2)] + ((float)rng_below(&p->r, 5) - 2) / 2);
    case 1: return scale * 1e6f * rng_normal(&p->r);
    case 2: return rng_below(&p->r, 2) ? INFINITY : -INFINITY;
    case 3: return 0;
    default: return scale * rng_normal(&p->r) * (p->ends.hi - p->ends.lo) / 3;
    }
}

static void make(problem *p, uint64_t seed)
{
    rng_seed(&p->r, seed);
    static const fake_ends ends[] = {{0, 255}, {-114, 141}, {-127, 127}, {-7, 7}, {0, 3}};
    p->ends = ends[seed % 5];
    p->n = seed % 3 ? (size_t)rng_below(&p->r, MOST / CHANNELS) * CHANNELS
                    : (size_t)rng_below(&p->r, MOST);
    for (int c = 0; c < CHANNELS; c++)
        p->scale[c] = ldexpf(1 + (float)rng_uniform(&p->r), (int)rng_below(&p->r, 12) - 8);
    for (size_t i = 0; i < p->n; i++) {
        p->x[i] = random_value(p, p->scale[0]);
        p->dy[i] = rng_normal(&p->r);
        p->dx[i] = rng_normal(&p->r);
    }
}

/* The step of t = x / scale in float32, as QuantizeLinear divides; *passes: in range. */
static double step_of(float t, fake_ends e, bool *passes)
{
    const double q = nearbyint(t);
    *passes = q >= e.lo && q <= e.hi;
    return *passes ? q - t : q < e.lo ? e.lo : e.hi;
}

/* A sum of terms of float32 and their products: a rounding or two each, in blocks. */
static void expect_sum(double got, double want, double magnitude)
{
    assert_true(fabs(got - want) <= 128 * FLT_EPSILON * magnitude);
}

static void check_quantize(const fake_vec *v, problem *p)
{
    v->quantize(p->x, p->n, p->scale[0], p->ends, p->dx);
    for (size_t i = 0; i < p->n; i++) {
        const double q = nearbyint(p->x[i] / p->scale[0]);
        const float want = (float)fmin(fmax(q, p->ends.lo), p->ends.hi) * p->scale[0];
        assert_true(p->dx[i] == want);
    }
}

static void check_quantize_row(const fake_vec *v, problem *p)
{
    const size_t n = p->n < CHANNELS ? p->n : CHANNELS;
    v->quantize_row(p->x, p->scale, n, p->ends, p->dx);
    for (size_t i = 0; i < n; i++) {
        const double q = nearbyint(p->x[i] / p->scale[i]);
        assert_true(p->dx[i] == (float)fmin(fmax(q, p->ends.lo), p->ends.hi) * p->scale[i]);
    }
}

/* mode 0: written; 1: in place of dy; 2: added. */
static void check_grad(const fake_vec *v, problem *p, int mode)
{
    double want = 0, magnitude = 0;
    for (size_t i = 0; i < p->n; i++) {
        bool passes;
        const double step = step_of(p->x[i] / p->scale[0], p->ends, &passes) * p->dy[i];
        want += step;
        magnitude += fabs(step);
        p->want[i] = (mode == 2 ? p->dx[i] : 0) + (passes ? p->dy[i] : 0);
    }
    double got;
    if (mode == 1)
        memcpy(p->dx, p->dy, sizeof p->dx);
    if (mode == 2)
        got = v->grad_add(p->x, p->dy, p->n, p->scale[0], p->ends, p->dx);
    else
        got = v->grad(p->x, mode == 1 ? p->dx : p->dy, p->n, p->scale[0], p->ends, p->dx);
    expect_sum(got, want, magnitude);
    for (size_t i = 0; i < p->n; i++)
        assert_true(p->dx[i] == p->want[i]);
}

static void check_grad_row(const fake_vec *v, problem *p)
{
    const size_t n = p->n < CHANNELS ? p->n : CHANNELS;
    float dscale[CHANNELS];
    for (size_t i = 0; i < n; i++) {
        bool passes;
        const double step = step_of(p->x[i] / p->scale[i], p->ends, &passes);
        float got = 1, dx = p->dx[i];
        dscale[i] = 1;
        v->grad_row(p->x + i, p->dy + i, p->scale + i, 1, p->ends, 0.5f, &dx, &got);
        assert_true(dx == p->dx[i] + (passes ? p->dy[i] : 0));
        expect_sum(got, 1 + p->dy[i] * step * 0.5, 1 + fabs(p->dy[i] * step));
    }
    v->grad_row(p->x, p->dy, p->scale, n, p->ends, 0.5f, p->dx, dscale);
    for (size_t i = 0; i < n; i++) {
        bool passes;
        const double step = step_of(p->x[i] / p->scale[i], p->ends, &passes);
        expect_sum(dscale[i], 1 + p->dy[i] * step * 0.5, 1 + fabs(p->dy[i] * step));
    }
}

/* clamp: 0 none, 1 a Relu, 2 a Clip. */
static void check_sums(const fake_vec *v, problem *p, size_t channels, int clamp)
{
    static int32_t sums[MOST];
    const size_t pixels = p->n / channels;
    const float hi = clamp == 2 ? p->ends.hi / 2 : INFINITY;
    const fake_sums s = {channels, p->scale, clamp ? 0 : -INFINITY, hi};
    double want = 0, magnitude = 0;
    for (size_t i = 0; i < pixels * channels; i++) {
        sums[i] = (int32_t)rng_below(&p->r, 1000) - 500;
        if (rng_below(&p->r, 4) == 0)
            sums[i] = 0;
        const float t = (float)sums[i] * p->scale[i % channels];
        const float held = fminf(fmaxf(t, s.floor), s.ceiling);
        bool passes;
        const double step = step_of(held, p->ends, &passes) * p->dy[i];
        want += step;
        magnitude += fabs(step);
        passes = passes && t < s.ceiling && t > s.floor;
        p->want[i] = passes ? p->dy[i] : 0;
    }
    memcpy(p->dx, p->dy, sizeof p->dx);
    expect_sum(v->grad_sums(&s, sums, p->dx, pixels, p->ends, p->dx), want, magnitude);
    for (size_t i = 0; i < pixels * channels; i++)
        assert_true(p->dx[i] == p->want[i]);
}

static void check_range(const fake_vec *v, problem *p)
{
    float want[2] = {-INFINITY, -INFINITY}, got[2] = {-INFINITY, -INFINITY};
    for (size_t i = 0; i < p->n; i++) {
        want[0] = fmaxf(want[0], -p->x[i]);
        want[1] = fmaxf(want[1], p->x[i]);
    }
    v->range(p->x, p->n / 2, got);
    v->range(p->x + p->n / 2, p->n - p->n / 2, got);
    assert_true(got[0] == want[0] && got[1] == want[1]);
}

static void check_range_sums(const fake_vec *v, problem *p, size_t channels, bool clamp)
{
    static int32_t sums[MOST];
    const size_t pixels = p->n / channels;
    const fake_sums s = {channels, p->scale, clamp ? 0 : -INFINITY,
                         clamp ? p->ends.hi / 2 : INFINITY};
    float want[2] = {-INFINITY, -INFINITY}, got[2] = {-INFINITY, -INFINITY};
    for (size_t i = 0; i < pixels * channels; i++) {
        sums[i] = (int32_t)rng_below(&p->r, 1000) - 500;
        const float t = (float)sums[i] * p->scale[i % channels];
        const float held = fminf(fmaxf(t, s.floor), s.ceiling) * p->scale[1];
        want[0] = fmaxf(want[0], -held);
        want[1] = fmaxf(want[1], held);
    }
    v->range_sums(&s, sums, pixels, p->scale[1], got);
    assert_true(got[0] == want[0] && got[1] == want[1]);
}

static void loops_follow_the_formulas(void **state)
{
    static problem p;
    const unsigned levels[] = {0, CPU_AVX2, ~0u};
    const char *name = "";
    for (int level = 0; level < 3; level++) {
        cpu_force(levels[level]);
        const fake_vec *v = fake_vec_pick();
        if (strcmp(v->name, name) == 0)
            continue;
        name = v->name;
        for (uint64_t seed = 0; seed < 200; seed++) {
            make(&p, seed);
            check_quantize(v, &p);
            check_quantize_row(v, &p);
            for (int mode = 0; mode < 3; mode++) {
                make(&p, seed);
                check_grad(v, &p, mode);
            }
            make(&p, seed);
            check_grad_row(v, &p);
            check_range(v, &p);
            check_range_sums(v, &p, 1 + (size_t)rng_below(&p.r, CHANNELS), seed % 2);
            check_sums(v, &p, 1 + (size_t)rng_below(&p.r, CHANNELS), (int)(seed % 3));
        }
    }
    cpu_force(~0u);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(loops_follow_the_formulas)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
