/* Gradients of Clip and Where. */
#include <math.h>

#include "ops/grad.h"

/* y = min(max(x, lo), hi). x has the gradient between lo and hi; up to lo, lo has it; from hi on,
 * or where hi < lo, hi. At a bound x has none, as in PyTorch's relu6 and as Relu has none at 0. */
rung_status clip_grad(const grad_args *a, rung_error *err)
{
    const tensor *bound[3] = {NULL, a->n_in > 1 ? &a->in[1] : NULL, a->n_in > 2 ? &a->in[2] : NULL};
    const float lo = bound[1] && bound[1]->data ? *(const float *)bound[1]->data : -INFINITY;
    const float hi = bound[2] && bound[2]->data ? *(const float *)bound[2]->data : INFINITY;
    const float *x = a->in[0].data, *dy = a->dout[0].data;
    float *dx = a->din[0].data;
    double below = 0, above = 0;
    bool any;
    const rung_status st = grad_begin(a, &any, err);
    if (st || !any)
        return st;
    const size_t n = tensor_count(&a->dout[0]);
    for (size_t i = 0; i < n; i++) {
        const bool over = x[i] >= hi || lo > hi, under = !over && x[i] <= lo;
        above += over ? dy[i] : 0;
        below += under ? dy[i] : 0;
        if (dx)
            dx[i] = over || under ? 0 : dy[i];
    }
    if (bound[1] && a->din[1].data)
        *(float *)a->din[1].data = (float)below;
    if (bound[2] && a->din[2].data)
        *(float *)a->din[2].data = (float)above;
    return RUNG_OK;
}

#define CHUNK 256

/* The chosen operand has dy, the other none. */
rung_status where_grad(const grad_args *a, rung_error *err)
{
    const tensor *const in[] = {&a->in[0], &a->in[1], &a->in[2]};
    const float *dy = a->dout[0].data;
    double v[CHUNK];
    bool any;
    walk w;
    rung_status st = grad_begin(a, &any, err);
    for (int k = 1; st == RUNG_OK && any && k < 3; k++) {
        grad_sum sum;
        if ((st = grad_sum_begin(&sum, &a->din[k], tensor_count(&a->dout[0]), a->mem, err)))
            return st;
        if (!a->din[k].data || !walk_begin(&w, &a->dout[0], in, 3))
            continue;
        do {
            const uint8_t *choose = (const uint8_t *)in[0]->data + w.offset[0];
            for (size_t first = 0; first < w.row; first += CHUNK) {
                const size_t n = w.row - first < CHUNK ? w.row - first : CHUNK;
                for (size_t i = 0; i < n; i++) {
                    const bool to_x = choose[w.repeats[0] ? 0 : first + i] != 0;
                    v[i] = to_x == (k == 1) ? dy[w.out + first + i] : 0;
                }
                grad_sum_add(&sum, &w, k, first, n, v);
            }
        } while (walk_next(&w));
        grad_sum_end(&sum);
    }
    return st;
}
