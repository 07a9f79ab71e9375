/* Conv and ConvTranspose. */
#include "ops/conv.h"

#include "ops/element.h"
#include "ops/entries.h"
#include "ops/grad.h"
#include "ops/lower.h"
#include "ops/taps.h"

/* group divides the weight's first dimension, and channels = per_group * group. */
static rung_status check_groups(int64_t group, int64_t channels, int64_t per_group, int64_t first,
                                rung_error *err)
{
    if (group < 1 || (first != DIM_UNKNOWN && first % group != 0))
        return fail(err, RUNG_EMODEL,
                    "group = %lld does not divide the weight's first dimension %lld",
                    (long long)group, (long long)first);
    if (channels == DIM_UNKNOWN || per_group == DIM_UNKNOWN)
        return RUNG_OK;
    if (channels % group != 0 || channels / group != per_group)
        return fail(err, RUNG_EMODEL, "%lld channels, but the weight is for %lld in %lld groups",
                    (long long)channels, (long long)per_group, (long long)group);
    return RUNG_OK;
}

rung_status conv_shape_infer(const infer_args *a, dtype type, rung_error *err)
{
    const value_info *x = a->in[0], *w = a->in[1];
    window win;
    rung_status st;
    if (x->rank < 0) {
        a->out[0].type = type;
        return RUNG_OK;
    }
    if ((st = op_rank(a, 1, x->rank, err)))
        return st;
    const int64_t *w_dims = w->rank < 0 ? NULL : w->dims;
    if ((st = window_conv(a->n, x->rank, x->dims, w_dims, &win, err)))
        return st;
    int64_t dims[RUNG_MAX_RANK] = {x->dims[0], w_dims ? w_dims[0] : DIM_UNKNOWN};
    if (w_dims && (st = check_groups(node_int(a->n, "group", 1), x->dims[1], w_dims[1], w_dims[0],
                                     err)))
        return st;
    for (int i = 0; i < win.n; i++)
        dims[i + 2] = win.out[i];
    return op_shape(&a->out[0], type, x->rank, dims, err);
}

static rung_status conv_infer(const infer_args *a, rung_error *err)
{
    dtype type;
    rung_status st;
    if ((st = op_counts(a, 2, 3, 1, err)) ||
        (st = op_same_type(a, 0, 2, TYPES_FLOAT, &type, err)) ||
        (st = conv_shape_infer(a, type, err)))
        return st;
    return op_vector(a, 2, a->out[0].rank < 0 ? DIM_UNKNOWN : a->out[0].dims[1], err);
}

/* The operands of either evaluation. Counts are per image and group where so named. */
typedef struct conv_args {
    window       win;
    taps         taps;
    size_t       batch, groups, in_per_group, out_per_group, in_size, out_size, kernel_size;
    const float *x, *w, *bias;
    float       *y;
} conv_args;

static rung_status load_conv(const eval_args *a, bool transposed, conv_args *c, rung_error *err)
{
    const tensor *x = &a->in[0], *w = &a->in[1], *b = eval_in(a, 2);
    rung_status st = transposed
                         ? window_conv_transpose(a->n, x->rank, x->dims, w->dims, &c->win, err)
                         : window_conv(a->n, x->rank, x->dims, w->dims, &c->win, err);
    if (st || (st = taps_init(&c->taps, &c->win, x->dims + 2, transposed, a->mem, err)))
        return st;
    c->batch = (size_t)x->dims[0];
    c->groups = (size_t)node_int(a->n, "group", 1);
    c->in_per_group = (size_t)x->dims[1] / c->groups;
    c->out_per_group = (size_t)a->out[0].dims[1] / c->groups;
    c->in_size = dims_product(x->dims, 2, x->rank);
    c->out_size = dims_product(a->out[0].dims, 2, x->rank);
    c->kernel_size = dims_product(w->dims, 2, x->rank);
    c->x = floats_of(x, a->mem);
    c->w = floats_of(w, a->mem);
    c->bias = floats_of(b, a->mem);
    c->y = floats_for(&a->out[0], a->mem);
    if (!c->x || !c->w || !c->y || (b && !c->bias))
        return fail_memory(err, "operands", c->in_size * sizeof(float));
    return RUNG_OK;
}

/* One output element before the bias: x at its group's first channel; w at its first element, its
 * channels w_step apart. */
static double sum_taps(const conv_args *c, const float *x, const float *w, size_t w_step)
{
    double sum = 0;
    for (size_t ch = 0; ch < c->in_per_group; ch++, x += c->in_size, w += w_step) {
        for (size_t i = 0; i < c->taps.n; i++)
            sum += (double)x[c->taps.x[i]] * w[c->taps.k[i]];
    }
    return sum;
}

