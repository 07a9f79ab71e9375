#include "data/source.h"

#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "data/npy.h"

/* Workers take samples in the reading order and copy them into a ring of batches; batch b is in
 * slot b % n_slots. A sample is taken only once its slot is free of older batches, so memory is
 * bounded. The first sample of a batch settles its shapes and the others wait for it: no deadlock,
 * since it was taken before them and itself waits for nothing. */
typedef struct slot {
    batch b;
    buffer *data;    /* [n_inputs] */
    int64_t *labels; /* [batch_size], when the set has labels */
    size_t n_left;   /* samples that are not in yet */
    bool is_shaped;
    size_t first_failed; /* position in the batch; SIZE_MAX: none */
    rung_status status;  /* of that sample, and its error */
    rung_error error;
} slot;

typedef struct worker {
    loader *l;
    pthread_t thread;
    scratch memory;
    rung_tensor *inputs; /* [n_inputs] the sample it has read */
} worker;

struct loader {
    const dataset *d;
    arena *mem;
    const size_t *order; /* NULL: as they come */
    size_t n_order, batch_size, n_batches;
    slot *slots;
    size_t n_slots;
    worker *workers;
    int n_workers;          /* running */
    pthread_mutex_t lock;   /* over all below and the slots */
    pthread_cond_t changed; /* a slot was freed, shaped or filled, or all stops */
    size_t next;            /* position in the order of the next sample to be taken */
    size_t n_done;          /* batches that the caller is through with */
    bool has_current, is_stopping;
};

static size_t sample_at(const loader *l, size_t position)
{
    return l->d->first + (l->order ? l->order[position] : position);
}

static slot *slot_of(const loader *l, size_t b)
{
    return &l->slots[b % l->n_slots];
}

/* Makes its slot ready for batch b. */
static void prepare(loader *l, size_t b)
{
    if (b >= l->n_batches)
        return;
    slot *s = slot_of(l, b);
    const size_t first = b * l->batch_size, rest = l->n_order - first;
    s->b.first = first;
    s->b.n = rest < l->batch_size ? rest : l->batch_size;
    s->n_left = s->b.n;
    s->is_shaped = false;
    s->first_failed = SIZE_MAX;
    s->status = RUNG_OK;
    for (size_t i = 0; l->d->labels && i < s->b.n; i++)
        s->labels[i] = l->d->labels[sample_at(l, first + i)];
}

/* The next sample to read; false at the end. */
static bool take(loader *l, size_t *position)
{
    pthread_mutex_lock(&l->lock);
    while (!l->is_stopping && l->next < l->n_order &&
           l->next / l->batch_size >= l->n_done + l->n_slots)
        pthread_cond_wait(&l->changed, &l->lock);
    const bool has_one = !l->is_stopping && l->next < l->n_order;
    if (has_one)
        *position = l->next++;
    pthread_mutex_unlock(&l->lock);
    return has_one;
}

static size_t sample_bytes(const rung_tensor *t)
{
    size_t bytes = npy_item_bytes(t->type);
    for (int i = 0; i < t->rank; i++)
        bytes *= (size_t)t->dims[i];
    return bytes;
}

/* Gives the batch the shapes of its first sample, and memory for all its samples. */
static rung_status shape_batch(const loader *l, slot *s, const rung_tensor *sample, rung_error *err)
{
    for (int k = 0; k < l->d->n_inputs; k++) {
        rung_tensor *t = &s->b.inputs[k].t;
        size_t bytes = 0;
        t->type = sample[k].type;
        t->rank = sample[k].rank + 1;
        t->dims[0] = (int64_t)s->b.n;
        memcpy(t->dims + 1, sample[k].dims, (size_t)sample[k].rank * sizeof *t->dims);
        if (!mul_fits(sample_bytes(&sample[k]), s->b.n, &bytes) ||
            !(t->data = buffer_need(&s->data[k], bytes)))
            return fail_memory(err, "a batch", bytes);
    }
    return RUNG_OK;
}

static void say_dims(const int64_t *dims, int rank, char *text, size_t size)
{
    size_t n = 0;
    text[0] = '\0';
    for (int i = 0; i < rank && n < size; i++)
        n += (size_t)snprintf(text + n, size - n, "%s%lld", i ? "x" : "", (long long)dims[i]);
}

