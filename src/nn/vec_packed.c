/* Products with weights that stay packed: a panel of columns is unpacked a piece at a time, into a
 * tile that stays in the first-level cache while all rows pass over it. */
#include <float.h>
#include <stdint.h>

#include "nn/vec_local.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))

enum { WIDTH = 2 * LANES, ROWS = 6 };

typedef uint8_t codes __attribute__((vector_size(LANES)));

static inline codes load_codes(const uint8_t *p)
{
    codes v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* gcc 12 makes scalar code of __builtin_convertvector from bytes. */
static inline vec to_floats(codes v)
{
#if defined(__AVX512F__)
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32((__m128i)v));
#elif defined(__AVX2__)
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)v)));
#else
    return __builtin_convertvector(v, vec);
#endif
}

ALWAYS_INLINE void unpack_block(const vec_packed *w, bool half, const uint8_t *from, size_t n,
                                const float *scale, const uint8_t *zero, float *tile)
{
    const vec s0 = load(scale), s1 = load(scale + LANES);
    const vec z0 = zero ? to_floats(load_codes(zero)) : spread(w->zero);
    const vec z1 = zero ? to_floats(load_codes(zero + LANES)) : z0;
    for (size_t i = 0; i < n; i++, tile += WIDTH) {
        codes a = load_codes(from), b;
        if (half) {
            b = a >> 4;
            a = a & 15;
            from += LANES;
        } else {
            b = load_codes(from + LANES);
            from += WIDTH;
        }
        store(tile, (to_floats(a) - z0) * s0);
        store(tile + LANES, (to_floats(b) - z1) * s1);
    }
}

/* Steps [k0, k1) of a panel as floats: tile [k1 - k0][WIDTH]. */
static void unpack(const vec_packed *w, size_t panel, size_t k0, size_t k1, float *tile)
{
    const size_t blocks = (w->k + w->block - 1) / w->block, bytes = w->half ? LANES : WIDTH;
    while (k0 < k1) {
        const size_t b = k0 / w->block, end = (b + 1) * w->block < k1 ? (b + 1) * w->block : k1;
        const size_t at = (panel * blocks + b) * WIDTH;
        const uint8_t *from = w->codes + (panel * w->k + k0) * bytes;
        const uint8_t *zero = w->zeros ? w->zeros + at : NULL;
        if (w->half)
            unpack_block(w, true, from, end - k0, w->scales + at, zero, tile);
        else
            unpack_block(w, false, from, end - k0, w->scales + at, zero, tile);
        tile += (end - k0) * WIDTH;
        k0 = end;
    }
}

/* `columns` of a row; the rest of the two vectors is 0. */
ALWAYS_INLINE void get_row(const float *p, size_t columns, vec v[2])
{
    float row[WIDTH] = {0};
    if (columns == WIDTH) {
        v[0] = load(p);
        v[1] = load(p + LANES);
        return;
    }
    memcpy(row, p, columns * sizeof *p);
    v[0] = load(row);
    v[1] = load(row + LANES);
}

ALWAYS_INLINE void put_row(float *p, size_t columns, const vec v[2])
{
    float row[WIDTH];
    if (columns == WIDTH) {
        store(p, v[0]);
        store(p + LANES, v[1]);
        return;
    }
    store(row, v[0]);
    store(row + LANES, v[1]);
    memcpy(p, row, columns * sizeof *p);
}

/* y += x tile for `rows` rows: n steps of k. */
ALWAYS_INLINE void multiply(size_t rows, const float *x, size_t x_stride, const float *tile,
                            size_t n, float *y, size_t y_stride, size_t columns)
{
    vec acc[ROWS][2];
    for (size_t r = 0; r < rows; r++)
        get_row(y + r * y_stride, columns, acc[r]);
    for (size_t i = 0; i < n; i++, tile += WIDTH) {
        const vec a = load(tile), b = load(tile + LANES);
        for (size_t r = 0; r < rows; r++) {
            const vec v = spread(x[r * x_stride + i]);
            acc[r][0] += v * a;
            acc[r][1] += v * b;
        }
    }
    for (size_t r = 0; r < rows; r++)
        put_row(y + r * y_stride, columns, acc[r]);
}

static void finish(const vec_packed_out *o, size_t row, size_t n, size_t first, size_t columns,
                   float *y)
{
    const float *add = o->add ? o->add + row * n + first : NULL;
    for (size_t c = 0; c < columns; c++) {
        const float v = add ? y[c] + add[c] : y[c];
        y[c] = clamp_one(v, o->lo, o->hi);
    }
}

void VEC(vec_packed_product)(const vec_packed *w, const float *x, size_t rows, size_t first,
                             size_t last, const vec_packed_out *o, float *tile, float *y)
{
    for (size_t panel = first; panel < last; panel++) {
        const size_t c = panel * WIDTH, columns = w->n - c < WIDTH ? w->n - c : WIDTH;
        for (size_t r = 0; r < rows; r++)
            memcpy(y + r * w->n + c, o->bias + c, columns * sizeof *y);
        for (size_t k0 = 0; k0 < w->k; k0 += VEC_PACKED_STEPS) {
            const size_t k1 = w->k - k0 < VEC_PACKED_STEPS ? w->k : k0 + VEC_PACKED_STEPS;
            size_t r = 0;
            unpack(w, panel, k0, k1, tile);
            for (; r + ROWS <= rows; r += ROWS)
                multiply(ROWS, x + r * w->k + k0, w->k, tile, k1 - k0, y + r * w->n + c, w->n,
                         columns);
            for (; r < rows; r++)
                multiply(1, x + r * w->k + k0, w->k, tile, k1 - k0, y + r * w->n + c, w->n,
                         columns);
        }
        for (size_t r = 0; r < rows && (o->add || o->lo > -FLT_MAX || o->hi < FLT_MAX); r++)
            finish(o, r, w->n, c, columns, y + r * w->n + c);
    }
}
