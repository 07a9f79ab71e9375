/* Softmax in plain C. */
#include <float.h>
#include <math.h>

#include "kernels/arith.h"
#include "kernels/kernels.h"

/* e[255 - d] belongs to an input that is d steps under its row's maximum; an entry is made when it
 * is first needed, as short rows need few. The exponents are raised by a common shift, so that
 * small values do not vanish and the sum of n of them stays finite. */
typedef struct exp_table {
    double shift, scale;
    float e[256]; /* -1: not made yet */
} exp_table;

static void exp_table_begin(exp_table *t, float x_scale, size_t n)
{
    const double room = log((double)(FLT_MAX / (float)n)) - 5;
    t->shift = (room > 0 ? room : 0) / (double)x_scale;
    t->scale = x_scale;
    for (int i = 0; i < 256; i++)
        t->e[i] = -1;
}

static float exp_table_get(exp_table *t, int i)
{
    if (t->e[i] < 0)
        t->e[i] = (float)exp(((double)i - 255 + t->shift) * t->scale);
    return t->e[i];
}

void softmax_u8(const uint8_t *x, size_t outer, size_t n, float x_scale, float y_scale, int y_zero,
                int lo, int hi, uint8_t *y, int thread, int n_threads)
{
    const float steps = 1.0f / y_scale;
    exp_table t;
    size_t row, last;
    kernel_share(outer, 1, thread, n_threads, &row, &last);
    if (row == last || n == 0)
        return;
    exp_table_begin(&t, x_scale, n);
    for (; row < last; row++) {
        const uint8_t *from = x + row * n;
        uint8_t *to = y + row * n;
        uint8_t top = 0;
        float sum = 0;
        for (size_t i = 0; i < n; i++)
            top = from[i] > top ? from[i] : top;
        for (size_t i = 0; i < n; i++)
            sum += exp_table_get(&t, 255 - top + from[i]);
        for (size_t i = 0; i < n; i++)
            to[i] = round_to_u8(t.e[255 - top + from[i]] * steps / sum, y_zero, lo, hi);
    }
}
