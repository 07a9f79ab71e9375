#include "ops/resize.h"

#include <math.h>
#include <string.h>

#include "ops/element.h"
#include "ops/entries.h"
#include "ops/grad.h"
#include "ops/lower.h"
#include "ops/move.h"

/* --- attributes and sizes --------------------------------------------------------------------- */
static rung_status choose(const node *n, const char *name, const char *const *words, int count,
                          int *out, rung_error *err)
{
    const char *word = node_string(n, name, words[0]);
    for (*out = 0; *out < count; ++*out) {
        if (strcmp(word, words[*out]) == 0)
            return RUNG_OK;
    }
    return fail(err, RUNG_EMODEL, "%s is '%.40s', which ONNX does not know", name, word);
}

static rung_status read_attributes(const node *n, resize *r, rung_error *err)
{
    static const char *const modes[] = {"nearest", "linear", "cubic"};
    static const char *const rounds[] = {"round_prefer_floor", "round_prefer_ceil", "floor",
                                         "ceil"};
    static const char *const coordinates[] = {
        "half_pixel",    "half_pixel_symmetric", "pytorch_half_pixel",
        "align_corners", "asymmetric",           "tf_crop_and_resize",
    };
    int mode, rounding, coordinate;
    rung_status st;
    if ((st = choose(n, "mode", modes, 3, &mode, err)) ||
        (st = choose(n, "nearest_mode", rounds, 4, &rounding, err)) ||
        (st = choose(n, "coordinate_transformation_mode", coordinates, 6, &coordinate, err)))
        return st;
    r->mode = (resize_mode)mode;
    r->round = (resize_round)rounding;
    r->coordinates = (resize_coordinates)coordinate;
    r->antialias = node_int(n, "antialias", 0) != 0;
    r->exclude_outside = node_int(n, "exclude_outside", 0) != 0;
    r->cubic_a = node_float(n, "cubic_coeff_a", -0.75f);
    return RUNG_OK;
}

/* The axes that scales and sizes speak of, in their order: all without the attribute. */
static rung_status resized_axes(const node *n, int rank, axes *out, rung_error *err)
{
    static const int64_t all[RUNG_MAX_RANK] = {0, 1, 2, 3, 4, 5, 6, 7};
    const int64_t *v = all;
    const size_t count = node_ints(n, "axes", &v);
    return op_axes(v, count ? count : (size_t)rank, rank, out, err);
}

static rung_status scale_axis(resize *r, int axis, double scale, rung_error *err)
{
    if (!(scale > 0) || !isfinite(scale))
        return fail(err, RUNG_EMODEL, "the scale of axis %d is %g", axis, scale);
    r->scale[axis] = (float)scale;
    if (r->in[axis] == DIM_UNKNOWN) {
        r->out[axis] = scale == 1 ? r->in[axis] : DIM_UNKNOWN;
        return RUNG_OK;
    }
    const float size = floorf((float)r->in[axis] * (float)scale);
    if (!(size < 0x1p48f))
        return fail(err, RUNG_EMODEL, "axis %d would grow to %g", axis, (double)size);
    r->out[axis] = (int64_t)size;
    return RUNG_OK;
}

static rung_status read_scales(resize *r, const tensor *scales, const axes *at, rung_error *err)
{
    const size_t n = tensor_count(scales);
    rung_status st = RUNG_OK;
    if (n != (size_t)at->n || !dtype_is_float(scales->type))
        return fail(err, RUNG_EMODEL, "%zu scales (%s) for %d axes", n, dtype_name(scales->type),
                    at->n);
    for (size_t i = 0; st == RUNG_OK && i < n; i++)
        st = scale_axis(r, at->at[i], tensor_get(scales, i), err);
    return st;
}

