/* Observations of several processes. */
#include <string.h>

#include "base/mem.h"
#include "quant/histogram.h"

/* An observer as it travels. */
typedef struct parcel {
    observer head;
    uint64_t bins[HIST_SLOTS];
} parcel;

static size_t wrap(const observer *o, parcel *to)
{
    to->head = *o;
    if (!o->bins)
        return sizeof to->head;
    memcpy(to->bins, o->bins, sizeof to->bins);
    return sizeof *to;
}

/* p as an observer that reads p's bins. */
static observer view(parcel *p, const observer *like)
{
    observer o = p->head;
    o.bins = like->bins ? p->bins : NULL;
    return o;
}

/* o: this process's; all: none so far. */
static rung_status gather(ranks *r, const observer *o, observer *all, parcel *p, rung_error *err)
{
    for (int from = 0; from < ranks_count(r); from++) {
        const size_t size = wrap(o, p);
        const rung_status st = ranks_share(r, from, p, size, err);
        if (st != RUNG_OK)
            return st;
        const observer other = view(p, o);
        observer_append(all, &other);
    }
    return RUNG_OK;
}

static rung_status join(ranks *r, observer *o, parcel *p, rung_error *err)
{
    observer *all = observer_new(o->bins != NULL);
    const rung_status st = all ? gather(r, o, all, p, err)
                               : fail_memory(err, "observations of all processes", sizeof *p);
    if (st == RUNG_OK) {
        const observer mine = *o;
        *o = *all;
        *all = mine;
    }
    observer_free(all);
    return st;
}

rung_status observers_join(ranks *r, observer *const *list, size_t n, rung_error *err)
{
    rung_status st = RUNG_OK;
    if (!r)
        return st;
    parcel *p = mem_zero(1, sizeof *p);
    if (!p)
        return fail_memory(err, "observations of all processes", sizeof *p);
    for (size_t i = 0; i < n && st == RUNG_OK; i++)
        if (list[i])
            st = join(r, list[i], p, err);
    mem_free(p);
    return st;
}
