/* From batches of data to an engine's inputs. */
#include "measure/measure.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

/* The batch's array for graph input i: by name, or the only one. NULL: there is none. */
static const batch_input *batch_find(const batch *b, const graph *g, int i)
{
    const char *name = g->values[g->inputs[i]].name;
    for (int j = 0; j < b->n_inputs; j++)
        if (strcmp(b->inputs[j].name, name) == 0)
            return &b->inputs[j];
    return i == 0 && b->n_inputs == 1 && b->inputs[0].name[0] == '\0' ? &b->inputs[0] : NULL;
}

static const char *dims_text(const tensor *t, char *buf, size_t size)
{
    size_t at = 0;
    buf[0] = '\0';
    for (int i = 0; i < t->rank && at + 24 < size; i++)
        at += (size_t)snprintf(buf + at, size - at, "%s%lld", i ? "x" : "", (long long)t->dims[i]);
    return buf;
}

rung_status engine_for_batch(const graph *g, const batch *b, int n_threads, const bool *observe,
                             engine **out, rung_error *err)
{
    const int64_t **dims = mem_zero((size_t)g->n_inputs + 1, sizeof *dims);
    if (!dims)
        return fail_memory(err, "input shapes", (size_t)g->n_inputs * sizeof *dims);
    rung_status st = RUNG_OK;
    for (int i = 0; i < g->n_inputs && st == RUNG_OK; i++) {
        const value *v = &g->values[g->inputs[i]];
        const batch_input *in = batch_find(b, g, i);
        char text[200];
        if (!in)
            st = fail(err, RUNG_EARGUMENT,
                      "the data has no array for input '%s'; give it as an npz file with an array of "
                      "that name", v->name);
        else if (v->rank >= 0 && in->t.rank != v->rank)
            st = fail(err, RUNG_EARGUMENT, "input '%s' has %d dimensions, the data has %d (%s)",
                      v->name, v->rank, in->t.rank, dims_text(&in->t, text, sizeof text));
        else
            dims[i] = in->t.dims;
    }
    if (st == RUNG_OK) {
        const engine_options opt = { .n_threads = n_threads, .input_dims = dims,
                                     .observe = observe };
        st = engine_create(g, &opt, out, err);
    }
    mem_free(dims);
    return st;
}

/* The bounds that a value must keep to be converted to an integer type without loss. */
static bool type_bounds(dtype type, double *lo, double *hi)
{
    *lo = 0;
    switch (type) {
    case RUNG_U8: *hi = UINT8_MAX; return true;
    case RUNG_U16: *hi = UINT16_MAX; return true;
    case RUNG_BOOL: *hi = 1; return true;
    case RUNG_I8: *lo = INT8_MIN; *hi = INT8_MAX; return true;
    case RUNG_I16: *lo = INT16_MIN; *hi = INT16_MAX; return true;
    case RUNG_I32: *lo = INT32_MIN; *hi = INT32_MAX; return true;
    case RUNG_I64: *lo = -9007199254740992.0; *hi = 9007199254740992.0; return true;
    default: return false;
    }
}

static bool put_number(dtype type, void *data, size_t i, double x)
{
    double lo, hi;
    if (type == RUNG_F32) {
        ((float *)data)[i] = (float)x;
        return true;
    }
    if (type == RUNG_F64) {
        ((double *)data)[i] = x;
        return true;
    }
    if (!type_bounds(type, &lo, &hi) || !(x >= lo && x <= hi) || x != nearbyint(x))
        return false;
    const int64_t v = (int64_t)x;
    switch (dtype_bytes(type, 1)) {
    case 1: ((uint8_t *)data)[i] = (uint8_t)v; break;
    case 2: ((uint16_t *)data)[i] = (uint16_t)v; break;
    case 4: ((uint32_t *)data)[i] = (uint32_t)v; break;
    default: ((int64_t *)data)[i] = v; break;
    }
    return true;
}

static rung_status feed_one(const tensor *to, const batch_input *from, const char *name,
                            rung_error *err)
{
    const tensor *t = &from->t;
    char a[200], b[200];
    bool same = t->rank == to->rank && (t->rank == 0 || t->dims[0] <= to->dims[0]);
    for (int i = 1; same && i < t->rank; i++)
        same = t->dims[i] == to->dims[i];
    if (!same)
        return fail(err, RUNG_EARGUMENT, "input '%s' is %s, the data is %s; a --preprocess with "
                    "resize and crop brings images to one size", name,
                    dims_text(to, a, sizeof a), dims_text(t, b, sizeof b));
    const size_t n = tensor_count(t), all = tensor_count(to);
    if (t->type == to->type) {
        memcpy(to->data, t->data, dtype_bytes(t->type, n));
    } else {
        for (size_t i = 0; i < n; i++)
            if (!put_number(to->type, to->data, i, tensor_get(t, i)))
                return fail(err, RUNG_EARGUMENT, "input '%s' is %s, the data's element %zu (%g) does "
                            "not fit it", name, dtype_name(to->type), i, tensor_get(t, i));
    }
    memset((char *)to->data + dtype_bytes(to->type, n), 0,
           dtype_bytes(to->type, all) - dtype_bytes(to->type, n));
    return RUNG_OK;
}

rung_status engine_feed(engine *e, const graph *g, const batch *b, rung_error *err)
{
    for (int i = 0; i < g->n_inputs; i++) {
        const batch_input *in = batch_find(b, g, i);
        const char *name = g->values[g->inputs[i]].name;
        if (!in)
            return fail(err, RUNG_EARGUMENT, "the data has no array for input '%s'", name);
        const rung_status st = feed_one(engine_input(e, i), in, name, err);
        if (st != RUNG_OK)
            return st;
    }
    return RUNG_OK;
}

int measure_batch_size(const graph *g, int wanted)
{
    int64_t elements = 1;
    for (int i = 0; i < g->n_inputs; i++) {
        const value *v = &g->values[g->inputs[i]];
        if (v->rank < 1 || v->dims[0] == DIM_UNKNOWN) {
            for (int d = 1; d < v->rank; d++)
                elements *= v->dims[d] > 0 && v->dims[d] < 1 << 20 ? v->dims[d] : 1;
            continue;
        }
        return (int)(v->dims[0] < INT_MAX ? v->dims[0] : INT_MAX);
    }
    if (wanted > 0)
        return wanted;
    /* Activations hold about ten times the input's elements at once: 64 MB of float32 in all. */
    const int64_t fits = (64 << 20) / 4 / 10 / (elements > 0 ? elements : 1);
    return fits < 1 ? 1 : fits > 32 ? 32 : (int)fits;
}