/* not_larger, not_smaller: one scale for all axes, the sizes follow it. */
static void keep_ratio(resize *r, const axes *at, bool larger)
{
    double scale = larger ? 0 : INFINITY;
    for (int i = 0; i < at->n; i++) {
        const double s = (double)r->out[at->at[i]] / (double)r->in[at->at[i]];
        scale = larger ? fmax(scale, s) : fmin(scale, s);
    }
    for (int i = 0; i < at->n; i++) {
        const int axis = at->at[i];
        r->scale[axis] = (float)scale;
        r->out[axis] = (int64_t)floor(scale * (double)r->in[axis] + 0.5);
    }
}

static rung_status read_sizes(const node *n, resize *r, const tensor *sizes, const axes *at,
                              rung_error *err)
{
    static const char *const policies[] = {"stretch", "not_larger", "not_smaller"};
    int64_t v[RUNG_MAX_RANK];
    size_t count = 0;
    int policy;
    bool all_known = true;
    rung_status st;
    if ((st = choose(n, "keep_aspect_ratio_policy", policies, 3, &policy, err)) ||
        (st = op_ints(sizes, "sizes", RUNG_MAX_RANK, v, &count, err)))
        return st;
    if (count != (size_t)at->n)
        return fail(err, RUNG_EMODEL, "%zu sizes for %d axes", count, at->n);
    for (int i = 0; i < at->n; i++) {
        const int axis = at->at[i];
        if (v[i] < 1 || r->in[axis] == 0)
            return fail(err, RUNG_EMODEL, "axis %d of %lld cannot become %lld", axis,
                        (long long)r->in[axis], (long long)v[i]);
        r->out[axis] = v[i];
        all_known = all_known && r->in[axis] != DIM_UNKNOWN;
        if (r->in[axis] != DIM_UNKNOWN)
            r->scale[axis] = (float)v[i] / (float)r->in[axis];
    }
    if (policy == 0)
        return RUNG_OK;
    if (all_known)
        keep_ratio(r, at, policy == 2);
    for (int i = 0; !all_known && i < at->n; i++)
        r->out[at->at[i]] = DIM_UNKNOWN;
    return RUNG_OK;
}

rung_status resize_of(const node *n, const tensor *scales, const tensor *sizes, int rank,
                      const int64_t *dims, resize *out, rung_error *err)
{
    axes at;
    rung_status st;
    memset(out, 0, sizeof *out);
    out->rank = rank;
    for (int i = 0; i < rank; i++) {
        out->in[i] = out->out[i] = dims[i];
        out->scale[i] = 1;
    }
    /* An empty tensor stands for an absent one. */
    const tensor *by = scales && tensor_count(scales) > 0 ? scales : NULL;
    const tensor *to = sizes && tensor_count(sizes) > 0 ? sizes : NULL;
    if ((st = read_attributes(n, out, err)) || (st = resized_axes(n, rank, &at, err)))
        return st;
    if (!by == !to)
        return fail(err, RUNG_EMODEL, "one of scales and sizes must be given");
    return by ? read_scales(out, by, &at, err) : read_sizes(n, out, to, &at, err);
}

static rung_status resize_infer(const infer_args *a, rung_error *err)
{
    resize r;
    int64_t dims[RUNG_MAX_RANK];
    rung_status st;
    if ((st = op_counts(a, 1, 4, 1, err)) || (st = op_type(a, 3, TYPE(RUNG_I64), err)))
        return st;
    const value_info *x = a->in[0], *scales = op_in(a, 2), *sizes = op_in(a, 3);
    a->out[0].type = x->type;
    if (x->rank < 0)
        return RUNG_OK;
    if ((scales && !scales->data) || (sizes && !sizes->data)) {
        for (int i = 0; i < x->rank; i++)
            dims[i] = DIM_UNKNOWN;
        return op_shape(&a->out[0], x->type, x->rank, dims, err);
    }
    if ((st = resize_of(a->n, scales ? scales->data : NULL, sizes ? sizes->data : NULL, x->rank,
                        x->dims, &r, err)))
        return st;
    return op_shape(&a->out[0], x->type, x->rank, r.out, err);
}

