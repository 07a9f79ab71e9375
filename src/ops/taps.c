#include "ops/taps.h"

rung_status taps_init(taps *t, const window *w, const int64_t *in, bool transposed, arena *mem,
                      rung_error *err)
{
    size_t all = 1;
    *t = (taps){.w = w, .in = in, .transposed = transposed};
    for (int i = 0; i < w->n; i++) {
        const size_t most = (size_t)(w->kernel[i] < in[i] ? w->kernel[i] : in[i]);
        t->axis[i].k = arena_zero(mem, most, sizeof(int64_t));
        t->axis[i].x = arena_zero(mem, most, sizeof(int64_t));
        if (!t->axis[i].k || !t->axis[i].x)
            return fail_memory(err, "window taps", most * sizeof(int64_t));
        all *= most; /* at most the input's elements */
    }
    t->k = arena_zero(mem, all, sizeof *t->k);
    t->x = arena_zero(mem, all, sizeof *t->x);
    return t->k && t->x ? RUNG_OK : fail_memory(err, "window taps", all * sizeof *t->k);
}

/* Axis i of a window that begins at `start`: kernel positions whose input exists. */
static void meet(taps *t, int i, int64_t start)
{
    axis_taps *a = &t->axis[i];
    const int64_t step = t->w->dilations[i];
    int64_t k = start < 0 ? (-start + step - 1) / step : 0;
    for (a->n = 0; k < t->w->kernel[i] && start + k * step < t->in[i]; k++) {
        a->k[a->n] = k;
        a->x[a->n++] = start + k * step;
    }
}

/* Axis i, transposed: input x reaches full position x * stride + k * dilation. */
static void meet_transposed(taps *t, int i, int64_t full)
{
    axis_taps *a = &t->axis[i];
    const int64_t stride = t->w->strides[i];
    a->n = 0;
    for (int64_t k = 0; k < t->w->kernel[i]; k++) {
        const int64_t x = full - k * t->w->dilations[i];
        if (x < 0)
            break;
        if (x % stride != 0 || x / stride >= t->in[i])
            continue;
        a->k[a->n] = k;
        a->x[a->n++] = x / stride;
    }
}

void taps_at(taps *t, const int64_t *at)
{
    int64_t counts[WINDOW_MAX], pick[WINDOW_MAX] = {0};
    t->n = 0;
    for (int i = 0; i < t->w->n; i++) {
        if (t->transposed)
            meet_transposed(t, i, at[i] + t->w->begin[i]);
        else
            meet(t, i, at[i] * t->w->strides[i] - t->w->begin[i]);
        counts[i] = t->axis[i].n;
        if (counts[i] == 0)
            return;
    }
    do {
        int64_t k = 0, x = 0;
        for (int i = 0; i < t->w->n; i++) {
            k = k * t->w->kernel[i] + t->axis[i].k[pick[i]];
            x = x * t->in[i] + t->axis[i].x[pick[i]];
        }
        t->k[t->n] = (size_t)k;
        t->x[t->n++] = (size_t)x;
    } while (next_position(t->w->n, counts, pick));
}

bool next_position(int n, const int64_t *dims, int64_t *at)
{
    for (int i = n - 1; i >= 0; i--) {
        if (++at[i] < dims[i])
            return true;
        at[i] = 0;
    }
    return false;
}
