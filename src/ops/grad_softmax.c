/* Gradients of Softmax and LogSoftmax along one axis. */
#include <math.h>

#include "ops/grad.h"

/* dx of one line of n elements `step` apart. */
typedef void (*line_fn)(const float *y, const float *dy, size_t n, size_t step, float *dx);

/* dx = y (dy - sum(y dy)). */
static void softmax_line(const float *y, const float *dy, size_t n, size_t step, float *dx)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)y[i * step] * dy[i * step];
    for (size_t i = 0; i < n; i++)
        dx[i * step] = (float)(y[i * step] * (dy[i * step] - sum));
}

/* dx = dy - e^y sum(dy). */
static void log_softmax_line(const float *y, const float *dy, size_t n, size_t step, float *dx)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += dy[i * step];
    for (size_t i = 0; i < n; i++)
        dx[i * step] = (float)(dy[i * step] - exp(y[i * step]) * sum);
}

static rung_status each_line(const grad_args *a, line_fn f, rung_error *err)
{
    const tensor *y = &a->out[0];
    int axis = 0;
    bool any;
    rung_status st = grad_begin(a, &any, err);
    if (st || !any || !a->din[0].data ||
        (st = op_axis(node_int(a->n, "axis", -1), y->rank, &axis, err)))
        return st;
    const size_t outer = dims_product(y->dims, 0, axis), n = (size_t)y->dims[axis];
    const size_t inner = dims_product(y->dims, axis + 1, y->rank);
    for (size_t o = 0; o < outer * inner; o++) {
        const size_t at = o / inner * n * inner + o % inner;
        f((const float *)y->data + at, (const float *)a->dout[0].data + at, n, inner,
          (float *)a->din[0].data + at);
    }
    return RUNG_OK;
}

rung_status softmax_grad(const grad_args *a, rung_error *err)
{
    return each_line(a, softmax_line, err);
}

rung_status log_softmax_grad(const grad_args *a, rung_error *err)
{
    return each_line(a, log_softmax_line, err);
}
