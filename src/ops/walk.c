#include "ops/walk.h"

#include <string.h>

#include "ops/element.h"
#include "ops/taps.h"

void dims_strides(int rank, const int64_t *dims, int64_t *strides)
{
    int64_t step = 1;
    for (int i = rank - 1; i >= 0; i--) {
        strides[i] = step;
        step *= dims[i];
    }
}

static void place_operand(walk *w, int k, const tensor *t)
{
    int64_t own[RUNG_MAX_RANK];
    dims_strides(t->rank, t->dims, own);
    for (int i = 0; i < t->rank; i++) {
        const int at = w->rank - t->rank + i;
        w->strides[k][at] = t->dims[i] == 1 ? 0 : own[i];
    }
}

/* Whether every operand goes on from one index of axis a to the next as along the axis b behind. */
static bool goes_on(const walk *w, int a, int b)
{
    for (int k = 0; k < w->n; k++) {
        if (w->strides[k][a] != w->strides[k][b] * w->dims[b])
            return false;
    }
    return true;
}

/* Makes one axis of neighbours along which all operands go on: the rows become long. */
static void join_axes(walk *w)
{
    int last = 0;
    for (int i = 1; i < w->rank; i++) {
        const bool single = w->dims[last] == 1;
        if (w->dims[i] == 1)
            continue;
        const int64_t joined = w->dims[i] * w->dims[last];
        const bool joins = single || goes_on(w, last, i);
        last += joins ? 0 : 1;
        w->dims[last] = joins ? joined : w->dims[i];
        for (int k = 0; k < w->n; k++)
            w->strides[k][last] = w->strides[k][i];
    }
    w->rank = last + 1;
}

bool walk_begin(walk *w, const tensor *out, const tensor *const *in, int n)
{
    memset(w, 0, sizeof *w);
    if (tensor_count(out) == 0)
        return false;
    w->rank = out->rank ? out->rank : 1; /* a scalar is a row of one */
    w->dims[0] = 1;
    memcpy(w->dims, out->dims, (size_t)out->rank * sizeof *w->dims);
    w->n = n;
    for (int k = 0; k < n; k++)
        place_operand(w, k, in[k]);
    join_axes(w);
    w->row = (size_t)w->dims[w->rank - 1];
    for (int k = 0; k < n; k++)
        w->repeats[k] = w->strides[k][w->rank - 1] == 0;
    return true;
}

bool walk_next(walk *w)
{
    if (!next_position(w->rank - 1, w->dims, w->at))
        return false;
    w->out += w->row;
    for (int k = 0; k < w->n; k++) {
        int64_t offset = 0;
        for (int i = 0; i < w->rank - 1; i++)
            offset += w->at[i] * w->strides[k][i];
        w->offset[k] = (size_t)offset;
    }
    return true;
}

void walk_doubles(const walk *w, int i, const tensor *t, size_t first, size_t n, double *v)
{
    if (!w->repeats[i]) {
        load_doubles(t, w->offset[i] + first, n, v);
        return;
    }
    load_doubles(t, w->offset[i], 1, v);
    for (size_t k = 1; k < n; k++)
        v[k] = v[0];
}

void walk_ints(const walk *w, int i, const tensor *t, size_t first, size_t n, int64_t *v)
{
    if (!w->repeats[i]) {
        load_ints(t, w->offset[i] + first, n, v);
        return;
    }
    load_ints(t, w->offset[i], 1, v);
    for (size_t k = 1; k < n; k++)
        v[k] = v[0];
}
