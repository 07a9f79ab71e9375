#include "nn/vec_local.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* n = LANES: a whole vector, known when compiled; otherwise a part of one. */
static inline vec fetch(const float *p, size_t n)
{
    return n == LANES ? load(p) : load_part(p, n);
}

static inline void put(float *p, vec v, size_t n)
{
    if (n == LANES)
        store(p, v);
    else
        store_part(p, v, n);
}

/* --- pools ------------------------------------------------------------------------------------ */
ALWAYS_INLINE void window_lanes(const float *x, size_t h, size_t row, size_t w, size_t column,
                                size_t n, bool max, float divisor, float *y)
{
    vec all = max ? fetch(x, n) : spread(0.0f);
    for (size_t i = 0; i < h; i++) {
        vec acc = fetch(x + i * row, n); /* a sum a row: long sums keep their digits */
        for (size_t j = 1; j < w; j++) {
            const vec v = fetch(x + i * row + j * column, n);
            acc = max ? vec_max(acc, v) : acc + v;
        }
        all = max ? vec_max(all, acc) : all + acc;
    }
    put(y, max ? all : all / spread(divisor), n);
}

ALWAYS_INLINE void window_run(const float *x, size_t h, size_t row, size_t w, size_t column,
                              size_t channels, bool max, float divisor, float *y)
{
    size_t c = 0;
    for (; c + LANES <= channels; c += LANES)
        window_lanes(x + c, h, row, w, column, LANES, max, divisor, y + c);
    if (c < channels)
        window_lanes(x + c, h, row, w, column, channels - c, max, divisor, y + c);
}

void VEC(vec_window_mean)(const float *x, size_t h, size_t row, size_t w, size_t column,
                          size_t channels, float divisor, float *y)
{
    window_run(x, h, row, w, column, channels, false, divisor, y);
}

void VEC(vec_window_max)(const float *x, size_t h, size_t row, size_t w, size_t column,
                         size_t channels, float *y)
{
    window_run(x, h, row, w, column, channels, true, 1.0f, y);
}

/* --- vector times matrix, interpolation ------------------------------------------------------- */
/* One block of columns, two steps of k at a time: enough sums to hide latency. */
static inline void gemv_one(const float *x, const float *w, const float *bias, size_t k,
                            vec even[4])
{
    vec odd[4];
    for (int i = 0; i < 4; i++) {
        even[i] = load(bias + i * LANES);
        odd[i] = spread(0.0f);
    }
    size_t p = 0;
    for (; p + 2 <= k; p += 2, w += 2 * GEMV_BLOCK) {
        const vec a = spread(x[p]), b = spread(x[p + 1]);
        for (int i = 0; i < 4; i++) {
            even[i] += a * load(w + i * LANES);
            odd[i] += b * load(w + GEMV_BLOCK + i * LANES);
        }
    }
    for (int i = 0; i < 4; i++) {
        even[i] += odd[i];
        if (p < k)
            even[i] += spread(x[p]) * load(w + i * LANES);
    }
}

void VEC(vec_gemv)(const float *x, const float *w, const float *bias, const float *add, size_t k,
                   size_t n, size_t first, size_t last, float lo, float hi, float *y)
{
    for (size_t c = first; c < last; c += GEMV_BLOCK) {
        vec acc[4];
        gemv_one(x, w + c * k, bias + c, k, acc);
        for (size_t i = 0; i < 4 && c + i * LANES < n; i++) {
            const size_t at = c + i * LANES, rest = n - at, part = rest < LANES ? rest : LANES;
            if (add)
                acc[i] += fetch(add + at, part);
            put(y + at, vec_clamp(acc[i], spread(lo), spread(hi)), part);
        }
    }
}

void VEC(vec_blend)(const float *const p[4], const float wt[4], size_t channels, float *y)
{
    const vec w0 = spread(wt[0]), w1 = spread(wt[1]), w2 = spread(wt[2]), w3 = spread(wt[3]);
    size_t c = 0;
    for (; c + LANES <= channels; c += LANES)
        store(y + c, load(p[0] + c) * w0 + load(p[1] + c) * w1 +
                         (load(p[2] + c) * w2 + load(p[3] + c) * w3));
    for (; c < channels; c++)
        y[c] = p[0][c] * wt[0] + p[1][c] * wt[1] + (p[2][c] * wt[2] + p[3][c] * wt[3]);
}
