/* Compiled with FAKE_ISA = c, avx2, avx512 (meson.build): plain loops for the compiler. */
#include "train/fake_vec.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/cpu.h"

/* Sums in this many lanes are independent of the instruction set's width. */
#define LANES 16
/* Elements that are summed in float32 before the sum goes on in double. */
#define BLOCK 1024

#define PASTE2(a, b) a##_##b
#define PASTE(a, b)  PASTE2(a, b)
#define OWN(name)    PASTE(name, FAKE_ISA)

/* rne(t) for |t| < 2^22: adding 1.5 * 2^23 leaves no place for a fraction. */
static inline float round_small(float t)
{
    return t + 12582912.0f - 12582912.0f;
}

/* rne(t) where that is in range, else the nearest number that is out of it. */
static inline float round_limited(float t, fake_ends e)
{
    const float lo = e.lo - 1, hi = e.hi + 1;
    t = t > lo ? t : lo;
    return round_small(t < hi ? t : hi);
}

static inline float limited(float q, fake_ends e)
{
    q = q > e.lo ? q : e.lo;
    return q < e.hi ? q : e.hi;
}

static void quantize(const float *restrict x, size_t n, float scale, fake_ends e,
                     float *restrict y)
{
    for (size_t i = 0; i < n; i++)
        y[i] = limited(round_limited(x[i] / scale, e), e) * scale;
}

static void quantize_row(const float *restrict x, const float *restrict scale, size_t n,
                         fake_ends e, float *restrict y)
{
    for (size_t i = 0; i < n; i++)
        y[i] = limited(round_limited(x[i] / scale[i], e), e) * scale[i];
}

/* What one element adds to the gradient of the scale, over dy; *passes: 1 in range, else 0. */
static inline float step_of(float t, fake_ends e, float *passes)
{
    const float q = round_limited(t, e), inside = limited(q, e);
    *passes = q == inside ? 1.0f : 0.0f;
    return q == inside ? q - t : inside;
}

static double sum_lanes(const float part[LANES])
{
    double sum = 0;
    for (int k = 0; k < LANES; k++)
        sum += part[k];
    return sum;
}

/* LANES elements; copies, because dx may be dy. */
static inline void grad_lanes(const float *x, const float *dy, float scale, fake_ends e, float *dx,
                              bool add, float part[LANES])
{
    float g[LANES], sum[LANES] = {0};
    memcpy(g, dy, sizeof g);
    if (add)
        memcpy(sum, dx, sizeof sum);
    for (int k = 0; k < LANES; k++) {
        float passes;
        const float step = step_of(x[k] / scale, e, &passes);
        part[k] += g[k] * step;
        sum[k] += g[k] * passes;
    }
    memcpy(dx, sum, sizeof sum);
}

static inline double grad_of(const float *x, const float *dy, size_t n, float scale, fake_ends e,
                             float *dx, bool add)
{
    double sum = 0;
    for (size_t at = 0; at < n; at += BLOCK) {
        const size_t end = n - at < BLOCK ? n : at + BLOCK;
        float part[LANES] = {0};
        size_t i = at;
        for (; i + LANES <= end; i += LANES)
            grad_lanes(x + i, dy + i, scale, e, dx + i, add, part);
        for (; i < end; i++) {
            float passes;
            const float g = dy[i];
            part[0] += g * step_of(x[i] / scale, e, &passes);
            dx[i] = (add ? dx[i] : 0) + g * passes;
        }
        sum += sum_lanes(part);
    }
    return sum;
}

static double grad(const float *x, const float *dy, size_t n, float scale, fake_ends e, float *dx)
{
    return grad_of(x, dy, n, scale, e, dx, false);
}

static double grad_add(const float *x, const float *dy, size_t n, float scale, fake_ends e,
                       float *dx)
{
    return grad_of(x, dy, n, scale, e, dx, true);
}

static void grad_row(const float *restrict x, const float *restrict dy, const float *restrict scale,
                     size_t n, fake_ends e, float factor, float *restrict dx,
                     float *restrict dscale)
{
    for (size_t i = 0; i < n; i++) {
        float passes;
        const float step = step_of(x[i] / scale[i], e, &passes);
        dx[i] += dy[i] * passes;
        dscale[i] += dy[i] * step * factor;
    }
}

/* One element of grad_sums: a Relu or Clip that holds the value ends its gradient; the code is then
 * that of the bound. */
static inline float sum_step(const fake_sums *s, float t, fake_ends e, float *passes)
{
    const float held = t > s->floor ? t : s->floor;
    const float v = held < s->ceiling ? held : s->ceiling;
    const float step = step_of(v, e, passes);
    *passes = t > s->floor && t < s->ceiling ? *passes : 0.0f;
    return step;
}

