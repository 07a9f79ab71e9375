/* Normalizations: batch, instance, group, layer, RMS, LRN, Lp. Statistics in double. */
#include <math.h>

#include "ops/args.h"
#include "ops/element.h"
#include "ops/entries.h"
#include "ops/grad.h"

/* --- shapes ----------------------------------------------------------------------------------- */
/* Inputs 1 .. last are vectors of the input's channels. */
static rung_status channel_infer(const infer_args *a, int last, rung_error *err)
{
    rung_status st;
    dtype type;
    if ((st = op_same_type(a, 0, 0, TYPES_FLOAT, &type, err)) || (st = op_min_rank(a, 0, 2, err)))
        return st;
    const value_info *x = a->in[0];
    for (int i = 1; i <= last; i++) {
        if ((st = op_type(a, i, TYPES_FLOAT, err)) ||
            (st = op_vector(a, i, x->rank < 0 ? DIM_UNKNOWN : x->dims[1], err)))
            return st;
    }
    return op_like(a, 0, 0, type, err);
}

static rung_status batch_norm_infer(const infer_args *a, rung_error *err)
{
    rung_status st;
    if ((st = op_counts(a, 5, 5, 3, err)) || (st = channel_infer(a, 4, err)))
        return st;
    for (int i = 1; i < a->n->n_outputs; i++) {
        if ((st = op_like(a, i + 2, i, a->in[i + 2]->type, err)))
            return st;
    }
    return RUNG_OK;
}

static rung_status instance_norm_infer(const infer_args *a, rung_error *err)
{
    const rung_status st = op_counts(a, 3, 3, 1, err);
    return st ? st : channel_infer(a, 2, err);
}

static rung_status group_norm_infer(const infer_args *a, rung_error *err)
{
    rung_status st;
    const int64_t groups = node_int(a->n, "num_groups", 0);
    if ((st = op_counts(a, 3, 3, 1, err)) || (st = op_type(a, 0, TYPES_FLOAT, err)) ||
        (st = op_min_rank(a, 0, 3, err)))
        return st;
    const value_info *x = a->in[0];
    const int64_t channels = x->rank < 0 ? DIM_UNKNOWN : x->dims[1];
    if (groups < 1 || (channels != DIM_UNKNOWN && channels % groups != 0))
        return fail(err, RUNG_EMODEL, "num_groups = %lld does not divide %lld channels",
                    (long long)groups, (long long)channels);
    /* Opset 18 had one scale a group, 21 and later one a channel. */
    const int64_t want = a->opset < 21 ? groups : channels;
    if ((st = op_vector(a, 1, want, err)) || (st = op_vector(a, 2, want, err)))
        return st;
    return op_like(a, 0, 0, x->type, err);
}

/* Input i broadcasts to x, one way only. */
static rung_status check_scale_shape(const value_info *x, const value_info *s, int i,
                                     rung_error *err)
{
    if (!s || s->rank < 0 || x->rank < 0)
        return RUNG_OK;
    for (int d = 0; d < s->rank; d++) {
        const int at = x->rank - s->rank + d;
        if (at < 0 || (s->dims[d] != 1 && s->dims[d] != DIM_UNKNOWN &&
                       x->dims[at] != DIM_UNKNOWN && s->dims[d] != x->dims[at]))
            return fail(err, RUNG_EMODEL, "input %d does not broadcast to the input's shape", i);
    }
    return RUNG_OK;
}

static rung_status layer_norm_infer(const infer_args *a, rung_error *err)
{
    int axis = 0;
    int64_t dims[RUNG_MAX_RANK];
    rung_status st;
    if ((st = op_counts(a, 2, 3, 3, err)) || (st = op_type(a, 0, TYPES_FLOAT, err)) ||
        (st = op_min_rank(a, 0, 1, err)))
        return st;
    const value_info *x = a->in[0];
    for (int i = 1; i < 3; i++) {
        if ((st = op_type(a, i, TYPES_FLOAT, err)) ||
            (st = check_scale_shape(x, op_in(a, i), i, err)))
            return st;
    }
    if ((st = op_like(a, 0, 0, x->type, err)) || x->rank < 0)
        return st;
    if ((st = op_axis(node_int(a->n, "axis", -1), x->rank, &axis, err)))
        return st;
    for (int i = 0; i < x->rank; i++)
        dims[i] = i < axis ? x->dims[i] : 1;
    for (int i = 1; st == RUNG_OK && i < a->n->n_outputs; i++)
        st = op_shape(&a->out[i], RUNG_F32, x->rank, dims, err);
    return st;
}

static rung_status lrn_infer(const infer_args *a, rung_error *err)
{
    rung_status st;
    if ((st = op_counts(a, 1, 1, 1, err)) || (st = op_type(a, 0, TYPES_FLOAT, err)) ||
        (st = op_min_rank(a, 0, 2, err)))
        return st;
    if (node_int(a->n, "size", 0) < 1)
        return fail(err, RUNG_EMODEL, "size = %lld is not positive",
                    (long long)node_int(a->n, "size", 0));
    return op_like(a, 0, 0, a->in[0]->type, err);
}

