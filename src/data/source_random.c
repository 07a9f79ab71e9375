/* Noise of the model's input shapes: to measure latency with. */
#include "data/source.h"

#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "data/npy.h"

typedef struct noise {
    rung_tensor *t; /* [n_inputs] one sample, no data */
    size_t *count;  /* [n_inputs] its elements */
    size_t *offset; /* [n_inputs + 1] where its data goes in a thread's memory */
    uint64_t seed;
} noise;

static void fill_floats(rng *r, const rung_tensor *t, size_t n)
{
    float *f = t->data;
    double *d = t->data;
    for (size_t i = 0; t->type == RUNG_F32 && i < n; i++)
        f[i] = rng_normal(r);
    for (size_t i = 0; t->type == RUNG_F64 && i < n; i++)
        d[i] = rng_normal(r);
}

/* Bytes take all their values; wider integers, which may be indices or masks, 0 and 1, which are
 * valid as both. Little-endian, as npy is. */
static void fill_integers(rng *r, const rung_tensor *t, size_t n)
{
    const size_t bytes = npy_item_bytes(t->type);
    const uint64_t below = t->type == RUNG_U8 || t->type == RUNG_I8 ? 256 : 2;
    unsigned char *p = t->data;
    memset(p, 0, n * bytes);
    for (size_t i = 0; i < n; i++)
        p[i * bytes] = (unsigned char)rng_below(r, below);
}

/* Sample i has its own generator, so that the reading order does not matter. */
static rung_status read_noise(const dataset *d, size_t i, scratch *s, rung_tensor *inputs,
                              rung_error *err)
{
    const noise *z = d->state;
    char *data = buffer_need(&s->values, z->offset[d->n_inputs]);
    if (!data)
        return fail_memory(err, "a random sample", z->offset[d->n_inputs]);
    rng r;
    rng_seed(&r, z->seed + i * UINT64_C(0x9e3779b97f4a7c15)); /* apart: the golden ratio */
    for (int k = 0; k < d->n_inputs; k++) {
        inputs[k] = z->t[k];
        inputs[k].data = data + z->offset[k];
        if (z->t[k].type == RUNG_F32 || z->t[k].type == RUNG_F64)
            fill_floats(&r, &inputs[k], z->count[k]);
        else
            fill_integers(&r, &inputs[k], z->count[k]);
    }
    return RUNG_OK;
}

/* Takes the shape `like` of the model's input k, whose first dimension is the batch. */
static rung_status add_shape(noise *z, int k, const rung_tensor *like, const char *name,
                             rung_error *err)
{
    enum { ALIGNMENT = 64 };
    rung_tensor *t = &z->t[k];
    size_t bytes = npy_item_bytes(like->type);
    if (bytes == 0 || like->type == RUNG_F16)
        return fail(err, RUNG_EUNSUPPORTED, "input \"%s\": no random data for element type %d",
                    name, (int)like->type);
    if (like->rank < 1 || like->rank > RUNG_MAX_RANK)
        return fail(err, RUNG_EARGUMENT, "input \"%s\" has no batch dimension", name);
    *t = (rung_tensor){.type = like->type, .rank = like->rank - 1};
    z->count[k] = 1;
    for (int i = 0; i < t->rank; i++) {
        t->dims[i] = like->dims[i + 1];
        if (t->dims[i] <= 0 || !mul_fits(z->count[k], (size_t)t->dims[i], &z->count[k]))
            return fail(err, RUNG_EARGUMENT, "input \"%s\": dimension %d is %lld", name, i + 1,
                        (long long)t->dims[i]);
    }
    if (!mul_fits(z->count[k], bytes, &bytes) || bytes > SIZE_MAX / 2 - z->offset[k])
        return fail(err, RUNG_EARGUMENT, "input \"%s\" is too large", name);
    z->offset[k + 1] = (z->offset[k] + bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return RUNG_OK;
}

rung_status source_random(dataset *d, const dataset_options *opt, rung_error *err)
{
    const size_t n = opt->n_random > 0 ? (size_t)opt->n_random : 0;
    if (n == 0 || !opt->random_like)
        return fail(err, RUNG_EARGUMENT, "random data needs a model, whose inputs it is made for");
    noise *z = arena_zero(d->mem, 1, sizeof *z);
    const char **names = arena_zero(d->mem, n, sizeof *names);
    if (!z || !names || !(z->t = arena_zero(d->mem, n, sizeof *z->t)) ||
        !(z->count = arena_zero(d->mem, n, sizeof *z->count)) ||
        !(z->offset = arena_zero(d->mem, n + 1, sizeof *z->offset)))
        return fail_memory(err, "random data", n * sizeof *z->t);
    for (size_t k = 0; k < n; k++) {
        names[k] = arena_strdup(d->mem, opt->random_names ? opt->random_names[k] : "");
        if (!names[k])
            return fail_memory(err, "the name of an input", 0);
        rung_status st = add_shape(z, (int)k, &opt->random_like[k], names[k], err);
        if (st != RUNG_OK)
            return st;
    }
    z->seed = opt->seed;
    d->state = z;
    d->names = names;
    d->n_inputs = (int)n;
    d->total = SIZE_MAX; /* as many as the range asks for */
    d->is_random = true;
    d->read = read_noise;
    return RUNG_OK;
}
