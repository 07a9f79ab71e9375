/* Floats that came from bytes, kept as bytes: a pixel that was scaled and shifted has one of 256
 * values per channel. Exact to the bit; what has more values stays as it is. */
#include <string.h>

#include "quant/method.h"

enum { VALUES = 256, SLOTS = 1024 };

/* Codes of one channel's values, by hash. */
typedef struct dictionary {
    uint32_t key[SLOTS];
    int16_t  code[SLOTS]; /* -1: free */
    int      n;
} dictionary;

static uint32_t bits_of(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

/* Its code, a new one where there is room; -1: there is none. */
static int code_of(dictionary *d, uint32_t key, float *values)
{
    uint32_t at = key * 2654435761u >> 22;
    while (d->code[at] >= 0 && d->key[at] != key)
        at = (at + 1) % SLOTS;
    if (d->code[at] < 0) {
        if (d->n == VALUES)
            return -1;
        d->key[at] = key;
        d->code[at] = (int16_t)d->n;
        memcpy(&values[d->n++], &key, sizeof key);
    }
    return d->code[at];
}

static bool encode(const float *x, size_t n, size_t channels, size_t inner, dictionary *d,
                   packed *to)
{
    memset(d, 0, channels * sizeof *d);
    for (size_t c = 0; c < channels; c++)
        memset(d[c].code, -1, sizeof d[c].code);
    for (size_t i = 0; i < n; i++) {
        const size_t c = i / inner % channels;
        const int code = code_of(&d[c], bits_of(x[i]), to->values + c * VALUES);
        if (code < 0)
            return false;
        to->codes[i] = (uint8_t)code;
    }
    to->channels = channels;
    to->inner = inner;
    return true;
}

/* Channels are second or last, if they are few. */
static bool try_layouts(const rung_tensor *t, size_t n, dictionary *d, packed *to)
{
    size_t inner = 1;
    for (int i = 2; i < t->rank; i++)
        inner *= (size_t)t->dims[i];
    const size_t second = t->rank > 1 ? (size_t)t->dims[1] : 0;
    const size_t last = t->rank > 0 ? (size_t)t->dims[t->rank - 1] : 0;
    return (second >= 1 && second <= PACKED_CHANNELS && encode(t->data, n, second, inner, d, to)) ||
           (last >= 1 && last <= PACKED_CHANNELS && encode(t->data, n, last, 1, d, to)) ||
           encode(t->data, n, 1, 1, d, to);
}

bool pack_tensor(arena *mem, const rung_tensor *t, packed *to)
{
    const size_t size = rung_tensor_bytes(t), n = size / sizeof(float);
    *to = (packed){ .t = *t };
    arena *scratch = arena_new();
    dictionary *d = scratch ? arena_alloc(scratch, PACKED_CHANNELS * sizeof *d) : NULL;
    packed trial = *to;
    trial.codes = scratch ? arena_alloc(scratch, n) : NULL;
    trial.values = scratch ? arena_zero(scratch, PACKED_CHANNELS * VALUES, sizeof(float)) : NULL;
    bool good = d && trial.codes && trial.values;
    if (good && t->type == RUNG_F32 && n > PACKED_CHANNELS * VALUES &&
        try_layouts(t, n, d, &trial)) {
        trial.codes = arena_copy(mem, trial.codes, n);
        trial.values = arena_copy(mem, trial.values, trial.channels * VALUES * sizeof(float));
        trial.t.data = NULL;
        *to = trial;
        good = to->codes && to->values;
    } else if (good) {
        to->t.data = arena_copy(mem, t->data, size);
        good = to->t.data != NULL;
    }
    arena_free(scratch);
    return good;
}

size_t packed_bytes(const packed *p)
{
    const size_t size = rung_tensor_bytes(&p->t);
    return p->codes ? size / sizeof(float) + p->channels * VALUES * sizeof(float) : size;
}

bool unpack_tensor(const packed *p, arena *mem, int n_threads, rung_tensor *to)
{
    const size_t n = rung_tensor_bytes(&p->t) / sizeof(float);
    *to = p->t;
    if (!p->codes)
        return true;
    float *x = arena_alloc(mem, n * sizeof *x);
    to->data = x;
    const size_t rows = n / p->inner;
#pragma omp parallel for num_threads(n_threads) if (x && n_threads > 1 && p->inner > 1)
    for (size_t r = 0; r < rows; r++) {
        const float *values = p->values + r % p->channels * VALUES;
        for (size_t i = 0; x && i < p->inner; i++)
            x[r * p->inner + i] = values[p->codes[r * p->inner + i]];
    }
    return x != NULL;
}