/* Only images can differ from each other: arrays and records have one shape. */
static rung_status check_shape(const loader *l, const slot *s, size_t i, const rung_tensor *sample,
                               rung_error *err)
{
    char name[PATH_MAX], first[PATH_MAX], is[64], expected[64];
    const rung_tensor *t = &s->b.inputs[0].t;
    if (!l->d->describe || memcmp(t->dims + 1, sample->dims, 3 * sizeof *t->dims) == 0)
        return RUNG_OK;
    l->d->describe(l->d, sample_at(l, s->b.first + i), name, sizeof name);
    l->d->describe(l->d, sample_at(l, s->b.first), first, sizeof first);
    say_dims(sample->dims, sample->rank, is, sizeof is);
    say_dims(t->dims + 1, sample->rank, expected, sizeof expected);
    return fail(err, RUNG_EARGUMENT,
                "%s is %s, but %s in the same batch is %s: bring all to one size by preprocessing "
                "(resize=WxH, or resize=N and crop=N; color=rgb where some are gray)",
                name, is, first, expected);
}

static void note_failure(slot *s, size_t i, rung_status st, const rung_error *err)
{
    if (st == RUNG_OK || i > s->first_failed)
        return;
    s->first_failed = i;
    s->status = st;
    s->error = *err;
}

/* Waits for, or settles, the batch's shapes; false when sample i is not to be copied. */
static bool admit(loader *l, slot *s, size_t i, rung_status st, const rung_tensor *sample,
                  rung_error *err)
{
    pthread_mutex_lock(&l->lock);
    while (i > 0 && !s->is_shaped && !l->is_stopping)
        pthread_cond_wait(&l->changed, &l->lock);
    if (st == RUNG_OK && i == 0)
        st = shape_batch(l, s, sample, err);
    else if (st == RUNG_OK && s->is_shaped && s->first_failed > 0)
        st = check_shape(l, s, i, sample, err);
    note_failure(s, i, st, err);
    if (i == 0) {
        s->is_shaped = true;
        pthread_cond_broadcast(&l->changed);
    }
    const bool is_admitted = st == RUNG_OK && s->is_shaped && s->first_failed > 0;
    pthread_mutex_unlock(&l->lock);
    return is_admitted;
}

static void deliver(worker *w, size_t position, rung_status st, rung_error *err)
{
    loader *l = w->l;
    slot *s = slot_of(l, position / l->batch_size);
    const size_t i = position % l->batch_size;
    if (admit(l, s, i, st, w->inputs, err))
        for (int k = 0; k < l->d->n_inputs; k++) {
            const size_t bytes = sample_bytes(&w->inputs[k]);
            if (bytes)
                memcpy((char *)s->data[k].data + i * bytes, w->inputs[k].data, bytes);
        }
    pthread_mutex_lock(&l->lock);
    if (--s->n_left == 0)
        pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->lock);
}

static void *work(void *context)
{
    worker *w = context;
    size_t position;
    while (take(w->l, &position)) {
        rung_error err = {""};
        const size_t i = sample_at(w->l, position);
        const rung_status st = w->l->d->read(w->l->d, i, &w->memory, w->inputs, &err);
        deliver(w, position, st, &err);
    }
    return NULL;
}

static rung_status make_slots(loader *l, rung_error *err)
{
    const size_t n_inputs = (size_t)l->d->n_inputs;
    const size_t n = (size_t)l->d->n_workers / l->batch_size + 2; /* the caller's, and one ahead */
    l->n_slots = l->n_batches < n ? l->n_batches : n;
    l->slots = arena_zero(l->mem, l->n_slots, sizeof *l->slots);
    if (!l->slots)
        return fail_memory(err, "the batches", l->n_slots * sizeof *l->slots);
    for (size_t b = 0; b < l->n_slots; b++) {
        slot *s = &l->slots[b];
        const size_t most = l->batch_size < l->n_order ? l->batch_size : l->n_order;
        s->b.n_inputs = l->d->n_inputs;
        s->b.inputs = arena_zero(l->mem, n_inputs, sizeof *s->b.inputs);
        s->data = arena_zero(l->mem, n_inputs, sizeof *s->data);
        s->labels = l->d->labels ? arena_zero(l->mem, most, sizeof *s->labels) : NULL;
        if (!s->b.inputs || !s->data || (l->d->labels && !s->labels))
            return fail_memory(err, "a batch", most * sizeof *s->labels);
        for (size_t k = 0; k < n_inputs; k++)
            s->b.inputs[k].name = l->d->names[k];
        s->b.labels = s->labels;
        prepare(l, b);
    }
    return RUNG_OK;
}

