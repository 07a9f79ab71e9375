/* Gradients of Conv and ConvTranspose, by columns: the elements that the windows of one group of
 * channels meet as a matrix [channels * taps, positions], so that all sums are matrix products. */
#include <string.h>

#include "base/mem.h"
#include "ops/conv.h"
#include "ops/grad.h"
#include "ops/taps.h"

/* The image that windows slide over (x of Conv, dy of ConvTranspose), one group of one sample. */
typedef struct columns {
    const window  *w;
    const int64_t *image, *out; /* spatial dims of the image; positions of the window */
    size_t         channels, image_size, positions, taps;
    float         *v; /* [channels * taps, positions] */
} columns;

/* Along the last axis, positions first .. last-1 meet the image with this tap; the first meets
 * element `at`. Empty: first = last. */
typedef struct span {
    int64_t first, last, at;
} span;

static span span_of(const columns *c, int axis, int64_t tap)
{
    const window *w = c->w;
    const int64_t stride = w->strides[axis], shift = tap * w->dilations[axis] - w->begin[axis];
    const int64_t room = c->image[axis] - shift; /* positions p with p * stride < room are inside */
    span s = {.first = shift < 0 ? (-shift + stride - 1) / stride : 0};
    s.last = room <= 0 ? 0 : (room - 1) / stride + 1;
    s.last = s.last < c->out[axis] ? s.last : c->out[axis];
    s.last = s.last < s.first ? s.first : s.last;
    s.at = s.first * stride + shift;
    return s;
}

static void take_row(const float *image, size_t stride, size_t n, float *col)
{
    for (size_t i = 0; i < n; i++)
        col[i] = image[i * stride];
}

static void add_row(const float *col, size_t stride, size_t n, float *image)
{
    for (size_t i = 0; i < n; i++)
        image[i * stride] += col[i];
}

/* One row of the columns (a channel's image, a tap): taken from `from`, or added to `to`. */
static void one_tap(const columns *c, const int64_t *tap, float *col, const float *from, float *to)
{
    const int last = c->w->n - 1;
    const span s = span_of(c, last, tap[last]);
    const size_t stride = (size_t)c->w->strides[last], n = (size_t)(s.last - s.first);
    int64_t at[WINDOW_MAX] = {0};
    do {
        int64_t row = 0;
        bool inside = n > 0;
        for (int i = 0; i < last && inside; i++) {
            const int64_t x = at[i] * c->w->strides[i] + tap[i] * c->w->dilations[i] -
                              c->w->begin[i];
            inside = x >= 0 && x < c->image[i];
            row = row * c->image[i] + x;
        }
        if (inside && from)
            take_row(from + row * c->image[last] + s.at, stride, n, col + s.first);
        else if (inside)
            add_row(col + s.first, stride, n, to + row * c->image[last] + s.at);
        col += c->out[last];
    } while (next_position(last, c->out, at));
}

/* Fills the columns from the image `from`, or (from = NULL) adds them to the image `to`. */
static void move_columns(columns *c, const float *from, float *to)
{
    float *col = c->v;
    if (from)
        memset(c->v, 0, c->channels * c->taps * c->positions * sizeof *c->v);
    for (size_t ch = 0; ch < c->channels; ch++) {
        int64_t tap[WINDOW_MAX] = {0};
        do {
            one_tap(c, tap, col, from ? from + ch * c->image_size : NULL,
                    from ? NULL : to + ch * c->image_size);
            col += c->positions;
        } while (next_position(c->w->n, c->w->kernel, tap));
    }
}

/* What both operators have: per group `in` channels of x and `out` channels of y. */
typedef struct conv_grads {
    window       win;
    columns      cols;
    size_t       batch, groups, in, out, x_size, y_size, taps;
    const float *x, *w, *dy;
    float       *dx, *dw;
} conv_grads;

static rung_status alloc_columns(columns *c, arena *mem, rung_error *err)
{
    size_t n = 0;
    const bool fits = mul_fits(c->channels, c->taps, &n) && mul_fits(n, c->positions, &n);
    if (fits)
        c->v = arena_zero(mem, n, sizeof *c->v);
    return c->v ? RUNG_OK : fail_memory(err, "columns of a convolution", fits ? n * 4 : SIZE_MAX);
}

