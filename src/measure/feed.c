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

static const char *dims_text(int rank, const int64_t *dims, char *buf, size_t size)
{
    size_t at = 0;
    buf[0] = '\0';
    for (int i = 0; i < rank && at + 24 < size; i++) {
        at += (size_t)snprintf(buf + at, size - at, "%s", i ? "x" : "");
        at += dims[i] == DIM_UNKNOWN
                  ? (size_t)snprintf(buf + at, size - at, "?")
                  : (size_t)snprintf(buf + at, size - at, "%lld", (long long)dims[i]);
    }
    return rank == 0 ? "a single number" : buf;
}

rung_status input_fits(const value *v, const rung_tensor *given, int first, rung_error *err)
{
    char a[200], b[200];
    bool fits = v->rank < 0 || given->rank == v->rank;
    for (int d = first; fits && d < v->rank; d++)
        fits = v->dims[d] == DIM_UNKNOWN || given->dims[d] == v->dims[d];
    if (fits)
        return RUNG_OK;
    return fail(err, RUNG_EARGUMENT, "input '%s' is %s, the data is %s%s", v->name,
                dims_text(v->rank, v->dims, a, sizeof a),
                dims_text(given->rank, given->dims, b, sizeof b),
                v->rank == 4 && given->rank == 4
                    ? "; a --preprocess with resize and crop brings images to one size"
                    : "");
}

/* A model whose number of samples is fixed is fed that many, though the batch holds fewer. */
static rung_status dims_for_batch(const value *v, const batch_input *in, int64_t *dims,
                                  rung_error *err)
{
    if (!in)
        return fail(err, RUNG_EARGUMENT,
                    "the data has no array for input '%s'; give it as an npz file "
                    "with an array of that name",
                    v->name);
    const rung_status st = input_fits(v, &in->t, 1, err);
    if (st != RUNG_OK)
        return st;
    memcpy(dims, in->t.dims, sizeof in->t.dims);
    if (v->rank > 0 && v->dims[0] > dims[0])
        dims[0] = v->dims[0];
    return RUNG_OK;
}

rung_status engine_for_batch(const graph *g, const batch *b, int n_threads, const bool *observe,
                             engine **out, rung_error *err)
{
    const size_t n = (size_t)g->n_inputs + 1;
    const int64_t **dims = mem_zero(n, sizeof *dims);
    int64_t(*store)[RUNG_MAX_RANK] = mem_zero(n, sizeof *store);
    rung_status st = dims && store ? RUNG_OK : fail_memory(err, "input shapes", n * sizeof *store);
    for (int i = 0; i < g->n_inputs && st == RUNG_OK; i++) {
        dims[i] = store[i];
        st = dims_for_batch(&g->values[g->inputs[i]], batch_find(b, g, i), store[i], err);
    }
    if (st == RUNG_OK) {
        const engine_options opt = {.n_threads = n_threads, .input_dims = dims, .observe = observe,
                                    .shares_constants = true};
        st = engine_create(g, &opt, out, err);
    }
    mem_free(dims);
    mem_free(store);
    return st;
}

/* The bounds that a value must keep to be converted to an integer type without loss. */
static bool type_bounds(dtype type, double *lo, double *hi)
{
    *lo = 0;
    switch (type) {
    case RUNG_U8:
        *hi = UINT8_MAX;
        return true;
    case RUNG_U16:
        *hi = UINT16_MAX;
        return true;
    case RUNG_BOOL:
        *hi = 1;
        return true;
    case RUNG_I8:
        *lo = INT8_MIN;
        *hi = INT8_MAX;
        return true;
    case RUNG_I16:
        *lo = INT16_MIN;
        *hi = INT16_MAX;
        return true;
    case RUNG_I32:
        *lo = INT32_MIN;
        *hi = INT32_MAX;
        return true;
    case RUNG_I64:
        *lo = -9007199254740992.0;
        *hi = 9007199254740992.0;
        return true;
    default:
        return false;
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
    case 1:
        ((uint8_t *)data)[i] = (uint8_t)v;
        break;
    case 2:
        ((uint16_t *)data)[i] = (uint16_t)v;
        break;
    case 4:
        ((uint32_t *)data)[i] = (uint32_t)v;
        break;
    default:
        ((int64_t *)data)[i] = v;
        break;
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
        return fail(err, RUNG_EARGUMENT,
                    "input '%s' is %s here, the data is %s; all samples must "
                    "have one size (--preprocess with resize and crop brings images to one)",
                    name, dims_text(to->rank, to->dims, a, sizeof a),
                    dims_text(t->rank, t->dims, b, sizeof b));
    const size_t n = tensor_count(t), all = tensor_count(to);
    if (t->type == to->type) {
        memcpy(to->data, t->data, dtype_bytes(t->type, n));
    } else {
        for (size_t i = 0; i < n; i++)
            if (!put_number(to->type, to->data, i, tensor_get(t, i)))
                return fail(err, RUNG_EARGUMENT,
                            "input '%s' is %s, the data's element %zu (%g) does "
                            "not fit it",
                            name, dtype_name(to->type), i, tensor_get(t, i));
    }
    memset((char *)to->data + dtype_bytes(to->type, n), 0,
           dtype_bytes(to->type, all) - dtype_bytes(to->type, n));
    return RUNG_OK;
}

rung_status batch_feed(const batch *b, const graph *g, int i, const tensor *t, rung_error *err)
{
    const batch_input *in = batch_find(b, g, i);
    const char *name = g->values[g->inputs[i]].name;
    if (!in)
        return fail(err, RUNG_EARGUMENT, "the data has no array for input '%s'", name);
    return feed_one(t, in, name, err);
}

rung_status engine_feed(engine *e, const graph *g, const batch *b, rung_error *err)
{
    rung_status st = RUNG_OK;
    for (int i = 0; i < g->n_inputs && st == RUNG_OK; i++)
        st = batch_feed(b, g, i, engine_input(e, i), err);
    return st;
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
    return fits < 1 ? 1 : fits > MOST_AT_ONCE ? MOST_AT_ONCE : (int)fits;
}