/* Signals stay with the threads of the caller. One worker is enough to go on. */
static rung_status start_workers(loader *l, rung_error *err)
{
    const int n = l->d->n_workers;
    sigset_t all, kept;
    l->workers = arena_zero(l->mem, (size_t)n, sizeof *l->workers);
    if (!l->workers)
        return fail_memory(err, "the workers", (size_t)n * sizeof *l->workers);
    for (int i = 0; i < n; i++) {
        worker *w = &l->workers[i];
        w->l = l;
        w->inputs = arena_zero(l->mem, (size_t)l->d->n_inputs, sizeof *w->inputs);
        if (!w->inputs)
            return fail_memory(err, "a worker", 0);
    }
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &kept);
    while (l->n_workers < n && pthread_create(&l->workers[l->n_workers].thread, NULL, work,
                                              &l->workers[l->n_workers]) == 0)
        l->n_workers++;
    pthread_sigmask(SIG_SETMASK, &kept, NULL);
    return l->n_workers ? RUNG_OK : fail(err, RUNG_EMEMORY, "cannot start a thread to read data");
}

static rung_status set_order(loader *l, const size_t *order, size_t n, rung_error *err)
{
    const size_t size = l->d->n;
    l->n_order = order ? n : size;
    l->n_batches = l->n_order / l->batch_size + (l->n_order % l->batch_size > 0);
    for (size_t i = 0; order && i < n; i++)
        if (order[i] >= size)
            return fail(err, RUNG_EARGUMENT, "sample %zu of a set of %zu", order[i], size);
    l->order = order ? arena_copy(l->mem, order, n * sizeof *order) : NULL;
    return l->order || !order ? RUNG_OK : fail_memory(err, "an order", n * sizeof *order);
}

static loader *loader_new(const dataset *d)
{
    loader *l = mem_zero(1, sizeof *l);
    if (!l)
        return NULL;
    l->d = d;
    l->mem = arena_new();
    if (!l->mem || pthread_mutex_init(&l->lock, NULL) != 0)
        goto no_lock;
    if (pthread_cond_init(&l->changed, NULL) == 0)
        return l;
    pthread_mutex_destroy(&l->lock);
no_lock:
    arena_free(l->mem);
    mem_free(l);
    return NULL;
}

rung_status loader_open(dataset *d, const size_t *order, size_t n_order, size_t batch_size,
                        loader **out, rung_error *err)
{
    *out = NULL;
    if (batch_size == 0)
        return fail(err, RUNG_EARGUMENT, "the batch size must be at least 1");
    loader *l = loader_new(d);
    if (!l)
        return fail_memory(err, "a loader", sizeof *l);
    l->batch_size = batch_size;
    rung_status st = set_order(l, order, n_order, err);
    if (st == RUNG_OK && l->n_batches)
        st = make_slots(l, err);
    if (st == RUNG_OK && l->n_batches)
        st = start_workers(l, err);
    if (st == RUNG_OK)
        *out = l;
    else
        loader_free(l);
    return st;
}

rung_status loader_next(loader *l, const batch **out, rung_error *err)
{
    rung_status st = RUNG_OK;
    *out = NULL;
    pthread_mutex_lock(&l->lock);
    if (l->has_current) {
        l->has_current = false;
        prepare(l, l->n_done + l->n_slots);
        l->n_done++;
        pthread_cond_broadcast(&l->changed);
    }
    if (l->n_done < l->n_batches) {
        const slot *s = slot_of(l, l->n_done);
        while (s->n_left)
            pthread_cond_wait(&l->changed, &l->lock);
        st = s->status;
        l->has_current = st == RUNG_OK; /* a failed batch stays: later calls fail as this one */
        if (l->has_current)
            *out = &s->b;
        else
            fail(err, st, "%s", s->error.message);
    }
    pthread_mutex_unlock(&l->lock);
    return st;
}

void loader_free(loader *l)
{
    if (!l)
        return;
    pthread_mutex_lock(&l->lock);
    l->is_stopping = true;
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->lock);
    for (int i = 0; i < l->n_workers; i++) {
        pthread_join(l->workers[i].thread, NULL);
        scratch_free(&l->workers[i].memory);
    }
    for (size_t b = 0; l->slots && b < l->n_slots; b++)
        for (int k = 0; l->slots[b].data && k < l->d->n_inputs; k++)
            buffer_free(&l->slots[b].data[k]);
    pthread_cond_destroy(&l->changed);
    pthread_mutex_destroy(&l->lock);
    arena_free(l->mem);
    mem_free(l);
}
