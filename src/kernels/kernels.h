/* The integer kernels: contracts and dispatch tables. Raw pointers and sizes, no tensor, no graph.
 *
 * All activations are uint8, channels-last ([batch][h][w][c]); int8 tensors come as q + 128. Every
 * row of a table gives the same bytes as its first, plain-C row, for every input (see
 * docs/arithmetic.md). No kernel allocates, dispatches, or reads or writes outside its buffers.
 * Work is split over threads inside: a call with (thread, n_threads) does that thread's share, all
 * threads' shares together are the whole, they touch disjoint outputs. Kernels without these
 * arguments are split by their caller.
 * Scales are finite and > 0 (add_u8's operands excepted), zero points in [0, 255],
 * 0 <= lo <= hi <= 255; the floating-point environment is the default one (round to nearest even).
 *
 * A table lists its rows slowest first and ends with name = NULL; the last row whose CPU bits
 * (base/cpu.h) are present and that fits wins: KERNEL_PICK, conv_pick. */
#ifndef RUNG_KERNELS_KERNELS_H
#define RUNG_KERNELS_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* How every row begins. */
typedef struct kernel_head {
    const char *name;
    unsigned    needs; /* CPU_... bits */
} kernel_head;

/* The row of a table for this machine. */
#define KERNEL_PICK(table) ((table) + kernel_row((table), sizeof *(table)))
size_t kernel_row(const void *table, size_t row_size);

/* The share [*first, *last) of n items of `thread`; boundaries are multiples of `unit`. */
static inline void kernel_share(size_t n, size_t unit, int thread, int n_threads, size_t *first,
                                size_t *last)
{
    const size_t units = (n + unit - 1) / unit;
    const size_t each = units / (size_t)n_threads, extra = units % (size_t)n_threads;
    const size_t t = (size_t)thread;
    const size_t a = (t * each + (t < extra ? t : extra)) * unit;
    const size_t b = a + (each + (t < extra)) * unit;
    *first = a < n ? a : n;
    *last = b < n ? b : n;
}

/* Some kernels compute in tile registers, which a thread configures before and releases behind.
 * They do that themselves, but a caller that runs many kernels does it once around them: true, then
 * kernel_tiles_end is due. Nothing happens on a processor without tiles. */
bool kernel_tiles_begin(void);
void kernel_tiles_end(bool begun);

/* q = clamp(rne((float)acc * mult[c]) + zero, lo, hi), acc int32, one float32 product, one rounding
 * half to even; out-of-range products saturate. */
typedef struct requant {
    const float *mult; /* [out channels]: (s_x * s_w[c]) / s_y in float32, in that order */
    int          zero, lo, hi; /* 0 <= lo <= hi <= 255 */
} requant;

/* --- convolution, pointwise, depthwise, Gemm -------------------------------------------------
 * y[n][oh][ow][oc] = requant(bias[oc] + sum over taps and the group's input channels of
 * (x - x_zero) * w). Padding reads x_zero. Gemm of [m,k] x [k,n] is a convolution with in_h = 1,
 * in_w = m, in_c = k, out_c = n. Exact int32: the caller has refused weights that could overflow,
 * |bias[oc]| + 255 * sum |w| < 2^31. Pads at the bottom and right follow from out_h and out_w.
 * groups divides in_c and out_c; all numbers are >= 1, pads and batch >= 0; input coordinates of
 * every tap and the weights of one output channel fit int; whole tensors fit size_t.
 * Where no tap leaves the image, what pack makes for one shape serves those that differ from it in
 * batch, in_h and out_h only, as long as none does there: an image can be made some lines at a
 * time. */
typedef struct conv_shape {
    int batch, in_h, in_w, in_c, out_h, out_w, out_c;
    int kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, pad_top, pad_left, groups;
} conv_shape;