static rung_status lp_norm_infer(const infer_args *a, rung_error *err)
{
    int axis = 0;
    const int64_t p = node_int(a->n, "p", 2);
    rung_status st;
    if ((st = op_counts(a, 1, 1, 1, err)) || (st = op_type(a, 0, TYPES_FLOAT, err)))
        return st;
    if (p != 1 && p != 2)
        return fail(err, RUNG_EMODEL, "p = %lld is not 1 or 2", (long long)p);
    if (op_knows_rank(a, 0) &&
        (st = op_axis(node_int(a->n, "axis", -1), a->in[0]->rank, &axis, err)))
        return st;
    return op_like(a, 0, 0, a->in[0]->type, err);
}

/* --- evaluation ------------------------------------------------------------------------------- */
static void put(tensor *y, size_t i, double v)
{
    store_doubles(y, i, 1, &v);
}

typedef struct moments {
    double mean, scale; /* scale = 1 / sqrt(variance + epsilon) */
} moments;

/* Of elements first .. first+n-1; rms: about zero instead of about the mean. */
static moments moments_of(const tensor *x, size_t first, size_t n, double epsilon, bool rms)
{
    double mean = 0, variance = 0;
    for (size_t i = 0; !rms && i < n; i++)
        mean += tensor_get(x, first + i) / (double)n;
    for (size_t i = 0; i < n; i++) {
        const double d = tensor_get(x, first + i) - mean;
        variance += d * d / (double)n;
    }
    return (moments){mean, 1 / sqrt(variance + epsilon)};
}

static rung_status batch_norm_eval(const eval_args *a, rung_error *err)
{
    const tensor *x = &a->in[0];
    const double epsilon = node_float(a->n, "epsilon", 1e-5f);
    const size_t inner = dims_product(x->dims, 2, x->rank), n = tensor_count(x);
    if (node_int(a->n, "training_mode", 0) != 0)
        return fail(err, RUNG_EUNSUPPORTED, "training_mode is on; rung only does inference");
    for (size_t i = 0; i < n; i++) {
        const size_t c = i / inner % (size_t)x->dims[1];
        const double scale = tensor_get(&a->in[1], c) / sqrt(tensor_get(&a->in[4], c) + epsilon);
        const double shift = tensor_get(&a->in[2], c) - tensor_get(&a->in[3], c) * scale;
        put(&a->out[0], i, tensor_get(x, i) * scale + shift);
    }
    return RUNG_OK;
}

/* Groups of neighbouring channels of one image; one scale and bias per `per` channels. */
static void eval_groups(const eval_args *a, size_t groups, size_t per)
{
    const tensor *x = &a->in[0];
    const size_t inner = dims_product(x->dims, 2, x->rank), channels = (size_t)x->dims[1];
    if (channels == 0)
        return;
    const size_t size = channels / groups * inner;
    for (size_t g = 0; size && g < (size_t)x->dims[0] * groups; g++) {
        const moments m = moments_of(x, g * size, size, node_float(a->n, "epsilon", 1e-5f), false);
        for (size_t i = g * size; i < (g + 1) * size; i++) {
            const size_t c = i / inner % channels / per;
            put(&a->out[0], i, (tensor_get(x, i) - m.mean) * m.scale * tensor_get(&a->in[1], c) +
                                   tensor_get(&a->in[2], c));
        }
    }
}

static rung_status instance_norm_eval(const eval_args *a, rung_error *err)
{
    eval_groups(a, (size_t)a->in[0].dims[1], 1);
    return RUNG_OK;
}

static rung_status group_norm_eval(const eval_args *a, rung_error *err)
{
    const size_t groups = (size_t)node_int(a->n, "num_groups", 1);
    eval_groups(a, groups, a->opset < 21 ? (size_t)a->in[0].dims[1] / groups : 1);
    return RUNG_OK;
}

/* Element offset of scale s (broadcast to the last axes of x) for element i of x. */
static size_t scale_offset(const tensor *x, const tensor *s, size_t i)
{
    size_t offset = 0, hop = 1;
    for (int d = x->rank - 1, k = s->rank - 1; k >= 0; d--, k--) {
        const size_t at = i % (size_t)x->dims[d];
        offset += s->dims[k] == 1 ? 0 : at * hop;
        hop *= (size_t)s->dims[k];
        i /= (size_t)x->dims[d];
    }
    return offset;
}