static inline void sums_lanes(const fake_sums *s, const int32_t *sums, const float *mult,
                              const float *dy, fake_ends e, float *dx, float part[LANES])
{
    float g[LANES], out[LANES];
    memcpy(g, dy, sizeof g);
    for (int k = 0; k < LANES; k++) {
        float passes;
        const float step = sum_step(s, (float)sums[k] * mult[k], e, &passes);
        part[k] += g[k] * step;
        out[k] = g[k] * passes;
    }
    memcpy(dx, out, sizeof out);
}

static inline void sums_row(const fake_sums *s, const int32_t *sums, const float *dy, fake_ends e,
                            float *dx, float part[LANES])
{
    const size_t n = s->channels;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        sums_lanes(s, sums + i, s->mult + i, dy + i, e, dx + i, part);
    for (; i < n; i++) {
        float passes;
        const float g = dy[i];
        part[0] += g * sum_step(s, (float)sums[i] * s->mult[i], e, &passes);
        dx[i] = g * passes;
    }
}

static double grad_sums(const fake_sums *s, const int32_t *sums, const float *dy, size_t pixels,
                        fake_ends e, float *dx)
{
    const fake_sums own = *s; /* in registers: nothing that is written can be it */
    const size_t n = own.channels, rows = n < BLOCK ? BLOCK / n : 1;
    double sum = 0;
    for (size_t at = 0; at < pixels; at += rows) {
        const size_t end = pixels - at < rows ? pixels : at + rows;
        float part[LANES] = {0};
        for (size_t p = at; p < end; p++)
            sums_row(&own, sums + p * n, dy + p * n, e, dx + p * n, part);
        sum += sum_lanes(part);
    }
    return sum;
}

/* --- ranges ----------------------------------------------------------------------------------- */

typedef struct ends_so_far {
    float down[LANES], up[LANES]; /* of -x and of x */
} ends_so_far;

static inline void ends_begin(ends_so_far *w)
{
    for (int k = 0; k < LANES; k++)
        w->down[k] = w->up[k] = -INFINITY;
}

static inline void ends_see(ends_so_far *w, int k, float x)
{
    w->down[k] = -x > w->down[k] ? -x : w->down[k];
    w->up[k] = x > w->up[k] ? x : w->up[k];
}

static void ends_close(const ends_so_far *w, float scale, float most[2])
{
    for (int k = 0; k < LANES; k++) {
        most[0] = w->down[k] * scale > most[0] ? w->down[k] * scale : most[0];
        most[1] = w->up[k] * scale > most[1] ? w->up[k] * scale : most[1];
    }
}

static void range(const float *restrict x, size_t n, float most[2])
{
    ends_so_far w;
    size_t i = 0;
    ends_begin(&w);
    for (; i + LANES <= n; i += LANES)
        for (int k = 0; k < LANES; k++)
            ends_see(&w, k, x[i + (size_t)k]);
    for (; i < n; i++)
        ends_see(&w, 0, x[i]);
    ends_close(&w, 1, most);
}

static inline float held_value(const fake_sums *s, float t)
{
    const float held = t > s->floor ? t : s->floor;
    return held < s->ceiling ? held : s->ceiling;
}

static void range_sums(const fake_sums *s, const int32_t *restrict sums, size_t pixels, float scale,
                       float most[2])
{
    const fake_sums own = *s;
    const size_t n = own.channels;
    ends_so_far w;
    ends_begin(&w);
    for (size_t p = 0; p < pixels; p++, sums += n) {
        size_t i = 0;
        for (; i + LANES <= n; i += LANES)
            for (int k = 0; k < LANES; k++)
                ends_see(&w, k, held_value(&own, (float)sums[i + (size_t)k] *
                                                     own.mult[i + (size_t)k]));
        for (; i < n; i++)
            ends_see(&w, 0, held_value(&own, (float)sums[i] * own.mult[i]));
    }
    ends_close(&w, scale, most);
}

extern const fake_vec OWN(fake_vec);
const fake_vec OWN(fake_vec) = {
#if defined(__AVX512F__)
    .name = "avx512",
    .needs = CPU_AVX512,
#elif defined(__AVX2__)
    .name = "avx2",
    .needs = CPU_AVX2,
#else
    .name = "c",
#endif
    .quantize = quantize,
    .quantize_row = quantize_row,
    .grad = grad,
    .grad_add = grad_add,
    .grad_row = grad_row,
    .grad_sums = grad_sums,
    .range = range,
    .range_sums = range_sums,
};