static rung_status load_grads(const grad_args *a, bool transposed, conv_grads *g, rung_error *err)
{
    const tensor *x = &a->in[0], *w = &a->in[1], *y = &a->out[0];
    const rung_status st =
        transposed ? window_conv_transpose(a->n, x->rank, x->dims, w->dims, &g->win, err)
                   : window_conv(a->n, x->rank, x->dims, w->dims, &g->win, err);
    if (st)
        return st;
    g->batch = (size_t)x->dims[0];
    g->groups = (size_t)node_int(a->n, "group", 1);
    g->in = (size_t)x->dims[1] / g->groups;
    g->out = (size_t)y->dims[1] / g->groups;
    g->x_size = dims_product(x->dims, 2, x->rank);
    g->y_size = dims_product(y->dims, 2, y->rank);
    g->taps = dims_product(w->dims, 2, w->rank);
    g->x = x->data;
    g->w = w->data;
    g->dy = a->dout[0].data;
    g->dx = a->din[0].data;
    g->dw = a->din[1].data;
    const tensor *image = transposed ? y : x, *positions = transposed ? x : y;
    g->cols = (columns){.w = &g->win, .image = image->dims + 2, .out = positions->dims + 2};
    g->cols.channels = transposed ? g->out : g->in;
    g->cols.image_size = transposed ? g->y_size : g->x_size;
    g->cols.positions = transposed ? g->x_size : g->y_size;
    g->cols.taps = g->taps;
    return g->dx || g->dw ? alloc_columns(&g->cols, a->mem, err) : RUNG_OK;
}

/* Columns X of x: y = W X, W [out, in * taps]; dW = dy Xᵀ, dX = Wᵀ dy. */
static void conv_group(conv_grads *g, size_t sample, size_t group)
{
    const size_t block = sample * g->groups + group, k = g->in * g->taps;
    const float *dy = g->dy + block * g->out * g->y_size, *w = g->w + group * g->out * k;
    const matrix dy_rows = {dy, g->y_size, 1};
    if (g->dw) {
        move_columns(&g->cols, g->x + block * g->in * g->x_size, NULL);
        matrix_product(g->out, k, g->y_size, dy_rows, (matrix){g->cols.v, 1, g->y_size},
                       g->dw + group * g->out * k);
    }
    if (g->dx) {
        memset(g->cols.v, 0, k * g->y_size * sizeof(float));
        matrix_product(k, g->y_size, g->out, (matrix){w, 1, k}, dy_rows, g->cols.v);
        move_columns(&g->cols, NULL, g->dx + block * g->in * g->x_size);
    }
}

/* Columns Y of dy: the columns of y are Wᵀ x, W [in, out * taps]; dx = W Y, dW = x Yᵀ. */
static void conv_transpose_group(conv_grads *g, size_t sample, size_t group)
{
    const size_t block = sample * g->groups + group, k = g->out * g->taps;
    move_columns(&g->cols, g->dy + block * g->out * g->y_size, NULL);
    if (g->dw)
        matrix_product(g->in, k, g->x_size,
                       (matrix){g->x + block * g->in * g->x_size, g->x_size, 1},
                       (matrix){g->cols.v, 1, g->x_size}, g->dw + group * g->in * k);
    if (g->dx)
        matrix_product(g->in, g->x_size, k, (matrix){g->w + group * g->in * k, k, 1},
                       (matrix){g->cols.v, g->x_size, 1}, g->dx + block * g->in * g->x_size);
}

/* The bias [channels] is broadcast to [N, channels, positions]. */
static rung_status bias_grad(const grad_args *a, rung_error *err)
{
    tensor dy = a->dout[0], db = a->n_in > 2 ? a->din[2] : (tensor){0};
    if (!db.data)
        return RUNG_OK;
    dy.rank = 3;
    dy.dims[2] = (int64_t)dims_product(a->out[0].dims, 2, a->out[0].rank);
    db.rank = 2;
    db.dims[1] = 1;
    return grad_broadcast(&dy, 1, &db, a->mem, err);
}

static rung_status any_conv_grad(const grad_args *a, bool transposed, rung_error *err)
{
    conv_grads g = {.batch = 0};
    bool any;
    rung_status st = grad_begin(a, &any, err);
    if (st || !any || (st = load_grads(a, transposed, &g, err)))
        return st;
    for (size_t i = 0; (g.dx || g.dw) && i < g.batch * g.groups; i++) {
        if (transposed)
            conv_transpose_group(&g, i / g.groups, i % g.groups);
        else
            conv_group(&g, i / g.groups, i % g.groups);
    }
    return bias_grad(a, err);
}

rung_status conv_grad(const grad_args *a, rung_error *err)
{
    return any_conv_grad(a, false, err);
}

rung_status conv_transpose_grad(const grad_args *a, rung_error *err)
{
    return any_conv_grad(a, true, err);
}
