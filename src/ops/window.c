#include "ops/window.h"

#include <string.h>

/* No window comes near it, and (2^30)^2 leaves room to add in int64. */
#define WINDOW_LIMIT (INT64_C(1) << 30)

typedef enum auto_pad {
    PAD_GIVEN,
    PAD_SAME_UPPER,
    PAD_SAME_LOWER,
    PAD_VALID,
} auto_pad;

static rung_status read_auto_pad(const node *n, auto_pad *out, rung_error *err)
{
    static const char *const names[] = {"NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"};
    const char *s = node_string(n, "auto_pad", "NOTSET");
    for (int i = 0; i < 4; i++) {
        if (strcmp(s, names[i]) == 0) {
            *out = (auto_pad)i;
            return RUNG_OK;
        }
    }
    return fail(err, RUNG_EMODEL,
                "auto_pad is '%.40s', not NOTSET, SAME_UPPER, SAME_LOWER or VALID", s);
}

/* An attribute of `count` ints in [lo, WINDOW_LIMIT), or `otherwise` everywhere. */
static rung_status read_ints(const node *n, const char *name, int count, int64_t lo,
                             int64_t otherwise, int64_t *out, rung_error *err)
{
    const int64_t *v = NULL;
    const size_t have = node_ints(n, name, &v);
    if (have != 0 && have != (size_t)count)
        return fail(err, RUNG_EMODEL, "%s has %zu entries, the input's shape asks for %d", name,
                    have, count);
    for (int i = 0; i < count; i++) {
        out[i] = have ? v[i] : otherwise;
        if (have && (out[i] < lo || out[i] >= WINDOW_LIMIT))
            return fail(err, RUNG_EMODEL, "%s[%d] = %lld is not in [%lld, 2^30)", name, i,
                        (long long)out[i], (long long)lo);
    }
    return RUNG_OK;
}

static rung_status check_dims(int rank, const int64_t *dims, window *w, rung_error *err)
{
    if (rank < 3)
        return fail(err, RUNG_EMODEL, "the input has rank %d; a window needs 3 or more", rank);
    w->n = rank - 2;
    for (int i = 2; i < rank; i++) {
        if (dims[i] != DIM_UNKNOWN && (dims[i] < 1 || dims[i] >= WINDOW_LIMIT))
            return fail(err, RUNG_EMODEL, "dimension %d of the input is %lld, not in [1, 2^30)", i,
                        (long long)dims[i]);
    }
    return RUNG_OK;
}

static rung_status read_pads(const node *n, window *w, rung_error *err)
{
    int64_t pads[2 * WINDOW_MAX];
    const rung_status st = read_ints(n, "pads", 2 * w->n, 0, 0, pads, err);
    if (st != RUNG_OK)
        return st;
    for (int i = 0; i < w->n; i++) {
        w->begin[i] = pads[i];
        w->end[i] = pads[w->n + i];
    }
    return RUNG_OK;
}

/* What all three begin with: kernel (of the weight, or kernel_shape), strides, dilations, pads. */
static rung_status read_window(const node *n, int rank, const int64_t *dims, const int64_t *w_dims,
                               window *w, rung_error *err)
{
    rung_status st = check_dims(rank, dims, w, err);
    if (st != RUNG_OK)
        return st;
    if ((st = read_ints(n, "kernel_shape", w->n, 1, DIM_UNKNOWN, w->kernel, err)) != RUNG_OK ||
        (st = read_ints(n, "strides", w->n, 1, 1, w->strides, err)) != RUNG_OK ||
        (st = read_ints(n, "dilations", w->n, 1, 1, w->dilations, err)) != RUNG_OK ||
        (st = read_pads(n, w, err)) != RUNG_OK)
        return st;
    for (int i = 0; w_dims && i < w->n; i++) {
        const int64_t k = w_dims[i + 2];
        if (k == DIM_UNKNOWN)
            continue;
        if (k < 1 || k >= WINDOW_LIMIT)
            return fail(err, RUNG_EMODEL, "dimension %d of the weight is %lld, not in [1, 2^30)",
                        i + 2, (long long)k);
        if (w->kernel[i] != DIM_UNKNOWN && w->kernel[i] != k)
            return fail(err, RUNG_EMODEL, "kernel_shape[%d] = %lld, but the weight has %lld", i,
                        (long long)w->kernel[i], (long long)k);
        w->kernel[i] = k;
    }
    return RUNG_OK;
}

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* Splits `total` padding; the odd one goes to the end (upper) or to the beginning. */
static void split_pad(window *w, int i, int64_t total, bool upper)
{
    const int64_t small = total > 0 ? total / 2 : 0, large = total > 0 ? total - small : 0;
    w->begin[i] = upper ? small : large;
    w->end[i] = upper ? large : small;
}