/* --- coordinates ------------------------------------------------------------------------------ */
/* Where output index o lies on the input's axis. In float32, as runtimes do: ties decide. */
static float coordinate(const resize *r, int axis, int64_t o)
{
    const float x = (float)o, scale = r->scale[axis], in = (float)r->in[axis];
    const float length = scale * in; /* may be no integer */
    switch (r->coordinates) {
    case COORD_ASYMMETRIC:
        return x / scale;
    case COORD_ALIGN_CORNERS:
        return length == 1 ? 0 : x * (in - 1) / (length - 1);
    case COORD_PYTORCH_HALF_PIXEL:
        return r->out[axis] == 1 ? -0.5f : (x + 0.5f) / scale - 0.5f;
    case COORD_HALF_PIXEL_SYMMETRIC:
        return in / 2 * (1 - (float)r->out[axis] / length) + (x + 0.5f) / scale - 0.5f;
    case COORD_HALF_PIXEL:
    case COORD_TF_CROP_AND_RESIZE:
        break;
    }
    return (x + 0.5f) / scale - 0.5f;
}

static int64_t clamp_index(float at, int64_t dim)
{
    return at < 0 ? 0 : at > (float)(dim - 1) ? dim - 1 : (int64_t)at;
}

int64_t resize_index(const resize *r, int axis, int64_t o)
{
    if (r->scale[axis] == 1 && r->in[axis] == r->out[axis])
        return o;
    const float at = coordinate(r, axis, o);
    switch (r->round) {
    case ROUND_FLOOR:
        return clamp_index(floorf(at), r->in[axis]);
    case ROUND_CEIL:
        return clamp_index(ceilf(at), r->in[axis]);
    case ROUND_PREFER_CEIL:
        return clamp_index(floorf(at + 0.5f), r->in[axis]);
    case ROUND_PREFER_FLOOR:
        break;
    }
    return clamp_index(ceilf(at - 0.5f), r->in[axis]);
}

void resize_pair(const resize *r, int axis, int64_t o, int64_t *i0, int64_t *i1, float *w1)
{
    const float at = r->scale[axis] == 1 ? (float)o : coordinate(r, axis, o);
    const float low = floorf(at);
    *i0 = clamp_index(low, r->in[axis]);
    *i1 = clamp_index(low + 1, r->in[axis]);
    *w1 = *i0 == *i1 ? 0 : at - low;
}

/* --- evaluation ------------------------------------------------------------------------------- */
int resize_taps(const resize *r, int axis, int64_t o, int64_t *index, double *weight)
{
    if (r->mode == RESIZE_LINEAR) {
        float w1;
        resize_pair(r, axis, o, &index[0], &index[1], &w1);
        weight[0] = 1 - w1;
        weight[1] = w1;
        return 2;
    }
    const float at = coordinate(r, axis, o), low = floorf(at);
    const double a = r->cubic_a;
    double sum = 0;
    for (int i = 0; i < 4; i++) {
        const float place = low - 1 + (float)i;
        const double d = fabs((double)at - (double)place);
        weight[i] = d <= 1 ? ((a + 2) * d - (a + 3)) * d * d + 1
                           : ((a * d - 5 * a) * d + 8 * a) * d - 4 * a;
        if (r->exclude_outside && (place < 0 || place >= (float)r->in[axis]))
            weight[i] = 0;
        sum += weight[i];
        index[i] = clamp_index(place, r->in[axis]);
    }
    for (int i = 0; i < 4; i++)
        weight[i] /= sum;
    return 4;
}