typedef struct conv_kernel {
    const char *name;
    unsigned    needs; /* CPU_... bits */
    bool (*fits)(const conv_shape *s);
    size_t (*packed_size)(const conv_shape *s);
    /* w: [out_c][in_c / groups][kernel_h][kernel_w] (ONNX order); bias: [out_c] or NULL. The zero
     * point's part, -x_zero * sum(w), is folded in. packed: packed_size bytes, aligned to 64; it
     * serves any batch, that of a kernel of one tap any in_h, in_w, out_h and out_w, too. */
    void (*pack)(const conv_shape *s, const int8_t *w, const int32_t *bias, int x_zero,
                 void *packed);
    size_t (*scratch_size)(const conv_shape *s); /* per thread, aligned to 64 */
    void (*run)(const conv_shape *s, const void *packed, const uint8_t *x, int x_zero,
                const requant *q, uint8_t *y, void *scratch, int thread, int n_threads);
    /* The exact int32 sums before the requantization, bias and zero point's part included:
     * y [batch][out_h][out_w][out_c]. Padding reads this x_zero, whatever pack was given. */
    void (*run_sums)(const conv_shape *s, const void *packed, const uint8_t *x, int x_zero,
                     int32_t *y, void *scratch, int thread, int n_threads);
} conv_kernel;
extern const conv_kernel conv_u8s8[];
const conv_kernel *conv_pick(const conv_shape *s);

/* Transposed convolution (ONNX ConvTranspose): w [in_c][out_c / groups][kernel_h][kernel_w]; the
 * shape's in/out are the operator's own input and output; pads are the operator's. Plain C; the
 * zero point is that of run and run_sums, pack folds nothing in. */
extern const conv_kernel conv_transpose_u8s8[];

/* --- products with float32 results: dynamic quantization ---------------------------------------
 * y[r][c] = (float)acc * (x_scale * w_scale[c]) + bias[c], acc = sum over k of (x[r][k] - x_zero) *
 * w[c][k]: exact int32 (|acc| and 255 * sum |w| < 2^31), then float32 products and one sum, each
 * rounded on its own. bias NULL: no sum. Rows of x are x_stride bytes apart, those of y y_stride
 * floats. */
typedef struct product_shape {
    size_t rows;
    int    k, n; /* >= 1 */
    size_t x_stride, y_stride;
} product_shape;
typedef struct product_q {
    float        x_scale;
    int          x_zero;  /* 0 to 255 */
    const float *w_scale; /* [n] */
    const float *bias;    /* [n] or NULL */
} product_q;
typedef struct product_kernel {
    const char *name;
    unsigned    needs;
    size_t (*packed_size)(int k, int n);
    /* w: [n][k]; packed: aligned to 64. */
    void (*pack)(int k, int n, const int8_t *w, void *packed);
    size_t (*scratch_size)(int k); /* per thread, aligned to 64 */
    void (*run)(const product_shape *s, const void *packed, const uint8_t *x, const product_q *q,
                float *y, void *scratch, int thread, int n_threads);
} product_kernel;
extern const product_kernel product_u8s8[];

/* The smallest and largest of 0 and x; NaN counts as 0. */
typedef struct range_kernel {
    const char *name;
    unsigned    needs;
    void (*run)(const float *x, size_t n, float *lo, float *hi);
} range_kernel;
extern const range_kernel range_f32[];

/* --- elementwise ------------------------------------------------------------------------------ */
/* Add and Mul by the float32 formulas of docs/arithmetic.md: ONNX Runtime's bytes.
 * b_step = 1: b has n elements; 0: b is one element. y may be a or b.
 * add_u8: a_scale or b_scale may be negative, which makes it Sub. */
typedef struct binary_q {
    float a_scale, b_scale, y_scale;
    int   a_zero, b_zero, y_zero, lo, hi;
} binary_q;
typedef struct binary_kernel {
    const char *name;
    unsigned    needs;
    void (*run)(const uint8_t *a, const uint8_t *b, int b_step, size_t n, const binary_q *q,
                uint8_t *y);
} binary_kernel;
extern const binary_kernel add_u8[], mul_u8[];

/* y[i] = table[x[i]]; y may be x. */
typedef struct table_kernel {
    const char *name;
    unsigned    needs;
    void (*run)(const uint8_t *x, size_t n, const uint8_t table[256], uint8_t *y);
} table_kernel;
extern const table_kernel table_u8[];
/* table[q] = clamp(rne(f(x_scale * (q - x_zero)) / y_scale) + y_zero): the argument in float32 as
 * DequantizeLinear gives it, f in double, its result rounded to float32, then as QuantizeLinear. */
void table_make(double (*f)(double x, const void *ctx), const void *ctx, float x_scale, int x_zero,
                float y_scale, int y_zero, int lo, int hi, uint8_t table[256]);

/* QuantizeLinear: q = clamp(rne(x / scale) + zero, lo, hi), float32 division; NaN gives the
 * zero point (clamped to [lo, hi] too). */