/* All images and channels of one output position. Conv: w [M][C / group][k]; transposed:
 * w [C][M / group][k]. */
static void eval_position(const conv_args *c, size_t at, bool transposed)
{
    const size_t outs = c->groups * c->out_per_group, ins = c->groups * c->in_per_group;
    for (size_t n = 0; n < c->batch; n++) {
        for (size_t m = 0; m < outs; m++) {
            const size_t g = m / c->out_per_group;
            const float *x = c->x + (n * ins + g * c->in_per_group) * c->in_size;
            const size_t row = transposed
                                   ? g * c->in_per_group * c->out_per_group + m % c->out_per_group
                                   : m * c->in_per_group;
            const size_t hop = transposed ? c->out_per_group * c->kernel_size : c->kernel_size;
            const double bias = c->bias ? c->bias[m] : 0;
            c->y[(n * outs + m) * c->out_size + at] =
                (float)(bias + sum_taps(c, x, c->w + row * c->kernel_size, hop));
        }
    }
}

static rung_status eval_conv(const eval_args *a, bool transposed, rung_error *err)
{
    conv_args c;
    const rung_status st = load_conv(a, transposed, &c, err);
    if (st)
        return st;
    int64_t at[WINDOW_MAX] = {0};
    size_t i = 0;
    do {
        taps_at(&c.taps, at);
        eval_position(&c, i++, transposed);
    } while (next_position(c.win.n, a->out[0].dims + 2, at));
    floats_done(&a->out[0], c.y);
    return RUNG_OK;
}

static rung_status conv_eval(const eval_args *a, rung_error *err)
{
    return eval_conv(a, false, err);
}

static rung_status conv_transpose_infer(const infer_args *a, rung_error *err)
{
    dtype type;
    rung_status st;
    window win;
    if ((st = op_counts(a, 2, 3, 1, err)) || (st = op_same_type(a, 0, 2, TYPES_FLOAT, &type, err)))
        return st;
    const value_info *x = a->in[0], *w = a->in[1];
    const int64_t group = node_int(a->n, "group", 1);
    if (x->rank < 0 || w->rank < 0) {
        a->out[0].type = type;
        return RUNG_OK;
    }
    if ((st = op_rank(a, 1, x->rank, err)) ||
        (st = window_conv_transpose(a->n, x->rank, x->dims, w->dims, &win, err)))
        return st;
    if (x->dims[1] != DIM_UNKNOWN && w->dims[0] != DIM_UNKNOWN && x->dims[1] != w->dims[0])
        return fail(err, RUNG_EMODEL, "%lld channels, but the weight is for %lld",
                    (long long)x->dims[1], (long long)w->dims[0]);
    if ((st = check_groups(group, DIM_UNKNOWN, DIM_UNKNOWN, w->dims[0], err)))
        return st;
    int64_t dims[RUNG_MAX_RANK] = {x->dims[0], DIM_UNKNOWN};
    if (w->dims[1] != DIM_UNKNOWN && __builtin_mul_overflow(w->dims[1], group, &dims[1]))
        return fail(err, RUNG_EMODEL, "%lld groups of %lld channels overflow", (long long)group,
                    (long long)w->dims[1]);
    for (int i = 0; i < win.n; i++)
        dims[i + 2] = win.out[i];
    if ((st = op_vector(a, 2, dims[1], err)))
        return st;
    return op_shape(&a->out[0], type, x->rank, dims, err);
}

static rung_status conv_transpose_eval(const eval_args *a, rung_error *err)
{
    return eval_conv(a, true, err);
}

const op_def op_conv = {
    .name = "Conv",
    .domain = "",
    .infer = conv_infer,
    .eval = conv_eval,
    .grad = conv_grad,
    .reads = {.in = 1 | 2},
    .lower = lower_conv,
    .quant = {QUANT_COMPUTE, .activations = 1, .weight = 1, .weight_axis = 0, .bias = 2},
    .layout = LAYOUT_CHANNELS,
};

const op_def op_conv_transpose = {
    .name = "ConvTranspose",
    .domain = "",
    .infer = conv_transpose_infer,
    .eval = conv_transpose_eval,
    .grad = conv_transpose_grad,
    .reads = {.in = 1 | 2},
    .lower = lower_conv_transpose,
    .quant = {QUANT_COMPUTE, .activations = 1, .weight = 1, .weight_axis = 1, .bias = 2},
    .layout = LAYOUT_CHANNELS,
};
