/* Each rounding of rung's integer arithmetic, written once (docs/arithmetic.md). Kernels either
 * call these or are tested against them to the byte. Needs -ffp-contract=off: the only fused
 * operations are the fmaf calls that stand here. */
#ifndef RUNG_KERNELS_ARITH_H
#define RUNG_KERNELS_ARITH_H

#include <math.h>
#include <stdint.h>

static inline float clamp_f32(float v, float lo, float hi)
{
    return v < lo ? lo : v > hi ? hi : v;
}

/* Round half to even, the default rounding direction. |v| < 2^31. */
static inline int32_t round_even(float v)
{
    return (int32_t)lrintf(v);
}

/* clamp(rne(v) + zero, lo, hi), of 8 or 16 bits. Clamping before the rounding gives the same
 * number, as the bounds are integers, and keeps the conversion in range. */
static inline int round_to_code(float v, int zero, int lo, int hi)
{
    return round_even(clamp_f32(v, (float)(lo - zero), (float)(hi - zero))) + zero;
}

static inline uint8_t round_to_u8(float v, int zero, int lo, int hi)
{
    return (uint8_t)round_to_code(v, zero, lo, hi);
}

/* clamp(rne((float)acc * m) + zero, lo, hi): one float32 product, one rounding. */
static inline uint8_t requant_u8(int32_t acc, float m, int zero, int lo, int hi)
{
    return round_to_u8((float)acc * m, zero, lo, hi);
}

/* The exact sum 256 high + low of 16-bit codes, 0 <= low < 256, in float32: rounded once where it
 * is less than 2^32, so that it is (float)acc for a sum of 8-bit codes. */
static inline float wide_f32(int32_t high, int32_t low)
{
    return fmaf(256, (float)high, (float)low);
}

/* clamp(rne(wide_f32(acc) * m) + zero, lo, hi), acc = 256 hi + lo; the floor of lo / 256 goes to
 * the high part. */
static inline int wide_requant_one(int32_t hi, int32_t lo, float m, int zero, int qlo, int qhi)
{
    const int32_t low = lo & 255;
    return round_to_code(wide_f32(hi + (lo - low) / 256, low) * m, zero, qlo, qhi);
}

/* QuantizeLinear: clamp(rne(x / scale) + zero, lo, hi), of 8 or 16 bits; NaN counts as 0. */
static inline int quantize_code(float x, float scale, int zero, int lo, int hi)
{
    return round_to_code(x == x ? x / scale : 0.0f, zero, lo, hi);
}

static inline uint8_t quantize_one(float x, float scale, int zero, int lo, int hi)
{
    return (uint8_t)quantize_code(x, scale, zero, lo, hi);
}

/* DynamicQuantizeLinear's parameters of the range [lo, hi], which holds 0. Where the scale is 0 or
 * not finite all codes are 0, and so is the zero point. */
static inline float dynamic_scale(float lo, float hi)
{
    return (hi - lo) / 255;
}

static inline int dynamic_zero(float lo, float scale)
{
    return scale > 0 && scale <= 0x1.fffffep127f ? quantize_one(0 - lo, scale, 0, 0, 255) : 0;
}

/* DequantizeLinear, of 8 or 16 bits. */
static inline float dequantize_one(int q, float scale, int zero)
{
    return (float)(q - zero) * scale;
}

/* Add: y = rne(fma(a, ra, fma(b, rb, fixed))), clamped, with the zero points folded in `fixed`. */
typedef struct add_terms {
    float ra, rb, fixed;
} add_terms;

static inline add_terms add_terms_of(float a_scale, int a_zero, float b_scale, int b_zero,
                                     float y_scale, int y_zero)
{
    const float ra = a_scale / y_scale, rb = b_scale / y_scale;
    const float zeros = fmaf(ra, (float)a_zero, rb * (float)b_zero);
    return (add_terms){ra, rb, (float)y_zero - zeros};
}

static inline int add_code(int a, int b, add_terms t, int lo, int hi)
{
    const float v = fmaf((float)a, t.ra, fmaf((float)b, t.rb, t.fixed));
    return round_to_code(v, 0, lo, hi);
}

static inline uint8_t add_one(uint8_t a, uint8_t b, add_terms t, int lo, int hi)
{
    return (uint8_t)add_code(a, b, t, lo, hi);
}

/* Mul: the integer product is exact, the zero point is added before the rounding. */
static inline float mul_ratio(float a_scale, float b_scale, float y_scale)
{
    return a_scale * b_scale / y_scale;
}

static inline uint8_t mul_one(int a_minus_zero, int b_minus_zero, float ratio, int y_zero, int lo,
                              int hi)
{
    const float v = (float)(a_minus_zero * b_minus_zero) * ratio + (float)y_zero;
    return round_to_u8(v, 0, lo, hi);
}

/* The same of 16-bit codes, whose product is rounded to float32 where it is over 2^24. */
static inline int mul_code(int a_minus_zero, int b_minus_zero, float ratio, int y_zero, int lo,
                           int hi)
{
    const float product = (float)a_minus_zero * (float)b_minus_zero;
    return round_to_code(product * ratio + (float)y_zero, 0, lo, hi);
}

/* AveragePool: sum is the float32 sum of the window's dequantized values, taps in row-major order;
 * the zero point is added before the rounding. */
static inline int average_code(float sum, int count, float y_scale, int y_zero, int lo, int hi)
{
    const float mean = sum / (float)count;
    return round_to_code(mean / y_scale + (float)y_zero, 0, lo, hi);
}

static inline uint8_t average_one(float sum, int count, float y_scale, int y_zero, int lo, int hi)
{
    return (uint8_t)average_code(sum, count, y_scale, y_zero, lo, hi);
}

/* GlobalAveragePool: requant_u8 of the exact sum of q - x_zero with this factor. */
static inline float global_average_ratio(float x_scale, float y_scale, int count)
{
    return x_scale / (y_scale * (float)count);
}

#endif