/* y [outer, out, inner] from x [outer, in, inner] along one axis. */
static void resample(const resize *r, int axis, size_t outer, size_t inner, const double *x,
                     double *y)
{
    const size_t in = (size_t)r->in[axis], out = (size_t)r->out[axis];
    for (size_t o = 0; o < out; o++) {
        int64_t index[RESIZE_TAPS];
        double weight[RESIZE_TAPS];
        const int n = resize_taps(r, axis, (int64_t)o, index, weight);
        for (size_t i = 0; i < outer * inner; i++) {
            const size_t block = i / inner, at = i % inner;
            double sum = 0;
            for (int t = 0; t < n; t++)
                sum += weight[t] * x[(block * in + (size_t)index[t]) * inner + at];
            y[(block * out + o) * inner + at] = sum;
        }
    }
}

static rung_status eval_weighted(const eval_args *a, const resize *r, rung_error *err)
{
    int64_t dims[RUNG_MAX_RANK];
    size_t n = tensor_count(&a->in[0]);
    double *x = arena_zero(a->mem, n + 1, sizeof *x);
    if (!x)
        return fail_memory(err, "the input", n * sizeof *x);
    load_doubles(&a->in[0], 0, n, x);
    memcpy(dims, r->in, sizeof dims);
    for (int i = 0; i < r->rank; i++) {
        if (r->scale[i] == 1 && r->in[i] == r->out[i])
            continue;
        const size_t outer = dims_product(dims, 0, i), inner = dims_product(dims, i + 1, r->rank);
        dims[i] = r->out[i];
        n = dims_count(r->rank, dims);
        double *y = n == SIZE_MAX ? NULL : arena_zero(a->mem, n, sizeof *y);
        if (!y)
            return fail_memory(err, "a resampled axis", n);
        resample(r, i, outer, inner, x, y);
        x = y;
    }
    for (size_t i = 0; !dtype_is_float(a->out[0].type) && i < n; i++)
        x[i] = nearbyint(x[i]);
    store_doubles(&a->out[0], 0, n, x);
    return RUNG_OK;
}

rung_status resize_read(const eval_args *a, const tensor *y, resize *r, rung_error *err)
{
    const tensor *x = &a->in[0];
    rung_status st = resize_of(a->n, eval_in(a, 2), eval_in(a, 3), x->rank, x->dims, r, err);
    if (st || (st = check_movable(x->type, err)) ||
        (st = op_check_output(y, r->rank, r->out, err)))
        return st;
    if (r->coordinates == COORD_TF_CROP_AND_RESIZE || (r->antialias && r->mode != RESIZE_NEAREST))
        return fail(err, RUNG_EUNSUPPORTED, "tf_crop_and_resize and antialias are not supported");
    return RUNG_OK;
}

rung_status resize_maps(const eval_args *a, const resize *r, const tensor *y, int64_t **maps,
                        rung_error *err)
{
    if (!maps_alloc(a->mem, y, maps))
        return fail_memory(err, "index maps", (size_t)r->rank * sizeof **maps);
    for (int d = 0; d < r->rank; d++) {
        for (int64_t i = 0; i < r->out[d]; i++)
            maps[d][i] = resize_index(r, d, i);
    }
    return RUNG_OK;
}

static rung_status resize_eval(const eval_args *a, rung_error *err)
{
    resize r;
    int64_t *maps[RUNG_MAX_RANK];
    rung_status st = resize_read(a, &a->out[0], &r, err);
    if (st || tensor_count(&a->out[0]) == 0)
        return st;
    if (r.mode != RESIZE_NEAREST)
        return eval_weighted(a, &r, err);
    if ((st = resize_maps(a, &r, &a->out[0], maps, err)) == RUNG_OK)
        gather_mapped(&a->in[0], maps, NULL, &a->out[0]);
    return st;
}

/* Nearest could share its input's parameters; the pass that places pairs looks at the mode. */
const op_def op_resize = {
    .name = "Resize",
    .domain = "",
    .infer = resize_infer,
    .eval = resize_eval,
    .grad = resize_grad,
    .reads = {.in = 1 << 2},
    .lower = lower_resize,
    .quant = {QUANT_COMPUTE, .activations = 1},
    .layout = LAYOUT_CHANNELS,
};
