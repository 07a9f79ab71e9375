/* NumPy arrays whose first dimension is the sample. */
#include "data/source.h"

#include <string.h>

#include "data/npy.h"

typedef struct arrays {
    rung_tensor *t; /* [n_inputs] */
    size_t *bytes;  /* [n_inputs] of one sample */
} arrays;

static rung_status read_arrays(const dataset *d, size_t i, scratch *s, rung_tensor *inputs,
                               rung_error *err)
{
    const arrays *a = d->state;
    for (int k = 0; k < d->n_inputs; k++) {
        const rung_tensor *t = &a->t[k];
        inputs[k] = (rung_tensor){
            .type = t->type, .rank = t->rank - 1, .data = (char *)t->data + i * a->bytes[k]};
        memcpy(inputs[k].dims, t->dims + 1, (size_t)(t->rank - 1) * sizeof *t->dims);
        source_was_read(d, a->bytes[k]);
    }
    return RUNG_OK;
}

/* Takes array k as an input. The size of a sample cannot overflow: npy_view has checked the whole.
 */
static rung_status add_input(dataset *d, arrays *a, const npz_entry *e, rung_error *err)
{
    const int k = d->n_inputs;
    if (e->t.rank == 0)
        return fail(err, RUNG_EFORMAT,
                    "array \"%s\" is a scalar; its first dimension should be the "
                    "sample",
                    e->name);
    const size_t n = (size_t)e->t.dims[0];
    if (n == 0)
        return fail(err, RUNG_EFORMAT, "array \"%s\" holds no samples", e->name);
    if (k && n != d->total)
        return fail(err, RUNG_EFORMAT, "array \"%s\" holds %zu samples, \"%s\" %zu", e->name, n,
                    d->names[0], d->total);
    a->t[k] = e->t;
    a->bytes[k] = npy_item_bytes(e->t.type);
    for (int i = 1; i < e->t.rank; i++)
        a->bytes[k] *= (size_t)e->t.dims[i];
    d->total = n;
    d->n_inputs++;
    return RUNG_OK;
}

/* Element i of integers of any width; false when it is not a label. */
static bool label_at(const rung_tensor *t, size_t i, int64_t *out)
{
    const size_t bytes = npy_item_bytes(t->type);
    const bool is_signed =
        t->type == RUNG_I8 || t->type == RUNG_I16 || t->type == RUNG_I32 || t->type == RUNG_I64;
    const unsigned char *p = (const unsigned char *)t->data + i * bytes;
    uint64_t v = is_signed && p[bytes - 1] >> 7 ? UINT64_MAX : 0;
    for (size_t b = bytes; b--;)
        v = v << 8 | p[b];
    *out = (int64_t)v;
    return *out >= (is_signed ? -1 : 0);
}

static rung_status use_labels(dataset *d, const npz_entry *e, rung_error *err)
{
    const rung_tensor *t = &e->t;
    const bool is_column = t->rank == 1 || (t->rank == 2 && t->dims[1] == 1);
    const bool is_float = t->type == RUNG_F16 || t->type == RUNG_F32 || t->type == RUNG_F64;
    if (is_float || t->type == RUNG_BOOL || !is_column || (size_t)t->dims[0] != d->total)
        return fail(err, RUNG_EFORMAT, "array \"y\" should hold %zu integers, the labels",
                    d->total);
    int64_t *labels = arena_zero(d->mem, d->total, sizeof *labels);
    if (!labels)
        return fail_memory(err, "the labels", d->total * sizeof *labels);
    for (size_t i = 0; i < d->total; i++)
        if (!label_at(t, i, &labels[i]))
            return fail(err, RUNG_EFORMAT,
                        "label %zu of array \"y\" is %lld; labels are 0, 1, ..., "
                        "or -1 where unknown",
                        i, (long long)labels[i]);
    d->labels = labels;
    return RUNG_OK;
}

/* The array y is the labels, if there is another; x alone goes to the model's only input. */
static rung_status use_arrays(dataset *d, const npz_entry *entries, int n, rung_error *err)
{
    const npz_entry *y = NULL;
    arrays *a = arena_zero(d->mem, 1, sizeof *a);
    const char **names = arena_zero(d->mem, (size_t)n, sizeof *names);
    if (!a || !names || !(a->t = arena_zero(d->mem, (size_t)n, sizeof *a->t)) ||
        !(a->bytes = arena_zero(d->mem, (size_t)n, sizeof *a->bytes)))
        return fail_memory(err, "the list of arrays", (size_t)n * sizeof *a->t);
    d->names = names;
    d->state = a;
    d->read = read_arrays;
    for (int i = 0; i < n; i++) {
        if (n > 1 && strcmp(entries[i].name, "y") == 0) {
            y = &entries[i];
            continue;
        }
        names[d->n_inputs] = entries[i].name;
        rung_status st = add_input(d, a, &entries[i], err);
        if (st != RUNG_OK)
            return st;
    }
    if (d->n_inputs == 1 && strcmp(names[0], "x") == 0)
        names[0] = "";
    return y ? use_labels(d, y, err) : RUNG_OK;
}

rung_status source_npy(dataset *d, const char *path, rung_error *err)
{
    npz_entry e = {.name = "x"};
    rung_status st = source_map(path, d->mem, &d->file, err);
    if (st != RUNG_OK)
        return st;
    st = npy_view(d->file->map.data, d->file->map.size, &e.t, err);
    if (st == RUNG_OK)
        st = use_arrays(d, &e, 1, err);
    return st == RUNG_OK ? st : fail_at(err, st, "%s", path);
}

rung_status source_npz(dataset *d, const char *path, rung_error *err)
{
    npz_entry *entries;
    int n;
    rung_status st = source_map(path, d->mem, &d->file, err);
    if (st != RUNG_OK)
        return st;
    st = npz_view(d->file->map.data, d->file->map.size, d->mem, &entries, &n, err);
    if (st == RUNG_OK && n == 0)
        st = fail(err, RUNG_EFORMAT, "the archive holds no array");
    if (st == RUNG_OK)
        st = use_arrays(d, entries, n, err);
    return st == RUNG_OK ? st : fail_at(err, st, "%s", path);
}