/* out and, where auto_pad chooses them, begin and end of axis i. */
static rung_status slide(window *w, int i, int64_t in, auto_pad mode, bool ceil_mode,
                         rung_error *err)
{
    if (mode != PAD_GIVEN)
        w->begin[i] = w->end[i] = 0;
    w->out[i] = DIM_UNKNOWN;
    if (in == DIM_UNKNOWN || w->kernel[i] == DIM_UNKNOWN)
        return RUNG_OK;
    const int64_t extent = (w->kernel[i] - 1) * w->dilations[i] + 1, stride = w->strides[i];
    if (mode == PAD_SAME_UPPER || mode == PAD_SAME_LOWER) {
        w->out[i] = ceil_div(in, stride);
        split_pad(w, i, (w->out[i] - 1) * stride + extent - in, mode == PAD_SAME_UPPER);
        return RUNG_OK;
    }
    const int64_t room = in + w->begin[i] + w->end[i] - extent;
    if (room < 0)
        return fail(err, RUNG_EMODEL,
                    "on spatial axis %d the window covers %lld, the padded input has %lld", i,
                    (long long)extent, (long long)(room + extent));
    const bool up = ceil_mode && mode == PAD_GIVEN;
    w->out[i] = (up ? ceil_div(room, stride) : room / stride) + 1;
    if (up && (w->out[i] - 1) * stride >= in + w->begin[i])
        w->out[i]--;
    return RUNG_OK;
}

rung_status window_conv(const node *n, int rank, const int64_t *dims, const int64_t *w_dims,
                        window *w, rung_error *err)
{
    auto_pad mode = PAD_GIVEN;
    rung_status st = read_window(n, rank, dims, w_dims, w, err);
    if (st == RUNG_OK)
        st = read_auto_pad(n, &mode, err);
    for (int i = 0; st == RUNG_OK && i < w->n; i++)
        st = slide(w, i, dims[i + 2], mode, false, err);
    return st;
}

rung_status window_pool(const node *n, int rank, const int64_t *dims, window *w, rung_error *err)
{
    auto_pad mode = PAD_GIVEN;
    rung_status st = read_window(n, rank, dims, NULL, w, err);
    if (st == RUNG_OK)
        st = read_auto_pad(n, &mode, err);
    if (st == RUNG_OK && w->kernel[0] == DIM_UNKNOWN)
        st = fail(err, RUNG_EMODEL, "the attribute kernel_shape is missing");
    for (int i = 0; st == RUNG_OK && mode == PAD_GIVEN && i < w->n; i++) {
        if (w->begin[i] >= w->kernel[i] || w->end[i] >= w->kernel[i])
            st = fail(err, RUNG_EMODEL,
                      "on spatial axis %d the pads are not smaller than the kernel", i);
    }
    for (int i = 0; st == RUNG_OK && i < w->n; i++)
        st = slide(w, i, dims[i + 2], mode, node_int(n, "ceil_mode", 0) != 0, err);
    return st;
}

/* Axis i of a transposed convolution; wanted: its output_shape, DIM_UNKNOWN when not given. */
static rung_status slide_transposed(window *w, int i, int64_t in, auto_pad mode, int64_t extra,
                                    int64_t wanted, rung_error *err)
{
    if (mode != PAD_GIVEN)
        w->begin[i] = w->end[i] = 0;
    w->out[i] = DIM_UNKNOWN;
    if (in == DIM_UNKNOWN || w->kernel[i] == DIM_UNKNOWN)
        return RUNG_OK;
    const int64_t full =
        (in - 1) * w->strides[i] + extra + (w->kernel[i] - 1) * w->dilations[i] + 1;
    if (wanted == DIM_UNKNOWN && (mode == PAD_SAME_UPPER || mode == PAD_SAME_LOWER))
        wanted = in * w->strides[i];
    if (wanted != DIM_UNKNOWN) {
        w->out[i] = wanted;
        split_pad(w, i, full - wanted, mode == PAD_SAME_UPPER);
        return RUNG_OK;
    }
    w->out[i] = full - w->begin[i] - w->end[i];
    if (w->out[i] < 1)
        return fail(err, RUNG_EMODEL, "on spatial axis %d the pads leave %lld of %lld positions", i,
                    (long long)w->out[i], (long long)full);
    return RUNG_OK;
}

rung_status window_conv_transpose(const node *n, int rank, const int64_t *dims,
                                  const int64_t *w_dims, window *w, rung_error *err)
{
    auto_pad mode = PAD_GIVEN;
    int64_t extra[WINDOW_MAX], wanted[WINDOW_MAX];
    rung_status st = read_window(n, rank, dims, w_dims, w, err);
    if (st == RUNG_OK)
        st = read_auto_pad(n, &mode, err);
    if (st == RUNG_OK)
        st = read_ints(n, "output_padding", w->n, 0, 0, extra, err);
    if (st == RUNG_OK)
        st = read_ints(n, "output_shape", w->n, 1, DIM_UNKNOWN, wanted, err);
    for (int i = 0; st == RUNG_OK && i < w->n; i++)
        st = slide_transposed(w, i, dims[i + 2], mode, extra[i], wanted[i], err);
    return st;
}