typedef struct quantize_kernel {
    const char *name;
    unsigned    needs;
    void (*run)(const float *x, size_t n, float scale, int zero, int lo, int hi, uint8_t *y);
} quantize_kernel;
extern const quantize_kernel quantize_u8[];
/* The same from planes to channels-last: y[i * channels + c] = q of x[c * plane + i], i < n;
 * channels: 1 to 4. */
typedef struct quantize_planes_kernel {
    const char *name;
    unsigned    needs;
    void (*run)(const float *x, size_t plane, size_t n, int channels, float scale, int zero, int lo,
                int hi, uint8_t *y);
} quantize_planes_kernel;
extern const quantize_planes_kernel quantize_planes_u8[];
/* DequantizeLinear: y = (float)(q - zero) * scale. */
typedef struct dequantize_kernel {
    const char *name;
    unsigned    needs;
    void (*run)(const uint8_t *x, size_t n, float scale, int zero, float *y);
} dequantize_kernel;
extern const dequantize_kernel dequantize_u8[];

/* --- pools ------------------------------------------------------------------------------------ */
typedef struct pool_shape {
    int  batch, in_h, in_w, channels, out_h, out_w;
    int  kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, pad_top, pad_left;
    bool count_pad; /* AveragePool's count_include_pad */
} pool_shape;
typedef struct pool_q {
    float x_scale, y_scale;
    int   x_zero, y_zero, lo, hi;
} pool_q;
typedef struct pool_kernel {
    const char *name;
    unsigned    needs;
    /* Max pools use of q only lo and hi (the output has the input's parameters); NULL: no clamp.
     * A window with no input in it gives lo, in average pools the value 0. */
    void (*run)(const pool_shape *s, const uint8_t *x, const pool_q *q, uint8_t *y, int thread,
                int n_threads);
} pool_kernel;
extern const pool_kernel max_pool_u8[], avg_pool_u8[];
/* GlobalAveragePool: exact integer sums, another formula than an AveragePool as large as the image
 * (so has ONNX Runtime). Of the shape only batch, in_h, in_w and channels count;
 * in_h * in_w <= 2^23. */
extern const pool_kernel global_avg_pool_u8[];

/* --- movement --------------------------------------------------------------------------------- */
/* y[i0]..[ir] = x[...]: dims of the loop, strides in elements of either side (0 repeats, negative
 * goes back): Transpose, Slice, Concat, Pad's inside, DepthToSpace, nearest resize by an integer,
 * layout changes. elem: 1, 2, 4 or 8 bytes. */
#define COPY_MAX_RANK 8
typedef struct copy_shape {
    int     rank, elem;
    int64_t dims[COPY_MAX_RANK], x_strides[COPY_MAX_RANK], y_strides[COPY_MAX_RANK];
} copy_shape;
void copy_strided(const copy_shape *s, const void *x, void *y, int thread, int n_threads);
/* Merges and reorders dims so that the inner loops are long; call once at plan time. */
void copy_shape_normalise(copy_shape *s);

/* Resize, channels-last. nearest: x row rows[oh], column cols[ow]. linear: two taps a side with
 * float32 weights, computed on dequantized values and quantized (docs/arithmetic.md). For ONNX
 * Runtime's bytes w0 = |at - i1| and w1 = |at - i0| in float32, 0.5 each where i0 = i1. */
void resize_nearest_u8(const uint8_t *x, int batch, int in_h, int in_w, int channels,
                       const int32_t *rows, int out_h, const int32_t *cols, int out_w, uint8_t *y,
                       int thread, int n_threads);
typedef struct resize_tap {
    int32_t i0, i1;
    float   w0, w1;
} resize_tap;
void resize_linear_u8(const uint8_t *x, int batch, int in_h, int in_w, int channels,
                      const resize_tap *rows, int out_h, const resize_tap *cols, int out_w,
                      const pool_q *q, uint8_t *y, int thread, int n_threads);

/* Softmax over `n` contiguous elements, `outer` times: exact integer maximum, exponentials by a
 * table of float32, their float32 sum, one division, requantized. */
void softmax_u8(const uint8_t *x, size_t outer, size_t n, float x_scale, float y_scale, int y_zero,
                int lo, int hi, uint8_t *y, int thread, int n_threads);

#endif