static rung_status eval_layer(const eval_args *a, bool rms, rung_error *err)
{
    const tensor *x = &a->in[0], *s = &a->in[1], *b = eval_in(a, 2);
    int axis = 0;
    const rung_status st = op_axis(node_int(a->n, "axis", -1), x->rank, &axis, err);
    if (st)
        return st;
    const size_t size = dims_product(x->dims, axis, x->rank), n = dims_product(x->dims, 0, axis);
    for (size_t o = 0; size && o < n; o++) {
        const moments m = moments_of(x, o * size, size, node_float(a->n, "epsilon", 1e-5f), rms);
        for (size_t i = o * size; i < (o + 1) * size; i++) {
            const double v = (tensor_get(x, i) - m.mean) * m.scale;
            put(&a->out[0], i, v * tensor_get(s, scale_offset(x, s, i)) +
                                   (b ? tensor_get(b, scale_offset(x, b, i)) : 0));
        }
        if (a->n_out > 1 && a->out[1].data)
            put(&a->out[1], o, m.mean);
        if (a->n_out > 2 && a->out[2].data)
            put(&a->out[2], o, m.scale);
    }
    return RUNG_OK;
}

static rung_status layer_norm_eval(const eval_args *a, rung_error *err)
{
    return eval_layer(a, false, err);
}

static rung_status rms_norm_infer(const infer_args *a, rung_error *err)
{
    const rung_status st = op_counts(a, 2, 2, 1, err);
    return st ? st : layer_norm_infer(a, err);
}

static rung_status rms_norm_eval(const eval_args *a, rung_error *err)
{
    return eval_layer(a, true, err);
}

static rung_status lrn_eval(const eval_args *a, rung_error *err)
{
    const tensor *x = &a->in[0];
    const int64_t size = node_int(a->n, "size", 1), channels = x->dims[1];
    const double alpha = node_float(a->n, "alpha", 1e-4f), beta = node_float(a->n, "beta", 0.75f);
    const double bias = node_float(a->n, "bias", 1), per = alpha / (double)size;
    const size_t inner = dims_product(x->dims, 2, x->rank), n = tensor_count(x);
    const int64_t before = (size - 1) / 2, behind = size - 1 - before;
    for (size_t i = 0; i < n; i++) {
        const int64_t c = (int64_t)(i / inner) % channels;
        const int64_t first = c < before ? 0 : c - before;
        const int64_t last = behind > channels - 1 - c ? channels - 1 : c + behind;
        double sum = 0;
        for (int64_t k = first; k <= last; k++) {
            const double v = tensor_get(x, i + (size_t)(k - c) * inner);
            sum += v * v;
        }
        put(&a->out[0], i, tensor_get(x, i) / pow(bias + per * sum, beta));
    }
    return RUNG_OK;
}

static rung_status lp_norm_eval(const eval_args *a, rung_error *err)
{
    const tensor *x = &a->in[0];
    int axis = 0;
    const rung_status st = op_axis(node_int(a->n, "axis", -1), x->rank, &axis, err);
    if (st)
        return st;
    const bool square = node_int(a->n, "p", 2) == 2;
    const size_t outer = dims_product(x->dims, 0, axis), n = (size_t)x->dims[axis];
    const size_t inner = dims_product(x->dims, axis + 1, x->rank);
    for (size_t o = 0; o < outer * inner; o++) {
        const size_t first = o / inner * n * inner + o % inner;
        double sum = 0;
        for (size_t i = 0; i < n; i++) {
            const double v = tensor_get(x, first + i * inner);
            sum += square ? v * v : fabs(v);
        }
        const double norm = square ? sqrt(sum) : sum;
        for (size_t i = 0; i < n; i++)
            put(&a->out[0], first + i * inner,
                norm == 0 ? 0 : tensor_get(x, first + i * inner) / norm);
    }
    return RUNG_OK;
}

const op_def op_batch_normalization = {.name = "BatchNormalization", .domain = "",
                                       .infer = batch_norm_infer, .eval = batch_norm_eval,
                                       .grad = batch_norm_grad,
                                       .reads = {.in = 1 | 1 << 1 | 1 << 3 | 1 << 4}};
const op_def op_group_normalization = {.name = "GroupNormalization", .domain = "",
                                       .infer = group_norm_infer, .eval = group_norm_eval,
                                       .grad = group_norm_grad, .reads = {.in = 1 | 2}};
const op_def op_instance_normalization = {.name = "InstanceNormalization", .domain = "",
                                          .infer = instance_norm_infer,
                                          .eval = instance_norm_eval,
                                          .grad = instance_norm_grad, .reads = {.in = 1 | 2}};
const op_def op_layer_normalization = {.name = "LayerNormalization", .domain = "",
                                       .infer = layer_norm_infer, .eval = layer_norm_eval,
                                       .grad = layer_norm_grad, .reads = {.in = 1 | 2}};
const op_def op_lp_normalization = {.name = "LpNormalization", .domain = "",
                                    .infer = lp_norm_infer, .eval = lp_norm_eval,
                                    .grad = lp_norm_grad, .reads = {.in = 1}};
const op_def op_lrn = {.name = "LRN", .domain = "", .infer = lrn_infer, .eval = lrn_eval,
                       .grad = lrn_grad, .reads = {.in = 1}};
const op_def op_rms_normalization = {.name = "RMSNormalization", .domain = "",
                                     .infer = rms_norm_infer, .eval = rms_norm_eval,
                                     .grad = rms_norm_grad, .reads = {.in = 1 | 2}};
